//! Compression of entries and messages (RFC 1951).
//!
//! Each thread keeps one compressor (about 300 kB) and one decompressor (about 45 kB): one for each message would be made
//! and thrown away for every entry, which costs time, and leaves holes in the heap that are larger than what rooms hold.

use std::cell::RefCell;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// The least bytes by which a result grows.
const GROWTH: usize = 256;

thread_local! {
    static DEFLATER: RefCell<Compress> = RefCell::new(Compress::new(Compression::fast(), false));
    static INFLATER: RefCell<Decompress> = RefCell::new(Decompress::new(false));
}

/// Appends the compressed form of `plain` to `bytes`.
#[expect(clippy::expect_used, reason = "a compressor takes all bytes, and is not used beyond its end")]
pub fn deflate(plain: &[u8], bytes: &mut Vec<u8>) {
    DEFLATER.with_borrow_mut(|deflater| {
        deflater.reset();
        bytes.reserve(plain.len() / 2 + GROWTH);
        let mut rest = plain;
        loop {
            let before = deflater.total_in();
            let status = deflater.compress_vec(rest, bytes, FlushCompress::Finish);
            let status = status.expect("a compressor takes all bytes");
            rest = &rest[taken(before, deflater.total_in(), rest)..];
            if status == Status::StreamEnd {
                return;
            }
            bytes.reserve(rest.len().max(GROWTH));
        }
    });
}

/// The plain form of `compressed`, of which no more is read than that it is longer than `most` bytes; `None` if it is
/// malformed or truncated.
pub fn inflate(compressed: &[u8], most: usize) -> Option<Vec<u8>> {
    INFLATER.with_borrow_mut(|inflater| {
        inflater.reset(false);
        let most = most.saturating_add(1);
        let mut plain = Vec::with_capacity(compressed.len().saturating_mul(4).min(most));
        let mut rest = compressed;
        loop {
            let before = inflater.total_in();
            let status = inflater.decompress_vec(rest, &mut plain, FlushDecompress::None).ok()?;
            rest = &rest[taken(before, inflater.total_in(), rest)..];
            if status == Status::StreamEnd || plain.len() >= most {
                return Some(plain);
            }
            if plain.len() < plain.capacity() {
                // There was space, so it wants more to read.
                return None;
            }
            let wanted = plain.len().saturating_mul(2).max(GROWTH).min(most);
            plain.reserve_exact(wanted - plain.len());
        }
    })
}

/// Number of bytes of `rest` that were read between two counts.
fn taken(before: u64, after: u64, rest: &[u8]) -> usize {
    usize::try_from(after - before).unwrap_or(rest.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn deflated(plain: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        deflate(plain, &mut bytes);
        bytes
    }

    proptest! {
        #[test]
        fn compressed_bytes_are_read_back(plain in proptest::collection::vec(0_u8..8, 0..20_000)) {
            let mut bytes = vec![7];
            deflate(&plain, &mut bytes);
            prop_assert_eq!(bytes[0], 7);
            prop_assert_eq!(inflate(&bytes[1..], plain.len()), Some(plain.clone()));
            prop_assert_eq!(inflate(&bytes[1..bytes.len() - 1], plain.len()), None);
        }

        #[test]
        fn random_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
            prop_assert_eq!(inflate(&deflated(&bytes), 2_000), Some(bytes.clone()));
            prop_assert!(inflate(&bytes, 1_000).is_none_or(|plain| plain.len() <= 1_001));
        }
    }

    #[test]
    fn long_result_is_cut_off() {
        let bomb = deflated(&vec![0; 10 << 20]);
        assert!(bomb.len() < 100 << 10);
        assert_eq!(inflate(&bomb, 1000).map(|plain| plain.len()), Some(1001));
        assert_eq!(inflate(&bomb, usize::MAX).map(|plain| plain.len()), Some(10 << 20));
        assert_eq!(inflate(&[], 10), None);
    }
}
