//! Rooms on their way from a single node's store into journals, and back.
//!
//! A room that a single node stored is carried over into its journal by the first start as a node of several, and a node
//! that stops as the last one stores its rooms as a single node would. Both may be interrupted anywhere: the
//! stored room tells the place in the journal that it belongs to, and goes only when the journal has all of it.

use satsuma_cluster::Journal;
use satsuma_cluster::journal::Life;

use super::lines::{RoomLine, RoomState};
use crate::id::{ConnectionId, NodeId, RoomName};
use crate::room::io::Recipients;
use crate::store::saved::{JournalPlace, SavedMember, SavedRoom};

/// Size in bytes of the texts of an entry by which a room is carried over.
const CHUNK_BYTES: usize = 128 << 10;

/// The relation of a stored room to its journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carry {
    /// The journal is empty: the room is to be written into it.
    Write,
    /// The journal has nothing newer than the stored room: it is to be ended, and the room to be written into it.
    Replace,
    /// The journal has the room.
    Known,
    /// Another meeting runs in the room, on other nodes.
    Taken,
}

impl Carry {
    /// Compares a stored room with its journal. `has_owner` is true if a living node owns the room.
    pub fn of(saved: &SavedRoom, journal: &Journal<RoomState>, has_owner: bool) -> Self {
        let (place, meeting) = (place(journal), journal.state().meeting());
        let is_by = |of: JournalPlace| place.is_some_and(|at| (at.epoch, at.by) == (of.epoch, of.by));
        match saved.journal {
            _ if journal.life() == Life::Ended => Self::Write,
            Some(_) if saved.journal == place => Self::Replace,
            // Interrupted: the meeting is written last.
            Some(of) if meeting.is_none() && is_by(of) => Self::Replace,
            _ if meeting == Some(saved.meeting) => Self::Known,
            // Ids of meetings grow with time. The journal is that of a cluster that was left for a single node.
            _ if !has_owner && meeting.is_none_or(|older| older < saved.meeting) => Self::Replace,
            _ => Self::Taken,
        }
    }
}

/// The place of a journal's last entry.
fn place(journal: &Journal<RoomState>) -> Option<JournalPlace> {
    journal.position().map(|(epoch, by, number)| JournalPlace { epoch, by, number })
}

/// The lines that make a stored room of an empty journal, for one entry each. The members are those of sockets of the
/// node `own` that are gone. The meeting comes last: without it there is no room.
pub fn lines(saved: &SavedRoom, own: NodeId) -> Vec<Vec<RoomLine>> {
    let mut lines = Vec::new();
    for (number, (user, json)) in (1..).zip(&saved.unconfirmed) {
        let (to, json) = (Recipients::One(user.clone()), json.clone());
        lines.push(RoomLine::Event { number, to, json, chat: None });
    }
    lines.extend(saved.ai.clone().map(RoomLine::Ai));
    lines.extend(saved.moderation.clone().map(RoomLine::Moderation));
    lines.extend(saved.watch.clone().map(RoomLine::Watch));
    for (user, identity) in &saved.departed {
        lines.push(RoomLine::Departed(user.clone(), identity.clone()));
    }
    for (id, json) in &saved.chat {
        lines.push(RoomLine::Chat { id: *id, json: json.clone(), first: 0 });
    }
    for SavedMember { user, identity, json, arrival } in &saved.members {
        let (user, identity, json, arrival) = (user.clone(), identity.clone(), json.clone(), *arrival);
        let connection = ConnectionId::new(own, 0);
        lines.push(RoomLine::Admitted { user: user.clone(), connection, owed_from: 1 });
        lines.push(RoomLine::Member { user, identity, json, arrival });
    }
    lines.push(RoomLine::Meeting(saved.meeting));
    let (mut chunks, mut bytes) = (vec![Vec::new()], 0);
    for line in lines {
        let more = line.text_bytes();
        if bytes + more > CHUNK_BYTES && bytes > 0 {
            chunks.push(Vec::new());
            bytes = 0;
        }
        bytes += more;
        if let Some(chunk) = chunks.last_mut() {
            chunk.push(line);
        }
    }
    chunks
}

