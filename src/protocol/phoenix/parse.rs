//! Parsing of clients' frames.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Error, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::{ClientFrame, FramePayload, Ref, Version};

/// Size in bytes to which a topic is truncated: more than a room's name of 128 characters has, in any normalization
/// form, so that a truncated one is no room's. Its error reply names it, and so must not be as long as a message.
const MAX_TOPIC_BYTES: usize = 4096;

/// Size in bytes to which an event's name is truncated, as long as in binary frames. No event has so long a name.
const MAX_EVENT_BYTES: usize = 255;

/// First byte of a binary frame with a push.
const PUSH: u8 = 0;

/// A frame that is no message of the protocol. Phoenix closes its socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the frame is not a message of Phoenix Channels")]
pub struct Unreadable;

impl<'a> ClientFrame<'a> {
    /// Parses a text frame. Its JSON is read once; the payload stays as it is.
    ///
    /// An overlong topic or event is truncated and so unknown, which is an error of that message alone: the clients
    /// of a closed socket return at once, and would send it again.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub fn parse(version: Version, text: &'a str) -> Result<Self, Unreadable> {
        let frame = match version {
            // An array would be taken for the values of an object's fields.
            Version::V1 if !text.trim_start().starts_with('{') => return Err(Unreadable),
            Version::V1 => {
                let frame: V1Frame = serde_json::from_str(text).map_err(|_| Unreadable)?;
                Self {
                    join_ref: frame.join_ref.0,
                    message_ref: frame.message_ref.0,
                    topic: frame.topic,
                    event: frame.event,
                    payload: FramePayload::Json(frame.payload),
                }
            }
            Version::V2 => serde_json::from_str::<V2Frame>(text).map_err(|_| Unreadable)?.0,
        };
        let Self { topic, event, .. } = frame;
        let (topic, event) = (truncated(topic, MAX_TOPIC_BYTES), truncated(event, MAX_EVENT_BYTES));
        Ok(Self { topic, event, ..frame })
    }

    /// Parses a binary frame, which only version 2 has: a push with bytes as its payload. An empty reference is
    /// none.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub fn parse_binary(version: Version, bytes: &'a [u8]) -> Result<Self, Unreadable> {
        let [PUSH, join_ref, message_ref, topic, event, rest @ ..] = bytes else { return Err(Unreadable) };
        if version == Version::V1 {
            return Err(Unreadable);
        }
        let mut rest = rest;
        let mut take = |bytes: &u8| {
            let (taken, left) = rest.split_at_checked(usize::from(*bytes)).ok_or(Unreadable)?;
            rest = left;
            str::from_utf8(taken).map_err(|_| Unreadable)
        };
        Ok(Self {
            join_ref: Ref::of_text(take(join_ref)?).filter(|join_ref| join_ref.as_json() != "\"\""),
            message_ref: Ref::of_text(take(message_ref)?).filter(|reference| reference.as_json() != "\"\""),
            topic: take(topic)?.into(),
            event: take(event)?.into(),
            payload: FramePayload::Bytes,
        })
    }
}

fn truncated(text: Cow<'_, str>, bytes: usize) -> Cow<'_, str> {
    if text.len() <= bytes { text } else { text[..text.floor_char_boundary(bytes)].to_owned().into() }
}

impl Ref {
    /// The reference of a decoded text; `None` if it is too long.
    fn of_text(text: &str) -> Option<Self> {
        let json = || serde_json::Value::from(text).to_string().into();
        (text.len() <= Self::MAX_BYTES).then(|| Self(json()))
    }
}

/// A reference, or `null`.
#[derive(Default)]
struct MaybeRef(Option<Ref>);

impl<'de> Deserialize<'de> for MaybeRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = <&RawValue>::deserialize(deserializer)?.get();
        match json.as_bytes() {
            b"null" => Ok(Self(None)),
            [b'"', ..] => {
                let text: Cow<'_, str> = serde_json::from_str::<Text>(json).map_err(Error::custom)?.0;
                Ref::of_text(&text)
                    .map(|reference| Self(Some(reference)))
                    .ok_or_else(|| Error::custom("too long"))
            }
            [b'-' | b'0'..=b'9', ..] if json.len() <= Ref::MAX_BYTES => Ok(Self(Some(Ref(json.into())))),
            _ => Err(Error::custom("neither a text nor a number")),
        }
    }
}

