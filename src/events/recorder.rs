//! SHELL: the task that records events: numbered, in the log and in the queues of webhooks.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::envelope::{Envelope, EventData};
use super::log::EventLog;
use super::narrator::{Narrator, random};
use super::sharing::{self, Sharing};
use super::webhook::destination;
use crate::clock::{now, wall_clock};
use crate::config::{EventsConfig, WebhookConfig};
use crate::id::{EventId, MeetingId};
use crate::metrics::{ByReason, ByType, Metrics};
use crate::room::event_exchange::EventExchange;
use crate::room::event_queue::{Drained, EventQueue, QueuedEvent};
use crate::store::events::{EventBatch, Events, LogEnd, LoggedEvent, NewEvent, RecordingState};

/// Time for which events are gathered, so that a busy server writes ten batches a second and not thousands.
const GATHERING: Duration = Duration::from_millis(100);

/// Wait after a failed write, doubled up to [`LONGEST_RETRY`].
const RETRY: Duration = Duration::from_millis(250);

const LONGEST_RETRY: Duration = Duration::from_secs(10);

/// Interval of removing old dead letters.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// Retention of dead letters.
const DEAD_RETENTION: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The recorder of events.
#[derive(Debug)]
pub struct Recorder {
    queue: EventQueue,
    store: Events,
    log: EventLog,
    narrator: Narrator,
    webhooks: Vec<Route>,
    end: LogEnd,
    /// True if chat messages are for streams.
    chat: bool,
    log_bytes: usize,
    /// Maximum undelivered events of a webhook.
    undelivered: usize,
    metrics: Arc<Metrics>,
    /// True if other nodes may run the meetings of before the restart.
    is_shared: bool,
    /// The other nodes, if there are any.
    sharing: Option<Sharing>,
    /// The changes of the meetings of before the restart that are not written yet.
    ended: Vec<MeetingId>,
}

/// A webhook among the destinations.
#[derive(Debug)]
struct Route {
    destination: Arc<str>,
    config: WebhookConfig,
    /// Events that found its queue full, and of which it is told later.
    lost: u64,
}

impl Recorder {
    /// The recorder, with the `state` of before a restart. `running` are the meetings that were stored.
    ///
    /// It records at once if there is a webhook, or if a stream was open in the last day.
    pub fn new(
        config: &EventsConfig,
        webhooks: &[WebhookConfig],
        queue: EventQueue,
        store: Events,
        state: RecordingState,
        running: &HashSet<MeetingId>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let RecordingState { end, meetings, until } = state;
        let log = EventLog::new(queue.clone(), store.clone(), end.position, until);
        if !webhooks.is_empty() || until.is_some_and(|until| until > wall_clock()) {
            queue.record();
        }
        if config.chat || webhooks.iter().any(|webhook| webhook.chat) {
            queue.record_chat();
        }
        let mut narrator = Narrator::default();
        let mut ended = Vec::new();
        for (meeting, room, number) in meetings {
            narrator.resume(meeting, room, number);
            if !running.contains(&meeting) {
                ended.push(meeting);
            }
        }
        let webhooks = webhooks.iter().cloned().map(|config| {
            let destination = destination(&config.name);
            Route { destination, config, lost: 0 }
        });
        Self {
            webhooks: webhooks.collect(),
            queue,
            store,
            log,
            narrator,
            end,
            chat: config.chat,
            log_bytes: config.log_bytes,
            undelivered: config.undelivered,
            metrics,
            is_shared: false,
            sharing: None,
            ended,
        }
    }

    /// The recorder of a node of several: a meeting that it does not know any more may run on another node, and is not
    /// told to have ended.
    #[must_use]
    pub fn shared(self) -> Self {
        Self { is_shared: true, ..self }
    }

    /// Shares the events of the log with other nodes from now on.
    pub fn share(&mut self) -> EventExchange {
        let sharing = Sharing::default();
        let exchange = sharing.exchange();
        self.sharing = Some(sharing);
        exchange
    }

    /// The log that it writes.
    pub fn log(&self) -> EventLog {
        self.log.clone()
    }

    /// Records until `stop`, and then what is queued; closes the log at the end.
    pub async fn run(mut self, stop: CancellationToken) {
        if !self.ended.is_empty() {
            self.end_interrupted().await;
        }
        let mut expiry = now();
        while !stop.is_cancelled() {
            let due = self.narrator.next_due().map(Instant::from_std);
            let is_due = tokio::select! {
                () = stop.cancelled() => break,
                () = self.queue.came() => false,
                () = until(due) => true,
                () = sleep_until(expiry) => {
                    self.expire().await;
                    expiry = now() + EXPIRY_INTERVAL;
                    continue;
                }
            };
            if !is_due {
                tokio::select! {
                    () = stop.cancelled() => break,
                    () = sleep(GATHERING) => {}
                }
            }
            self.record(false).await;
        }
        self.record(true).await;
        self.log.close();
    }

    /// Ends the meetings that ran when the server was killed, before they were stored.
    async fn end_interrupted(&mut self) {
        let (time, ended) = (wall_clock(), std::mem::take(&mut self.ended));
        let told = ended.iter().filter_map(|id| self.narrator.interrupted(time, *id, &mut random));
        let told: Vec<_> = told.collect();
        let told = if self.queue.is_recording() && !self.is_shared { told } else { Vec::new() };
        let mut batch = self.batch(told).await;
        batch.meetings = ended.into_iter().map(|meeting| (meeting, None)).collect();
        let own = batch.events.len();
        self.write(batch, own).await;
    }

