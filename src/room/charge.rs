//! Accounting of a sender's events in the outboxes of others, charged until each recipient confirms.
//!
//! A few kilobytes from a client can become megabytes in the outboxes of a room. The sender is
//! throttled for slow recipients; they keep their membership.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;

/// A member's account: plain bytes times recipients, of events not yet confirmed.
#[derive(Debug)]
pub struct Account {
    unconfirmed: AtomicUsize,
    /// Limit in bytes above which the member's socket is not read.
    most: AtomicUsize,
    waker: AtomicWaker,
}

/// The charge for one event in one outbox, refunded on drop.
#[derive(Debug)]
pub struct EventCharge {
    account: Arc<Account>,
    bytes: usize,
}

impl Default for Account {
    fn default() -> Self {
        Self {
            unconfirmed: AtomicUsize::new(0),
            most: AtomicUsize::new(usize::MAX),
            waker: AtomicWaker::new(),
        }
    }
}

impl Account {
    /// Charges an event of `bytes` in one outbox.
    pub fn charge(self: &Arc<Self>, bytes: usize) -> EventCharge {
        self.unconfirmed.fetch_add(bytes, Ordering::Relaxed);
        EventCharge { account: self.clone(), bytes }
    }

    /// Sets the limit in bytes above which the member's socket is not read.
    pub fn set_most(&self, bytes: usize) {
        self.most.store(bytes, Ordering::Relaxed);
    }

    /// Ready while the member's socket may be read; otherwise the last caller is woken once it may.
    pub fn poll_within(&self, context: &Context<'_>) -> Poll<()> {
        if self.is_within() {
            return Poll::Ready(());
        }
        self.waker.register(context.waker());
        if self.is_within() { Poll::Ready(()) } else { Poll::Pending }
    }

    fn is_within(&self) -> bool {
        self.unconfirmed.load(Ordering::SeqCst) <= self.most.load(Ordering::SeqCst)
    }
}

impl Drop for EventCharge {
    fn drop(&mut self) {
        let before = self.account.unconfirmed.fetch_sub(self.bytes, Ordering::SeqCst);
        let most = self.account.most.load(Ordering::SeqCst);
        if before > most && before - self.bytes <= most {
            self.account.waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::task::noop_waker_ref;

    use super::*;

    #[test]
    fn account_is_within_limit_after_confirmations() {
        let account = Arc::new(Account::default());
        let context = Context::from_waker(noop_waker_ref());
        let charges: Vec<_> = (0..3).map(|_| account.charge(10)).collect();
        assert!(account.poll_within(&context).is_ready(), "nobody is slow");
        account.set_most(10);
        assert!(account.poll_within(&context).is_pending());
        let mut charges = charges.into_iter();
        drop(charges.next());
        assert!(account.poll_within(&context).is_pending());
        drop(charges.next());
        assert!(account.poll_within(&context).is_ready());
    }
}
