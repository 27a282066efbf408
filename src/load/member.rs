//! One user of a load test: its socket, and the messages it sends.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::select;
use tokio::sync::oneshot;
use tokio::time::{sleep_until, timeout};

use super::deflate::{Agreed, Context};
use super::endpoint::{OpenSocket, Refusal};
use super::frames::{self, ClientFrame, Encoding, FrameEvent, Frames, Payloads};
use super::inbox::{Arrival, Inbox, Standing};
use super::phoenix;
use super::presence::Presences;
use super::protocol::{Protocol, Speaker};
use super::schedule::Schedule;
use super::user::{SyntheticUser, UpdateStamp};
use super::world::{RunContext, RunStage, chance, now};

/// Timeout of the answer to a join.
const JOIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Timeout of a user that left for its socket to be closed.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes per read if the payload is not needed: the headers, and little of what follows.
const READ_BYTES: usize = 4 << 10;

/// Bytes per read if the payload is needed.
const WATCHER_READ_BYTES: usize = 64 << 10;

/// Less than this is sooner read than thrown away.
const WORTH_SKIPPING: u64 = 4 << 10;

/// Reads of a socket before it yields to the others.
const READS_AT_A_TIME: usize = 32;

/// The most bytes that wait for a server which does not read.
const MAX_UNSENT: usize = 4 << 20;

/// The code of a client that is done.
const NORMAL: u16 = 1000;

/// The code in browsers for a close frame without a code.
const NO_CODE: u16 = 1005;

/// The code in browsers for an end without a close frame.
const NO_CLOSE: u16 = 1006;

/// A room, as its members know it.
#[derive(Debug)]
pub struct WatchedRoom {
    /// Its name, of letters, digits and `-`.
    pub name: String,
    /// The presence of its watcher.
    pub watch: Cell<Watch>,
    /// Its presences, if its watcher gets any.
    pub presences: RefCell<Option<Presences>>,
}

/// The presence of a room's watcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    /// Its watcher is in.
    On,
    /// Its watcher has not come yet, or is gone.
    Off,
}

/// A member's role beside sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It reads every snapshot.
    Watcher,
    /// It counts bytes.
    Other,
}

/// A way of leaving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// With `userLeft`, or `phx_leave`.
    Properly,
    /// As if its network died.
    Abruptly,
}

/// A user that is to come.
#[derive(Debug)]
pub struct PendingUser {
    /// State shared with all other members.
    pub world: Rc<RunContext>,
    /// The room to join.
    pub room: Rc<WatchedRoom>,
    /// Its number, which no other one of this run has.
    pub number: u32,
    /// Its server, by the place among all.
    pub server: usize,
    /// Its role in the room.
    pub role: Role,
    /// Its protocol.
    pub protocol: Protocol,
    /// The time between two of its updates, if it sends any.
    pub period: Option<Duration>,
}

/// The end of a member's socket.
#[derive(Debug)]
enum EndReason {
    /// The server said so, with a code unless it gave none.
    Closed(Option<u16>),
    /// The connection ended without a close.
    Lost,
    /// Invalid data was received, or the server stopped reading.
    Broken(String),
}

