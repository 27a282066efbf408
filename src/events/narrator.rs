//! **Pure**: makes events of what rooms publish, numbered for each meeting.
//!
//! A member's changes are told at most once a second, as the difference to what was told last: a client that changes
//! its user object without end causes no more events than that.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant, SystemTime};

use serde_json::value::RawValue;

use super::envelope::{ChatAuthor, Envelope, EventData, EventReport, MeetingEnd};
use super::member::{Difference, EventMember};
use crate::id::{EventId, MeetingId, RoomName, UserId};
use crate::protocol::close::Close;
use crate::room::event_queue::{CreatedReport, JournalPlace, PublishedEvent, QueuedEvent, RecordedMark};
use crate::room::io::RoomEvent;
use crate::room::replica::lines::RecordedEvents;

/// Shortest time between two tellings of one member's changes.
const INTERVAL: Duration = Duration::from_secs(1);

/// A source of ids for events, of which it is told the part that they are of what happened. (Randomness, like time, is an
/// argument.)
pub type Ids<'i> = &'i mut dyn FnMut(&str) -> EventId;

/// A source of ids for events that are told once.
pub fn random(_part: &str) -> EventId {
    EventId::random()
}

/// The events of all meetings.
#[derive(Debug, Default)]
pub struct Narrator {
    meetings: HashMap<MeetingId, Meeting>,
    /// The members with changes that are not told yet, and the time at which they may be.
    due: VecDeque<(Instant, MeetingId, UserId)>,
    /// The places in journals of the last events of meetings, until all up to these are told.
    places: HashMap<MeetingId, JournalPlace>,
}

/// A meeting that runs.
#[derive(Debug)]
struct Meeting {
    room: RoomName,
    /// The number of its last event.
    last: u64,
    /// The epoch of the owner of its last event, if it is of a journal.
    epoch: u64,
    members: HashMap<UserId, Told>,
}

/// A member as it was told.
#[derive(Debug)]
struct Told {
    member: EventMember,
    /// Earliest time of the next telling.
    next: Instant,
    /// The newest state, if it is not told yet.
    newest: Option<Newest>,
}

/// A member's newest state, which is not told yet.
#[derive(Debug)]
struct Newest {
    member: EventMember,
    time: SystemTime,
    /// The places of the changes that lead to it, if they are of a journal.
    places: Option<Places>,
}

/// The places in a journal of the first and the last of the changes that an event is of, and the epoch of the last.
#[derive(Clone, Copy, Debug)]
struct Places {
    epoch: u64,
    first: u64,
    last: u64,
}

/// The meetings that changed: the room and the number of the last event of each, or none for one that ended.
pub type MeetingNumbers = Vec<(MeetingId, Option<(RoomName, u64)>)>;

impl Narrator {
    /// Continues a meeting of before a restart, after the event with this number.
    pub fn resume(&mut self, meeting: MeetingId, room: RoomName, last: u64) {
        self.meetings.insert(meeting, Meeting { room, last, epoch: 0, members: HashMap::new() });
    }

    /// Ends a meeting that is no longer stored.
    pub fn interrupted(&mut self, time: SystemTime, meeting: MeetingId, ids: Ids<'_>) -> Option<Envelope> {
        let room = self.meetings.get(&meeting)?.room.clone();
        let event = self.event(
            time,
            &room,
            meeting,
            EventData::MeetingEnded { reason: MeetingEnd::Interrupted },
            ids,
        );
        self.meetings.remove(&meeting);
        Some(event)
    }

    /// Forgets what members were told as: events are missing, and the next ones say what was before.
    pub fn lost(&mut self) {
        self.due.clear();
        self.meetings.values_mut().for_each(|meeting| meeting.members.clear());
    }

