//! Questions of a room to its journal in the engine.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use satsuma_cluster::entry::{Entry, Record};
use satsuma_cluster::writer::Request;
use tracing::error;

use crate::id::RoomName;
use crate::nodes::engine::{Engine, StoredEntry, Subject};
use crate::room::replica::ReplicaInput;
use crate::room::replica::lines::RoomState;

/// Maximum size in bytes of an entry, not compressed.
pub(in crate::nodes) const MAX_ENTRY_BYTES: usize = 32 << 20;

/// Makes a request of a journal's writer.
pub(super) fn ask<E: Engine>(
    engine: &E,
    name: &RoomName,
    writer: u64,
    request: Request<RoomState>,
) -> BoxFuture<'static, ReplicaInput> {
    let (engine, subject, name) = (engine.clone(), Subject::room(name), name.clone());
    match request {
        Request::Append { question, expected, entry } => Box::pin(async move {
            let answer = engine.append(subject, expected, entry.encode().into()).await;
            ReplicaInput::Appended { writer, question, answer }
        }),
        Request::ReadLast { question } => Box::pin(async move {
            let last = match engine.last(subject).await {
                Ok(None) => Some(None),
                Ok(Some(entry)) => record(&name, &entry).map(Some),
                Err(_) => None,
            };
            ReplicaInput::ReadLast { writer, question, last }
        }),
    }
}

/// Reads all entries.
pub(super) fn read_all<E: Engine>(
    engine: &E,
    name: &RoomName,
    question: u64,
) -> BoxFuture<'static, ReplicaInput> {
    let (engine, subject, name) = (engine.clone(), Subject::room(name), name.clone());
    Box::pin(async move {
        let entries = engine.all(subject).await.ok();
        let records = entries.and_then(|entries| entries.iter().map(|entry| record(&name, entry)).collect());
        ReplicaInput::ReadAll { question, records }
    })
}

/// An entry that was stored. One that cannot be read is none of which a part may be believed.
pub(in crate::nodes) fn record(name: &RoomName, stored: &StoredEntry) -> Option<Record<RoomState>> {
    let StoredEntry { sequence, expected, bytes } = stored;
    match Entry::decode(bytes, MAX_ENTRY_BYTES) {
        Ok(entry) if *entry.subject == *name.as_str() => {
            Some(Record { sequence: *sequence, expected: *expected, entry: Arc::new(entry) })
        }
        Ok(_) => {
            error!(event = "journalOfAnother", room = name.as_str(), "two rooms have one journal");
            None
        }
        Err(why) => {
            error!(event = "unreadableEntry", room = name.as_str(), sequence, %why);
            None
        }
    }
}
