//! The bytes of calls that one node passes on to another, and of their answers.
//!
//! A byte that tells if the rest is compressed, a head of JSON on one line, and the body of the call or of the answer as
//! it is. A reader ignores fields of the head that it does not know.

use std::borrow::Cow;
use std::io::Read;
use std::net::IpAddr;

use axum::body::Bytes;
use axum::http::{Method, StatusCode};
use flate2::Compression;
use flate2::read::{DeflateDecoder, DeflateEncoder};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::api::{CallTarget, Caller, PersonId};
use super::call::{Call, CallerRights};
use crate::id::PublishGrants;
use crate::network::ClientNetwork;

/// Version of the format.
const VERSION: u8 = 1;

/// Minimum size in bytes of what is compressed: session descriptions are repetitive.
const COMPRESSED_FROM: usize = 1024;

/// Maximum size in bytes of a head.
const MAX_HEAD_BYTES: usize = 64 << 10;

const PLAIN: u8 = 0;
const COMPRESSED: u8 = 1;

/// A call that is passed on.
#[derive(Debug)]
pub(super) struct PassedCall {
    /// The call.
    pub(super) call: Call,
    /// The rights of the person who makes it, if it is a person's.
    pub(super) rights: CallerRights,
}

/// The answer to a call that was passed on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PassedAnswer {
    /// The status.
    pub(super) status: StatusCode,
    /// Seconds after which the call may be repeated, if it may.
    pub(super) retry_after: Option<u16>,
    /// The body, JSON.
    pub(super) body: Bytes,
}

/// The bytes are no call or answer that this release knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a call of the media API that another node passed on, or one that this release does not know")]
pub(super) struct Unreadable;

#[derive(Deserialize, Serialize)]
struct CallHead<'a> {
    v: u8,
    method: &'a str,
    path: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    query: Option<Cow<'a, str>>,
    by: By<'a>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    network: Option<IpAddr>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
enum By<'a> {
    Person {
        #[serde(borrow)]
        id: Cow<'a, str>,
        publish: PublishGrants,
        subscribe: bool,
    },
    Agent,
    Server,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct AnswerHead {
    v: u8,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    retry_after: Option<u16>,
}

impl PassedCall {
    pub(super) fn encode(&self) -> Vec<u8> {
        let Self { call, rights } = self;
        let Call { target, caller, network, query, body } = call;
        let by = match caller {
            Caller::Person(id) => {
                By::Person { id: id.as_str().into(), publish: rights.publish, subscribe: rights.subscribe }
            }
            Caller::Ai => By::Agent,
            Caller::Server => By::Server,
        };
        let method = target.method();
        let head = CallHead {
            v: VERSION,
            method: method.as_str(),
            path: target.to_string().into(),
            query: query.as_deref().map(Cow::Borrowed),
            by,
            network: network.map(ClientNetwork::first_address),
        };
        pack(&head, body)
    }

    /// Decodes a call with a body of at most `body_bytes`.
    pub(super) fn decode(bytes: &[u8], body_bytes: usize) -> Result<Self, Unreadable> {
        let message = unpack(bytes, body_bytes)?;
        let (head, body) = split(&message)?;
        let CallHead { v, method, path, query, by, network } =
            serde_json::from_slice(head).map_err(|_| Unreadable)?;
        let method = Method::from_bytes(method.as_bytes()).map_err(|_| Unreadable)?;
        let target = CallTarget::parse(&method, &path).filter(|_| v == VERSION).ok_or(Unreadable)?;
        let (caller, rights) = match by {
            By::Person { id, publish, subscribe } => {
                (Caller::Person(PersonId::new(id.into_owned())), CallerRights { publish, subscribe })
            }
            By::Agent => (Caller::Ai, CallerRights::default()),
            By::Server => (Caller::Server, CallerRights::default()),
        };
        let call = Call {
            target,
            caller,
            network: network.map(ClientNetwork::containing),
            query: query.map(Cow::into_owned),
            body: Bytes::copy_from_slice(body),
        };
        Ok(Self { call, rights })
    }
}

impl PassedAnswer {
    pub(super) fn encode(&self) -> Vec<u8> {
        let Self { status, retry_after, body } = self;
        pack(&AnswerHead { v: VERSION, status: status.as_u16(), retry_after: *retry_after }, body)
    }

    /// Decodes an answer with a body of at most `body_bytes`.
    pub(super) fn decode(bytes: &[u8], body_bytes: usize) -> Result<Self, Unreadable> {
        let message = unpack(bytes, body_bytes)?;
        let (head, body) = split(&message)?;
        let AnswerHead { v, status, retry_after } = serde_json::from_slice(head).map_err(|_| Unreadable)?;
        let status = StatusCode::from_u16(status).ok().filter(|_| v == VERSION).ok_or(Unreadable)?;
        Ok(Self { status, retry_after, body: Bytes::copy_from_slice(body) })
    }
}

