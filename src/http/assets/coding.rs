//! Content encodings of files: identity, brotli or gzip.

use std::io::{self, Write};

use axum::http::HeaderMap;
use axum::http::header::ACCEPT_ENCODING;
use brotli::CompressorWriter;
use flate2::Compression;
use flate2::write::GzEncoder;

/// One step below the best level, which takes five times as long for one percent less.
const BROTLI_QUALITY: u32 = 9;

/// Logarithm of the window, 2^22 bytes: the largest that every browser accepts.
const BROTLI_WINDOW: u32 = 22;

/// A content encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Coding {
    /// No encoding.
    Identity,
    /// `br`.
    Brotli,
    /// `gzip`.
    Gzip,
}

impl Coding {
    /// Returns the value of `Content-Encoding`, if any.
    pub fn token(self) -> Option<&'static str> {
        match self {
            Self::Identity => None,
            Self::Brotli => Some("br"),
            Self::Gzip => Some("gzip"),
        }
    }

    /// Returns the end of the entity tag of a file in this encoding.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Identity => "",
            Self::Brotli => ".br",
            Self::Gzip => ".gz",
        }
    }

    /// Returns the encoding that the client prefers (RFC 9110 section 12.5.3).
    ///
    /// A client that sends no preference, or only `*`, gets `Identity`.
    pub fn best(headers: &HeaderMap) -> Self {
        let lines = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|line| line.to_str().ok());
        let mut best = (Self::Identity, 0.0);
        for entry in lines.flat_map(|line| line.split(',')) {
            let (token, rest) = entry.split_once(';').unwrap_or((entry, ""));
            let coding = match token.trim() {
                token if token.eq_ignore_ascii_case("br") => Self::Brotli,
                token if token.eq_ignore_ascii_case("gzip") => Self::Gzip,
                _ => continue,
            };
            let weight = rest.trim().strip_prefix("q=").map_or(Some(1.0), |q| q.trim().parse().ok());
            let weight: f32 = weight.unwrap_or(0.0);
            if weight > best.1 || (weight == best.1 && coding == Self::Brotli && weight > 0.0) {
                best = (coding, weight);
            }
        }
        best.0
    }

    /// Compresses bytes; blocks for long.
    ///
    /// # Errors
    /// None in practice: it writes to memory.
    pub fn compress(self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let out = Vec::with_capacity(bytes.len() / 3);
        match self {
            Self::Identity => Ok(bytes.to_vec()),
            Self::Brotli => {
                let mut writer = CompressorWriter::new(out, 64 << 10, BROTLI_QUALITY, BROTLI_WINDOW);
                writer.write_all(bytes)?;
                Ok(writer.into_inner())
            }
            Self::Gzip => {
                let mut writer = GzEncoder::new(out, Compression::best());
                writer.write_all(bytes)?;
                writer.finish()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn best_coding_is_one_of_the_accepted() {
        for (accept, best) in [
            ("gzip, deflate, br, zstd", Coding::Brotli),
            ("br, gzip", Coding::Brotli),
            ("gzip", Coding::Gzip),
            ("GZIP;q=0.5, br;q=0.4", Coding::Gzip),
            ("br;q=0, gzip ; q=0.1", Coding::Gzip),
            ("br;q=0", Coding::Identity),
            ("br;q=much", Coding::Identity),
            ("*", Coding::Identity),
            ("identity", Coding::Identity),
            ("", Coding::Identity),
        ] {
            let headers = [(ACCEPT_ENCODING, HeaderValue::from_static(accept))].into_iter().collect();
            assert_eq!(Coding::best(&headers), best, "{accept}");
        }
        assert_eq!(Coding::best(&HeaderMap::new()), Coding::Identity);
    }

    #[test]
    fn compressed_bytes_decompress_to_the_same() {
        let text = "rooms are values with one method\n".repeat(1000).into_bytes();
        let packed = Coding::Brotli.compress(&text).unwrap();
        let mut read = Vec::new();
        brotli::Decompressor::new(&packed[..], 4096).read_to_end(&mut read).unwrap();
        assert!(read == text && packed.len() < text.len() / 20);

        let packed = Coding::Gzip.compress(&text).unwrap();
        read.clear();
        flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut read).unwrap();
        assert!(read == text && packed.len() < text.len() / 20);
    }
}
