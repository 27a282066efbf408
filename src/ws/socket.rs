//! Frames on a byte stream: the library reads them, we write them.
//!
//! Incoming frames have masks, fragments and rules, which the library knows. Outgoing ones are a
//! header and bytes that many sockets share; writing them ourselves spares a copy a socket.

use std::collections::VecDeque;
use std::io::{self, Cursor, IoSlice, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tungstenite::error::ProtocolError;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};
use tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use tungstenite::{Error, Message};

use crate::protocol::close::Close;

/// What is read at a time, and what an idle socket costs; the library's default is 128 KiB.
const READ_BUFFER_BYTES: usize = 4096;

/// The longest header of a frame without a mask (RFC 6455 section 5.2).
const HEADER_BYTES: usize = 10;

/// The longest header of a frame with a mask (RFC 6455 section 5.2).
const LONGEST_HEADER_BYTES: usize = 14;

/// A frame of more bytes leaves nothing behind; it is more than is read at a time.
const LARGE_BYTES: u64 = 64 * 1024;

/// How many pieces one write hands to the system.
const SLICES: usize = 32;

/// A WebSocket, on the server's side, after its handshake.
#[derive(Debug)]
pub struct Socket<S> {
    stream: S,
    config: WebSocketConfig,
    incoming: WebSocketContext,
    boundary: Boundary,
    outgoing: Outgoing,
    /// Whether the stream may hold bytes that it took and did not pass on: TLS encrypts ahead.
    unflushed: bool,
}

/// What is to be written.
#[derive(Debug, Default)]
struct Outgoing {
    frames: VecDeque<Frame>,
    bytes: usize,
    /// The bytes that the stream took since the beginning.
    written: u64,
    /// After a close frame nothing may follow, not even the library's own replies.
    closed: bool,
}

#[derive(Debug)]
struct Frame {
    header: [u8; HEADER_BYTES],
    header_bytes: usize,
    payload: Bytes,
    written: usize,
}

/// What a client sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// A whole text message.
    Text(tungstenite::Utf8Bytes),
    /// A message that means nothing in this protocol: a binary one, or a ping (answered already).
    Other,
    /// A pong with its payload.
    Pong(Bytes),
}

