//! SHELL: streams of events (server-sent events, as in the HTML standard, section 9.2).
//!
//! A stream is a reader of the log: it reads on when its client has taken what was there, so a slow client costs no
//! memory, and is told how much it missed if the log is shorter than its delay.

use std::convert::Infallible;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use tokio::time::{Instant, timeout_at};

use super::envelope::{Envelope, EventData};
use super::filter::EventFilter;
use super::log::{Cursor, EventLog, LogPage, LogStart};
use crate::clock::{now, wall_clock};
use crate::config::EventsConfig;
use crate::http::error::ApiError;
use crate::id::{EventId, IdentityId, NodeId};
use crate::limit::{ConcurrencyLimit, ConcurrencyPermit, KeyedLimit, Permit};
use crate::metrics::{Counted, Metrics};
use crate::nodes::events::EventNodes;

/// The id before the first event of an empty log.
const BEGINNING: &str = "start";

/// Time after which a client connects again, in milliseconds.
const RECONNECT: u32 = 3000;

/// The sign between an event's id and its node.
const AT: char = '@';

const TOO_MANY: ApiError = ApiError::refused(
    StatusCode::TOO_MANY_REQUESTS,
    "too_many_streams",
    "there are too many streams; see events.streams and events.streams_per_identity",
);

/// All streams; a cheap clone.
#[derive(Clone)]
pub struct EventStreams {
    log: EventLog,
    /// The other nodes, if there are any.
    nodes: Option<Arc<dyn EventNodes>>,
    all: ConcurrencyLimit,
    of_identity: KeyedLimit<IdentityId>,
    heartbeat: Duration,
    metrics: Arc<Metrics>,
}

/// An open stream.
struct Open<A> {
    cursor: Cursor,
    /// This node, if there are several.
    node: Option<NodeId>,
    filter: EventFilter,
    heartbeat: Duration,
    next_heartbeat: Instant,
    access: A,
    /// The first lines.
    greeting: Option<String>,
    _counted: Counted,
    _permits: (ConcurrencyPermit, Option<Permit<IdentityId>>),
}

/// The right to read a stream, which may end while it is open.
pub trait StreamAccess: Send + 'static {
    /// True while it lasts.
    fn lasts(&self) -> impl Future<Output = bool> + Send;
}

impl EventStreams {
    /// The streams of a log.
    pub fn new(
        log: EventLog,
        nodes: Option<Arc<dyn EventNodes>>,
        config: &EventsConfig,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            log,
            nodes,
            all: ConcurrencyLimit::new(config.streams, 0),
            of_identity: KeyedLimit::concurrent(config.streams_per_identity),
            heartbeat: config.heartbeat,
            metrics,
        }
    }

    /// Opens a stream, which resumes after the event that the client names.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn open<A: StreamAccess>(
        &self,
        filter: EventFilter,
        headers: &HeaderMap,
        identity: Option<&IdentityId>,
        access: A,
    ) -> Result<Response, ApiError> {
        let all = self.all.try_acquire(None).map_err(|_| TOO_MANY)?;
        let own = identity.map(|identity| self.of_identity.acquire(identity)).transpose();
        let own = own.map_err(|_| TOO_MANY)?;
        let node = self.nodes.as_ref().map(|nodes| nodes.own());
        let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()).unwrap_or_default();
        let start = match last {
            "" => LogStart::End,
            BEGINNING => LogStart::Beginning,
            id => resume(id, node),
        };
        if let Some(nodes) = self.nodes.as_ref().filter(|_| !self.log.is_wanted()) {
            nodes.want().await;
        }
        let (cursor, end) = self.log.read(start).await.map_err(|_| ApiError::StoreFailing)?;
        // A client that connects again before it got an event resumes from here.
        let mut greeting = format!("retry: {RECONNECT}\n");
        if start == LogStart::End {
            let id = end.map_or_else(|| BEGINNING.to_owned(), |id| line_id(id, node));
            line(&mut greeting, "id", &id);
        }
        greeting.push('\n');
        let open = Open {
            cursor,
            node,
            filter,
            heartbeat: self.heartbeat,
            next_heartbeat: now() + self.heartbeat,
            access,
            greeting: Some(greeting),
            _counted: Counted::new(&self.metrics.event_streams, 1),
            _permits: (all, own),
        };
        let lines = stream::unfold(open, async |mut open| {
            let lines = open.next().await?;
            Some((Ok::<_, Infallible>(Bytes::from(lines)), open))
        });
        let headers = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-store")];
        // nginx would otherwise hold the lines back.
        Ok((headers, [("x-accel-buffering", "no")], Body::from_stream(lines)).into_response())
    }
}

