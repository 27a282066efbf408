//! Watching a video together: what members ask for, and the video as all see it.

use serde::{Deserialize, Serialize};
use url::Url;

use crate::config::is_loopback;
use crate::id::UserId;

/// Maximum size in bytes of a client's message.
pub const MAX_BYTES: usize = 4096;

/// Maximum length in bytes of a video's address.
const MAX_URL_BYTES: usize = 2048;

/// Maximum position in a video in milliseconds: a week.
const MAX_POSITION: u64 = 7 * 24 * 60 * 60 * 1000;

/// Length of the id of a video of YouTube.
const YOUTUBE_ID_BYTES: usize = 11;

/// Names under which YouTube has its videos, beside `youtu.be`.
const YOUTUBE: [&str; 4] = ["youtube.com", "www.youtube.com", "m.youtube.com", "www.youtube-nocookie.com"];

/// A member's request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "camelCase")]
pub enum WatchRequest {
    /// Shares a video, in place of another one; it is paused at its beginning.
    Start {
        /// Its address as the member gave it; the room decides if it takes it.
        url: String,
    },
    /// Plays it from a position.
    Play {
        /// The position.
        position: Position,
    },
    /// Pauses it at a position.
    Pause {
        /// The position.
        position: Position,
    },
    /// Goes to a position, and plays on or stays paused.
    Seek {
        /// The position.
        position: Position,
    },
    /// Ends it.
    Stop,
}

impl WatchRequest {
    /// Parses a message's text.
    ///
    /// # Errors
    /// The field at fault, and its rule.
    pub fn parse(json: &str) -> Result<Self, (&'static str, &'static str)> {
        // The field depends on the action.
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        enum Action {
            Start,
            Play,
            Pause,
            Seek,
            Stop,
        }
        #[derive(Deserialize)]
        struct Asked {
            action: Action,
        }
        let Ok(Asked { action }) = serde_json::from_str(json) else {
            return Err(("action", "start, play, pause, seek or stop"));
        };
        serde_json::from_str(json).map_err(|_| match action {
            Action::Start => ("url", "a text"),
            Action::Play | Action::Pause | Action::Seek | Action::Stop => {
                ("position", "a whole number of milliseconds of up to a week")
            }
        })
    }
}

/// A position in a video in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u64")]
pub struct Position(u64);

impl Position {
    /// The position in milliseconds.
    pub const fn millis(self) -> u64 {
        self.0
    }

    /// The position after further milliseconds.
    #[must_use]
    pub fn after(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis).min(MAX_POSITION))
    }
}

impl TryFrom<u64> for Position {
    type Error = &'static str;

    fn try_from(millis: u64) -> Result<Self, Self::Error> {
        (millis <= MAX_POSITION).then_some(Self(millis)).ok_or("a position is at most a week")
    }
}

/// A video, by its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Video {
    /// A file that browsers play.
    File {
        /// Its address.
        url: String,
    },
    /// A video of YouTube.
    YouTube {
        /// Its id there.
        id: String,
    },
}

/// Reason for not taking an address. The sentence goes to the member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidVideo {
    /// It is no address that browsers load safely.
    #[error(
        "watch needs a field \"url\" that is an https:// address of at most {MAX_URL_BYTES} bytes, without a user's name"
    )]
    NoUrl,
    /// It is one of YouTube, but of no video.
    #[error(
        "watch needs a field \"url\" that is the address of one video, which this page of YouTube is not"
    )]
    NoVideo,
}

impl Video {
    /// Reads the address of a video. Its fragment is dropped; `http` is taken for hosts of this computer alone, which
    /// no network is between.
    ///
    /// # Errors
    /// [`InvalidVideo`].
    pub fn parse(text: &str) -> Result<Self, InvalidVideo> {
        let parsed = (text.len() <= MAX_URL_BYTES).then(|| Url::parse(text.trim()).ok()).flatten();
        let mut url = parsed.ok_or(InvalidVideo::NoUrl)?;
        let is_plain = url.username().is_empty() && url.password().is_none();
        let is_safe = url.scheme() == "https" || url.scheme() == "http" && is_loopback(&url);
        if !is_plain || !is_safe || url.host_str().is_none_or(str::is_empty) {
            return Err(InvalidVideo::NoUrl);
        }
        if let Some(id) = youtube_id(&url) {
            let id = id.ok_or(InvalidVideo::NoVideo)?;
            return Ok(Self::YouTube { id });
        }
        url.set_fragment(None);
        // Escaping may make it longer.
        let is_short = url.as_str().len() <= MAX_URL_BYTES;
        is_short.then(|| Self::File { url: url.into() }).ok_or(InvalidVideo::NoUrl)
    }
}

/// The id in an address of YouTube, or none inside if it names no video; none outside for other hosts.
fn youtube_id(url: &Url) -> Option<Option<String>> {
    let host = url.host_str()?;
    let mut path = url.path_segments()?;
    let id = if host == "youtu.be" {
        path.next().map(str::to_owned)
    } else if YOUTUBE.contains(&host) {
        match path.next() {
            Some("watch") => url.query_pairs().find(|(key, _)| key == "v").map(|(_, id)| id.into_owned()),
            Some("embed" | "shorts" | "live") => path.next().map(str::to_owned),
            _ => None,
        }
    } else {
        return None;
    };
    Some(id.filter(|id| is_youtube_id(id)))
}

