//! The lines of a description that str0m uses; all others are removed before it parses the text.
//!
//! str0m tries two dozen parsers on a line before it skips it, and walks over some kinds of lines once for each of
//! them: three megabytes of useless lines blocked it for a minute.

/// Maximum number of lines of an m-line's block. Browsers have up to 350 for video.
const MAX_LINES: usize = 1024;

/// Maximum length of a line that the library sees, in bytes.
const MAX_LINE_BYTES: usize = 4096;

/// Maximum number of candidates, over all m-lines: the client's connectivity checks reveal the one that matters.
const MAX_CANDIDATES: usize = 64;

/// Most lines about SSRCs for one m-line. Three layers with retransmission have 28.
const MAX_SSRC_LINES: usize = 64;

/// Most layers of a video (`a=rid`, RFC 8851). Browsers have three.
const MAX_LAYERS: usize = 8;

/// Session-level attributes that str0m uses.
const OF_SESSION: &[&str] = &[
    "end-of-candidates",
    "extmap-allow-mixed",
    "fingerprint",
    "group",
    "ice-lite",
    "ice-options",
    "ice-pwd",
    "ice-ufrag",
    "setup",
];

/// Media-level attributes that str0m uses.
const OF_SECTION: &[&str] = &[
    "end-of-candidates",
    "extmap",
    "fingerprint",
    "fmtp",
    "ice-options",
    "ice-pwd",
    "ice-ufrag",
    "inactive",
    "mid",
    "msid",
    "recvonly",
    "rtcp-fb",
    "rtcp-mux",
    "rtcp-mux-only",
    "rtcp-rsize",
    "rtpmap",
    "sendonly",
    "sendrecv",
    "setup",
    "simulcast",
];

/// Number of candidates seen in a description.
#[derive(Debug, Default)]
pub(super) struct Candidates(usize);

/// The session-level lines that str0m uses.
pub(super) fn session_lines<'a>(
    session: &[&'a str],
    candidates: &mut Candidates,
) -> Result<Vec<&'a str>, &'static str> {
    let is_known = |line: &str| ["v=", "o=", "s=", "t="].iter().any(|start| line.starts_with(start));
    let mut lines = Vec::new();
    for &line in session {
        let is_used = match attribute(line) {
            Some("candidate") => candidates.count(),
            // With the maximum number of m-lines, their mids exceed the line limit; the caller writes this line itself.
            Some("group") => false,
            Some(name) => OF_SESSION.contains(&name),
            None => is_known(line),
        };
        if is_used {
            push_line(&mut lines, line)?;
        }
    }
    Ok(lines)
}

/// The lines of an m-line's block that str0m uses.
pub(super) fn section_lines<'a>(
    section: &[&'a str],
    candidates: &mut Candidates,
) -> Result<Vec<&'a str>, &'static str> {
    let mut lines = Vec::with_capacity(section.len().min(MAX_LINES));
    let (mut of_ssrcs, mut layers) = (0, 0);
    for &line in section {
        let is_used = match attribute(line) {
            Some("candidate") => candidates.count(),
            Some("ssrc" | "ssrc-group") => {
                of_ssrcs += 1;
                true
            }
            Some("rid") => {
                layers += 1;
                true
            }
            Some(name) => OF_SECTION.contains(&name),
            None => line.starts_with("m=") || line.starts_with("c="),
        };
        if !is_used {
            continue;
        }
        if of_ssrcs > MAX_SSRC_LINES {
            return Err("a section has more than 64 lines about SSRCs");
        }
        if layers > MAX_LAYERS {
            return Err("a section has more than 8 layers (a=rid)");
        }
        push_line(&mut lines, line)?;
    }
    Ok(lines)
}

impl Candidates {
    fn count(&mut self) -> bool {
        self.0 += 1;
        self.0 <= MAX_CANDIDATES
    }
}

fn push_line<'a>(lines: &mut Vec<&'a str>, line: &'a str) -> Result<(), &'static str> {
    check_length(line)?;
    if lines.len() == MAX_LINES {
        return Err("a section has more than 1,024 lines");
    }
    lines.push(line);
    Ok(())
}

/// Checks the length of a line that str0m gets.
pub(super) fn check_length(line: &str) -> Result<(), &'static str> {
    if line.len() > MAX_LINE_BYTES { Err("a line is longer than 4,096 bytes") } else { Ok(()) }
}

/// The name of the attribute that a line sets.
fn attribute(line: &str) -> Option<&str> {
    let attribute = line.strip_prefix("a=")?;
    Some(attribute.split_once(':').map_or(attribute, |(name, _)| name))
}

/// Appends lines, each with the line end of RFC 8866 section 5.
pub(super) fn lines<'a>(text: &mut String, lines: impl IntoIterator<Item = &'a str>) {
    for line in lines {
        text.push_str(line);
        text.push_str("\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count_lines(section: &[&str]) -> Result<usize, &'static str> {
        section_lines(section, &mut Candidates::default()).map(|lines| lines.len())
    }

    #[test]
    fn lines_unknown_to_str0m_are_removed() {
        let section =
            ["m=audio 9 UDP/TLS/RTP/SAVPF 111", "i=x", "c=IN IP4 0.0.0.0", "b=AS:1", "b=TIAS:1", "a=mid:0"];
        let lines = section_lines(&section, &mut Candidates::default()).unwrap();
        assert_eq!(lines, [section[0], section[2], section[5]]);
        let unknown = ["a=foo:1", "a=rtpmapx:1", "a=", "k=clear", "x", "a=group:BUNDLE 0"].repeat(100_000);
        assert_eq!(count_lines(&unknown), Ok(0));
        let session = ["v=0", "o=- 1 2 IN IP4 127.0.0.1", "s=-", "t=0 0", "a=ice-lite"];
        let mixed: Vec<&str> =
            session.into_iter().flat_map(|line| [line, "e=x", "a=msid-semantic: WMS"]).collect();
        assert_eq!(session_lines(&mixed, &mut Candidates::default()).unwrap(), session);
    }

    #[test]
    fn m_line_limits_are_enforced() {
        for (line, most) in
            [("a=ssrc:1 cname:x", MAX_SSRC_LINES), ("a=rid:a send", MAX_LAYERS), ("a=fmtp:96 x", MAX_LINES)]
        {
            assert_eq!(count_lines(&vec![line; most]), Ok(most));
            assert!(count_lines(&vec![line; most + 1]).is_err(), "{line}");
        }
        let long = format!("a=fmtp:96 {}", "x".repeat(MAX_LINE_BYTES));
        assert!(count_lines(&[&long]).is_err());
        assert_eq!(count_lines(&[&long.replace("fmtp", "foo")]), Ok(0));
    }

    #[test]
    fn excess_candidates_are_dropped() {
        let mut candidates = Candidates::default();
        let section = ["a=candidate:1 1 udp 1 192.0.2.1 9 typ host"; 40];
        let mut count = || section_lines(&section, &mut candidates).unwrap().len();
        assert_eq!([count(), count(), count()], [40, 24, 0]);
    }
}
