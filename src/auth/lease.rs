//! The time for which the right of an access token lasts: until its expiry, unless it is revoked.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::time::sleep_until;

use super::revocation::Revocations;
use super::token::seconds;
use crate::clock::now;

/// Tolerated difference between the clocks of issuer and server, in seconds.
pub(super) const LEEWAY: u64 = 60;

/// The token behind an identity, without its signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenLease {
    /// The id of the key or of the issuer.
    pub key: String,
    /// The subject, composed.
    pub subject: String,
    /// Time of issue in seconds since 1970, if the token names one that has come.
    pub issued: Option<u64>,
    /// Time of expiry in seconds since 1970.
    pub expiry: u64,
}

/// Reason for the end of a right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseEnd {
    /// The token has expired.
    Expired,
    /// The token was revoked.
    Revoked,
}

impl TokenLease {
    /// True from the moment at which requests with the token are refused.
    pub(super) fn is_over(&self, now: SystemTime) -> bool {
        self.expiry.saturating_add(LEEWAY) <= seconds(now)
    }

    /// Waits until the right ends. The clock says `time` now.
    pub(super) async fn end(self, revocations: Revocations, time: SystemTime) -> LeaseEnd {
        let left = self.expiry.saturating_add(LEEWAY).saturating_sub(seconds(time));
        let mut expired = std::pin::pin!(sleep_until(now() + Duration::from_secs(left)));
        let mut changes = revocations.watch();
        loop {
            // Read after `watch`, so that no revocation is missed, and that of before this wait neither.
            if revocations.concern(&self) {
                return LeaseEnd::Revoked;
            }
            tokio::select! {
                () = &mut expired => return LeaseEnd::Expired,
                // It fails only without a sender, and `revocations` is one.
                _ = changes.changed() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::super::revocation::Revocation;
    use super::super::token::tests::today;
    use super::*;

    fn lease(left: u64) -> TokenLease {
        let issued = seconds(today());
        TokenLease { key: "app".into(), subject: "ada".into(), issued: Some(issued), expiry: issued + left }
    }

    #[tokio::test(start_paused = true)]
    async fn lease_ends_a_minute_after_its_expiry() {
        let lease = lease(100);
        let end = lease.clone().end(Revocations::default(), today());
        let begun = now();
        assert_eq!(end.await, LeaseEnd::Expired);
        assert_eq!(begun.elapsed().as_secs(), 160);
        for (seconds, is_over) in [(159, false), (160, true)] {
            assert_eq!(lease.is_over(today() + Duration::from_secs(seconds)), is_over);
        }
        // One that is over already ends at once.
        let late = lease.end(Revocations::default(), today() + Duration::from_secs(500));
        assert_eq!(late.await, LeaseEnd::Expired);
    }

    #[tokio::test(start_paused = true)]
    async fn revocation_ends_the_lease_at_once() {
        let revocations = Revocations::default();
        let mut end = Box::pin(lease(100).end(revocations.clone(), today()));
        assert_eq!(end.as_mut().now_or_never(), None);
        let at = seconds(today());
        revocations.add(Revocation { identity: Some("bob".into()), key: None, at }, 0);
        assert_eq!(end.as_mut().now_or_never(), None, "of somebody else");
        revocations.add(Revocation { identity: Some("ada".into()), key: None, at }, 0);
        assert_eq!(end.now_or_never(), Some(LeaseEnd::Revoked));
        // One that came before the wait counts as well.
        assert_eq!(lease(100).end(revocations, today()).now_or_never(), Some(LeaseEnd::Revoked));
    }
}
