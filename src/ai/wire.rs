//! The AI's requests: the model's URL, and the bodies for its track.
//!
//! Source: protocol section 6.

use serde_json::Value;
use url::Url;

use crate::protocol::ai::{AiWish, TrackReference};

/// Name of the AI's bidirectional track.
pub(super) const TRACK_NAME: &str = "ai-generated-voice";

/// Body that publishes the AI's track; the API makes the offer, since there is no browser.
pub(super) const NEW_TRACK: &str = r#"{"tracks":[{"location":"local","trackName":"ai-generated-voice","bidirectionalMediaStream":true,"kind":"audio"}]}"#;

/// Builds the model's URL with the requested voice and instructions.
pub(super) fn model_url(endpoint: &Url, model: &str, wish: &AiWish) -> Url {
    let mut url = endpoint.clone();
    let wishes = [("voice", &wish.voice), ("instructions", &wish.instructions)];
    let wishes = wishes.into_iter().filter_map(|(name, text)| Some((name, text.as_deref()?)));
    url.query_pairs_mut().extend_pairs(wishes.chain([("model", model)]));
    url
}

/// Builds the body that subscribes the AI to a track.
pub(super) fn hear_body(track: &TrackReference) -> String {
    let TrackReference { session, track_name } = track;
    let track_name = Value::from(&**track_name);
    format!(
        r##"{{"tracks":[{{"location":"remote","sessionId":"{session}","trackName":{track_name},"mid":"#ai-generated-voice"}}]}}"##
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::SessionId;

    #[test]
    fn url_and_bodies_match_exactly() {
        let endpoint = Url::parse("https://model.test/v1/realtime?key=1").unwrap();
        let wish = AiWish { voice: Some("alloy".into()), instructions: Some("Be brief & kind.".into()) };
        assert_eq!(
            model_url(&endpoint, "gpt", &wish).as_str(),
            "https://model.test/v1/realtime?key=1&voice=alloy&instructions=Be+brief+%26+kind.&model=gpt"
        );
        let endpoint = Url::parse("https://model.test/v1").unwrap();
        assert_eq!(
            model_url(&endpoint, "gpt", &AiWish::default()).as_str(),
            "https://model.test/v1?model=gpt"
        );

        let track = TrackReference { session: SessionId::parse("s").unwrap(), track_name: "a\"b".into() };
        assert_eq!(
            hear_body(&track),
            r##"{"tracks":[{"location":"remote","sessionId":"s","trackName":"a\"b","mid":"#ai-generated-voice"}]}"##
        );
    }
}
