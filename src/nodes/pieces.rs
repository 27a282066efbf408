//! Long answers between nodes, in pieces that every server of the engine passes on.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

/// Size in bytes of a piece. The start of a node requires a little more of the engine, whatever the limits on clients.
pub(super) const PIECE: usize = 96 << 10;

/// Maximum size in bytes of an answer, and of all of them that are asked for.
const MAX_ANSWER: usize = 64 << 20;

/// Maximum number of answers that are asked for; the oldest are forgotten.
const MAX_ANSWERS: usize = 64;

const WHOLE: u8 = 1;
const FIRST: u8 = 2;

/// A reply with an answer, or a part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply<'a> {
    /// All of it, or all of the piece that was asked for.
    Whole(&'a [u8]),
    /// The first piece.
    First {
        /// The answer, to ask for the next one.
        answer: u64,
        /// The size in bytes of all pieces.
        total: usize,
        /// The piece.
        bytes: &'a [u8],
    },
}

impl<'a> Reply<'a> {
    /// Decodes a reply; none for one that is no answer.
    pub(super) fn decode(reply: &'a [u8]) -> Option<Self> {
        match reply.split_first()? {
            (&WHOLE, bytes) => Some(Self::Whole(bytes)),
            (&FIRST, rest) => {
                let (answer, rest) = rest.split_first_chunk()?;
                let (total, bytes) = rest.split_first_chunk()?;
                let total = usize::try_from(u64::from_be_bytes(*total)).ok();
                let total = total.filter(|total| (bytes.len()..=MAX_ANSWER).contains(total))?;
                Some(Self::First { answer: u64::from_be_bytes(*answer), total, bytes })
            }
            _ => None,
        }
    }
}

/// The answers whose further pieces will be asked for.
#[derive(Debug, Default)]
pub(super) struct Pieces(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    last: u64,
    answers: VecDeque<(u64, Bytes)>,
}

impl Pieces {
    /// The reply with an answer, or with its first piece. One that is too long is none.
    pub(super) fn first(&self, answer: Vec<u8>) -> Bytes {
        if answer.len() > MAX_ANSWER {
            return Bytes::new();
        }
        let Some(first) = answer.get(..PIECE).filter(|first| first.len() < answer.len()) else {
            return [&[WHOLE], &*answer].concat().into();
        };
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.last += 1;
        let (number, total) = (kept.last, u64::try_from(answer.len()).unwrap_or(u64::MAX));
        let reply = [&[FIRST], &number.to_be_bytes()[..], &total.to_be_bytes(), first].concat();
        let mut bytes = answer.len() + kept.answers.iter().map(|(_, answer)| answer.len()).sum::<usize>();
        while kept.answers.len() >= MAX_ANSWERS || bytes > MAX_ANSWER {
            let Some((_, oldest)) = kept.answers.pop_front() else { break };
            bytes -= oldest.len();
        }
        kept.answers.push_back((number, answer.into()));
        reply.into()
    }

    /// The reply with the piece of an answer from a byte on; no answer if it is forgotten.
    pub(super) fn next(&self, answer: u64, from: u64) -> Bytes {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept.answers.iter().position(|(number, _)| *number == answer);
        let found = at.zip(usize::try_from(from).ok()).and_then(|(at, from)| {
            let (_, bytes) = kept.answers.get(at)?;
            let rest = bytes.get(from..)?;
            let piece = rest.get(..PIECE).unwrap_or(rest);
            Some((at, [&[WHOLE], piece].concat(), piece.len() == rest.len()))
        });
        let Some((at, reply, is_last)) = found else { return Bytes::new() };
        if is_last {
            kept.answers.remove(at);
        }
        reply.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn together(pieces: &Pieces, reply: &Bytes) -> Option<Vec<u8>> {
        let (answer, total, mut bytes) = match Reply::decode(reply)? {
            Reply::Whole(bytes) => return Some(bytes.to_vec()),
            Reply::First { answer, total, bytes } => (answer, total, bytes.to_vec()),
        };
        while bytes.len() < total {
            let next = pieces.next(answer, bytes.len() as u64);
            let Some(Reply::Whole(piece)) = Reply::decode(&next) else { return None };
            bytes.extend_from_slice(piece);
        }
        Some(bytes)
    }

    #[test]
    fn long_answers_are_put_together() {
        let pieces = Pieces::default();
        for length in [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE, 3 * PIECE + 7] {
            let answer: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            let reply = pieces.first(answer.clone());
            assert!(reply.len() <= PIECE + 17);
            assert_eq!(together(&pieces, &reply), Some(answer), "{length}");
        }
        assert_eq!(pieces.0.lock().unwrap().answers.len(), 0, "nothing is kept that was taken");
    }

    #[test]
    fn kept_answers_are_bounded() {
        let pieces = Pieces::default();
        let first = pieces.first(vec![1; 2 * PIECE]);
        for _ in 0..MAX_ANSWERS {
            pieces.first(vec![2; 2 * PIECE]);
        }
        assert_eq!(together(&pieces, &first), None, "the oldest is forgotten");
        pieces.first(vec![3; MAX_ANSWER]);
        assert_eq!(pieces.0.lock().unwrap().answers.len(), 1);
        assert_eq!(Reply::decode(&pieces.first(vec![4; MAX_ANSWER + 1])), None);
        assert_eq!(Reply::decode(&[FIRST, 0, 0]), None);
        assert_eq!(Reply::decode(&[]), None);
    }
}
