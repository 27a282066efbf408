//! Conversion of session descriptions between clients and str0m, as text.
//!
//! str0m never reuses an m-line of its own offers, so every ended subscription would stay in all descriptions forever
//! (measured: 3 kB each, generated and parsed on every change). Here the *client's* m-lines are authoritative: an
//! ended one is removed from str0m, which is given an m-line of an unknown kind at its index (str0m skips those), and
//! the next offered track reuses the index, as RFC 8829 section 5.2.2 specifies. So a description grows with the number
//! of concurrent tracks, not with all tracks of a session's life.

mod lines;
mod section;
mod terms;

use std::collections::HashSet;
use std::fmt::Write;

use str0m::change::{SdpAnswer, SdpOffer};
use str0m::media::Mid;

use super::error::SfuError;
use super::request::{DescriptionType, SessionDescription};
use lines::{Candidates, lines, section_lines, session_lines};
use section::MEDIA_PROTOCOL;
pub use section::{MLine, SectionState};
pub use terms::{Terms, TransportCc, first_formats};

/// Longest description that is parsed, in bytes. A browser's own offer lists all of its codecs in each m-line, up to
/// 6 kB, even in those that only receive: 400 tracks have 2.4 MB.
const MAX_BYTES: usize = 3 << 20;

/// Most m-lines of a description, and so the upper bound for the limit on a session's tracks.
pub const MAX_SECTIONS: usize = 512;

/// Longest answer with rejected m-lines, in bytes; about a hundred m-lines. It is parsed again on the media thread.
const MAX_REFUSING_BYTES: usize = 256 << 10;

/// A client's session description.
#[derive(Debug)]
pub struct Description {
    /// The description as parsed by str0m; `None` if every m-line has ended, since str0m rejects such a description.
    pub(crate) parsed: Option<ParsedDescription>,
    /// Its m-lines, in order.
    pub(crate) sections: Vec<MLine>,
    /// True if video is sent in several layers (RFC 8853).
    pub(crate) has_layers: bool,
    /// True if it has a BUNDLE group (RFC 9143). Without one only the first live m-line gets the transport.
    pub(crate) is_bundled: bool,
    /// Text of an answer that rejects some m-lines, as given to str0m, for [`Self::refusing`].
    refusing: Option<String>,
}

/// A description as parsed by str0m.
#[derive(Debug)]
pub enum ParsedDescription {
    /// An offer.
    Offer(SdpOffer),
    /// An answer.
    Answer(SdpAnswer),
}

impl Description {
    /// Parses a client's description.
    ///
    /// # Errors
    /// [`SfuError::Description`] if it cannot be used.
    pub fn parse(r#type: DescriptionType, text: &str) -> Result<Self, SfuError> {
        let has_layers = text.contains("\na=simulcast:");
        let (text, sections, is_bundled) =
            for_str0m(text).map_err(|error| SfuError::Description(error.into()))?;
        let is_ended = |section: &MLine| section.state == SectionState::Ended;
        if sections.iter().all(is_ended) {
            return Ok(Self { parsed: None, sections, has_layers, is_bundled, refusing: None });
        }
        // Network input must not end more than its own call, even if str0m panics on it.
        let parsed = guarded(|| match r#type {
            DescriptionType::Offer => SdpOffer::from_sdp_string(&text).map(ParsedDescription::Offer),
            DescriptionType::Answer => SdpAnswer::from_sdp_string(&text).map(ParsedDescription::Answer),
        })?;
        let may_refuse = r#type == DescriptionType::Answer
            && text.len() <= MAX_REFUSING_BYTES
            && sections.iter().any(is_ended);
        let refusing = may_refuse.then_some(text);
        Ok(Self { parsed: Some(parsed), sections, has_layers, is_bundled, refusing })
    }

    /// True if an m-line may carry media.
    pub(crate) fn is_live(&self, mid: Mid) -> bool {
        self.sections.iter().any(|section| section.alias == mid && section.state == SectionState::Live)
    }

    /// The answer with these m-lines rejected: str0m expects an answer to each m-line that it offered.
    ///
    /// # Errors
    /// [`SfuError::Description`] if it cannot be parsed so.
    pub(crate) fn refusing(&self, mids: &[Mid]) -> Result<SdpAnswer, SfuError> {
        let too_long = || SfuError::Description("it refuses sections and is too long".into());
        let text = self.refusing.as_ref().ok_or_else(too_long)?;
        let mut blocks = blocks(text);
        let mut whole = String::with_capacity(text.len());
        lines(&mut whole, blocks.next().unwrap_or_default());
        for (block, section) in blocks.zip(&self.sections) {
            if mids.contains(&section.alias) {
                let line = format!("m={} 0 {MEDIA_PROTOCOL} 0", section.kind);
                lines(&mut whole, std::iter::once(&*line).chain(block.into_iter().skip(1)));
            } else {
                lines(&mut whole, block);
            }
        }
        guarded(|| SdpAnswer::from_sdp_string(&whole))
    }
}

