//! An object that several nodes share, in the task of the one that owns it.

use std::mem;
use std::time::Duration;

use tracing::warn;

use super::batch::{Batch, Effect};
use super::{Actor, unix_millis};
use crate::clock::now;
use crate::durable::cluster::journal::ObjectJournal;
use crate::durable::command::{Command, Reply, SocketMessage};
use crate::durable::error::ObjectError;
use crate::durable::object::{Object, Unstored};
use crate::protocol::close::Close;

/// Interval at which an owner with sockets, which ask for nothing, looks if it still is one.
pub(super) const CONFIRMED_EVERY: Duration = Duration::from_secs(5);

/// Time after a failure of the engine for which it is not asked again: others wait for the same.
const AWAY: Duration = Duration::from_secs(1);

impl Actor {
    /// Reads the object from its journal, and claims it.
    ///
    /// # Errors
    /// [`ObjectError::Elsewhere`], or an error of the engine.
    pub(super) async fn open_journal(&mut self) -> Result<(), ObjectError> {
        let Some(cluster) = &self.deps.cluster else { return Err(ObjectError::Internal) };
        if self.away_until.is_some_and(|until| now() < until) {
            return Err(ObjectError::EngineAway);
        }
        let opened = match ObjectJournal::open(cluster, &self.id).await {
            // Each time that it is read adds a claim, also if nothing is ever written.
            Ok((mut journal, saved)) => {
                journal.compact(&saved.values, &saved.row).await.map(|()| (journal, saved))
            }
            Err(error) => Err(error),
        };
        let (journal, saved) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                self.let_go(&error);
                return Err(error);
            }
        };
        self.away_until = None;
        self.counted = Some(saved.row);
        (self.journal, self.object) = (Some(journal), Some(Object::restore(saved)));
        self.measure();
        if mem::take(&mut self.is_untold) {
            self.tell_state();
        }
        Ok(())
    }

    /// Forgets the object: another node has it, or nobody knows what of it is stored.
    fn let_go(&mut self, error: &ObjectError) {
        let was_owner = self.journal.take().is_some();
        (self.object, self.counted, self.init) = (None, None, None);
        match error {
            ObjectError::Moved | ObjectError::Elsewhere => {
                if was_owner {
                    self.deps.metrics.durable_fenced.inc();
                    warn!(event = "objectFenced", object = self.id.as_str(), "another node took it over");
                }
                // Their clients come back by way of the new owner.
                self.feeds.values().for_each(|feed| feed.close(Close::ServiceRestart));
            }
            _ => {
                self.away_until = Some(now() + AWAY);
                self.is_untold = !self.feeds.is_empty();
            }
        }
    }

    /// Makes sure that this node owns the object, before a command is carried out. One that cannot be is given back, or
    /// told the reason.
    pub(super) async fn admit(&mut self, command: Command, batch: &mut Batch) -> Option<Command> {
        if matches!(command, Command::Gone(_)) {
            return Some(command);
        }
        let error = match self.own(batch).await {
            Ok(()) => return Some(command),
            Err(error) => error,
        };
        let is_elsewhere = error == ObjectError::Elsewhere;
        let effect = match command {
            Command::Request(work) if is_elsewhere => {
                let _ = work.answer.send(Reply::Elsewhere(work.request));
                return None;
            }
            Command::Subscribe { answer, .. } if is_elsewhere => {
                let _ = answer.send(Some(Err(error)));
                return None;
            }
            Command::Request(work) => Effect::Answer(work.answer, Err(error)),
            Command::Subscribe { socket, encoding, answer } => {
                Effect::Subscribe { socket, encoding, answer, outcome: Err(error) }
            }
            Command::Message(SocketMessage { socket, id, ask, .. }) => {
                Effect::Message { socket, at: unix_millis(), id, ask, outcome: Err(error) }
            }
            // It stays due.
            Command::Alarm { .. } => return None,
            command => return Some(command),
        };
        self.effect(effect, batch).await;
        None
    }

    async fn own(&mut self, batch: &Batch) -> Result<(), ObjectError> {
        if batch.unstored.is_some() {
            // Its step will tell.
            return Ok(());
        }
        if let Some(journal) = &mut self.journal
            && let Err(error) = journal.confirm().await
        {
            self.let_go(&error);
        }
        self.load().await
    }

    /// Looks if sockets are still told what happens, which nobody else does while there are no calls.
    pub(super) async fn look_after_sockets(&mut self) {
        if !self.is_stopping {
            // Whoever has lost the object has closed them.
            let _ = self.own(&Batch::default()).await;
        }
    }

    /// Stores the changes of a batch in the journal, and carries out what follows.
    ///
    /// # Errors
    /// The reason for which they are not stored; everyone who waited for them was told, and the object is forgotten.
    pub(super) async fn store_in_journal(
        &mut self,
        unstored: Unstored,
        effects: Vec<Effect>,
        batch: &mut Batch,
    ) -> Result<(), ObjectError> {
        let Unstored { changes, before } = unstored;
        let committed = match (&mut self.journal, &self.object) {
            (Some(journal), Some(object)) => {
                let (values, after) = (object.state().clone(), *object.row());
                let committed = journal.commit(&changes, &values, (&before, &after)).await;
                committed.map(|()| (values, after))
            }
            _ => Err(ObjectError::EngineAway),
        };
        self.measure();
        let (values, row) = match committed {
            Ok(committed) => committed,
            Err(error) => {
                self.deps.metrics.durable_commit_failures.inc();
                batch.data = None;
                for effect in effects {
                    self.fail(effect, &error).await;
                }
                self.let_go(&error);
                return Err(error);
            }
        };
        for effect in effects {
            self.carry_out(effect).await;
        }
        let Some(journal) = &mut self.journal else { return Ok(()) };
        if !row.is_stored() {
            journal.remove().await;
        } else if let Err(error) = journal.compact(&values, &row).await {
            self.let_go(&error);
        }
        Ok(())
    }
}
