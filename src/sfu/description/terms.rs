//! The codecs and extensions negotiated for an m-line, out of all that str0m lists.
//!
//! A browser's answer to an m-line is as long as the offer. With all codecs an m-line has 2.3 kB, and a client that
//! joins a meeting of a hundred people negotiates two hundred of them.

use std::borrow::Cow;
use std::collections::HashMap;

/// Use of transport-wide congestion control for the packets that a client is sent
/// (draft-holmer-rmcat-transport-wide-cc-extensions-01). The client reports 20 times a second, and reports that are not
/// used cost both sides about as much as the media.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TransportCc {
    /// The client reports the arrival of packets that it is sent.
    Wanted,
    /// It does not. Packets that it sends itself are still reported to it.
    #[default]
    Unwanted,
}

/// The terms negotiated with a client.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// Use of transport-wide feedback from it.
    pub feedback: TransportCc,
    /// True if the client's offer has no BUNDLE group.
    pub is_unbundled: bool,
    /// Payload types allowed on m-lines that send to it, by `mid`; without an entry all are.
    pub formats: HashMap<String, Vec<u8>>,
}

impl Terms {
    /// The lines of an m-line's block for the client; `is_answer` if the client offered it.
    pub(super) fn section<'a>(&self, block: Vec<&'a str>, is_answer: bool) -> Vec<Cow<'a, str>> {
        let sends_only = block.contains(&"a=sendonly");
        let mid = block.iter().find_map(|line| line.strip_prefix("a=mid:")).unwrap_or_default();
        let wanted = match self.formats.get(mid) {
            Some(formats) if sends_only => formats.clone(),
            // The client must send the first format and no other: subscribers negotiated only that one.
            None if is_answer && block.contains(&"a=recvonly") => first_format(&block).into_iter().collect(),
            _ => Vec::new(),
        };
        let kept = with_repair(&block, wanted);
        let is_unwanted = |line: &str| {
            let format = format_of(line);
            format.is_some_and(|format| !kept.is_empty() && !kept.contains(&format))
                || sends_only && is_idle_extension(line)
                || sends_only && self.feedback == TransportCc::Unwanted && is_feedback(line)
                // Repeats `a=msid` in the form before RFC 8830.
                || line.starts_with("a=ssrc:") && line.contains(" msid:")
        };
        let opus = (!sends_only).then(|| opus_format(&block)).flatten();
        let lines = block.iter().filter(|line| !is_unwanted(line)).map(|line| {
            if line.starts_with("m=") && !kept.is_empty() {
                return Cow::Owned(with_formats(line, &kept));
            }
            // With DTX a silent client sends 2 packets a second instead of 50 (RFC 7587 section 3.1.3).
            match opus {
                Some(opus) if is_parameters(line, opus) && !line.contains("usedtx=") => {
                    Cow::Owned(format!("{line};usedtx=1"))
                }
                _ => Cow::Borrowed(*line),
            }
        });
        lines.collect()
    }
}

/// First media format of each m-line of a description, by `mid`.
pub fn first_formats(text: &str) -> HashMap<&str, u8> {
    let sections = super::blocks(text).skip(1);
    let first = sections.filter_map(|block| {
        let mid = block.iter().find_map(|line| line.strip_prefix("a=mid:"))?;
        Some((mid, first_format(&block)?))
    });
    first.collect()
}

/// First format that carries media itself, not repair data, comfort noise or telephone events.
fn first_format(block: &[&str]) -> Option<u8> {
    let formats = block.first()?.split(' ').skip(3).filter_map(|format| format.parse().ok());
    let is_other = |format: &u8| {
        block.iter().any(|line| {
            let Some(codec) = codec(line, *format) else { return false };
            ["rtx", "red", "ulpfec", "flexfec-03", "CN", "telephone-event"]
                .iter()
                .any(|other| other.eq_ignore_ascii_case(codec))
        })
    };
    formats.into_iter().find(|format| !is_other(format))
}

/// The formats and their retransmission formats (`apt`).
fn with_repair(block: &[&str], formats: Vec<u8>) -> Vec<u8> {
    let mut kept = formats;
    for at in 0..kept.len() {
        let again = format!(" apt={}", kept[at]);
        let repairs = block.iter().filter(|line| line.starts_with("a=fmtp:") && line.ends_with(&again));
        let more: Vec<u8> = repairs.filter_map(|line| format_of(line)).collect();
        kept.extend(more);
    }
    kept
}

/// The format that a line describes.
fn format_of(line: &str) -> Option<u8> {
    let about = ["a=rtpmap:", "a=fmtp:", "a=rtcp-fb:"].iter().find_map(|start| line.strip_prefix(start))?;
    about.split(' ').next()?.parse().ok()
}

/// Codec of a format, if this line is its `a=rtpmap`.
fn codec(line: &str, format: u8) -> Option<&str> {
    if format_of(line) != Some(format) {
        return None;
    }
    line.strip_prefix("a=rtpmap:")?.split([' ', '/']).nth(1)
}

