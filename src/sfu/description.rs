//! Session descriptions as text: what str0m reads of a client's, and what a client reads of str0m's.
//!
//! str0m never uses a section of its own offers again, so every subscription that ends would stay in
//! all descriptions for ever (measured: 3 kB each, read and written on every change). Here the
//! *client's* sections count: an ended one is taken out of str0m, str0m is shown a section of no kind
//! in its place (which it skips), and the next track that is offered takes the place, as RFC 8829
//! section 5.2.2 has it. So a description grows with the tracks of a moment, not with those of a day.

mod lines;
mod section;
mod terms;

use std::collections::HashSet;
use std::fmt::Write;

use str0m::change::{SdpAnswer, SdpOffer};
use str0m::media::Mid;

use super::error::SfuError;
use super::request::{DescriptionType, Told};
use lines::{Candidates, kept_of_section, kept_of_session, lines};
use section::MEDIA_PROTOCOL;
pub use section::{Section, SectionState};
pub use terms::{Feedback, Terms, first_formats};

/// The longest description that is read, in bytes. A browser's own offer lists all of its codecs in each
/// section, up to 6 kB, also in those that it only receives: 400 tracks have 2.4 MB.
const MOST_BYTES: usize = 3 << 20;

/// The most sections of a description, and so the most tracks that a session may be allowed.
pub const MOST_SECTIONS: usize = 512;

/// Bytes of an answer that refuses some sections, which is read on the media thread; about a hundred sections.
const MAX_REFUSING_BYTES: usize = 256 << 10;

/// A client's session description.
#[derive(Debug)]
pub struct Description {
    /// As str0m takes it; none where every section has ended, of which it makes no sense.
    pub parsed: Option<Parsed>,
    /// Its sections, in order.
    pub sections: Vec<Section>,
    /// Whether video is sent in several layers (RFC 8853).
    pub has_layers: bool,
    /// Whether its sections share one transport by name (RFC 9143). Where none is named, the first has it.
    pub is_bundled: bool,
    /// An answer as str0m would take it but for the sections that it refuses, where it refuses some.
    refusing: Option<String>,
}

/// A description as str0m takes it.
#[derive(Debug)]
pub enum Parsed {
    /// It wants an answer.
    Offer(SdpOffer),
    /// It is one.
    Answer(SdpAnswer),
}

impl Description {
    /// Reads a client's description.
    ///
    /// # Errors
    /// [`SfuError::Description`] says what cannot be used.
    pub fn parse(r#type: DescriptionType, text: &str) -> Result<Self, SfuError> {
        let has_layers = text.contains("\na=simulcast:");
        let (text, sections, is_bundled) =
            for_str0m(text).map_err(|error| SfuError::Description(error.into()))?;
        let is_ended = |section: &Section| section.state == SectionState::Ended;
        if sections.iter().all(is_ended) {
            return Ok(Self { parsed: None, sections, has_layers, is_bundled, refusing: None });
        }
        // What a stranger sends is not to end more than its own call, whatever the library does with it.
        let parsed = guarded(|| match r#type {
            DescriptionType::Offer => SdpOffer::from_sdp_string(&text).map(Parsed::Offer),
            DescriptionType::Answer => SdpAnswer::from_sdp_string(&text).map(Parsed::Answer),
        })?;
        let may_refuse = r#type == DescriptionType::Answer
            && text.len() <= MAX_REFUSING_BYTES
            && sections.iter().any(is_ended);
        let refusing = may_refuse.then_some(text);
        Ok(Self { parsed: Some(parsed), sections, has_layers, is_bundled, refusing })
    }

    /// Whether a section may carry media.
    pub fn is_live(&self, mid: Mid) -> bool {
        self.sections.iter().any(|section| section.alias == mid && section.state == SectionState::Live)
    }

    /// The answer with these sections refused: str0m wants to know of those that it offered.
    ///
    /// # Errors
    /// [`SfuError::Description`] where it cannot be read so.
    pub fn refusing(&self, mids: &[Mid]) -> Result<SdpAnswer, SfuError> {
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

/// What str0m reads of a client's text.
fn guarded<T, E>(read: impl FnOnce() -> Result<T, E> + std::panic::UnwindSafe) -> Result<T, SfuError> {
    let read = std::panic::catch_unwind(read);
    let read = read.map_err(|_| SfuError::Description("it breaks our reader".into()))?;
    read.map_err(|_| SfuError::Description("it is no SDP of WebRTC".into()))
}

/// Refuses the sections of which str0m's answer has no format, since it knows no codec of theirs, and tells which
/// ended by that. `before` are those of the client's last description.
///
/// Where the first of a bundle ended, browsers would lose the others' transport: it is idle.
pub fn refuse_unknown(text: &str, sections: &mut [Section], before: &[Section]) -> Vec<Mid> {
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

/// Whether a section lives on when others without formats are refused.
fn is_other(section: &Section, mid: Mid, refused: &[Mid]) -> bool {
    section.state == SectionState::Live && section.alias != mid && !refused.contains(&section.alias)
}

fn has_format(block: &[&str]) -> bool {
    block.first().is_some_and(|line| line.split_ascii_whitespace().count() > 3)
}

fn mid_of<'a>(block: &[&'a str]) -> Option<&'a str> {
    block.iter().find_map(|line| line.strip_prefix("a=mid:"))
}

