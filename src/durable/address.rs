//! Addresses of requests: what they ask for, with their names decoded once.

use std::sync::Arc;

use axum::http::Method;
use percent_encoding::percent_decode_str;

use super::error::ObjectError;
use super::object::MAX_KEY_BYTES;
use crate::id::ObjectId;

/// A request as its address and HTTP method name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Sets several keys of an object.
    Initialize(ObjectId),
    /// Calls a method of an object.
    CallMethod(ObjectId, String),
    /// Reads an object.
    GetState(ObjectId),
    /// Reads one key.
    GetValue(ObjectId, Arc<str>),
    /// Sets one key.
    UpdateState(ObjectId, Arc<str>),
    /// Removes one key.
    DeleteState(ObjectId, Arc<str>),
    /// Asks for the id of a name in a namespace.
    GetNamespaceObject(ObjectId),
    /// Opens a socket.
    Socket(ObjectId),
    /// Asks for a token that opens the object's Phoenix topic.
    Token(ObjectId),
}

impl Target {
    /// Parses the path behind the key.
    ///
    /// # Errors
    /// [`ObjectError`] with the status of the answer.
    pub fn parse(method: &Method, path: &str) -> Result<Self, ObjectError> {
        let (first, rest) = split(path);
        match first {
            "initialize" => {
                only(method, &[Method::POST], "POST")?;
                Ok(Self::Initialize(object(rest.trim_end_matches('/'))?))
            }
            "object" => Self::of_object(method, rest),
            "namespace" => {
                let (namespace, rest) = split(rest);
                let ("id", name) = split(rest) else { return Err(ObjectError::NotFound) };
                only(method, &[Method::GET, Method::HEAD], "GET, HEAD")?;
                let (namespace, name) = (decoded(namespace)?, decoded(name)?);
                if namespace.is_empty() || name.is_empty() {
                    return Err(ObjectError::NotFound);
                }
                let id = ObjectId::parse(&format!("{}:{}", plain(&namespace, ""), plain(&name, ":")));
                Ok(Self::GetNamespaceObject(id.map_err(|_| {
                    ObjectError::InvalidName("the namespace and the name are too long for an object's id")
                })?))
            }
            _ => Err(ObjectError::NotFound),
        }
    }

    fn of_object(method: &Method, path: &str) -> Result<Self, ObjectError> {
        // Not trimmed behind: a key may begin with a slash.
        let (id, rest) = path.split_once('/').ok_or(ObjectError::NotFound)?;
        let rest = rest.trim_start_matches('/');
        let (what, name) = rest.split_once('/').unwrap_or((rest, ""));
        match (what, name) {
            ("state", "") => {
                only(method, &[Method::GET, Method::HEAD], "GET, HEAD")?;
                Ok(Self::GetState(object(id)?))
            }
            ("state", name) => {
                let target = match method {
                    &Method::GET | &Method::HEAD => Self::GetValue,
                    &Method::PUT => Self::UpdateState,
                    &Method::DELETE => Self::DeleteState,
                    _ => return Err(ObjectError::MethodNotAllowed("GET, HEAD, PUT, DELETE")),
                };
                Ok(target(object(id)?, key(name)?))
            }
            ("method", name) if !name.is_empty() => {
                only(method, &[Method::POST], "POST")?;
                Ok(Self::CallMethod(object(id)?, decoded(name)?))
            }
            ("token", "") => {
                only(method, &[Method::POST], "POST")?;
                Ok(Self::Token(object(id)?))
            }
            ("websocket", _) => {
                only(method, &[Method::GET], "GET")?;
                Ok(Self::Socket(object(id)?))
            }
            _ => Err(ObjectError::NotFound),
        }
    }

    /// The object.
    pub fn object(&self) -> &ObjectId {
        match self {
            Self::Initialize(id)
            | Self::CallMethod(id, _)
            | Self::GetState(id)
            | Self::GetValue(id, _)
            | Self::UpdateState(id, _)
            | Self::DeleteState(id, _)
            | Self::GetNamespaceObject(id)
            | Self::Socket(id)
            | Self::Token(id) => id,
        }
    }

    /// The operation as the library `cloudflare_durable` names it, for metrics.
    pub fn operation(&self) -> &'static str {
        match self {
            Self::Initialize(_) => "initialize",
            Self::CallMethod(..) => "call_method",
            Self::GetState(_) | Self::GetValue(..) => "get_state",
            Self::UpdateState(..) => "update_state",
            Self::DeleteState(..) => "delete_state",
            Self::GetNamespaceObject(_) => "get_namespace_object",
            Self::Socket(_) => "open_websocket",
            Self::Token(_) => "create_token",
        }
    }
}

/// The part up to the first slash, and the rest without further slashes before it.
fn split(path: &str) -> (&str, &str) {
    let (first, rest) = path.split_once('/').unwrap_or((path, ""));
    (first, rest.trim_start_matches('/'))
}

fn only(method: &Method, allowed: &[Method], names: &'static str) -> Result<(), ObjectError> {
    if allowed.contains(method) { Ok(()) } else { Err(ObjectError::MethodNotAllowed(names)) }
}

fn object(raw: &str) -> Result<ObjectId, ObjectError> {
    Ok(ObjectId::parse(&decoded(raw)?)?)
}