    /// The events of journals that were told since the last time, up to the first of each that was not.
    pub fn take_told(&mut self) -> Vec<(MeetingId, RecordedEvents, RecordedMark)> {
        let (meetings, mut told) = (&self.meetings, Vec::new());
        self.places.retain(|id, place| {
            let running = meetings.get(id);
            let members = running.into_iter().flat_map(|meeting| meeting.members.values());
            let waiting = members.filter_map(|member| Some(member.newest.as_ref()?.places?.first)).min();
            let through = waiting.map_or(place.last, |first| place.last.min(first - 1));
            let seq = running.map_or(place.seq, |meeting| meeting.last);
            told.push((*id, RecordedEvents { through, seq }, place.mark.clone()));
            waiting.is_some()
        });
        told
    }

    /// Tells an event.
    pub fn tell(&mut self, now: Instant, event: QueuedEvent, ids: Ids<'_>, told: &mut Vec<Envelope>) {
        match event {
            QueuedEvent::Room(event) => self.tell_room(now, event, ids, told),
            QueuedEvent::Report(report) => {
                let event = self.report(report, ids);
                told.push(event);
            }
            // Another node has told it.
            QueuedEvent::Shared(_) | QueuedEvent::SharedLost(_) => {}
        }
    }

    /// The time at which the next changes may be told.
    pub fn next_due(&self) -> Option<Instant> {
        self.due.front().map(|(due, ..)| *due)
    }

    /// Tells the changes whose time has come, or all of them at the end.
    pub fn tell_due(&mut self, now: Instant, is_end: bool, ids: Ids<'_>, told: &mut Vec<Envelope>) {
        while let Some((_, meeting, user)) = self.due.pop_front_if(|(due, ..)| is_end || *due <= now) {
            self.tell_newest(now, meeting, &user, ids, told);
        }
    }

    /// The room and the last number of a meeting; none if it has ended.
    pub fn number(&self, meeting: MeetingId) -> Option<(RoomName, u64)> {
        self.meetings.get(&meeting).map(|meeting| (meeting.room.clone(), meeting.last))
    }

