//! **Pure**: the events that a stream asks for.

use axum::http::Uri;
use url::form_urlencoded;

use crate::config::{EVENT_TYPES, pattern_matches};
use crate::http::error::ApiError;
use crate::id::RoomName;
use crate::store::events::LoggedEvent;

/// Maximum patterns of a list.
const MAX_PATTERNS: usize = 64;

/// The events that a stream asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// The only room.
    pub room: Option<RoomName>,
    /// True if members of the room see who reads the stream.
    pub is_shown: bool,
    /// True if the stream ends with the log, and does not follow what happens next.
    pub ends: bool,
    /// Patterns of types; empty for all.
    types: Vec<String>,
    /// Patterns of rooms; empty for all, and for events of no room.
    rooms: Vec<String>,
}

impl EventFilter {
    /// Reads a query. A stream of one `room` has no patterns of rooms.
    ///
    /// # Errors
    /// [`ApiError::InvalidQuery`] for invalid or unknown parameters: an ignored filter would show unwanted events.
    pub fn read(uri: &Uri, room: Option<RoomName>) -> Result<Self, ApiError> {
        let mut filter = Self { room, ..Self::default() };
        for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
            let patterns = value.split(',').map(str::trim).filter(|pattern| !pattern.is_empty());
            match &*name {
                "events" => filter.types.extend(patterns.map(str::to_owned)),
                "follow" => {
                    let wrong = ApiError::InvalidQuery("follow is true or false");
                    filter.ends = !value.parse::<bool>().map_err(|_| wrong)?;
                }
                "shown" if filter.room.is_some() => {
                    let wrong = ApiError::InvalidQuery("shown is true or false");
                    filter.is_shown = value.parse().map_err(|_| wrong)?;
                }
                "rooms" if filter.room.is_none() => filter.rooms.extend(patterns.map(str::to_owned)),
                _ if filter.room.is_some() => {
                    return Err(ApiError::InvalidQuery("parameters are events, follow and shown"));
                }
                _ => return Err(ApiError::InvalidQuery("parameters are events, rooms and follow")),
            }
        }
        let is_known = |pattern: &String| EVENT_TYPES.iter().any(|kind| pattern_matches(pattern, kind));
        if !filter.types.iter().all(is_known) {
            return Err(ApiError::InvalidQuery("events are types of events, or their beginnings and *"));
        }
        if filter.types.len().max(filter.rooms.len()) > MAX_PATTERNS {
            return Err(ApiError::InvalidQuery("lists have at most 64 patterns"));
        }
        Ok(filter)
    }

    /// True if the stream asks for the event.
    pub fn admits(&self, event: &LoggedEvent) -> bool {
        let is_one_of = |patterns: &[String], text: &str| {
            patterns.is_empty() || patterns.iter().any(|pattern| pattern_matches(pattern, text))
        };
        // Whatever a stream asks for may be among what was lost.
        if &*event.kind == "events.lost" {
            return true;
        }
        let is_room = match (&self.room, &event.room) {
            (Some(only), room) => room.as_ref() == Some(only),
            (None, Some(room)) => is_one_of(&self.rooms, room.as_str()),
            (None, None) => self.rooms.is_empty(),
        };
        is_room && is_one_of(&self.types, &event.kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::EventId;

    fn read(query: &str, room: Option<&str>) -> Result<EventFilter, String> {
        let room = room.map(|room| RoomName::parse(room).unwrap());
        EventFilter::read(&format!("/x?{query}").parse().unwrap(), room).map_err(|error| error.to_string())
    }

    fn event(kind: &str, room: Option<&str>) -> LoggedEvent {
        let room = room.map(|room| RoomName::parse(room).unwrap());
        LoggedEvent { position: 1, id: EventId::random(), room, kind: kind.into(), body: "{}".into() }
    }

    #[test]
    fn filter_admits_what_its_query_names() {
        let all = read("", None).unwrap();
        assert!(all.admits(&event("member.left", Some("r"))) && all.admits(&event("report.created", None)));
        let some = read("events=meeting.*,%20member.left&rooms=team-*&rooms=x", None).unwrap();
        for (kind, room, admitted) in [
            ("meeting.ended", Some("team-1"), true),
            ("member.left", Some("x"), true),
            ("member.joined", Some("x"), false),
            ("member.left", Some("y"), false),
            ("meeting.ended", None, false),
            ("events.lost", None, true),
        ] {
            assert_eq!(some.admits(&event(kind, room)), admitted, "{kind} {room:?}");
        }
        assert!(!some.ends && !read("follow=true", None).unwrap().ends);
        assert!(read("follow=false", Some("r")).unwrap().ends);
        let own = read("events=member.*", Some("r")).unwrap();
        assert!(own.admits(&event("member.left", Some("r"))));
        assert!(!own.admits(&event("member.left", Some("r2"))) && !own.admits(&event("member.left", None)));
    }

    #[test]
    fn unknown_parameters_are_refused() {
        for (query, room, name) in [
            ("event=x", None, "parameters are events, rooms and follow"),
            ("rooms=other", Some("r"), "parameters are events, follow and shown"),
            ("follow=no", None, "follow is true or false"),
            ("shown=yes", Some("r"), "shown is true or false"),
            ("shown=true", None, "parameters are events, rooms and follow"),
            ("events=meetings.*", None, "types of events"),
            (&*format!("rooms={}", "a,".repeat(65)), None, "at most 64"),
        ] {
            assert!(read(query, room).unwrap_err().contains(name), "{query}");
        }
    }
}
