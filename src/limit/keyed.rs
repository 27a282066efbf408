//! Limits per key, such as an identity or a client's network, on concurrent permits and on their rate.

use std::fmt::Debug;
use std::hash::Hash;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::clock::now;

/// Maximum number of remembered keys: identities and IPv6 networks are free to make, memory is not.
pub const MAX_KEYS: usize = 100_000;

/// Minimum time between two prunings of a full map; each walks over all keys.
const PRUNE_INTERVAL: Duration = Duration::from_secs(1);

/// A rate limit: a burst of `most`, and `most` in each `interval`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Permits per interval; 0 means no limit.
    most: u32,
    interval: Duration,
}

impl Rate {
    /// No limit.
    pub const UNLIMITED: Self = Self::per_second(0);

    /// Limits to `most` a second; 0 means no limit.
    pub const fn per_second(most: u32) -> Self {
        Self { most, interval: Duration::from_secs(1) }
    }

    /// Limits to `most` a minute; 0 means no limit.
    pub const fn per_minute(most: u32) -> Self {
        Self { most, interval: Duration::from_secs(60) }
    }

    /// Limits to `most` an hour; 0 means no limit.
    pub const fn per_hour(most: u32) -> Self {
        Self { most, interval: Duration::from_secs(60 * 60) }
    }

    /// Limits to `most` a day; 0 means no limit.
    pub const fn per_day(most: u32) -> Self {
        Self { most, interval: Duration::from_secs(24 * 60 * 60) }
    }

    /// Returns the time at which the whole burst is available again if one permit is taken at `now`;
    /// `None` if the burst is used up. Implements the generic cell rate algorithm (ITU-T I.371).
    fn take(self, due: Option<Instant>, now: Instant) -> Option<Instant> {
        let due = due.unwrap_or(now).max(now) + self.interval / self.most.max(1);
        (due <= now + self.interval).then_some(due)
    }
}

/// Concurrent permits and rates per key. Clones share their counts.
///
/// A key without permits is pruned once its whole burst is available again. While the map is full of
/// keys in use, further keys are not rate-limited: a client that creates keys without end must not lock
/// others out, and is subject to another limit, such as its network's.
#[derive(Debug)]
pub struct KeyedLimit<K: Eq + Hash> {
    inner: Arc<Inner<K>>,
}

#[derive(Debug)]
struct Inner<K: Eq + Hash> {
    /// Maximum permits of one key at a time; 0 means no limit.
    concurrent: usize,
    rate: Rate,
    max_keys: usize,
    usage: DashMap<K, Usage>,
    /// Wakes tasks that wait for permits.
    released: Notify,
    start: Instant,
    /// Time of the last pruning of a full map, in milliseconds since `start`.
    pruned: AtomicU64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Usage {
    held: usize,
    /// Time at which the whole burst is available again.
    due: Option<Instant>,
}

impl Usage {
    fn is_over(&self, now: Instant) -> bool {
        self.held == 0 && self.due.is_none_or(|due| due <= now)
    }
}

/// Permits of a key, released on drop.
#[derive(Debug)]
pub struct Permit<K: Eq + Hash>(Option<Held<K>>);

#[derive(Debug)]
struct Held<K: Eq + Hash> {
    key: K,
    count: usize,
    inner: Arc<Inner<K>>,
}

/// The limit that a key has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitReached {
    /// Too few permits of the key are free.
    #[error("too many at a time")]
    Concurrency,
    /// The key's rate is used up.
    #[error("too many in a short time")]
    Rate,
}

impl<K: Clone + Eq + Hash> KeyedLimit<K> {
    /// Creates a limit on concurrent permits (0 means no limit) and on their rate.
    pub fn new(concurrent: usize, rate: Rate) -> Self {
        Self::with_max_keys(concurrent, rate, MAX_KEYS)
    }

    /// Creates a limit on concurrent permits; 0 means no limit.
    pub fn concurrent(most: usize) -> Self {
        Self::new(most, Rate::UNLIMITED)
    }

    /// Creates a limit on the rate at which permits are acquired.
    pub fn rate(rate: Rate) -> Self {
        Self::new(0, rate)
    }

    fn with_max_keys(concurrent: usize, rate: Rate, max_keys: usize) -> Self {
        let usage = DashMap::new();
        let pruned = AtomicU64::new(0);
        Self {
            inner: Arc::new(Inner {
                concurrent,
                rate,
                max_keys,
                usage,
                released: Notify::new(),
                start: now(),
                pruned,
            }),
        }
    }

