//! Identifiers: newtypes whose constructors validate, so that an invalid one cannot exist.

mod grants;
mod object;
mod scope;
mod text;

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize};
use uuid::{Builder, Uuid};

use satsuma_sfu::api::PersonId;

pub use grants::{Grants, MediaKind, PublishGrants};
pub use object::{InvalidObjectId, ObjectId};
pub use satsuma_cluster::NodeId;
pub use satsuma_sfu::api::SessionId;
pub use scope::RoomScope;
pub use text::{MAX_NAME_CHARS, composed, nfc, text_is_valid, visible};

/// The name of a room: 1 to 128 characters of any script, without control or invisible characters, in
/// Normalization Form C.
///
/// Source: protocol section 1; the limit is this server's.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct RoomName(Arc<str>);

impl RoomName {
    /// Maximum length of a room's name in characters (Unicode scalar values).
    pub const MAX_CHARS: usize = 128;

    /// Validates `name`, which is already percent-decoded. Two spellings of one text, such as an é of one
    /// character or of two, name the same room.
    ///
    /// # Errors
    /// [`InvalidId`] if it is empty, too long, contains a control or invisible character, or is `.` or `..`.
    pub fn parse(name: &str) -> Result<Self, InvalidId> {
        let name = composed(name);
        if matches!(&*name, "." | "..") {
            return Err(InvalidId::DotSegment);
        }
        if text_is_valid(&name, Self::MAX_CHARS) { Ok(Self(name.into())) } else { Err(InvalidId::RoomName) }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for RoomName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// A member's id on the wire: the `_pk` that the client chose, 1 to 64 of `[A-Za-z0-9_-]`, not `ai`.
///
/// It is a *claim*: all members of a room see each other's ids, so it does not authenticate a client.
/// Source: protocol section 1.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct UserId(Arc<str>);

/// The author of messages of programs outside, which is no valid `_pk`.
const OUTSIDE: &str = "*outside";

/// The author of the assistant's answers, which is no valid `_pk` either.
const ASSISTANT: &str = "*assistant";

impl UserId {
    /// Validates a `_pk`.
    ///
    /// # Errors
    /// [`InvalidId`] if it is empty, too long, the reserved `ai`, or contains another character.
    pub fn parse(id: &str) -> Result<Self, InvalidId> {
        if is_token(id) && id != "ai" { Ok(Self(id.into())) } else { Err(InvalidId::UserId) }
    }

    /// The id of a program outside that writes to a room without being a member. No client can claim it.
    pub fn outside() -> Self {
        Self(OUTSIDE.into())
    }

    /// The id of the assistant as the author of its answers. No client can claim it.
    pub fn assistant() -> Self {
        Self(ASSISTANT.into())
    }

    /// Parses the id of the author of a chat message: a member's, [`Self::outside`] or [`Self::assistant`].
    ///
    /// # Errors
    /// [`InvalidId`] if it is none of these.
    pub fn author(id: &str) -> Result<Self, InvalidId> {
        match id {
            OUTSIDE => Ok(Self::outside()),
            ASSISTANT => Ok(Self::assistant()),
            id => Self::parse(id),
        }
    }

    /// Creates a random id, for a client that did not choose one.
    pub fn random() -> Self {
        Self(Uuid::new_v4().to_string().into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for UserId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let id = Cow::<str>::deserialize(deserializer)?;
        Self::parse(&id).map_err(D::Error::custom)
    }
}

// Both hash, compare and order as the text does.
impl Borrow<str> for UserId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// A socket: the node that it is connected to and its number there. Unique across nodes and restarts, and never
/// sent to clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ConnectionId {
    node: NodeId,
    number: u64,
}

impl ConnectionId {
    /// The id of a socket.
    pub const fn new(node: NodeId, number: u64) -> Self {
        Self { node, number }
    }

    /// The node that the socket is connected to.
    pub const fn node(self) -> NodeId {
        self.node
    }

    /// The number of the socket, unique while its node runs.
    pub const fn number(self) -> u64 {
        self.number
    }
}

/// One occupancy of a room: a UUID, created when its first member joins, which tells that time (RFC 9562, version 7).
/// Earlier versions of this server made random ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MeetingId(Uuid);

impl MeetingId {
    /// Creates a random id, which tells no time.
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// Creates an id of a meeting that begins at this time; all other bits are random.
    pub fn beginning(at: SystemTime) -> Self {
        let since_1970 = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        // These bytes of a random UUID have none of its fixed bits.
        let [a, b, c, d, e, f, _, g, _, h, i, j, ..] = Uuid::new_v4().into_bytes();
        let millis = u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX);
        Self(Builder::from_unix_timestamp_millis(millis, &[a, b, c, d, e, f, g, h, i, j]).into_uuid())
    }

    /// The time at which the meeting began, if the id tells it.
    pub fn began(self) -> Option<SystemTime> {
        let (seconds, nanos) = self.0.get_timestamp()?.to_unix();
        UNIX_EPOCH.checked_add(Duration::new(seconds, nanos))
    }

    /// Parses an id in its [`fmt::Display`] form.
    ///
    /// # Errors
    /// [`InvalidId`] if it is not a UUID.
    pub fn parse(id: &str) -> Result<Self, InvalidId> {
        Uuid::try_parse(id).map(Self).map_err(|_| InvalidId::MeetingId)
    }

    /// The id as bytes.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.into_bytes()
    }

