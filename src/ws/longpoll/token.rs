//! The token of a long-poll session: whoever has it reads and writes as its owner.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use subtle::ConstantTimeEq;

/// The beginning of every token. No identity token begins so, and both may be parameters of the same name.
const PREFIX: &str = "lp-";

/// Size of the part that finds the session.
const ID_BYTES: usize = 8;

/// Size of the part that is compared with that of the session found.
const SECRET_BYTES: usize = 32;

/// The token of a session.
#[derive(Clone)]
pub(in crate::ws) struct SessionToken {
    id: u64,
    secret: [u8; SECRET_BYTES],
}

impl SessionToken {
    /// A new token.
    ///
    /// # Errors
    /// Those of the operating system's generator.
    pub(super) fn random() -> Result<Self, getrandom::Error> {
        let mut secret = [0; SECRET_BYTES];
        getrandom::fill(&mut secret)?;
        Ok(Self { id: getrandom::u64()?, secret })
    }

    /// Parses a token; `None` if the text has not the form of one.
    pub(in crate::ws) fn parse(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text.strip_prefix(PREFIX)?).ok()?;
        let (id, secret) = bytes.split_first_chunk::<ID_BYTES>()?;
        Some(Self { id: u64::from_be_bytes(*id), secret: secret.try_into().ok()? })
    }

    /// The part that finds the session, and is no secret.
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// True if the secrets are the same, in constant time.
    pub(super) fn is_same_secret(&self, other: &Self) -> bool {
        self.secret.ct_eq(&other.secret).into()
    }

    /// The token as text.
    pub(super) fn to_text(&self) -> String {
        let bytes = [&self.id.to_be_bytes()[..], &self.secret].concat();
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl fmt::Debug for SessionToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SessionToken")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_survives_its_text() {
        let token = SessionToken::random().unwrap();
        let parsed = SessionToken::parse(&token.to_text()).unwrap();
        assert!(parsed.id() == token.id() && parsed.is_same_secret(&token));
        assert!(!SessionToken::random().unwrap().is_same_secret(&token));
        assert!(!format!("{token:?}").contains(&token.to_text()[3..]));
    }

    #[test]
    fn other_texts_are_no_tokens() {
        let token = SessionToken::random().unwrap().to_text();
        let jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl";
        for text in ["", "lp-", jwt, &token[3..], &token[..token.len() - 2], &format!("{token}AA"), "lp-*"] {
            assert!(SessionToken::parse(text).is_none(), "{text}");
        }
    }
}