    fn tell_room(&mut self, now: Instant, event: PublishedEvent, ids: Ids<'_>, told: &mut Vec<Envelope>) {
        let PublishedEvent { time, room, meeting, event, place } = event;
        let places =
            place.as_ref().map(|place| Places { epoch: place.epoch, first: place.first, last: place.last });
        if let Some(place) = place {
            // Other nodes told those before.
            let running = self.meeting(&room, meeting);
            running.last = running.last.max(place.seq);
            if std::mem::replace(&mut running.epoch, place.epoch) != place.epoch {
                // What members were told as may be long ago, and at another node.
                running.members.clear();
            }
            self.places.insert(meeting, place);
        }
        let ids: Ids<'_> = &mut |part: &str| match places {
            // A meeting begins once, and ends once, however often that is written down.
            Some(_) if part.starts_with("meeting.") => EventId::told(meeting, (0, 0), part),
            Some(Places { epoch, last, .. }) => EventId::told(meeting, (epoch, last), part),
            None => ids(part),
        };
        match event {
            RoomEvent::StartingMeeting => {
                told.push(self.event(time, &room, meeting, EventData::MeetingStarted {}, ids))
            }
            RoomEvent::EndingMeeting | RoomEvent::RoomFailed => {
                let reason = match event {
                    RoomEvent::RoomFailed => MeetingEnd::Failed,
                    _ => MeetingEnd::Empty,
                };
                told.push(self.event(time, &room, meeting, EventData::MeetingEnded { reason }, ids));
                self.meetings.remove(&meeting);
            }
            RoomEvent::MemberJoined { user, identity, json } => {
                told.push(self.event(time, &room, meeting, EventData::joined(&json, &identity), ids));
                let member = EventMember::read(&json);
                self.meeting(&room, meeting).members.insert(user, Told { member, next: now, newest: None });
            }
            RoomEvent::MemberLeft { user, json, reason } => {
                self.tell_newest(now, meeting, &user, ids, told);
                let known = self.meeting(&room, meeting).members.remove(&user);
                let member = known.map_or_else(|| EventMember::read(&json), |told| told.member);
                for track in member.published() {
                    let data = EventData::TrackUnpublished { member: member.clone(), track };
                    told.push(self.event(time, &room, meeting, data, ids));
                }
                told.push(self.event(
                    time,
                    &room,
                    meeting,
                    EventData::MemberLeft { member, reason: left(reason) },
                    ids,
                ));
            }
            RoomEvent::MemberUpdated { user, before, after } => {
                let newest = Newest { member: EventMember::read(&after), time, places };
                let members = &mut self.meeting(&room, meeting).members;
                let known = members.entry(user.clone()).or_insert_with(|| Told {
                    member: EventMember::read(&before),
                    next: now,
                    newest: None,
                });
                let waiting = known.newest.take();
                let was_waiting = waiting.is_some();
                let first = waiting.and_then(|newest| newest.places).map(|places| places.first);
                let next = known.next;
                let places =
                    newest.places.map(|places| Places { first: first.unwrap_or(places.first), ..places });
                known.newest = Some(Newest { places, ..newest });
                if next <= now {
                    self.tell_newest(now, meeting, &user, ids, told);
                } else if !was_waiting {
                    self.due.push_back((next, meeting, user));
                }
            }
            RoomEvent::ChatMessage { id, from, name, message } => {
                // It was checked when it came.
                let Ok(message) = RawValue::from_string(message.to_string()) else { return };
                let data = EventData::ChatMessage { id, from: ChatAuthor { id: from, name }, message };
                told.push(self.event(time, &room, meeting, data, ids));
            }
            RoomEvent::Moderated { by, action: (action, on), target } => {
                let data = EventData::Moderated { action, on, by, target };
                told.push(self.event(time, &room, meeting, data, ids));
            }
            RoomEvent::Alarm
            | RoomEvent::OnConnect { .. }
            | RoomEvent::OnClose { .. }
            | RoomEvent::UserLeft { .. }
            | RoomEvent::UserGone { .. }
            | RoomEvent::UserTimedOut { .. }
            | RoomEvent::ErrorBroadcastingToUser { .. }
            | RoomEvent::ErrorHandlingMessage { .. }
            | RoomEvent::UnknownRecipient { .. }
            | RoomEvent::ClientNegotiationRecord { .. } => {}
        }
    }

    /// Tells the difference between a member's newest state and the one that was told.
    fn tell_newest(
        &mut self,
        now: Instant,
        meeting: MeetingId,
        user: &UserId,
        ids: Ids<'_>,
        told: &mut Vec<Envelope>,
    ) {
        let Some(running) = self.meetings.get_mut(&meeting) else { return };
        let room = running.room.clone();
        let Some(known) = running.members.get_mut(user) else { return };
        let Some(Newest { member: newest, time, places }) = known.newest.take() else { return };
        let ids: Ids<'_> = &mut |part: &str| match places {
            Some(Places { epoch, last, .. }) => EventId::told(meeting, (epoch, last), part),
            None => ids(part),
        };
        let differences = known.member.differences(&newest);
        if differences.is_empty() {
            return;
        }
        known.member = newest.clone();
        known.next = now + INTERVAL;
        for difference in differences {
            let member = newest.clone();
            let data = match difference {
                Difference::Unpublished(track) => EventData::TrackUnpublished { member, track },
                Difference::Published(track) => EventData::TrackPublished { member, track },
                Difference::Hand(true) => EventData::HandRaised { member },
                Difference::Hand(false) => EventData::HandLowered { member },
                Difference::Other => EventData::MemberUpdated { member },
            };
            told.push(self.event(time, &room, meeting, data, ids));
        }
    }

    fn report(&mut self, report: CreatedReport, ids: Ids<'_>) -> Envelope {
        let CreatedReport { time, id, kind, room, name } = report;
        let data = EventData::ReportCreated { report: EventReport { id, kind, name } };
        // Reports are rare, and rooms are few beside them.
        let running = self.meetings.iter().find(|(_, meeting)| Some(&meeting.room) == room.as_ref());
        match (running.map(|(meeting, _)| *meeting), room) {
            (Some(meeting), Some(room)) => self.event(time, &room, meeting, data, ids),
            (_, room) => Envelope { id: ids(&data.part()), time, room, meeting: None, data },
        }
    }

    fn meeting(&mut self, room: &RoomName, meeting: MeetingId) -> &mut Meeting {
        let new = || Meeting { room: room.clone(), last: 0, epoch: 0, members: HashMap::new() };
        self.meetings.entry(meeting).or_insert_with(new)
    }

    /// The next event of a meeting.
    fn event(
        &mut self,
        time: SystemTime,
        room: &RoomName,
        meeting: MeetingId,
        data: EventData,
        ids: Ids<'_>,
    ) -> Envelope {
        let running = self.meeting(room, meeting);
        running.last += 1;
        let id = ids(&data.part());
        Envelope { id, time, room: Some(room.clone()), meeting: Some((meeting, running.last)), data }
    }
}