/// A text, borrowed unless it has escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// A frame of version 1. Only `join_ref` may be missing.
#[derive(Deserialize)]
struct V1Frame<'a> {
    #[serde(default)]
    join_ref: MaybeRef,
    #[serde(rename = "ref")]
    message_ref: MaybeRef,
    #[serde(borrow)]
    topic: Cow<'a, str>,
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow)]
    payload: &'a RawValue,
}

/// A frame of version 2: an array of five; further elements are ignored.
struct V2Frame<'a>(ClientFrame<'a>);

impl<'de: 'a, 'a> Deserialize<'de> for V2Frame<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Elements;
        impl<'de> Visitor<'de> for Elements {
            type Value = ClientFrame<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an array of five elements")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
                let few = |count| A::Error::invalid_length(count, &self);
                let frame = ClientFrame {
                    join_ref: elements.next_element::<MaybeRef>()?.ok_or_else(|| few(0))?.0,
                    message_ref: elements.next_element::<MaybeRef>()?.ok_or_else(|| few(1))?.0,
                    topic: elements.next_element::<Text>()?.ok_or_else(|| few(2))?.0,
                    event: elements.next_element::<Text>()?.ok_or_else(|| few(3))?.0,
                    payload: FramePayload::Json(elements.next_element()?.ok_or_else(|| few(4))?),
                };
                while elements.next_element::<IgnoredAny>()?.is_some() {}
                Ok(frame)
            }
        }
        deserializer.deserialize_seq(Elements).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The parts of a frame: references as JSON, topic, event, payload.
    type Parts = (Option<String>, Option<String>, String, String, String);

    fn parts(frame: &ClientFrame<'_>) -> Parts {
        let json = |reference: &Option<Ref>| reference.as_ref().map(|it| it.as_json().to_owned());
        let payload = match frame.payload {
            FramePayload::Json(json) => json.get().to_owned(),
            FramePayload::Bytes => "bytes".to_owned(),
        };
        let (topic, event) = (frame.topic.to_string(), frame.event.to_string());
        (json(&frame.join_ref), json(&frame.message_ref), topic, event, payload)
    }

    fn v1(text: &str) -> Result<Parts, Unreadable> {
        ClientFrame::parse(Version::V1, text).map(|frame| parts(&frame))
    }

    fn v2(text: &str) -> Result<Parts, Unreadable> {
        ClientFrame::parse(Version::V2, text).map(|frame| parts(&frame))
    }

    fn binary(bytes: &[u8]) -> Result<Parts, Unreadable> {
        ClientFrame::parse_binary(Version::V2, bytes).map(|frame| parts(&frame))
    }

    fn expected(join_ref: Option<&str>, message_ref: Option<&str>, event: &str, payload: &str) -> Parts {
        let owned = |reference: Option<&str>| reference.map(str::to_owned);
        (owned(join_ref), owned(message_ref), "room:a".to_owned(), event.to_owned(), payload.to_owned())
    }

    #[test]
    fn v2_frame_is_an_array_of_five() {
        let join = expected(Some(r#""1""#), Some(r#""2""#), "phx_join", r#"{"x": [1]}"#);
        assert_eq!(v2(r#"["1","2","room:a","phx_join",{"x": [1]}]"#), Ok(join.clone()));
        assert_eq!(v2(r#" [ "1" , "2" , "room:a", "phx_join" , {"x": [1]} , null, {} ] "#), Ok(join));
        let chat = expected(None, Some("-7.50"), "chat", "null");
        assert_eq!(v2(r#"[null,-7.50,"room\u003aa","ch\u0061t",null]"#), Ok(chat));
        for text in [
            "",
            "{}",
            "[]",
            "null",
            r#"["1","2","room:a","chat"]"#,
            r#"["1","2","room:a","chat",{}"#,
            r#"["1","2","room:a","chat",{}] x"#,
            r#"["1","2","room:a","chat",{x}]"#,
            r#"["1","2","room:a",null,{}]"#,
            r#"["1","2",null,"chat",{}]"#,
            r#"["1",true,"room:a","chat",{}]"#,
            r#"["1",["2"],"room:a","chat",{}]"#,
            r#"[{},"2","room:a","chat",{}]"#,
            r#"["1","2","\ud800","chat",{}]"#,
            r#"["1","\ud800","room:a","chat",{}]"#,
            r#"{"topic":"room:a","event":"chat","payload":{},"ref":null}"#,
        ] {
            assert_eq!(v2(text), Err(Unreadable), "{text}");
        }
    }

    /// It closed the socket, and the stock client sent it again 10 ms later, forever.
    #[test]
    fn overlong_topic_or_event_is_truncated() {
        let of = |topic: &str, event: &str| {
            let text = format!(r#"["1","2","{topic}","{event}",{{}}]"#);
            let frame = ClientFrame::parse(Version::V2, &text).unwrap();
            (frame.topic.into_owned(), frame.event.into_owned())
        };
        let (topic, event) = ("é".repeat(MAX_TOPIC_BYTES / 2), "x".repeat(MAX_EVENT_BYTES));
        assert_eq!(of(&topic, &event), (topic.clone(), event.clone()));
        assert_eq!(of(&format!("{topic}x"), &format!("{event}x")), (topic.clone(), event));
        let cut_within = format!("x{topic}");
        assert_eq!(of(&cut_within, "chat").0, cut_within[..MAX_TOPIC_BYTES - 1]);
    }

    #[test]
    fn v1_frame_is_an_object_of_four() {
        let join = expected(None, Some(r#""1""#), "phx_join", "{}");
        assert_eq!(v1(r#"{"topic":"room:a","event":"phx_join","payload":{},"ref":"1"}"#), Ok(join));
        let chat = expected(Some(r#""1""#), None, "chat", "7");
        assert_eq!(
            v1(r#"{"ref":null,"x":[[]],"payload":7,"event":"chat","topic":"room:a","join_ref":"1"}"#),
            Ok(chat)
        );
        for text in [
            r#"{"event":"chat","payload":{},"ref":"1"}"#,
            r#"{"topic":"room:a","payload":{},"ref":"1"}"#,
            r#"{"topic":"room:a","event":"chat","ref":"1"}"#,
            r#"{"topic":"room:a","event":"chat","payload":{}}"#,
            r#"[null,"1","room:a","chat",{}]"#,
        ] {
            assert_eq!(v1(text), Err(Unreadable), "{text}");
        }
    }

    #[test]
    fn equal_references_are_equal_in_any_spelling() {
        let join_ref = |text: &str| v2(&format!(r#"[{text},"1","room:a","chat",{{}}]"#)).unwrap().0;
        assert_eq!(join_ref(r#""\u0031\/""#), join_ref(r#""1/""#));
        assert_ne!(join_ref("1"), join_ref(r#""1""#));
    }

    #[test]
    fn reference_has_a_limit() {
        let text =
            |bytes: usize| v2(&format!(r#"[null,"{}","room:a","chat",{{}}]"#, "x".repeat(bytes))).is_ok();
        assert!(text(255) && !text(256));
        let number =
            |digits: usize| v2(&format!(r#"[1,{},"room:a","chat",{{}}]"#, "1".repeat(digits))).is_ok();
        assert!(number(255) && !number(256));
    }

    #[test]
    fn binary_frame_has_a_head_of_lengths() {
        let push = b"\x00\x01\x01\x06\x0412room:aecho\x01\x02\x03";
        assert_eq!(binary(push), Ok(expected(Some(r#""1""#), Some(r#""2""#), "echo", "bytes")));
        assert_eq!(binary(b"\x00\x00\x00\x06\x04room:aecho"), Ok(expected(None, None, "echo", "bytes")));
        for bytes in [
            &push[..16],
            b"",
            b"\x00\x00\x00",
            b"\x01\x00\x00\x06\x04room:aecho",
            b"\x00\x01\x00\x00\x00\xff",
        ] {
            assert_eq!(binary(bytes), Err(Unreadable), "{bytes:?}");
        }
        assert!(ClientFrame::parse_binary(Version::V1, push).is_err());
    }

    #[test]
    fn deep_payload_is_passed_on_unread() {
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        assert!(v2(&format!(r#"[null,"1","room:a","chat",{deep}]"#)).is_ok());
        assert!(v2(&format!(r#"[null,"1","room:a","chat",{{}},{deep}]"#)).is_ok());
        assert!(v2(&deep).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in ".*", bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = (v1(&text), v2(&text), binary(&bytes));
        }

        #[test]
        fn array_like_text_never_panics(
            items in prop::collection::vec(r#"null|-?[0-9]{1,3}|"[a-z:]{0,9}"|"\\u[0-9a-f]{4}"|\{\}|\[\[?"#, 0..7)
        ) {
            let _ = v2(&format!("[{}]", items.join(",")));
        }
    }
}
