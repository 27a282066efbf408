//! Message compression: permessage-deflate without context takeover (RFC 7692).
//!
//! No message refers to an earlier one, so a message's compressed form is the same bytes for every
//! socket, and no socket holds a window. Each thread keeps one compressor (about 300 kB) and one
//! decompressor (about 45 kB) for all sockets and rooms that it serves.

use std::cell::RefCell;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// Encoding of a message's bytes in their frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// Uncompressed.
    #[default]
    Identity,
    /// Compressed, as marked by the frame's first reserved bit (RSV1).
    Deflate,
}

/// Reason for a message that cannot be inflated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InflateError {
    /// The inflated message is longer than the limit.
    #[error("the message is too long")]
    TooLong,
    /// The data is not valid deflate data, or is truncated.
    #[error("the message is not valid deflate data (RFC 1951)")]
    Broken,
}

/// Compression level. Level 1 of the library writes half as much again for 100 users; level 3 and
/// up take longer for 1 % (`benches/rooms.rs`).
const LEVEL: u32 = 2;

/// The end of every compressed message, removed from the frame (RFC 7692 section 7.2.1).
const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

/// [`TAIL`] and an empty final block: only complete data ends exactly with it.
const TAIL_AND_END: [u8; 6] = [0x00, 0x00, 0xff, 0xff, 0x03, 0x00];

/// Maximum number of final blocks in a message. One is usual, and each costs a reset of the
/// decompressor for only two bytes of input.
const MAX_LAST_BLOCKS: usize = 1000;

thread_local! {
    static DEFLATER: RefCell<Compress> = RefCell::new(Compress::new(Compression::new(LEVEL), false));
    static INFLATER: RefCell<Decompress> = RefCell::new(Decompress::new(false));
}

/// Compresses `message` to a frame's payload; `None` if that would not be shorter.
pub fn deflate(message: &[u8]) -> Option<Vec<u8>> {
    DEFLATER.with_borrow_mut(|deflater| {
        deflater.reset();
        // A payload that exceeds the buffer is not shorter. The tail's bytes are added, since they
        // are cut off again.
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

/// Inflates a message from the concatenated payloads of its frames.
///
/// # Errors
/// [`InflateError`] if the message is longer than `most` bytes, found without inflating it further,
/// or if the payload is malformed.
pub fn inflate(payload: &[u8], most: usize) -> Result<Vec<u8>, InflateError> {
    // An empty message is encoded as one byte (RFC 7692 section 7.2.3.6); a payload of none is accepted too.
    if payload.is_empty() {
        return Ok(Vec::new());
    }
    INFLATER.with_borrow_mut(|inflater| {
        inflater.reset(false);
        let guess = payload.len().saturating_mul(4);
        let mut message = Vec::with_capacity(guess.max(64).min(most.saturating_add(1)));
        if feed(inflater, payload, &mut message, most)? == Fed::Ended {
            // The payload ends with a final block: its sender omitted the empty block after it (RFC
            // 7692 section 7.2.3.4).
            return Ok(message);
        }
        match feed(inflater, &TAIL_AND_END, &mut message, most)? {
            Fed::Ended => Ok(message),
            Fed::WantsMore => Err(InflateError::Broken),
        }
    })
}

/// State after a piece of data has been fed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fed {
    /// The piece ends exactly at the end of a final block.
    Ended,
    /// The piece ends anywhere else.
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
            // One byte over the limit is enough to detect an overlong message.
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
            // More blocks may follow a final one (RFC 7692 section 7.2.3.4).
            Status::StreamEnd if last_blocks < MAX_LAST_BLOCKS => {
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
    fn rfc_7692_examples_are_inflated() {
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
    fn malformed_or_truncated_data_is_rejected() {
        let payload = deflate("say it again, and again, and again".repeat(20).as_bytes()).unwrap();
        for bytes in 1..payload.len() {
            assert_eq!(inflated(&payload[..bytes]), Err(InflateError::Broken), "{bytes} bytes of it");
        }
        // An invalid block type; a stored block with a length mismatch; a back-reference to before
        // the message, as a sender with context takeover would make it.
        for payload in [&[0x07][..], &[0x00, 0x05, 0x00, 0x05, 0x00, 0x48], &[0xf2, 0x00, 0x11, 0x00, 0x00]] {
            assert_eq!(inflated(payload), Err(InflateError::Broken), "{payload:x?}");
        }
        assert!(inflated(&payload).is_ok(), "and the thread's inflater is as good as new");
    }

    #[test]
    fn bomb_is_rejected_before_it_is_inflated() {
        let bomb = deflate(&vec![b'x'; 16 << 20]).unwrap();
        assert!(bomb.len() < 100_000);
        assert_eq!(inflate(&bomb, 1000), Err(InflateError::TooLong));
        // Several bombs in sequence, each with a final block.
        let bombs = [&bomb[..], &[0x00, 0x00, 0xff, 0xff, 0x03, 0x00]].concat().repeat(3);
        assert_eq!(inflate(&bombs, 20 << 20), Err(InflateError::TooLong));
        // A million empty final blocks, each of which resets the decompressor.
        assert_eq!(inflated(&[0x03, 0x00].repeat(1 << 20)), Err(InflateError::Broken));
    }

    #[test]
    fn limit_applies_to_inflated_bytes() {
        for bytes in [63, 64, 65, 1000, 4096, 100_000] {
            let payload = deflate(&vec![b'x'; bytes]).unwrap();
            assert_eq!(inflate(&payload, bytes).map(|message| message.len()), Ok(bytes));
            assert_eq!(inflate(&payload, bytes - 1), Err(InflateError::TooLong), "{bytes}");
        }
    }

    #[test]
    fn incompressible_message_stays_plain() {
        assert_eq!(deflate(b""), None);
        assert_eq!(deflate(br#"{"type":"muteMic"}"#), None);
        let mut noise = [0; 5000];
        getrandom::fill(&mut noise).unwrap();
        assert_eq!(deflate(&noise), None);
    }

    proptest! {
        #[test]
        fn deflated_message_inflates_to_itself(words in prop::collection::vec("[a-zA-Zäöü\u{1f600} ]{0,30}", 0..200)) {
            let text = words.concat();
            if let Some(payload) = deflate(text.as_bytes()) {
                prop_assert!(payload.len() < text.len());
                prop_assert_eq!(inflated(&payload), Ok(text));
            }
        }

        /// Other compressors: all levels, with blocks that end anywhere.
        #[test]
        fn data_of_other_compressors_is_inflated(
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
        fn arbitrary_bytes_stay_within_the_limit(payload in prop::collection::vec(any::<u8>(), 0..2000)) {
            if let Ok(message) = inflate(&payload, 500) {
                prop_assert!(message.len() <= 500);
            }
        }
    }
}
