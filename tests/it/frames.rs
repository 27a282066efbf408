//! The rules of frames, on an echo server: the relevant cases of Autobahn.

use crate::echo::Echo;
use crate::raw::{Frame, Raw, deflated, inflated};

const MOST: usize = 1 << 20;

const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;
const FIN: u8 = 0x80;
const DEFLATED: u8 = 0x40;

async fn open(echo: &Echo) -> Raw {
    Raw::open(echo.address, "/", &[]).await.1
}

async fn open_compressing(echo: &Echo) -> Raw {
    let offer = ("sec-websocket-extensions", "permessage-deflate; client_max_window_bits");
    Raw::open(echo.address, "/", &[offer]).await.1
}

fn close_frame(code: u16, reason: &str) -> Frame {
    Frame::new(FIN | CLOSE, [&code.to_be_bytes(), reason.as_bytes()].concat())
}

/// The bytes of these frames.
fn bytes_of(frames: &[Frame]) -> Vec<u8> {
    frames.iter().flat_map(Frame::masked).collect()
}

/// The server's answer to these bytes until it closes: its frames, and the close code.
async fn answer_to(client: &mut Raw, bytes: &[u8]) -> (Vec<Frame>, Option<u16>) {
    client.say(bytes).await;
    let mut before = Vec::new();
    while let Some(frame) = client.frame().await {
        if frame.first == FIN | CLOSE {
            let code = frame.payload.first_chunk().map(|code| u16::from_be_bytes(*code));
            assert_eq!(client.frame().await, None, "nothing follows a close frame");
            return (before, code);
        }
        before.push(frame);
    }
    panic!("the stream ended without a close frame, after {before:?}");
}

/// Sections 1 and 9: every length with another encoding in the header.
#[tokio::test]
async fn messages_of_every_length_are_echoed() {
    let echo = Echo::start(MOST).await;
    let mut client = open(&echo).await;
    for bytes in [0, 1, 125, 126, 127, 128, 65_535, 65_536, 65_537, MOST] {
        for opcode in [TEXT, BINARY] {
            let frame = Frame::new(FIN | opcode, vec![b'*'; bytes]);
            client.say(&frame.masked()).await;
            assert!(client.frame().await == Some(frame), "{bytes} bytes of {opcode}");
        }
    }
    // Byte by byte.
    let frame = Frame::new(FIN | TEXT, "slowly".repeat(30));
    for byte in frame.masked() {
        client.say(&[byte]).await;
    }
    assert_eq!(client.frame().await, Some(frame));
    let too_long = Frame::new(FIN | TEXT, vec![b'*'; MOST + 1]);
    assert_eq!(answer_to(&mut client, &too_long.masked()).await, (vec![], Some(1009)));
}

/// Section 2.
#[tokio::test]
async fn pings_are_answered_and_pongs_ignored() {
    let echo = Echo::start(MOST).await;
    let mut client = open(&echo).await;
    for payload in [vec![], b"hello".to_vec(), vec![0x00, 0xff, 0xfe], vec![0xfe; 125]] {
        client.say(&Frame::new(FIN | PING, payload.clone()).masked()).await;
        assert_eq!(client.frame().await, Some(Frame::new(FIN | PONG, payload)));
    }
    client.say(&bytes_of(&[Frame::new(FIN | PONG, "unasked"), Frame::new(FIN | PING, "asked")])).await;
    assert_eq!(client.frame().await, Some(Frame::new(FIN | PONG, "asked")));
    let too_long = Frame::new(FIN | PING, vec![0xfe; 126]);
    assert_eq!(answer_to(&mut client, &too_long.masked()).await, (vec![], Some(1002)));
}

/// Sections 3 and 4: reserved bits and opcodes, alone and after a message that is still echoed.
#[tokio::test]
async fn reserved_bits_and_opcodes_are_refused() {
    let echo = Echo::start(MOST).await;
    let reserved_bits = [0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70].map(|bits| FIN | bits | TEXT);
    let reserved_opcodes = [3, 4, 5, 6, 7, 0xb, 0xc, 0xd, 0xe, 0xf].map(|opcode| FIN | opcode);
    let control = [FIN | 0x40 | PING, FIN | 0x40 | CLOSE, FIN | 0x10 | PONG];
    for first in reserved_bits.into_iter().chain(reserved_opcodes).chain(control) {
        let frame = Frame::new(first, "x");
        let mut client = open(&echo).await;
        assert_eq!(answer_to(&mut client, &frame.masked()).await, (vec![], Some(1002)), "{first:x}");
        // With compression the first reserved bit has a meaning, only on a message's first frame.
        if first & 0x70 != DEFLATED || first & 0x0f != TEXT {
            let mut client = open_compressing(&echo).await;
            assert_eq!(answer_to(&mut client, &frame.masked()).await, (vec![], Some(1002)), "{first:x}");
        }
    }
    let mut client = open(&echo).await;
    client.say(&Frame::new(FIN | TEXT, "before").unmasked()).await;
    let Some(close) = client.frame().await else { panic!("no close frame") };
    assert_eq!(close.payload[..2], 1002u16.to_be_bytes(), "a client masks");
}

