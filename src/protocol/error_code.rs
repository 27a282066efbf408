//! Codes of errors on a socket, from which clients make a sentence in their user's language.

/// The sentences that the controls of a page lead to, and their codes.
const CODES: [(&str, &str); 23] = [
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
    ("this server does not let members share videos", "no_videos_here"),
    ("this server lets members share videos of YouTube alone", "youtube_only"),
    ("this server does not let members share videos of YouTube", "no_youtube"),
    ("this server does not let members share videos of that host", "host_not_allowed"),
    (
        "watch needs a field \"url\" that is an https:// address of at most 2048 bytes, without a user's name",
        "no_video_address",
    ),
    (
        "watch needs a field \"url\" that is the address of one video, which this page of YouTube is not",
        "no_video_of_youtube",
    ),
    ("the AI cannot hear you at this time", "ai_cannot_hear"),
    ("the AI is already on its way", "ai_on_its_way"),
    ("the AI is already here", "ai_here"),
    ("the AI was called too often; try again in a minute", "ai_too_often"),
    ("the AI is not in this room", "ai_not_here"),
    ("somebody else's request to the AI is under way", "ai_asked_by_others"),
];

/// Returns the code of an error; none for those that only the author of a client can cause.
pub fn error_code(sentence: &str) -> Option<&'static str> {
    CODES.iter().find(|(known, _)| *known == sentence).map(|(_, code)| *code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_a_text_for_every_code() {
        let texts = include_str!("../../static/texts/en.json");
        for (_, code) in CODES {
            assert!(texts.contains(&format!(r#""refusal.{code}":"#)), "{code}");
        }
    }
}