/// The answer to an offer in which every section has ended.
pub fn nothing_goes_on(sections: &[Section], terms: &Terms) -> Told {
    told(
        DescriptionType::Answer,
        "v=0\no=- 0 0 IN IP4 0.0.0.0\ns=-\nt=0 0\na=group:BUNDLE\n",
        sections,
        &[],
        terms,
    )
}

/// The text with every section that str0m is not to know about made one of no kind.
fn for_str0m(text: &str) -> Result<(String, Vec<Section>, bool), &'static str> {
    if text.len() > MOST_BYTES {
        return Err("it is too long");
    }
    let mut blocks = blocks(text);
    let session = blocks.next().unwrap_or_default();
    let group = session.iter().find_map(|line| line.strip_prefix("a=group:BUNDLE"));
    let bundled: HashSet<&str> = group.unwrap_or_default().split_ascii_whitespace().collect();
    let mut candidates = Candidates::default();
    let session = kept_of_session(&session, &mut candidates)?;
    // There is one transport, and without a bundle each section wants its own.
    let mut has_room = true;
    let mut sections: Vec<Section> = Vec::new();
    let mut bodies = String::with_capacity(text.len());
    for block in blocks {
        let mut section = Section::read(&block, &bundled)?;
        if section.state == SectionState::Live && !std::mem::replace(&mut has_room, group.is_some()) {
            section.end();
        }
        if sections.len() == MOST_SECTIONS {
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
                let kept = kept_of_section(&block, &mut candidates)?;
                let named =
                    kept.into_iter().map(|line| if line.starts_with("a=mid:") { &*alias } else { line });
                lines(&mut bodies, named);
            }
            // A kind that is no kind is skipped, but keeps the places of those behind it.
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

/// What a client is told: str0m's description, with its sections in the places where the client has
/// them, and new ones in the places of ended ones.
///
/// `sections` are the client's as of its last description; `candidates` the server's, as lines.
pub fn told(
    r#type: DescriptionType,
    text: &str,
    sections: &[Section],
    candidates: &[String],
    terms: &Terms,
) -> Told {
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
        // The client's own name for it, where it has one.
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
            // A bundle has the candidates of its first section (RFC 9143 section 9.2).
            for candidate in candidates {
                lines(&mut bodies, [&*format!("a={candidate}")]);
            }
            lines(&mut bodies, ["a=end-of-candidates"]);
        }
    }
    let mut sdp = String::with_capacity(text.len());
    // RFC 9143 section 7.3: an answer has no group that the offer had not.
    let is_bundled = !terms.is_unbundled || r#type == DescriptionType::Offer;
    for line in session {
        match line.strip_prefix("a=group:BUNDLE") {
            Some(_) if !is_bundled => {}
            Some(_) => lines(&mut sdp, [&*format!("a=group:BUNDLE{mids}")]),
            None => lines(&mut sdp, [line]),
        }
    }
    sdp.push_str(&bodies);
    Told { r#type, sdp }
}

