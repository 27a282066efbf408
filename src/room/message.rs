//! A message on its way to members: its bytes once for all of them, in the forms that they take.

use std::sync::Arc;

use bytes::Bytes;

use crate::metrics::{Counted, Metrics};
use crate::protocol::deflate::{Form, deflate};

/// A shorter message fits into one packet as it is, so that compressing it saves nobody anything.
pub const DEFLATE_FROM_BYTES: usize = 1024;

/// What a short message takes beside its bytes: the shared block, its counter and the allocator's share.
const OVERHEAD_BYTES: usize = 160;

/// A message, shared by all outboxes that it waits in.
#[derive(Clone, Debug)]
pub struct Message(Arc<Forms>);

#[derive(Debug)]
struct Forms {
    plain: Bytes,
    deflated: Option<Bytes>,
}

/// A message as one socket writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// What is between the frame's header and its end.
    pub bytes: Bytes,
    /// What those bytes are.
    pub form: Form,
}

impl Message {
    /// A message that every socket gets as it is.
    pub fn plain(text: String, metrics: &Metrics) -> Self {
        Self(Arc::new(Forms { plain: counted(text.into_bytes(), metrics), deflated: None }))
    }

    /// A message that is compressed once for all who take it so, if that makes it shorter.
    pub fn deflated(text: String, metrics: &Metrics) -> Self {
        let deflated = if text.len() < DEFLATE_FROM_BYTES { None } else { deflate(text.as_bytes()) };
        let Some(deflated) = deflated else { return Self::plain(text, metrics) };
        metrics.deflate_from_bytes.inc_by(text.len() as u64);
        metrics.deflate_to_bytes.inc_by(deflated.len() as u64);
        let deflated = Some(counted(deflated, metrics));
        Self(Arc::new(Forms { plain: counted(text.into_bytes(), metrics), deflated }))
    }

    /// Its text.
    pub fn text(&self) -> &Bytes {
        &self.0.plain
    }

    /// What it takes in memory while it waits, however many outboxes share it.
    pub fn cost(&self) -> usize {
        self.0.plain.len() + self.deflated_bytes().unwrap_or_default() + OVERHEAD_BYTES
    }

    /// The bytes of its compressed form, if it has one.
    pub fn deflated_bytes(&self) -> Option<usize> {
        self.0.deflated.as_ref().map(Bytes::len)
    }

    /// The message for a socket that takes `form`, which plain messages may always come to.
    pub fn payload(&self, form: Form) -> Payload {
        match &self.0.deflated {
            Some(deflated) if form == Form::Deflated => Payload { bytes: deflated.clone(), form },
            _ => Payload { bytes: self.0.plain.clone(), form: Form::Plain },
        }
    }
}

/// Bytes that are counted in the gauge of waiting bytes for as long as anyone holds them: once,
/// however many outboxes share them.
fn counted(bytes: Vec<u8>, metrics: &Metrics) -> Bytes {
    struct Owner {
        bytes: Vec<u8>,
        _counted: Counted,
    }
    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            &self.bytes
        }
    }
    let counted = Counted::new(&metrics.outbox_bytes, bytes.len() + OVERHEAD_BYTES);
    Bytes::from_owner(Owner { bytes, _counted: counted })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::deflate::inflate;

    #[test]
    fn both_forms_say_the_same_and_are_the_same_bytes_for_everybody() {
        let metrics = Metrics::new();
        let text = "a user, and another user, and a third one".repeat(100);
        let message = Message::deflated(text.clone(), &metrics);
        let (plain, deflated) = (message.payload(Form::Plain), message.payload(Form::Deflated));
        assert_eq!((plain.form, plain.bytes), (Form::Plain, Bytes::from(text.clone())));
        assert_eq!(deflated.form, Form::Deflated);
        assert_eq!(inflate(&deflated.bytes, 1 << 20).unwrap(), text.as_bytes());
        assert_eq!(deflated.bytes.as_ptr(), message.clone().payload(Form::Deflated).bytes.as_ptr());
        assert_eq!(metrics.deflate_from_bytes.get(), text.len() as u64);
        assert_eq!(Some(metrics.deflate_to_bytes.get()), message.deflated_bytes().map(|bytes| bytes as u64));
    }

    #[test]
    fn a_message_that_is_short_or_would_grow_is_plain() {
        let metrics = Metrics::new();
        let mut noise = [0; 3000];
        getrandom::fill(&mut noise).unwrap();
        let noise: String =
            noise.iter().map(|byte| char::from_u32(0x4e00 + u32::from(*byte)).unwrap()).collect();
        let short = "x".repeat(DEFLATE_FROM_BYTES - 1);
        assert_eq!(Message::deflated(short, &metrics).payload(Form::Deflated).form, Form::Plain);
        assert_eq!(Message::plain(noise, &metrics).payload(Form::Deflated).form, Form::Plain);
        assert_eq!(metrics.deflate_from_bytes.get(), 0);
    }

    #[test]
    fn what_is_held_is_counted_in_each_form_once_and_given_back() {
        let metrics = Metrics::new();
        let message = Message::deflated("x".repeat(2000), &metrics);
        let held = 2000 + message.deflated_bytes().unwrap() as i64 + 2 * OVERHEAD_BYTES as i64;
        let [plain, deflated, other] =
            [Form::Plain, Form::Deflated, Form::Plain].map(|form| message.payload(form));
        assert_eq!(metrics.outbox_bytes.get(), held);
        drop((message, deflated, other));
        assert_eq!(
            metrics.outbox_bytes.get(),
            2000 + OVERHEAD_BYTES as i64,
            "who takes one form does not hold the other"
        );
        drop(plain);
        assert_eq!(metrics.outbox_bytes.get(), 0);
    }
}
