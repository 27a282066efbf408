//! Names of users and rooms, which people compare by eye.
//!
//! Names that look the same must be equal, and no name may change the display of the text beside it. Invisible
//! characters are refused or removed, except those that scripts and emoji need, in places with an effect.

use std::borrow::Cow;

use icu_normalizer::ComposingNormalizerBorrowed;
use icu_properties::props::{
    CanonicalCombiningClass, DefaultIgnorableCodePoint, Emoji, ExtendedPictographic, Ideographic, JoiningType,
};
use icu_properties::{CodePointMapData, CodePointSetData};

/// Maximum length in bytes of a name with all its characters decomposed. Longer ones are refused for their
/// length without being normalized, which takes quadratic time in the worst case.
const LONGEST_BYTES: usize = 4096;

/// U+200C, which separates letters that would be joined, as in Persian.
const NON_JOINER: char = '\u{200c}';

/// U+200D, which joins letters, as in Indic scripts, and emoji.
const JOINER: char = '\u{200d}';

/// The flags of England, Scotland and Wales: the only emoji written with tags.
const TAGGED_FLAGS: [&str; 3] = [
    "🏴\u{e0067}\u{e0062}\u{e0065}\u{e006e}\u{e0067}\u{e007f}",
    "🏴\u{e0067}\u{e0062}\u{e0073}\u{e0063}\u{e0074}\u{e007f}",
    "🏴\u{e0067}\u{e0062}\u{e0077}\u{e006c}\u{e0073}\u{e007f}",
];

/// Converts `text` to Unicode's Normalization Form C (UAX #15).
pub fn nfc(text: &str) -> Cow<'_, str> {
    ComposingNormalizerBorrowed::new_nfc().normalize(text)
}

/// Normalizes a name: composed, without joiners and variation selectors that have no effect, which keyboards
/// leave behind.
pub fn composed(text: &str) -> Cow<'_, str> {
    if text.len() > LONGEST_BYTES {
        return Cow::Borrowed(text);
    }
    let mut text = nfc(text);
    // Characters that a modifier separated may compose once it is removed. Each round but the last makes the
    // text shorter.
    while let Some(shorter) = without_idle_modifiers(&text) {
        text = Cow::Owned(nfc(&shorter).into_owned());
    }
    text
}

/// [Normalizes](composed) a name and removes all hidden characters, for names of other systems: their owners
/// could not correct them.
pub fn visible(text: &str) -> Cow<'_, str> {
    let mut text = composed(text);
    while has_hidden(&text) {
        let mut seen = String::with_capacity(text.len());
        let mut rest = &*text;
        while let Some((part, is_hidden)) = next_part(rest) {
            if !is_hidden {
                seen.push_str(part);
            }
            rest = &rest[part.len()..];
        }
        text = Cow::Owned(composed(&seen).into_owned());
    }
    text
}

/// Maximum characters of a person's name.
pub const MAX_NAME_CHARS: usize = 64;

/// True if `text` has 1 to `max_chars` characters, at least one of them visible, and no control or hidden characters.
pub fn text_is_valid(text: &str, max_chars: usize) -> bool {
    // The bytes are checked first: a text of a megabyte is refused without being scanned.
    !text.is_empty()
        && text.len() <= max_chars * 4
        && text.chars().count() <= max_chars
        && !text.chars().any(char::is_control)
        && !has_hidden(text)
        && !text.chars().all(|char| char.is_whitespace() || is_modifier(char))
}

/// True if `text` has an invisible character, or one that changes the direction of the following text. With
/// these a name can look like another or like none, or reverse the text beside it.
fn has_hidden(text: &str) -> bool {
    if text.is_ascii() {
        return false;
    }
    let mut rest = text;
    while let Some((part, is_hidden)) = next_part(rest) {
        if is_hidden {
            return true;
        }
        rest = &rest[part.len()..];
    }
    false
}

/// Returns the first character of `text`, or the flag at its start, and true if it is hidden.
fn next_part(text: &str) -> Option<(&str, bool)> {
    if let Some(flag) = TAGGED_FLAGS.into_iter().find(|flag| text.starts_with(flag)) {
        return Some((flag, false));
    }
    let char = text.chars().next()?;
    Some((&text[..char.len_utf8()], is_hidden(char)))
}