fn live_mids(sections: &[Section]) -> String {
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

/// The lines of the session, then those of each section.
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

    /// A description of sections `(kind, port, mid)`, all in the bundle that have another port than 0.
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

    fn terms(feedback: Feedback) -> Terms {
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
    fn ended_sections_and_data_are_of_no_kind_for_the_library() {
        let client = text(&[("audio", "9", "0"), ("video", "0", "1"), ("application", "9", "2")]);
        let (shown, sections, _) = for_str0m(&client).unwrap();
        assert_eq!(kinds(&shown), ["m=audio 9", "m=void 0", "m=void 0"]);
        assert!(shown.contains("a=group:BUNDLE 0\r\n"), "{shown}");
        let states: Vec<_> = sections.iter().map(|section| section.state).collect();
        assert_eq!(states, [SectionState::Live, SectionState::Ended, SectionState::Ended]);
        assert_eq!(mids(&shown), ["0", "1", "2"]);
    }

    #[test]
    fn port_0_in_the_bundle_is_live() {
        let client = text(&[("audio", "9", "0"), ("video", "0", "1")]).replace("BUNDLE 0", "BUNDLE 0 1");
        let (_, sections, _) = for_str0m(&client).unwrap();
        assert_eq!(sections[1].state, SectionState::Live);
    }

    #[test]
    fn a_new_track_takes_the_place_of_an_ended_one() {
        let client =
            text(&[("audio", "9", "0"), ("video", "0", "1"), ("video", "9", "2"), ("audio", "0", "3")]);
        let (_, sections, _) = for_str0m(&client).unwrap();
        let server = text(&[("audio", "9", "0"), ("video", "9", "2"), ("audio", "9", "new")]);
        let candidates = ["candidate:7 1 udp 7 203.0.113.7 8789 typ host".to_owned()];
        let told = told(DescriptionType::Offer, &server, &sections, &candidates, &terms(Feedback::Wanted));
        assert_eq!(kinds(&told.sdp), ["m=audio 9", "m=audio 9", "m=video 9", "m=audio 0"]);
        assert_eq!(mids(&told.sdp), ["0", "new", "2", "3"]);
        assert!(told.sdp.contains("a=group:BUNDLE 0 new 2\r\n"), "{}", told.sdp);
        assert_eq!(told.sdp.matches("a=candidate").count(), 1);
        assert!(told.sdp.contains("203.0.113.7"));
        let more = text(&[
            ("audio", "9", "0"),
            ("video", "9", "2"),
            ("audio", "9", "a"),
            ("audio", "9", "b"),
            ("audio", "9", "c"),
        ]);
        let told =
            super::told(DescriptionType::Offer, &more, &sections, &candidates, &terms(Feedback::Wanted));
        assert_eq!(mids(&told.sdp), ["0", "a", "2", "b", "c"]);
    }

    #[test]
    fn feedback_that_is_not_wanted_is_not_negotiated_for_what_is_sent() {
        let lines = "a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n\
                     a=rtcp-fb:96 transport-cc\r\na=rtcp-fb:96 nack\r\n";
        let server = text(&[("video", "9", "0"), ("video", "9", "1")]);
        let server = server.replace("a=sendonly\r\n", &format!("a=sendonly\r\n{lines}"));
        let server = server.replace("a=mid:1\r\n", "a=mid:1\r\na=recvonly\r\n");
        let (first, second) = server.split_at(server.rfind("m=").unwrap());
        let server = first.to_owned() + &second.replace("a=sendonly\r\n", "");
        for (feedback, negotiated) in [(Feedback::Wanted, 2), (Feedback::Unwanted, 1)] {
            let told = told(DescriptionType::Offer, &server, &[], &[], &terms(feedback)).sdp;
            assert_eq!(told.matches("transport-wide-cc-extensions").count(), negotiated, "{told}");
            assert_eq!(told.matches("a=rtcp-fb:96 nack").count(), 2);
            let received = &told[told.rfind("m=").unwrap()..];
            assert!(received.contains("a=recvonly") && received.contains("96 transport-cc"), "{told}");
        }
    }

    #[test]
    fn what_is_no_description_is_refused() {
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
            &text(&vec![("audio", "9", "0"); MOST_SECTIONS + 1]),
            &"x".repeat(MOST_BYTES + 1),
        ] {
            let error = Description::parse(DescriptionType::Offer, bad).unwrap_err();
            assert_eq!(error.code(), "invalid_session_description");
        }
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_reader(text in "(v=0\r\n)?(a=group:BUNDLE[ 0-2]{0,6}\r\n)?((m=(audio|video|application|x)?[ 09a]{0,4}(UDP/TLS/RTP/SAVPF)?[ 0-9]{0,9}|a=mid:[0-3a-]?|a=(ssrc|rid|simulcast|fmtp|rtpmap|extmap|setup|fingerprint|candidate|msid|ice-ufrag):[ -~]{0,20})\r?\n){0,12}") {
            for r#type in [DescriptionType::Offer, DescriptionType::Answer] {
                let _ = Description::parse(r#type, &text);
            }
        }

        #[test]
        fn sections_keep_their_places(live in proptest::collection::vec(any::<bool>(), 1..8), news in 0..5_usize) {
            let names: Vec<String> = (0..live.len()).map(|index| format!("o{index}")).collect();
            let client: Vec<_> = live.iter().zip(&names)
                .map(|(live, name)| ("video", if *live { "9" } else { "0" }, &**name)).collect();
            let (_, sections, _) = for_str0m(&text(&client)).unwrap();
            let new: Vec<String> = (0..news).map(|index| format!("n{index}")).collect();
            let server: Vec<_> = client.iter().filter(|s| s.1 == "9").copied()
                .chain(new.iter().map(|name| ("audio", "9", &**name))).collect();
            let told = told(DescriptionType::Offer, &text(&server), &sections, &[], &terms(Feedback::Wanted));
            let placed = mids(&told.sdp);
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
