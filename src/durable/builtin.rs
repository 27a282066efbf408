//! The methods that every object has: `echo`, `increment`, `get_value` and `update`.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Number, Value};

use super::method::{Change, MethodCall, MethodError, MethodOutcome, Update};

/// The key that counters have if the caller names none.
const VALUE: &str = "value";

/// The key of the document that `update` writes.
const DOCUMENT: &str = "document";

/// Integers up to this one are exact as a double, which is all that a JavaScript client has.
const MAX_SAFE: f64 = 9_007_199_254_740_991.0;

/// Calls the method if it is built in; none for any other.
pub fn call(call: &MethodCall) -> Option<Result<MethodOutcome, MethodError>> {
    match call.target.name()? {
        "echo" => Some(Ok(outcome(call.params.clone(), None))),
        "increment" => Some(increment(call)),
        "get_value" => Some(get_value(call)),
        "update" => Some(update(call)),
        _ => None,
    }
}

/// The outcome of a method that sets one key, of which the sockets are told.
fn outcome(result: Box<RawValue>, set: Option<(Arc<str>, Arc<RawValue>)>) -> MethodOutcome {
    let (changes, updates) = match set {
        Some((key, value)) => {
            let update = Update { key: key.clone(), value: value.clone() };
            (vec![Change::Put { key, value }], vec![update])
        }
        None => (Vec::new(), Vec::new()),
    };
    MethodOutcome { result, changes, updates, alarm: None }
}

/// The members of the parameters.
fn members(params: &RawValue) -> Result<Map<String, Value>, MethodError> {
    serde_json::from_str(params.get())
        .map_err(|_| MethodError::Invalid("the parameters are to be a JSON object".to_owned()))
}

/// The key that the parameters name.
fn key(params: &Map<String, Value>) -> Result<Arc<str>, MethodError> {
    match params.get("key") {
        None => Ok(VALUE.into()),
        Some(Value::String(key)) => Ok(key.as_str().into()),
        Some(_) => Err(MethodError::Invalid("key is to be a text".to_owned())),
    }
}

fn json<T: Serialize>(value: &T) -> Result<Box<RawValue>, MethodError> {
    to_raw_value(value).map_err(|_| MethodError::Failed("the result is no JSON".to_owned()))
}

/// `increment {increment = 1, key = "value"}`: adds to a number; a missing one is 0.
fn increment(call: &MethodCall) -> Result<MethodOutcome, MethodError> {
    let invalid = |sentence: &str| MethodError::Invalid(sentence.to_owned());
    let params = members(&call.params)?;
    let key = key(&params)?;
    let number = |value: &Value| match value {
        Value::Number(number) => Some(number.clone()),
        _ => None,
    };
    let by = match params.get("increment") {
        None => Number::from(1),
        Some(by) => number(by).ok_or_else(|| invalid("increment is to be a number"))?,
    };
    let old = match call.state.get(&key) {
        None => Number::from(0),
        Some(old) => serde_json::from_str(old.get()).map_err(|_| invalid("the value is no number"))?,
    };
    let new = sum(&old, &by).ok_or_else(|| invalid("the sum is no number"))?;
    let value: Arc<RawValue> = Arc::from(json(&new)?);
    Ok(outcome(json(&serde_json::json!({ "value": new }))?, Some((key, value))))
}

/// The sum of two numbers; none if it is not finite. A sum of integers is exact.
fn sum(a: &Number, b: &Number) -> Option<Number> {
    if let Some(sum) = a.as_i64().zip(b.as_i64()).and_then(|(a, b)| a.checked_add(b)) {
        return Some(sum.into());
    }
    let sum = a.as_f64()? + b.as_f64()?;
    // As JavaScript writes it: 1.5 + 1.5 is 3, not 3.0.
    let is_integer = sum.fract() == 0.0 && sum.abs() <= MAX_SAFE;
    #[expect(clippy::cast_possible_truncation, reason = "an integer of at most 53 bits")]
    if is_integer { Some((sum as i64).into()) } else { Number::from_f64(sum) }
}

/// `get_value {key = "value"}`: a value, or 0 if there is none.
fn get_value(call: &MethodCall) -> Result<MethodOutcome, MethodError> {
    #[derive(Serialize)]
    struct Found<'a> {
        value: &'a RawValue,
    }
    let zero = json(&0)?;
    let key = key(&members(&call.params)?)?;
    let value = call.state.get(&key).map_or(&*zero, |value| &**value);
    Ok(outcome(json(&Found { value })?, None))
}

