//! The task of one long-poll session: the client of a connection, in place of a WebSocket's.
//!
//! The connection is that of a socket, over a pipe in memory, so that rates, memory, stalls and the close are the
//! same. What the rooms have for the client is taken only while a request waits for it, and no faster than its answer
//! is written; until then it stays in the outboxes, shared by all members, where a newer snapshot replaces an older
//! one. A request confirms what the answer before it held: the client got that, since it asks again only then.

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf};
use tokio::sync::mpsc::error::SendError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Duration, Instant, sleep_until};

use super::answer::{Answering, Chunk};
use super::frames::{FrameReader, Part, put_pong};
use crate::clock::now;
use crate::room::arrivals::ArrivalPermit;

/// Maximum time for which a request waits for messages, or for its own to be handed on.
pub(in crate::ws) const POLL_TIME: Duration = Duration::from_secs(10);

/// Time after the last poll, or without a piece of its answer taken, at which a session ends.
pub(super) const SESSION_TIME: Duration = Duration::from_secs(15);

/// Minimum space for a read.
const READ_BYTES: usize = 4 << 10;

/// Number of requests that wait for a busy task. Clients have one poll and one post under way.
const REQUESTS: usize = 2;

/// Answer to a poll.
#[derive(Debug)]
pub(super) enum Answer {
    /// Messages, as they are read.
    Messages(mpsc::Receiver<Chunk>),
    /// There were none within the time of a poll.
    Nothing,
    /// The session has ended.
    Gone,
}

/// Messages of the client.
#[derive(Debug)]
pub(super) struct Post {
    /// The messages as frames.
    pub(super) frames: BytesMut,
    /// The permit for their memory, until they are handed on.
    pub(super) _permit: Option<ArrivalPermit>,
    /// Tells that they were handed on.
    pub(super) done: oneshot::Sender<()>,
}

/// The way to the task of a session.
#[derive(Clone, Debug)]
pub(super) struct PollerHandle {
    /// Takes polls.
    pub(super) polls: mpsc::Sender<oneshot::Sender<Answer>>,
    /// Takes messages of the client.
    pub(super) posts: mpsc::Sender<Post>,
}

/// The task of a session.
#[derive(Debug)]
pub(in crate::ws) struct Poller {
    polls: mpsc::Receiver<oneshot::Sender<Answer>>,
    posts: mpsc::Receiver<Post>,
    state: PollState,
    /// Frames that the connection has not yet taken.
    outgoing: BytesMut,
    /// The post that they belong to.
    post: Option<Post>,
}

/// The polls of a session, and what is read for them.
#[derive(Debug)]
struct PollState {
    frames: FrameReader,
    /// Bytes from the connection that are not yet parsed.
    incoming: BytesMut,
    /// The poll that waits for messages.
    waiting: Option<oneshot::Sender<Answer>>,
    /// The answer that is being written.
    answering: Option<Answering>,
    /// Pings after messages that are not yet confirmed.
    pings: Vec<BytesMut>,
    /// Time for which a poll waits.
    poll_time: Duration,
    /// End of the poll, or of the session if none waits.
    deadline: Instant,
    /// True once the connection has closed.
    is_closed: bool,
}

/// The session is over.
#[derive(Debug)]
struct Over;

/// Creates a task whose polls wait for `poll_time`, and the way to it.
pub(super) fn poller(poll_time: Duration) -> (PollerHandle, Poller) {
    let ((polls, polled), (posts, posted)) = (mpsc::channel(REQUESTS), mpsc::channel(REQUESTS));
    let state = PollState {
        frames: FrameReader::default(),
        incoming: BytesMut::new(),
        waiting: None,
        answering: None,
        pings: Vec::new(),
        poll_time,
        deadline: now() + SESSION_TIME,
        is_closed: false,
    };
    let poller = Poller { polls: polled, posts: posted, state, outgoing: BytesMut::new(), post: None };
    (PollerHandle { polls, posts }, poller)
}

impl Poller {
    /// Runs until the connection has closed and everything was delivered, or no poll comes any more. The end of the
    /// pipe then ends the connection.
    pub(in crate::ws) async fn run(mut self, pipe: DuplexStream) {
        let (mut reader, mut writer) = tokio::io::split(pipe);
        loop {
            let Self { polls, posts, state, outgoing, post } = &mut self;
            state.read_available(&mut reader, outgoing).await;
            if state.is_closed && state.end_connection().is_err() {
                return;
            }
            if state.is_reading() {
                state.incoming.reserve(READ_BYTES);
            }
            let is_reading = state.is_reading();
            let PollState { incoming, waiting, answering, deadline, .. } = state;
            tokio::select! {
                biased;
                () = sleep_until(*deadline) => if state.expire().is_err() { return },
                Some(poll) = polls.recv() => if state.poll(poll, outgoing).is_err() { return },
                () = closed(waiting) => state.end_poll(),
                sent = send_next(answering) => match sent {
                    Ok(()) => state.chunk_sent(),
                    // Part of the answer is lost, and so is the session: its members' events come again.
                    Err(SendError(())) => return,
                },
                read = reader.read_buf(incoming), if is_reading => {
                    state.is_closed = matches!(read, Ok(0) | Err(_));
                }
                written = writer.write_buf(outgoing), if !outgoing.is_empty() => if written.is_err() {
                    // The connection reads no more; what it wrote last is still to be delivered.
                    outgoing.clear();
                    *post = None;
                },
                Some(mut next) = posts.recv(), if outgoing.is_empty() && post.is_none() => {
                    outgoing.unsplit(next.frames.split());
                    *post = Some(next);
                },
            }
            if outgoing.is_empty()
                && let Some(Post { done, .. }) = post.take()
            {
                let _ = done.send(());
            }
        }
    }
}