fn is_youtube_id(id: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    id.len() == YOUTUBE_ID_BYTES && id.bytes().all(is_part)
}

/// The video that a room watches, as all see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watching {
    /// The video.
    #[serde(flatten)]
    pub video: Video,
    /// The member who shared it; none if others do not see it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<UserId>,
    /// True while it plays.
    pub playing: bool,
    /// The position at the time `at`.
    pub position: Position,
    /// The server's time in milliseconds since 1970.
    pub at: u64,
}

impl Watching {
    /// The position at a time.
    pub fn position_at(&self, now: u64) -> Position {
        if self.playing { self.position.after(now.saturating_sub(self.at)) } else { self.position }
    }

    /// Encodes the video as JSON.
    #[expect(clippy::expect_used, reason = "texts and numbers always serialize")]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a video is plain data")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(url: &str) -> Result<Video, InvalidVideo> {
        Ok(Video::File { url: url.to_owned() })
    }

    #[test]
    fn only_safe_addresses_are_read() {
        for (text, url) in [
            ("https://example.org/a.mp4", "https://example.org/a.mp4"),
            (" https://EXAMPLE.org/ä?x=1#t=5 ", "https://example.org/%C3%A4?x=1"),
            ("http://127.0.0.1:8080/a.webm", "http://127.0.0.1:8080/a.webm"),
            ("http://localhost/a", "http://localhost/a"),
        ] {
            assert_eq!(Video::parse(text), file(url));
        }
        let long = format!("https://example.org/{}", "ä".repeat(1000));
        for text in [
            "",
            "http://example.org/a",
            "http://localhost.example.org/a",
            "http://127.0.0.1.example.org/a",
            "//example.org",
            "javascript:alert(1)",
            "data:video/mp4,x",
            "blob:https://a/b",
            "file:///etc/passwd",
            "https://user@example.org/",
            "https://:secret@example.org/",
            "https://",
            "example.org",
            &long,
        ] {
            assert_eq!(Video::parse(text), Err(InvalidVideo::NoUrl), "{text}");
        }
    }

    #[test]
    fn videos_of_youtube_are_their_ids() {
        let id = "dQw4w9WgXcQ";
        for text in [
            "https://www.youtube.com/watch?v=dQw4w9WgXcQ&t=5",
            "https://youtube.com/watch?list=x&v=dQw4w9WgXcQ",
            "https://youtu.be/dQw4w9WgXcQ?si=x",
            "https://m.youtube.com/shorts/dQw4w9WgXcQ",
            "https://www.youtube-nocookie.com/embed/dQw4w9WgXcQ",
        ] {
            assert_eq!(Video::parse(text), Ok(Video::YouTube { id: id.to_owned() }), "{text}");
        }
        for text in [
            "https://www.youtube.com/",
            "https://www.youtube.com/watch",
            "https://www.youtube.com/watch?v=dQw4w9WgXc",
            "https://www.youtube.com/watch?v=dQw4w9WgXc%22",
            "https://youtu.be/../dQw4w9WgXcQQ",
            "https://www.youtube.com/@somebody",
        ] {
            assert_eq!(Video::parse(text), Err(InvalidVideo::NoVideo), "{text}");
        }
        assert_eq!(Video::parse("https://notyoutube.com/watch"), file("https://notyoutube.com/watch"));
    }

    #[test]
    fn requests_are_read() {
        let at = |millis: u64| Position::try_from(millis).unwrap();
        let read = |json: &str| WatchRequest::parse(json);
        let played = read(r#"{"type":"watch","action":"play","position":7}"#);
        assert_eq!(played, Ok(WatchRequest::Play { position: at(7) }));
        assert_eq!(read(r#"{"action":"stop"}"#), Ok(WatchRequest::Stop));
        for (json, field) in [
            (r#"{"action":"start"}"#, "url"),
            (r#"{"action":"start","url":7}"#, "url"),
            (r#"{"action":"play"}"#, "position"),
            (r#"{"action":"play","position":-1}"#, "position"),
            (r#"{"action":"play","position":1.5}"#, "position"),
            (r#"{"action":"seek","position":604800001}"#, "position"),
            (r#"{"action":"rewind"}"#, "action"),
            ("{}", "action"),
        ] {
            assert_eq!(read(json).map_err(|(field, _)| field), Err(field), "{json}");
        }
    }

    #[test]
    fn position_moves_while_it_plays() {
        let position = Position::try_from(1000).unwrap();
        let video = Video::parse("https://a/b").unwrap();
        let mut watching = Watching { video, by: None, playing: true, position, at: 5000 };
        assert_eq!(watching.position_at(7500).millis(), 3500);
        assert_eq!(watching.position_at(0).millis(), 1000, "the clock was set back");
        assert_eq!(watching.position_at(u64::MAX).millis(), MAX_POSITION);
        watching.playing = false;
        assert_eq!(watching.position_at(7500).millis(), 1000);
        let json = r#"{"kind":"file","url":"https://a/b","playing":false,"position":1000,"at":5000}"#;
        assert_eq!(watching.to_json(), json);
        assert_eq!(serde_json::from_str::<Watching>(json).unwrap(), watching);
    }
}
