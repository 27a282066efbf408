//! Framing of one TCP connection (RFC 4571: a 16-bit length before each frame), with its timeouts.

use std::io;
use std::pin::pin;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::Undelivered;
use crate::settings::TcpLimits;

/// Longest frame that is read, in bytes; packets of media and DTLS are shorter.
const MAX_BYTES: usize = 2048;

/// Size of the read buffer, in bytes.
const READ_BYTES: usize = 8 << 10;

/// Most frames that are written at once. Audio that is queued meanwhile waits for them.
const FRAMES_AT_ONCE: usize = 8;

/// Sending half of a connection's queues.
#[derive(Debug)]
pub(super) struct FrameSender {
    first: mpsc::Sender<Waiting>,
    video: mpsc::Sender<Waiting>,
}

/// Receiving half of a connection's queues.
#[derive(Debug)]
pub(super) struct FrameReceiver {
    first: mpsc::Receiver<Waiting>,
    video: mpsc::Receiver<Waiting>,
}

/// Time at which a frame was queued, and its contents.
type Waiting = (Instant, Vec<u8>);

impl FrameSender {
    /// Creates the queues, with room for `frames` frames each.
    pub(super) fn new(frames: usize) -> (Self, FrameReceiver) {
        let ((first, first_end), (video, video_end)) = (mpsc::channel(frames), mpsc::channel(frames));
        (Self { first, video }, FrameReceiver { first: first_end, video: video_end })
    }

    /// Queues a frame for the connection.
    #[expect(clippy::disallowed_methods, reason = "a shell: frames wait in real time")]
    pub(super) fn send(&self, is_video: bool, contents: Vec<u8>) -> Result<(), Undelivered> {
        let queue = if is_video { &self.video } else { &self.first };
        queue.try_send((Instant::now(), contents)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Undelivered::Full,
            mpsc::error::TrySendError::Closed(_) => Undelivered::Gone,
        })
    }
}

impl FrameReceiver {
    /// The next frame, video last; `None` once the media thread has dropped the connection.
    async fn next(&mut self) -> Option<Waiting> {
        tokio::select! {
            biased;
            waiting = self.first.recv() => waiting,
            waiting = self.video.recv() => waiting,
        }
    }

    /// The next frame that is already queued.
    fn try_next(&mut self) -> Option<Waiting> {
        self.first.try_recv().or_else(|_| self.video.try_recv()).ok()
    }
}

/// Reason that a connection ended or was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The peer or the media thread closed it.
    Closed,
    /// The system reported an error.
    Failed,
    /// A frame was empty or too long.
    BadFrame,
    /// Its first frame was no connectivity check (RFC 6544 section 7.2).
    NoCheck,
    /// Its first frame took too long.
    Slow,
    /// The media server sent no answer: the peer is unknown to all sessions.
    Unanswered,
    /// Nothing was received for too long.
    Idle,
    /// The peer did not read what was sent to it.
    Unread,
    /// The limit of all connections was reached.
    TooMany,
    /// The limit of connections of its network was reached, or its address has one already.
    TooManyOfAddress,
}

impl End {
    /// Label of the reason in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Failed => "failed",
            Self::BadFrame => "bad_frame",
            Self::NoCheck => "no_check",
            Self::Slow => "slow",
            Self::Unanswered => "unanswered",
            Self::Idle => "idle",
            Self::Unread => "unread",
            Self::TooMany => "too_many",
            Self::TooManyOfAddress => "too_many_of_address",
        }
    }
}

/// Reads and writes frames until either direction ends.
pub(super) async fn serve<S, A, F>(
    stream: S,
    arrived: A,
    outgoing: FrameReceiver,
    late: impl Fn(),
    limits: TcpLimits,
) -> End
where
    S: AsyncRead + AsyncWrite,
    A: Fn(Vec<u8>) -> F,
    F: Future<Output = ()>,
{
    let (reader, mut writer) = tokio::io::split(stream);
    let mut reading = pin!(read(reader, arrived, limits));
    let closed = tokio::select! {
        end = &mut reading => return end,
        end = write(&mut writer, outgoing, late, limits) => end,
    };
    if closed == End::Closed {
        // With unread bytes the system would reset the connection, and the last frames sent to the peer could be lost.
        let closing = async { tokio::join!(writer.shutdown(), reading) };
        let _ = timeout(limits.closing, closing).await;
    }
    closed
}