impl<A: StreamAccess> Open<A> {
    /// The next lines; none at the end.
    async fn next(&mut self) -> Option<String> {
        if let Some(greeting) = self.greeting.take() {
            return Some(greeting);
        }
        loop {
            if self.filter.ends && self.cursor.is_at_end() {
                return None;
            }
            match timeout_at(self.next_heartbeat, self.cursor.next()).await {
                Ok(Ok(Some(page))) => {
                    let lines = lines(&page, &self.filter, self.node);
                    if !lines.is_empty() {
                        return Some(lines);
                    }
                }
                // The client connects again, and resumes.
                Ok(Ok(None) | Err(_)) => return None,
                Err(_) => {
                    self.next_heartbeat = now() + self.heartbeat;
                    // A token may have expired, or was revoked.
                    return self.access.lasts().await.then(|| ":\n\n".to_owned());
                }
            }
            // Also for a stream that is never quiet.
            if now() >= self.next_heartbeat {
                self.next_heartbeat = now() + self.heartbeat;
                if !self.access.lasts().await {
                    return None;
                }
            }
        }
    }
}

/// The id of a line, by which a stream resumes: with the node, since the others have the events in another order.
fn line_id(id: EventId, node: Option<NodeId>) -> String {
    node.map_or_else(|| id.to_string(), |node| format!("{id}{AT}{node}"))
}

/// The place from which a stream is to go on after the line of this id.
fn resume(id: &str, own: Option<NodeId>) -> LogStart {
    let (id, node) = id.split_once(AT).map_or((id, None), |(id, node)| (id, Some(node)));
    let is_own = node == own.map(|own| own.to_string()).as_deref();
    match EventId::parse(id) {
        Ok(id) if is_own => LogStart::After(id),
        Ok(id) => LogStart::Near(id),
        Err(_) => LogStart::Unknown,
    }
}

/// The lines of a page.
fn lines(page: &LogPage, filter: &EventFilter, node: Option<NodeId>) -> String {
    let mut lines = String::new();
    if let Some(gap) = page.gap {
        let data = EventData::EventsLost { lost: gap.lost };
        let lost = Envelope { id: EventId::random(), time: wall_clock(), room: None, meeting: None, data };
        line(&mut lines, "data", &lost.encode());
        lines.push('\n');
    }
    let mut is_last_shown = true;
    for event in &page.events {
        is_last_shown = filter.admits(event);
        if is_last_shown {
            line(&mut lines, "id", &line_id(event.id, node));
            line(&mut lines, "data", &event.body);
            lines.push('\n');
        }
    }
    // Otherwise a client that resumes would read again, or miss, what is not for it.
    if let Some(last) = page.events.last().filter(|_| !is_last_shown) {
        line(&mut lines, "id", &line_id(last.id, node));
        lines.push('\n');
    }
    lines
}

/// Adds a field, whose value has no line break: JSON escapes them.
fn line(lines: &mut String, field: &str, value: &str) {
    // Writing to a text cannot fail.
    let _ = writeln!(lines, "{field}: {value}");
}

#[cfg(test)]
mod tests {
    use super::super::log::Gap;
    use super::*;
    use crate::store::events::LoggedEvent;

    #[test]
    fn stream_resumes_exactly_at_its_node_alone() {
        let (event, own) = (EventId::random(), Some(NodeId::new(7)));
        for (id, node, start) in [
            (event.to_string(), None, LogStart::After(event)),
            (event.to_string(), own, LogStart::Near(event)),
            (format!("{event}@00000007"), own, LogStart::After(event)),
            (format!("{event}@00000008"), own, LogStart::Near(event)),
            (format!("{event}@00000007"), None, LogStart::Near(event)),
            ("x@00000007".to_owned(), own, LogStart::Unknown),
        ] {
            assert_eq!(resume(&id, node), start, "{id}");
        }
    }

    #[test]
    fn page_becomes_lines_of_the_standard() {
        let event = |kind: &str| {
            let body = format!(r#"{{"type":"{kind}"}}"#).into();
            Arc::new(LoggedEvent { position: 1, id: EventId::random(), room: None, kind: kind.into(), body })
        };
        let (shown, hidden) = (event("meeting.ended"), event("member.left"));
        let filter = EventFilter::read(&"/x?events=meeting.*".parse().unwrap(), None).unwrap();
        let page = LogPage { gap: None, events: vec![shown.clone(), hidden.clone()] };
        let expected =
            format!("id: {}\ndata: {{\"type\":\"meeting.ended\"}}\n\nid: {}\n\n", shown.id, hidden.id);
        assert_eq!(lines(&page, &filter, None), expected);
        let of_node = lines(&page, &filter, Some(NodeId::new(7)));
        assert!(of_node.starts_with(&format!("id: {}@00000007\ndata: ", shown.id)), "{of_node}");
        let page = LogPage { gap: Some(Gap { lost: Some(7) }), events: vec![shown.clone()] };
        let text = lines(&page, &filter, None);
        let (lost, rest) = text.split_once("\n\n").unwrap();
        assert!(lost.starts_with("data: {") && lost.ends_with(r#""data":{"lost":7}}"#), "{lost}");
        assert_eq!(rest, format!("id: {}\ndata: {{\"type\":\"meeting.ended\"}}\n\n", shown.id));
    }
}
