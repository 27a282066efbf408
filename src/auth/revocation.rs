//! Revoked access tokens: those of an identity, of a key, or of both, that were issued until a moment.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::watch;

use super::lease::{LEEWAY, TokenLease};

/// The end of all tokens of a subject that were issued until a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// The tokens' `sub`, composed; all identities, if there is none.
    pub identity: Option<String>,
    /// The id of the tokens' key; all keys, if there is none.
    pub key: Option<String>,
    /// The last second of issue, since 1970, of the tokens that it ends.
    pub at: u64,
}

impl Revocation {
    /// The second from which on no token is left that it could concern, if none is valid for longer than `lifetime`.
    pub fn until(&self, lifetime: u64) -> u64 {
        // Expiry may be that much later than the lifetime allows, and is noticed that much later.
        self.at.saturating_add(lifetime).saturating_add(2 * LEEWAY)
    }
}

/// All revocations in force. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Revocations {
    revoked: Arc<watch::Sender<Revoked>>,
}

/// The last second of issue that is revoked, by subject.
#[derive(Debug, Default)]
pub(super) struct Revoked {
    /// By identity, and by the id of the key; the empty id stands for all keys.
    identities: HashMap<String, HashMap<String, u64>>,
    /// By the id of the key, for all identities.
    keys: HashMap<String, u64>,
}

impl Revocations {
    /// Adds a revocation, and forgets those that ended the tokens of before the second `oldest` only.
    pub fn add(&self, revocation: Revocation, oldest: u64) {
        self.revoked.send_modify(|revoked| {
            revoked.forget(oldest);
            revoked.add(revocation);
        });
    }

    /// True if the token is revoked. One without a time of issue may be of any.
    pub fn concern(&self, lease: &TokenLease) -> bool {
        let revoked = self.revoked.borrow();
        let of_identity = revoked.identities.get(&lease.subject);
        let of_identity = of_identity.into_iter().flat_map(|keys| [keys.get(""), keys.get(&lease.key)]);
        let last = of_identity.chain([revoked.keys.get(&lease.key)]).flatten().max();
        last.is_some_and(|last| lease.issued.is_none_or(|issued| issued <= *last))
    }

    /// A watch on the changes.
    pub(super) fn watch(&self) -> watch::Receiver<Revoked> {
        self.revoked.subscribe()
    }
}

impl Revoked {
    fn add(&mut self, Revocation { identity, key, at }: Revocation) {
        let last = match (identity, key) {
            (Some(identity), key) => {
                self.identities.entry(identity).or_default().entry(key.unwrap_or_default()).or_default()
            }
            (None, Some(key)) => self.keys.entry(key).or_default(),
            // It would be of all tokens, which nobody can ask for.
            (None, None) => return,
        };
        *last = at.max(*last);
    }

    fn forget(&mut self, oldest: u64) {
        self.keys.retain(|_, last| *last >= oldest);
        self.identities.retain(|_, keys| {
            keys.retain(|_, last| *last >= oldest);
            !keys.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revoke(identity: Option<&str>, key: Option<&str>, at: u64) -> Revocation {
        Revocation { identity: identity.map(str::to_owned), key: key.map(str::to_owned), at }
    }

    fn is_revoked(revocations: &Revocations, subject: &str, key: &str, issued: Option<u64>) -> bool {
        let lease = TokenLease { key: key.into(), subject: subject.into(), issued, expiry: 1000 };
        revocations.concern(&lease)
    }

    #[test]
    fn revocation_concerns_its_subject_until_its_moment() {
        for (identity, key, concerned) in [
            (Some("ada"), None, [true, true, false, false]),
            (Some("ada"), Some("app"), [true, false, false, false]),
            (None, Some("app"), [true, false, true, false]),
            (None, None, [false; 4]),
        ] {
            let revocations = Revocations::default();
            revocations.add(revoke(identity, key, 100), 0);
            let subjects = [("ada", "app"), ("ada", "web"), ("bob", "app"), ("bob", "web")];
            for ((subject, of), concerned) in subjects.into_iter().zip(concerned) {
                let is = |issued| is_revoked(&revocations, subject, of, issued);
                let found = [is(Some(99)), is(Some(100)), is(None)];
                assert_eq!(found, [concerned; 3], "{identity:?} {key:?}: {subject} {of}");
                assert!(!is(Some(101)), "a token of later");
            }
        }
    }

    #[test]
    fn newest_revocation_of_a_subject_counts() {
        let revocations = Revocations::default();
        for at in [100, 200, 150] {
            revocations.add(revoke(Some("ada"), None, at), 0);
        }
        revocations.add(revoke(Some("ada"), Some("app"), 300), 0);
        assert!(is_revoked(&revocations, "ada", "web", Some(200)));
        assert!(!is_revoked(&revocations, "ada", "web", Some(201)));
        assert!(is_revoked(&revocations, "ada", "app", Some(300)));
    }

    #[test]
    fn old_revocations_are_forgotten() {
        let revocations = Revocations::default();
        revocations.add(revoke(Some("ada"), None, 100), 0);
        revocations.add(revoke(None, Some("app"), 100), 0);
        revocations.add(revoke(Some("bob"), None, 200), 101);
        assert!(!is_revoked(&revocations, "ada", "app", Some(50)));
        assert!(is_revoked(&revocations, "bob", "app", Some(50)));
        let revoked = revocations.revoked.borrow();
        assert_eq!((revoked.identities.len(), revoked.keys.len()), (1, 0));
    }
}
