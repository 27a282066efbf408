//! Objects that several nodes share: one node owns an object at a time, which its journal in the engine says
//! ([ADR 26](../../../docs/adr/0026-objects-live-in-journals.md)).
//!
//! The journal is where an object is stored; the database of a node has none of it. [`entry`] and [`fold`] are its bytes and
//! their meaning, [`journal`] is the owner's way to it. [`calls`] pass from the node that is asked to the owner.

pub mod alarms;
pub mod calls;
pub mod carry;
pub mod entry;
pub mod fold;
pub mod journal;
pub mod listing;
pub mod sessions;

use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use tokio::time::sleep;

use self::alarms::Alarms;
use self::sessions::Sessions;
use super::error::ObjectError;
use super::totals::StoredTotals;
use crate::clock::now;
use crate::id::{NodeId, ObjectId};
use crate::nodes::engine::{Subject, SubjectKind};
use crate::nodes::objects::ObjectNodes;
use crate::store::objects::SavedObject;

/// Owners that are remembered; all are forgotten when there are more.
const MAX_OWNERS: usize = 65_536;

/// Time in which the owner of an object has to be found.
const PATIENCE: Duration = Duration::from_secs(3);

/// Pause before the engine is asked again.
const PAUSE: Duration = Duration::from_millis(50);

/// Calls of other nodes that wait for one object. More are refused, so that a slow one does not hold up others.
const MAX_WAITING: usize = 256;

/// Interval at which the engine is asked for the space of all objects.
const COUNTED_EVERY: Duration = Duration::from_secs(10);

/// The objects of all nodes, as one node sees them.
#[derive(Debug)]
pub struct ObjectCluster {
    nodes: Arc<dyn ObjectNodes>,
    /// The owners of objects, as they were found. One that is not the owner any more says so.
    owners: DashMap<ObjectId, NodeId>,
    alarms: Alarms,
    sessions: Sessions,
    /// The number of calls of other nodes that wait for each object.
    waiting: DashMap<ObjectId, usize>,
}

/// A call of another node that waits for an object.
#[derive(Debug)]
struct Waiting<'a> {
    cluster: &'a ObjectCluster,
    id: ObjectId,
}

/// The place of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// This node owns it, or is to.
    Here,
    /// Another node does.
    At(NodeId),
}

impl ObjectCluster {
    /// The objects of these nodes.
    pub fn new(nodes: Arc<dyn ObjectNodes>) -> Self {
        Self {
            nodes,
            owners: DashMap::new(),
            alarms: Alarms::default(),
            sessions: Sessions::default(),
            waiting: DashMap::new(),
        }
    }

    /// The other nodes.
    pub fn nodes(&self) -> &Arc<dyn ObjectNodes> {
        &self.nodes
    }

    /// Finds the owner of an object, or the node that is to claim it.
    ///
    /// # Errors
    /// [`ObjectError::EngineAway`], [`ObjectError::Unreadable`].
    pub async fn route(&self, id: &ObjectId) -> Result<Route, ObjectError> {
        let known = self.owners.get(id).map(|owner| *owner);
        if let Some(owner) = known.filter(|owner| self.nodes.takes(*owner)) {
            return Ok(self.way_to(owner));
        }
        let until = now() + PATIENCE;
        loop {
            match self.nodes.last(Subject::object(id)).await {
                Ok(last) => {
                    let header = last.map(|last| entry::decode(id, &last.bytes).map(|(header, _)| header));
                    let header = header.transpose().map_err(|_| ObjectError::Unreadable)?;
                    let owner = match header {
                        Some(header) if !self.nodes.is_gone(header.by).await => header.by,
                        _ => self.nodes.preferred(id),
                    };
                    self.remember(id, owner);
                    return Ok(self.way_to(owner));
                }
                Err(_) if now() < until => sleep(PAUSE).await,
                Err(_) => return Err(ObjectError::EngineAway),
            }
        }
    }

    /// Counts a call of another node on an object.
    ///
    /// # Errors
    /// [`ObjectError::Full`].
    fn enter(&self, id: &ObjectId) -> Result<Waiting<'_>, ObjectError> {
        let mut waiting = self.waiting.entry(id.clone()).or_default();
        if *waiting >= MAX_WAITING {
            return Err(ObjectError::Full("too many calls wait for the object"));
        }
        *waiting += 1;
        Ok(Waiting { cluster: self, id: id.clone() })
    }

    fn way_to(&self, owner: NodeId) -> Route {
        if owner == self.nodes.own() { Route::Here } else { Route::At(owner) }
    }

    fn remember(&self, id: &ObjectId, owner: NodeId) {
        if self.owners.len() >= MAX_OWNERS {
            self.owners.clear();
        }
        self.owners.insert(id.clone(), owner);
    }

    /// Forgets the owner of an object, so that its journal is asked.
    pub fn forget(&self, id: &ObjectId) {
        self.owners.remove(id);
    }

    /// An object as its journal has it, wherever it is; an empty one if there is none.
    ///
    /// # Errors
    /// [`ObjectError::EngineAway`], [`ObjectError::Unreadable`].
    pub async fn read(&self, id: &ObjectId) -> Result<SavedObject, ObjectError> {
        let entries = self.nodes.all(Subject::object(id)).await.map_err(|_| ObjectError::EngineAway)?;
        Ok(journal::read(id, &entries)?.object)
    }

    /// Has the limits of all objects follow what the engine stores, without an end.
    pub async fn count(&self, totals: &StoredTotals) {
        loop {
            if let Ok(stored) = self.nodes.stored(SubjectKind::Object).await {
                totals.follow(stored.subjects, stored.bytes);
            }
            sleep(COUNTED_EVERY).await;
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(mut waiting) = self.cluster.waiting.get_mut(&self.id) {
            *waiting = waiting.saturating_sub(1);
        }
        self.cluster.waiting.remove_if(&self.id, |_, waiting| *waiting == 0);
    }
}
