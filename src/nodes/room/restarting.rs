//! The start of a room that panicked before, or whose members were all on a node that is gone.

use std::time::Duration;

use tracing::error;

use super::RoomTask;
use crate::nodes::engine::Engine;
use crate::nodes::panics::Restart;
use crate::room::io::RoomEvent;
use crate::room::replica::ReplicaInput;

/// Time for which a room that panics whatever is done keeps those waiting who join it.
const REFUSED: Duration = Duration::from_secs(10);

impl<E: Engine> RoomTask<E> {
    /// Serves the room, unless it panicked too often.
    pub(super) async fn restart(&mut self, restart: Restart) {
        match restart {
            Restart::Continue => {}
            Restart::End => {
                self.deps.metrics.rooms_quarantined.inc();
                error!(
                    event = "roomQuarantined",
                    room = self.name.as_str(),
                    "it panics again and again; its meeting is ended"
                );
                self.replica.condemn();
            }
            Restart::Refuse => {
                tokio::select! {
                    () = tokio::time::sleep(REFUSED) => {}
                    () = self.deps.force.cancelled() => {}
                    () = self.inbox.stop.cancelled() => {}
                }
                return;
            }
        }
        self.serve().await;
    }

    /// Claims the room, unless a living node owns it.
    pub(super) async fn adopt(&mut self) {
        self.has_begun = true;
        self.replica.adopt();
        self.input(ReplicaInput::Wake);
        self.carry_out().await;
    }

    pub(super) fn panicked(&self) {
        self.cluster.count_panic(&self.name);
        self.deps.metrics.room_panics.inc();
        error!(event = "roomPanicked", room = self.name.as_str());
        if self.is_owner {
            self.deps.events.publish(&self.name, None, RoomEvent::RoomFailed);
        }
    }
}
