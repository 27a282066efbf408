//! SHELL: the log of events for streams: its newest part in memory, all of it in the store.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use crate::clock::wall_clock;
use crate::id::EventId;
use crate::room::event_queue::EventQueue;
use crate::store::events::{Events, EventsError, LoggedEvent};

/// Bytes of the newest events in memory: streams that keep up read no other.
const MEMORY_BYTES: usize = 1 << 20;

/// Events that a stream reads at a time.
const PAGE: u32 = 64;

/// Events that come again where another node's log is read on.
const OVERLAP: i64 = 256;

/// Time for which events are recorded after the last stream, over restarts too, so that its client finds no gap.
const LINGER: Duration = Duration::from_secs(24 * 60 * 60);

/// Age at which the stored time of that is renewed.
const RENEWAL: Duration = Duration::from_secs(60 * 60);

/// The log. A clone is the same log.
#[derive(Clone, Debug)]
pub struct EventLog {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    queue: EventQueue,
    store: Events,
    newest: Mutex<Newest>,
    end: watch::Sender<End>,
    /// The time until which events are recorded, in seconds since 1970.
    until: AtomicU64,
}

/// The newest events, without a gap.
#[derive(Debug, Default)]
struct Newest {
    events: VecDeque<Arc<LoggedEvent>>,
    bytes: usize,
}

/// The end of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct End {
    position: i64,
    is_closed: bool,
}

/// The place from which the log is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogStart {
    /// Its end.
    End,
    /// Its beginning.
    Beginning,
    /// The continuation after an event.
    After(EventId),
    /// The same where another node wrote the log that was read before: the events before are in another order there.
    Near(EventId),
    /// Its end, after a gap: the reader names an event that never was.
    Unknown,
}

/// A reader of the log.
#[derive(Debug)]
pub struct Cursor {
    log: EventLog,
    /// The place of the last event that was read; none if it is not known what was missed.
    position: Option<i64>,
    /// The place from which to go on then; none for the end.
    resumed: Option<i64>,
    end: watch::Receiver<End>,
}

/// A part of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPage {
    /// The gap before these events, whose events are no longer in the log.
    pub gap: Option<Gap>,
    /// The events.
    pub events: Vec<Arc<LoggedEvent>>,
}

/// Events that a reader misses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Their number, if it is known.
    pub lost: Option<u64>,
}

impl EventLog {
    /// The log that ends at this place of the store.
    pub fn new(queue: EventQueue, store: Events, position: i64, until: Option<SystemTime>) -> Self {
        let end = watch::Sender::new(End { position, is_closed: false });
        if let Some(until) = until {
            queue.set_until(until);
        }
        let until = AtomicU64::new(until.map_or(0, seconds));
        Self { shared: Arc::new(Shared { queue, store, newest: Mutex::default(), end, until }) }
    }

    /// A reader of the log, and the last event before a reader from the end. From the first reader on events are
    /// recorded.
    ///
    /// # Errors
    /// [`EventsError`].
    pub async fn read(&self, start: LogStart) -> Result<(Cursor, Option<EventId>), EventsError> {
        self.keep_recording().await?;
        let end = self.shared.end.subscribe();
        let newest = end.borrow().position;
        let mut resumed = None;
        let (position, before) = match start {
            LogStart::End => {
                let last = self.after(newest - 1).await?;
                (Some(newest), last.first().filter(|last| last.position == newest).map(|last| last.id))
            }
            LogStart::Beginning => (Some(0), None),
            LogStart::After(last) => (self.shared.store.position(last).await?, None),
            LogStart::Near(last) => {
                let position = self.shared.store.position(last).await?;
                let near = self.before(position.unwrap_or(newest)).await?;
                resumed = Some(near);
                (position.map(|_| near), None)
            }
            LogStart::Unknown => (None, None),
        };
        Ok((Cursor { log: self.clone(), position, resumed, end }, before))
    }

    /// The place some events before one.
    async fn before(&self, position: i64) -> Result<i64, EventsError> {
        let near = (position - OVERLAP).max(0);
        // There may be no such events any more, which is no gap.
        let first = self.after(near).await?.first().map(|first| first.position - 1);
        Ok(first.unwrap_or(position))
    }

    /// True while events are recorded for streams.
    pub fn is_wanted(&self) -> bool {
        self.shared.queue.is_wanted(wall_clock())
    }

    /// Records from now on, and for a day after the last reader.
    ///
    /// # Errors
    /// [`EventsError`].
    pub async fn keep_recording(&self) -> Result<(), EventsError> {
        let until = wall_clock() + LINGER;
        if self.shared.until.load(Ordering::Relaxed) <= seconds(until - RENEWAL) {
            self.shared.store.record_until(until).await?;
            self.shared.until.store(seconds(until), Ordering::Relaxed);
            self.shared.queue.set_until(until);
        }
        self.shared.queue.record();
        Ok(())
    }

    /// True while somebody reads.
    pub fn is_read(&self) -> bool {
        self.shared.end.receiver_count() > 0
    }

    /// Adds events that are stored.
    pub fn append(&self, events: impl IntoIterator<Item = LoggedEvent>) {
        let mut last = None;
        {
            let mut newest = self.shared.newest();
            for event in events {
                last = Some(event.position);
                newest.bytes += event.body.len();
                newest.events.push_back(Arc::new(event));
            }
            while newest.bytes > MEMORY_BYTES
                && let Some(oldest) = newest.events.pop_front()
            {
                newest.bytes -= oldest.body.len();
            }
        }
        if let Some(position) = last {
            self.shared.end.send_modify(|end| end.position = position);
        }
    }

    /// Ends all readers once they have read everything.
    pub fn close(&self) {
        self.shared.end.send_modify(|end| end.is_closed = true);
    }

    async fn after(&self, position: i64) -> Result<Vec<Arc<LoggedEvent>>, EventsError> {
        {
            let newest = self.shared.newest();
            if newest.events.front().is_some_and(|first| first.position <= position + 1) {
                let start = newest.events.partition_point(|event| event.position <= position);
                return Ok(newest.events.range(start..).take(PAGE as usize).cloned().collect());
            }
        }
        let events = self.shared.store.after(position, PAGE).await?;
        Ok(events.into_iter().map(Arc::new).collect())
    }
}

impl Shared {
    fn newest(&self) -> MutexGuard<'_, Newest> {
        // No code panics under this lock.
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cursor {
    /// True if the reader has read what the log has.
    pub fn is_at_end(&self) -> bool {
        self.position.is_some_and(|position| position >= self.end.borrow().position)
    }

    /// Waits for the next events; `None` once the log is closed.
    ///
    /// # Errors
    /// [`EventsError`].
    pub async fn next(&mut self) -> Result<Option<LogPage>, EventsError> {
        loop {
            let end = *self.end.borrow_and_update();
            let Some(position) = self.position else {
                self.position = Some(self.resumed.take().unwrap_or(end.position));
                return Ok(Some(LogPage { gap: Some(Gap { lost: None }), events: Vec::new() }));
            };
            if position < end.position {
                let events = self.log.after(position).await?;
                let (Some(first), Some(last)) = (events.first(), events.last()) else {
                    // The table was emptied by hand.
                    self.position = None;
                    continue;
                };
                let lost = u64::try_from(first.position - position - 1).unwrap_or_default();
                self.position = Some(last.position);
                return Ok(Some(LogPage { gap: (lost > 0).then_some(Gap { lost: Some(lost) }), events }));
            }
            if end.is_closed || self.end.changed().await.is_err() {
                return Ok(None);
            }
        }
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
