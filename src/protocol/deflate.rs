//! Messages made smaller: permessage-deflate without a window between messages (RFC 7692).
//!
//! Nothing of one message helps with the next, so a message's compressed form is the same bytes for
//! every socket, and no socket holds a window. What a thread keeps to compress (about 300 kB) and
//! to inflate (about 45 kB) with, it keeps for all sockets and rooms that it serves.

use std::cell::RefCell;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// How the bytes of a message lie in their frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// As they are.
    #[default]
    Plain,
    /// Compressed, which the frame's first reserved bit says.
    Deflated,
}

/// Why a message cannot be inflated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InflateError {
    /// It is longer than it may be.
    #[error("the message is too long")]
    TooLong,
    /// It is no deflated data, or ends too early.
    #[error("the message is not compressed as RFC 1951 says")]
    Broken,
}

/// Level 1 of the library writes half as much again for 100 users, level 3 and up take longer for
/// 1 % (`benches/rooms.rs`).
const LEVEL: u32 = 2;

/// The end that every compressed message has and no frame carries (RFC 7692 section 7.2.1).
const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

/// That end, and an empty last block: data that is whole ends with it and nowhere else.
const TAIL_AND_END: [u8; 6] = [0x00, 0x00, 0xff, 0xff, 0x03, 0x00];

/// How many last blocks a message may have. One is usual, and to begin anew costs more than the two
/// bytes that ask for it.
const MOST_LAST_BLOCKS: usize = 1000;

thread_local! {
    static DEFLATER: RefCell<Compress> = RefCell::new(Compress::new(Compression::new(LEVEL), false));
    static INFLATER: RefCell<Decompress> = RefCell::new(Decompress::new(false));
}

/// The payload of a frame that says `message`; nothing if that would be no shorter.
pub fn deflate(message: &[u8]) -> Option<Vec<u8>> {
    DEFLATER.with_borrow_mut(|deflater| {
        deflater.reset();
        // What does not fit is not shorter. The tail comes on top, since it is cut off again.
        let mut payload = Vec::with_capacity(message.len() + TAIL.len());
        deflater.compress_vec(message, &mut payload, FlushCompress::Sync).ok()?;
        let is_whole = deflater.total_in() == message.len() as u64 && payload.len() < payload.capacity();
        if !is_whole || !payload.ends_with(&TAIL) {
            return None;
        }
        payload.truncate(payload.len() - TAIL.len());
        payload.shrink_to_fit();
        (payload.len() < message.len()).then_some(payload)
    })
}

/// The message that the payloads of its frames say together.
///
/// # Errors
/// [`InflateError`] if it is longer than `most` bytes, of which it is told without making them, or
/// if the payload says nothing.
pub fn inflate(payload: &[u8], most: usize) -> Result<Vec<u8>, InflateError> {
    // An empty message is one byte (RFC 7692 section 7.2.3.6), but none is clear enough.
    if payload.is_empty() {
        return Ok(Vec::new());
    }
    INFLATER.with_borrow_mut(|inflater| {
        inflater.reset(false);
        let guess = payload.len().saturating_mul(4);
        let mut message = Vec::with_capacity(guess.max(64).min(most.saturating_add(1)));
        if feed(inflater, payload, &mut message, most)? == Fed::Ended {
            // A last block ended with the payload: its sender left out the empty block after it
            // (RFC 7692 section 7.2.3.4).
            return Ok(message);
        }
        match feed(inflater, &TAIL_AND_END, &mut message, most)? {
            Fed::Ended => Ok(message),
            Fed::WantsMore => Err(InflateError::Broken),
        }
    })
}

/// What a piece of data led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fed {
    /// Its end is the end of a last block.
    Ended,
    /// Its end is anywhere else.
    WantsMore,
}

