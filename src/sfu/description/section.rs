//! One m-line of a session description, with the lines that belong to it.

use std::borrow::Cow;
use std::collections::HashSet;

use str0m::media::Mid;

use super::lines::{check_length, lines};

/// Longest `mid`, in bytes. str0m keeps only 16 of them, and only letters and digits: see [`MLine::alias`].
const MAX_MID_BYTES: usize = 64;

/// Protocol of m-lines that carry media (RFC 5764 section 8).
pub(super) const MEDIA_PROTOCOL: &str = "UDP/TLS/RTP/SAVPF";

/// One m-line of a description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MLine {
    /// The client's `mid`.
    pub mid: String,
    /// The `mid` as str0m stores it.
    pub alias: Mid,
    /// State of the m-line.
    pub state: SectionState,
    /// Id of the track that its author sends (RFC 8830), or the `mid` if it names none; `None` if it sends nothing.
    pub sends: Option<String>,
    /// True if it is live but carries no media: it has no known codec, but owns the transport of the bundle, and a
    /// browser would lose all other m-lines with it.
    pub is_idle: bool,
    /// The `a=rtpmap` line of its first format, if any.
    codec: Option<String>,
    /// The part of the `m=` line after the port: protocol and formats.
    rest: String,
    /// The part of the `m=` line before the port, such as `audio`.
    pub(super) kind: String,
}

/// State of an m-line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SectionState {
    /// Media may flow.
    Live,
    /// It ended or was rejected: a new track may reuse it.
    Ended,
}

impl MLine {
    pub(super) fn read(block: &[&str], bundled: &HashSet<&str>) -> Result<Self, &'static str> {
        let line = block.first().and_then(|line| line.strip_prefix("m=")).ok_or("it has no m= line")?;
        check_length(line)?;
        let mut words = line.splitn(3, ' ');
        let (Some(kind), Some(port), Some(rest)) = (words.next(), words.next(), words.next()) else {
            return Err("an m= line is incomplete");
        };
        let mut mids = block.iter().filter_map(|line| line.strip_prefix("a=mid:"));
        let (Some(mid), None) = (mids.next(), mids.next()) else {
            return Err("a section has no a=mid, or several");
        };
        if mid.is_empty() || mid.len() > MAX_MID_BYTES || !mid.bytes().all(is_token) {
            return Err("an a=mid is no token of at most 64 characters");
        }
        // With max-bundle all m-lines but the first have port 0 in a first offer (RFC 9143 section 6).
        let ended = port == "0" && !bundled.contains(mid);
        let is_media = matches!(kind, "audio" | "video") && rest.starts_with(MEDIA_PROTOCOL);
        let state = if ended || !is_media { SectionState::Ended } else { SectionState::Live };
        let sends = state == SectionState::Live
            && !block.iter().any(|line| matches!(*line, "a=recvonly" | "a=inactive"));
        let track = block.iter().find_map(|line| line.strip_prefix("a=msid:")?.split(' ').nth(1));
        let sends = sends.then(|| track.unwrap_or(mid).to_owned());
        let first = rest.split(' ').nth(1).map(|format| format!("a=rtpmap:{format} ")).unwrap_or_default();
        let codec = block.iter().find(|line| line.starts_with(&first)).filter(|_| !first.is_empty());
        codec.map_or(Ok(()), |line| check_length(line))?;
        Ok(Self {
            mid: mid.to_owned(),
            alias: Mid::from(mid),
            state,
            sends,
            is_idle: false,
            codec: codec.map(|line| (*line).to_owned()),
            rest: rest.to_owned(),
            kind: kind.to_owned(),
        })
    }

    /// Marks the m-line as ended.
    pub fn end(&mut self) {
        self.state = SectionState::Ended;
        self.sends = None;
    }

    /// Lines of an idle m-line for the client: str0m's block, with the client's first format, and inactive.
    pub(super) fn idle<'a>(&'a self, block: &[&'a str]) -> Vec<Cow<'a, str>> {
        let format = self.rest.split(' ').nth(1).unwrap_or("0");
        let is_kept = |line: &&str| {
            !["a=recvonly", "a=sendonly", "a=sendrecv", "a=inactive"].contains(line)
                && !["a=extmap:", "a=msid", "a=ssrc"].iter().any(|start| line.starts_with(start))
        };
        let kept = block.iter().skip(1).copied().filter(is_kept).map(Cow::Borrowed);
        let line = Cow::Owned(format!("m={} 9 {MEDIA_PROTOCOL} {format}", self.kind));
        let codec = self.codec.as_deref().map(Cow::Borrowed);
        std::iter::once(line).chain(kept).chain([Cow::Borrowed("a=inactive")]).chain(codec).collect()
    }

    /// Lines of an ended m-line for the client.
    pub(super) fn ended(&self) -> String {
        let Self { mid, kind, rest, .. } = self;
        let mut text = String::new();
        // Only the list of formats is long; format 0 needs no further line.
        let short = match rest.split_once(' ') {
            Some((MEDIA_PROTOCOL, _)) => &format!("{MEDIA_PROTOCOL} 0"),
            _ => rest,
        };
        let line = format!("m={kind} 0 {short}");
        lines(&mut text, [&*line, "c=IN IP4 0.0.0.0", &format!("a=mid:{mid}"), "a=inactive"]);
        text
    }
}

/// True for the characters of a token (RFC 8866 section 9).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_graphic() && !br#""(),/:;<=>?@[\]"#.contains(&byte)
}