/// Section 5.
#[tokio::test]
async fn control_frames_interleave_with_fragments() {
    let echo = Echo::start(MOST).await;
    let mut client = open(&echo).await;
    let whole = Frame::new(FIN | TEXT, "fragment1fragment2");
    client
        .say(&bytes_of(&[
            Frame::new(TEXT, "fragment1"),
            Frame::new(FIN | PING, "between"),
            Frame::new(CONTINUATION, ""),
            Frame::new(FIN | PONG, "unasked"),
            Frame::new(FIN, "fragment2"),
        ]))
        .await;
    assert_eq!(client.frame().await, Some(Frame::new(FIN | PONG, "between")));
    assert_eq!(client.frame().await, Some(whole));
    for broken in [
        vec![Frame::new(PING, "in fragments"), Frame::new(FIN, "")],
        vec![Frame::new(FIN, "no beginning")],
        vec![Frame::new(CONTINUATION, "no beginning")],
        vec![Frame::new(TEXT, "begun"), Frame::new(FIN | TEXT, "begun again")],
        vec![Frame::new(TEXT, "begun"), Frame::new(FIN | BINARY, "begun again")],
    ] {
        let mut client = open(&echo).await;
        assert_eq!(answer_to(&mut client, &bytes_of(&broken)).await, (vec![], Some(1002)), "{broken:?}");
    }
    // The limit applies to all fragments together.
    let mut client = open(&echo).await;
    let mut bytes = Frame::new(TEXT, vec![b'*'; 1000]).masked();
    bytes.extend(Frame::new(CONTINUATION, vec![b'*'; 1000]).masked().repeat(MOST / 1000));
    assert_eq!(answer_to(&mut client, &bytes).await, (vec![], Some(1009)));
}

/// Section 6.
#[tokio::test]
async fn text_is_validated_across_fragments() {
    let echo = Echo::start(MOST).await;
    let text = "Hello-µ@ßöäüàá-UTF-8!! κόσμε \u{10ffff} \u{ffff} \u{1f600}";
    let mut client = open(&echo).await;
    for cut in 0..=text.len() {
        let (first, second) = text.as_bytes().split_at(cut);
        client.say(&bytes_of(&[Frame::new(TEXT, first), Frame::new(FIN, second)])).await;
        assert_eq!(client.frame().await, Some(Frame::new(FIN | TEXT, text)), "cut at {cut}");
    }
    let long = [&b"\xce\xba\xe1\xbd\xb9"[..], &b"\xf4\x90\x80\x80"[..]].concat();
    for broken in [
        &b"\xff"[..],
        b"\x80",
        b"ok \xc3",
        b"\xc0\xaf",
        b"\xe0\x80\xaf",
        b"\xed\xa0\x80",
        b"\xed\xaf\xbf\xed\xbf\xbf",
        b"\xf8\x88\x80\x80\x80",
        &long,
    ] {
        let mut client = open(&echo).await;
        let whole = Frame::new(FIN | TEXT, broken).masked();
        assert_eq!(answer_to(&mut client, &whole).await, (vec![], Some(1007)), "{broken:x?}");
        let mut client = open_compressing(&echo).await;
        let whole = Frame::new(FIN | DEFLATED | TEXT, deflated(broken, 6, 15)).masked();
        assert_eq!(answer_to(&mut client, &whole).await, (vec![], Some(1007)), "{broken:x?}, compressed");
    }
    // Invalid UTF-8 is detected at once, not at the message's end (6.4).
    let mut client = open(&echo).await;
    let begun = Frame::new(TEXT, &b"ok \xf4\x90"[..]).masked();
    assert_eq!(answer_to(&mut client, &begun).await, (vec![], Some(1007)));
    // A binary message has no encoding.
    let mut client = open(&echo).await;
    let binary = Frame::new(FIN | BINARY, vec![0xff, 0xfe, 0x80]);
    client.say(&binary.masked()).await;
    assert_eq!(client.frame().await, Some(binary));
}

