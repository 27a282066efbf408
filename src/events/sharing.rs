//! **Pure**: events on their way from the recorder to those of other nodes, and back.

use std::collections::{HashSet, VecDeque};
use std::time::{Instant, SystemTime};

use crate::config::EVENT_TYPES;
use crate::id::EventId;
use crate::room::event_exchange::{EventExchange, SharedEvent};
use crate::store::events::NewEvent;

/// Ids by which an event is known that comes again: the next owner of a room tells what the last one may have told.
const KNOWN: usize = 8192;

/// The type of the events that say what is missing.
const LOST: &str = "events.lost";

/// The sharing of a recorder's events.
#[derive(Debug, Default)]
pub(super) struct Sharing {
    exchange: EventExchange,
    known: HashSet<EventId>,
    order: VecDeque<EventId>,
}

impl Sharing {
    /// The way to the other nodes.
    pub(super) fn exchange(&self) -> EventExchange {
        self.exchange.clone()
    }

    /// True if an event was not recorded a while ago; it is now.
    pub(super) fn is_new(&mut self, id: EventId) -> bool {
        let is_new = self.known.insert(id);
        if is_new {
            self.order.push_back(id);
        }
        if self.order.len() > KNOWN
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        is_new
    }

    /// Gives events that are written to the other nodes, if one wants them.
    pub(super) fn publish(&self, now: Instant, events: &[NewEvent]) {
        if self.exchange.is_wanted(now) {
            let logged = events.iter().filter(|event| event.place.is_some());
            self.exchange.publish(logged.map(|event| SharedEvent {
                id: event.id.to_string(),
                room: event.room.clone(),
                kind: event.kind.to_owned(),
                body: event.body.to_string(),
            }));
        }
    }
}

/// An event of another node, that came at this time; none for one of a type that this release does not know.
pub(super) fn read(event: SharedEvent, time: SystemTime) -> Option<NewEvent> {
    let SharedEvent { id, room, kind, body } = event;
    let mut kinds = EVENT_TYPES.into_iter().chain([LOST]);
    Some(NewEvent {
        id: EventId::parse(&id).ok()?,
        time,
        kind: kinds.find(|known| *known == kind)?,
        room,
        meeting: None,
        body: body.into(),
        place: None,
        destinations: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::id::RoomName;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "an instant can only be had from the clock")]
    fn event_is_the_same_at_the_other_node() {
        let (mut sharing, now) = (Sharing::default(), Instant::now());
        let event = NewEvent {
            id: EventId::random(),
            time: UNIX_EPOCH,
            kind: "member.left",
            room: Some(RoomName::parse("r").unwrap()),
            meeting: None,
            body: "{}".into(),
            place: Some((1, 2)),
            destinations: vec!["webhook:a".into()],
        };
        let unlogged = NewEvent { place: None, ..event.clone() };
        sharing.publish(now, std::slice::from_ref(&event));
        assert_eq!(sharing.exchange().next(), 0, "nobody wants it");
        sharing.exchange().want(now);
        sharing.publish(now, &[unlogged, event.clone()]);
        let mut part = sharing.exchange().part(0);
        let came = read(part.events.remove(0), UNIX_EPOCH).unwrap();
        assert_eq!(
            (came.id, came.kind, &came.room, &came.body),
            (event.id, event.kind, &event.room, &event.body)
        );
        assert!(part.events.is_empty() && came.place.is_none() && came.destinations.is_empty());
        assert!(sharing.is_new(came.id) && !sharing.is_new(came.id));
        let unknown = SharedEvent {
            id: came.id.to_string(),
            room: None,
            kind: "member.sang".to_owned(),
            body: "{}".to_owned(),
        };
        assert!(read(unknown, UNIX_EPOCH).is_none());
    }

    #[test]
    fn known_ids_are_bounded() {
        let mut sharing = Sharing::default();
        let first = EventId::random();
        assert!(sharing.is_new(first));
        for _ in 0..KNOWN {
            sharing.is_new(EventId::random());
        }
        assert_eq!((sharing.known.len(), sharing.order.len()), (KNOWN, KNOWN));
        assert!(sharing.is_new(first), "it is forgotten");
    }
}
