//! State shared by all members of a run: the server's address, the clock, and the counts.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::endpoint::{Endpoint, Refusal};
use super::histogram::Histogram;
use super::inbox::Arrival;
use super::phoenix::MessageKind;
use super::watch::Sightings;

/// The most bytes that are thrown away at once. Nothing is ever written there on Linux, so it costs nothing.
const SCRATCH_BYTES: usize = 1 << 20;

/// The phase of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunStage {
    /// Users join, and the load begins.
    Unmeasured,
    /// Events are counted.
    Measured,
    /// No more updates are sent, so that the last ones can be seen.
    Quiet,
}

/// The counts so far.
#[derive(Debug, Default)]
pub struct RunCounts {
    /// Sockets that were opened.
    pub joined: u64,
    /// Refused users, by kind: their number, and the answer to the first.
    pub refusals: BTreeMap<String, (u64, String)>,
    /// Microseconds from the connection to the first message.
    pub joins: Histogram,
    /// The server's answer to the offer of compression, if any.
    pub compression: Option<String>,
    /// Updates while it was measured.
    pub sent: u64,
    /// Those of them that a watcher, who is another member, waits for.
    pub watched: u64,
    /// The longest time that one of them was sent after it was due.
    pub latest: Duration,
    /// Those updates as seen by watchers.
    pub sightings: Sightings,
    /// Messages that came while it was measured.
    pub frames: u64,
    /// Bytes that came while it was measured.
    pub bytes: u64,
    /// Sockets that the server closed, by code; 1005 is no code and 1006 no close frame, as in browsers.
    pub closes: BTreeMap<u16, u64>,
    /// Connections that could not be read on, by what was wrong.
    pub broken: BTreeMap<String, u64>,
    /// Messages of Phoenix Channels while it was measured.
    pub channels: ChannelCounts,
    /// Users that said `userLeft` and saw their socket closed.
    pub left: u64,
    /// Users that said `userLeft` and saw nothing.
    pub unanswered: u64,
    /// Users that dropped their socket.
    pub dropped: u64,
}

/// Counts of the messages of Phoenix Channels; compressed ones are left out, except for a watcher's.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ChannelCounts {
    /// Answers to pushes that were accepted.
    pub replies: u64,
    /// Pushes that were refused, at any time.
    pub refused: u64,
    /// The answer to the first of them.
    pub first_refusal: Option<String>,
    /// States of all presences.
    pub presence_states: u64,
    /// Changes of presences.
    pub presence_diffs: u64,
    /// Bytes of both on the wire.
    pub presence_bytes: u64,
}

impl ChannelCounts {
    /// Counts a message that begins with `head`.
    pub fn count(&mut self, kind: MessageKind, head: &[u8], arrival: Arrival) {
        let one = u64::from(arrival.is_measured);
        match kind {
            MessageKind::Reply => self.replies += one,
            MessageKind::Refusal => {
                self.refused += 1;
                self.first_refusal.get_or_insert_with(|| String::from_utf8_lossy(head).into_owned());
            }
            MessageKind::PresenceState => self.presence_states += one,
            MessageKind::PresenceDiff => self.presence_diffs += one,
            MessageKind::ChannelClosed | MessageKind::ChannelFailed | MessageKind::Room => return,
        }
        if matches!(kind, MessageKind::PresenceState | MessageKind::PresenceDiff) {
            self.presence_bytes += one * arrival.wire_bytes;
        }
    }
}

impl RunCounts {
    /// Counts a refused user.
    pub fn refuse(&mut self, refusal: Refusal) {
        self.refusals.entry(refusal.kind).or_insert((0, refusal.says)).0 += 1;
    }

    /// Number of refused users.
    pub fn refused(&self) -> u64 {
        self.refusals.values().map(|(count, _)| count).sum()
    }

    /// Number of joined users.
    pub fn present(&self) -> u64 {
        let gone = self.lost() + self.left + self.unanswered + self.dropped;
        self.joined.saturating_sub(gone)
    }

    /// Number of users that joined and were disconnected against their will.
    pub fn lost(&self) -> u64 {
        self.closes.values().chain(self.broken.values()).sum()
    }
}

/// State shared by all members of a run, on one thread.
#[derive(Debug)]
pub struct RunContext {
    /// The servers.
    pub doors: Vec<Endpoint>,
    /// The server of each user, by the user's number.
    pub servers: RefCell<Vec<usize>>,
    /// The current phase.
    pub stage: Cell<RunStage>,
    /// The counts so far.
    pub counts: RefCell<RunCounts>,
    /// Read buffer, used by one member at a time.
    pub scratch: RefCell<Vec<u8>>,
    /// Write buffer, used by one member at a time.
    pub text: RefCell<String>,
    epoch: Instant,
}

impl RunContext {
    /// The initial state of a run.
    pub fn new(doors: Vec<Endpoint>) -> Self {
        Self {
            doors,
            servers: RefCell::default(),
            stage: Cell::new(RunStage::Unmeasured),
            counts: RefCell::default(),
            scratch: RefCell::new(vec![0; SCRATCH_BYTES]),
            text: RefCell::default(),
            epoch: now(),
        }
    }

    /// The tool's clock, in microseconds: both ends of every latency are read from it.
    pub fn micros(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Counts a socket that the server closed.
    pub fn count_close(&self, code: u16) {
        *self.counts.borrow_mut().closes.entry(code).or_default() += 1;
    }

    /// Counts a connection that could not be read on.
    pub fn count_broken(&self, why: String) {
        *self.counts.borrow_mut().broken.entry(why).or_default() += 1;
    }
}

/// The time.
#[expect(clippy::disallowed_methods, reason = "a load tool measures how long things take")]
pub fn now() -> Instant {
    Instant::now()
}

/// A random number from 0 to 1.
pub fn chance() -> f64 {
    // Without randomness the members would only be spread less evenly.
    f64::from(getrandom::u32().unwrap_or(1 << 31)) / f64::from(u32::MAX)
}
