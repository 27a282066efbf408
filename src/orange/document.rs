//! **Pure**: the HTML document that starts the client (protocol section 10).
//!
//! Its body is empty: React finds a hydration mismatch, logs it once to the console, and renders the page itself.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use super::manifest::Build;
use crate::config::VERSION;

/// The alert that the client's production build shows once if its media does not come from Cloudflare. While it
/// is open the page sends no heartbeats, so its user drops out.
const ANYCAST_ALERT: &str = "You are not connected to CF anycast address";

/// The contents of a document.
#[derive(Clone, Copy, Debug)]
pub struct Document<'a> {
    /// The client's build.
    pub build: &'a Build,
    /// The ids of the page's routes, the root first.
    pub routes: &'a [String],
    /// The routes' data, by id.
    pub data: &'a Map<String, Value>,
    /// The path as it was sent. If it differs from the client's own, the client reloads for ever.
    pub path: &'a str,
    /// The nonce of our own scripts.
    pub nonce: &'a str,
}

impl Document<'_> {
    /// Renders the HTML.
    pub fn render(&self) -> String {
        let Self { build, nonce, .. } = self;
        let mut html = String::from(
            "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
             <title>Orange Meets</title>",
        );
        html.push_str(&self.without_alert());
        // Formatting into a String cannot fail.
        let mut write = |text: std::fmt::Arguments<'_>| {
            let _ = html.write_fmt(text);
        };
        let modules = || self.routes.iter().filter_map(|id| build.modules.get(id));
        for icon in &build.icons {
            write(format_args!("<link {icon}>"));
        }
        for style in unique(modules().flat_map(|module| &module.styles)) {
            write(format_args!("<link rel=\"stylesheet\" href=\"{}\">", attribute(style)));
        }
        let entry = std::iter::once(&build.entry);
        let preloaded = modules().chain(entry).flat_map(|module| module.imports.iter().chain([&module.url]));
        for url in unique([&build.url].into_iter().chain(preloaded)) {
            write(format_args!("<link rel=\"modulepreload\" href=\"{}\">", attribute(url)));
        }
        let (context, environment) = (self.context(), json!({"RELEASE": VERSION}));
        write(format_args!(
            "</head><body><noscript>This page needs JavaScript.</noscript>\
             <script nonce=\"{nonce}\">window.ENV={};window.__remixContext={};</script>\
             <script nonce=\"{nonce}\" type=\"module\">{}</script></body></html>",
            script(&environment),
            script(&context),
            self.start(),
        ));
        html
    }

    /// Returns a script that redirects [`ANYCAST_ALERT`] to the console; all other alerts are shown as before.
    fn without_alert(&self) -> String {
        let Self { nonce, .. } = self;
        let text = script(&ANYCAST_ALERT.into());
        format!(
            "<script nonce=\"{nonce}\">{{const show=window.alert;window.alert=function(text){{\
             if(String(text)==={text})console.info({text});else return show.apply(window,arguments)}}}}</script>"
        )
    }

    fn context(&self) -> Value {
        json!({
            "url": self.path,
            "future": {
                "v3_fetcherPersist": false,
                "v3_relativeSplatPath": false,
                "v3_throwAbortReason": false,
                "unstable_singleFetch": false,
                "unstable_lazyRouteDiscovery": false,
            },
            "state": {"loaderData": self.data, "actionData": null, "errors": null},
        })
    }

    /// Returns the module that registers the routes and starts the client.
    fn start(&self) -> String {
        let url = |url: &str| script(&url.into());
        let mut module = format!("import {};", url(&self.build.url));
        let mut routes = Vec::new();
        for (number, id) in self.routes.iter().enumerate() {
            if let Some(route) = self.build.modules.get(id) {
                let _ = write!(module, "import * as route{number} from {};", url(&route.url));
                routes.push(format!("{}:route{number}", script(&id.as_str().into())));
            }
        }
        let _ = write!(
            module,
            "window.__remixRouteModules={{{}}};import({});",
            routes.join(","),
            url(&self.build.entry.url)
        );
        module
    }
}

