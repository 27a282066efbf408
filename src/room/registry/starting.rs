//! The start of rooms: those that somebody joins, and those whose members were all on a node that is gone.

use std::sync::Arc;

use dashmap::mapref::entry::Entry;

use super::Registry;
use crate::id::RoomName;
use crate::room::actor::{Actor, RoomPermit};
use crate::room::mailbox::RoomHandle;
use crate::room::shared::{SharedRooms, StartedRoom};
use crate::store::saved::SavedRoom;

impl Registry {
    /// Starts a room's task; the caller holds the entry of the name, so that there is only one.
    pub(super) fn spawn(
        &self,
        name: RoomName,
        saved: Option<SavedRoom>,
        permit: RoomPermit,
        is_orphan: bool,
    ) -> RoomHandle {
        let (handle, inbox) = RoomHandle::new();
        let deps = self.inner.deps.clone();
        let (registry, own, known_as) = (self.clone(), handle.clone(), name.clone());
        let retire = move || registry.forget(&known_as, &own);
        match &self.inner.shared {
            None => {
                let actor = Actor::new(name, saved, inbox, permit, deps);
                self.inner.tasks.spawn(actor.run(retire));
            }
            Some(shared) => {
                let room = StartedRoom { name, inbox, permit, deps, is_orphan };
                self.inner.tasks.spawn(shared.run(room, Box::new(retire)));
            }
        }
        handle
    }

    /// Lets other nodes' rooms start here when their nodes are gone.
    pub(super) fn take_orphans(&self, shared: &dyn SharedRooms) {
        let rooms = Arc::downgrade(&self.inner);
        let start = move |name| {
            if let Some(inner) = rooms.upgrade() {
                Self { inner }.start_orphan(name);
            }
        };
        shared.start_orphans_by(Box::new(start), self.inner.deps.settings.restore_grace);
    }

    /// Starts a room that has no member here, unless it runs. Beyond the limit of rooms it is left for later.
    fn start_orphan(&self, name: RoomName) {
        let Entry::Vacant(vacant) = self.inner.rooms.entry(name.clone()) else { return };
        if self.inner.stopping.is_cancelled() {
            return;
        }
        let Some(permit) = self.inner.permit() else { return };
        let handle = self.spawn(name, None, permit, true);
        vacant.insert(handle);
    }

    /// True if rooms are shared, and the engine in which a new one would be stored is away.
    pub(super) fn is_engine_away(&self) -> bool {
        self.inner.shared.as_ref().is_some_and(|shared| shared.engine_state().is_away)
    }
}
