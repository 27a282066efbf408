//! Negotiation of compression: the offers of `Sec-WebSocket-Extensions`, and our answer.
//!
//! The first acceptable offer of permessage-deflate (RFC 7692 section 7.1) is taken. An offer with
//! an unknown or repeated parameter, an invalid value, or a window smaller than the one in which
//! messages are compressed for everyone is skipped, as are other extensions; if none remains,
//! nothing is negotiated. Only a header that is not a list of extensions is an error: RFC 6455
//! section 9.1 does not allow ignoring it. A header's length is bounded by the limit on all
//! headers, and each byte is examined once.

use axum::http::header::SEC_WEBSOCKET_EXTENSIONS;
use axum::http::{HeaderMap, HeaderValue};

/// Name of the compression extension.
const NAME: &str = "permessage-deflate";

/// The only window size (as a power of two) that all recipients of the same bytes can share.
const WINDOW_BITS: &str = "15";

/// An accepted offer of permessage-deflate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compression {
    /// True if the client requested a window, which the answer then has to name.
    names_window: bool,
}

/// The header is not a list of extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl Compression {
    /// Takes the first acceptable offer; `None` if there is none.
    ///
    /// # Errors
    /// [`Malformed`] if a header breaks the grammar of RFC 6455 section 9.1.
    pub fn negotiate(headers: &HeaderMap) -> Result<Option<Self>, Malformed> {
        let mut taken = None;
        for header in headers.get_all(SEC_WEBSOCKET_EXTENSIONS) {
            let offers = Offers { rest: header.to_str().map_err(|_| Malformed)? }.first_acceptable()?;
            taken = taken.or(offers);
        }
        Ok(taken)
    }

    /// The server's answer to the offer: no context takeover in either direction.
    pub fn answer(self) -> HeaderValue {
        HeaderValue::from_static(if self.names_window {
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=15"
        } else {
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
        })
    }
}

/// Parameters of an offer of permessage-deflate read so far.
#[derive(Debug, Default)]
struct Offer {
    server_no_context_takeover: bool,
    client_no_context_takeover: bool,
    server_max_window_bits: bool,
    client_max_window_bits: bool,
    is_unacceptable: bool,
}

impl Offer {
    fn take(&mut self, name: &str, value: Option<&str>) {
        let (seen, is_acceptable) = match name {
            "server_no_context_takeover" => (&mut self.server_no_context_takeover, value.is_none()),
            "client_no_context_takeover" => (&mut self.client_no_context_takeover, value.is_none()),
            "server_max_window_bits" => (&mut self.server_max_window_bits, value == Some(WINDOW_BITS)),
            // A decompressor with the largest window supports any window.
            "client_max_window_bits" => (&mut self.client_max_window_bits, value.is_none_or(is_window)),
            _ => {
                self.is_unacceptable = true;
                return;
            }
        };
        self.is_unacceptable |= *seen || !is_acceptable;
        *seen = true;
    }
}

/// A decimal number from 8 to 15 without a leading zero (RFC 7692 section 7.1.2).
fn is_window(value: &str) -> bool {
    matches!(value, "8" | "9" | "10" | "11" | "12" | "13" | "14" | "15")
}

/// The unread rest of a header.
struct Offers<'a> {
    rest: &'a str,
}

impl<'a> Offers<'a> {
    fn first_acceptable(&mut self) -> Result<Option<Compression>, Malformed> {
        let mut taken = None;
        loop {
            // Elements of a list may be empty (RFC 9110 section 5.6.1.2).
            while self.eat(',') {}
            if self.rest.is_empty() {
                return Ok(taken);
            }
            let is_ours = self.token()?.eq_ignore_ascii_case(NAME);
            let mut offer = Offer::default();
            while self.eat(';') {
                let name = self.token()?;
                let value = if self.eat('=') { Some(self.value()?) } else { None };
                if is_ours {
                    offer.take(name, value);
                }
            }
            if is_ours && !offer.is_unacceptable {
                taken = taken.or(Some(Compression { names_window: offer.server_max_window_bits }));
            }
            if !self.rest.is_empty() && !self.rest.starts_with(',') {
                return Err(Malformed);
            }
        }
    }

    /// Consumes a separator, if it is next after whitespace.
    fn eat(&mut self, separator: char) -> bool {
        self.skip_space();
        let Some(rest) = self.rest.strip_prefix(separator) else { return false };
        self.rest = rest;
        self.skip_space();
        true
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t']);
    }

