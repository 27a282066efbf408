//! Long polling, for clients that no WebSocket reaches: a session is a connection whose client is a task here, which
//! requests ask for messages and give messages to.

mod answer;
pub mod body;
mod frames;
mod poller;
mod sessions;
mod token;

use std::time::Duration;

use tokio::io::DuplexStream;
use tokio::sync::oneshot;
use tokio::time::sleep;

pub(in crate::ws) use answer::Chunk;
pub(in crate::ws) use poller::{POLL_TIME, Poller};
pub use sessions::LongPollSessions;
pub(in crate::ws) use sessions::{Gone, Listed, OpenSession, Polled};
pub(in crate::ws) use token::SessionToken;

/// Bytes that the pipe between a session and its connection holds in each direction.
pub(in crate::ws) const PIPE_BYTES: usize = 16 << 10;

/// Time for a poll to fetch what a connection wrote before its end.
const LAST_TIME: Duration = Duration::from_secs(1);

/// Runs a session's connection at one end of a pipe, and its task at the other.
pub(in crate::ws) async fn serve(
    connection: impl Future<Output = ()>,
    (poller, pipe): (Poller, DuplexStream),
    listed: Listed,
) {
    let (tell, ended) = oneshot::channel();
    let connection = async {
        connection.await;
        let _ = tell.send(());
    };
    let polls = async {
        let over = async {
            let _ = ended.await;
            // Otherwise a client that does not come back would keep the session for longer, and hold up a drain.
            sleep(LAST_TIME).await;
        };
        tokio::select! {
            () = poller.run(pipe) => {}
            () = over => {}
        }
        drop(listed);
    };
    tokio::join!(connection, polls);
}

#[cfg(test)]
mod tests;