/// Section 7.
#[tokio::test]
async fn close_is_answered_with_its_valid_code() {
    let echo = Echo::start(MOST).await;
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999] {
        let mut client = open(&echo).await;
        let frame = close_frame(code, "Hello World!");
        assert_eq!(answer_to(&mut client, &frame.masked()).await, (vec![], Some(code)));
    }
    for code in [0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65_535] {
        let mut client = open(&echo).await;
        let frame = close_frame(code, "");
        assert_eq!(answer_to(&mut client, &frame.masked()).await, (vec![], Some(1002)), "{code}");
    }
    let mut client = open(&echo).await;
    assert_eq!(answer_to(&mut client, &Frame::new(FIN | CLOSE, "").masked()).await, (vec![], None));
    let mut client = open(&echo).await;
    assert_eq!(answer_to(&mut client, &Frame::new(FIN | CLOSE, "x").masked()).await, (vec![], Some(1002)));
    let mut client = open(&echo).await;
    let longest = close_frame(1000, &"*".repeat(123));
    assert_eq!(answer_to(&mut client, &longest.masked()).await, (vec![], Some(1000)));
    let mut client = open(&echo).await;
    let too_long = close_frame(1000, &"*".repeat(124));
    assert_eq!(answer_to(&mut client, &too_long.masked()).await, (vec![], Some(1002)));
    let mut client = open(&echo).await;
    let no_text = Frame::new(FIN | CLOSE, &b"\x03\xe8\xce\xba\xff"[..]);
    assert_eq!(answer_to(&mut client, &no_text.masked()).await, (vec![], Some(1007)));
    // Earlier messages are echoed, later ones ignored.
    let mut client = open(&echo).await;
    let hello = Frame::new(FIN | TEXT, "hello");
    let bytes = bytes_of(&[hello.clone(), close_frame(1000, ""), hello.clone(), Frame::new(FIN | PING, "")]);
    assert_eq!(answer_to(&mut client, &bytes).await, (vec![hello], Some(1000)));
}

/// Sections 12 and 13.
#[tokio::test]
async fn compressed_messages_of_any_window_are_echoed() {
    let echo = Echo::start(MOST).await;
    let mut client = open_compressing(&echo).await;
    let words = r#"{"type":"userUpdate","user":{"name":"Ada","tracks":{"audio":"a/1","video":"a/2"}}}"#;
    for bytes in [0, 1, 16, 64, 256, 1024, 4096, 65_536, 131_072, MOST] {
        let text: Vec<u8> = words.bytes().cycle().take(bytes).collect();
        for (opcode, window_bits, level, pieces) in
            [(TEXT, 9, 1, 1), (BINARY, 12, 6, 2), (TEXT, 15, 9, 5), (BINARY, 15, 0, 3)]
        {
            let payload = deflated(&text, level, window_bits);
            let chunks: Vec<&[u8]> = payload.chunks(payload.len().div_ceil(pieces)).collect();
            for (place, piece) in chunks.iter().enumerate() {
                let first = if place == 0 { DEFLATED | opcode } else { CONTINUATION };
                let fin = if place + 1 == chunks.len() { FIN } else { 0 };
                client.say(&Frame::new(fin | first, *piece).masked()).await;
            }
            let Frame { first, payload } = client.frame().await.expect("an answer");
            assert_eq!(first & !DEFLATED, FIN | opcode);
            let message = if first & DEFLATED == 0 { payload } else { inflated(&payload) };
            assert!(message == text, "{bytes} bytes, window {window_bits}");
        }
    }
    // Plain messages may interleave, and so may other encodings of "Hello" (RFC 7692 section 7.2.3).
    for payload in [
        &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00][..],
        &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00],
        &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
        &[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00],
    ] {
        let plain = Frame::new(FIN | TEXT, "Hello");
        client
            .say(&bytes_of(&[plain.clone(), Frame::new(FIN | DEFLATED | TEXT, payload), plain.clone()]))
            .await;
        for _ in 0..3 {
            assert_eq!(client.frame().await, Some(plain.clone()), "{payload:x?}");
        }
    }
    let bomb = Frame::new(FIN | DEFLATED | TEXT, deflated(&vec![b'*'; 32 << 20], 9, 15));
    assert_eq!(answer_to(&mut client, &bomb.masked()).await, (vec![], Some(1009)));
    let mut client = open_compressing(&echo).await;
    let broken = Frame::new(FIN | DEFLATED | TEXT, vec![0xff; 20]);
    assert_eq!(answer_to(&mut client, &broken.masked()).await, (vec![], Some(1007)));
    let mut client = open(&echo).await;
    let unasked = Frame::new(FIN | DEFLATED | TEXT, deflated(b"Hello", 6, 15));
    assert_eq!(answer_to(&mut client, &unasked.masked()).await, (vec![], Some(1002)));
}