/// The bytes of a message of one node to another.
#[expect(clippy::expect_used, reason = "a head is plain data, and memory takes all bytes")]
pub fn pack(head: &impl Serialize, body: &[u8]) -> Vec<u8> {
    let head = serde_json::to_vec(head).expect("a head is plain data");
    let message = [&head, &b"\n"[..], body].concat();
    if message.len() < COMPRESSED_FROM {
        return [&[PLAIN][..], &message].concat();
    }
    let mut bytes = vec![COMPRESSED];
    DeflateEncoder::new(&message[..], Compression::fast())
        .read_to_end(&mut bytes)
        .expect("memory is readable");
    bytes
}

/// The head of a message of at most `most` bytes that has no body.
pub fn unpack_head<T: DeserializeOwned>(bytes: &[u8], most: usize) -> Option<T> {
    let message = unpack(bytes, most).ok()?;
    serde_json::from_slice(split(&message).ok()?.0).ok()
}

fn unpack(bytes: &[u8], body_bytes: usize) -> Result<Cow<'_, [u8]>, Unreadable> {
    let most = body_bytes.saturating_add(MAX_HEAD_BYTES);
    let (&kind, rest) = bytes.split_first().ok_or(Unreadable)?;
    let message = match kind {
        PLAIN => Cow::Borrowed(rest),
        COMPRESSED => {
            let limit = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
            let mut inflated = Vec::new();
            let read = DeflateDecoder::new(rest).take(limit).read_to_end(&mut inflated);
            read.map_err(|_| Unreadable)?;
            Cow::Owned(inflated)
        }
        _ => return Err(Unreadable),
    };
    if message.len() > most { Err(Unreadable) } else { Ok(message) }
}

/// The head and the body; JSON has no line break in itself.
fn split(message: &[u8]) -> Result<(&[u8], &[u8]), Unreadable> {
    let end = message.iter().position(|byte| *byte == b'\n').ok_or(Unreadable)?;
    let (head, body) = message.split_at_checked(end).ok_or(Unreadable)?;
    Ok((head, body.get(1..).ok_or(Unreadable)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::Grants;

    const MOST: usize = 200 << 10;

    fn passed(body: &str) -> PassedCall {
        let target = CallTarget::parse(&Method::PUT, "sessions/abc/renegotiate").unwrap();
        let caller = Caller::Person(PersonId::new("cookie:é\n"));
        let network = Some(ClientNetwork::containing([203, 0, 113, 7].into()));
        let (query, body) = (Some("a=b".to_owned()), Bytes::copy_from_slice(body.as_bytes()));
        let rights = CallerRights { publish: Grants::everyone().publish, subscribe: true };
        PassedCall { call: Call { target, caller, network, query, body }, rights }
    }

    /// As a release of version 1 wrote it.
    const RECORDED: &str = "\0{\"v\":1,\"method\":\"PUT\",\"path\":\"sessions/abc/renegotiate\",\"query\":\"a=b\",\"by\":{\"person\":{\"id\":\"cookie:é\\n\",\"publish\":{\"audio\":true,\"video\":true,\"screen\":true},\"subscribe\":true}},\"network\":\"203.0.113.7\"}\n{\"x\":\n1}";

    #[test]
    fn recorded_call_is_read_and_written() {
        let body = "{\"x\":\n1}";
        assert_eq!(String::from_utf8(passed(body).encode()).unwrap(), RECORDED);
        let read = PassedCall::decode(RECORDED.as_bytes(), MOST).unwrap();
        assert_eq!(format!("{read:?}"), format!("{:?}", passed(body)));
        let next = RECORDED.replace("\"v\":1,", "\"v\":1,\"new\":[1],");
        assert!(PassedCall::decode(next.as_bytes(), MOST).is_ok(), "an unknown field is ignored");
        for bad in ["", "\0", "\0{}\n", "\x07{}", &RECORDED.replace("sessions/abc", "rooms/abc")] {
            assert_eq!(PassedCall::decode(bad.as_bytes(), MOST).err(), Some(Unreadable), "{bad}");
        }
    }

    #[test]
    fn recorded_answer_is_read_and_written() {
        let recorded = "\0{\"v\":1,\"status\":503,\"retryAfter\":5}\n{}";
        let (status, body) = (StatusCode::SERVICE_UNAVAILABLE, Bytes::from_static(b"{}"));
        let answer = PassedAnswer { status, retry_after: Some(5), body };
        assert_eq!(String::from_utf8(answer.encode()).unwrap(), recorded);
        assert_eq!(PassedAnswer::decode(recorded.as_bytes(), MOST), Ok(answer));
        assert_eq!(PassedAnswer::decode(b"", MOST), Err(Unreadable), "of a node that knows no calls");
    }

    #[test]
    fn long_body_is_compressed_and_bounded() {
        let body = "a=rtpmap:96 VP8/90000\\r\\n".repeat(4000);
        let bytes = passed(&body).encode();
        assert!(bytes.len() < 2000, "{}", bytes.len());
        let read = PassedCall::decode(&bytes, MOST).unwrap();
        assert_eq!(read.call.body, body.as_bytes());
        assert!(PassedCall::decode(&bytes, 1024).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(kind in 0..3_u8, rest: Vec<u8>) {
            let bytes = [&[kind][..], &rest].concat();
            let _ = PassedCall::decode(&bytes, 1000);
            let _ = PassedAnswer::decode(&bytes, 1000);
        }
    }
}
