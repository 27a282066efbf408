//! Compressed messages (`permessage-deflate`, RFC 7692): offer, agreement, and inflating.

use flate2::{Decompress, FlushDecompress, Status};

/// The offer of every browser.
pub const OFFER: &str = "permessage-deflate; client_max_window_bits";

/// The most bytes that a message may inflate to.
const LONGEST_MESSAGE: usize = 64 << 20;

/// Bytes that the sender omits at the end of each message (RFC 7692 section 7.2.2).
const TAIL: [u8; 4] = [0, 0, 0xFF, 0xFF];

/// A message's use of earlier messages (context takeover).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Context {
    /// It may refer to them.
    TakenOver,
    /// It stands alone, so that it can be the same bytes for everyone.
    None,
}

/// The server's answer to the offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// The compression of its messages.
    pub context: Context,
    /// The answer, as the server wrote it.
    pub text: String,
}

/// An answer that does not match the offer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server answered an extension that was not offered: {0}")]
pub struct NotOffered(String);

/// Reads the answer, which is the value of `Sec-WebSocket-Extensions`; `None` if compression is not agreed on.
///
/// Parameters for the client's side are ignored: it may send everything uncompressed, and does.
///
/// # Errors
/// [`NotOffered`] if it is another extension.
pub fn agreed(answer: &str) -> Result<Option<Agreed>, NotOffered> {
    let text = answer.trim().to_owned();
    let mut parts = text.split(';').map(str::trim);
    match parts.next() {
        None | Some("") => Ok(None),
        Some("permessage-deflate") => {
            let stands_alone = parts.any(|part| part == "server_no_context_takeover");
            Ok(Some(Agreed { context: if stands_alone { Context::None } else { Context::TakenOver }, text }))
        }
        Some(_) => Err(NotOffered(text)),
    }
}

/// Makes messages of what one server's connection compressed.
#[derive(Debug)]
pub struct Inflater {
    context: Context,
    state: Decompress,
    message: Vec<u8>,
}

/// An error of inflating a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CannotInflate {
    /// It is not what a compressor writes.
    #[error("a compressed message is malformed")]
    Malformed,
    /// It would fill the tool's memory.
    #[error("a compressed message has more than 64 MiB")]
    TooLong,
}

impl Inflater {
    /// An inflater for a connection that has just been opened.
    pub fn new(context: Context) -> Self {
        Self { context, state: Decompress::new(false), message: Vec::new() }
    }

    /// The message of a compressed payload, until the next one.
    ///
    /// # Errors
    /// [`CannotInflate`]; later messages cannot be inflated either, unless they stand alone.
    pub fn inflate(&mut self, payload: &[u8]) -> Result<&[u8], CannotInflate> {
        self.message.clear();
        for mut part in [payload, &TAIL] {
            while !part.is_empty() {
                let InflateStep { read, written, status } = self.step(part)?;
                if status == Status::StreamEnd {
                    // The compressor ended its stream, as it may; the next message begins another one.
                    self.state.reset(false);
                    return Ok(&self.message);
                }
                if read == 0 && written == 0 {
                    return Err(CannotInflate::Malformed);
                }
                part = &part[read..];
            }
        }
        // The input may be used up while output still waits for room.
        while self.step(&[])?.written > 0 {}
        if self.context == Context::None {
            self.state.reset(false);
        }
        Ok(&self.message)
    }

    fn step(&mut self, part: &[u8]) -> Result<InflateStep, CannotInflate> {
        if self.message.len() > LONGEST_MESSAGE {
            return Err(CannotInflate::TooLong);
        }
        self.message.reserve(4096.max(part.len()));
        let (read, written) = (self.state.total_in(), self.state.total_out());
        let status = self
            .state
            .decompress_vec(part, &mut self.message, FlushDecompress::Sync)
            .map_err(|_| CannotInflate::Malformed)?;
        let read = (self.state.total_in() - read) as usize;
        Ok(InflateStep { read, written: self.state.total_out() - written, status })
    }
}

/// The result of one call of the library.
struct InflateStep {
    read: usize,
    written: u64,
    status: Status,
}

#[cfg(test)]
mod tests {
    use flate2::{Compress, Compression, FlushCompress};

    use super::*;

    #[test]
    fn answer_tells_the_context() {
        let context = |answer| agreed(answer).unwrap().unwrap().context;
        assert_eq!(context("permessage-deflate"), Context::TakenOver);
        assert_eq!(context("permessage-deflate; client_no_context_takeover"), Context::TakenOver);
        assert_eq!(context(" permessage-deflate;server_no_context_takeover ; x=1"), Context::None);
        assert_eq!(agreed(""), Ok(None));
        let other = "permessage-bzip2; server_no_context_takeover";
        assert_eq!(agreed(other), Err(NotOffered(other.to_owned())));
    }

    /// A message as a server compresses it.
    fn compress(state: &mut Compress, message: &[u8]) -> Vec<u8> {
        if message.is_empty() {
            // RFC 7692 section 7.2.3.6; the library makes nothing of nothing.
            return vec![0];
        }
        let mut payload = Vec::with_capacity(message.len() + message.len() / 8 + 1024);
        state.compress_vec(message, &mut payload, FlushCompress::Sync).unwrap();
        assert!(payload.ends_with(&TAIL));
        payload.truncate(payload.len() - TAIL.len());
        payload
    }

    fn messages() -> Vec<Vec<u8>> {
        let random: Vec<u8> =
            (0..50_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()).collect();
        let zeros = vec![b'0'; 3_000_000];
        vec![b"{\"type\":\"roomState\"}".to_vec(), random.clone(), Vec::new(), random, zeros, b"end".to_vec()]
    }

    #[test]
    fn messages_are_inflated_with_what_came_before() {
        let (mut server, mut inflater) =
            (Compress::new(Compression::fast(), false), Inflater::new(Context::TakenOver));
        for message in messages() {
            let payload = compress(&mut server, &message);
            assert_eq!(inflater.inflate(&payload).unwrap(), message);
        }
    }

    #[test]
    fn messages_that_stand_alone_are_inflated() {
        let mut inflater = Inflater::new(Context::None);
        for message in messages() {
            let payload = compress(&mut Compress::new(Compression::best(), false), &message);
            assert_eq!(inflater.inflate(&payload).unwrap(), message);
        }
    }

    #[test]
    fn a_stream_that_ends_is_a_message_too() {
        let mut inflater = Inflater::new(Context::TakenOver);
        for _ in 0..2 {
            let mut payload = Vec::with_capacity(100);
            let mut state = Compress::new(Compression::fast(), false);
            state.compress_vec(b"final", &mut payload, FlushCompress::Finish).unwrap();
            assert_eq!(inflater.inflate(&payload).unwrap(), b"final");
        }
    }

    #[test]
    fn bombs_and_nonsense_are_refused() {
        let mut inflater = Inflater::new(Context::None);
        assert_eq!(inflater.inflate(&[0xFF; 20]), Err(CannotInflate::Malformed));
        let bomb = compress(&mut Compress::new(Compression::fast(), false), &vec![0; LONGEST_MESSAGE + 1]);
        assert!(bomb.len() < LONGEST_MESSAGE / 100);
        assert_eq!(Inflater::new(Context::None).inflate(&bomb), Err(CannotInflate::TooLong));
    }
}
