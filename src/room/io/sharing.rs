//! A file that a member shares.

use serde::{Deserialize, Serialize};

use crate::id::{IdentityId, MeetingId, UserId};
use crate::protocol::server::SharedFile;

/// A file that was received, of an identity that is a member.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ShareFile {
    /// Wall-clock time of arrival, in milliseconds since 1970.
    pub at: u64,
    /// The identity.
    pub identity: IdentityId,
    /// Its member, if it names one.
    pub from: Option<UserId>,
    /// The meeting that the file was received for.
    pub meeting: MeetingId,
    /// The file.
    pub file: SharedFile,
}
