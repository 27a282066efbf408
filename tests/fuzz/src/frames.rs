//! Bytes of a socket: frames, masks, fragments, compression.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use satsuma::protocol::deflate::{Encoding, deflate, inflate};
use satsuma::ws::socket::Socket;
use tokio::io::AsyncReadExt;

const MOST: usize = 4096;

/// The first byte selects compression, the second the position at which the stream pauses.
pub fn frames(data: &[u8]) {
    let [form, pause, bytes @ ..] = data else { return };
    let form = if form % 2 == 0 { Encoding::Identity } else { Encoding::Deflate };
    let (first, rest) = bytes.split_at(usize::from(*pause).min(bytes.len()));
    let stream = pin!(tokio::io::join(first.chain(rest), tokio::io::sink()));
    let mut socket = Socket::new(stream, MOST, form);
    let mut context = Context::from_waker(Waker::noop());
    while let Poll::Ready(Ok(received)) = socket.poll_receive(&mut context) {
        let length = received.bytes();
        assert!(length <= MOST, "a message of {length} bytes");
        assert!(socket.poll_write(&mut context).is_ready());
    }
    if let Ok(message) = inflate(bytes, MOST) {
        assert!(message.len() <= MOST);
        if let Some(again) = deflate(&message) {
            assert_eq!(inflate(&again, MOST), Ok(message));
        }
    }
}