/// Why nothing more comes.
#[derive(Debug, PartialEq, Eq)]
pub enum ReadEnd {
    /// The client closed, and the answer to its close frame is among what is to be written.
    Closed,
    /// The stream broke or ended without a close frame.
    Gone,
    /// The client broke a rule, and is to be told which.
    Broken(Close),
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    /// Takes over a stream whose handshake is done. No message may be longer than `max_message_bytes`.
    pub fn new(stream: S, max_message_bytes: usize) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(0)
            .max_message_size(Some(max_message_bytes))
            .max_frame_size(Some(max_message_bytes));
        let incoming = WebSocketContext::new(Role::Server, Some(config));
        let (boundary, outgoing) = (Boundary::default(), Outgoing::default());
        Self { stream, config, incoming, boundary, outgoing, unflushed: false }
    }

    /// Puts a text message behind what is to be written.
    pub fn queue_text(&mut self, text: Bytes) {
        self.outgoing.push(OpCode::Data(Data::Text), text);
    }

    /// Puts a ping behind what is to be written.
    pub fn queue_ping(&mut self, payload: Bytes) {
        self.outgoing.push(OpCode::Control(Control::Ping), payload);
    }

    /// Puts a close frame behind what is to be written; nothing follows it.
    pub fn queue_close(&mut self, close: Close) {
        // RFC 6455 section 5.5.1: a code in network order, then the reason.
        let mut payload = close.code().to_be_bytes().to_vec();
        payload.extend_from_slice(close.reason().as_bytes());
        self.outgoing.push(OpCode::Control(Control::Close), payload.into());
        self.outgoing.closed = true;
    }

    /// The bytes that are to be written.
    pub fn unwritten_bytes(&self) -> usize {
        self.outgoing.bytes
    }

    /// Whether [`Self::poll_write`] has something to do.
    pub fn wants_write(&self) -> bool {
        !self.outgoing.frames.is_empty() || self.unflushed
    }

    /// The bytes that the stream took since the beginning.
    pub fn written_bytes(&self) -> u64 {
        self.outgoing.written
    }

    /// Writes until nothing is left, neither here nor in the stream.
    ///
    /// # Errors
    /// The stream's own, after which the socket is useless.
    pub fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.frames.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let count = self.outgoing.fill(&mut slices);
            let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, &slices[..count]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.outgoing.advance(written);
            self.unflushed = true;
        }
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        self.unflushed = false;
        Poll::Ready(Ok(()))
    }

    /// Reads the next message.
    ///
    /// # Errors
    /// [`ReadEnd`], after which nothing more may be received.
    pub fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<Result<Received, ReadEnd>> {
        let (boundary, outgoing) = (&mut self.boundary, &mut self.outgoing);
        let mut bridge = Bridge { stream: &mut self.stream, boundary, outgoing, context };
        loop {
            let received = match self.incoming.read(&mut bridge) {
                Ok(Message::Text(text)) => Received::Text(text),
                Ok(Message::Pong(payload)) => Received::Pong(payload),
                // The next read writes the library's answer, and says that the socket is closed.
                Ok(Message::Close(_)) => continue,
                Ok(Message::Binary(_) | Message::Ping(_) | Message::Frame(_)) => Received::Other,
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(read_end(&error))),
            };
            if self.boundary.is_large && self.boundary.is_between_frames() {
                self.incoming = WebSocketContext::new(Role::Server, Some(self.config));
                self.boundary = Boundary::default();
            }
            return Poll::Ready(Ok(received));
        }
    }

    /// Reads and forgets until the client closes the stream.
    ///
    /// Bytes that nobody reads would make the system reset the stream, and the client might never
    /// see the close frame that tells it what was wrong.
    pub fn poll_drain(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut scratch = [0; READ_BUFFER_BYTES];
        loop {
            let mut buffer = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {}
                _ => return Poll::Ready(()),
            }
        }
    }

    /// Says that nothing more will be written.
    ///
    /// # Errors
    /// The stream's own.
    pub fn poll_shutdown(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

fn read_end(error: &Error) -> ReadEnd {
    match error {
        Error::ConnectionClosed | Error::AlreadyClosed => ReadEnd::Closed,
        Error::Capacity(_) => ReadEnd::Broken(Close::MessageTooBig),
        Error::Utf8(_) => ReadEnd::Broken(Close::InvalidText),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => ReadEnd::Gone,
        Error::Protocol(_) => ReadEnd::Broken(Close::ProtocolError),
        _ => ReadEnd::Gone,
    }
}

impl Outgoing {
    fn push(&mut self, opcode: OpCode, payload: Bytes) {
        if self.closed {
            return;
        }
        let head = FrameHeader { is_final: true, opcode, ..FrameHeader::default() };
        let mut header = [0; HEADER_BYTES];
        let mut rest = &mut header[..];
        // The array is as long as the longest header, so there is always room.
        let _ = head.format(payload.len() as u64, &mut rest);
        let header_bytes = HEADER_BYTES - rest.len();
        self.bytes += header_bytes + payload.len();
        self.frames.push_back(Frame { header, header_bytes, payload, written: 0 });
    }

    /// Takes a whole frame of the library's own.
    ///
    /// A pong that nobody has read yet gives way to the next: only the newest ping need be answered
    /// (RFC 6455 section 5.5.3), and a client that pings without reading would pile them up here.
    fn push_reply(&mut self, frame: Bytes) {
        if self.closed {
            return;
        }
        self.bytes += frame.len();
        let reply = Frame { header: [0; HEADER_BYTES], header_bytes: 0, payload: frame, written: 0 };
        match self.frames.back_mut().filter(|last| last.header_bytes == 0 && last.written == 0) {
            Some(last) => {
                self.bytes -= last.payload.len();
                *last = reply;
            }
            None => self.frames.push_back(reply),
        }
    }

    fn fill<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let pieces = self.frames.iter().flat_map(Frame::unwritten).filter(|piece| !piece.is_empty());
        let mut count = 0;
        for (slice, piece) in slices.iter_mut().zip(pieces) {
            *slice = IoSlice::new(piece);
            count += 1;
        }
        count
    }

    fn advance(&mut self, mut written: usize) {
        self.bytes -= written;
        self.written += written as u64;
        while let Some(frame) = self.frames.front_mut() {
            let left = frame.header_bytes + frame.payload.len() - frame.written;
            if written < left {
                frame.written += written;
                return;
            }
            written -= left;
            self.frames.pop_front();
        }
    }
}

impl Frame {
    fn unwritten(&self) -> [&[u8]; 2] {
        let header = &self.header[..self.header_bytes];
        match self.written.checked_sub(self.header_bytes) {
            None => [&header[self.written..], &self.payload],
            Some(of_payload) => [&[], &self.payload[of_payload..]],
        }
    }
}

/// Follows the frames as they are read.
///
/// The library keeps the buffer of the longest frame for as long as the socket lives: a thousand
/// clients that once sent 8 MiB would cost 8 GB. So after a large frame nothing is read past the end
/// of a frame, and with the message that it belonged to, the library's state is made anew.
#[derive(Debug, Default)]
struct Boundary {
    header: [u8; LONGEST_HEADER_BYTES],
    header_bytes: usize,
    /// The bytes of the current frame's payload that were not read yet.
    payload_left: u64,
    /// Whether a frame was large since the library's state was new.
    is_large: bool,
}

impl Boundary {
    fn is_between_frames(&self) -> bool {
        self.header_bytes == 0 && self.payload_left == 0
    }

    /// How many of `wanted` bytes may be read at once.
    fn most(&self, wanted: usize) -> usize {
        match (self.is_large, self.payload_left) {
            (false, _) => wanted,
            (true, 0) => wanted.min(1),
            (true, left) => wanted.min(usize::try_from(left).unwrap_or(usize::MAX)),
        }
    }

