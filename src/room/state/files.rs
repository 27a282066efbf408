//! Files in the chat: who may share them, and the lines that tell of them.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::Room;
use crate::id::{IdentityId, MeetingId, UserId};
use crate::protocol::client::JsonString;
use crate::protocol::server::{ChatMessage, json_text};
use crate::room::io::{Effect, ShareFile};
use crate::room::member::Member;

/// Reason for not taking a file. The sentence goes to whoever shares it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum CannotShareFile {
    /// The identity has no member in this meeting.
    #[error("you are not in this meeting")]
    NoMember,
    /// The member may not write to the chat.
    #[error("you may not write to the chat")]
    NoChat,
    /// Moderators alone share files.
    #[error("only moderators share files in this room")]
    NoFiles,
    /// The room is at another node of the cluster.
    #[error("another node of the cluster owns this room, and has to be asked")]
    OtherNode,
}

impl Room {
    /// The meeting, if an identity is a member of it.
    pub fn meeting_of(&self, identity: &IdentityId) -> Option<MeetingId> {
        self.member_of(identity, None)?;
        self.meeting
    }

    /// The meeting, if an identity may share files in it.
    ///
    /// # Errors
    /// [`CannotShareFile`].
    pub fn admits_files(&self, identity: &IdentityId) -> Result<MeetingId, CannotShareFile> {
        let meeting = self.meeting.ok_or(CannotShareFile::NoMember)?;
        let (user, _) = self.member_of(identity, None).ok_or(CannotShareFile::NoMember)?;
        if self.refuses_chat(user).is_some() {
            return Err(CannotShareFile::NoChat);
        }
        let everyone = self.moderation.rules().files.unwrap_or(self.settings.files);
        (everyone || self.is_moderator(user)).then_some(meeting).ok_or(CannotShareFile::NoFiles)
    }

    /// Decides on a file that was received meanwhile.
    ///
    /// # Errors
    /// [`CannotShareFile`].
    pub fn admits_file(&self, file: &ShareFile) -> Result<(), CannotShareFile> {
        let is_same = self.admits_files(&file.identity)? == file.meeting;
        is_same.then_some(()).ok_or(CannotShareFile::NoMember)
    }

    /// Tells everyone of a file, as a line of the chat.
    pub(super) fn share_file(&mut self, now: Instant, share: ShareFile, effects: &mut Vec<Effect>) {
        if self.admits_file(&share).is_err() {
            return;
        }
        let ShareFile { at, identity, from, file, .. } = share;
        let Some((user, member)) = self.member_of(&identity, from.as_ref()) else { return };
        let (from, name) = (user.clone(), member.name.clone());
        // As clients show it that know nothing of files.
        let text = json_text(&format!("{} ({})", file.name, size_text(file.bytes)));
        let Some(message) = JsonString::parse(&text) else { return };
        self.last_chat = at.max(self.last_chat + 1);
        let message = ChatMessage { id: self.last_chat, from, name, message, at, file: Some(file) };
        self.remember_and_send(now, message, effects);
    }

    /// A member of an identity: that of the id, or else one that is connected, or else any.
    fn member_of(&self, identity: &IdentityId, preferred: Option<&UserId>) -> Option<(&UserId, &Member)> {
        let own = || self.members.iter().filter(|(_, member)| member.identity == *identity);
        own()
            .find(|(user, _)| Some(*user) == preferred)
            .or_else(|| own().find(|(_, member)| member.connection.is_some()))
            .or_else(|| own().next())
    }
}

/// A size as people read it.
fn size_text(bytes: u64) -> String {
    const UNITS: [&str; 3] = ["kB", "MB", "GB"];
    if bytes < 1000 {
        return format!("{bytes} bytes");
    }
    // Sizes of files are far below what a float has no room for.
    #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
    let mut size = bytes as f64;
    let mut unit = "";
    for next in UNITS {
        if size < 999.95 {
            break;
        }
        size /= 1000.0;
        unit = next;
    }
    format!("{size:.1} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ModeratorDefault;
    use crate::id::Grants;
    use crate::protocol::server::SharedFile;
    use crate::room::io::{Input, Join};
    use crate::room::rules::RoomRules;
    use crate::room::state::RoomSettings;
    use crate::room::state::tests::{join, persisted, seen, settings, start};
    use crate::store::saved::Persist;

    /// A room with the moderator a (connection 1), and b (connection 2).
    fn room(files: Option<bool>) -> (Room, Instant) {
        let now = start();
        let rules = RoomRules { files, ..RoomRules::default() };
        let settings = RoomSettings { rules, moderators: ModeratorDefault::First, ..settings() };
        let mut room = Room::new(settings, now);
        room.handle(now, join(1, "a", "A"));
        let Input::Join(ask) = join(2, "b", "B") else { unreachable!() };
        let grants = Grants { moderate: false, ..Grants::everyone() };
        room.handle(now, Input::Join(Join { grants, ..ask }));
        (room, now)
    }

    fn share(room: &Room, identity: &str, from: Option<&str>) -> ShareFile {
        let file = SharedFile {
            id: "x".into(),
            name: "a \"b\".pdf".into(),
            bytes: 1_234_567,
            kind: "application/pdf".into(),
        };
        ShareFile {
            at: 7,
            identity: IdentityId::new(identity),
            from: from.map(|from| UserId::parse(from).unwrap()),
            meeting: room.meeting().unwrap(),
            file,
        }
    }

    #[test]
    fn file_is_a_line_that_all_see() {
        let (mut room, now) = room(Some(true));
        let file = share(&room, "B", None);
        let effects = room.handle(now, Input::ShareFile(file));
        let line = r#"{"id":7,"from":"b","name":"name of B","message":"a \"b\".pdf (1.2 MB)","at":7,"file":{"id":"x","name":"a \"b\".pdf","bytes":1234567,"kind":"application/pdf"}}"#;
        assert_eq!(seen(&effects)[0], format!("to all: {}", line.replacen('{', r#"{"type":"chat","#, 1)));
        assert!(
            matches!(&persisted(&effects)[..], [Persist::ChatMessage { id: 7, json, .. }] if &**json == line)
        );
    }

    #[test]
    fn room_decides_who_shares_files() {
        let identity = IdentityId::new("B");
        for (rule, allowed) in [(None, false), (Some(false), false), (Some(true), true)] {
            let (room, _) = room(rule);
            let result = room.admits_files(&identity);
            assert_eq!(result.is_ok(), allowed, "{rule:?}");
            assert!(room.admits_files(&IdentityId::new("A")).is_ok(), "a moderator always may");
            assert_eq!(room.admits_files(&IdentityId::new("E")), Err(CannotShareFile::NoMember));
        }
        let (mut room, now) = room(Some(true));
        let mut of_another = share(&room, "B", None);
        of_another.meeting = MeetingId::random();
        assert_eq!(room.admits_file(&of_another), Err(CannotShareFile::NoMember));
        assert!(seen(&room.handle(now, Input::ShareFile(of_another))).is_empty());
        let off = serde_json::from_str(r#"{"action":"chat","on":false}"#).unwrap();
        room.handle(now, Input::Moderate { by: crate::room::state::Moderator::Operator, action: off });
        assert_eq!(room.admits_files(&identity), Err(CannotShareFile::NoChat));
    }

    #[test]
    fn sizes_are_for_people() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (999, "999 bytes"),
            (1000, "1.0 kB"),
            (999_960, "1.0 MB"),
            (2_500_000_000, "2.5 GB"),
        ] {
            assert_eq!(size_text(bytes), text);
        }
    }
}