/// The reason of a member's leaving.
fn left(close: Close) -> &'static str {
    match close {
        Close::UserLeft => "left",
        Close::TimedOut => "timedOut",
        Close::TooSlow => "tooSlow",
        other => other.label(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use proptest::prelude::*;

    use super::*;
    use crate::id::{IdentityId, ReportId};

    struct Scene {
        narrator: Narrator,
        meeting: MeetingId,
        now: Instant,
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "an instant can only be had from the clock; tests add to it"
    )]
    fn scene() -> Scene {
        Scene { narrator: Narrator::default(), meeting: MeetingId::random(), now: Instant::now() }
    }

    fn json(id: &str, more: &str) -> std::sync::Arc<str> {
        format!(r#"{{"id":"{id}","name":"{id}"{more}}}"#).into()
    }

    fn user(id: &str) -> UserId {
        UserId::parse(id).unwrap()
    }

    fn joined(id: &str) -> RoomEvent {
        let identity = IdentityId::new(format!("cookie:{id}"));
        RoomEvent::MemberJoined { user: user(id), identity, json: json(id, "") }
    }

    fn updated(id: &str, before: &str, after: &str) -> RoomEvent {
        RoomEvent::MemberUpdated { user: user(id), before: json(id, before), after: json(id, after) }
    }

    fn shown(told: &[Envelope]) -> Vec<String> {
        let shown = told.iter().map(|event| {
            let number = event.meeting.map_or(0, |(_, number)| number);
            format!("{number} {}", event.data.kind())
        });
        shown.collect()
    }

    impl Scene {
        fn tell(&mut self, event: RoomEvent) -> Vec<String> {
            let room = RoomName::parse("r").unwrap();
            let event = PublishedEvent { time: UNIX_EPOCH, room, meeting: self.meeting, event, place: None };
            let mut told = Vec::new();
            self.narrator.tell(self.now, QueuedEvent::Room(event), &mut random, &mut told);
            shown(&told)
        }

        fn due(&mut self, is_end: bool) -> Vec<String> {
            let mut told = Vec::new();
            self.narrator.tell_due(self.now, is_end, &mut random, &mut told);
            shown(&told)
        }
    }

    #[test]
    fn meeting_is_told_in_numbered_events() {
        let mut scene = scene();
        assert_eq!(scene.tell(RoomEvent::StartingMeeting), ["1 meeting.started"]);
        assert_eq!(scene.tell(joined("a")), ["2 member.joined"]);
        let on = r#","joined":true,"tracks":{"audio":"s/1","audioEnabled":true}"#;
        assert_eq!(scene.tell(updated("a", "", on)), ["3 track.published", "4 member.updated"]);
        let left = RoomEvent::MemberLeft { user: user("a"), json: json("a", on), reason: Close::TimedOut };
        assert_eq!(scene.tell(left), ["5 track.unpublished", "6 member.left"]);
        assert_eq!(scene.tell(RoomEvent::EndingMeeting), ["7 meeting.ended"]);
        assert_eq!(scene.narrator.number(scene.meeting), None);
        assert!(scene.narrator.meetings.is_empty());
    }

    #[test]
    fn changes_are_told_once_a_second() {
        let mut scene = scene();
        let (up, down) = (r#","raisedHand":true"#, r#","raisedHand":false"#);
        scene.tell(joined("a"));
        assert_eq!(scene.tell(updated("a", down, up)), ["2 hand.raised"]);
        for _ in 0..50 {
            assert_eq!(scene.tell(updated("a", up, down)), [""; 0]);
            assert_eq!(scene.tell(updated("a", down, up)), [""; 0]);
        }
        assert_eq!(scene.tell(updated("a", up, r#","joined":true"#)), [""; 0]);
        assert_eq!(scene.due(false), [""; 0]);
        let due = scene.narrator.next_due().unwrap();
        assert_eq!(due, scene.now + INTERVAL);
        scene.now = due;
        assert_eq!(scene.due(false), ["3 hand.lowered", "4 member.updated"]);
        assert_eq!((scene.narrator.next_due(), scene.narrator.due.len()), (None, 0));
    }

    #[test]
    fn waiting_changes_are_told_before_the_member_leaves() {
        let mut scene = scene();
        let up = r#","raisedHand":true"#;
        scene.tell(joined("a"));
        scene.tell(updated("a", "", up));
        scene.tell(updated("a", up, ""));
        let left = RoomEvent::MemberLeft { user: user("a"), json: json("a", ""), reason: Close::UserLeft };
        assert_eq!(scene.tell(left), ["3 hand.lowered", "4 member.left"]);
        scene.tell(joined("b"));
        scene.tell(updated("b", "", up));
        scene.tell(updated("b", up, ""));
        assert_eq!(scene.due(true), ["7 hand.lowered"], "at the end");
    }

    #[test]
    fn resumed_meeting_continues_its_numbers() {
        let mut scene = scene();
        let room = RoomName::parse("r").unwrap();
        scene.narrator.resume(scene.meeting, room.clone(), 41);
        // Not known from before the restart: the update itself says what was.
        let track = r#","tracks":{"video":"s/1"}"#;
        let both = r#","tracks":{"video":"s/1","screenshare":"s/2"}"#;
        assert_eq!(scene.tell(updated("a", track, both)), ["42 track.published"]);
        assert_eq!(scene.narrator.number(scene.meeting), Some((room.clone(), 42)));
        let gone = MeetingId::random();
        scene.narrator.resume(gone, room, 7);
        let ended = scene.narrator.interrupted(UNIX_EPOCH, gone, &mut random).unwrap();
        assert_eq!(shown(&[ended]), ["8 meeting.ended"]);
        assert!(scene.narrator.interrupted(UNIX_EPOCH, gone, &mut random).is_none());
    }

    /// An event of a journal, as an owner of an epoch publishes it.
    fn journaled(scene: &mut Scene, (epoch, number): (u64, u64), event: RoomEvent) -> Vec<Envelope> {
        let place =
            JournalPlace { epoch, first: number, last: number, seq: 10, mark: RecordedMark::default() };
        let (time, room) = (UNIX_EPOCH, RoomName::parse("r").unwrap());
        let event = PublishedEvent { time, room, meeting: scene.meeting, event, place: Some(place) };
        let mut told = Vec::new();
        scene.narrator.tell(scene.now, QueuedEvent::Room(event), &mut random, &mut told);
        told
    }

    #[test]
    fn nodes_tell_an_event_of_a_journal_under_one_id() {
        let (mut one, mut other) = (scene(), scene());
        other.meeting = one.meeting;
        let up = r#","raisedHand":true,"tracks":{"audio":"s/1"}"#;
        let events =
            [RoomEvent::StartingMeeting, joined("a"), updated("a", "", up), RoomEvent::EndingMeeting];
        let ids = |scene: &mut Scene, from: u64, events: &[RoomEvent]| -> Vec<EventId> {
            let told =
                (from..).zip(events).flat_map(|(number, event)| journaled(scene, (3, number), event.clone()));
            told.map(|event| event.id).collect()
        };
        let all = ids(&mut one, 1, &events);
        assert_eq!(all.len(), 5, "two of the update");
        assert_eq!(ids(&mut other, 3, &events[2..]), all[2..]);
        let mut distinct = all.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), all.len());
        // The end is one, whoever writes it down; anything else of another epoch is something else.
        assert_eq!(journaled(&mut other, (4, 9), RoomEvent::EndingMeeting)[0].id, all[4]);
        assert_ne!(journaled(&mut other, (4, 2), joined("a"))[0].id, all[1]);
    }

    #[test]
    fn change_that_is_not_told_is_not_recorded() {
        let mut scene = scene();
        let through = |scene: &mut Scene| -> Vec<(u64, u64)> {
            let told = scene.narrator.take_told();
            told.iter().map(|(_, recorded, _)| (recorded.through, recorded.seq)).collect()
        };
        let (up, named) = (r#","raisedHand":true"#, r#","raisedHand":true,"joined":true"#);
        journaled(&mut scene, (1, 1), joined("a"));
        assert_eq!(journaled(&mut scene, (1, 2), updated("a", "", up)).len(), 1);
        assert_eq!(through(&mut scene), [(2, 12)]);
        assert_eq!(through(&mut scene), [], "no news");
        assert!(journaled(&mut scene, (1, 3), updated("a", up, "")).is_empty(), "at most once a second");
        assert!(journaled(&mut scene, (1, 4), updated("a", "", named)).is_empty());
        assert_eq!(journaled(&mut scene, (1, 5), joined("b")).len(), 1);
        assert_eq!(through(&mut scene), [(2, 13)], "3 waits");
        scene.now += INTERVAL;
        assert_eq!(scene.due(false), ["14 member.updated"]);
        assert_eq!(through(&mut scene), [(5, 14)]);
    }

    #[test]
    fn report_belongs_to_the_running_meeting() {
        let mut scene = scene();
        scene.tell(RoomEvent::StartingMeeting);
        let mut report = |room: Option<&str>| {
            let room = room.map(|room| RoomName::parse(room).unwrap());
            let (time, id) = (UNIX_EPOCH, ReportId::random());
            let report = CreatedReport { time, id, kind: "bug", room, name: "Ada".into() };
            let mut told = Vec::new();
            scene.narrator.tell(scene.now, QueuedEvent::Report(report), &mut random, &mut told);
            shown(&told)
        };
        assert_eq!(report(Some("r")), ["2 report.created"]);
        assert_eq!(report(Some("other")), ["0 report.created"]);
        assert_eq!(report(None), ["0 report.created"]);
    }

    proptest! {
        /// Property: the events add up to the member's state; the last one of each track and hand is its present one.
        #[test]
        fn told_changes_add_up(steps in proptest::collection::vec((0_u64..1500, 0_u8..8), 1..60)) {
            let mut scene = scene();
            scene.tell(joined("a"));
            let state = |bits: u8| {
                let hand = bits & 1 == 1;
                let audio = if bits & 2 == 2 { r#""audio":"s/1""# } else { "" };
                let video = if bits & 4 == 4 { r#""video":"s/2""# } else { "" };
                let comma = if audio.is_empty() || video.is_empty() { "" } else { "," };
                format!(r#","raisedHand":{hand},"tracks":{{{audio}{comma}{video}}}"#)
            };
            let (mut now_bits, mut events) = (0, Vec::new());
            for (wait, bits) in steps {
                scene.now += Duration::from_millis(wait);
                events.extend(scene.due(false));
                events.extend(scene.tell(updated("a", &state(now_bits), &state(bits))));
                now_bits = bits;
            }
            events.extend(scene.due(true));
            let count = |kind: &str| events.iter().filter(|event| event.ends_with(kind)).count();
            let published = count("track.published") - count("track.unpublished");
            prop_assert_eq!(published, (now_bits >> 1 & 1) as usize + (now_bits >> 2) as usize);
            prop_assert_eq!(count("hand.raised") - count("hand.lowered"), (now_bits & 1) as usize);
            let numbers: Vec<u64> = events.iter().map(|event| event.split(' ').next().unwrap().parse().unwrap()).collect();
            prop_assert!(numbers.iter().copied().eq(2..2 + numbers.len() as u64));
        }
    }
}