    fn token(&mut self) -> Result<&'a str, Malformed> {
        let end = self.rest.find(|char: char| !is_token(char)).unwrap_or(self.rest.len());
        let (token, rest) = self.rest.split_at(end);
        self.rest = rest;
        if token.is_empty() { Err(Malformed) } else { Ok(token) }
    }

    /// Reads a token, quoted or not. A quoted string that is not a token is malformed; one with a
    /// backslash is allowed, but stays as written, which matches no known value.
    fn value(&mut self) -> Result<&'a str, Malformed> {
        let Some(quoted) = self.rest.strip_prefix('"') else { return self.token() };
        let end = quoted.find(|char: char| !is_token(char) && char != '\\').ok_or(Malformed)?;
        let value = &quoted[..end];
        self.rest = quoted[end..].strip_prefix('"').ok_or(Malformed)?;
        if value.is_empty() || value.ends_with('\\') { Err(Malformed) } else { Ok(value) }
    }
}

/// A character of a token (RFC 9110 section 5.6.2).
fn is_token(char: char) -> bool {
    char.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(char)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ANSWER: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

    fn negotiate(headers: &[&str]) -> Result<Option<String>, Malformed> {
        let mut map = HeaderMap::new();
        for header in headers {
            map.append(SEC_WEBSOCKET_EXTENSIONS, HeaderValue::from_str(header).unwrap());
        }
        let taken = Compression::negotiate(&map)?;
        Ok(taken.map(|taken| taken.answer().to_str().unwrap().to_owned()))
    }

    #[test]
    fn first_acceptable_offer_is_taken() {
        for offers in [
            // Chromium, Firefox; Safari.
            &["permessage-deflate; client_max_window_bits"][..],
            &["permessage-deflate"],
            &["Permessage-Deflate ; client_max_window_bits=\"10\"\t; server_no_context_takeover"],
            &["x-webkit-deflate-frame, permessage-deflate;client_no_context_takeover"],
            &["permessage-deflate; server_max_window_bits=10, permessage-deflate"],
            &["mux; max-channels=4; flow-control", "", " , permessage-deflate,"],
            &["permessage-deflate; unknown", "permessage-deflate"],
            &["permessage-deflate", "permessage-deflate; server_max_window_bits=15"],
        ] {
            assert_eq!(negotiate(offers), Ok(Some(ANSWER.to_owned())), "{offers:?}");
        }
        for offer in [
            "permessage-deflate; server_max_window_bits=15",
            "permessage-deflate;server_max_window_bits=\"15\"",
        ] {
            let answer = format!("{ANSWER}; server_max_window_bits=15");
            assert_eq!(negotiate(&[offer]), Ok(Some(answer)), "who asks for a window hears of it");
        }
    }

    #[test]
    fn unacceptable_offer_is_skipped() {
        assert_eq!(negotiate(&[]), Ok(None));
        for parameters in [
            "unknown",
            "server_no_context_takeover; server_no_context_takeover",
            "client_max_window_bits; client_max_window_bits=10",
            "server_no_context_takeover=1",
            "client_no_context_takeover=true",
            "server_max_window_bits",
            "server_max_window_bits=14",
            "server_max_window_bits=16",
            "server_max_window_bits=015",
            "server_max_window_bits=\"1\\5\"",
            "client_max_window_bits=7",
            "client_max_window_bits=16",
            "client_max_window_bits=08",
            "client_max_window_bits=x",
        ] {
            let offer = format!("permessage-deflate; {parameters}");
            assert_eq!(negotiate(&[&offer]), Ok(None), "{offer}");
        }
        for offer in
            ["", ",,", "deflate-frame", "permessage-deflates", "permessage-bzip2; x=\"permessage-deflate\""]
        {
            assert_eq!(negotiate(&[offer]), Ok(None), "{offer}");
        }
    }

    #[test]
    fn malformed_header_is_rejected() {
        for header in [
            ";",
            "=",
            "permessage-deflate;",
            "permessage-deflate client_max_window_bits",
            "permessage-deflate; client_max_window_bits=",
            "permessage-deflate; client_max_window_bits=\"10",
            "permessage-deflate; client_max_window_bits=\"\"",
            "permessage-deflate; client_max_window_bits=\"1 0\"",
            "permessage-deflate; client_max_window_bits=\"10\"x",
            "permessage-deflate; =10",
            "permessage-deflate, \"mux\"",
            "mux; a; b=c d",
        ] {
            assert_eq!(negotiate(&[header]), Err(Malformed), "{header}");
            assert_eq!(negotiate(&["permessage-deflate", header]), Err(Malformed), "{header}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_header_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut map = HeaderMap::new();
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                map.insert(SEC_WEBSOCKET_EXTENSIONS, value);
            }
            let _ = Compression::negotiate(&map);
        }

        #[test]
        fn header_like_text_never_panics(
            pieces in prop::collection::vec(prop::sample::select(vec![
                "permessage-deflate", "client_max_window_bits", "server_max_window_bits", "=", "15", "\"15\"", "\"", "\\", ";", ",", " ", "x",
            ]), 0..30)
        ) {
            if let Ok(Some(answer)) = negotiate(&[&pieces.concat()]) {
                prop_assert!(answer.starts_with(ANSWER));
                prop_assert!(pieces.contains(&"permessage-deflate"));
            }
        }
    }
}
