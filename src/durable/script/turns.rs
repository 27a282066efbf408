//! PURE: the order in which calls of a script get its threads.
//!
//! Every payer that waits gets the same share of the threads' time, so that the slow calls of one do not hold up those
//! of another (start-time fair queuing: Goyal, Vin and Cheng, 1996).

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::durable::method::Payer;

/// A call that waits for its turn.
pub(super) trait Waiter {
    /// True if its caller has given up.
    fn is_gone(&self) -> bool;
}

/// The threads and the calls that wait for them.
#[derive(Debug)]
pub(super) struct Turns<W> {
    free_threads: usize,
    /// Maximum calls that wait.
    max_waiting: usize,
    /// Time up to which a call is charged; a longer one has lost its thread.
    max_charge: Duration,
    /// As many as there are keys of access.
    accounts: HashMap<Payer, Account<W>>,
    waiting: usize,
    /// The cost of the payer that had the last turn. Whoever comes back starts there: idle time earns nothing.
    level: Duration,
}

#[derive(Debug)]
struct Account<W> {
    /// Time of finished calls, from the level at which the payer came.
    spent: Duration,
    /// Starts of the calls that run.
    running: Vec<Instant>,
    waiting: VecDeque<W>,
}

/// The result of asking for a turn.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entry<W> {
    /// A thread is free, and taken.
    Turn,
    /// The call waits; if too many did, in the place of the newest call of the payer with the most.
    Waits {
        /// The call that lost its place.
        displaced: Option<W>,
    },
    /// Too many calls of this payer wait.
    Refused,
}

impl<W: Waiter> Turns<W> {
    /// Free threads, and nobody who waits.
    pub(super) fn new(threads: usize, max_waiting: usize, max_charge: Duration) -> Self {
        let accounts = HashMap::new();
        Self { free_threads: threads, max_waiting, max_charge, accounts, waiting: 0, level: Duration::ZERO }
    }

    /// Asks for a thread. Whoever gets it gives it back by [`Self::leave`], with the same `now` as its start.
    pub(super) fn enter(&mut self, now: Instant, payer: Payer, waiter: W) -> Entry<W> {
        let (level, max_charge) = (self.level, self.max_charge);
        let account = self.accounts.entry(payer).or_default();
        if account.running.is_empty() && account.waiting.is_empty() {
            account.spent = account.spent.max(level);
        }
        if self.free_threads > 0 {
            self.free_threads -= 1;
            self.level = level.max(account.cost(now, max_charge));
            account.running.push(now);
            return Entry::Turn;
        }
        if self.waiting >= self.max_waiting {
            self.forget_gone();
        }
        let mut displaced = None;
        if self.waiting >= self.max_waiting {
            let own = self.accounts.get(&payer).map_or(0, |account| account.waiting.len());
            let longest = self.accounts.values_mut().max_by_key(|account| account.waiting.len());
            let Some(longest) = longest.filter(|longest| longest.waiting.len() > own + 1) else {
                return Entry::Refused;
            };
            displaced = longest.waiting.pop_back();
            self.waiting -= 1;
        }
        self.accounts.entry(payer).or_default().waiting.push_back(waiter);
        self.waiting += 1;
        Entry::Waits { displaced }
    }

    /// Ends a call that began at `started`; returns the one that gets its thread, from `now` on.
    pub(super) fn leave(&mut self, now: Instant, payer: Payer, started: Instant) -> Option<(Payer, W)> {
        if let Some(account) = self.accounts.get_mut(&payer)
            && let Some(index) = account.running.iter().position(|start| *start == started)
        {
            account.running.swap_remove(index);
            account.spent += now.saturating_duration_since(started).min(self.max_charge);
        }
        self.free_threads += 1;
        self.next(now)
    }

    /// Gives a free thread to the payer that has had the least time.
    fn next(&mut self, now: Instant) -> Option<(Payer, W)> {
        for account in self.accounts.values_mut() {
            while account.waiting.pop_front_if(|waiter| waiter.is_gone()).is_some() {
                self.waiting -= 1;
            }
        }
        let max_charge = self.max_charge;
        let waiting = self.accounts.iter_mut().filter(|(_, account)| !account.waiting.is_empty());
        let cost = |(payer, account): &(&Payer, &mut Account<W>)| {
            (account.cost(now, max_charge), account.running.len(), **payer)
        };
        let (payer, account) = waiting.min_by_key(cost)?;
        let waiter = account.waiting.pop_front()?;
        self.level = self.level.max(account.cost(now, max_charge));
        account.running.push(now);
        self.waiting -= 1;
        self.free_threads -= 1;
        Some((*payer, waiter))
    }

    fn forget_gone(&mut self) {
        for account in self.accounts.values_mut() {
            account.waiting.retain(|waiter| !waiter.is_gone());
        }
        self.waiting = self.accounts.values().map(|account| account.waiting.len()).sum();
    }
}

impl<W> Account<W> {
    /// Time of all calls, also of those that run.
    fn cost(&self, now: Instant, max_charge: Duration) -> Duration {
        let running = self.running.iter().map(|start| now.saturating_duration_since(*start).min(max_charge));
        self.spent + running.sum::<Duration>()
    }
}

