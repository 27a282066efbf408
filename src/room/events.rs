//! Room events as a stream: the rooms' actors publish, and any number of consumers subscribe.
//!
//! The log is not one of the subscribers: it is written first, on the room's task, so that its lines keep their
//! order among the others of that room and none is lost. A consumer that must not miss an event belongs beside
//! it, as a queue of the store that takes an event without waiting and delivers it later. A subscriber is for
//! everything else: a room does not wait for it, and one that lags loses the oldest events.

use std::sync::{Arc, OnceLock};

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::io::RoomEvent;
use super::log;
use crate::id::{MeetingId, RoomName};
use crate::metrics::{ByReason, Metrics};

/// Number of events that a subscriber may lag behind before it loses some.
const CAPACITY: usize = 1024;

/// The publisher of all rooms' events. A clone publishes to the same subscribers.
#[derive(Clone, Debug)]
pub struct RoomEvents {
    /// Made for the first subscriber: a server without any has no buffer and takes no lock.
    stream: Arc<OnceLock<broadcast::Sender<Arc<PublishedEvent>>>>,
    metrics: Arc<Metrics>,
}

/// An event and the room that it happened in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedEvent {
    /// The room.
    pub room: RoomName,
    /// Its meeting at that time, if one was running.
    pub meeting: Option<MeetingId>,
    /// The event.
    pub event: RoomEvent,
}

/// A consumer's end of the stream.
#[derive(Debug)]
pub struct Subscription {
    events: broadcast::Receiver<Arc<PublishedEvent>>,
    metrics: Arc<Metrics>,
}

impl RoomEvents {
    /// A publisher without subscribers.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { stream: Arc::default(), metrics }
    }

    /// Writes an event to the log and hands it to all subscribers. Never waits.
    pub fn publish(&self, room: &RoomName, meeting: Option<MeetingId>, event: RoomEvent) {
        log::write(room, meeting, &event);
        let Some(stream) = self.stream.get() else { return };
        if stream.receiver_count() > 0 && !event.is_diagnostic() {
            // Fails only if the last subscriber has just gone.
            let _ = stream.send(Arc::new(PublishedEvent { room: room.clone(), meeting, event }));
        }
    }

    /// Subscribes to all events that are published from now on, except diagnostic ones.
    pub fn subscribe(&self) -> Subscription {
        let stream = self.stream.get_or_init(|| broadcast::Sender::new(CAPACITY));
        Subscription { events: stream.subscribe(), metrics: self.metrics.clone() }
    }
}

impl Subscription {
    /// The next event; `None` once there will be no more. Events that this subscriber lost because it lagged are
    /// counted and skipped.
    pub async fn next(&mut self) -> Option<Arc<PublishedEvent>> {
        loop {
            match self.events.recv().await {
                Ok(event) => return Some(event),
                Err(RecvError::Lagged(lost)) => {
                    let reason = ByReason { reason: "lagging_subscriber" };
                    self.metrics.drops.get_or_create(&reason).inc_by(lost);
                }
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::UserId;

    fn left(number: usize) -> RoomEvent {
        RoomEvent::UserLeft { user: UserId::parse(&format!("u{number}")).unwrap() }
    }

    fn publish(events: &RoomEvents, event: RoomEvent) {
        events.publish(&RoomName::parse("r").unwrap(), None, event);
    }

    fn lost(events: &RoomEvents) -> u64 {
        events.metrics.drops.get_or_create(&ByReason { reason: "lagging_subscriber" }).get()
    }

    #[tokio::test]
    async fn every_subscriber_gets_events_in_order() {
        let events = RoomEvents::new(Metrics::new());
        publish(&events, left(0));
        assert!(events.stream.get().is_none(), "without a subscriber there is no stream");
        let [mut one, mut other] = [events.subscribe(), events.clone().subscribe()];
        for number in 1..4 {
            publish(&events, left(number));
        }
        drop(events);
        for subscription in [&mut one, &mut other] {
            for number in 1..4 {
                assert_eq!(subscription.next().await.unwrap().event, left(number));
            }
            assert_eq!(subscription.next().await, None);
        }
    }

    #[tokio::test]
    async fn lagging_subscriber_loses_the_oldest_events() {
        let events = RoomEvents::new(Metrics::new());
        let mut subscription = events.subscribe();
        for number in 0..CAPACITY + 3 {
            publish(&events, left(number));
        }
        assert_eq!(subscription.next().await.unwrap().event, left(3));
        assert_eq!(lost(&events), 3);
    }

    #[tokio::test]
    async fn client_cannot_flood_subscribers() {
        let events = RoomEvents::new(Metrics::new());
        let mut subscription = events.subscribe();
        let user = UserId::parse("u").unwrap();
        for _ in 0..2 * CAPACITY {
            publish(&events, RoomEvent::ErrorHandlingMessage { user: user.clone(), why: "no JSON".into() });
        }
        publish(&events, left(1));
        assert_eq!(subscription.next().await.unwrap().event, left(1));
        assert_eq!(lost(&events), 0);
    }
}