impl PollState {
    /// Begins a poll, which confirms the last answer. It ends a poll that still waits; one that comes before the end
    /// of its answer ends the session, since the rest of that is lost.
    fn poll(&mut self, poll: oneshot::Sender<Answer>, outgoing: &mut BytesMut) -> Result<(), Over> {
        if self.answering.is_some() {
            let _ = poll.send(Answer::Gone);
            return Err(Over);
        }
        if let Some(older) = self.waiting.replace(poll) {
            let _ = older.send(Answer::Nothing);
        }
        self.pings.drain(..).for_each(|ping| put_pong(&ping, outgoing));
        self.deadline = now() + self.poll_time;
        Ok(())
    }

    /// Ends a poll that was answered, or whose client does not wait any more.
    fn end_poll(&mut self) {
        self.waiting = None;
        self.deadline = now() + SESSION_TIME;
    }

    /// Answers a poll whose time is over. The session is over if no poll waits.
    fn expire(&mut self) -> Result<(), Over> {
        let poll = self.waiting.take().ok_or(Over)?;
        let _ = poll.send(Answer::Nothing);
        self.end_poll();
        Ok(())
    }

    fn is_reading(&self) -> bool {
        let has_space = self.answering.as_ref().is_none_or(Answering::has_space);
        (self.waiting.is_some() || self.answering.is_some()) && has_space && !self.is_closed
    }

    /// Takes what the connection has written already, and ends an answer of whole messages if that is all.
    async fn read_available(&mut self, reader: &mut ReadHalf<DuplexStream>, outgoing: &mut BytesMut) {
        loop {
            self.take_parts(outgoing);
            if self.answering.is_none() || !self.is_reading() {
                return;
            }
            self.incoming.reserve(READ_BYTES);
            tokio::select! {
                biased;
                read = reader.read_buf(&mut self.incoming) => {
                    self.is_closed = matches!(read, Ok(0) | Err(_));
                }
                () = std::future::ready(()) => {
                    self.finish_between_messages(|_| true);
                    return;
                }
            }
        }
    }

    /// Handles the bytes that are there, as far as the answer has space for them.
    fn take_parts(&mut self, outgoing: &mut BytesMut) {
        while self.is_reading() {
            self.finish_between_messages(Answering::is_long);
            let space = self.answering.as_ref().map_or(0, Answering::space);
            if self.answering.is_some() && space == 0 {
                return;
            }
            match self.frames.next(&mut self.incoming, space) {
                None => return,
                Some(Part::TextBegins) => {
                    // Otherwise it is the first message of the next poll.
                    if !self.begin_message() {
                        self.frames.rewind();
                        return;
                    }
                }
                Some(Part::Text { bytes, is_end }) => {
                    if let Some(answering) = &mut self.answering {
                        answering.add(&bytes, is_end);
                    }
                }
                // The messages before it were in earlier answers, which this poll confirms.
                Some(Part::Ping(ping)) if self.answering.is_none() => put_pong(&ping, outgoing),
                Some(Part::Ping(ping)) => self.pings.push(ping),
                Some(Part::Close) => self.is_closed = true,
            }
        }
    }

    /// Ends an answer of whole messages, if it meets a condition.
    fn finish_between_messages(&mut self, condition: impl FnOnce(&Answering) -> bool) {
        if self.frames.is_between_frames()
            && let Some(answering) = self.answering.as_mut().filter(|answering| condition(answering))
        {
            answering.finish();
        }
    }

    /// Begins a message in the answer, and the answer if it is the first; false if nobody waits for that any more.
    fn begin_message(&mut self) -> bool {
        if let Some(poll) = self.waiting.take() {
            let (answering, chunks) = Answering::begin();
            let is_heard = poll.send(Answer::Messages(chunks)).is_ok();
            self.end_poll();
            self.answering = is_heard.then_some(answering);
        }
        match &mut self.answering {
            Some(answering) => {
                answering.begin_message();
                true
            }
            None => false,
        }
    }

    fn chunk_sent(&mut self) {
        self.deadline = now() + SESSION_TIME;
        self.answering.take_if(|answering| answering.is_finished());
    }

    /// Carries out the end of the connection: the answer ends, or the session.
    fn end_connection(&mut self) -> Result<(), Over> {
        if let Some(poll) = self.waiting.take() {
            let _ = poll.send(Answer::Gone);
        }
        match &mut self.answering {
            Some(answering) if self.frames.is_between_frames() => {
                answering.finish();
                Ok(())
            }
            _ => Err(Over),
        }
    }
}

/// Waits until the client of a poll does not wait for it any more.
async fn closed(waiting: &mut Option<oneshot::Sender<Answer>>) {
    match waiting {
        Some(poll) => poll.closed().await,
        None => std::future::pending().await,
    }
}

/// Waits until the next piece of the answer is full and wanted, and sends it.
async fn send_next(answering: &mut Option<Answering>) -> Result<(), SendError<()>> {
    match answering {
        Some(answering) => answering.send_next().await,
        None => std::future::pending().await,
    }
}