    /// Records everything that is queued; at the end also the changes that wait for their time.
    async fn record(&mut self, is_end: bool) {
        let Drained { events, lost } = self.queue.drain();
        let now = now().into_std();
        let (mut told, mut shared) = (Vec::new(), Vec::new());
        for event in events {
            match event {
                QueuedEvent::Shared(event) => shared.extend(sharing::read(event, wall_clock())),
                QueuedEvent::SharedLost(lost) => {
                    shared.push(NewEvent::from(&outside(EventData::EventsLost { lost: Some(lost) })));
                }
                event => self.narrator.tell(now, event, &mut random, &mut told),
            }
        }
        self.narrator.tell_due(now, is_end, &mut random, &mut told);
        if lost > 0 {
            self.metrics.drops.get_or_create(&ByReason { reason: "event_queue" }).inc_by(lost);
            self.narrator.lost();
            told.push(outside(EventData::EventsLost { lost: Some(lost) }));
        }
        if told.is_empty() && shared.is_empty() {
            return self.tell_rooms();
        }
        let meetings: HashSet<MeetingId> = told.iter().filter_map(|event| Some(event.meeting?.0)).collect();
        let mut batch = self.batch(told).await;
        let own = batch.events.len();
        // Those of other nodes are for streams alone: their nodes post them to webhooks.
        for event in &mut shared {
            self.place(event);
        }
        batch.events.extend(shared);
        batch.meetings = meetings.into_iter().map(|id| (id, self.narrator.number(id))).collect();
        self.write(batch, own).await;
        self.tell_rooms();
        if self.log.is_read()
            && let Err(error) = self.log.keep_recording().await
        {
            error!(event = "eventsNotWritten", %error, "the time of the last stream is not stored");
        }
    }

    /// Tells rooms with a journal the events that are written, or are none for programs outside.
    fn tell_rooms(&mut self) {
        for (meeting, recorded, mark) in self.narrator.take_told() {
            mark.set(meeting, recorded);
        }
    }

    /// Assigns events to the log and to the webhooks.
    async fn batch(&mut self, told: Vec<Envelope>) -> EventBatch {
        let mut events: Vec<_> = told.into_iter().map(|event| self.new_event(&event)).collect();
        let mut notices = Vec::new();
        for route in &mut self.webhooks {
            let is_for = |event: &NewEvent| {
                let room = event.room.as_ref().map(|room| room.as_str());
                event.kind == "events.lost" || route.config.wants(event.kind, room)
            };
            let wanted: Vec<usize> = (0..events.len()).filter(|&at| is_for(&events[at])).collect();
            if wanted.is_empty() {
                continue;
            }
            // Without an answer nothing is refused: the write that follows waits for the database anyway.
            let waiting = self.store.undelivered(&route.destination).await.unwrap_or_default();
            let mut space = self.undelivered.saturating_sub(waiting);
            if route.lost > 0 && space > 0 {
                space -= 1;
                let notice = outside(EventData::EventsLost { lost: Some(route.lost) });
                route.lost = 0;
                notices.push(NewEvent {
                    destinations: vec![route.destination.clone()],
                    ..NewEvent::from(&notice)
                });
            }
            let (fits, lost) = wanted.split_at(space.min(wanted.len()));
            for &at in fits {
                events[at].destinations.push(route.destination.clone());
            }
            if !lost.is_empty() {
                let lost = lost.len() as u64;
                if route.lost == 0 {
                    error!(
                        event = "webhookQueueFull",
                        webhook = route.config.name,
                        "its further events are lost"
                    );
                }
                route.lost += lost;
                self.metrics.drops.get_or_create(&ByReason { reason: "webhook_queue" }).inc_by(lost);
            }
        }
        notices.extend(events);
        EventBatch { events: notices, meetings: Vec::new() }
    }

    fn new_event(&mut self, event: &Envelope) -> NewEvent {
        let mut new = NewEvent::from(event);
        self.metrics.events.get_or_create(&ByType { r#type: new.kind }).inc();
        self.place(&mut new);
        new
    }

    /// Gives an event its place in the log, if it is for streams, and is not there yet.
    fn place(&mut self, event: &mut NewEvent) {
        let is_for_streams = self.chat || event.kind != "chat.message";
        if is_for_streams && self.sharing.as_mut().is_none_or(|sharing| sharing.is_new(event.id)) {
            let LogEnd { position, total } = self.end;
            let bytes = i64::try_from(event.body.len()).unwrap_or(i64::MAX);
            self.end = LogEnd { position: position + 1, total: total.saturating_add(bytes) };
            event.place = Some((self.end.position, self.end.total));
        }
    }

    /// Writes a batch, however often that fails, and shows it to the streams. The first `own` events are this node's.
    async fn write(&mut self, batch: EventBatch, own: usize) {
        let (mut wait, mut has_failed) = (RETRY, false);
        while let Err(error) = self.store.write(&batch, self.log_bytes).await {
            if !has_failed {
                error!(event = "eventsNotWritten", %error, "it is tried again");
            }
            has_failed = true;
            sleep(wait).await;
            wait = (wait * 2).min(LONGEST_RETRY);
        }
        if has_failed {
            info!(event = "eventsWritten", "no event is lost");
        }
        if let Some(sharing) = &self.sharing {
            sharing.publish(now().into_std(), &batch.events[..own]);
        }
        self.log.append(batch.events.into_iter().filter_map(|event| {
            let NewEvent { id, kind, room, body, place, .. } = event;
            let (position, _) = place?;
            Some(LoggedEvent { position, id, room, kind: kind.into(), body })
        }));
    }

    async fn expire(&self) {
        if let Err(error) = self.store.expire(wall_clock() - DEAD_RETENTION).await {
            error!(event = "eventsNotWritten", %error, "old dead letters are not removed");
        }
    }
}

/// An event of the server itself, of no room.
fn outside(data: EventData) -> Envelope {
    Envelope { id: EventId::random(), time: wall_clock(), room: None, meeting: None, data }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}
