//! The last node stores its rooms when it stops, as a single node does: it may be one the next time.

use satsuma_cluster::journal::Life;
use tracing::info;

use super::RoomTask;
use crate::clock::wall_clock;
use crate::nodes::engine::Engine;
use crate::room::replica::kept;
use crate::store::Change;
use crate::store::saved::{Persist, SavedRoom};

impl<E: Engine> RoomTask<E> {
    /// Stores a room that was handed over to nobody, if no other node could take it.
    pub(super) fn keep(&self) {
        let journal = self.replica.journal();
        let is_left = journal.life() == Life::HandedOver { to: None };
        if self.leaving.is_none() || !is_left || self.cluster.membership().takers().next().is_some() {
            return;
        }
        let Some(saved) = kept::saved(&self.name, journal) else { return };
        info!(event = "roomKept", room = self.name.as_str(), meeting_id = %saved.meeting);
        let SavedRoom {
            meeting, ai, moderation, watch, chat, members, departed, unconfirmed, journal, ..
        } = saved;
        let first = chat.first().map_or(0, |(id, _)| *id);
        let chat = chat.into_iter().map(|(id, json)| Persist::ChatMessage { id, json, first });
        let count = Persist::Peak { members: members.len() };
        let departed = departed.into_iter().map(|(user, identity)| Persist::Departed { user, identity });
        let json = |json: Option<_>, of: fn(_) -> Persist| json.map(of);
        // Whatever is stored of the meeting is older.
        let changes = [Persist::MovedAway, Persist::MeetingStarted, count]
            .into_iter()
            .chain(json(ai, |json| Persist::Ai { json }))
            .chain(json(moderation, |json| Persist::Moderation { json }))
            .chain(json(watch, |json| Persist::Watch { json }))
            .chain(members.into_iter().map(Persist::Member))
            .chain(departed)
            .chain(chat)
            .chain(journal.map(Persist::Journal));
        let store = &self.deps.store;
        for what in changes {
            store.persist(Change { at: wall_clock(), room: self.name.clone(), meeting, what });
        }
        store.persist_unconfirmed(meeting, unconfirmed);
    }
}