async fn read<R, A, F>(reader: R, arrived: A, limits: TcpLimits) -> End
where
    R: AsyncRead + Unpin,
    A: Fn(Vec<u8>) -> F,
    F: Future<Output = ()>,
{
    let mut reader = BufReader::with_capacity(READ_BYTES, reader);
    match timeout(limits.first, frame(&mut reader)).await {
        Ok(Ok(contents)) if is_check(&contents) => arrived(contents).await,
        Ok(Ok(_)) => return End::NoCheck,
        Ok(Err(end)) => return end,
        Err(_) => return End::Slow,
    }
    loop {
        match timeout(limits.idle, frame(&mut reader)).await {
            Ok(Ok(contents)) => arrived(contents).await,
            Ok(Err(end)) => return end,
            Err(_) => return End::Idle,
        }
    }
}

async fn frame<R: AsyncRead + Unpin>(reader: &mut R) -> Result<Vec<u8>, End> {
    let length = usize::from(reader.read_u16().await.map_err(end_of)?);
    if length == 0 || length > MAX_BYTES {
        return Err(End::BadFrame);
    }
    let mut contents = vec![0; length];
    reader.read_exact(&mut contents).await.map_err(end_of)?;
    Ok(contents)
}

#[expect(clippy::disallowed_methods, reason = "a shell: frames wait in real time")]
async fn write<W: AsyncWrite + Unpin>(
    mut writer: W,
    mut outgoing: FrameReceiver,
    late: impl Fn(),
    limits: TcpLimits,
) -> End {
    let mut bytes = Vec::new();
    let mut next = match timeout(limits.answered, outgoing.next()).await {
        Ok(next) => next,
        Err(_) => return End::Unanswered,
    };
    while let Some(waiting) = next {
        bytes.clear();
        let now = Instant::now();
        let more = std::iter::from_fn(|| outgoing.try_next());
        for (since, frame) in std::iter::once(waiting).chain(more).take(FRAMES_AT_ONCE) {
            // Longer frames are never queued.
            let Ok(length) = u16::try_from(frame.len()) else { continue };
            if now.duration_since(since) > limits.waiting {
                late();
                continue;
            }
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.extend_from_slice(&frame);
        }
        match timeout(limits.unread, writer.write_all(&bytes)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return end_of(error),
            Err(_) => return End::Unread,
        }
        next = outgoing.next().await;
    }
    End::Closed
}

fn end_of(error: io::Error) -> End {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => End::Closed,
        _ => End::Failed,
    }
}

