//! Room names that the server's own addresses reserve.

/// A feature that reserves the first segment of a path, so that no new room gets that name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReservedFor {
    /// One of this server's pages, forms or health endpoints.
    Page,
    /// WebSockets, durable objects and the media API: a room of that name would have no address for its page.
    Sockets,
    /// This server's own files and reports; room pages below it have other names.
    Files,
    /// The operators' listener, which a proxy may expose at the same host.
    Operators,
}

/// Reserved names in lower case: the first segment of every route of both listeners. A test checks that none
/// is missing.
#[rustfmt::skip]
pub const RESERVED: [(&str, ReservedFor); 15] = [
    ("admin", ReservedFor::Operators),
    ("api", ReservedFor::Files),
    ("apps", ReservedFor::Files),
    ("call-quality-feedback", ReservedFor::Page),
    ("durable", ReservedFor::Sockets),
    ("healthz", ReservedFor::Page),
    ("metrics", ReservedFor::Operators),
    ("new", ReservedFor::Page),
    ("parties", ReservedFor::Sockets),
    ("partytracks", ReservedFor::Sockets),
    ("readyz", ReservedFor::Page),
    ("set-username", ReservedFor::Page),
    ("site.webmanifest", ReservedFor::Page),
    ("static", ReservedFor::Files),
    ("v1", ReservedFor::Files),
];

/// Returns the reserved name that `name` spells, and its feature.
///
/// Ignores case, as the stock client's router does.
pub fn reserved(name: &str) -> Option<(&'static str, ReservedFor)> {
    let name = name.to_lowercase();
    RESERVED.into_iter().find(|(known, _)| *known == name)
}