fn feed(
    inflater: &mut Decompress,
    mut piece: &[u8],
    message: &mut Vec<u8>,
    most: usize,
) -> Result<Fed, InflateError> {
    let mut last_blocks = 0;
    loop {
        if message.len() > most {
            return Err(InflateError::TooLong);
        }
        if message.len() == message.capacity() {
            // One byte too many is enough to tell.
            let wanted = message.len().saturating_mul(2).max(64).min(most.saturating_add(1));
            message.reserve_exact(wanted - message.len());
        }
        let before = inflater.total_in();
        let status = inflater
            .decompress_vec(piece, message, FlushDecompress::None)
            .map_err(|_| InflateError::Broken)?;
        let taken = usize::try_from(inflater.total_in() - before).unwrap_or(piece.len());
        piece = &piece[taken..];
        match status {
            Status::StreamEnd if piece.is_empty() => {
                return if message.len() > most { Err(InflateError::TooLong) } else { Ok(Fed::Ended) };
            }
            // More blocks may follow a last one (RFC 7692 section 7.2.3.4).
            Status::StreamEnd if last_blocks < MOST_LAST_BLOCKS => {
                last_blocks += 1;
                inflater.reset(false);
            }
            Status::StreamEnd => return Err(InflateError::Broken),
            Status::Ok | Status::BufError if piece.is_empty() && message.len() < message.capacity() => {
                return Ok(Fed::WantsMore);
            }
            Status::Ok | Status::BufError => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MOST: usize = 1 << 20;

    fn inflated(payload: &[u8]) -> Result<String, InflateError> {
        inflate(payload, MOST).map(|message| String::from_utf8(message).unwrap())
    }

    /// The examples of RFC 7692 sections 7.2.3.1 to 7.2.3.6.
    #[test]
    fn every_way_to_say_hello_is_understood() {
        let one_block = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
        let stored = [0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00];
        let last = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00];
        let last_and_nothing_after = &last[..7];
        let two_blocks = [0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00];
        for payload in [&one_block[..], &stored, &last, last_and_nothing_after, &two_blocks] {
            assert_eq!(inflated(payload).as_deref(), Ok("Hello"), "{payload:x?}");
        }
        let twice = [&last[..7], &one_block].concat();
        assert_eq!(inflated(&twice).as_deref(), Ok("HelloHello"), "a block follows the last one");
        for empty in [&[][..], &[0x00], &[0x02, 0x00], &[0x03, 0x00], &[0x03, 0x00, 0x00]] {
            assert_eq!(inflated(empty).as_deref(), Ok(""), "{empty:x?}");
        }
    }

    #[test]
    fn what_is_broken_or_cut_off_is_told() {
        let payload = deflate("say it again, and again, and again".repeat(20).as_bytes()).unwrap();
        for bytes in 1..payload.len() {
            assert_eq!(inflated(&payload[..bytes]), Err(InflateError::Broken), "{bytes} bytes of it");
        }
        // A block of a kind that there is not; a stored one whose lengths disagree; a reference to
        // before the beginning, as a sender that kept its window would make it.
        for payload in [&[0x07][..], &[0x00, 0x05, 0x00, 0x05, 0x00, 0x48], &[0xf2, 0x00, 0x11, 0x00, 0x00]] {
            assert_eq!(inflated(payload), Err(InflateError::Broken), "{payload:x?}");
        }
        assert!(inflated(&payload).is_ok(), "and the thread's inflater is as good as new");
    }

    #[test]
    fn a_bomb_is_told_before_it_is_made() {
        let bomb = deflate(&vec![b'x'; 16 << 20]).unwrap();
        assert!(bomb.len() < 100_000);
        assert_eq!(inflate(&bomb, 1000), Err(InflateError::TooLong));
        // Bombs one after the other, each with a last block.
        let bombs = [&bomb[..], &[0x00, 0x00, 0xff, 0xff, 0x03, 0x00]].concat().repeat(3);
        assert_eq!(inflate(&bombs, 20 << 20), Err(InflateError::TooLong));
        // Nothing, said a million times, each time anew.
        assert_eq!(inflated(&[0x03, 0x00].repeat(1 << 20)), Err(InflateError::Broken));
    }

    #[test]
    fn the_limit_is_that_of_a_plain_message() {
        for bytes in [63, 64, 65, 1000, 4096, 100_000] {
            let payload = deflate(&vec![b'x'; bytes]).unwrap();
            assert_eq!(inflate(&payload, bytes).map(|message| message.len()), Ok(bytes));
            assert_eq!(inflate(&payload, bytes - 1), Err(InflateError::TooLong), "{bytes}");
        }
    }

    #[test]
    fn what_would_not_become_shorter_is_left_alone() {
        assert_eq!(deflate(b""), None);
        assert_eq!(deflate(br#"{"type":"muteMic"}"#), None);
        let mut noise = [0; 5000];
        getrandom::fill(&mut noise).unwrap();
        assert_eq!(deflate(&noise), None);
    }

    proptest! {
        #[test]
        fn what_was_deflated_comes_back(words in prop::collection::vec("[a-zA-Zäöü\u{1f600} ]{0,30}", 0..200)) {
            let text = words.concat();
            if let Some(payload) = deflate(text.as_bytes()) {
                prop_assert!(payload.len() < text.len());
                prop_assert_eq!(inflated(&payload), Ok(text));
            }
        }

        /// Compressors of other people: every level, with blocks that end anywhere.
        #[test]
        fn what_others_deflated_is_understood(
            pieces in prop::collection::vec(prop::collection::vec(0..8u8, 0..3000), 0..6),
            level in 0..=9u32,
        ) {
            let mut deflater = Compress::new(Compression::new(level), false);
            let mut payload = Vec::with_capacity(pieces.concat().len() * 2 + 1000);
            for piece in &pieces {
                deflater.compress_vec(piece, &mut payload, FlushCompress::Sync).unwrap();
            }
            let payload = payload.strip_suffix(&TAIL).unwrap_or(&payload);
            prop_assert_eq!(inflate(payload, MOST), Ok(pieces.concat()));
        }

        #[test]
        fn no_bytes_make_it_panic_or_go_over_the_limit(payload in prop::collection::vec(any::<u8>(), 0..2000)) {
            if let Ok(message) = inflate(&payload, 500) {
                prop_assert!(message.len() <= 500);
            }
        }
    }
}