/// A room as a single node would store it, with the events that its members have not confirmed.
pub fn saved(name: &RoomName, journal: &Journal<RoomState>) -> Option<SavedRoom> {
    let state = journal.state();
    let members = state.sockets().filter(|(user, _)| state.is_member(user));
    let owed = members.flat_map(|(user, socket)| {
        state.owed(user, socket.owed_from).map(|event| (user.clone(), event.json.clone()))
    });
    let unconfirmed = owed.collect();
    Some(SavedRoom { unconfirmed, journal: place(journal), ..state.to_saved(name)? })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use satsuma_cluster::entry::{Entry, Line, Record};

    use super::*;
    use crate::id::{IdentityId, MeetingId, UserId};

    const OWN: NodeId = NodeId::new(7);

    fn user(id: &str) -> UserId {
        UserId::parse(id).unwrap()
    }

    fn stored(meeting: u8) -> SavedRoom {
        let member = |(arrival, id): (i64, &str)| SavedMember {
            user: user(id),
            identity: IdentityId::new(format!("cookie:{id}")),
            json: format!(r#"{{"id":"{id}"}}"#).into(),
            arrival,
        };
        let long: Arc<str> = format!(r#"{{"text":"{}"}}"#, "x".repeat(CHUNK_BYTES / 2)).into();
        SavedRoom {
            room: RoomName::parse("r").unwrap(),
            meeting: MeetingId::from_bytes([meeting; 16]),
            ai: Some("{}".into()),
            moderation: Some(r#"{"locked":true}"#.into()),
            watch: Some("{}".into()),
            chat: vec![(3, "{}".into()), (5, r#"{"id":5}"#.into())],
            members: [(1, "a"), (2, "b")].map(member).into(),
            departed: vec![(user("c"), IdentityId::new("cookie:c"))],
            unconfirmed: vec![(user("a"), long.clone()), (user("a"), "{}".into()), (user("b"), long)],
            journal: None,
        }
    }

    /// A journal of one entry after another of one owner.
    fn journal(epoch: u64, entries: Vec<Vec<Line<RoomState>>>) -> Journal<RoomState> {
        let claim = vec![Line::Claimed { from: None }];
        let entries = std::iter::once(claim).chain(entries);
        let records = (0..).zip(entries).map(|(number, lines)| Record {
            sequence: number + 1,
            expected: number,
            entry: Entry { subject: "r".into(), by: OWN, epoch, number, taken: Vec::new(), lines }.into(),
        });
        Journal::read_back(&records.collect::<Vec<_>>())
    }

    fn written(saved: &SavedRoom, entries: usize) -> Journal<RoomState> {
        let lines = lines(saved, OWN).into_iter().take(entries);
        journal(1, lines.map(|lines| lines.into_iter().map(Line::Change).collect()).collect())
    }

    #[test]
    fn carried_room_is_the_stored_one() {
        let room = stored(1);
        let entries = lines(&room, OWN);
        assert_eq!(entries.len(), 2, "no entry is too long");
        let journal = written(&room, entries.len());
        let place = JournalPlace { epoch: 1, by: OWN, number: 2 };
        assert_eq!(saved(&room.room, &journal), Some(SavedRoom { journal: Some(place), ..room }));
    }

    #[test]
    fn journal_with_something_newer_stays() {
        let room = stored(2);
        let at = |number| Some(JournalPlace { epoch: 1, by: OWN, number });
        let of = |room: &SavedRoom, journal: &Journal<RoomState>| Carry::of(room, journal, false);
        assert_eq!(of(&room, &Journal::default()), Carry::Write);
        assert_eq!(of(&room, &journal(4, vec![vec![Line::Ended]])), Carry::Write);
        let whole = written(&room, 2);
        assert_eq!(of(&room, &whole), Carry::Known);
        assert_eq!(of(&SavedRoom { journal: at(1), ..room.clone() }, &whole), Carry::Known);
        // Taken from the journal, which nobody has written since; a single node may have changed the room.
        assert_eq!(of(&SavedRoom { journal: at(2), ..room.clone() }, &whole), Carry::Replace);
        // Interrupted while it was carried over.
        let begun = written(&room, 1);
        assert_eq!(of(&SavedRoom { journal: at(0), ..room.clone() }, &begun), Carry::Replace);
        // A claim of another node, which has not written anything yet.
        assert_eq!(Carry::of(&room, &begun, true), Carry::Taken);
        let (older, newer) = (written(&stored(1), 2), written(&stored(3), 2));
        assert_eq!(Carry::of(&room, &older, true), Carry::Taken);
        assert_eq!((of(&room, &older), of(&room, &newer)), (Carry::Replace, Carry::Taken));
    }
}