/// True for a binding request (RFC 8489 sections 5 and 18.2).
fn is_check(contents: &[u8]) -> bool {
    contents.len() >= 20 && contents.starts_with(&[0, 1]) && contents[4..8] == [0x21, 0x12, 0xA4, 0x42]
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::io::DuplexStream;
    use tokio::task::JoinHandle;

    use super::*;

    /// A binding request without attributes.
    pub(in crate::net) const CHECK: [u8; 20] =
        [0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];

    /// A frame as sent on the connection.
    pub(in crate::net) fn framed(contents: &[u8]) -> Vec<u8> {
        [&(contents.len() as u16).to_be_bytes(), contents].concat()
    }

    /// A connection under test.
    struct Served {
        peer: DuplexStream,
        arrived: mpsc::UnboundedReceiver<Vec<u8>>,
        outgoing: FrameSender,
        late: Arc<Mutex<usize>>,
        end: JoinHandle<End>,
    }

    fn start(buffer: usize) -> Served {
        let (stream, peer) = tokio::io::duplex(buffer);
        let (sender, arrived) = mpsc::unbounded_channel();
        let (outgoing, waiting) = FrameSender::new(64);
        let late = Arc::new(Mutex::new(0));
        let count = late.clone();
        let count = move || *count.lock().unwrap() += 1;
        let take = move |contents| {
            sender.send(contents).unwrap();
            std::future::ready(())
        };
        #[expect(clippy::disallowed_methods, reason = "a test awaits its end")]
        let end = tokio::spawn(serve(stream, take, waiting, count, TcpLimits::default()));
        Served { peer, arrived, outgoing, late, end }
    }

    /// A connection whose first check was answered.
    async fn start_answered(buffer: usize) -> Served {
        let mut served = start(buffer);
        served.peer.write_all(&framed(&CHECK)).await.unwrap();
        served.arrived.recv().await.unwrap();
        served.outgoing.send(false, b"ok".to_vec()).unwrap();
        served.peer.read_exact(&mut [0; 4]).await.unwrap();
        served
    }

    #[tokio::test(start_paused = true)]
    async fn split_frames_are_reassembled() {
        let mut served = start(3);
        let long: Vec<u8> = (0..MAX_BYTES).map(|n| n as u8).collect();
        let wire = [framed(&CHECK), framed(b"x"), framed(&long)].concat();
        served.peer.write_all(&wire).await.unwrap();
        for contents in [&CHECK[..], b"x", &long] {
            assert_eq!(served.arrived.recv().await.unwrap(), contents);
        }
        drop(served.peer);
        assert_eq!(served.end.await.unwrap(), End::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn sent_frames_have_a_length_prefix() {
        let mut served = start_answered(1 << 17).await;
        served.outgoing.send(false, b"hello".to_vec()).unwrap();
        served.outgoing.send(false, vec![7; 1 << 16]).unwrap();
        served.outgoing.send(false, b"again".to_vec()).unwrap();
        let mut wire = [0; 14];
        served.peer.read_exact(&mut wire).await.unwrap();
        assert_eq!(&wire, b"\0\x05hello\0\x05again", "one too long for a frame spoils no other");
    }

    #[tokio::test(start_paused = true)]
    async fn unauthenticated_peer_is_closed() {
        for (wire, end) in [
            (&b"GET / HTTP/1.1\r\n\r\n"[..], End::BadFrame),
            (b"\0\0", End::BadFrame),
            (&framed(&[1; MAX_BYTES + 1]), End::BadFrame),
            (&framed(b"hello"), End::NoCheck),
            (&framed(&[0; 40]), End::NoCheck),
            (&framed(&CHECK[..19]), End::NoCheck),
            (b"\0\x14\0\x01", End::Slow),
            (b"", End::Slow),
            (&framed(&CHECK), End::Unanswered),
        ] {
            let mut served = start(1 << 16);
            served.peer.write_all(wire).await.unwrap();
            assert_eq!(served.end.await.unwrap(), end, "{wire:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn repeated_checks_do_not_extend_answer_timeout() {
        let mut served = start(1 << 16);
        let written = Arc::new(Mutex::new(0));
        while !served.end.is_finished() {
            // Writing fails once the connection has ended.
            if served.peer.write_all(&framed(&CHECK)).await.is_ok() {
                *written.lock().unwrap() += 1;
            }
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
        assert_eq!(served.end.await.unwrap(), End::Unanswered);
        assert!((9..=11).contains(&*written.lock().unwrap()), "{written:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn idle_peer_is_closed() {
        let served = start_answered(1 << 16).await;
        assert_eq!(served.end.await.unwrap(), End::Idle);
    }

    #[tokio::test(start_paused = true)]
    async fn peer_that_reads_nothing_is_closed() {
        let mut served = start_answered(1024).await;
        for _ in 0..4 {
            served.outgoing.send(false, vec![0; 1000]).unwrap();
        }
        served.peer.write_all(&framed(b"media")).await.unwrap();
        assert_eq!(served.arrived.recv().await.unwrap(), b"media");
        assert_eq!(served.end.await.unwrap(), End::Unread);
    }

    #[tokio::test(start_paused = true)]
    async fn dropped_sender_closes_connection() {
        let served = start_answered(1 << 16).await;
        drop(served.outgoing);
        assert_eq!(served.end.await.unwrap(), End::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn audio_is_sent_before_queued_video() {
        let mut served = start_answered(16).await;
        for number in 0..20 {
            served.outgoing.send(true, vec![number; 100]).unwrap();
        }
        // Lets the connection start writing the first few frames.
        tokio::task::yield_now().await;
        served.outgoing.send(false, b"sound".to_vec()).unwrap();
        let mut wire = vec![0; 20 * 102 + 7];
        served.peer.read_exact(&mut wire).await.unwrap();
        let place = wire.windows(7).position(|bytes| bytes == b"\0\x05sound").unwrap();
        assert!(place <= FRAMES_AT_ONCE * 102, "{place}");
    }

    #[tokio::test(start_paused = true)]
    async fn frame_queued_too_long_is_dropped() {
        let mut served = start_answered(16).await;
        for number in 0..20 {
            served.outgoing.send(true, vec![number; 100]).unwrap();
        }
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        served.outgoing.send(true, b"now".to_vec()).unwrap();
        let mut wire = vec![0; FRAMES_AT_ONCE * 102 + 5];
        served.peer.read_exact(&mut wire).await.unwrap();
        assert!(wire.ends_with(b"\0\x03now"), "what was under way, and what is new");
        assert_eq!(*served.late.lock().unwrap(), 20 - FRAMES_AT_ONCE);
    }
}
