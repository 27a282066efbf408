//! Frames of Phoenix Channels, text and binary, of both versions.

use satsuma::protocol::client::{ClientMessage, MessageLimits};
use satsuma::protocol::phoenix::{
    ClientFrame, FramePayload, Version, channel_closed, channel_failed, envelope, reply_reason,
};
use satsuma::protocol::server::MessageKind;

/// The server's frames about a client's frame are frames with the same references and topic.
pub fn phoenix(data: &[u8]) {
    let Some((first, data)) = data.split_first() else { return };
    let version = if first & 1 == 0 { Version::V2 } else { Version::V1 };
    let frame = match str::from_utf8(data) {
        Ok(text) if first & 2 == 0 => ClientFrame::parse(version, text),
        _ => ClientFrame::parse_binary(version, data),
    };
    let Ok(frame) = frame else { return };
    if let FramePayload::Json(payload) = frame.payload {
        let _ = ClientMessage::parse_payload(&frame.event, payload.get(), MessageLimits::default());
    }
    let (join_ref, message_ref) = (frame.join_ref.as_ref(), frame.message_ref.as_ref());
    let around = envelope(version, join_ref, &frame.topic, MessageKind::PresenceState);
    for (text, other) in [
        (reply_reason(version, join_ref, message_ref, &frame.topic, Err(&frame.event)), message_ref),
        (channel_closed(version, join_ref, &frame.topic), join_ref),
        (channel_failed(version, join_ref, &frame.topic), join_ref),
        (around.head + "{}" + around.tail, None),
    ] {
        let again = ClientFrame::parse(version, &text).expect("a frame");
        assert_eq!((again.message_ref.as_ref(), &again.topic), (other, &frame.topic), "{text}");
        if version == Version::V2 {
            assert_eq!(again.join_ref.as_ref(), join_ref, "{text}");
        }
    }
}
