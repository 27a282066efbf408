//! Batches of datagrams to one peer, sent in one system call; usually the packets of one video frame.
//!
//! The system accepts several datagrams of equal length, the last of which may be shorter, as one buffer (UDP generic
//! segmentation offload), and traverses the network stack once for all of them.

use crate::engine::Transmit;

/// Most bytes that the system accepts as one buffer, without headers.
const MAX_BYTES: usize = 65_000;

/// The datagrams to send next.
#[derive(Debug, Default)]
pub struct SendBatch {
    /// The first datagram, with the contents of the others appended to its own.
    first: Option<Transmit>,
    segment: usize,
    count: usize,
    /// True after a shorter datagram, which has to be the last.
    is_ended: bool,
}

impl SendBatch {
    /// Adds a datagram; returns it if it cannot be sent with the others. `most` is the most datagrams of a batch.
    pub fn add(&mut self, transmit: Transmit, most: usize) -> Option<Transmit> {
        let length = transmit.contents.len();
        let Some(first) = &mut self.first else {
            *self = Self { first: Some(transmit), segment: length, count: 1, is_ended: length == 0 };
            return None;
        };
        let is_for_the_same = first.destination == transmit.destination && first.source == transmit.source;
        let fits = length <= self.segment && first.contents.len() + length <= MAX_BYTES;
        if !is_for_the_same || !fits || self.is_ended || self.count >= most {
            return Some(transmit);
        }
        first.contents.extend_from_slice(&transmit.contents);
        self.count += 1;
        self.is_ended = length < self.segment;
        None
    }

    /// Takes the batch: its destination and all bytes, the length of each datagram if there are several, and their
    /// number.
    pub fn take(&mut self) -> Option<(Transmit, Option<usize>, usize)> {
        let first = self.first.take()?;
        Some((first, (self.count > 1).then_some(self.segment), self.count))
    }
}

#[cfg(test)]
mod tests {
    use str0m::net::Protocol;

    use super::*;

    fn datagram(to: u16, length: usize) -> Transmit {
        Transmit {
            proto: Protocol::Udp,
            source: "127.0.0.1:1".parse().unwrap(),
            destination: ([127, 0, 0, 1], to).into(),
            is_video: false,
            contents: vec![length as u8; length],
        }
    }

    /// The batches in which datagrams to these ports and of these lengths are sent.
    fn batches(datagrams: &[(u16, usize)], most: usize) -> Vec<(u16, Option<usize>, usize, usize)> {
        let mut batch = SendBatch::default();
        let mut sent = Vec::new();
        let mut take = |batch: &mut SendBatch| {
            let Some((transmit, segment, count)) = batch.take() else { return };
            sent.push((transmit.destination.port(), segment, count, transmit.contents.len()));
        };
        for (to, length) in datagrams {
            if let Some(next) = batch.add(datagram(*to, *length), most) {
                take(&mut batch);
                assert_eq!(batch.add(next, most), None, "an empty batch takes everything");
            }
        }
        take(&mut batch);
        take(&mut batch);
        sent
    }

    #[test]
    fn equal_lengths_and_a_shorter_last_are_batched() {
        assert_eq!(batches(&[(1, 9), (1, 9), (1, 4), (1, 9)], 64), [(1, Some(9), 3, 22), (1, None, 1, 9)]);
        assert_eq!(
            batches(&[(1, 9), (2, 9), (2, 10)], 64),
            [(1, None, 1, 9), (2, None, 1, 9), (2, None, 1, 10)]
        );
        assert_eq!(batches(&[(1, 0), (1, 0)], 64), [(1, None, 1, 0), (1, None, 1, 0)]);
    }

    #[test]
    fn batch_respects_system_limits() {
        assert_eq!(batches(&[(1, 9); 5], 2), [(1, Some(9), 2, 18), (1, Some(9), 2, 18), (1, None, 1, 9)]);
        assert_eq!(batches(&[(1, 9); 2], 1), [(1, None, 1, 9); 2]);
        let all = batches(&[(1, 1200); 100], 64);
        assert_eq!(all.iter().map(|batch| batch.2).collect::<Vec<_>>(), [54, 46]);
    }

    #[test]
    fn bytes_keep_their_order() {
        let mut batch = SendBatch::default();
        for length in [3, 3, 2] {
            assert_eq!(batch.add(datagram(1, length), 64), None);
        }
        assert_eq!(batch.take().unwrap().0.contents, [3, 3, 3, 3, 3, 3, 2, 2]);
    }
}
