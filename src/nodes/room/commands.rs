//! A room's task obeys its mailbox.

use super::acting::Written;
use super::{Joining, RoomTask};
use crate::nodes::engine::Engine;
use crate::room::codec::RemoteCommand;
use crate::room::describing::describe;
use crate::room::io::{CannotPost, Input};
use crate::room::mailbox::{Command, Incoming};
use crate::room::state::{CannotShareFile, Denied};

/// Size in bytes by which a join counts in the link to the owner.
const JOIN_BYTES: usize = 512;

impl<E: Engine> RoomTask<E> {
    pub(super) fn obey(&mut self, command: Command) {
        self.has_begun = true;
        match command {
            Command::Join { join, encoding, ack } => {
                let (connection, presence) = (join.connection, join.presence);
                self.joining.insert(connection, Joining { encoding, presence, answer: ack });
                if self.say(RemoteCommand::Join(join), JOIN_BYTES).is_none() {
                    // Whoever asks is told so by the loss of the answer, and asks again.
                    self.joining.remove(&connection);
                }
                self.look_soon();
            }
            Command::Message(Incoming { connection, message, bytes, reply, permit: _ }) => {
                let size = u32::try_from(bytes).unwrap_or(u32::MAX);
                let item = self.say(RemoteCommand::Message { connection, message, bytes: size }, bytes);
                if let (Some(item), Some(reply)) = (item, reply) {
                    self.replies.insert(item, reply);
                }
            }
            Command::Disconnected(gone) => {
                self.disconnected(gone.connection);
                self.say(RemoteCommand::Disconnected(gone), 0);
            }
            command if self.replica.room().is_some() => self.obey_as_owner(command),
            command => refuse(command),
        }
    }

    /// Carries out a request of whoever is no member.
    fn obey_as_owner(&mut self, command: Command) {
        let Some(room) = self.replica.room() else { return refuse(command) };
        match command {
            Command::Moderate { by, action, answer } => {
                self.operators.push_back(answer);
                self.room_input(Input::Moderate { by, action });
            }
            Command::MayChange { by, answer } => drop(answer.send(room.may_change_rules(&by))),
            Command::LastingRules { change, answer } => {
                self.operators.push_back(answer);
                self.room_input(Input::LastingRules { change });
            }
            Command::SetRules { by, change, answer } => {
                self.operators.push_back(answer);
                self.room_input(Input::SetRules { by, change });
            }
            Command::Post { post, answer } => {
                if let Err(refused) = room.admits_post(&post) {
                    let _ = answer.send(Err(refused));
                    return;
                }
                self.room_input(Input::Post(post));
                self.answer_once_stored(Written::Post(answer));
            }
            Command::MeetingOf { identity, answer } => drop(answer.send(room.meeting_of(&identity))),
            Command::AdmitsFiles { identity, answer } => drop(answer.send(room.admits_files(&identity))),
            Command::ShareFile { file, answer } => {
                if let Err(refused) = room.admits_file(&file) {
                    let _ = answer.send(Err(refused));
                    return;
                }
                self.room_input(Input::ShareFile(file));
                self.answer_once_stored(Written::File(answer));
            }
            Command::Describe(answer) => drop(
                answer.send(self.replica.room().map(|room| describe(room, &self.fanout)).unwrap_or_default()),
            ),
            Command::Observed => {
                self.replica.set_observers(self.deps.observers.names(&self.name));
                self.room_input(Input::Wake);
            }
            #[cfg(test)]
            Command::Panic => panic!("by a test"),
            Command::Join { .. } | Command::Message(_) | Command::Disconnected(_) => {}
        }
    }
}

/// Refuses what only the room's owner can do.
fn refuse(command: Command) {
    match command {
        Command::Moderate { answer, .. }
        | Command::MayChange { answer, .. }
        | Command::LastingRules { answer, .. }
        | Command::SetRules { answer, .. } => drop(answer.send(Err(Denied::OtherNode))),
        Command::Post { answer, .. } => drop(answer.send(Err(CannotPost::OtherNode))),
        Command::AdmitsFiles { answer, .. } => drop(answer.send(Err(CannotShareFile::OtherNode))),
        Command::ShareFile { answer, .. } => drop(answer.send(Err(CannotShareFile::OtherNode))),
        // Whoever asks learns that there is no answer.
        Command::Describe(_)
        | Command::MeetingOf { .. }
        | Command::Observed
        | Command::Join { .. }
        | Command::Message(_)
        | Command::Disconnected(_) => {}
        #[cfg(test)]
        Command::Panic => panic!("by a test"),
    }
}
