//! Error responses: a page for browsers, one sentence for other clients.

use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};

use super::app::App;
use super::error::ApiError;
use super::site::{OWN_POLICY, OwnPage};
use crate::client::policy::protect;
use crate::client::visit::way;
use crate::identity::peer::RemotePeer;

/// Placeholder of the error message in a page.
const MARK: &str = "<!--problem-->";

/// Placeholder of the typed value in a form.
const EMPTY: &str = "value=\"\"";

/// Returns the response for an error.
pub async fn answer(app: &App, peer: &RemotePeer, headers: &HeaderMap, error: ApiError) -> Response {
    let page = if error == ApiError::NotFound { OwnPage::Nothing } else { OwnPage::Refused };
    show(app, peer, headers, error, page, "").await
}

/// Returns an error together with the form of `page`, filled with the typed value.
pub async fn form_again(
    app: &App,
    peer: &RemotePeer,
    headers: &HeaderMap,
    error: ApiError,
    page: OwnPage,
    typed: &str,
) -> Response {
    show(app, peer, headers, error, page, typed).await
}

async fn show(
    app: &App,
    peer: &RemotePeer,
    headers: &HeaderMap,
    error: ApiError,
    page: OwnPage,
    typed: &str,
) -> Response {
    let mut response = error.into_response();
    if !wants_page(headers) {
        return response;
    }
    let Ok(Some(html)) = app.site.own.text(page.file()).await else { return response };
    // Pages from the operator's own folder may have no placeholder.
    if page != OwnPage::Nothing && !html.contains(MARK) {
        return response;
    }
    *response.body_mut() = filled(&html, &error.to_string(), typed).into();
    let answer = response.headers_mut();
    answer.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    protect(answer, OWN_POLICY, way(peer));
    response
}

/// True if the client accepts HTML.
pub fn wants_page(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|line| line.to_str().ok());
    accepted.into_iter().any(|line| line.contains("text/html"))
}

/// Fills a page with the error message and the typed value.
fn filled(html: &str, sentence: &str, typed: &str) -> String {
    let mut letters = sentence.chars();
    let first = letters.next().into_iter().flat_map(char::to_uppercase);
    let sentence: String = first.chain(letters).collect();
    let problem = format!("<p class=\"warning\" id=\"problem\" role=\"alert\">{}.</p>", escaped(&sentence));
    html.replacen(EMPTY, &format!("value=\"{}\"", escaped(typed)), 1).replacen(MARK, &problem, 1)
}

/// Escapes a text for HTML, between tags and in quoted attributes.
fn escaped(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            char => html.push(char),
        }
    }
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typed_value_is_escaped() {
        let html = "<input value=\"\"><!--problem-->";
        let typed = "\"><script>a('&')</script><!--problem--> value=\"\"";
        assert_eq!(
            filled(html, "the field \"a\" is <wrong>", typed),
            "<input value=\"&quot;&gt;&lt;script&gt;a(&#39;&amp;&#39;)&lt;/script&gt;&lt;!--problem--&gt; \
             value=&quot;&quot;\"><p class=\"warning\" id=\"problem\" role=\"alert\">The field &quot;a&quot; is &lt;wrong&gt;.</p>"
        );
    }

    #[test]
    fn forms_have_both_placeholders() {
        for (page, typed) in [(OwnPage::Start, 1), (OwnPage::Name, 1), (OwnPage::Refused, 0)] {
            let html = std::fs::read_to_string(format!("static/{}", page.file())).unwrap();
            assert_eq!((html.matches(MARK).count(), html.matches(EMPTY).count()), (1, typed), "{page:?}");
        }
    }
}
