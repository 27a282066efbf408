//! Codes of errors on a socket, from which clients make a sentence in their user's language.

/// The sentences that the controls of a page lead to, and their codes.
const CODES: [(&str, &str); 11] = [
    ("you may not write to the chat", "no_chat"),
    ("only moderators write to the chat at this time", "chat_off"),
    ("you may not mute others", "no_mute"),
    ("you may not moderate this room", "no_moderator"),
    ("the assistant is answering somebody; ask again when it is done", "assistant_busy"),
    (
        "the assistant has no answers left for now; the limit is a number of answers a day",
        "assistant_exhausted",
    ),
    ("only who asked and moderators may stop the assistant", "assistant_of_others"),
    ("you may not share videos", "no_videos"),
    ("only moderators share and control videos at this time", "videos_off"),
    ("you change the video too often; wait a moment", "videos_too_often"),
    ("no video is shared in this room", "no_video"),
];

/// Returns the code of an error; none for those that only the author of a client can cause.
pub fn error_code(sentence: &str) -> Option<&'static str> {
    CODES.iter().find(|(known, _)| *known == sentence).map(|(_, code)| *code)
}
