//! Properties of parsers that a fuzzer checks. Not part of the interface.

use crate::description::{Description, Terms, first_formats, for_client};
use crate::request::DescriptionType;

/// Parses a client's description. An answer to it keeps its m-lines.
pub fn description(r#type: DescriptionType, text: &str) -> Option<Description> {
    first_formats(text);
    let read = Description::parse(r#type, text).ok()?;
    let told = for_client(r#type, text, &read.sections, &[], &Terms::default());
    let sections = told.sdp.lines().filter(|line| line.starts_with("m=")).count();
    assert!(sections >= read.sections.len(), "{}", told.sdp);
    Some(read)
}
