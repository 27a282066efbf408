//! Additional sources in the content security policy of the stock client's pages.

use super::value::Text;

/// A directive and its additional sources: `connect-src https://a.example`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicySources {
    /// Name of the directive.
    pub directive: String,
    /// Sources, at least one.
    pub sources: Vec<String>,
}

impl Text for PolicySources {
    const NOUN: &str = "a directive of a content security policy and its sources";
    const EXAMPLE: &str = "\"connect-src https://sentry.example\"";

    fn read(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace().map(str::to_owned);
        let directive = words.next()?;
        let sources: Vec<_> = words.collect();
        let is_name = directive.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
        // A character that ends a directive or a header would start another one.
        let is_source = |source: &String| source.bytes().all(|b| b.is_ascii_graphic() && !b";,".contains(&b));
        (is_name && !sources.is_empty() && sources.iter().all(is_source))
            .then_some(Self { directive, sources })
    }

    fn write(&self) -> String {
        format!("{} {}", self.directive, self.sources.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_cannot_end_their_directive() {
        let read: PolicySources = " connect-src  https://a.example wss: ".parse().unwrap();
        assert_eq!(read.write(), "connect-src https://a.example wss:");
        for text in
            ["", "connect-src", "Connect-Src a", "a b;c", "a b, c", "a b\u{e9}", "https://a.example b"]
        {
            assert!(text.parse::<PolicySources>().is_err(), "{text}");
        }
    }
}
