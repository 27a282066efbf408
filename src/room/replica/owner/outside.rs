//! An owner tells programs outside what happens, by its journal.
//!
//! Each event is a line, and is published when the entry that has it is stored. Another line says how far this node has
//! recorded them; the next owner publishes what comes after that. A meeting whose last events are not recorded yet
//! has not ended.

use std::time::{Duration, Instant};

use satsuma_cluster::entry::{Line, Record};

use super::super::journaled::{JournaledEvent, OutsideEvent, Recording};
use super::super::lines::{RecordedEvents, RoomLine, RoomState};
use super::super::{Action, Surroundings};
use super::Owner;
use crate::id::MeetingId;
use crate::room::io::{Effect, RoomEvent};

/// Time for which the end of a meeting waits until its last events are recorded.
const RECORDED_WITHIN: Duration = Duration::from_secs(3);

/// The events of an owner for programs outside.
#[derive(Debug)]
pub(in crate::room::replica) struct OutsideEvents {
    recording: Recording,
    /// The meeting that they are of.
    meeting: Option<MeetingId>,
    /// The number of the last one, stored or not.
    published: u64,
    /// Those that some node has recorded.
    recorded: RecordedEvents,
    /// The number in the meeting of the last one that was recorded before this node owned the room.
    seq: u64,
    /// The time at which the meeting ends although they are not recorded.
    pub(super) end_at: Option<Instant>,
}

impl OutsideEvents {
    pub(super) fn new(recording: Recording, state: &RoomState) -> Self {
        let recorded = state.recorded();
        Self {
            recording,
            meeting: state.meeting(),
            published: state.published(),
            recorded,
            seq: recorded.seq,
            end_at: None,
        }
    }

    pub(in crate::room::replica) fn set_recording(&mut self, recording: Recording) {
        self.recording = recording;
    }

    fn publish(&self, event: JournaledEvent) -> Option<Action> {
        let (meeting, seq) = (self.meeting?, self.seq);
        Some(Action::Publish { meeting, event, seq })
    }
}

impl Owner {
    /// Publishes an event once everything before it is stored.
    pub(super) fn publish(
        &mut self,
        surroundings: Surroundings<'_>,
        meeting: Option<MeetingId>,
        event: RoomEvent,
        actions: &mut Vec<Action>,
    ) {
        let journaled = self.outside.recording.journaled(&event).filter(|_| meeting.is_some());
        let Some(event) = journaled else {
            return self.hold(Effect::Publish { meeting, event }, actions);
        };
        self.outside.meeting = meeting;
        if self.replaces_update(&event) {
            return;
        }
        self.outside.published += 1;
        let (number, epoch) = (self.outside.published, self.epoch());
        let event = JournaledEvent { number, epoch, at: surroundings.at, event };
        self.writer.count(event.text_bytes());
        // As the user object itself.
        let is_at_leisure = event.updated().is_some();
        let line = Line::Change(RoomLine::Published(event));
        if is_at_leisure {
            self.writer.push_at_leisure(surroundings.now, line);
        } else {
            self.writer.push(surroundings.now, line);
        }
    }

    /// Replaces an update of a member's user object that waits to be written, if nothing else of that member came after it.
    fn replaces_update(&mut self, event: &OutsideEvent) -> bool {
        let OutsideEvent::Updated { user, after: newest, .. } = event else { return false };
        let last = self.writer.pending_mut().iter_mut().rev().find_map(|line| match line {
            Line::Change(RoomLine::Published(waiting)) => match &mut waiting.event {
                OutsideEvent::Updated { user: other, after, .. } if other == user => Some(Some(after)),
                OutsideEvent::Joined { user: other, .. } | OutsideEvent::Left { user: other, .. }
                    if other == user =>
                {
                    Some(None)
                }
                _ => None,
            },
            _ => None,
        });
        let Some(Some(after)) = last else { return false };
        *after = newest.clone();
        true
    }

    /// Publishes again what perhaps no other owner has recorded.
    pub(super) fn publish_again(&self, state: &RoomState, actions: &mut Vec<Action>) {
        actions.extend(state.unrecorded().filter_map(|event| self.outside.publish(event.clone())));
    }

    /// Publishes the events of an entry that is stored.
    pub(super) fn publish_stored(&self, record: &Record<RoomState>, actions: &mut Vec<Action>) {
        for line in &record.entry.lines {
            if let Line::Change(RoomLine::Published(event)) = line {
                actions.extend(self.outside.publish(event.clone()));
            }
        }
    }

    /// Takes how far this node has recorded them.
    pub(in crate::room::replica) fn recorded(
        &mut self,
        now: Instant,
        meeting: MeetingId,
        recorded: RecordedEvents,
    ) {
        if self.outside.meeting != Some(meeting) || recorded.through <= self.outside.recorded.through {
            return;
        }
        self.outside.recorded = recorded;
        if self.outside.end_at.is_some() {
            self.end_if_recorded(now);
        } else if !self.is_ending {
            let pending = self.writer.pending_mut().iter_mut().find_map(|line| match line {
                Line::Change(RoomLine::Recorded(pending)) => Some(pending),
                _ => None,
            });
            match pending {
                Some(pending) => *pending = recorded,
                None => {
                    self.writer.push_at_leisure(now, Line::Change(RoomLine::Recorded(recorded)));
                }
            }
        }
    }

    /// Ends the journal once the last events are recorded: of an ended one nobody would tell them.
    pub(super) fn end(&mut self, now: Instant) {
        self.is_ending = true;
        self.outside.end_at = Some(now + RECORDED_WITHIN);
        self.end_if_recorded(now);
    }

    pub(super) fn end_if_recorded(&mut self, now: Instant) {
        let is_recorded = self.outside.recorded.through >= self.outside.published;
        if self.outside.end_at.take_if(|at| is_recorded || *at <= now).is_some() {
            self.writer.push(now, Line::Ended);
        }
    }
}