    fn pass(&mut self, mut bytes: &[u8]) {
        while let Some((first, rest)) = bytes.split_first() {
            if self.payload_left > 0 {
                let of_payload = bytes.len().min(usize::try_from(self.payload_left).unwrap_or(usize::MAX));
                self.payload_left -= of_payload as u64;
                bytes = &bytes[of_payload..];
                continue;
            }
            self.header[self.header_bytes] = *first;
            self.header_bytes += 1;
            bytes = rest;
            // What is no header is the library's to complain about, when it comes to it.
            let header = FrameHeader::parse(&mut Cursor::new(&self.header[..self.header_bytes]));
            if let Ok(Some((_, payload))) = header {
                self.header_bytes = 0;
                self.payload_left = payload;
                self.is_large |= payload > LARGE_BYTES;
            } else if self.header_bytes == LONGEST_HEADER_BYTES {
                self.header_bytes = 0;
            }
        }
    }
}

/// Lets the library read the stream without waiting, and collects what it wants to say itself:
/// whole pongs and close frames.
struct Bridge<'a, 'b, S> {
    stream: &'a mut S,
    boundary: &'a mut Boundary,
    outgoing: &'a mut Outgoing,
    context: &'a mut Context<'b>,
}

impl<S: AsyncRead + Unpin> Read for Bridge<'_, '_, S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = self.boundary.most(buffer.len());
        let mut buffer = ReadBuf::new(&mut buffer[..most]);
        match Pin::new(&mut *self.stream).poll_read(self.context, &mut buffer) {
            Poll::Ready(result) => {
                self.boundary.pass(buffer.filled());
                result.map(|()| buffer.filled().len())
            }
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl<S> Write for Bridge<'_, '_, S> {
    fn write(&mut self, frames: &[u8]) -> io::Result<usize> {
        self.outgoing.push_reply(Bytes::copy_from_slice(frames));
        Ok(frames.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn masked(payload: &[u8], first_byte: u8) -> Vec<u8> {
        let mut frame = vec![first_byte];
        match payload.len() {
            short @ 0..=125 => frame.push(0x80 | short as u8),
            middle @ 126..=0xffff => {
                frame.push(0x80 | 126);
                frame.extend((middle as u16).to_be_bytes());
            }
            long => {
                frame.push(0x80 | 127);
                frame.extend((long as u64).to_be_bytes());
            }
        }
        frame.extend([0; 4]);
        frame.extend(payload);
        frame
    }

    fn read_all(bytes: &[u8]) -> (Vec<usize>, Socket<ready::Stream>) {
        let mut socket = Socket::new(ready::Stream(bytes.to_vec().into()), 1 << 20);
        let mut context = Context::from_waker(std::task::Waker::noop());
        let mut lengths = Vec::new();
        while let Poll::Ready(Ok(received)) = socket.poll_receive(&mut context) {
            if let Received::Text(text) = received {
                lengths.push(text.len());
            }
        }
        (lengths, socket)
    }

    /// A stream of bytes that are there already.
    mod ready {
        use std::collections::VecDeque;

        use super::*;

        #[derive(Debug)]
        pub struct Stream(pub VecDeque<u8>);

        impl AsyncRead for Stream {
            fn poll_read(
                mut self: Pin<&mut Self>,
                _: &mut Context<'_>,
                buffer: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                let count = buffer.remaining().min(self.0.len());
                buffer.put_slice(&self.0.drain(..count).collect::<Vec<_>>());
                Poll::Ready(Ok(()))
            }
        }

        impl AsyncWrite for Stream {
            fn poll_write(
                self: Pin<&mut Self>,
                _: &mut Context<'_>,
                bytes: &[u8],
            ) -> Poll<io::Result<usize>> {
                Poll::Ready(Ok(bytes.len()))
            }

            fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Ok(()))
            }

            fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Ok(()))
            }
        }
    }

    #[test]
    fn pings_of_a_client_that_does_not_read_do_not_pile_up() {
        let (_, socket) = read_all(&masked(b"ping", 0x89).repeat(1000));
        assert_eq!(socket.outgoing.frames.len(), 1);
        assert_eq!(socket.unwritten_bytes(), b"ping".len() + 2);
    }

    /// One message of 8 MiB cost 8 MiB for as long as its socket lived.
    #[test]
    fn a_large_message_leaves_nothing_behind() {
        let large = vec![b'x'; 200_000];
        let whole = masked(&large, 0x81);
        let in_fragments = [masked(&large, 0x01), masked(b"end", 0x80)].concat();
        for bytes in [whole, in_fragments] {
            let (lengths, socket) = read_all(&[masked(b"before", 0x81), bytes].concat());
            assert_eq!(lengths.len(), 2);
            assert!(!socket.boundary.is_large, "the library's state is new");
        }
    }

    proptest! {
        #[test]
        fn every_message_arrives_whole_whatever_its_size(
            sizes in prop::collection::vec(prop_oneof![0..200usize, 60_000..70_000usize, 100_000..150_000usize], 1..8)
        ) {
            let bytes: Vec<u8> = sizes.iter().flat_map(|size| masked(&vec![b'x'; *size], 0x81)).collect();
            prop_assert_eq!(read_all(&bytes).0, sizes);
        }
    }
}
