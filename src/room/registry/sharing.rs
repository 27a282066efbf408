//! Files in the chats of rooms: the questions of those who share and get them.

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::{DESCRIBE_TIMEOUT, Registry};
use crate::id::{IdentityId, MeetingId, RoomName};
use crate::room::io::ShareFile;
use crate::room::mailbox::Command;
use crate::room::state::CannotShareFile;

/// Reason for not taking a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShareError {
    /// The room refuses it.
    Refused(CannotShareFile),
    /// The room did not answer in time.
    Silent,
}

impl Registry {
    /// The meeting of a room, if an identity is a member of it.
    pub async fn meeting_of(&self, name: &RoomName, identity: &IdentityId) -> Option<MeetingId> {
        let identity = identity.clone();
        self.ask(name, |answer| Command::MeetingOf { identity, answer }).await.ok().flatten()
    }

    /// The meeting of a room, if an identity may share files in it.
    ///
    /// # Errors
    /// [`ShareError`].
    pub async fn admits_files(
        &self,
        name: &RoomName,
        identity: &IdentityId,
    ) -> Result<MeetingId, ShareError> {
        let identity = identity.clone();
        let answer = self.ask(name, |answer| Command::AdmitsFiles { identity, answer }).await?;
        answer.map_err(ShareError::Refused)
    }

    /// Tells everyone in a room of a file.
    ///
    /// # Errors
    /// [`ShareError`].
    pub async fn share_file(&self, name: &RoomName, file: ShareFile) -> Result<(), ShareError> {
        let answer = self.ask(name, |answer| Command::ShareFile { file, answer }).await?;
        answer.map_err(ShareError::Refused)
    }

    /// Asks a running room.
    async fn ask<T>(
        &self,
        name: &RoomName,
        ask: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, ShareError> {
        let room = self.inner.rooms.get(name).map(|entry| entry.value().clone());
        let room = room.ok_or(ShareError::Refused(CannotShareFile::NoMember))?;
        let (answer, result) = oneshot::channel();
        let ask = async {
            room.mailbox().send(ask(answer)).await.ok()?;
            result.await.ok()
        };
        let result = timeout(DESCRIBE_TIMEOUT, ask).await.map_err(|_| ShareError::Silent)?;
        result.ok_or(ShareError::Refused(CannotShareFile::NoMember))
    }
}
