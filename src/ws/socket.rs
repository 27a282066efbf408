//! WebSocket frames on a byte stream: the library reads them, we write them.
//!
//! Incoming frames have masks, fragments and rules, which the library implements. Outgoing ones are
//! a header and bytes that many sockets share; writing them ourselves saves a copy per socket.

use std::io::{self, IoSlice, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tungstenite::error::ProtocolError;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};
use tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use tungstenite::{Error, Message, Utf8Bytes};

use super::boundary::{Binary, Boundary};
use super::outgoing::FrameQueue;
use crate::protocol::close::Close;
use crate::protocol::deflate::{Encoding, InflateError, inflate};

/// Size of the read buffer in bytes, and so the memory of an idle socket: enough for a user's
/// update. The library's default is 128 KiB.
const READ_BUFFER_BYTES: usize = 1024;

/// Maximum number of slices in one vectored write.
const SLICES: usize = 32;

/// A server-side WebSocket, after its handshake.
#[derive(Debug)]
pub struct Socket<S> {
    stream: S,
    max_message_bytes: usize,
    config: WebSocketConfig,
    incoming: WebSocketContext,
    boundary: Boundary,
    outgoing: FrameQueue,
    /// True if the stream may hold bytes that it took and did not pass on: TLS encrypts ahead.
    unflushed: bool,
    /// True if the client closed because its page is left.
    is_page_left: bool,
}

/// Data received from a client.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// A complete text message.
    Text(Utf8Bytes),
    /// A complete binary message.
    Binary(Bytes),
    /// A ping, already answered.
    Ping,
    /// A pong with its payload.
    Pong(Bytes),
    /// A part of an incomplete message, and its cost in tokens by bytes and frames.
    Piece(u32),
}

impl Received {
    /// Size in bytes, inflated.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Binary(bytes) | Self::Pong(bytes) => bytes.len(),
            Self::Ping | Self::Piece(_) => 0,
        }
    }
}

/// Reason for the end of reading.
#[derive(Debug, PartialEq, Eq)]
pub enum ReadEnd {
    /// The client closed, and the answer to its close frame is queued.
    Closed {
        /// True if its page is left: code 1001 (RFC 6455 section 7.4.1).
        is_page_left: bool,
    },
    /// The stream broke or ended without a close frame.
    Gone,
    /// The client broke a rule; the close reason names it.
    Broken(Close),
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    /// Takes over a stream after its handshake. No message may be longer than `max_message_bytes`,
    /// inflated; with [`Encoding::Deflate`] the handshake allowed both sides to compress.
    pub fn new(stream: S, max_message_bytes: usize, encoding: Encoding) -> Self {
        // Compression makes some messages longer, at worst nine bits for a byte.
        let max_frame_bytes = match encoding {
            Encoding::Identity => max_message_bytes,
            Encoding::Deflate => max_message_bytes + max_message_bytes / 8 + 64,
        };
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(0)
            .max_message_size(Some(max_frame_bytes))
            .max_frame_size(Some(max_frame_bytes));
        let incoming = WebSocketContext::new(Role::Server, Some(config));
        let (boundary, outgoing) = (Boundary::new(encoding), FrameQueue::default());
        Self {
            stream,
            max_message_bytes,
            config,
            incoming,
            boundary,
            outgoing,
            unflushed: false,
            is_page_left: false,
        }
    }

    /// Bytes received of an incomplete message.
    pub fn arriving_bytes(&self) -> usize {
        self.boundary.arriving_bytes()
    }

    /// Queues a message. Compressed ones are valid only if the handshake allowed them.
    pub fn queue_message(&mut self, kind: Data, encoding: Encoding, payload: Bytes) {
        self.outgoing.push(OpCode::Data(kind), encoding, payload);
    }

    /// Queues a message whose text begins with `head` and ends with `tail`. The payload between them is written as
    /// it is, compressed or not, so that sockets with other heads can share it.
    pub fn queue_enveloped(&mut self, head: &str, encoding: Encoding, payload: Bytes, tail: &str) {
        self.outgoing.push_enveloped(head, encoding, payload, tail);
    }

