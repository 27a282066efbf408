//! The pages of errors: for browsers, the sentence of an error in a page; other clients get the sentence alone.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::{POLICY, Page, Site};
use crate::auth::peer::RemotePeer;
use crate::http::error::ApiError;
use crate::http::page_policy::protect;
use crate::http::request_guard::accepts_html;

/// Placeholder of the error message in a page.
const MARK: &str = "<!--problem-->";

/// Placeholder of the typed value in a form.
const EMPTY: &str = "value=\"\"";

/// A form that is shown again with the error; an extension of the error's response.
#[derive(Clone, Debug)]
struct FormAgain {
    page: Page,
    typed: String,
}

/// Returns an error whose page is the form of `page`, filled with the typed value.
pub fn form_again(error: ApiError, page: Page, typed: String) -> Response {
    let mut response = error.into_response();
    response.extensions_mut().insert(FormAgain { page, typed });
    response
}

/// Middleware that makes a page of an error for clients that accept HTML.
pub async fn error_pages(State(site): State<Arc<Site>>, request: Request, next: Next) -> Response {
    if !accepts_html(request.headers()) {
        return next.run(request).await;
    }
    let (peer, uri) = (request.extensions().get::<RemotePeer>().cloned(), request.uri().clone());
    let mut response = next.run(request).await;
    let (Some(&error), Some(peer)) = (response.extensions().get::<ApiError>(), peer) else { return response };
    let form = response.extensions_mut().remove::<FormAgain>();
    let page = match (&form, error) {
        (Some(form), _) => form.page,
        (None, ApiError::NotFound) => Page::NotFound,
        (None, _) => Page::Error,
    };
    let Ok(Some(html)) = site.files.text(page.file()).await else { return response };
    // Pages from the operator's own folder may have no placeholder.
    if page != Page::NotFound && !html.contains(MARK) {
        return response;
    }
    let typed = form.map(|form| form.typed).unwrap_or_default();
    let offers_sign_in = page == Page::Name || error.status() == StatusCode::UNAUTHORIZED;
    let html = if offers_sign_in { site.with_sign_in(&html, &uri, &peer) } else { html };
    *response.body_mut() = filled(&html, &error, &typed).into();
    let answer = response.headers_mut();
    answer.remove(CONTENT_LENGTH);
    answer.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    protect(answer, POLICY, &peer);
    response
}

/// Fills a page with the error message, which the page translates by its code as it does its other texts, and the typed
/// value.
fn filled(html: &str, error: &ApiError, typed: &str) -> String {
    let sentence = error.to_string();
    let mut letters = sentence.chars();
    let first = letters.next().into_iter().flat_map(char::to_uppercase);
    let sentence: String = first.chain(letters).collect();
    let problem = format!(
        "<p class=\"warning\" id=\"problem\" role=\"alert\" data-refusal=\"{}\">{}.</p>",
        error.code(),
        escaped(&sentence)
    );
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
        let error = ApiError::refused(StatusCode::BAD_REQUEST, "a_code", "the field \"a\" is <wrong>");
        assert_eq!(
            filled(html, &error, typed),
            "<input value=\"&quot;&gt;&lt;script&gt;a(&#39;&amp;&#39;)&lt;/script&gt;&lt;!--problem--&gt; \
             value=&quot;&quot;\"><p class=\"warning\" id=\"problem\" role=\"alert\" data-refusal=\"a_code\">The field &quot;a&quot; is &lt;wrong&gt;.</p>"
        );
    }

    #[test]
    fn forms_have_both_placeholders() {
        for (page, typed) in [(Page::Start, 1), (Page::Name, 1), (Page::Error, 0)] {
            let html = std::fs::read_to_string(format!("static/{}", page.file())).unwrap();
            assert_eq!((html.matches(MARK).count(), html.matches(EMPTY).count()), (1, typed), "{page:?}");
        }
    }
}
