//! Requests about rooms between nodes: a node asks the owner of a room, or all nodes, and answers for its own rooms.
//!
//! Whoever asks was authorized by the node that it asked. Another one believes that because the message came through the
//! engine: whoever may write there is a node.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use satsuma_cluster::entry::Line;
use satsuma_cluster::message::NodeMessage;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout_at};

use super::engine::{Engine, NoAnswer, RequestFailure, Subject};
use super::files::MAX_READING;
use super::node::{Cluster, probed};
use super::pieces::{Pieces, Reply};
use super::room::asking::record;
use crate::clock::now;
use crate::id::{MeetingId, NodeId, RoomName};
use crate::room::requests::{Notice, OwnRooms, RoomAnswer, RoomListing, RoomRequest, RoomSummary};
use crate::store::files::{FileId, Files};
use crate::store::reports::{Cursor, Reports};

/// Time in which the owner of a room has to be found: as for a join.
const OWNER_PATIENCE: Duration = Duration::from_secs(3);

/// Time in which a node has to list its rooms.
const LIST_PATIENCE: Duration = Duration::from_secs(2);

/// Time for an owner's answer; its room has a little less.
const ANSWER: Duration = Duration::from_millis(2500);

/// Pause before the owner is looked for again.
const PAUSE: Duration = Duration::from_millis(50);

/// Requests of other nodes that are answered at a time.
const MAX_ANSWERING: usize = 64;

/// The requests of a node.
pub(super) struct Requests {
    /// The rooms here, once there are any.
    pub(super) own: std::sync::OnceLock<Arc<dyn OwnRooms>>,
    /// The shared files here, once there is a folder for them.
    pub(super) files: std::sync::OnceLock<Files>,
    /// The meetings of this node, once there is a database of them.
    pub(super) reports: std::sync::OnceLock<Reports>,
    pieces: Pieces,
    answering: Semaphore,
    /// Parts of files that are read for other nodes.
    pub(super) reading: Semaphore,
}

impl Default for Requests {
    fn default() -> Self {
        let answering = Semaphore::new(MAX_ANSWERING);
        Self {
            own: std::sync::OnceLock::new(),
            files: std::sync::OnceLock::new(),
            reports: std::sync::OnceLock::new(),
            pieces: Pieces::default(),
            answering,
            reading: Semaphore::new(MAX_READING),
        }
    }
}

/// A request to another node.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Asked {
    /// About a room that it owns.
    Room {
        /// The room.
        room: RoomName,
        /// The request.
        request: RoomRequest,
    },
    /// For the rooms that it owns.
    List,
    /// For a further piece of a long answer.
    Piece {
        /// The answer.
        answer: u64,
        /// The bytes that are there already.
        from: u64,
    },
    /// For the description of a shared file.
    File {
        /// Its meeting.
        meeting: MeetingId,
        /// Its id.
        id: FileId,
    },
    /// For a part of a shared file, of the size of a piece.
    FilePart {
        /// Its meeting.
        meeting: MeetingId,
        /// Its id.
        id: FileId,
        /// The first byte.
        from: u64,
    },
    /// For a part of the list of its meetings.
    Meetings {
        /// The position before the first.
        from: Option<Cursor>,
        /// Their number at most.
        most: u32,
    },
    /// To record its events, since there are streams.
    WantEvents,
    /// For its events from a number on.
    Events {
        /// The number.
        from: u64,
    },
    /// None: it is told something.
    Told(Notice),
}

impl Asked {
    #[expect(clippy::expect_used, reason = "requests are plain data")]
    pub(super) fn encode(&self) -> Bytes {
        let body = serde_json::to_vec(self).expect("requests are plain data");
        NodeMessage::Request { body: &body }.encode().into()
    }
}

/// The list of a node's rooms.
type OwnedRooms = Vec<(RoomName, Option<RoomSummary>)>;

impl<E: Engine> Cluster<E> {
    fn own_rooms(&self) -> Option<&Arc<dyn OwnRooms>> {
        self.requests().own.get()
    }

    /// Asks the owner of a room, wherever it is. A request that may have been carried out is not made again, unless it
    /// changes nothing.
    pub(super) async fn ask_room(&self, room: RoomName, request: RoomRequest) -> RoomAnswer {
        let until = now() + OWNER_PATIENCE;
        let message = Asked::Room { room: room.clone(), request: request.clone() }.encode();
        loop {
            let answer = match self.own_rooms().filter(|_| self.owns(&room)) {
                Some(own) => own.answer(room.clone(), request.clone()).await,
                None => match self.owner_of(&room).await {
                    Err(NoAnswer) => return RoomAnswer::Silent,
                    Ok(None) => return RoomAnswer::NotHere,
                    // It is about to own it, or not any more.
                    Ok(Some(node)) if node == self.node() => RoomAnswer::NotHere,
                    Ok(Some(node)) => self.ask_node(node, &message, request.is_query()).await,
                },
            };
            match answer {
                RoomAnswer::NotHere if now() < until => sleep(PAUSE).await,
                RoomAnswer::NotHere => return RoomAnswer::Silent,
                answer => return answer,
            }
        }
    }

    /// The owner of a room, as its journal says; none if no meeting runs, or nobody took the room over yet.
    async fn owner_of(&self, room: &RoomName) -> Result<Option<NodeId>, NoAnswer> {
        let Some(last) = self.engine().last(Subject::room(room)).await? else { return Ok(None) };
        let entry = record(room, &last).ok_or(NoAnswer)?.entry;
        let ended = entry.lines.iter().rev().find_map(|line| match line {
            Line::Ended => Some(None),
            Line::HandedOver { to } => Some(*to),
            _ => None,
        });
        Ok(ended.unwrap_or(Some(entry.by)))
    }

