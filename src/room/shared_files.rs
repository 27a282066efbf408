//! Files that members share over several nodes: each is on the node that received it, and got from any.

use std::fmt::Debug;
use std::io;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;

use crate::id::MeetingId;
use crate::store::files::{FileId, FileInfo, Files};

/// The files of other nodes.
pub trait SharedFiles: Debug + Send + Sync {
    /// Gives requests of other nodes the files of this one.
    fn serve(&self, files: Files);

    /// Finds a file of a meeting that another node received.
    fn find(&self, meeting: MeetingId, id: FileId) -> BoxFuture<'static, Result<FoundFile, NoFile>>;
}

/// A file on another node.
pub struct FoundFile {
    /// Its description.
    pub info: FileInfo,
    /// Its parts, asked for as they are taken.
    pub parts: BoxStream<'static, io::Result<Bytes>>,
}

/// Reason for not finding a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoFile {
    /// No node has such a file.
    Unknown,
    /// The node that had it is gone.
    Gone,
    /// The node that has it does not answer.
    Silent,
}