impl PendingUser {
    /// Comes in: logs in, and opens the room's socket.
    ///
    /// # Errors
    /// The [`Refusal`] with which that ended.
    pub async fn come(self) -> Result<UserSession, Refusal> {
        let user = SyntheticUser::random();
        let door = &self.world.doors[self.server];
        let cookies = door.log_in(&user.name).await?;
        let asked = now();
        let opened = door.open(self.protocol, &self.room.name, user.id, cookies.as_deref()).await?;
        let OpenSocket { stream, rest, agreed } = opened;
        let encoding = if agreed.is_some() { Encoding::Deflate } else { Encoding::Plain };
        let context = agreed.as_ref().map_or(Context::None, |agreed| agreed.context);
        let inbox = Inbox::new(self.protocol, self.role, self.number, context);
        let mut session = UserSession {
            user,
            stream,
            rest,
            asked: Some(asked),
            speaker: Speaker::new(self.protocol, &self.room.name),
            heartbeat: Schedule::new(now(), self.protocol.heartbeat_period(), chance()),
            updates: self.period.map(|period| Schedule::new(now(), period, chance())),
            // The answer to a join is read by everyone.
            frames: Frames::new(Payloads::Kept, encoding),
            inbox,
            measured: 0,
            unsent: Vec::new(),
            is_leaving: false,
            member: self,
        };
        if session.member.protocol == Protocol::Phoenix {
            timeout(JOIN_TIMEOUT, session.join())
                .await
                .unwrap_or_else(|_| Err(Refusal::new("join", "no answer in 10 s")))?;
        }
        session.frames.keep(session.inbox.payloads());
        let PendingUser { world, room, .. } = &session.member;
        if session.inbox.is_watching() {
            room.watch.set(Watch::On);
            *room.presences.borrow_mut() = session.inbox.has_presences().then(Presences::default);
        }
        let mut counts = world.counts.borrow_mut();
        counts.joined += 1;
        if let Some(Agreed { text, .. }) = agreed {
            counts.compression.get_or_insert(text);
        }
        drop(counts);
        Ok(session)
    }
}

/// A user that is in its room.
#[derive(Debug)]
pub struct UserSession {
    member: PendingUser,
    user: SyntheticUser,
    stream: TcpStream,
    /// Unread bytes that came with the handshake.
    rest: Vec<u8>,
    /// Time at which the connection was requested; none after the first message.
    asked: Option<Instant>,
    speaker: Speaker,
    heartbeat: Schedule,
    updates: Option<Schedule>,
    frames: Frames,
    inbox: Inbox,
    /// Number of its measured updates.
    measured: u32,
    unsent: Vec<u8>,
    is_leaving: bool,
}

impl UserSession {
    /// Joins the room's channel, and reads until that is answered.
    async fn join(&mut self) -> Result<(), Refusal> {
        let lost = |_| Refusal::new("join", "the connection ended");
        let id = self.user.id;
        self.send(|speaker, text| speaker.join(id, text)).map_err(lost)?;
        let mut bytes = std::mem::take(&mut self.rest);
        loop {
            let mut rest = &bytes[..];
            let event = self.frames.next(&mut rest).map_err(|error| Refusal::new("join", error))?;
            let used = bytes.len() - rest.len();
            drop(bytes.drain(..used));
            match event {
                Some(FrameEvent::Message { .. }) => break,
                Some(event) => self.heed(event).map_err(lost)?,
                None => {
                    let read = self.stream.ready(Interest::READABLE).await;
                    read.map_err(|_| lost(EndReason::Lost))?;
                    let mut scratch = [0; READ_BYTES];
                    match self.stream.try_read(&mut scratch) {
                        Ok(0) => return Err(lost(EndReason::Lost)),
                        Ok(read) => bytes.extend_from_slice(&scratch[..read]),
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        Err(_) => return Err(lost(EndReason::Lost)),
                    }
                }
            }
        }
        self.rest = bytes;
        phoenix::joined(self.frames.message().0).map_err(|reason| Refusal::new("join", reason))
    }

    /// Stays until it is told to leave, or the server ends it.
    pub async fn stay(mut self, leave: oneshot::Receiver<Leave>) {
        let left = self.until_told(leave).await;
        if self.inbox.is_watching() {
            self.member.room.watch.set(Watch::Off);
        }
        let world = self.member.world.clone();
        match left {
            Ok(Leave::Abruptly) => world.counts.borrow_mut().dropped += 1,
            Ok(Leave::Properly) => match timeout(LEAVE_TIMEOUT, self.leave()).await {
                Ok(EndReason::Broken(why)) => world.count_broken(why),
                Ok(EndReason::Closed(_) | EndReason::Lost) => world.counts.borrow_mut().left += 1,
                Err(_) => world.counts.borrow_mut().unanswered += 1,
            },
            Err(EndReason::Closed(code)) => world.count_close(code.unwrap_or(NO_CODE)),
            Err(EndReason::Lost) => world.count_close(NO_CLOSE),
            Err(EndReason::Broken(why)) => world.count_broken(why),
        }
    }