fn is_hidden(char: char) -> bool {
    let is_ignorable = CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(char);
    // Unicode does not classify the line separators, the blank Braille pattern and interlinear annotations
    // as ignorable.
    (is_ignorable && !is_modifier(char))
        || matches!(char, '\u{2028}' | '\u{2029}' | '\u{2800}' | '\u{fff9}'..='\u{fffb}')
}

/// True for an invisible character that changes the look of its neighbours.
fn is_modifier(char: char) -> bool {
    matches!(char, NON_JOINER | JOINER | '\u{180b}'..='\u{180d}' | '\u{180f}' | '\u{fe00}'..='\u{fe0f}' | '\u{e0100}'..='\u{e01ef}')
}

/// Removes the modifiers without effect; `None` if there are none.
fn without_idle_modifiers(text: &str) -> Option<String> {
    if !text.chars().any(is_modifier) {
        return None;
    }
    let mut kept = String::with_capacity(text.len());
    for (at, char) in text.char_indices() {
        if !is_modifier(char) || does_something(&kept, char, &text[at + char.len_utf8()..]) {
            kept.push(char);
        }
    }
    (kept.len() < text.len()).then_some(kept)
}

/// True if a modifier has an effect between `before` and `after`.
///
/// Joiners: RFC 5892 appendix A, and between emoji (UTS #51). A selector chooses a form of the preceding character.
fn does_something(before: &str, modifier: char, after: &str) -> bool {
    let (previous, next) = (before.chars().next_back(), after.chars().next());
    let Some(previous) = previous else { return false };
    match modifier {
        NON_JOINER => is_virama(previous) || (is_joined(before) && joins_back(after)),
        JOINER => {
            is_virama(previous)
                || (previous.is_alphabetic() && next.is_some_and(is_virama))
                || (ends_emoji(previous) && next.is_some_and(is_pictograph))
                || (is_joined(before) && !joins_back(after))
        }
        // Keycaps, such as 1️⃣: a digit alone looks the same with a selector.
        '\u{fe0e}' | '\u{fe0f}' if previous.is_ascii() => {
            next == Some('\u{20e3}') && CodePointSetData::new::<Emoji>().contains(previous)
        }
        '\u{fe0e}' | '\u{fe0f}' => CodePointSetData::new::<Emoji>().contains(previous),
        '\u{fe00}'..='\u{fe02}' | '\u{e0100}'..='\u{e01ef}' => {
            CodePointSetData::new::<Ideographic>().contains(previous)
        }
        '\u{180b}'..='\u{180f}' => ('\u{1820}'..='\u{18aa}').contains(&previous),
        _ => false,
    }
}

fn is_virama(char: char) -> bool {
    CodePointMapData::<CanonicalCombiningClass>::new().get(char) == CanonicalCombiningClass::Virama
}

fn is_pictograph(char: char) -> bool {
    CodePointSetData::new::<ExtendedPictographic>().contains(char)
}

/// True if an emoji may end with `char`: itself, a skin tone, or the selector of its coloured form.
fn ends_emoji(char: char) -> bool {
    is_pictograph(char) || matches!(char, '\u{1f3fb}'..='\u{1f3ff}' | '\u{fe0f}')
}

/// True if the last letter of `text` joins the one that follows.
fn is_joined(text: &str) -> bool {
    let last = text.chars().rev().map(joining_type).find(|joining| *joining != JoiningType::Transparent);
    matches!(last, Some(JoiningType::LeftJoining | JoiningType::DualJoining))
}

/// True if the first letter of `text` joins the one before it.
fn joins_back(text: &str) -> bool {
    let first = text.chars().map(joining_type).find(|joining| *joining != JoiningType::Transparent);
    matches!(first, Some(JoiningType::RightJoining | JoiningType::DualJoining))
}