/// Escapes a value for a script: nothing in it can end the script or start a comment, and the line separators
/// of older JavaScript are escaped.
fn script(value: &Value) -> String {
    let mut text = String::new();
    for char in value.to_string().chars() {
        match char {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                let _ = write!(text, "\\u{:04x}", u32::from(char));
            }
            char => text.push(char),
        }
    }
    text
}

fn attribute(text: &str) -> String {
    text.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;")
}

fn unique<'a>(texts: impl Iterator<Item = &'a String>) -> Vec<&'a str> {
    let mut all: Vec<&str> = Vec::new();
    for text in texts {
        if !all.contains(&text.as_str()) {
            all.push(text);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::manifest::Module;
    use super::super::routes::Routes;
    use super::*;

    fn build() -> Build {
        let module = |name: &str| Module {
            url: format!("/build/{name}.js"),
            imports: vec!["/build/shared.js".to_owned()],
            styles: vec!["/build/a.css".to_owned()],
        };
        let ids = ["root", "routes/_index"];
        Build {
            url: "/build/manifest-1.js".to_owned(),
            entry: module("entry"),
            modules: ids.map(|id| (id.to_owned(), module(&id.replace('/', "-")))).into(),
            routes: Routes::orange(),
            icons: vec!["rel=\"icon\" href=\"/favicon.ico\""],
            warning: None,
        }
    }

    fn render(data: &Value, path: &str) -> String {
        let routes = ["root", "routes/_index"].map(str::to_owned);
        let data = data.as_object().unwrap();
        Document { build: &build(), routes: &routes, data, path, nonce: "n0" }.render()
    }

    #[test]
    fn document_contains_routes_data_and_entry() {
        let html = render(&json!({"root": {}, "routes/_index": {"username": "Ada"}}), "/a%20b");
        for part in [
            "<title>Orange Meets</title>",
            "<link rel=\"icon\" href=\"/favicon.ico\">",
            "<link rel=\"stylesheet\" href=\"/build/a.css\">",
            "<link rel=\"modulepreload\" href=\"/build/shared.js\">",
            "<script nonce=\"n0\">window.ENV={\"RELEASE\":\"",
            "\"url\":\"/a%20b\"",
            "\"loaderData\":{\"root\":{},\"routes/_index\":{\"username\":\"Ada\"}}",
            "<script nonce=\"n0\" type=\"module\">import \"/build/manifest-1.js\";\
             import * as route0 from \"/build/root.js\";import * as route1 from \"/build/routes-_index.js\";\
             window.__remixRouteModules={\"root\":route0,\"routes/_index\":route1};import(\"/build/entry.js\");",
        ] {
            assert!(html.contains(part), "{part}\n{html}");
        }
        for once in ["href=\"/build/shared.js\"", "href=\"/build/a.css\""] {
            assert_eq!(html.matches(once).count(), 1, "{once}");
        }
    }

    #[test]
    fn anycast_alert_script_runs_first() {
        let html = render(&json!({}), "/");
        let first = html.split_once("<script nonce=\"n0\">").unwrap().1.split_once("</script>").unwrap().0;
        assert_eq!(
            first,
            "{const show=window.alert;window.alert=function(text){\
             if(String(text)===\"You are not connected to CF anycast address\")\
             console.info(\"You are not connected to CF anycast address\");\
             else return show.apply(window,arguments)}}"
        );
        assert!(html.find("window.alert").unwrap() < html.find("modulepreload").unwrap());
    }

    #[test]
    fn name_cannot_end_the_script() {
        let name = "</script><script>alert(1)</script><!--\u{2028}\u{2029}&amp;";
        let html = render(&json!({"routes/_index": {"username": name}}), "/%3C/script%3E</script>");
        assert_eq!(html.matches("</script").count(), 3, "{html}");
        assert!(!html.contains("<!--") && !html.contains(['\u{2028}', '\u{2029}']), "{html}");
    }

    proptest! {
        #[test]
        fn escaped_value_round_trips(text in "[<>&a\\\\/\"!\u{2028}-]{0,12}") {
            let written = script(&json!({"a": text}));
            let harmful = written.contains(['<', '>', '&', '\u{2028}']);
            prop_assert!(!harmful);
            prop_assert_eq!(serde_json::from_str::<Value>(&written).unwrap(), json!({"a": text}));
        }
    }
}
