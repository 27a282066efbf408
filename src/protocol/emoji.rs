//! An emoji: one picture, as keyboards offer them, and not any text.

use std::fmt;

use icu_properties::CodePointSetData;
use icu_properties::props::{EmojiModifier, ExtendedPictographic, RegionalIndicator};
use serde::{Deserialize, Serialize};

/// Maximum size in bytes; the longest emoji of Unicode have half of that.
const MAX_BYTES: usize = 64;

const JOINER: char = '\u{200d}';
const PICTURE_SELECTOR: char = '\u{fe0f}';
const KEYCAP: char = '\u{20e3}';
const LAST_TAG: char = '\u{e007f}';

/// One emoji.
///
/// Its form is the definition "possible emoji" of Unicode (UTS #51, ED-15a), without what is no picture by itself,
/// such as a digit: each is one grapheme cluster. Emoji that are newer than the server's tables are among them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Emoji(Box<str>);

/// The text is not one emoji.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not one emoji of at most {MAX_BYTES} bytes")]
pub struct NoEmoji;

impl Emoji {
    /// Parses a text.
    ///
    /// # Errors
    /// [`NoEmoji`].
    pub fn parse(text: &str) -> Result<Self, NoEmoji> {
        let is_emoji = text.len() <= MAX_BYTES && is_emoji(text);
        is_emoji.then(|| Self(text.into())).ok_or(NoEmoji)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Emoji {
    type Error = NoEmoji;

    fn try_from(text: String) -> Result<Self, NoEmoji> {
        Self::parse(&text)
    }
}

impl fmt::Display for Emoji {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

fn is_emoji(text: &str) -> bool {
    let flags = CodePointSetData::new::<RegionalIndicator>();
    let letters: Vec<char> = text.chars().collect();
    match letters[..] {
        ['0'..='9' | '#' | '*', KEYCAP] | ['0'..='9' | '#' | '*', PICTURE_SELECTOR, KEYCAP] => true,
        [first, second] if flags.contains(first) => flags.contains(second),
        _ => letters.split(|letter| *letter == JOINER).all(is_picture),
    }
}

/// True for a picture, which may have one colour of skin, a selector, or the tags of a region's flag.
fn is_picture(letters: &[char]) -> bool {
    let Some((first, rest)) = letters.split_first() else { return false };
    let is_modified = match rest {
        [] | [PICTURE_SELECTOR] => true,
        [modifier] => CodePointSetData::new::<EmojiModifier>().contains(*modifier),
        [tags @ .., LAST_TAG] => tags.iter().all(|tag| ('\u{e0020}'..='\u{e007e}').contains(tag)),
        _ => false,
    };
    CodePointSetData::new::<ExtendedPictographic>().contains(*first) && is_modified
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn emoji_are_told_from_other_texts() {
        for emoji in [
            "👍",
            "👍🏽",
            "❤️",
            "❤",
            "🎉",
            "🇩🇪",
            "3️⃣",
            "#⃣",
            "👩‍👩‍👧‍👦",
            "👩🏽‍❤️‍💋‍👩🏿",
            "🏳️‍🌈",
            "🏴󠁧󠁢󠁥󠁮󠁧󠁿",
            "🏴‍☠️",
            "🧑‍🚀",
            "🫨",
            "☺️",
            "✌🏿",
        ] {
            assert_eq!(Emoji::parse(emoji).map(|emoji| emoji.to_string()).as_deref(), Ok(emoji));
        }
        let long = "👩‍".repeat(20) + "👩";
        for text in [
            "",
            " ",
            "a",
            "7",
            "👍👍",
            "👍 ",
            " 👍",
            "🇩",
            "🇩🇪🇫🇷",
            "🏽",
            "\u{200d}",
            "👍\u{200d}",
            "\u{200d}👍",
            "👍\u{fe0f}\u{fe0f}",
            "👍\u{301}\u{301}",
            "👍\u{202e}",
            "<b>",
            "👍\u{e0020}",
            "é",
            "漢",
            "3\u{fe0f}",
            "\u{fe0f}",
            "👍\u{200d}a",
            &long,
        ] {
            assert_eq!(Emoji::parse(text), Err(NoEmoji), "{text:?}");
        }
        assert!(
            serde_json::from_str::<Emoji>(r#""👍""#).is_ok()
                && serde_json::from_str::<Emoji>(r#""x""#).is_err()
        );
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in ".{0,8}") {
            if let Ok(emoji) = Emoji::parse(&text) {
                prop_assert!(emoji.as_str().len() <= MAX_BYTES && !text.contains(['<', '&', ' ', '"']));
            }
        }
    }
}