    /// Acquires a permit.
    ///
    /// # Errors
    /// Returns [`LimitReached`]; nothing is counted then.
    pub fn acquire(&self, key: &K) -> Result<Permit<K>, LimitReached> {
        self.acquire_at(key, 1, now())
    }

    /// Acquires several permits at once, such as one per byte.
    ///
    /// # Errors
    /// Returns [`LimitReached`]; nothing is counted then.
    pub fn acquire_many(&self, key: &K, count: usize) -> Result<Permit<K>, LimitReached> {
        self.acquire_at(key, count, now())
    }

    /// Acquires several permits at once, waiting until they are free. Waiting tasks have no order. More than the
    /// limit count as the whole limit: they could never be free.
    ///
    /// Use it only on limits without a rate: nothing wakes the task when the rate allows more.
    pub async fn wait(&self, key: &K, count: usize) -> Permit<K> {
        let count = match self.inner.concurrent {
            0 => count,
            limit => count.min(limit),
        };
        loop {
            let mut released = pin!(self.inner.released.notified());
            // From here on no release is missed.
            released.as_mut().enable();
            match self.acquire_many(key, count) {
                Ok(permit) => return permit,
                Err(_) => released.await,
            }
        }
    }

    /// Acquires a permit for something that exists already, beyond the limit and at any rate.
    pub fn hold(&self, key: &K) -> Permit<K> {
        if self.inner.concurrent == 0 {
            return Permit(None);
        }
        self.inner.usage.entry(key.clone()).or_default().held += 1;
        Permit(Some(Held { key: key.clone(), count: 1, inner: self.inner.clone() }))
    }

    /// Counts one event on a limit that has a rate only.
    ///
    /// # Errors
    /// Returns [`LimitReached::Rate`]; nothing is counted then.
    pub fn check(&self, key: &K) -> Result<(), LimitReached> {
        self.acquire(key).map(drop)
    }

    /// True if the key's rate is used up.
    pub fn is_exhausted(&self, key: &K) -> bool {
        let Inner { rate, usage, .. } = &*self.inner;
        rate.most > 0 && usage.get(key).is_some_and(|used| rate.take(used.due, now()).is_none())
    }

    /// Counts further events of something that was admitted, beyond the rate too: then it admits the key later.
    pub fn charge(&self, key: &K, count: u32) {
        self.charge_at(key, count, now());
    }

    fn charge_at(&self, key: &K, count: u32, now: Instant) {
        let Inner { rate, usage, .. } = &*self.inner;
        if rate.most == 0 || count == 0 || !(usage.contains_key(key) || self.inner.has_room(now)) {
            return;
        }
        let mut used = usage.entry(key.clone()).or_default();
        used.due = Some(used.due.unwrap_or(now).max(now) + rate.interval / rate.most * count);
    }

    /// Refunds one event that was counted but did not happen, on a limit that has a rate only.
    pub fn refund(&self, key: &K) {
        let Inner { rate, usage, .. } = &*self.inner;
        if rate.most > 0
            && let Some(mut used) = usage.get_mut(key)
        {
            let interval = rate.interval / rate.most;
            used.due = used.due.and_then(|due| due.checked_sub(interval));
        }
    }

    fn acquire_at(&self, key: &K, count: usize, now: Instant) -> Result<Permit<K>, LimitReached> {
        let Inner { concurrent, rate, usage, .. } = &*self.inner;
        let remembers = rate.most > 0 && (usage.contains_key(key) || self.inner.has_room(now));
        if *concurrent == 0 && !remembers {
            return Ok(Permit(None));
        }
        let entry = usage.entry(key.clone());
        let mut used = match &entry {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(_) => Usage::default(),
        };
        if *concurrent > 0 && count > concurrent.saturating_sub(used.held) {
            return Err(LimitReached::Concurrency);
        }
        if remembers {
            used.due = Some(rate.take(used.due, now).ok_or(LimitReached::Rate)?);
        }
        let permit = (*concurrent > 0).then(|| Held { key: key.clone(), count, inner: self.inner.clone() });
        if permit.is_some() {
            used.held += count;
        }
        entry.insert(used);
        Ok(Permit(permit))
    }

    /// Removes keys that hold no permits and have their whole burst available.
    pub fn prune(&self) {
        self.inner.prune(now());
    }

