//! **Pure**: matches a path to the client's routes, by the rules of its router.
//!
//! Server and client must agree, or the client gets the data of other routes. Source: React Router 6, `matchRoutes`.

use std::collections::BTreeMap;

/// A route of the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The id, such as `routes/_index`.
    pub id: String,
    /// The parent route, which contains it.
    pub parent: Option<String>,
    /// The path relative to the parent; `None` for a layout and for most indexes.
    pub path: Option<String>,
    /// The position in its parent.
    pub place: RoutePosition,
}

/// A route's position in its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoutePosition {
    /// At the parent's own path.
    Index,
    /// Below the parent's path.
    Child,
}

/// All routes of a client.
#[derive(Clone, Debug)]
pub struct Routes {
    /// Branches by descending score.
    branches: Vec<Branch>,
}

/// The chain from the root to a route with a path.
#[derive(Clone, Debug)]
struct Branch {
    segments: Vec<String>,
    score: i32,
    ids: Vec<String>,
}

/// Orange's own routes: id, parent, path, position. An index without a path is at its parent's path.
#[rustfmt::skip]
const ORANGE: [(&str, Option<&str>, Option<&str>, RoutePosition); 13] = [
    ("root", None, Some(""), RoutePosition::Child),
    ("routes/[site.webmanifest]", Some("root"), Some("site.webmanifest"), RoutePosition::Child),
    ("routes/_index", Some("root"), None, RoutePosition::Index),
    ("routes/_room", Some("root"), None, RoutePosition::Child),
    ("routes/_room.$roomName._index", Some("routes/_room"), Some(":roomName"), RoutePosition::Index),
    ("routes/_room.$roomName.room", Some("routes/_room"), Some(":roomName/room"), RoutePosition::Child),
    ("routes/api.bugReport", Some("root"), Some("api/bugReport"), RoutePosition::Child),
    ("routes/api.deadTrack", Some("root"), Some("api/deadTrack"), RoutePosition::Child),
    ("routes/api.debugInfo", Some("root"), Some("api/debugInfo"), RoutePosition::Child),
    ("routes/api.reportRefresh", Some("root"), Some("api/reportRefresh"), RoutePosition::Child),
    ("routes/call-quality-feedback", Some("root"), Some("call-quality-feedback"), RoutePosition::Child),
    ("routes/new", Some("root"), Some("new"), RoutePosition::Child),
    ("routes/set-username", Some("root"), Some("set-username"), RoutePosition::Child),
];

impl Routes {
    /// Builds the branches from routes linked by their parents.
    pub fn new(routes: impl IntoIterator<Item = Route>) -> Self {
        let routes: BTreeMap<_, _> = routes.into_iter().map(|route| (route.id.clone(), route)).collect();
        // A route without a path is no page, unless it is an index.
        let has_path = |route: &&Route| route.path.is_some() || route.place == RoutePosition::Index;
        let mut branches: Vec<_> =
            routes.values().filter(has_path).map(|route| Branch::to(route, &routes)).collect();
        branches.sort_by_key(|branch| std::cmp::Reverse(branch.score));
        Self { branches }
    }

    /// Returns the routes of Orange's own client, for clients that request its data without its build.
    pub fn orange() -> Self {
        Self::new(ORANGE.map(|(id, parent, path, place)| Route {
            id: id.to_owned(),
            parent: parent.map(str::to_owned),
            path: path.map(str::to_owned),
            place,
        }))
    }

    /// Returns the ids of the routes of a path, the root first; `None` if none matches.
    ///
    /// The path is percent-encoded, as sent.
    pub fn find(&self, path: &str) -> Option<&[String]> {
        let path = path.strip_prefix('/')?.trim_end_matches('/');
        let asked: Vec<&str> = if path.is_empty() { Vec::new() } else { path.split('/').collect() };
        let found = self.branches.iter().find(|branch| branch.leads_to(&asked))?;
        Some(&found.ids)
    }
}