fn joining_type(char: char) -> JoiningType {
    CodePointMapData::<JoiningType>::new().get(char)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Arbitrary text with frequent special characters.
    fn texts() -> impl Strategy<Value = String> {
        let notable = "aé1#ب\u{627}ی\u{301}\u{94d}र👩🚀❤🏻葛\u{200b}\u{200c}\u{200d}\u{202e}\u{fe0f}\u{e0100}\u{e0067}\u{20e3} ";
        let notable: Vec<_> = notable.chars().collect();
        prop::collection::vec(prop_oneof![prop::sample::select(notable), any::<char>()], 0..12)
            .prop_map(String::from_iter)
    }

    #[test]
    fn names_of_all_scripts_are_unchanged() {
        for name in [
            "Ada Lovelace",
            "O'Neil (Q&A) #1",
            "می\u{200c}خواهم",
            "ه\u{200d}",
            "र\u{94d}\u{200d}क",
            "র\u{200d}\u{9cd}যাব",
            "ශ\u{dca}\u{200d}රී ලංකා",
            "👩\u{200d}🚀",
            "👩🏽\u{200d}🚀",
            "👩\u{200d}❤\u{fe0f}\u{200d}💋\u{200d}👨",
            "🏳\u{fe0f}\u{200d}🌈",
            "1\u{fe0f}\u{20e3}",
            TAGGED_FLAGS[1],
            "葛\u{e0100}城",
            "ᠠ\u{180b}",
            "שלום",
        ] {
            assert_eq!(composed(name), name, "{name:?}");
            assert_eq!(visible(name), name, "{name:?}");
            assert!(text_is_valid(name, 64), "{name:?}");
        }
    }

    #[test]
    fn modifiers_without_effect_are_removed() {
        for (typed, name) in [
            ("cafe\u{301}", "café"),
            ("ad\u{200d}min", "admin"),
            ("ad\u{200c}min", "admin"),
            ("Ann\u{fe0f}", "Ann"),
            ("1\u{fe0f}", "1"),
            ("e\u{200c}\u{301}", "é"),
            ("سر\u{200c}انجام", "سرانجام"),
            ("👩\u{200d}", "👩"),
            ("葛\u{e0100}\u{e0101}", "葛\u{e0100}"),
            ("a\u{e0100}", "a"),
            ("\u{200d}🚀", "🚀"),
        ] {
            assert_eq!(composed(typed), name, "{typed:?}");
        }
    }

    #[test]
    fn hidden_characters_are_refused_and_can_be_removed() {
        let all = [
            '\u{ad}',
            '\u{34f}',
            '\u{61c}',
            '\u{115f}',
            '\u{17b4}',
            '\u{180e}',
            '\u{200b}',
            '\u{200e}',
            '\u{200f}',
            '\u{2028}',
            '\u{2029}',
            '\u{202a}',
            '\u{202e}',
            '\u{2060}',
            '\u{2066}',
            '\u{2069}',
            '\u{206f}',
            '\u{2800}',
            '\u{3164}',
            '\u{feff}',
            '\u{ffa0}',
            '\u{fff9}',
            '\u{1d173}',
            '\u{e0001}',
            '\u{e0041}',
            '\u{e007f}',
        ];
        for char in all {
            let name = format!("a{char}b");
            assert!(!text_is_valid(&composed(&name), 64), "{char:?}");
            assert_eq!(visible(&name), "ab", "{char:?}");
        }
        assert!(!text_is_valid("🏴\u{e0067}\u{e0062}\u{e007f}", 64), "no flag");
    }

    #[test]
    fn overlong_text_is_not_normalized() {
        let long = "\u{200d}".repeat(LONGEST_BYTES / 3 + 1);
        assert_eq!(composed(&long), long);
        assert!(!text_is_valid(&long, 254));
        assert_eq!(composed(&long[3..]), "");
    }

    #[test]
    fn name_without_visible_characters_is_refused() {
        for name in ["", " ", "\u{a0}\u{3000}", "\u{200d}", "\u{fe0f}"] {
            assert!(!text_is_valid(name, 64), "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn normalization_is_idempotent(text in texts()) {
            let once = composed(&text).into_owned();
            prop_assert_eq!(&composed(&once), &once);
            prop_assert_eq!(&nfc(&once), &once);
        }

        #[test]
        fn visible_names_are_valid(text in texts()) {
            let name = visible(&text).into_owned();
            prop_assert!(!has_hidden(&name));
            prop_assert_eq!(&visible(&name), &name);
        }
    }
}