/// `update {content}`: replaces the document, and counts its version.
fn update(call: &MethodCall) -> Result<MethodOutcome, MethodError> {
    #[derive(Deserialize)]
    struct Params {
        content: Option<Box<RawValue>>,
    }
    #[derive(Deserialize)]
    struct Version {
        version: Option<Number>,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Document {
        content: Box<RawValue>,
        version: Number,
        last_modified: String,
    }
    let required = || MethodError::Failed("Content is required".to_owned());
    let params: Params = serde_json::from_str(call.params.get())
        .map_err(|_| MethodError::Invalid("the parameters are to be a JSON object".to_owned()))?;
    let content = params.content.ok_or_else(required)?;
    // Whatever counts as nothing in JavaScript.
    if matches!(content.get(), "\"\"" | "false" | "0") {
        return Err(required());
    }
    let before = call.state.get(DOCUMENT).and_then(|document| serde_json::from_str(document.get()).ok());
    let version = before.and_then(|Version { version }| version).unwrap_or_else(|| Number::from(0));
    let version = sum(&version, &Number::from(1)).unwrap_or_else(|| Number::from(1));
    let document = json(&Document { content, version, last_modified: timestamp(call.at) })?;
    Ok(outcome(document.clone(), Some((DOCUMENT.into(), Arc::from(document)))))
}

/// A time in milliseconds since 1970 as in JavaScript's `toISOString`.
pub fn timestamp(millis: u64) -> String {
    const LAST: u64 = 253_402_300_799_999;
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(millis.min(LAST))).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::durable::method::{ObjectState, Payer, Target};
    use crate::id::ObjectId;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    /// Calls a method on an object with `state`; the result or the error, then the changes.
    fn called(method: &str, params: &str, state: &[(&str, &str)]) -> String {
        let state: ObjectState =
            state.iter().map(|(key, value)| ((*key).into(), Arc::from(raw(value)))).collect();
        let target = Target::Method(method.to_owned());
        let object = ObjectId::parse("o").unwrap();
        let (params, state) = (raw(params), Arc::new(state));
        let at = 1_795_647_519_836;
        match call(&MethodCall {
            object,
            target,
            payer: Payer::Alarms,
            params,
            state,
            alarm: None,
            version: 0,
            at,
        }) {
            None => "none".to_owned(),
            Some(Err(error)) => format!("{error:?}"),
            Some(Ok(outcome)) => {
                let mut shown = outcome.result.to_string();
                for (change, update) in outcome.changes.iter().zip(&outcome.updates) {
                    let Change::Put { key, value } = change else { panic!("{change:?}") };
                    assert_eq!((key, value.get()), (&update.key, update.value.get()));
                    shown += &format!(" {key}={value}");
                }
                shown
            }
        }
    }

    #[test]
    fn methods_have_two_names() {
        assert_eq!(called("echo", r#"{"a": [1.0]}"#, &[]), r#"{"a": [1.0]}"#);
        assert_eq!(called("method_echo", "null", &[]), "null");
        for name in ["constructor", "__proto__", "toString", "method_", "method_method_echo", "Echo", ""] {
            assert_eq!(called(name, "{}", &[]), "none", "{name}");
        }
    }

    #[test]
    fn increment_adds_numbers_only() {
        for (params, value, expected) in [
            ("{}", None, r#"{"value":1} value=1"#),
            (r#"{"increment":0}"#, Some("4"), r#"{"value":4} value=4"#),
            (r#"{"increment":-3}"#, Some("1.5"), r#"{"value":-1.5} value=-1.5"#),
            (r#"{"increment":1.5}"#, Some("1.5"), r#"{"value":3} value=3"#),
            (
                r#"{"increment":1}"#,
                Some("9223372036854775807"),
                r#"{"value":9.223372036854776e+18} value=9.223372036854776e+18"#,
            ),
            (r#"{"increment":2,"key":"n"}"#, None, r#"{"value":2} n=2"#),
            (r#"{"increment":"3"}"#, None, r#"Invalid("increment is to be a number")"#),
            (r#"{"increment":null}"#, None, r#"Invalid("increment is to be a number")"#),
            ("{}", Some(r#""4""#), r#"Invalid("the value is no number")"#),
            (r#"{"increment":1e308}"#, Some("1.7e308"), r#"Invalid("the sum is no number")"#),
            (r#"{"key":1}"#, None, r#"Invalid("key is to be a text")"#),
            ("[]", None, r#"Invalid("the parameters are to be a JSON object")"#),
        ] {
            let state: Vec<_> = value.map(|value| ("value", value)).into_iter().collect();
            assert_eq!(called("increment", params, &state), expected, "{params} {value:?}");
        }
    }

    #[test]
    fn missing_value_is_zero() {
        assert_eq!(called("get_value", "{}", &[]), r#"{"value":0}"#);
        assert_eq!(called("get_value", "{}", &[("value", "null")]), r#"{"value":null}"#);
        assert_eq!(called("get_value", r#"{"key":"k"}"#, &[("k", "[1]")]), r#"{"value":[1]}"#);
    }

    #[test]
    fn document_counts_its_versions() {
        let first = r#"{"content":"a","version":1,"lastModified":"2026-11-25T22:58:39.836Z"}"#;
        assert_eq!(called("update", r#"{"content":"a"}"#, &[]), format!("{first} document={first}"));
        let second = called("update", r#"{"content":{"b":[]}}"#, &[("document", first)]);
        assert!(second.starts_with(r#"{"content":{"b":[]},"version":2,"#), "{second}");
        for params in ["{}", r#"{"content":""}"#, r#"{"content":null}"#] {
            assert_eq!(called("update", params, &[]), r#"Failed("Content is required")"#);
        }
    }
}