    /// The id of these bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// Returns 62 random bits, and two that are the same in every id.
    pub fn random_bits(self) -> u64 {
        self.0.as_u64_pair().1
    }
}

/// The id of a user's report: a random UUID, part of the link to its JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct ReportId(Uuid);

impl ReportId {
    /// Creates a random id.
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// Parses an id in its [`fmt::Display`] form.
    ///
    /// # Errors
    /// [`InvalidId`] if it is not a UUID.
    pub fn parse(id: &str) -> Result<Self, InvalidId> {
        Uuid::try_parse(id).map(Self).map_err(|_| InvalidId::ReportId)
    }
}

/// The id of a message to a destination outside: a UUID. The same message has the same id at every destination and in
/// every attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct DeliveryId(Uuid);

impl DeliveryId {
    /// Parses an id in its [`fmt::Display`] form.
    ///
    /// # Errors
    /// [`InvalidId`] if it is not a UUID.
    pub fn parse(id: &str) -> Result<Self, InvalidId> {
        Uuid::try_parse(id).map(Self).map_err(|_| InvalidId::DeliveryId)
    }
}

/// The card of a report has the report's id.
impl From<ReportId> for DeliveryId {
    fn from(report: ReportId) -> Self {
        Self(report.0)
    }
}

/// The id of an event: a UUID, random or of the event's place in a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId(Uuid);

impl EventId {
    const PREFIX: &str = "evt_";

    /// Creates a random id.
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// The id of an event of a meeting that several nodes may tell: the same at each of them. Epoch and number are its place
    /// in the room's journal, and `part` tells apart the events that are told of one place.
    pub fn told(meeting: MeetingId, (epoch, number): (u64, u64), part: &str) -> Self {
        let bytes =
            [&meeting.to_bytes()[..], &epoch.to_be_bytes(), &number.to_be_bytes(), part.as_bytes()].concat();
        let hash = digest(&SHA256, &bytes);
        let mut id = [0; 16];
        id.copy_from_slice(&hash.as_ref()[..16]);
        Self(Builder::from_custom_bytes(id).into_uuid())
    }

    /// Parses an id in its [`fmt::Display`] form.
    ///
    /// # Errors
    /// [`InvalidId`] if it is not `evt_` and a UUID.
    pub fn parse(id: &str) -> Result<Self, InvalidId> {
        let uuid = id.strip_prefix(Self::PREFIX).and_then(|uuid| Uuid::try_parse(uuid).ok());
        uuid.map(Self).ok_or(InvalidId::EventId)
    }
}

/// A queued event has the event's id.
impl From<EventId> for DeliveryId {
    fn from(event: EventId) -> Self {
        Self(event.0)
    }
}

/// The event of a queued message.
impl From<DeliveryId> for EventId {
    fn from(delivery: DeliveryId) -> Self {
        Self(delivery.0)
    }
}

/// A user's identity, independent of the displayed name; members, session locks and quotas belong to it.
///
/// Its prefix is the authentication method (see [`crate::auth`]), so that identities of two methods
/// are never equal.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IdentityId(Arc<str>);

impl IdentityId {
    /// Wraps an authenticated id.
    pub fn new(id: impl Into<Arc<str>>) -> Self {
        Self(id.into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The authentication method; an id without another method's prefix is of this server's cookie.
    pub fn auth_method(&self) -> AuthMethod {
        let prefix = self.0.split(':').next().unwrap_or_default();
        let others = [AuthMethod::ProxyHeader, AuthMethod::Access, AuthMethod::Token];
        others.into_iter().find(|method| method.prefix() == prefix).unwrap_or(AuthMethod::Cookie)
    }
}

impl From<&IdentityId> for PersonId {
    fn from(identity: &IdentityId) -> Self {
        Self::new(identity.0.clone())
    }
}

/// The authentication method of an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum AuthMethod {
    /// This server's signed cookie: the only method with a user-entered name.
    Cookie,
    /// A trusted proxy's header.
    ProxyHeader,
    /// An assertion of Cloudflare Access.
    Access,
    /// An access token.
    Token,
}

impl AuthMethod {
    /// The prefix of this method's ids.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Cookie => "cookie",
            Self::ProxyHeader => "proxy",
            Self::Access => "access",
            Self::Token => "token",
        }
    }
}

