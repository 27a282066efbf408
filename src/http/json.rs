//! Sentences about JSON that is not what was asked for.

use serde_json::error::Category;

/// The defect of a body, in quotes as they are in JSON, and without the place in a text that nobody sees.
pub fn defect(error: &serde_json::Error) -> String {
    match error.classify() {
        Category::Data => {
            let text = error.to_string();
            let end = text.rfind(" at line ").unwrap_or(text.len());
            text.get(..end).unwrap_or(&text).replace('`', "\"")
        }
        Category::Io | Category::Syntax | Category::Eof => "it is not JSON".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {
        #[expect(dead_code, reason = "it is only parsed")]
        room: String,
    }

    #[test]
    fn defect_names_the_field() {
        for (body, sentence) in [
            (r#"{"rom":"r"}"#, r#"unknown field "rom", expected "room""#),
            ("{}", r#"missing field "room""#),
            (r#"{"room":7}"#, "invalid type: integer \"7\", expected a string"),
            ("{", "it is not JSON"),
            ("", "it is not JSON"),
        ] {
            assert_eq!(defect(&serde_json::from_str::<Body>(body).unwrap_err()), sentence);
        }
    }
}
