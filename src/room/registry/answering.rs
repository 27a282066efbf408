//! Requests about rooms by whoever is not a member: by this node, or by the node that owns the room.

use std::sync::{Arc, Weak};

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::{DESCRIBE_TIMEOUT, DRAIN_BATCH, Inner, PostError, Registry};
use crate::clock::now;
use crate::id::{IdentityId, NodeId, RoomName};
use crate::room::io::{CannotPost, Post};
use crate::room::mailbox::{Command, RoomHandle, RoomView};
use crate::room::passwords::PasswordError;
use crate::room::requests::{Notice, Once, OwnRooms, RoomAnswer, RoomListing, RoomRequest, RoomSummary};
use crate::room::state::{CannotShareFile, Denied};

/// Reason for not describing a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CannotDescribe {
    /// No room of that name runs.
    NoRoom,
    /// It did not answer in time.
    Silent,
}

/// The rooms of this node, as long as there are any.
pub(super) struct WeakRooms(pub(super) Weak<Inner>);

impl WeakRooms {
    fn registry(&self) -> Option<Registry> {
        self.0.upgrade().map(|inner| Registry { inner })
    }
}

impl OwnRooms for WeakRooms {
    fn answer(&self, room: RoomName, request: RoomRequest) -> BoxFuture<'static, RoomAnswer> {
        let registry = self.registry();
        Box::pin(async move {
            match registry {
                Some(registry) => registry.answer(&room, request).await,
                None => RoomAnswer::NotHere,
            }
        })
    }

    fn list(&self, rooms: Vec<RoomName>) -> BoxFuture<'static, Vec<(RoomName, Option<RoomSummary>)>> {
        let registry = self.registry();
        Box::pin(async move {
            match registry {
                Some(registry) => registry.list(rooms).await,
                None => Vec::new(),
            }
        })
    }

    fn hear(&self, notice: Notice) -> BoxFuture<'static, ()> {
        let registry = self.registry();
        Box::pin(async move {
            let Some(Registry { inner }) = registry else { return };
            match notice {
                Notice::Done(Once { identity, key, digest }) => {
                    inner.done.insert((identity, key), digest).await;
                }
                Notice::Proved { room, identity, hash } => {
                    inner.passwords.remember(room, identity, hash).await;
                }
                Notice::Observed { room, node, names } => {
                    inner.deps.observers.set_elsewhere(now().into_std(), &room, node, names);
                    Registry { inner }.tell_observed(&room);
                }
                Notice::Ended(meeting) => {
                    if let Some(files) = &inner.deps.files {
                        files.end(meeting);
                    }
                }
            }
        })
    }

    fn node_gone(&self, node: NodeId) {
        let Some(registry) = self.registry() else { return };
        let rooms = registry.inner.deps.observers.node_gone(node);
        rooms.iter().for_each(|room| registry.tell_observed(room));
    }
}

impl Registry {
    /// Tells the other nodes of the observers of a room here.
    pub(super) fn share_observers(&self, room: &RoomName) {
        let Some(shared) = &self.inner.shared else { return };
        let names = self.inner.deps.observers.own_names(room);
        let told = shared.tell(Notice::Observed { room: room.clone(), node: shared.node(), names });
        self.inner.tasks.spawn(told);
    }

    /// Tells the other nodes of all observers here, and forgets those that they do not tell of any more.
    pub(super) fn prune_observers(&self) {
        let observers = &self.inner.deps.observers;
        if self.inner.shared.is_some() {
            observers.own_rooms().iter().for_each(|room| self.share_observers(room));
            observers.prune(now().into_std()).iter().for_each(|room| self.tell_observed(room));
        }
    }

    /// A room's state for operators.
    ///
    /// # Errors
    /// [`CannotDescribe`].
    pub async fn describe(&self, name: &RoomName) -> Result<RoomView, CannotDescribe> {
        match self.request(name, RoomRequest::Describe).await {
            RoomAnswer::View(view) => Ok(*view),
            RoomAnswer::NotHere => Err(CannotDescribe::NoRoom),
            _ => Err(CannotDescribe::Silent),
        }
    }

    /// The rooms of all nodes for operators.
    pub async fn describe_all(&self) -> RoomListing {
        match &self.inner.shared {
            None => RoomListing { rooms: self.list(self.names()).await, silent: Vec::new() },
            Some(shared) => shared.list().await,
        }
    }

    /// Writes a message of a program outside to a running room, once for each key.
    ///
    /// # Errors
    /// [`PostError`].
    pub async fn post(&self, name: &RoomName, post: Post, once: Option<Once>) -> Result<(), PostError> {
        // A request that another node carried out is known here, if that node told so.
        if let Some(Once { identity, key, digest }) = &once
            && let Some(done) = self.inner.done.get(&(identity.clone(), key.clone())).await
        {
            return if done == *digest { Ok(()) } else { Err(PostError::OtherRequest) };
        }
        let request = RoomRequest::Post { post: post.into(), once: once.clone() };
        match self.request(name, request).await {
            RoomAnswer::Posted(Ok(())) => {
                if let (Some(once), Some(shared)) = (once, &self.inner.shared) {
                    let key = (once.identity.clone(), once.key.clone());
                    self.inner.done.insert(key, once.digest).await;
                    shared.tell(Notice::Done(once)).await;
                }
                Ok(())
            }
            RoomAnswer::Posted(Err(refused)) => Err(PostError::Refused(refused)),
            RoomAnswer::OtherRequest => Err(PostError::OtherRequest),
            // A room that has just ended has no meeting either.
            RoomAnswer::NotHere => Err(PostError::Refused(CannotPost::NoMeeting)),
            _ => Err(PostError::Silent),
        }
    }