    async fn until_told(&mut self, mut leave: oneshot::Receiver<Leave>) -> Result<Leave, EndReason> {
        let rest = std::mem::take(&mut self.rest);
        self.take_in(&rest)?;
        self.send(Speaker::heartbeat)?;
        // A client says once how it is, however idle it is afterwards.
        self.update(now(), Duration::ZERO)?;
        let mut timer = pin!(sleep_until(self.next().into()));
        loop {
            select! {
                biased;
                how = &mut leave => return Ok(how.unwrap_or(Leave::Abruptly)),
                () = &mut timer => {
                    self.speak(now())?;
                    timer.as_mut().reset(self.next().into());
                }
                moved = self.move_bytes() => moved?,
            }
        }
    }

    /// Says that it leaves, and reads on until the socket is closed.
    async fn leave(&mut self) -> EndReason {
        self.is_leaving = true;
        let mut moved = self.send(Speaker::leave);
        loop {
            match moved {
                Ok(()) => moved = self.move_bytes().await,
                Err(gone) => return gone,
            }
        }
    }

    /// The time at which the next message is due.
    fn next(&self) -> Instant {
        let heartbeat = self.heartbeat.due();
        self.updates.map_or(heartbeat, |updates| updates.due().min(heartbeat))
    }

    /// Sends the messages that are due.
    fn speak(&mut self, now: Instant) -> Result<(), EndReason> {
        while self.heartbeat.take(now).is_some() {
            self.send(Speaker::heartbeat)?;
        }
        while let Some(late) = self.updates.as_mut().and_then(|updates| updates.take(now)) {
            self.update(now, late)?;
        }
        Ok(())
    }

    fn update(&mut self, now: Instant, late: Duration) -> Result<(), EndReason> {
        let PendingUser { world, room, number, .. } = &self.member;
        let world = world.clone();
        let mut update = 0;
        match world.stage.get() {
            RunStage::Quiet => return Ok(()),
            RunStage::Unmeasured => {}
            RunStage::Measured => {
                let mut counts = world.counts.borrow_mut();
                counts.sent += 1;
                counts.latest = counts.latest.max(late + now.elapsed());
                if room.watch.get() == Watch::On && !self.inbox.is_watching() {
                    counts.watched += 1;
                    self.measured += 1;
                    update = self.measured;
                }
            }
        }
        let stamp = UpdateStamp { member: *number, update, at: world.micros() };
        let mut text = world.text.borrow_mut();
        text.clear();
        self.speaker.update(&self.user, stamp, &mut text);
        self.say(ClientFrame::Text(&text))
    }

    fn send(&mut self, write: impl FnOnce(&mut Speaker, &mut String)) -> Result<(), EndReason> {
        let mut text = String::new();
        write(&mut self.speaker, &mut text);
        self.say(ClientFrame::Text(&text))
    }

    fn say(&mut self, frame: ClientFrame<'_>) -> Result<(), EndReason> {
        // Masks keep pages from writing what proxies would take for requests; here the time is enough.
        let key = (self.member.world.micros() as u32).to_le_bytes();
        frames::write(frame, key, &mut self.unsent);
        self.flush()
    }