/// Runs a parser of str0m; a panic is an error.
fn guarded<T, E>(read: impl FnOnce() -> Result<T, E> + std::panic::UnwindSafe) -> Result<T, SfuError> {
    let read = std::panic::catch_unwind(read);
    let read = read.map_err(|_| SfuError::Description("malformed SDP".into()))?;
    read.map_err(|_| SfuError::Description("it is no SDP of WebRTC".into()))
}

/// Rejects the m-lines to which str0m's answer gives no format because it knows none of their codecs, and returns
/// the mids of those that ended thereby. `before` are the m-lines of the client's last description.
///
/// The first m-line of a bundle becomes idle instead: browsers would lose the others' transport with it.
pub fn refuse_unknown(text: &str, sections: &mut [MLine], before: &[MLine]) -> Vec<Mid> {
    let empty = blocks(text).skip(1).filter(|block| !has_format(block));
    let empty: Vec<Mid> = empty.filter_map(|block| Some(Mid::from(mid_of(&block)?))).collect();
    let mut live = sections.iter().filter(|section| section.state == SectionState::Live);
    let first = live.next().map(|section| section.alias);
    let is_tag = |mid: Mid| Some(mid) == first && sections.iter().any(|s| is_other(s, mid, &empty));
    let was_idle = |mid: Mid| before.iter().any(|section| section.alias == mid && section.is_idle);
    let idle: Vec<Mid> = empty.iter().copied().filter(|mid| is_tag(*mid) || was_idle(*mid)).collect();
    for section in sections.iter_mut().filter(|section| empty.contains(&section.alias)) {
        section.is_idle = idle.contains(&section.alias);
        if !section.is_idle {
            section.end();
        }
    }
    empty.into_iter().filter(|mid| !idle.contains(mid)).collect()
}

/// True if another m-line stays live when those without formats are rejected.
fn is_other(section: &MLine, mid: Mid, refused: &[Mid]) -> bool {
    section.state == SectionState::Live && section.alias != mid && !refused.contains(&section.alias)
}

fn has_format(block: &[&str]) -> bool {
    block.first().is_some_and(|line| line.split_ascii_whitespace().count() > 3)
}

fn mid_of<'a>(block: &[&'a str]) -> Option<&'a str> {
    block.iter().find_map(|line| line.strip_prefix("a=mid:"))
}

/// Answer to an offer in which every m-line has ended.
pub fn nothing_goes_on(sections: &[MLine], terms: &Terms) -> SessionDescription {
    for_client(
        DescriptionType::Answer,
        "v=0\no=- 0 0 IN IP4 0.0.0.0\ns=-\nt=0 0\na=group:BUNDLE\n",
        sections,
        &[],
        terms,
    )
}

/// The text for str0m: every m-line that str0m must not see is replaced by one of an unknown kind.
fn for_str0m(text: &str) -> Result<(String, Vec<MLine>, bool), &'static str> {
    if text.len() > MAX_BYTES {
        return Err("it is too long");
    }
    let mut blocks = blocks(text);
    let session = blocks.next().unwrap_or_default();
    let group = session.iter().find_map(|line| line.strip_prefix("a=group:BUNDLE"));
    let bundled: HashSet<&str> = group.unwrap_or_default().split_ascii_whitespace().collect();
    let mut candidates = Candidates::default();
    let session = session_lines(&session, &mut candidates)?;
    // There is one transport, and without BUNDLE each m-line needs its own.
    let mut has_room = true;
    let mut sections: Vec<MLine> = Vec::new();
    let mut bodies = String::with_capacity(text.len());
    for block in blocks {
        let mut section = MLine::read(&block, &bundled)?;
        if section.state == SectionState::Live && !std::mem::replace(&mut has_room, group.is_some()) {
            section.end();
        }
        if sections.len() == MAX_SECTIONS {
            return Err("it has too many sections");
        }
        if sections.iter().any(|other| other.mid == section.mid) {
            return Err("two sections have the same a=mid");
        }
        if sections.iter().any(|other| other.alias == section.alias) {
            return Err("two sections have an a=mid that differs only in signs, or behind 16 characters");
        }
        let alias = format!("a=mid:{}", section.alias);
        match section.state {
            SectionState::Live => {
                let used = section_lines(&block, &mut candidates)?;
                let named =
                    used.into_iter().map(|line| if line.starts_with("a=mid:") { &*alias } else { line });
                lines(&mut bodies, named);
            }
            // str0m skips m-lines of an unknown kind, but counts them, so the indices of later ones stay right.
            SectionState::Ended => {
                let line = format!("m=void 0 {MEDIA_PROTOCOL} 0");
                lines(&mut bodies, [&*line, "c=IN IP4 0.0.0.0", &*alias, "a=inactive"]);
            }
        }
        sections.push(section);
    }
    if sections.is_empty() {
        return Err("it has no m= section");
    }
    let mut whole = String::with_capacity(text.len());
    let live = live_mids(&sections);
    lines(&mut whole, session.iter().filter(|line| !line.starts_with("a=group:BUNDLE")).copied());
    lines(&mut whole, [&*format!("a=group:BUNDLE{live}")]);
    whole.push_str(&bodies);
    Ok((whole, sections, group.is_some()))
}

