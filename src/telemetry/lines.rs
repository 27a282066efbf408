//! The queue between loggers and the log's reader: bounded in bytes, and never waited for.

use std::io::{self, ErrorKind, Write};
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;

/// Pause before retrying a full non-blocking pipe.
const FULL_PIPE_PAUSE: Duration = Duration::from_millis(10);

/// Maximum capacity of a buffer that is retained after a write, in bytes.
const KEPT_BYTES: usize = 64 << 10;

/// A queue of lines, written by one thread. Clones share the same queue.
#[derive(Clone, Debug)]
pub(super) struct Lines {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Signals that lines are queued.
    more: Condvar,
    /// Signals that all lines are written.
    idle: Condvar,
    /// Counter of dropped lines.
    dropped: Counter,
}

#[derive(Debug)]
struct State {
    waiting: Vec<u8>,
    max_bytes: usize,
    /// Lines dropped since the last batch was taken.
    dropped: u64,
    is_writing: bool,
}

impl Lines {
    /// Creates a queue of at most `max_bytes`. Lines that find it full or cannot be written are counted in `dropped`.
    pub(super) fn new(max_bytes: usize, dropped: Counter) -> Self {
        let state = State { waiting: Vec::new(), max_bytes, dropped: 0, is_writing: false };
        let (more, idle) = Default::default();
        Self { shared: Arc::new(Shared { state: Mutex::new(state), more, idle, dropped }) }
    }

    pub(super) fn set_max_bytes(&self, max_bytes: usize) {
        self.lock().max_bytes = max_bytes;
    }

    /// Queues a text of one or more lines, or drops it if the queue is full.
    pub(super) fn push(&self, text: &[u8]) {
        let mut state = self.lock();
        if state.waiting.len() + text.len() > state.max_bytes {
            let lines = count(text);
            state.dropped += lines;
            self.shared.dropped.inc_by(lines);
            return;
        }
        state.waiting.extend_from_slice(text);
        drop(state);
        self.shared.more.notify_one();
    }

    /// Waits until all lines are written, for at most `patience`.
    pub(super) fn flush(&self, patience: Duration) {
        let waits = |state: &mut State| state.is_writing || !state.waiting.is_empty();
        // A thread that panicked with the lock leaves no inconsistent state.
        drop(self.shared.idle.wait_timeout_while(self.lock(), patience, waits));
    }

    /// Writes queued lines to `out` for ever. `tell` receives the number of dropped lines once `out` accepts
    /// a write again.
    pub(super) fn write_to(&self, mut out: impl Write, tell: impl Fn(u64)) {
        let mut batch = Vec::new();
        let mut untold = 0;
        loop {
            untold += self.take(&mut batch);
            match write(&mut out, &batch) {
                Ok(()) if untold > 0 => tell(mem::take(&mut untold)),
                Ok(()) => {}
                Err(rest) => {
                    let lines = count(rest);
                    self.shared.dropped.inc_by(lines);
                    untold += lines;
                }
            }
            batch.clear();
            batch.shrink_to(KEPT_BYTES);
        }
    }

    /// Waits for a batch and takes it; returns the number of lines dropped since the previous one.
    fn take(&self, batch: &mut Vec<u8>) -> u64 {
        let mut state = self.lock();
        state.is_writing = false;
        while state.waiting.is_empty() {
            self.shared.idle.notify_all();
            state = self.shared.more.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.is_writing = true;
        mem::swap(batch, &mut state.waiting);
        mem::take(&mut state.dropped)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for Lines {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.push(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes all of `text`; on failure returns the unwritten rest.
fn write<'a>(out: &mut impl Write, mut text: &'a [u8]) -> Result<(), &'a [u8]> {
    while !text.is_empty() {
        match out.write(text) {
            Ok(0) => return Err(text),
            Ok(written) => text = &text[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // The process at the other end may have made the shared pipe non-blocking.
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(FULL_PIPE_PAUSE),
            Err(_) => return Err(text),
        }
    }
    Ok(())
}

/// Counts the lines of a text, including an unterminated last one.
fn count(text: &[u8]) -> u64 {
    let lines = text.iter().filter(|byte| **byte == b'\n').count() + usize::from(!text.ends_with(b"\n"));
    lines as u64
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

    use super::*;

    /// A reader that accepts or fails each write as instructed.
    struct Reader {
        came: SyncSender<Vec<u8>>,
        answers: Receiver<Result<(), ErrorKind>>,
    }

    impl Write for Reader {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            // The receiver is gone once the test has ended.
            let _ = self.came.send(text.to_vec());
            self.answers.recv().unwrap_or(Err(ErrorKind::BrokenPipe))?;
            Ok(text.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct World {
        lines: Lines,
        dropped: Counter,
        texts: Receiver<Vec<u8>>,
        answer: Sender<Result<(), ErrorKind>>,
        told: Receiver<u64>,
    }

    impl World {
        fn new(max_bytes: usize) -> Self {
            let dropped = Counter::default();
            let lines = Lines::new(max_bytes, dropped.clone());
            let (came, texts) = sync_channel(0);
            let (answer, answers) = channel();
            let (tell, told) = channel();
            let (writer, out) = (lines.clone(), Reader { came, answers });
            thread::spawn(move || writer.write_to(out, |lines| tell.send(lines).unwrap_or_default()));
            Self { lines, dropped, texts, answer, told }
        }

        fn text(&self) -> String {
            String::from_utf8(self.texts.recv_timeout(Duration::from_secs(20)).unwrap()).unwrap()
        }

        fn told(&self) -> u64 {
            self.told.recv_timeout(Duration::from_secs(20)).unwrap()
        }
    }

    #[test]
    fn stalled_reader_drops_lines_without_blocking() {
        let world = World::new(8);
        world.lines.push(b"one\n");
        assert_eq!(world.text(), "one\n");
        // The reader holds this line without answering.
        for text in ["two\n", "ten\n", "six\n", "a\nb\n"] {
            world.lines.push(text.as_bytes());
        }
        assert_eq!(world.dropped.get(), 3);
        world.lines.flush(Duration::ZERO);
        world.answer.send(Ok(())).unwrap();
        assert_eq!(world.text(), "two\nten\n");
        world.answer.send(Ok(())).unwrap();
        assert_eq!(world.told(), 3);
        world.lines.flush(Duration::from_secs(20));
        assert!(world.lines.lock().waiting.is_empty());
    }

    #[test]
    fn dropped_lines_are_reported_once_pipe_recovers() {
        let world = World::new(100);
        world.lines.push(b"one\ntwo\n");
        assert_eq!(world.text(), "one\ntwo\n");
        world.answer.send(Err(ErrorKind::StorageFull)).unwrap();
        world.lines.flush(Duration::from_secs(20));
        assert_eq!(world.dropped.get(), 2);
        assert!(world.told.try_recv().is_err());
        world.lines.push(b"three\n");
        for answer in [Err(ErrorKind::Interrupted), Err(ErrorKind::WouldBlock), Ok(())] {
            assert_eq!(world.text(), "three\n");
            world.answer.send(answer).unwrap();
        }
        assert_eq!(world.told(), 2);
        assert_eq!(world.dropped.get(), 2);
    }
}
