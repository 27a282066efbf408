//! SHELL: objects that a single node stored are written into journals, when it starts as a node of several.
//!
//! It happens before anybody can call them, and only onto empty journals. An object is removed from the database once its
//! journal has it, so an interrupted start is done by the next one.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream;
use tracing::{info, warn};

use super::ObjectCluster;
use super::entry::Changes;
use super::journal::ObjectJournal;
use crate::durable::error::ObjectError;
use crate::id::ObjectId;
use crate::store::objects::{ObjectRow, ObjectWrite, Objects, ObjectsError, Values};

/// Objects in one list of the database.
const PAGE: u32 = 1024;

/// Objects that are carried over at a time.
const AT_A_TIME: usize = 64;

/// The stored objects are not carried over.
#[derive(Debug, thiserror::Error)]
pub enum ObjectsNotCarried {
    /// The engine does not answer, or refuses an entry.
    #[error(
        "cluster.nats: the stored objects cannot be carried over ({0}); nothing is lost, start again, or move objects.db \
         away to start without them"
    )]
    Journal(ObjectError),
    /// The database fails.
    #[error("the stored objects cannot be carried over: {0}")]
    Store(#[from] ObjectsError),
}

/// The end of one object.
enum Outcome {
    /// The journal has it.
    Carried,
    /// The journal has something else.
    Taken,
}

/// Writes all stored objects into their journals, and removes them from the database. One whose journal has something
/// else stays where it is.
///
/// # Errors
/// [`ObjectsNotCarried`]; those that were not carried over are still stored.
pub async fn carry_over(cluster: &Arc<ObjectCluster>, store: &Objects) -> Result<(), ObjectsNotCarried> {
    let (mut after, mut carried) = (None, 0_u64);
    loop {
        let page = store.list("", after.as_ref(), PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.id.clone());
        let carries = stream::iter(page).map(|line| async move {
            let outcome = carry(cluster, store, &line.id).await;
            (line.id, outcome)
        });
        let mut carries = carries.buffer_unordered(AT_A_TIME);
        while let Some((id, outcome)) = carries.next().await {
            match outcome? {
                Outcome::Carried => carried += 1,
                Outcome::Taken => warn!(
                    event = "objectNotCarriedOver",
                    object = id.as_str(),
                    "the cluster has an object of this name; that of this server stays in objects.db"
                ),
            }
        }
    }
    if carried > 0 {
        info!(event = "objectsCarriedOver", objects = carried, "stored objects are in their journals");
    }
    Ok(())
}

async fn carry(
    cluster: &Arc<ObjectCluster>,
    store: &Objects,
    id: &ObjectId,
) -> Result<Outcome, ObjectsNotCarried> {
    let saved = store.load(id).await?;
    let found = match cluster.read(id).await {
        Ok(found) => found,
        Err(ObjectError::Unreadable) => return Ok(Outcome::Taken),
        Err(error) => return Err(ObjectsNotCarried::Journal(error)),
    };
    if !found.row.is_stored() {
        match write(cluster, id, &saved.values, &saved.row).await {
            Ok(()) => {}
            // Another node was faster.
            Err(ObjectError::Moved | ObjectError::Elsewhere) => return Ok(Outcome::Taken),
            Err(error) => return Err(ObjectsNotCarried::Journal(error)),
        }
    } else if found.row != saved.row {
        return Ok(Outcome::Taken);
    }
    let (before, after) = (saved.row, ObjectRow::default());
    store.commit(ObjectWrite { id: id.clone(), changes: Changes::new(), before, after }).await?;
    Ok(Outcome::Carried)
}

async fn write(
    cluster: &Arc<ObjectCluster>,
    id: &ObjectId,
    values: &Values,
    row: &ObjectRow,
) -> Result<(), ObjectError> {
    let (mut journal, found) = ObjectJournal::open(cluster, id).await?;
    if found.row.is_stored() {
        return Err(ObjectError::Moved);
    }
    journal.commit(&Changes::new(), values, (&ObjectRow::default(), row)).await
}