fn opus_format(block: &[&str]) -> Option<u8> {
    let opus = block.iter().filter_map(|line| Some((line, format_of(line)?)));
    opus.filter(|(line, format)| codec(line, *format).is_some_and(|codec| codec.eq_ignore_ascii_case("opus")))
        .map(|(_, format)| format)
        .next()
}

fn is_parameters(line: &str, format: u8) -> bool {
    line.starts_with("a=fmtp:") && format_of(line) == Some(format)
}

/// The `m=` line with only these formats, in its own order.
fn with_formats(line: &str, kept: &[u8]) -> String {
    let mut words = line.split(' ');
    let mut text: Vec<&str> = words.by_ref().take(3).collect();
    text.extend(words.filter(|word| word.parse().is_ok_and(|format| kept.contains(&format))));
    text.join(" ")
}

/// True for header extensions about layers: a subscriber gets a single layer.
fn is_idle_extension(line: &str) -> bool {
    line.starts_with("a=extmap:") && line.ends_with("rtp-stream-id")
}

/// True for the header extension that numbers packets for TWCC. `a=rtcp-fb:… transport-cc` stays: without numbers
/// it costs nothing, and str0m cannot enable it later if the session's first description lacks it.
fn is_feedback(line: &str) -> bool {
    line.starts_with("a=extmap:") && line.contains("transport-wide-cc-extensions")
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIDEO: &str = "m=video 9 UDP/TLS/RTP/SAVPF 96 97 127 121
a=mid:v
a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid
a=extmap:10 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id
a=extmap:11 urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id
a=sendonly
a=rtpmap:96 VP8/90000
a=rtcp-fb:96 nack
a=rtpmap:97 rtx/90000
a=fmtp:97 apt=96
a=rtpmap:127 H264/90000
a=rtcp-fb:127 nack
a=rtpmap:121 rtx/90000
a=fmtp:121 apt=127
a=ssrc:1 cname:x
a=ssrc:1 msid:x y";

    const AUDIO: &str = "m=audio 9 UDP/TLS/RTP/SAVPF 111 0 8
a=mid:a
a=recvonly
a=rtpmap:111 opus/48000/2
a=fmtp:111 minptime=10;useinbandfec=1
a=rtpmap:0 PCMU/8000
a=rtpmap:8 PCMA/8000";

    fn told(text: &str, formats: &[u8], is_answer: bool) -> String {
        let formats = HashMap::from([("v".to_owned(), formats.to_vec())]);
        let terms = Terms { formats, ..Terms::default() };
        terms.section(text.lines().collect(), is_answer).join("\n")
    }

    #[test]
    fn subscription_has_only_its_tracks_codec() {
        assert_eq!(
            told(VIDEO, &[127], false),
            "m=video 9 UDP/TLS/RTP/SAVPF 127 121
a=mid:v
a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid
a=sendonly
a=rtpmap:127 H264/90000
a=rtcp-fb:127 nack
a=rtpmap:121 rtx/90000
a=fmtp:121 apt=127
a=ssrc:1 cname:x"
        );
        assert!(told(VIDEO, &[], false).starts_with("m=video 9 UDP/TLS/RTP/SAVPF 96 97 127 121\n"));
    }

    #[test]
    fn publication_has_the_first_codec() {
        let video = VIDEO.replace("sendonly", "recvonly").replace("a=mid:v", "a=mid:own");
        let answer = told(&video, &[], true);
        assert!(answer.starts_with("m=video 9 UDP/TLS/RTP/SAVPF 96 97\n"), "{answer}");
        assert!(!answer.contains("H264") && answer.contains("repaired-rtp-stream-id"), "{answer}");
        assert!(told(&video, &[], false).contains("H264"), "an offer leaves the choice");
        let red = AUDIO
            .replace("111 0 8", "63 111 0 8")
            .replace("a=rtpmap:0", "a=rtpmap:63 red/48000/2\na=rtpmap:0");
        assert!(told(&red, &[], true).starts_with("m=audio 9 UDP/TLS/RTP/SAVPF 111\n"));
    }

    #[test]
    fn publisher_is_asked_for_opus_dtx() {
        for is_answer in [true, false] {
            let told = told(AUDIO, &[], is_answer);
            assert!(
                told.contains("a=fmtp:111 minptime=10;useinbandfec=1;usedtx=1\n")
                    || is_answer && told.ends_with(";usedtx=1"),
                "{told}"
            );
        }
        assert!(!told(&AUDIO.replace("recvonly", "sendonly"), &[], false).contains("usedtx"));
        assert_eq!(told(&AUDIO.replace("fec=1", "fec=1;usedtx=0"), &[], true).matches("usedtx").count(), 1);
    }

    #[test]
    fn first_formats_are_found_by_mid() {
        let text =
            format!("v=0\n{VIDEO}\n{AUDIO}\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\na=mid:d");
        assert_eq!(first_formats(&text), HashMap::from([("v", 96), ("a", 111)]));
    }
}