/// An invalid id; the message names the allowed form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// Not a [`RoomName`].
    #[error("a room name has 1 to 128 characters and no control or invisible characters")]
    RoomName,
    /// A room named `.` or `..`: as segments of a path these two lead elsewhere, even when they are escaped
    /// (RFC 3986 section 5.2.4).
    #[error("browsers cannot open a room named \".\" or \"..\"")]
    DotSegment,
    /// Not a [`UserId`].
    #[error("_pk has 1 to 64 of the characters A-Z, a-z, 0-9, _ and -, and is not \"ai\"")]
    UserId,
    /// Not a [`MeetingId`].
    #[error("a meeting id is a UUID")]
    MeetingId,
    /// Not a [`ReportId`].
    #[error("a report's id is a UUID")]
    ReportId,
    /// Not a [`DeliveryId`].
    #[error("a delivery's id is a UUID")]
    DeliveryId,
    /// Not an [`EventId`].
    #[error("an event's id is evt_ and a UUID")]
    EventId,
}

/// True if `id` has 1 to 64 of `[A-Za-z0-9_-]`.
fn is_token(id: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    (1..=64).contains(&id.len()) && id.bytes().all(allowed)
}

macro_rules! show_as_text {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0)
            }
        }
    )*};
}
show_as_text!(RoomName, UserId, IdentityId);

impl fmt::Display for MeetingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for ReportId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", Self::PREFIX, self.0)
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.node, self.number)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn room_name_length_is_counted_in_characters() {
        assert!(RoomName::parse(&"🍊".repeat(128)).is_ok());
        assert_eq!(RoomName::parse(&"a".repeat(129)), Err(InvalidId::RoomName));
        assert_eq!(RoomName::parse(""), Err(InvalidId::RoomName));
        for dots in [".", ".."] {
            assert_eq!(RoomName::parse(dots), Err(InvalidId::DotSegment));
        }
        assert!(RoomName::parse("...").is_ok());
        assert_eq!(RoomName::parse("a\u{7}b"), Err(InvalidId::RoomName));
        assert_eq!(RoomName::parse("a\u{85}b"), Err(InvalidId::RoomName));
    }

    #[test]
    fn invisible_characters_are_refused() {
        for good in ["سلام", "می\u{200c}خواهم", "👩\u{200d}🚀", "❤\u{fe0f}", "x/standup"] {
            assert!(RoomName::parse(good).is_ok(), "{good}");
        }
        for bad in
            ["a\u{202e}b", "a\u{200b}", "\u{2066}a", "\u{3164}", " ", "\u{200d}", "\u{feff}a", "a\u{e0041}"]
        {
            assert_eq!(RoomName::parse(bad), Err(InvalidId::RoomName), "{bad:?}");
        }
        assert_eq!(RoomName::parse("cafe\u{301}"), RoomName::parse("caf\u{e9}"));
    }

    #[test]
    fn meeting_id_tells_its_beginning() {
        let at = UNIX_EPOCH + Duration::from_millis(1_795_312_345_678);
        let [one, other] = [(); 2].map(|()| MeetingId::beginning(at));
        let (seconds, nanos) = one.0.get_timestamp().expect("version 7").to_unix();
        assert_eq!(UNIX_EPOCH + Duration::new(seconds, nanos), at);
        assert_eq!(one.0.get_variant(), uuid::Variant::RFC4122);
        assert_ne!(one, other);
        assert_ne!(one.random_bits(), other.random_bits());
        assert_eq!(MeetingId::parse(&one.to_string()), Ok(one));
        // A clock before 1970.
        MeetingId::beginning(UNIX_EPOCH - Duration::from_secs(1));
    }

    #[test]
    fn reserved_and_invalid_user_ids_are_refused() {
        for good in ["a", "Z_9-", &"x".repeat(64)] {
            assert!(UserId::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "ai", OUTSIDE, "a b", "é", "a\"b", &"x".repeat(65)] {
            assert_eq!(UserId::parse(bad), Err(InvalidId::UserId), "{bad}");
        }
    }
}
