//! The load tool: rooms full of users that look and behave like real ones, and what they see.
//!
//! It is a client. It knows the room protocol from the outside and nothing of Satsuma's server, so that it loads
//! anything that speaks the protocol. It lives on one thread, and spends next to nothing on what it
//! receives: frames are counted by their headers (`frames`) and thrown away inside the kernel; only one
//! member of each room, its watcher, reads snapshots (`watch`). What it measures is the time from an update,
//! which carries its own time stamp, to the first snapshot in which the watcher finds it.
//!
//! | part | what it is |
//! |---|---|
//! | [`Options`], [`LoadTarget`] | the command line |
//! | `user`, `schedule` | **pure**: what users look like, and when they speak |
//! | `protocol`, `phoenix` | **pure**: the texts of both protocols, and those of a Phoenix server |
//! | `frames`, `deflate` | **pure**: a WebSocket client that skips |
//! | `watch`, `presence`, `histogram` | **pure**: what is seen, and how late |
//! | `inbox` | **pure**: a member's received messages |
//! | `endpoint`, `member`, `crowd` | shells: the way in, one user, all of them |
//! | `world` | what the users share |
//! | `process`, `bus` | what the servers, the tool and NATS between nodes use |
//! | [`run`], [`report`], `table`, [`main`] | a run, what it found, as text, and as a command |

mod bus;
mod command;
mod crowd;
mod deflate;
mod endpoint;
mod frames;
mod histogram;
mod inbox;
mod member;
mod options;
mod phoenix;
mod presence;
mod process;
mod protocol;
pub mod report;
pub mod run;
mod schedule;
mod table;
mod target;
mod user;
mod watch;
mod world;

pub use command::main;
pub use options::{Options, OptionsDisagree};
pub use protocol::Protocols;
pub use target::{LoadTarget, NoTarget};

#[cfg(doctest)]
#[doc = include_str!("README.md")]
struct Readme;
