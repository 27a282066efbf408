//! Bodies of long polling, as the frames that the connection reads.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use satsuma::protocol::deflate::Encoding;
use satsuma::ws::longpoll::body::to_frames;
use satsuma::ws::socket::{Received, Socket};

/// The connection receives each line as one message; nothing in a body becomes another kind of frame.
pub fn longpoll(data: &[u8]) {
    let Some((first, body)) = data.split_first() else { return };
    let is_ndjson = first & 1 == 0;
    let Ok(frames) = to_frames(body, is_ndjson) else { return };
    let text = str::from_utf8(body).expect("only UTF-8 is taken");
    let lines: Vec<&str> =
        if is_ndjson { text.lines().filter(|line| !line.is_empty()).collect() } else { vec![text] };
    let stream = pin!(tokio::io::join(&frames[..], tokio::io::sink()));
    let mut socket = Socket::new(stream, body.len().max(1), Encoding::Identity);
    let mut context = Context::from_waker(Waker::noop());
    for line in lines {
        match socket.poll_receive(&mut context) {
            Poll::Ready(Ok(Received::Text(received))) => assert_eq!(received.as_str(), line),
            Poll::Ready(Ok(Received::Binary(_))) => assert!(is_ndjson && !line.starts_with('['), "{line}"),
            other => panic!("{other:?} for {line}"),
        }
    }
    let after = socket.poll_receive(&mut context);
    assert!(!matches!(after, Poll::Ready(Ok(_))), "{after:?} after the last line");
}
