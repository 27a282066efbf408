//! What is wrong, said to people on a page and to programs in a sentence.

use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};

use super::app::App;
use super::error::ApiError;
use super::site::{OWN_POLICY, OwnPage};
use crate::client::policy::protect;
use crate::client::visit::way;
use crate::identity::peer::Peer;

/// Where a page says what is wrong.
const MARK: &str = "<!--problem-->";

/// Where a form keeps what was typed.
const EMPTY: &str = "value=\"\"";

/// Answers with an error.
pub async fn answer(app: &App, peer: &Peer, headers: &HeaderMap, error: ApiError) -> Response {
    let page = if error == ApiError::NotFound { OwnPage::Nothing } else { OwnPage::Refused };
    show(app, peer, headers, error, page, "").await
}

/// Answers with an error and the form of `page` once more, in which stands what was typed.
pub async fn form_again(
    app: &App,
    peer: &Peer,
    headers: &HeaderMap,
    error: ApiError,
    page: OwnPage,
    typed: &str,
) -> Response {
    show(app, peer, headers, error, page, typed).await
}

async fn show(
    app: &App,
    peer: &Peer,
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
    // A folder of the operator's own may have pages that say nothing.
    if page != OwnPage::Nothing && !html.contains(MARK) {
        return response;
    }
    *response.body_mut() = filled(&html, &error.to_string(), typed).into();
    let answer = response.headers_mut();
    answer.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    protect(answer, OWN_POLICY, way(peer));
    response
}

/// Whether whoever asks shows pages to somebody.
pub fn wants_page(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|line| line.to_str().ok());
    accepted.into_iter().any(|line| line.contains("text/html"))
}

/// A page with a sentence in its place, and with what was typed.
fn filled(html: &str, sentence: &str, typed: &str) -> String {
    let mut letters = sentence.chars();
    let first = letters.next().into_iter().flat_map(char::to_uppercase);
    let sentence: String = first.chain(letters).collect();
    let problem = format!("<p class=\"warning\" id=\"problem\" role=\"alert\">{}.</p>", escaped(&sentence));
    html.replacen(EMPTY, &format!("value=\"{}\"", escaped(typed)), 1).replacen(MARK, &problem, 1)
}

/// A text as it may stand in HTML, between tags and in quoted attributes.
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
    fn what_was_typed_is_text_and_nothing_else() {
        let html = "<input value=\"\"><!--problem-->";
        let typed = "\"><script>a('&')</script><!--problem--> value=\"\"";
        assert_eq!(
            filled(html, "the field \"a\" is <wrong>", typed),
            "<input value=\"&quot;&gt;&lt;script&gt;a(&#39;&amp;&#39;)&lt;/script&gt;&lt;!--problem--&gt; \
             value=&quot;&quot;\"><p class=\"warning\" id=\"problem\" role=\"alert\">The field &quot;a&quot; is &lt;wrong&gt;.</p>"
        );
    }

    #[test]
    fn every_form_of_ours_has_a_place_for_the_sentence_and_for_what_was_typed() {
        for (page, typed) in [(OwnPage::Start, 1), (OwnPage::Name, 1), (OwnPage::Refused, 0)] {
            let html = std::fs::read_to_string(format!("static/{}", page.file())).unwrap();
            assert_eq!((html.matches(MARK).count(), html.matches(EMPTY).count()), (1, typed), "{page:?}");
        }
    }
}
