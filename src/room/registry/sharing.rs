//! Files in the chats of rooms: the questions of those who share and get them, for the node that owns the room.

use super::Registry;
use crate::id::{IdentityId, MeetingId, RoomName};
use crate::room::io::ShareFile;
use crate::room::requests::{RoomAnswer, RoomRequest};
use crate::room::state::CannotShareFile;

/// Reason for not taking a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShareError {
    /// The room refuses it.
    Refused(CannotShareFile),
    /// The room did not answer in time. It takes no file of whoever has given up.
    Silent,
    /// The node that owns the room did not answer in time. It may have taken the file.
    Unknown,
}

impl Registry {
    /// The meeting of a room, if an identity is a member of it.
    ///
    /// # Errors
    /// [`ShareError`].
    pub async fn meeting_of(&self, name: &RoomName, identity: &IdentityId) -> Result<MeetingId, ShareError> {
        let identity = identity.clone();
        match self.request(name, RoomRequest::MeetingOf { identity }).await {
            RoomAnswer::Meeting(Some(meeting)) => Ok(meeting),
            RoomAnswer::Meeting(None) | RoomAnswer::NotHere => {
                Err(ShareError::Refused(CannotShareFile::NoMember))
            }
            _ => Err(ShareError::Silent),
        }
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
        match self.request(name, RoomRequest::AdmitsFiles { identity }).await {
            RoomAnswer::AdmitsFiles(admitted) => admitted.map_err(ShareError::Refused),
            RoomAnswer::NotHere => Err(ShareError::Refused(CannotShareFile::NoMember)),
            _ => Err(ShareError::Silent),
        }
    }

    /// Tells everyone in a room of a file.
    ///
    /// # Errors
    /// [`ShareError`].
    pub async fn share_file(&self, name: &RoomName, file: ShareFile) -> Result<(), ShareError> {
        match self.request(name, RoomRequest::ShareFile { file }).await {
            RoomAnswer::FileShared(shared) => shared.map_err(ShareError::Refused),
            RoomAnswer::NotHere => Err(ShareError::Refused(CannotShareFile::NoMember)),
            _ if self.inner.shared.is_some() => Err(ShareError::Unknown),
            _ => Err(ShareError::Silent),
        }
    }
}
