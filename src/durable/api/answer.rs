//! Answers as JSON, byte for byte as the library's own worker gives them where that works.

use axum::body::Body;
use axum::http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::durable::error::ObjectError;
use crate::durable::token::LIFETIME;
use crate::room::message::SharedMessage;

/// A failure.
#[derive(Serialize)]
pub(super) struct Failure<'a> {
    /// The sentence for the client.
    pub(super) error: &'a str,
}

const HEADERS: [(HeaderName, HeaderValue); 2] = [
    (CONTENT_TYPE, HeaderValue::from_static("application/json")),
    (CACHE_CONTROL, HeaderValue::from_static("no-store")),
];

pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_string(value) {
        Ok(text) => (status, HEADERS, text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// The answer to a failed request.
pub(super) fn failed(error: &ObjectError) -> Response {
    let mut response = json(error.status(), &Failure { error: &error.to_string() });
    let header = match (error, error.status()) {
        (ObjectError::MethodNotAllowed(methods), _) => Some((ALLOW, HeaderValue::from_static(methods))),
        (_, StatusCode::UNAUTHORIZED) => Some((WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))),
        (_, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) => {
            Some((RETRY_AFTER, HeaderValue::from_static("1")))
        }
        _ => None,
    };
    response.headers_mut().extend(header);
    response
}

/// `{"success":true}`, with the key of a request that names one.
pub(super) fn of_success(key: Option<&str>) -> Response {
    #[derive(Serialize)]
    struct Success<'a> {
        success: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        key: Option<&'a str>,
    }
    json(StatusCode::OK, &Success { success: true, key })
}

/// One value.
pub(super) fn of_value(key: &str, value: &RawValue) -> Response {
    #[derive(Serialize)]
    struct Found<'a> {
        key: &'a str,
        value: &'a RawValue,
    }
    json(StatusCode::OK, &Found { key, value })
}

/// All values.
pub(super) fn of_state(state: SharedMessage) -> Response {
    (StatusCode::OK, HEADERS, Body::from(state.json().clone())).into_response()
}

/// A token, which is a secret, and the time within which it is to be used.
pub(super) fn of_token(token: &str) -> Response {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Token<'a> {
        token: &'a str,
        /// In seconds.
        expires_in: u64,
    }
    json(StatusCode::OK, &Token { token, expires_in: LIFETIME.as_secs() })
}

/// A JSON text.
pub(super) fn of_text(text: &str) -> Response {
    json(StatusCode::OK, &text)
}

/// The result of a method: under `result`, and where it is an object its members beside that, so that both ways of
/// reading it hold.
pub(super) fn of_method(result: &RawValue) -> Response {
    (StatusCode::OK, HEADERS, method_json(result)).into_response()
}

fn method_json(result: &RawValue) -> String {
    let mut text = format!("{{\"result\":{}", result.get());
    let length = text.len();
    let mut reader = serde_json::Deserializer::from_str(result.get());
    if reader.deserialize_map(MemberWriter(&mut text)).is_err() {
        // A result that is no object has no members, and neither has one with a name that is no text.
        text.truncate(length);
    }
    text.push('}');
    text
}

/// Writes the members of a JSON object behind a text, in their order.
struct MemberWriter<'t>(&'t mut String);

impl<'de> Visitor<'de> for MemberWriter<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
            if name != "result" {
                self.0.push(',');
                self.0.push_str(&serde_json::Value::String(name).to_string());
                self.0.push(':');
                self.0.push_str(value.get());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_is_read_in_both_ways() {
        for (result, text) in [
            (r#"{"value":1}"#, r#"{"result":{"value":1},"value":1}"#),
            ("4", r#"{"result":4}"#),
            ("null", r#"{"result":null}"#),
            (r#""{}""#, r#"{"result":"{}"}"#),
            (r#"[{"a":1}]"#, r#"{"result":[{"a":1}]}"#),
            ("{}", r#"{"result":{}}"#),
            (r#"{"a":1,"\ud800":2}"#, r#"{"result":{"a":1,"\ud800":2}}"#),
            (r#"{"result":2,"b":[1.0]}"#, r#"{"result":{"result":2,"b":[1.0]},"b":[1.0]}"#),
            (
                r#"{"\"é\u0000":{"__proto__":1}}"#,
                r#"{"result":{"\"é\u0000":{"__proto__":1}},"\"é\u0000":{"__proto__":1}}"#,
            ),
        ] {
            let result = RawValue::from_string(result.to_owned()).unwrap();
            assert_eq!(method_json(&result), text);
        }
    }
}
