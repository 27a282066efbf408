//! The rate at which one socket is read: tokens for received data, and the total throttled time.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use tokio::time::Instant;

use super::boundary::BYTES_A_TOKEN;
use super::connection::ConnectionLimits;
use super::socket::Received;
use crate::clock::now;

/// Divisor of the elapsed time that is forgiven: a minute of throttling is forgiven within an hour.
/// The limit is for a flood, and not for the sum of a long day.
const FORGIVEN_SHARE: u32 = 60;

/// The rate limit of one socket.
#[derive(Debug)]
pub(super) struct Throttle {
    rate: RateLimiter<NotKeyed, InMemoryState, SinceStart, NoOpMiddleware<Nanos>>,
    burst: NonZeroU32,
    /// Maximum total throttled time of a socket.
    most: Duration,
    waited: Waited,
    /// Tokens charged for pieces of the arriving message.
    charged: u32,
    /// Tokens owed for data that was read; until they are paid, nothing more is read.
    debt: Option<TokenDebt>,
}

#[derive(Clone, Copy, Debug)]
struct TokenDebt {
    tokens: NonZeroU32,
    since: Instant,
    /// Time at which the tokens are available, or the socket has been throttled for too long.
    until: Instant,
}

/// Result of charging received data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Charge {
    /// The tokens were available.
    Paid,
    /// The tokens are owed: nothing more is read until the deadline.
    Owed,
    /// The socket was throttled for too long.
    TooFast,
}

impl Throttle {
    pub(super) fn new(limits: &ConnectionLimits) -> Self {
        let quota = Quota::per_second(limits.messages_per_second).allow_burst(limits.message_burst);
        let start = now();
        Self {
            rate: RateLimiter::direct_with_clock(quota, SinceStart(start)),
            burst: limits.message_burst,
            most: limits.throttled_time,
            waited: Waited { sum: Duration::ZERO, at: start },
            charged: 0,
            debt: None,
        }
    }

    /// True while tokens are owed.
    pub(super) fn is_owing(&self) -> bool {
        self.debt.is_some()
    }

    /// Time at which owed tokens are to be paid.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.debt.map(|owed| owed.until)
    }

    /// Pays owed tokens whose time has come.
    pub(super) fn pay_due(&mut self, now: Instant) -> Charge {
        let Some(owed) = self.debt.take_if(|owed| owed.until <= now) else { return Charge::Paid };
        self.waited.add(now - owed.since, now);
        self.pay(owed.tokens)
    }

    /// Charges received data.
    pub(super) fn charge(&mut self, received: &Received) -> Charge {
        // More tokens than the burst would never become available.
        let tokens = self.tokens(received).min(self.burst);
        match received {
            Received::Piece(_) => self.charged = self.charged.saturating_add(tokens.get()),
            Received::Text(_) | Received::Binary(_) => self.charged = 0,
            Received::Ping | Received::Pong(_) => {}
        }
        self.pay(tokens)
    }

    /// Charges further tokens for a message that was read.
    pub(super) fn charge_more(&mut self, tokens: NonZeroU32) -> Charge {
        match &mut self.debt {
            Some(owed) => {
                owed.tokens = owed.tokens.saturating_add(tokens.get()).min(self.burst);
                Charge::Owed
            }
            None => self.pay(tokens.min(self.burst)),
        }
    }

    fn pay(&mut self, tokens: NonZeroU32) -> Charge {
        if let Ok(Err(not_yet)) = self.rate.check_n(tokens) {
            let since = now();
            let waited = self.waited.sum(since);
            if waited >= self.most {
                return Charge::TooFast;
            }
            // At most the remaining allowance of throttled time.
            let wait = not_yet.wait_time_from(self.rate.clock().now());
            let until = since + wait.min(self.most - waited).max(Duration::from_millis(1));
            self.debt = Some(TokenDebt { tokens, since, until });
            return Charge::Owed;
        }
        Charge::Paid
    }

    /// Token cost of received data, less the tokens charged for its pieces.
    fn tokens(&self, received: &Received) -> NonZeroU32 {
        let tokens = match received {
            Received::Piece(tokens) => *tokens,
            Received::Text(_) | Received::Binary(_) => {
                let more = u32::try_from(received.bytes() / BYTES_A_TOKEN).unwrap_or(u32::MAX);
                more.saturating_add(1).saturating_sub(self.charged)
            }
            Received::Ping | Received::Pong(_) => 1,
        };
        NonZeroU32::new(tokens).unwrap_or(NonZeroU32::MIN)
    }
}

/// Total throttled time of a socket, less the forgiven part.
#[derive(Clone, Copy, Debug)]
struct Waited {
    sum: Duration,
    at: Instant,
}

impl Waited {
    fn sum(self, now: Instant) -> Duration {
        self.sum.saturating_sub(now.saturating_duration_since(self.at) / FORGIVEN_SHARE)
    }

    fn add(&mut self, waited: Duration, now: Instant) {
        *self = Self { sum: self.sum(now) + waited, at: now };
    }
}

/// The runtime's clock as the rate limiter's, so that tests can pause both.
#[derive(Clone, Debug)]
struct SinceStart(Instant);

impl Clock for SinceStart {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        now().duration_since(self.0).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn extra_charge_adds_to_a_debt() {
        let tokens = |count| NonZeroU32::new(count).unwrap();
        let limits = ConnectionLimits {
            message_bytes: 1000,
            messages_per_second: tokens(10),
            message_burst: tokens(20),
            throttled_time: Duration::from_secs(60),
            write_stall: Duration::from_secs(20),
            keep_alive: None,
        };
        let mut throttle = Throttle::new(&limits);
        assert_eq!(throttle.charge_more(tokens(20)), Charge::Paid);
        assert_eq!(throttle.charge(&Received::Ping), Charge::Owed);
        assert_eq!(throttle.charge_more(tokens(9)), Charge::Owed);
        let start = now();
        while let Some(at) = throttle.deadline() {
            tokio::time::sleep_until(at).await;
            throttle.pay_due(now());
        }
        assert_eq!(start.elapsed().as_millis() / 100, 10, "ten tokens take a second");
    }

    /// The sum of a long day closed a socket that never flooded the server.
    #[test]
    fn throttled_time_is_forgiven() {
        let start = now();
        let mut waited = Waited { sum: Duration::ZERO, at: start };
        for hour in 1..24 {
            let now = start + Duration::from_secs(3600) * hour;
            waited.add(Duration::from_secs(40), now);
            assert_eq!(waited.sum(now), Duration::from_secs(40), "hour {hour}");
        }
        let mut flood = Waited { sum: Duration::ZERO, at: start };
        for second in 1..=62 {
            flood.add(Duration::from_secs(1), start + Duration::from_secs(second));
        }
        assert!(flood.sum(start + Duration::from_secs(62)) > Duration::from_secs(60));
    }
}
