//! Shared files between nodes: a file stays where it was received, and other nodes ask for it part by part.
//!
//! Parts are asked for as the client of a download takes them, a few at a time, so that neither node holds more of a
//! file than these, and a slow client costs the engine nothing.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, join_all};
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt, stream};

use super::engine::{Engine, RequestFailure};
use super::node::{Cluster, probed};
use super::pieces::PIECE;
use super::requests::Asked;
use crate::clock::now;
use crate::id::{MeetingId, NodeId};
use crate::media_api::nodes::{MediaNodes, NodeState};
use crate::metrics::Metrics;
use crate::room::shared_files::{FoundFile, NoFile, SharedFiles};
use crate::store::files::{FileId, FileInfo, Files};

/// Time in which a node has to say if it has a file.
const FIND_PATIENCE: Duration = Duration::from_secs(2);

/// Time for one part, and the times that it is asked for: an answer may be lost.
const PART_PATIENCE: Duration = Duration::from_secs(5);
const ATTEMPTS: usize = 3;

/// Parts of one download that are asked for at a time.
const AHEAD: usize = 4;

/// Parts that a node reads for others at a time: what waits behind them at the engine is not much.
pub(super) const MAX_READING: usize = 8;

impl<E: Engine> SharedFiles for Cluster<E> {
    fn serve(&self, files: Files) {
        // A node has one folder of them.
        let _ = self.requests().files.set(files);
    }

    fn find(&self, meeting: MeetingId, id: FileId) -> BoxFuture<'static, Result<FoundFile, NoFile>> {
        let cluster = self.clone();
        async move { cluster.find_file(meeting, id).await }.boxed()
    }
}

impl<E: Engine> Cluster<E> {
    async fn find_file(&self, meeting: MeetingId, id: FileId) -> Result<FoundFile, NoFile> {
        let (node, info) = match id.node() {
            Some(own) if own == self.node() => return Err(NoFile::Unknown),
            Some(node) if self.state(node) != NodeState::Alive => return Err(NoFile::Gone),
            Some(node) => (node, self.ask_for_file(node, meeting, &id).await?.ok_or(NoFile::Unknown)?),
            // Of a time when one of them was a single one.
            None => self.search_file(meeting, &id).await?,
        };
        let parts = self.parts(node, meeting, id, info.bytes);
        Ok(FoundFile { info, parts })
    }

    /// Asks all nodes for a file.
    async fn search_file(&self, meeting: MeetingId, id: &FileId) -> Result<(NodeId, FileInfo), NoFile> {
        let others = self.nodes().into_iter().filter(|node| node.is_alive && node.is_member);
        let asked = others.map(|other| async move {
            let node = other.pulse.heartbeat.node;
            (node, self.ask_for_file(node, meeting, id).await)
        });
        let mut failure = NoFile::Gone;
        for (node, answer) in join_all(asked).await {
            match answer {
                Ok(Some(info)) => return Ok((node, info)),
                Ok(None) => {}
                Err(_) => failure = NoFile::Silent,
            }
        }
        Err(failure)
    }

    /// Asks a node if it has a file.
    async fn ask_for_file(
        &self,
        node: NodeId,
        meeting: MeetingId,
        id: &FileId,
    ) -> Result<Option<FileInfo>, NoFile> {
        let ask = Asked::File { meeting, id: id.clone() }.encode();
        match self.request(node, ask, now() + FIND_PATIENCE).await {
            Ok(answer) => serde_json::from_slice(&answer).map_err(|_| NoFile::Silent),
            Err(RequestFailure::NobodyListens) => {
                self.probed(node, probed(Err(RequestFailure::NobodyListens)));
                Err(NoFile::Gone)
            }
            Err(RequestFailure::NoAnswer) => Err(NoFile::Silent),
        }
    }

    /// The parts of a file of a node, in order.
    fn parts(
        &self,
        node: NodeId,
        meeting: MeetingId,
        id: FileId,
        bytes: u64,
    ) -> BoxStream<'static, io::Result<Bytes>> {
        let cluster = self.clone();
        let part = move |from: u64| {
            let (cluster, id) = (cluster.clone(), id.clone());
            let length = (PIECE as u64).min(bytes - from);
            async move { cluster.part(node, Asked::FilePart { meeting, id, from }, length).await }
        };
        stream::iter((0..bytes).step_by(PIECE)).map(part).buffered(AHEAD).boxed()
    }

    async fn part(&self, node: NodeId, ask: Asked, length: u64) -> io::Result<Bytes> {
        let message = ask.encode();
        for _ in 0..ATTEMPTS {
            match self.request(node, message.clone(), now() + PART_PATIENCE).await {
                Ok(part) if part.len() as u64 == length => return Ok(part.into()),
                // The meeting has ended.
                Ok(_) => return Err(io::Error::other("the node has no such part of the file")),
                Err(RequestFailure::NobodyListens) => break,
                Err(RequestFailure::NoAnswer) => {}
            }
        }
        Err(io::Error::other("the node that has the file does not answer"))
    }

    /// Describes a file of this node for another one.
    pub(super) fn describe_file(&self, meeting: MeetingId, id: &FileId) -> Option<FileInfo> {
        self.requests().files.get()?.find(meeting, id)
    }

    /// Reads a part of a file of this node for another one; empty if there is none.
    pub(super) async fn read_file(&self, meeting: MeetingId, id: &FileId, from: u64) -> Vec<u8> {
        let requests = self.requests();
        let (Ok(_permit), Some(files)) = (requests.reading.acquire().await, requests.files.get()) else {
            return Vec::new();
        };
        match files.read_part(meeting, id, from, PIECE as u64).await {
            Ok(part) => part.unwrap_or_default(),
            Err(error) => {
                Metrics::count(&self.metrics().drops, "unread_file");
                tracing::warn!(event = "fileNotRead", %error);
                Vec::new()
            }
        }
    }
}
