//! Log events of rooms, with the reference's event names (protocol section 5).

use tracing::{debug, info, warn};

use super::io::RoomEvent;
use crate::id::{MeetingId, RoomName};

/// Writes one log event.
///
/// Events that unknown clients can cause at any rate are written at debug level only.
pub fn write(room: &RoomName, meeting: Option<MeetingId>, event: &RoomEvent) {
    let room = room.as_str();
    let meeting_id = meeting.map(|meeting| meeting.to_string());
    match event {
        RoomEvent::Alarm if meeting_id.is_none() => debug!(event = "meetingIdNotFoundInCleanup", room),
        RoomEvent::Alarm => debug!(event = "alarm", room, meeting_id),
        RoomEvent::OnConnect { user, connection } => {
            info!(event = "onConnect", room, meeting_id, connection_id = %user, socket = %connection);
        }
        RoomEvent::OnClose { user, connection } => {
            info!(event = "onClose", room, meeting_id, connection_id = %user, socket = %connection);
        }
        RoomEvent::UserLeft { user } => info!(event = "userLeft", room, meeting_id, connection_id = %user),
        RoomEvent::UserGone { user } => info!(event = "userGone", room, meeting_id, connection_id = %user),
        RoomEvent::UserTimedOut { user } => {
            info!(event = "userTimedOut", room, meeting_id, connection_id = %user)
        }
        RoomEvent::StartingMeeting => info!(event = "startingMeeting", room, meeting_id),
        RoomEvent::EndingMeeting => info!(event = "endingMeeting", room, meeting_id),
        RoomEvent::Moderated { by, action: (action, on), target } => {
            let by = by.as_ref().map_or("an operator", |by| by.as_str());
            let target = target.as_ref().map(|target| target.as_str());
            info!(event = "moderated", room, meeting_id, by, action = &**action, on, target);
        }
        RoomEvent::RoomFailed
        | RoomEvent::MemberJoined { .. }
        | RoomEvent::MemberLeft { .. }
        | RoomEvent::MemberUpdated { .. }
        | RoomEvent::ChatMessage { .. } => {}
        RoomEvent::ErrorBroadcastingToUser { user } => {
            warn!(event = "errorBroadcastingToUser", room, meeting_id, connection_id = %user);
        }
        RoomEvent::ErrorHandlingMessage { user, why } => {
            debug!(event = "errorHandlingMessage", room, meeting_id, connection_id = %user, why);
        }
        RoomEvent::UnknownRecipient { user, r#type } => {
            debug!(event = "unknownRecipient", room, meeting_id, connection_id = %user, r#type);
        }
        RoomEvent::ClientNegotiationRecord { user, entry } => debug!(
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