    /// Compares a password with the hash of a room's, and remembers the identity if it is the right one; returns if
    /// it is.
    ///
    /// # Errors
    /// [`PasswordError`].
    pub async fn prove_password(
        &self,
        room: &RoomName,
        identity: &IdentityId,
        password: String,
        hash: Arc<str>,
    ) -> Result<bool, PasswordError> {
        let is_right = self.inner.passwords.prove(room, identity, password, hash.clone()).await?;
        if let Some(shared) = self.inner.shared.as_ref().filter(|_| is_right) {
            // Its socket may come to another node.
            shared.tell(Notice::Proved { room: room.clone(), identity: identity.clone(), hash }).await;
        }
        Ok(is_right)
    }

    /// Asks the node that owns a room.
    pub(super) async fn request(&self, name: &RoomName, request: RoomRequest) -> RoomAnswer {
        match &self.inner.shared {
            None => self.answer(name, request).await,
            Some(shared) => shared.ask(name.clone(), request).await,
        }
    }

    /// Has a room of this node answer, and a message with a key written once.
    async fn answer(&self, name: &RoomName, request: RoomRequest) -> RoomAnswer {
        let RoomRequest::Post { post, once: Some(once) } = request else {
            return self.command(name, request).await;
        };
        let Once { identity, key, digest } = once;
        let write = async {
            match self.command(name, RoomRequest::Post { post, once: None }).await {
                RoomAnswer::Posted(Ok(())) => Ok(digest),
                // It is not remembered.
                failed => Err(failed),
            }
        };
        // A request that is repeated while the first one is under way waits for it.
        match self.inner.done.try_get_with((identity, key), write).await {
            Ok(done) if done == digest => RoomAnswer::Posted(Ok(())),
            Ok(_) => RoomAnswer::OtherRequest,
            Err(failed) => (*failed).clone(),
        }
    }

    async fn command(&self, name: &RoomName, request: RoomRequest) -> RoomAnswer {
        let Some(room) = self.inner.rooms.get(name).map(|entry| entry.value().clone()) else {
            return RoomAnswer::NotHere;
        };
        let is_query = request.is_query();
        match timeout(DESCRIBE_TIMEOUT, command(&room, request)).await {
            Err(_) => RoomAnswer::Silent,
            Ok(Some(RoomAnswer::Decided(Err(Denied::OtherNode)))) => RoomAnswer::NotHere,
            Ok(Some(
                RoomAnswer::Posted(Err(CannotPost::OtherNode))
                | RoomAnswer::AdmitsFiles(Err(CannotShareFile::OtherNode))
                | RoomAnswer::FileShared(Err(CannotShareFile::OtherNode)),
            )) => RoomAnswer::NotHere,
            Ok(Some(answer)) => answer,
            // The room has ended. One that other nodes share may go on there, and have carried it out.
            Ok(None) if self.inner.shared.is_some() && !is_query => RoomAnswer::Silent,
            Ok(None) => RoomAnswer::NotHere,
        }
    }

    async fn list(&self, names: Vec<RoomName>) -> Vec<(RoomName, Option<RoomSummary>)> {
        let described = stream::iter(names).map(|name| async move {
            match self.command(&name, RoomRequest::Describe).await {
                RoomAnswer::View(view) => Some((name, Some(RoomSummary::from(&*view)))),
                RoomAnswer::NotHere => None,
                _ => Some((name, None)),
            }
        });
        described.buffered(DRAIN_BATCH).filter_map(std::future::ready).collect().await
    }
}

/// Sends a room the command for a request; none if it has ended.
async fn command(room: &RoomHandle, request: RoomRequest) -> Option<RoomAnswer> {
    async fn send<T>(room: &RoomHandle, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (answer, result) = oneshot::channel();
        room.mailbox().send(command(answer)).await.ok()?;
        result.await.ok()
    }
    Some(match request {
        RoomRequest::Describe => RoomAnswer::View(send(room, Command::Describe).await?.into()),
        RoomRequest::Moderate { by, action } => {
            RoomAnswer::Decided(send(room, |answer| Command::Moderate { by, action, answer }).await?)
        }
        RoomRequest::MayChange { by } => {
            RoomAnswer::Decided(send(room, |answer| Command::MayChange { by, answer }).await?)
        }
        RoomRequest::SetRules { by, change } => {
            RoomAnswer::Decided(send(room, |answer| Command::SetRules { by, change, answer }).await?)
        }
        RoomRequest::LastingRules { change } => {
            RoomAnswer::Decided(send(room, |answer| Command::LastingRules { change, answer }).await?)
        }
        RoomRequest::Post { post, .. } => {
            let Some(post) = post.read() else { return Some(RoomAnswer::Silent) };
            RoomAnswer::Posted(send(room, |answer| Command::Post { post, answer }).await?)
        }
        RoomRequest::MeetingOf { identity } => {
            RoomAnswer::Meeting(send(room, |answer| Command::MeetingOf { identity, answer }).await?)
        }
        RoomRequest::AdmitsFiles { identity } => {
            RoomAnswer::AdmitsFiles(send(room, |answer| Command::AdmitsFiles { identity, answer }).await?)
        }
        RoomRequest::ShareFile { file } => {
            RoomAnswer::FileShared(send(room, |answer| Command::ShareFile { file, answer }).await?)
        }
    })
}
