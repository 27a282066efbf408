//! Throttling of snapshots: a room's quiet time after one is proportional to the cost of sending it.

use std::time::Duration;

use super::message::DEFLATE_FROM_BYTES;
use crate::protocol::deflate::Encoding;

/// Minimum time between two snapshots, so that a burst of updates causes two and not one each.
pub const SHORTEST_WINDOW: Duration = Duration::from_millis(5);

/// Maximum time that a change waits for its snapshot.
pub const LONGEST_WINDOW: Duration = Duration::from_secs(1);

/// Bytes per second that one core writes into sockets.
const WRITTEN_PER_SECOND: f64 = 1.5e9;

/// Bytes per second that one core compresses.
const DEFLATED_PER_SECOND: f64 = 100e6;

/// Cost in seconds of each socket besides its bytes: a wake-up of its task and a system call.
const SECONDS_PER_SOCKET: f64 = 10e-6;

/// Cost in seconds of each further message of a socket that is woken anyway.
const SECONDS_PER_MESSAGE: f64 = 1e-6;

/// Quiet time in proportion to the cost, so that a room's snapshots take about a third of one core.
/// A room that would need more sends fewer of them, each with more changes.
const QUIET_PER_COST: f64 = 2.0;

/// Quiet time for each socket to be woken, at most [`UNSEEN`]. A large room waits for its next
/// snapshot longer than it must, but not longer than the interval between two frames of a screen:
/// nobody sees it, and a third of the snapshots is saved.
const QUIET_PER_SOCKET: Duration = Duration::from_micros(160);
const UNSEEN: Duration = Duration::from_millis(16);

/// Assumed compression ratio of a snapshot with usual users.
const USUAL_SHARE: f64 = 0.25;

/// Number of sockets in a room, by encoding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Audience {
    /// Sockets that get uncompressed messages.
    pub plain: usize,
    /// Sockets that accept compressed messages.
    pub deflated: usize,
}

impl Audience {
    fn sockets(self) -> usize {
        self.plain + self.deflated
    }
}

/// A message and the sockets that get it.
#[derive(Clone, Copy, Debug)]
pub struct Fanout {
    /// Size of the message in bytes, uncompressed.
    pub bytes: usize,
    /// The sockets.
    pub audience: Audience,
}

impl FromIterator<Encoding> for Audience {
    fn from_iter<T: IntoIterator<Item = Encoding>>(encodings: T) -> Self {
        let mut audience = Self::default();
        for encoding in encodings {
            match encoding {
                Encoding::Identity => audience.plain += 1,
                Encoding::Deflate => audience.deflated += 1,
            }
        }
        audience
    }
}

/// Measured cost of a room's snapshots.
#[derive(Clone, Copy, Debug)]
pub struct SnapshotThrottle {
    deflated_share: f64,
}

impl Default for SnapshotThrottle {
    fn default() -> Self {
        Self { deflated_share: USUAL_SHARE }
    }
}

impl SnapshotThrottle {
    /// Records the compression ratio of a snapshot.
    pub fn learn(&mut self, plain_bytes: usize, deflated_bytes: usize) {
        self.deflated_share = deflated_bytes as f64 / plain_bytes.max(1) as f64;
    }

    /// Quiet time after a snapshot, and further messages to the same sockets or to some of them.
    pub fn window(&self, snapshot: Fanout, further: &[Fanout]) -> Duration {
        let sockets = snapshot.audience.sockets();
        let further: f64 = further
            .iter()
            .map(|message| message.audience.sockets() as f64 * SECONDS_PER_MESSAGE + self.transfer(*message))
            .sum();
        let cost = sockets as f64 * SECONDS_PER_SOCKET + self.transfer(snapshot) + further;
        let sockets = u32::try_from(sockets).unwrap_or(u32::MAX);
        Duration::from_secs_f64(cost * QUIET_PER_COST)
            .max(QUIET_PER_SOCKET.saturating_mul(sockets).min(UNSEEN))
            .clamp(SHORTEST_WINDOW, LONGEST_WINDOW)
    }

    /// CPU time in seconds to compress a message and to write its bytes.
    fn transfer(&self, Fanout { bytes, audience }: Fanout) -> f64 {
        let Audience { plain, deflated } = audience;
        let bytes_each = bytes as f64;
        if deflated == 0 || bytes < DEFLATE_FROM_BYTES {
            return bytes_each * audience.sockets() as f64 / WRITTEN_PER_SECOND;
        }
        let written = bytes_each * (plain as f64 + deflated as f64 * self.deflated_share);
        bytes_each / DEFLATED_PER_SECOND + written / WRITTEN_PER_SECOND
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(throttle: SnapshotThrottle, bytes: usize, plain: usize, deflated: usize) -> u128 {
        throttle.window(Fanout { bytes, audience: Audience { plain, deflated } }, &[]).as_millis()
    }

    #[test]
    fn further_messages_lengthen_the_window() {
        let throttle = SnapshotThrottle::default();
        let fanout = |bytes, plain| Fanout { bytes, audience: Audience { plain, deflated: 0 } };
        let millis = |further: &[Fanout]| throttle.window(fanout(440_000, 1000), further).as_millis();
        assert_eq!(millis(&[]), 606);
        assert_eq!(millis(&[fanout(1_000, 1000)]), 610, "one member's presence");
        assert_eq!(millis(&[fanout(500_000, 100)]), 673, "all presences, for some");
    }

    #[test]
    fn window_follows_the_cost_of_a_snapshot() {
        let throttle = SnapshotThrottle::default();
        assert_eq!(millis(throttle, 4_400, 10, 0), 5, "the shortest");
        assert_eq!(millis(throttle, 22_000, 0, 50), 8, "many are woken");
        assert_eq!(millis(throttle, 44_000, 100, 0), 16);
        assert_eq!(millis(throttle, 44_000, 0, 100), 16);
        assert_eq!(millis(throttle, 440_000, 1000, 0), 606);
        assert_eq!(millis(throttle, 440_000, 0, 1000), 175);
        assert_eq!(millis(throttle, 440_000, 500, 500), 395);
        assert_eq!(millis(throttle, 8_000_000, 1000, 0), 1000, "the longest");
    }

    #[test]
    fn poorly_compressed_snapshots_cost_more() {
        let mut throttle = SnapshotThrottle::default();
        throttle.learn(440_000, 330_000);
        assert_eq!(millis(throttle, 440_000, 0, 1000), 468);
        throttle.learn(0, 0);
        assert_eq!(millis(throttle, 440_000, 0, 1000), 28);
    }
}
