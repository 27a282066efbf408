//! Rooms that several nodes share, as the registry sees them: something else runs them than an [actor](super::actor).

use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;

use super::actor::{RoomDeps, RoomPermit};
use super::mailbox::Inbox;
use super::requests::{Notice, OwnRooms, RoomAnswer, RoomListing, RoomRequest};
use crate::id::{NodeId, RoomName};

/// Runs the rooms of this node that other nodes may have members of as well.
pub trait SharedRooms: Debug + Send + Sync {
    /// The task of a room on this node: it reads the inbox as an actor does, and calls `retire` when it ends, before it
    /// closes the inbox.
    fn run(&self, room: StartedRoom, retire: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()>;

    /// Takes the way to start a room that nobody joins here, since its members were on a node that is gone: not before
    /// `grace` is over, in which that node may be back.
    fn start_orphans_by(&self, start: Box<dyn Fn(RoomName) + Send + Sync>, grace: Duration);

    /// Tells the other nodes that this one takes no more rooms.
    fn drain(&self);

    /// This node's way to the engine, as it knows by itself: nobody is asked.
    fn engine_state(&self) -> EngineState;

    /// Gives requests of other nodes the rooms of this one.
    fn serve(&self, rooms: Arc<dyn OwnRooms>);

    /// Asks the node that owns a room, which may be this one. The answer is [`RoomAnswer::NotHere`] if no node does.
    fn ask(&self, room: RoomName, request: RoomRequest) -> BoxFuture<'static, RoomAnswer>;

    /// Lists the rooms of all nodes.
    fn list(&self) -> BoxFuture<'static, RoomListing>;

    /// This node.
    fn node(&self) -> NodeId;

    /// Tells the other nodes something, which may be lost.
    fn tell(&self, notice: Notice) -> BoxFuture<'static, ()>;
}

/// A node's way to the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineState {
    /// True if it is lost.
    pub is_away: bool,
    /// Time since it is as it is.
    pub since: SystemTime,
}

/// A room that starts on this node.
#[derive(Debug)]
pub struct StartedRoom {
    /// Its name.
    pub name: RoomName,
    /// Its commands.
    pub inbox: Inbox,
    /// Its place in the limits of this node.
    pub permit: RoomPermit,
    /// Its dependencies.
    pub deps: RoomDeps,
    /// True if nobody joins it here: it is claimed, so that it ends once the time of its members is over.
    pub is_orphan: bool,
}