    /// Returns the number of remembered keys.
    #[cfg(test)]
    pub fn keys(&self) -> usize {
        self.inner.usage.len()
    }
}

impl<K: Eq + Hash> Inner<K> {
    /// True if one more key can be stored.
    fn has_room(&self, now: Instant) -> bool {
        if self.usage.len() < self.max_keys {
            return true;
        }
        let elapsed =
            u64::try_from(now.saturating_duration_since(self.start).as_millis()).unwrap_or(u64::MAX);
        let last = self.pruned.load(Ordering::Relaxed);
        let is_due = Duration::from_millis(elapsed.saturating_sub(last)) >= PRUNE_INTERVAL;
        if is_due && self.pruned.compare_exchange(last, elapsed, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            self.prune(now);
        }
        self.usage.len() < self.max_keys
    }

    fn prune(&self, now: Instant) {
        self.usage.retain(|_, usage| !usage.is_over(now));
        self.usage.shrink_to_fit();
    }
}

impl<K: Eq + Hash> Clone for KeyedLimit<K> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<K: Eq + Hash> Drop for Permit<K> {
    fn drop(&mut self) {
        let Some(Held { key, count, inner }) = self.0.take() else { return };
        if let Entry::Occupied(mut usage) = inner.usage.entry(key) {
            usage.get_mut().held = usage.get().held.saturating_sub(count);
            // A key with a rate to remember is pruned later.
            if usage.get().held == 0 && usage.get().due.is_none() {
                usage.remove();
            }
        }
        inner.released.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charged_events_are_paid_before_others_are_admitted() {
        let limit = KeyedLimit::rate(Rate::per_second(10));
        let start = now();
        limit.charge_at(&"ada", 7, start);
        assert_eq!(admitted(&limit, "ada", 10, start), 3);
        limit.charge_at(&"ada", 20, start);
        assert_eq!(admitted(&limit, "ada", 10, start + seconds(2)), 0);
        assert_eq!(admitted(&limit, "ada", 20, start + seconds(3)), 10);
        assert_eq!(admitted(&limit, "bob", 20, start), 10);
        KeyedLimit::rate(Rate::UNLIMITED).charge(&"ada", 7);
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn admitted(limit: &KeyedLimit<&'static str>, key: &'static str, asked: usize, now: Instant) -> usize {
        (0..asked).filter(|_| limit.acquire_at(&key, 1, now).is_ok()).count()
    }

    #[test]
    fn released_permits_remove_the_key() {
        let limit = KeyedLimit::concurrent(2);
        let first = limit.acquire(&"ada").unwrap();
        let second = limit.acquire(&"ada").unwrap();
        assert_eq!(limit.acquire(&"ada").unwrap_err(), LimitReached::Concurrency);
        let other = limit.acquire(&"bob").unwrap();
        drop(first);
        let third = limit.acquire(&"ada").unwrap();
        assert_eq!(limit.keys(), 2);
        drop((second, third, other));
        assert_eq!(limit.keys(), 0);
    }

    #[test]
    fn several_permits_are_acquired_and_released() {
        let limit = KeyedLimit::concurrent(10);
        let six = limit.acquire_many(&"ada", 6).unwrap();
        assert_eq!(limit.acquire_many(&"ada", 5).unwrap_err(), LimitReached::Concurrency);
        assert_eq!(limit.acquire_many(&"bob", 11).unwrap_err(), LimitReached::Concurrency);
        assert_eq!(limit.keys(), 1, "who got nothing is not remembered");
        let four = limit.acquire_many(&"ada", 4).unwrap();
        drop(six);
        let _six = limit.acquire_many(&"ada", 6).unwrap();
        drop(four);
        assert_eq!(limit.acquire_many(&"ada", 5).unwrap_err(), LimitReached::Concurrency);
    }

    #[tokio::test]
    async fn waiting_task_gets_released_permits() {
        let limit = KeyedLimit::concurrent(2);
        let all = limit.wait(&"ada", 2).await;
        drop(limit.wait(&"bob", 2).await);
        let (first, second) = (limit.wait(&"ada", 1), limit.wait(&"ada", 1));
        let (first, second, ()) = tokio::join!(first, second, async { drop(all) });
        assert_eq!(limit.acquire(&"ada").unwrap_err(), LimitReached::Concurrency);
        drop((first, second));
        assert_eq!(limit.keys(), 0);
    }

    #[test]
    fn held_permits_over_the_limit_count() {
        let limit = KeyedLimit::new(2, Rate::per_minute(1));
        let held: Vec<_> = (0..3).map(|_| limit.hold(&"ada")).collect();
        assert_eq!(limit.acquire(&"ada").unwrap_err(), LimitReached::Concurrency);
        let mut held = held.into_iter();
        drop((held.next(), held.next()));
        drop(limit.acquire(&"ada").expect("no rate was used"));
        drop(held);
        limit.inner.prune(now() + seconds(60));
        assert_eq!(limit.keys(), 0);
        let _held = KeyedLimit::concurrent(0).hold(&"ada");
    }

    #[test]
    fn refund_allows_exactly_one_more() {
        let limit = KeyedLimit::rate(Rate::per_minute(3));
        limit.refund(&"bob");
        let now = now();
        assert_eq!(admitted(&limit, "ada", 5, now), 3);
        limit.refund(&"ada");
        assert_eq!(admitted(&limit, "ada", 5, now), 1);
        (0..9).for_each(|_| limit.refund(&"ada"));
        assert_eq!(admitted(&limit, "ada", 5, now), 3, "never more than the burst");
        limit.refund(&"bob");
        assert_eq!(limit.keys(), 1);
    }

    #[test]
    fn burst_is_used_up_and_refills_evenly() {
        let limit = KeyedLimit::rate(Rate::per_minute(30));
        let start = now();
        assert_eq!(admitted(&limit, "ada", 100, start), 30);
        assert_eq!(admitted(&limit, "bob", 100, start), 30);
        assert_eq!(admitted(&limit, "ada", 100, start + seconds(1)), 0);
        assert_eq!(admitted(&limit, "ada", 100, start + seconds(4)), 2);
        assert_eq!(admitted(&limit, "ada", 100, start + seconds(64)), 30);
        assert_eq!(admitted(&limit, "ada", 100, start + seconds(3600)), 30);
    }

    #[test]
    fn zero_is_no_limit_and_stores_no_key() {
        let limit = KeyedLimit::new(0, Rate::UNLIMITED);
        assert_eq!(admitted(&limit, "ada", 1000, now()), 1000);
        assert_eq!(limit.keys(), 0);
    }

    #[test]
    fn refused_permit_costs_no_rate() {
        let limit = KeyedLimit::new(1, Rate::per_minute(2));
        let start = now();
        let first = limit.acquire_at(&"ada", 1, start).unwrap();
        for _ in 0..10 {
            assert_eq!(limit.acquire_at(&"ada", 1, start).unwrap_err(), LimitReached::Concurrency);
        }
        drop(first);
        drop(limit.acquire_at(&"ada", 1, start).unwrap());
        assert_eq!(limit.acquire_at(&"ada", 1, start).unwrap_err(), LimitReached::Rate);
        drop(limit.acquire_at(&"ada", 1, start + seconds(30)).unwrap());
    }

    #[test]
    fn pruning_keeps_partly_used_bursts() {
        let limit = KeyedLimit::new(1, Rate::per_minute(60));
        let start = now();
        let held = limit.acquire_at(&"ada", 1, start).unwrap();
        drop(limit.acquire_at(&"bob", 1, start).unwrap());
        limit.inner.prune(start);
        assert_eq!(limit.keys(), 2, "what was used a moment ago counts");
        limit.inner.prune(start + seconds(1));
        assert_eq!(limit.keys(), 1, "what is held counts");
        drop(held);
        limit.inner.prune(start + seconds(1));
        assert_eq!(limit.keys(), 0);
    }

    #[test]
    fn full_map_admits_new_keys_and_stops_growing() {
        let limit = KeyedLimit::with_max_keys(0, Rate::per_minute(1), 3);
        let start = now();
        let keys = ["a", "b", "c", "d", "e"];
        let asked = |now| keys.map(|key| admitted(&limit, key, 2, now));
        assert_eq!(asked(start), [1, 1, 1, 2, 2]);
        assert_eq!(limit.keys(), 3);
        // A minute later the first three are pruned as soon as another key needs the space.
        let later = start + seconds(60);
        assert_eq!(["d", "e", "f", "a"].map(|key| admitted(&limit, key, 2, later)), [1, 1, 1, 2]);
        assert_eq!(limit.keys(), 3);
    }
}