    /// Queues a ping.
    pub fn queue_ping(&mut self, payload: Bytes) {
        self.outgoing.push(OpCode::Control(Control::Ping), Encoding::Identity, payload);
    }

    /// Queues a close frame; nothing follows it.
    pub fn queue_close(&mut self, close: Close) {
        // RFC 6455 section 5.5.1: a code in network byte order, then the reason.
        let mut payload = close.code().to_be_bytes().to_vec();
        payload.extend_from_slice(close.reason().as_bytes());
        self.outgoing.push(OpCode::Control(Control::Close), Encoding::Identity, payload.into());
        self.outgoing.close();
    }

    /// Queued bytes.
    pub fn unwritten_bytes(&self) -> usize {
        self.outgoing.unwritten_bytes()
    }

    /// True if [`Self::poll_write`] has something to do.
    pub fn wants_write(&self) -> bool {
        !self.outgoing.is_empty() || self.unflushed
    }

    /// Total bytes taken by the stream.
    pub fn written_bytes(&self) -> u64 {
        self.outgoing.written_bytes()
    }

    /// Writes until nothing is left, neither here nor in the stream.
    ///
    /// # Errors
    /// The stream's own, after which the socket is useless.
    pub fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.is_empty() {
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
        let received = loop {
            match self.incoming.read(&mut bridge) {
                Ok(Message::Pong(payload)) => return Poll::Ready(Ok(Received::Pong(payload))),
                Ok(Message::Ping(_) | Message::Frame(_)) => {
                    // The library would keep its answer until the next read, and the client would
                    // wait for it until some other message arrives.
                    return Poll::Ready(match self.incoming.flush(&mut bridge) {
                        Ok(()) => Ok(Received::Ping),
                        Err(error) => Err(read_end(&error, self.is_page_left)),
                    });
                }
                // The next read writes the library's answer, and reports that the socket is closed.
                Ok(Message::Close(frame)) => {
                    self.is_page_left = frame.is_some_and(|frame| frame.code == CloseCode::Away);
                }
                Ok(Message::Text(text)) => break Received::Text(text),
                Ok(Message::Binary(payload)) => {
                    let binary = bridge.boundary.next_binary();
                    break opened(binary, payload, self.max_message_bytes)?;
                }
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    return match bridge.boundary.take_piece() {
                        0 => Poll::Pending,
                        tokens => Poll::Ready(Ok(Received::Piece(tokens))),
                    };
                }
                Err(error) => return Poll::Ready(Err(read_end(&error, self.is_page_left))),
            }
        };
        self.boundary.message_is_whole();
        // Only now: between the fragments of a message the library holds the earlier ones.
        if self.boundary.is_to_be_renewed() {
            self.incoming = WebSocketContext::new(Role::Server, Some(self.config));
            self.boundary.renewed();
        }
        Poll::Ready(match received {
            Received::Text(text) if text.len() > self.max_message_bytes => {
                Err(ReadEnd::Broken(Close::MessageTooBig))
            }
            received => Ok(received),
        })
    }

    /// Reads and discards data until the client closes the stream.
    ///
    /// Unread bytes would make the system reset the stream, and the client might never see the
    /// close frame with the reason.
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

    /// Shuts down the writing side of the stream.
    ///
    /// # Errors
    /// The stream's own.
    pub fn poll_shutdown(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

fn read_end(error: &Error, is_page_left: bool) -> ReadEnd {
    match error {
        Error::ConnectionClosed | Error::AlreadyClosed => ReadEnd::Closed { is_page_left },
        Error::Capacity(_) => ReadEnd::Broken(Close::MessageTooBig),
        Error::Utf8(_) => ReadEnd::Broken(Close::InvalidText),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => ReadEnd::Gone,
        Error::Protocol(_) => ReadEnd::Broken(Close::ProtocolError),
        _ => ReadEnd::Gone,
    }
}

/// Decodes a message that the library takes for a binary one.
fn opened(binary: Binary, payload: Bytes, most: usize) -> Result<Received, ReadEnd> {
    let message = match binary {
        Binary::Plain if payload.len() > most => return Err(ReadEnd::Broken(Close::MessageTooBig)),
        Binary::Plain => return Ok(Received::Binary(payload)),
        Binary::Deflated | Binary::DeflatedText => inflate(&payload, most).map_err(|error| match error {
            InflateError::TooLong => ReadEnd::Broken(Close::MessageTooBig),
            InflateError::Broken => ReadEnd::Broken(Close::InvalidDeflate),
        })?,
    };
    match binary {
        Binary::DeflatedText => {
            Utf8Bytes::try_from(message).map(Received::Text).map_err(|_| ReadEnd::Broken(Close::InvalidText))
        }
        _ => Ok(Received::Binary(message.into())),
    }
}

/// Adapter by which the library reads the stream without blocking; it collects the library's own
/// output, complete pongs and close frames.
struct Bridge<'a, 'b, S> {
    stream: &'a mut S,
    boundary: &'a mut Boundary,
    outgoing: &'a mut FrameQueue,
    context: &'a mut Context<'b>,
}

impl<S: AsyncRead + Unpin> Read for Bridge<'_, '_, S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.boundary.is_piece_due() {
            // The stream is not pending: this pauses the library so that the data is charged.
            // Otherwise it would read an endless message.
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let most = self.boundary.most(buffer.len());
        let mut buffer = ReadBuf::new(&mut buffer[..most]);
        match Pin::new(&mut *self.stream).poll_read(self.context, &mut buffer) {
            Poll::Ready(result) => {
                self.boundary.pass(buffer.filled_mut());
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

    const MOST: usize = 1 << 20;

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

    /// Lengths of the texts that a socket without compression reads.
    fn read_all(bytes: &[u8]) -> (Vec<usize>, Socket<ready::Stream>) {
        let (messages, _, socket) = read(bytes, Encoding::Identity);
        let texts = messages.iter().filter_map(|received| match received {
            Received::Text(text) => Some(text.len()),
            _ => None,
        });
        (texts.collect(), socket)
    }

    fn read(bytes: &[u8], encoding: Encoding) -> (Vec<Received>, ReadEnd, Socket<ready::Stream>) {
        let mut socket = Socket::new(ready::Stream(bytes.to_vec().into()), MOST, encoding);
        let mut context = Context::from_waker(std::task::Waker::noop());
        let mut messages = Vec::new();
        loop {
            match socket.poll_receive(&mut context) {
                Poll::Ready(Ok(Received::Piece(_))) => {}
                Poll::Ready(Ok(received)) => messages.push(received),
                Poll::Ready(Err(end)) => return (messages, end, socket),
                Poll::Pending => panic!("the stream never waits"),
            }
        }
    }

    /// Compresses as other implementations do, even if the message becomes longer.
    fn deflated(message: &[u8]) -> Vec<u8> {
        let mut payload = Vec::with_capacity(message.len() * 2 + 100);
        let mut deflater = flate2::Compress::new(flate2::Compression::fast(), false);
        deflater.compress_vec(message, &mut payload, flate2::FlushCompress::Sync).unwrap();
        payload.truncate(payload.len() - 4);
        payload
    }

    /// The frames of a message whose payload is split into `pieces`.
    fn frames(payload: &[u8], first_byte: u8, pieces: usize) -> Vec<u8> {
        let chunks: Vec<&[u8]> = payload.chunks(payload.len().div_ceil(pieces).max(1)).collect();
        let Some((first, rest)) = chunks.split_first() else { return masked(&[], first_byte | 0x80) };
        let fin = |at: usize| if at == rest.len() { 0x80 } else { 0 };
        let mut bytes = masked(first, first_byte | fin(0));
        for (at, piece) in rest.iter().enumerate() {
            // A ping may come between any two frames of a message (RFC 6455 section 5.4).
            bytes.extend(masked(b"", 0x89));
            bytes.extend(masked(piece, fin(at + 1)));
        }
        bytes
    }

    fn without_pings(messages: Vec<Received>) -> Vec<Received> {
        messages.into_iter().filter(|received| *received != Received::Ping).collect()
    }

    /// A stream whose bytes are all available.
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
    fn pongs_to_a_client_that_does_not_read_are_bounded() {
        let (_, socket) = read_all(&masked(b"ping", 0x89).repeat(1000));
        assert_eq!(socket.unwritten_bytes(), b"ping".len() + 2);
    }

    /// One message of 8 MiB cost 8 MiB for its socket's lifetime.
    #[test]
    fn large_message_releases_its_buffer() {
        let large = vec![b'x'; 200_000];
        let whole = masked(&large, 0x81);
        let in_fragments = [masked(&large, 0x01), masked(b"end", 0x80)].concat();
        for bytes in [whole, in_fragments] {
            let (lengths, socket) = read_all(&[masked(b"before", 0x81), bytes].concat());
            assert_eq!(lengths.len(), 2);
            assert_eq!(socket.boundary.most(2), 2, "the library's state is new");
        }
    }

    /// The library's state was renewed at the ping, and the fragment before it was lost.
    #[test]
    fn a_ping_amid_a_large_message_does_not_break_it() {
        let large = vec![b'x'; 200_000];
        let bytes = [masked(&large, 0x01), masked(b"ping", 0x89), masked(b"end", 0x80)].concat();
        let (lengths, socket) = read_all(&bytes);
        assert_eq!(lengths, [200_003]);
        assert_eq!(socket.unwritten_bytes(), b"ping".len() + 2, "and the ping is answered");
    }

    #[test]
    fn compressed_messages_and_others_are_told_apart() {
        let text = "the same, the same, the same";
        let bytes = [
            masked(&deflated(text.as_bytes()), 0xc1),
            masked(text.as_bytes(), 0x81),
            masked(text.as_bytes(), 0x82),
            masked(&deflated(text.as_bytes()), 0xc2),
            masked(&[0x00], 0xc1),
            masked(&[], 0xc1),
            masked(&[], 0x82),
        ]
        .concat();
        let binary = || Received::Binary(Bytes::from_static(text.as_bytes()));
        let text = |text: &'static str| Received::Text(text.into());
        let (messages, end, _) = read(&bytes, Encoding::Deflate);
        assert_eq!(end, ReadEnd::Gone);
        let expected = [
            text("the same, the same, the same"),
            text("the same, the same, the same"),
            binary(),
            binary(),
            text(""),
            text(""),
            Received::Binary(Bytes::new()),
        ];
        assert_eq!(messages, expected);
    }

    #[test]
    fn unexpected_reserved_bits_are_rejected() {
        let begun = masked(&deflated(b"x")[..1], 0x41);
        for (bytes, encoding) in [
            (masked(&deflated(b"x"), 0xc1), Encoding::Identity),
            (masked(&deflated(b"x"), 0xa1), Encoding::Deflate),
            (masked(&deflated(b"x"), 0x91), Encoding::Deflate),
            (masked(&deflated(b"x"), 0xe1), Encoding::Deflate),
            (masked(b"", 0xc9), Encoding::Deflate),
            (masked(b"", 0xca), Encoding::Deflate),
            (masked(b"", 0xc8), Encoding::Deflate),
            (masked(b"", 0xc3), Encoding::Deflate),
            ([begun.clone(), masked(&deflated(b"x")[1..], 0xc0)].concat(), Encoding::Deflate),
            ([begun.clone(), masked(&deflated(b"x"), 0xc1)].concat(), Encoding::Deflate),
            ([begun, masked(b"", 0xc9)].concat(), Encoding::Deflate),
        ] {
            let (messages, end, _) = read(&bytes, encoding);
            assert_eq!((messages, end), (vec![], ReadEnd::Broken(Close::ProtocolError)), "{bytes:x?}");
        }
    }

    #[test]
    fn size_limit_applies_to_every_encoding() {
        let mut noise = vec![0; MOST];
        getrandom::fill(&mut noise).unwrap();
        let grown = deflated(&noise);
        assert!(grown.len() > MOST);
        let (messages, end, _) = read(&masked(&grown, 0xc2), Encoding::Deflate);
        assert_eq!((messages.len(), end), (1, ReadEnd::Gone), "at the limit, though it grew");

        let (fits, too_long) = (vec![b'x'; MOST], vec![b'x'; MOST + 1]);
        for encoding in [Encoding::Identity, Encoding::Deflate] {
            for first_byte in [0x81, 0x82] {
                let (messages, end, _) = read(&masked(&fits, first_byte), encoding);
                assert_eq!((messages.len(), end), (1, ReadEnd::Gone));
                let (messages, end, _) = read(&masked(&too_long, first_byte), encoding);
                assert_eq!((messages.len(), end), (0, ReadEnd::Broken(Close::MessageTooBig)));
            }
        }
        for bomb in [too_long, vec![0; 64 << 20]] {
            let (messages, end, _) = read(&masked(&deflated(&bomb), 0xc1), Encoding::Deflate);
            assert_eq!((messages.len(), end), (0, ReadEnd::Broken(Close::MessageTooBig)));
        }
    }

    #[test]
    fn broken_compression_and_broken_text_are_told_apart() {
        for (payload, close) in [
            (deflated(&[b'a', 0xff]), Close::InvalidText),
            (deflated("ä".as_bytes())[..2].to_vec(), Close::InvalidDeflate),
            (vec![0xff; 10], Close::InvalidDeflate),
        ] {
            let (messages, end, _) = read(&masked(&payload, 0xc1), Encoding::Deflate);
            assert_eq!((messages, end), (vec![], ReadEnd::Broken(close)), "{payload:x?}");
        }
        let (messages, end, _) = read(&masked(&deflated(&[0xff]), 0xc2), Encoding::Deflate);
        assert_eq!((messages.len(), end), (1, ReadEnd::Gone), "what is no text need not be one");
    }

    #[derive(Clone, Debug)]
    struct Said {
        bytes: Vec<u8>,
        is_text: bool,
        is_deflated: bool,
        pieces: usize,
    }

    fn something_said() -> impl Strategy<Value = Said> {
        let bytes = prop_oneof![6 => 0..300usize, 1 => 65_000..66_000usize, 1 => 100_000..150_000usize];
        (bytes, any::<bool>(), any::<bool>(), 1..5usize).prop_map(|(bytes, is_text, is_deflated, pieces)| {
            let bytes = "ä1€2".repeat(bytes / 7).into_bytes();
            Said { bytes, is_text, is_deflated, pieces }
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn messages_of_any_size_and_encoding_arrive_whole(
            all in prop::collection::vec(something_said(), 1..8)
        ) {
            let bytes: Vec<u8> = all.iter().flat_map(|said| {
                let opcode = if said.is_text { 0x1 } else { 0x2 };
                if said.is_deflated {
                    frames(&deflated(&said.bytes), 0x40 | opcode, said.pieces)
                } else {
                    frames(&said.bytes, opcode, said.pieces)
                }
            }).collect();
            let (messages, end, _) = read(&bytes, Encoding::Deflate);
            prop_assert_eq!(end, ReadEnd::Gone);
            let expected: Vec<Received> = all.into_iter().map(|said| {
                if said.is_text {
                    Received::Text(String::from_utf8(said.bytes).unwrap().into())
                } else {
                    Received::Binary(said.bytes.into())
                }
            }).collect();
            prop_assert!(without_pings(messages) == expected);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            read(&bytes, Encoding::Identity);
            read(&bytes, Encoding::Deflate);
        }
    }
}