    /// Waits until the socket can be read or written, and does it.
    async fn move_bytes(&mut self) -> Result<(), EndReason> {
        let interest =
            if self.unsent.is_empty() { Interest::READABLE } else { Interest::READABLE | Interest::WRITABLE };
        let ready = self.stream.ready(interest).await.map_err(|_| EndReason::Lost)?;
        if ready.is_writable() {
            self.flush()?;
        }
        if ready.is_readable() { self.read() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), EndReason> {
        while !self.unsent.is_empty() {
            match self.stream.try_write(&self.unsent) {
                Ok(sent) => drop(self.unsent.drain(..sent)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // Reading tells the end, and perhaps why the server went.
                Err(_) => self.unsent.clear(),
            }
        }
        if self.unsent.len() > MAX_UNSENT {
            return Err(EndReason::Broken("the server reads nothing".to_owned()));
        }
        Ok(())
    }

    fn read(&mut self) -> Result<(), EndReason> {
        let world = self.member.world.clone();
        let mut scratch = world.scratch.borrow_mut();
        let read_bytes = if self.inbox.is_watching() { WATCHER_READ_BYTES } else { READ_BYTES };
        for _ in 0..READS_AT_A_TIME {
            let skippable = self.frames.skippable();
            let is_skipped = skippable >= WORTH_SKIPPING;
            let read = if is_skipped {
                let most = usize::try_from(skippable).unwrap_or(usize::MAX).min(scratch.len());
                discard(&self.stream, &mut scratch[..most])
            } else {
                self.stream.try_read(&mut scratch[..read_bytes])
            };
            let read = match read {
                Ok(0) => return Err(EndReason::Lost),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(_) => return Err(EndReason::Lost),
            };
            if world.stage.get() == RunStage::Measured {
                world.counts.borrow_mut().bytes += read as u64;
            }
            if !is_skipped {
                self.take_in(&scratch[..read])?;
            } else if let Some(event) = self.frames.skip(read as u64) {
                self.heed(event)?;
            }
        }
        Ok(())
    }

    fn take_in(&mut self, mut bytes: &[u8]) -> Result<(), EndReason> {
        let broken = |error: frames::Broken| EndReason::Broken(error.to_string());
        while let Some(event) = self.frames.next(&mut bytes).map_err(broken)? {
            self.heed(event)?;
        }
        Ok(())
    }

    fn heed(&mut self, event: FrameEvent) -> Result<(), EndReason> {
        match event {
            FrameEvent::Message { wire_bytes } => self.count(wire_bytes),
            FrameEvent::Ping(payload) => self.say(ClientFrame::Pong(&payload)),
            FrameEvent::Close(code) => {
                frames::write(ClientFrame::Close(code), [0; 4], &mut self.unsent);
                // The server need not read the answer.
                let _ = self.stream.try_write(&self.unsent);
                Err(EndReason::Closed(code))
            }
        }
    }

    fn count(&mut self, wire_bytes: u64) -> Result<(), EndReason> {
        let PendingUser { world, room, .. } = &self.member;
        let is_measured = world.stage.get() == RunStage::Measured;
        let mut counts = world.counts.borrow_mut();
        if let Some(asked) = self.asked.take() {
            counts.joins.record(u64::try_from(asked.elapsed().as_micros()).unwrap_or(u64::MAX));
        }
        counts.frames += u64::from(is_measured);
        // The clock is read before the tool's own work.
        let arrival = Arrival { wire_bytes, at: world.micros(), is_measured };
        let standing = self.inbox.take(&self.frames, arrival, room, &world.servers.borrow(), &mut counts);
        drop(counts);
        match standing.map_err(EndReason::Broken)? {
            Standing::Member => Ok(()),
            // The socket could have other channels, so it is the client that ends it.
            Standing::ChannelClosed if self.is_leaving => self.say(ClientFrame::Close(Some(NORMAL))),
            Standing::ChannelClosed => Err(EndReason::Broken("the server closed the channel".to_owned())),
        }
    }
}

/// Throws away what came, at most as much as `scratch` holds, without copying it.
#[cfg(target_os = "linux")]
fn discard(stream: &TcpStream, scratch: &mut [u8]) -> io::Result<usize> {
    use rustix::net::{RecvFlags, recv};
    stream.try_io(Interest::READABLE, || Ok(recv(stream, scratch, RecvFlags::TRUNC)?.1))
}

/// Throws away what came, at most as much as `scratch` holds.
#[cfg(not(target_os = "linux"))]
fn discard(stream: &TcpStream, scratch: &mut [u8]) -> io::Result<usize> {
    stream.try_read(scratch)
}
