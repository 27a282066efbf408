//! Rooms: a pure core that decides, and a task that carries out its effects.
//!
//! [`state`] is a value with one method; [`members`], [`member`], [`departed`], [`moderation`], [`chat`], [`reactions`], [`watch`], [`assistant`], [`agent`] and [`ai`] are parts
//! of it; [`io`] has its inputs and effects; [`presence`] publishes the members to those of Phoenix Presence;
//! [`outbox`] is the queue of one member, [`fanout`] those of all on this node, [`charge`] accounts for its senders; [`actor`] is the task that owns one room, [`mailbox`] its command
//! queue, [`link`] a member's way to the mailbox and from the outbox; [`events`] publishes what
//! happens in rooms, [`event_queue`] keeps it for the consumer that must not miss any, and [`recorded`] tells rooms with a journal how far that is; [`arrivals`] limits the memory of incomplete messages, and [`readiness`] probes
//! the whole. [`rules`] are the settings of a room, [`rulebook`] those that outlast a meeting, [`passwords`] hashes theirs, and [`ended`]
//! keeps those out whose meeting was ended.

pub mod actor;
pub mod agent;
pub mod agent_jobs;
pub mod ai;
mod announced;
pub mod arrivals;
pub mod assistant;
pub mod charge;
pub mod chat;
pub mod codec;
pub mod departed;
pub mod describing;
pub mod ended;
pub mod event_exchange;
pub mod event_queue;
pub mod events;
pub mod fanout;
pub mod io;
pub mod link;
pub mod log;
pub mod mailbox;
pub mod member;
pub mod members;
pub mod message;
pub mod moderation;
pub mod observers;
pub mod outbox;
pub mod passwords;
pub mod presence;
pub mod reactions;
pub mod readiness;
pub mod recorded;
pub mod registry;
pub mod replica;
pub mod requests;
pub mod rulebook;
pub mod rules;
pub mod shared;
pub mod shared_files;
pub mod shared_settings;
pub mod snapshot_throttle;
pub mod state;
pub mod watch;
