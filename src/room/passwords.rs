//! Passwords of rooms: hashed with Argon2id (RFC 9106), and the memory of who knew them.

use std::sync::Arc;
use std::time::Duration;

use argon2::{Argon2, PasswordHash, PasswordHasher, PasswordVerifier};
use moka::future::Cache;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use crate::id::{IdentityId, RoomName};

/// Maximum characters of a password.
pub const MAX_CHARS: usize = 128;

/// Bytes of a salt (RFC 9106 section 3.1).
const SALT_BYTES: usize = 16;

/// Passwords that are hashed at a time; each takes 19 MiB.
const CONCURRENT: usize = 2;

/// Identities whose proof is remembered, in all rooms.
const MAX_PROOFS: u64 = 100_000;

/// Time for which a proof is remembered.
const REMEMBERED: Duration = Duration::from_secs(12 * 60 * 60);

/// A password that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// It is empty or too long.
    #[error("\"password\" has 1 to {MAX_CHARS} characters")]
    Length,
    /// The system gave no random bytes, or a stored hash was edited by hand.
    #[error("the password could not be hashed")]
    Hashing,
}

/// The hashing of passwords, and who knew one.
#[derive(Debug)]
pub struct Passwords {
    running: Semaphore,
    /// The hash that an identity proved to know the password of.
    proofs: Cache<(RoomName, IdentityId), Arc<str>>,
}

impl Default for Passwords {
    fn default() -> Self {
        let proofs = Cache::builder().max_capacity(MAX_PROOFS).time_to_live(REMEMBERED).build();
        Self { running: Semaphore::new(CONCURRENT), proofs }
    }
}

impl Passwords {
    /// Hashes a new password.
    ///
    /// # Errors
    /// [`PasswordError`].
    pub async fn hash(&self, password: String) -> Result<Arc<str>, PasswordError> {
        check(&password)?;
        let hash = move || {
            let mut random = [0; SALT_BYTES];
            getrandom::fill(&mut random).ok()?;
            let hash = Argon2::default().hash_password_with_salt(password.as_bytes(), &random).ok()?;
            Some(Arc::from(hash.to_string()))
        };
        self.run(hash).await.flatten().ok_or(PasswordError::Hashing)
    }

    /// Compares a password with a hash, and remembers the identity if it is the right one; returns if it is.
    ///
    /// # Errors
    /// [`PasswordError`].
    pub async fn prove(
        &self,
        room: &RoomName,
        identity: &IdentityId,
        password: String,
        hash: Arc<str>,
    ) -> Result<bool, PasswordError> {
        check(&password)?;
        let of = hash.clone();
        let verify = move || {
            let hash = PasswordHash::new(&of).ok()?;
            Some(Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
        };
        let is_right = self.run(verify).await.flatten().ok_or(PasswordError::Hashing)?;
        if is_right {
            self.proofs.insert((room.clone(), identity.clone()), hash).await;
        }
        Ok(is_right)
    }

    /// Remembers that an identity knew the password with this hash, as another node found out.
    pub async fn remember(&self, room: RoomName, identity: IdentityId, hash: Arc<str>) {
        self.proofs.insert((room, identity), hash).await;
    }

    /// The hash of the password that an identity knew.
    pub async fn proof(&self, room: &RoomName, identity: &IdentityId) -> Option<Arc<str>> {
        self.proofs.get(&(room.clone(), identity.clone())).await
    }

    /// Runs a hash outside of the tasks, which it would hold up for tens of milliseconds.
    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let _permit = self.running.acquire().await.ok()?;
        spawn_blocking(work).await.ok()
    }
}

fn check(password: &str) -> Result<(), PasswordError> {
    // The bytes are checked first: a text of a megabyte is refused without being scanned.
    let is_short = password.len() <= 4 * MAX_CHARS && password.chars().count() <= MAX_CHARS;
    if !password.is_empty() && is_short { Ok(()) } else { Err(PasswordError::Length) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn right_password_is_remembered_for_its_identity_and_hash() {
        let passwords = Passwords::default();
        let room = RoomName::parse("r").unwrap();
        let [ada, bob] = ["ada", "bob"].map(IdentityId::new);
        let hash = passwords.hash("open sesame".to_owned()).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert_ne!(hash, passwords.hash("open sesame".to_owned()).await.unwrap(), "each has its own salt");
        let prove =
            async |password: &str| passwords.prove(&room, &ada, password.to_owned(), hash.clone()).await;
        assert_eq!(passwords.proof(&room, &ada).await, None);
        assert_eq!(prove("open").await, Ok(false));
        assert_eq!(passwords.proof(&room, &ada).await, None);
        assert_eq!(prove("open sesame").await, Ok(true));
        assert_eq!(passwords.proof(&room, &ada).await, Some(hash.clone()));
        assert_eq!(passwords.proof(&room, &bob).await, None);
        assert_eq!(passwords.proof(&RoomName::parse("s").unwrap(), &ada).await, None);
    }

    #[tokio::test]
    async fn password_has_limits() {
        let passwords = Passwords::default();
        for wrong in [String::new(), "x".repeat(MAX_CHARS + 1), "\u{1f600}".repeat(1 << 20)] {
            assert_eq!(passwords.hash(wrong).await, Err(PasswordError::Length));
        }
        passwords.hash("\u{1f600}".repeat(MAX_CHARS)).await.unwrap();
        let (room, ada) = (RoomName::parse("r").unwrap(), IdentityId::new("ada"));
        let broken = passwords.prove(&room, &ada, "x".to_owned(), "edited by hand".into()).await;
        assert_eq!(broken, Err(PasswordError::Hashing));
    }
}
