//! Log events of rooms, with the reference's event names (protocol section 5).

use tracing::{debug, info, warn};

use super::io::Note;
use crate::id::{MeetingId, RoomName};

/// Writes one log event.
///
/// Events that unknown clients can cause at any rate are written at debug level only.
pub fn write(room: &RoomName, meeting: Option<MeetingId>, note: &Note) {
    let room = room.as_str();
    let meeting_id = meeting.map(|meeting| meeting.to_string());
    match note {
        Note::Alarm if meeting_id.is_none() => debug!(event = "meetingIdNotFoundInCleanup", room),
        Note::Alarm => debug!(event = "alarm", room, meeting_id),
        Note::OnConnect { user, connection } => {
            info!(event = "onConnect", room, meeting_id, connection_id = %user, socket = %connection);
        }
        Note::OnClose { user, connection } => {
            info!(event = "onClose", room, meeting_id, connection_id = %user, socket = %connection);
        }
        Note::UserLeft { user } => info!(event = "userLeft", room, meeting_id, connection_id = %user),
        Note::UserGone { user } => info!(event = "userGone", room, meeting_id, connection_id = %user),
        Note::UserTimedOut { user } => {
            info!(event = "userTimedOut", room, meeting_id, connection_id = %user)
        }
        Note::StartingMeeting => info!(event = "startingMeeting", room, meeting_id),
        Note::EndingMeeting => info!(event = "endingMeeting", room, meeting_id),
        Note::ErrorBroadcastingToUser { user } => {
            warn!(event = "errorBroadcastingToUser", room, meeting_id, connection_id = %user);
        }
        Note::ErrorHandlingMessage { user, why } => {
            debug!(event = "errorHandlingMessage", room, meeting_id, connection_id = %user, why);
        }
        Note::UnknownRecipient { user, r#type } => {
            debug!(event = "unknownRecipient", room, meeting_id, connection_id = %user, r#type);
        }
        Note::ClientNegotiationRecord { user, entry } => debug!(
            event = "clientNegotiationRecord",
            room,
            meeting_id,
            connection_id = %user,
            kind = entry.kind,
            endpoint = entry.endpoint,
            bytes = entry.bytes,
        ),
    }
}