impl<W> Default for Account<W> {
    fn default() -> Self {
        Self { spent: Duration::ZERO, running: Vec::new(), waiting: VecDeque::new() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::now;
    use crate::durable::keys::KeyNumber;

    const CAP: Duration = Duration::from_secs(2);

    /// A call: its payer's number, its duration in milliseconds, and true if its caller has given up.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Call(usize, u64, bool);

    impl Waiter for Call {
        fn is_gone(&self) -> bool {
            self.2
        }
    }

    fn payer(number: usize) -> Payer {
        Payer::Key(KeyNumber::of(number))
    }

    /// One thread, with calls that each of some payers makes again as soon as it is answered.
    struct Bench {
        turns: Turns<Call>,
        now: Instant,
        running: Option<(Call, Instant)>,
        /// Milliseconds of each payer's finished calls.
        served: [u64; 3],
    }

    impl Bench {
        fn new() -> Self {
            Self { turns: Turns::new(1, 100, CAP), now: now(), running: None, served: [0; 3] }
        }

        fn enter(&mut self, call: Call) {
            if self.turns.enter(self.now, payer(call.0), call) == Entry::Turn {
                self.running = Some((call, self.now));
            }
        }

        /// Ends as many calls, one after the other.
        fn serve(&mut self, count: usize) {
            for _ in 0..count {
                self.step();
            }
        }

        /// Ends the call that runs.
        fn step(&mut self) -> Call {
            let (call, started) = self.running.take().unwrap();
            self.now = started + Duration::from_millis(call.1);
            self.served[call.0] += call.1;
            let next = self.turns.leave(self.now, payer(call.0), started);
            self.running = next.map(|(_, call)| (call, self.now));
            call
        }
    }

    #[test]
    fn slow_payer_gets_as_much_time_as_a_quick_one() {
        let mut bench = Bench::new();
        (0..50).for_each(|_| bench.enter(Call(0, 1000, false)));
        bench.serve(4);
        // The quick one comes when the slow one has had seconds and still waits with many.
        (0..2).for_each(|_| bench.enter(Call(1, 1, false)));
        let before = bench.served;
        for _ in 0..4000 {
            let call = bench.step();
            bench.enter(call);
        }
        let [slow, quick] = [0, 1].map(|payer| bench.served[payer] - before[payer]);
        assert!(slow.abs_diff(quick) <= 2000, "{slow} ms and {quick} ms");
    }

    #[test]
    fn newcomer_waits_for_one_call_and_no_more() {
        let mut bench = Bench::new();
        (0..50).for_each(|_| bench.enter(Call(0, 1000, false)));
        bench.step();
        bench.enter(Call(1, 1, false));
        bench.step();
        assert_eq!(bench.running.map(|(call, _)| call.0), Some(1));
        // Idle time earned it nothing: it has its half from here, and not more.
        bench.step();
        (0..50).for_each(|_| bench.enter(Call(1, 1000, false)));
        let before = bench.served;
        bench.serve(40);
        assert!((bench.served[0] - before[0]).abs_diff(bench.served[1] - before[1]) <= 2000);
    }

    #[test]
    fn full_queue_takes_the_place_of_who_has_most() {
        let mut turns = Turns::new(1, 4, CAP);
        let at = now();
        assert_eq!(turns.enter(at, payer(0), Call(0, 0, false)), Entry::Turn);
        for call in 1..=4 {
            assert_eq!(turns.enter(at, payer(0), Call(0, call, false)), Entry::Waits { displaced: None });
        }
        assert_eq!(turns.enter(at, payer(0), Call(0, 5, false)), Entry::Refused);
        let newest = |call| Entry::Waits { displaced: Some(Call(0, call, false)) };
        assert_eq!(turns.enter(at, payer(1), Call(1, 0, false)), newest(4));
        assert_eq!(turns.enter(at, payer(1), Call(1, 1, false)), newest(3));
        assert_eq!(turns.enter(at, payer(1), Call(1, 2, false)), Entry::Refused);
    }

    #[test]
    fn callers_that_are_gone_leave_their_places() {
        let mut turns = Turns::new(1, 3, CAP);
        let at = now();
        turns.enter(at, payer(0), Call(0, 0, false));
        for call in [Call(0, 1, true), Call(0, 2, false), Call(0, 3, true)] {
            turns.enter(at, payer(0), call);
        }
        assert_eq!(turns.enter(at, payer(0), Call(0, 4, true)), Entry::Waits { displaced: None });
        assert_eq!(turns.leave(at, payer(0), at), Some((payer(0), Call(0, 2, false))));
        assert_eq!(turns.leave(at, payer(0), at), None);
        assert_eq!(turns.enter(at, payer(0), Call(0, 5, false)), Entry::Turn);
    }

    proptest! {
        #[test]
        fn every_thread_and_every_call_is_accounted_for(
            threads in 1_usize..4,
            steps in proptest::collection::vec((0_usize..3, any::<bool>(), any::<bool>(), 0_u64..3000), 1..200),
        ) {
            let mut turns: Turns<Call> = Turns::new(threads, 5, CAP);
            let (mut at, mut running, mut waits) = (now(), Vec::new(), 0);
            for (number, ends, is_gone, later) in steps {
                at += Duration::from_millis(later);
                if ends {
                    let Some((payer, started)) = running.pop() else { continue };
                    if let Some((payer, waiter)) = turns.leave(at, payer, started) {
                        prop_assert!(!waiter.is_gone());
                        running.push((payer, at));
                    }
                } else if turns.enter(at, payer(number), Call(number, 0, is_gone)) == Entry::Turn {
                    running.push((payer(number), at));
                }
                waits = turns.accounts.values().map(|account| account.waiting.len()).sum();
                prop_assert_eq!((turns.waiting, turns.free_threads + running.len()), (waits, threads));
                prop_assert!(waits <= 5 && (waits == 0 || turns.free_threads == 0));
            }
            for (payer, started) in std::mem::take(&mut running) {
                if let Some((payer, _)) = turns.leave(at, payer, started) {
                    running.push((payer, at));
                }
            }
            prop_assert!(running.len() <= waits);
        }
    }
}