impl Branch {
    fn to(route: &Route, routes: &BTreeMap<String, Route>) -> Self {
        let (mut ids, mut segments) = (Vec::new(), Vec::new());
        let mut at = Some(route);
        // The bound ends the loop if a route is its own ancestor.
        while let Some(route) = at.filter(|_| ids.len() <= routes.len()) {
            ids.push(route.id.clone());
            let own = route.path.as_deref().unwrap_or_default();
            segments.splice(0..0, own.split('/').filter(|part| !part.is_empty()).map(str::to_owned));
            at = route.parent.as_ref().and_then(|parent| routes.get(parent));
        }
        ids.reverse();
        let score = score(&segments, route.place);
        Self { segments, score, ids }
    }

    fn leads_to(&self, asked: &[&str]) -> bool {
        let mut asked = asked.iter();
        for segment in &self.segments {
            if segment == "*" {
                return true;
            }
            match asked.next() {
                Some(part) if segment.starts_with(':') && !part.is_empty() => {}
                Some(part) if is_same(segment, part) => {}
                _ => return false,
            }
        }
        asked.next().is_none()
    }
}

/// Compares decoded text case-insensitively, as the router does.
fn is_same(segment: &str, part: &str) -> bool {
    let part = percent_encoding::percent_decode_str(part).decode_utf8();
    part.is_ok_and(|part| part.to_lowercase() == segment.to_lowercase())
}

/// Computes the router's score: static segments rank before dynamic ones, and those before a splat.
fn score(segments: &[String], place: RoutePosition) -> i32 {
    let points = |segment: &String| match segment.as_str() {
        "*" => -2 + 1,
        segment if segment.starts_with(':') => 3 + 1,
        _ => 10 + 1,
    };
    let index = if place == RoutePosition::Index { 2 } else { 0 };
    segments.iter().map(points).sum::<i32>() + index
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf<'a>(routes: &'a Routes, path: &str) -> &'a str {
        routes.find(path).and_then(<[String]>::last).map_or("nothing", String::as_str)
    }

    #[test]
    fn orange_paths_match_as_in_its_router() {
        let routes = Routes::orange();
        for (path, id) in [
            ("/", "routes/_index"),
            ("/a", "routes/_room.$roomName._index"),
            ("/a/", "routes/_room.$roomName._index"),
            ("/a%2Fb", "routes/_room.$roomName._index"),
            ("/%F0%9F%8D%8A", "routes/_room.$roomName._index"),
            ("/a/room", "routes/_room.$roomName.room"),
            ("/a/ROOM/", "routes/_room.$roomName.room"),
            ("/room/room", "routes/_room.$roomName.room"),
            ("/new", "routes/new"),
            ("/n%65w", "routes/new"),
            ("/Set-Username", "routes/set-username"),
            ("/set-username/room", "routes/_room.$roomName.room"),
            ("/api/bugReport", "routes/api.bugReport"),
            ("/site.webmanifest", "routes/[site.webmanifest]"),
            ("/a/b", "nothing"),
            ("/a/room/b", "nothing"),
            ("//a", "nothing"),
            ("//room", "nothing"),
            ("a", "nothing"),
        ] {
            assert_eq!(leaf(&routes, path), id, "{path}");
        }
        let ids = routes.find("/a/room").unwrap();
        assert_eq!(ids, ["root", "routes/_room", "routes/_room.$roomName.room"]);
    }

    #[test]
    fn splat_matches_the_remaining_paths() {
        let route = |id: &str, path: &str| Route {
            id: id.to_owned(),
            parent: None,
            path: Some(path.to_owned()),
            place: RoutePosition::Child,
        };
        let routes = Routes::new([route("all", "*"), route("one", ":a"), route("p", "p/:b/*")]);
        for (path, id) in [("/x", "one"), ("/x/y", "all"), ("/p/y", "p"), ("/p/y/z/1", "p"), ("/", "all")] {
            assert_eq!(leaf(&routes, path), id, "{path}");
        }
    }

    #[test]
    fn circular_parents_terminate() {
        let route = |id: &str, parent: &str| Route {
            id: id.to_owned(),
            parent: Some(parent.to_owned()),
            path: Some("a".to_owned()),
            place: RoutePosition::Child,
        };
        Routes::new([route("a", "b"), route("b", "a")]);
    }
}