/// Converts a description of str0m's for the client: known m-lines keep the client's indices, and new ones reuse the
/// indices of ended ones.
///
/// `sections` are the m-lines of the client's last description; `candidates` the server's, as attribute lines.
pub fn for_client(
    r#type: DescriptionType,
    text: &str,
    sections: &[MLine],
    candidates: &[String],
    terms: &Terms,
) -> SessionDescription {
    let mut blocks = blocks(text);
    let session = blocks.next().unwrap_or_default();
    let mut places: Vec<Option<Vec<&str>>> = sections.iter().map(|_| None).collect();
    let mut new = Vec::new();
    for block in blocks {
        let mid = mid_of(&block).map(Mid::from);
        let place = sections
            .iter()
            .position(|section| section.state == SectionState::Live && Some(section.alias) == mid);
        match place {
            Some(place) if has_format(&block) || sections[place].is_idle => places[place] = Some(block),
            None if has_format(&block) => new.push(block),
            _ => {}
        }
    }
    let ended = |place: &usize| sections.get(*place).is_none_or(|s| s.state == SectionState::Ended);
    let mut free = (0..).filter(ended);
    for block in new {
        let Some(place) = free.next() else { break };
        if place >= places.len() {
            places.resize(place + 1, None);
        }
        places[place] = Some(block);
    }
    let mut bodies = String::with_capacity(text.len());
    let mut mids = String::new();
    let mut candidates = Some(candidates);
    for (place, block) in places.into_iter().enumerate() {
        let Some(block) = block else {
            bodies.push_str(&sections[place].ended());
            continue;
        };
        // The client's own `mid`, if it has this m-line.
        let known = sections.get(place).filter(|section| section.state == SectionState::Live);
        let mid = known.map_or_else(|| mid_of(&block).unwrap_or_default(), |section| &section.mid);
        let idle = known.filter(|section| section.is_idle && !has_format(&block));
        let port = block.first().and_then(|line| line.split(' ').nth(1));
        let refused = port == Some("0") && idle.is_none();
        if !refused {
            // Formatting into a String cannot fail.
            let _ = write!(mids, " {mid}");
        }
        let block = match idle {
            Some(section) => section.idle(&block),
            None => terms.section(block, r#type == DescriptionType::Answer),
        };
        let name = format!("a=mid:{mid}");
        let named = block.iter().map(|line| if line.starts_with("a=mid:") { &*name } else { &**line });
        lines(&mut bodies, named.filter(|line| !is_candidate(line)));
        if !refused && let Some(candidates) = candidates.take() {
            // A bundle uses the candidates of its first m-line (RFC 9143 section 9.2).
            for candidate in candidates {
                lines(&mut bodies, [&*format!("a={candidate}")]);
            }
            lines(&mut bodies, ["a=end-of-candidates"]);
        }
    }
    let mut sdp = String::with_capacity(text.len());
    // RFC 9143 section 7.3: an answer has no BUNDLE group unless the offer has one.
    let is_bundled = !terms.is_unbundled || r#type == DescriptionType::Offer;
    for line in session {
        match line.strip_prefix("a=group:BUNDLE") {
            Some(_) if !is_bundled => {}
            Some(_) => lines(&mut sdp, [&*format!("a=group:BUNDLE{mids}")]),
            None => lines(&mut sdp, [line]),
        }
    }
    sdp.push_str(&bodies);
    SessionDescription { r#type, sdp }
}

fn live_mids(sections: &[MLine]) -> String {
    let live = sections.iter().filter(|section| section.state == SectionState::Live);
    live.fold(String::new(), |mut mids, section| {
        mids.push(' ');
        mids.push_str(&section.alias);
        mids
    })
}

fn is_candidate(line: &str) -> bool {
    line.starts_with("a=candidate:") || line == "a=end-of-candidates"
}

/// Splits a description into its session-level lines, then those of each m-line.
fn blocks(text: &str) -> impl Iterator<Item = Vec<&str>> {
    let mut lines = text.lines().filter(|line| !line.is_empty()).peekable();
    let mut is_first = true;
    std::iter::from_fn(move || {
        let mut block = Vec::new();
        if !is_first {
            block.push(lines.next()?);
        }
        is_first = false;
        while let Some(line) = lines.next_if(|line| !line.starts_with("m=")) {
            block.push(line);
        }
        Some(block)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A description with m-lines `(kind, port, mid)`; those with a port other than 0 are bundled.
    fn text(sections: &[(&str, &str, &str)]) -> String {
        let live: Vec<_> = sections.iter().filter(|s| s.1 != "0").map(|s| s.2).collect();
        let mut text = format!(
            "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {}\r\n",
            live.join(" ")
        );
        for (kind, port, mid) in sections {
            text.push_str(&format!(
                "m={kind} {port} UDP/TLS/RTP/SAVPF 96 97\r\nc=IN IP4 0.0.0.0\r\na=mid:{mid}\r\n\
                 a=ice-ufrag:abcd\r\na=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\na=sendonly\r\n"
            ));
        }
        text
    }

    fn terms(feedback: TransportCc) -> Terms {
        Terms { feedback, ..Terms::default() }
    }

    fn kinds(text: &str) -> Vec<String> {
        let sections = blocks(text).skip(1);
        let word = |block: &[&str], index| block[0].split(' ').nth(index).unwrap_or_default().to_owned();
        sections.map(|block| format!("{} {}", word(&block, 0), word(&block, 1))).collect()
    }

    fn mids(text: &str) -> Vec<&str> {
        text.lines().filter_map(|line| line.strip_prefix("a=mid:")).collect()
    }

    #[test]
    fn ended_and_data_m_lines_are_hidden_from_str0m() {
        let client = text(&[("audio", "9", "0"), ("video", "0", "1"), ("application", "9", "2")]);
        let (shown, sections, _) = for_str0m(&client).unwrap();
        assert_eq!(kinds(&shown), ["m=audio 9", "m=void 0", "m=void 0"]);
        assert!(shown.contains("a=group:BUNDLE 0\r\n"), "{shown}");
        let states: Vec<_> = sections.iter().map(|section| section.state).collect();
        assert_eq!(states, [SectionState::Live, SectionState::Ended, SectionState::Ended]);
        assert_eq!(mids(&shown), ["0", "1", "2"]);
    }

    #[test]
    fn port_0_m_line_in_bundle_is_live() {
        let client = text(&[("audio", "9", "0"), ("video", "0", "1")]).replace("BUNDLE 0", "BUNDLE 0 1");
        let (_, sections, _) = for_str0m(&client).unwrap();
        assert_eq!(sections[1].state, SectionState::Live);
    }

    #[test]
    fn new_track_reuses_ended_m_line() {
        let client =
            text(&[("audio", "9", "0"), ("video", "0", "1"), ("video", "9", "2"), ("audio", "0", "3")]);
        let (_, sections, _) = for_str0m(&client).unwrap();
        let server = text(&[("audio", "9", "0"), ("video", "9", "2"), ("audio", "9", "new")]);
        let candidates = ["candidate:7 1 udp 7 203.0.113.7 8789 typ host".to_owned()];
        let description =
            for_client(DescriptionType::Offer, &server, &sections, &candidates, &terms(TransportCc::Wanted));
        assert_eq!(kinds(&description.sdp), ["m=audio 9", "m=audio 9", "m=video 9", "m=audio 0"]);
        assert_eq!(mids(&description.sdp), ["0", "new", "2", "3"]);
        assert!(description.sdp.contains("a=group:BUNDLE 0 new 2\r\n"), "{}", description.sdp);
        assert_eq!(description.sdp.matches("a=candidate").count(), 1);
        assert!(description.sdp.contains("203.0.113.7"));
        let more = text(&[
            ("audio", "9", "0"),
            ("video", "9", "2"),
            ("audio", "9", "a"),
            ("audio", "9", "b"),
            ("audio", "9", "c"),
        ]);
        let description = super::for_client(
            DescriptionType::Offer,
            &more,
            &sections,
            &candidates,
            &terms(TransportCc::Wanted),
        );
        assert_eq!(mids(&description.sdp), ["0", "a", "2", "b", "c"]);
    }

    #[test]
    fn unwanted_feedback_is_not_negotiated() {
        let lines = "a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n\
                     a=rtcp-fb:96 transport-cc\r\na=rtcp-fb:96 nack\r\n";
        let server = text(&[("video", "9", "0"), ("video", "9", "1")]);
        let server = server.replace("a=sendonly\r\n", &format!("a=sendonly\r\n{lines}"));
        let server = server.replace("a=mid:1\r\n", "a=mid:1\r\na=recvonly\r\n");
        let (first, second) = server.split_at(server.rfind("m=").unwrap());
        let server = first.to_owned() + &second.replace("a=sendonly\r\n", "");
        for (feedback, negotiated) in [(TransportCc::Wanted, 2), (TransportCc::Unwanted, 1)] {
            let description = for_client(DescriptionType::Offer, &server, &[], &[], &terms(feedback)).sdp;
            assert_eq!(
                description.matches("transport-wide-cc-extensions").count(),
                negotiated,
                "{description}"
            );
            assert_eq!(description.matches("a=rtcp-fb:96 nack").count(), 2);
            let received = &description[description.rfind("m=").unwrap()..];
            assert!(received.contains("a=recvonly") && received.contains("96 transport-cc"), "{description}");
        }
    }

    #[test]
    fn malformed_description_is_refused() {
        let good = text(&[("audio", "9", "0")]);
        for bad in [
            "",
            "v=0\r\n",
            "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\n",
            &good.replace("a=mid:0\r\n", ""),
            &good.replace("a=mid:0", "a=mid:0\r\na=mid:1"),
            &good.replace("a=mid:0", "a=mid:a-b"),
            &good.replace("a=mid:0", "a=mid:aaaaaaaaaaaaaaaaa"),
            &good.replace("m=audio 9 UDP/TLS/RTP/SAVPF 96 97", "m=audio"),
            &good.replace("a=group:BUNDLE", "a=group:LS"),
            &text(&[("audio", "9", "0"), ("audio", "9", "0")]),
            &text(&vec![("audio", "9", "0"); MAX_SECTIONS + 1]),
            &"x".repeat(MAX_BYTES + 1),
        ] {
            let error = Description::parse(DescriptionType::Offer, bad).unwrap_err();
            assert_eq!(error.code(), "invalid_session_description");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics_parser(text in "(v=0\r\n)?(a=group:BUNDLE[ 0-2]{0,6}\r\n)?((m=(audio|video|application|x)?[ 09a]{0,4}(UDP/TLS/RTP/SAVPF)?[ 0-9]{0,9}|a=mid:[0-3a-]?|a=(ssrc|rid|simulcast|fmtp|rtpmap|extmap|setup|fingerprint|candidate|msid|ice-ufrag):[ -~]{0,20})\r?\n){0,12}") {
            for r#type in [DescriptionType::Offer, DescriptionType::Answer] {
                let _ = Description::parse(r#type, &text);
            }
        }

        #[test]
        fn m_lines_keep_their_indices(live in proptest::collection::vec(any::<bool>(), 1..8), news in 0..5_usize) {
            let names: Vec<String> = (0..live.len()).map(|index| format!("o{index}")).collect();
            let client: Vec<_> = live.iter().zip(&names)
                .map(|(live, name)| ("video", if *live { "9" } else { "0" }, &**name)).collect();
            let (_, sections, _) = for_str0m(&text(&client)).unwrap();
            let new: Vec<String> = (0..news).map(|index| format!("n{index}")).collect();
            let server: Vec<_> = client.iter().filter(|s| s.1 == "9").copied()
                .chain(new.iter().map(|name| ("audio", "9", &**name))).collect();
            let description = for_client(DescriptionType::Offer, &text(&server), &sections, &[], &terms(TransportCc::Wanted));
            let placed = mids(&description.sdp);
            for (index, live) in live.iter().enumerate() {
                if *live {
                    prop_assert_eq!(placed[index], &names[index]);
                }
            }
            prop_assert!(new.iter().all(|name| placed.contains(&&**name)));
            let ended = live.iter().filter(|live| !**live).count();
            prop_assert_eq!(placed.len(), live.len() + news.saturating_sub(ended));
        }
    }
}