fn key(raw: &str) -> Result<Arc<str>, ObjectError> {
    let key = decoded(raw)?;
    if key.len() > MAX_KEY_BYTES {
        return Err(ObjectError::InvalidName("a key has 1 to 2048 bytes"));
    }
    Ok(key.into())
}

/// Decodes a name, once. A percent sign that begins no escape stands for itself.
fn decoded(raw: &str) -> Result<String, ObjectError> {
    let decoded = percent_decode_str(raw).decode_utf8();
    Ok(decoded.map_err(|_| ObjectError::InvalidName("a name in the address is not UTF-8"))?.into_owned())
}

/// A part of a namespace's id: characters that an address would have to escape are written as `~` and their bytes in
/// hexadecimal, so that the id is the same whether a client escapes it or not.
fn plain(name: &str, more: &str) -> String {
    let mut plain = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._".contains(&byte) || more.as_bytes().contains(&byte) {
            plain.push(char::from(byte));
        } else {
            plain.push_str(&format!("~{byte:02X}"));
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(method: &str, path: &str) -> String {
        match Target::parse(&method.parse().unwrap(), path) {
            Ok(target) => format!("{target:?}"),
            Err(error) => error.status().as_u16().to_string(),
        }
    }

    #[test]
    fn addresses_of_the_library_are_parsed() {
        for (method, path, target) in [
            ("POST", "initialize/o", r#"Initialize("o")"#),
            ("POST", "object/o/method/increment", r#"CallMethod("o", "increment")"#),
            ("GET", "object/o/state", r#"GetState("o")"#),
            ("HEAD", "object/o/state/", r#"GetState("o")"#),
            ("GET", "object/o/state/k", r#"GetValue("o", "k")"#),
            ("PUT", "object/o/state/k", r#"UpdateState("o", "k")"#),
            ("DELETE", "object/o/state/k", r#"DeleteState("o", "k")"#),
            ("GET", "namespace/rooms/id/lobby", r#"GetNamespaceObject("rooms:lobby")"#),
            ("GET", "object/o/websocket", r#"Socket("o")"#),
            ("GET", "object/o/websocket/", r#"Socket("o")"#),
            ("GET", "object/o/websocket/any/path", r#"Socket("o")"#),
            ("GET", "object//o//state", r#"GetState("o")"#),
        ] {
            assert_eq!(parsed(method, path), target, "{method} {path}");
        }
    }

    #[test]
    fn names_are_decoded_once() {
        for (path, target) in [
            ("object/a%20b/state/k%20x", r#"GetValue("a b", "k x")"#),
            ("object/o/state/a/b//c/", r#"GetValue("o", "a/b//c/")"#),
            ("object/o/state//k", r#"GetValue("o", "/k")"#),
            ("object/o/state/a%2Fb", r#"GetValue("o", "a/b")"#),
            ("object/%2565/state/%2541", r#"GetValue("%65", "%41")"#),
            ("object/50%/state/100%", r#"GetValue("50%", "100%")"#),
            ("object/__proto__/state/__proto__", r#"GetValue("__proto__", "__proto__")"#),
            ("object/../state/..", r#"GetValue("..", "..")"#),
            ("object/caf%C3%A9/state/k", r#"GetValue("café", "k")"#),
        ] {
            assert_eq!(parsed("GET", path), target, "{path}");
        }
        let long = "k".repeat(2049);
        for path in [
            "object/a%2Fb/state",
            "object/a%00/state",
            "object/%ff/state",
            &format!("object/{}/state", "a".repeat(129)),
            &format!("object/o/state/{long}"),
            "object/o/state/%ff",
            &format!("namespace/{}/id/n", "a".repeat(127)),
            "namespace/n/id/%ff",
        ] {
            assert_eq!(parsed("GET", path), "400", "{path}");
        }
        assert!(parsed("GET", &format!("object/o/state/{}", &long[1..])).contains("GetValue"));
    }

    #[test]
    fn other_addresses_and_methods_are_refused() {
        for path in [
            "",
            "object",
            "object/o",
            "object/o/",
            "object/o/stat",
            "health",
            "objects/o/state",
            "namespace/a/b/c",
            "namespace/a/id/",
        ] {
            assert_eq!(parsed("GET", path), "404", "{path}");
        }
        for (method, path) in [
            ("GET", "initialize/o"),
            ("POST", "object/o/state"),
            ("PATCH", "object/o/state/k"),
            ("GET", "object/o/method/echo"),
            ("POST", "object/o/websocket"),
            ("OPTIONS", "object/o/state"),
            ("DELETE", "namespace/a/id/b"),
        ] {
            assert_eq!(parsed(method, path), "405", "{method} {path}");
        }
        assert_eq!(parsed("POST", "initialize/a/b"), "400");
        assert_eq!(parsed("POST", "initialize/"), "400");
    }

    #[test]
    fn namespace_ids_need_no_escapes_and_differ() {
        let id = |namespace: &str, name: &str| {
            let shown = parsed("GET", &format!("namespace/{namespace}/id/{name}"));
            shown.strip_prefix("GetNamespaceObject(\"").unwrap().trim_end_matches("\")").to_owned()
        };
        assert_eq!(id("chat", "room%201"), "chat:room~201");
        assert_eq!(id("a%3Ab", "c"), "a~3Ab:c");
        assert_eq!(id("a", "b:c"), "a:b:c");
        assert_eq!(id("a", "~20"), "a:~7E20");
        assert_eq!(id("a", "%C3%A9/%25"), "a:~C3~A9~2F~25");
    }
}