    async fn ask_node(&self, node: NodeId, message: &Bytes, is_query: bool) -> RoomAnswer {
        match self.request(node, message.clone(), now() + ANSWER).await {
            Ok(answer) => serde_json::from_slice(&answer).unwrap_or(RoomAnswer::Silent),
            // It got nothing, or what it got changes nothing.
            Err(RequestFailure::NobodyListens) => {
                self.probed(node, probed(Err(RequestFailure::NobodyListens)));
                RoomAnswer::NotHere
            }
            Err(RequestFailure::NoAnswer) if is_query => RoomAnswer::NotHere,
            Err(RequestFailure::NoAnswer) => RoomAnswer::Silent,
        }
    }

    /// Makes a request, and puts its answer together.
    pub(super) async fn request(
        &self,
        node: NodeId,
        message: Bytes,
        until: Instant,
    ) -> Result<Vec<u8>, RequestFailure> {
        let most = until.saturating_duration_since(now());
        let first = self.engine().request(node, message, most).await?;
        let (answer, total, mut bytes) = match Reply::decode(&first) {
            Some(Reply::Whole(bytes)) => return Ok(bytes.to_vec()),
            Some(Reply::First { answer, total, bytes }) => (answer, total, bytes.to_vec()),
            // Of a release that knows no such request, or too long.
            None => return Err(RequestFailure::NoAnswer),
        };
        while bytes.len() < total {
            let from = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            let most = until.saturating_duration_since(now());
            let ask = Asked::Piece { answer, from }.encode();
            let piece = self.engine().request(node, ask, most).await?;
            match Reply::decode(&piece) {
                Some(Reply::Whole(piece)) if !piece.is_empty() => bytes.extend_from_slice(piece),
                _ => return Err(RequestFailure::NoAnswer),
            }
        }
        Ok(bytes)
    }

    /// The rooms of all nodes, each once.
    pub(super) async fn list_all(&self) -> RoomListing {
        let until = now() + LIST_PATIENCE;
        let others: Vec<_> =
            self.nodes().into_iter().filter(|node| node.is_alive && node.is_member).collect();
        let message = Asked::List.encode();
        let asked = others.iter().map(|other| async {
            let node = other.pulse.heartbeat.node;
            let listed = timeout_at(until, self.request(node, message.clone(), until)).await.ok()?.ok()?;
            serde_json::from_slice::<OwnedRooms>(&listed).ok()
        });
        let (own, listed) = tokio::join!(self.list_own(), join_all(asked));
        let mut listing = RoomListing::default();
        let mut rooms = std::collections::BTreeMap::new();
        let mut add = |found: OwnedRooms| {
            for (room, summary) in found {
                // One that moves meanwhile may be told by both.
                let known = rooms.entry(room).or_insert(None);
                *known = known.take().or(summary);
            }
        };
        add(own);
        for (other, listed) in others.iter().zip(listed) {
            match listed {
                Some(found) => add(found),
                None => listing.silent.push(format!("{} ({})", other.pulse.name, other.pulse.heartbeat.node)),
            }
        }
        listing.rooms = rooms.into_iter().collect();
        listing
    }

    async fn list_own(&self) -> OwnedRooms {
        match self.own_rooms() {
            Some(own) => own.list(self.owned_rooms()).await,
            None => Vec::new(),
        }
    }

    /// Tells the other nodes something. It may be lost.
    pub(super) async fn tell_all(&self, notice: Notice) {
        let message = Asked::Told(notice).encode();
        for other in self.nodes().into_iter().filter(|node| node.is_alive && node.is_member) {
            self.engine().send(other.pulse.heartbeat.node, message.clone()).await;
        }
    }

    /// Answers another node; empty for a request that is of a later release, or that it does not wait for.
    pub(super) async fn answer(&self, body: Bytes) -> Bytes {
        let requests = self.requests();
        let Ok(asked) = serde_json::from_slice(&body) else { return Bytes::new() };
        if let Asked::FilePart { meeting, id, from } = asked {
            // It waits for those before, and takes no place of requests about rooms.
            return requests.pieces.first(self.read_file(meeting, &id, from).await);
        }
        let (Ok(_permit), Some(own)) = (requests.answering.try_acquire(), self.own_rooms()) else {
            return Bytes::new();
        };
        let answer = match asked {
            Asked::Room { room, request } if self.owns(&room) => {
                serde_json::to_vec(&own.answer(room, request).await)
            }
            Asked::Room { .. } => serde_json::to_vec(&RoomAnswer::NotHere),
            Asked::List => serde_json::to_vec(&self.list_own().await),
            Asked::Meetings { from, most } => serde_json::to_vec(&self.own_meetings(from, most).await),
            Asked::WantEvents => serde_json::to_vec(&self.begin_events()),
            Asked::Events { from } => serde_json::to_vec(&self.own_events(from)),
            Asked::File { meeting, id } => serde_json::to_vec(&self.describe_file(meeting, &id)),
            Asked::Piece { answer, from } => return requests.pieces.next(answer, from),
            Asked::Told(notice) => {
                own.hear(notice).await;
                return Bytes::new();
            }
            Asked::FilePart { .. } => return Bytes::new(),
        };
        requests.pieces.first(answer.unwrap_or_default())
    }
}
