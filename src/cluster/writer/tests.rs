use proptest::prelude::*;

use super::*;
use crate::entry::tests::{Log, LogLine};

#[expect(clippy::disallowed_methods, reason = "an instant can only be had from the clock")]
fn start() -> Instant {
    Instant::now()
}

/// The engine: a list of records, whose condition is exact.
#[derive(Default)]
struct Engine {
    records: Vec<Record<Log>>,
    count: u64,
}

impl Engine {
    fn last(&self) -> u64 {
        self.records.last().map_or(0, |record| record.sequence)
    }

    fn append(&mut self, expected: u64, entry: Arc<Entry<Log>>) -> Appended {
        if expected != self.last() {
            return Appended::Refused;
        }
        self.count = self.count.max(self.last()) + 1;
        self.records.push(Record { sequence: self.count, expected, entry });
        Appended::Stored(self.count)
    }

    /// Numbers are given again, as by an engine that was restarted from an older file.
    fn lose_end(&mut self, keep: usize) {
        self.records.truncate(keep);
        self.count = self.last();
    }
}

fn writer(now: Instant, node: u32, engine: &Engine) -> JournalWriter<Log> {
    JournalWriter::claim(now, "s".into(), NodeId::new(node), engine.records.clone())
}

fn number(number: u64) -> Line<Log> {
    Line::Change(LogLine::Number(number))
}

/// Carries out the writer's requests until it has none; returns its news.
fn run(now: &mut Instant, writer: &mut JournalWriter<Log>, engine: &mut Engine) -> Vec<Written<Log>> {
    let mut news = Vec::new();
    for _ in 0..1000 {
        match writer.poll(*now) {
            Some(Request::Append { question, expected, entry }) => {
                let answer = engine.append(expected, entry);
                news.extend(writer.appended(*now, question, answer));
            }
            Some(Request::ReadLast { question }) => {
                news.extend(writer.read_last(*now, question, Some(engine.records.last().cloned())));
            }
            None => match writer.deadline() {
                Some(at) if !writer.is_idle() => *now = at.max(*now),
                _ => return news,
            },
        }
    }
    panic!("the writer never rests");
}

#[test]
fn lines_that_come_meanwhile_share_an_entry() {
    let (mut now, mut engine) = (start(), Engine::default());
    let mut owner = writer(now, 1, &engine);
    let Some(Request::Append { question, expected: 0, entry }) = owner.poll(now) else { panic!() };
    assert!(entry.is_claim());
    assert_eq!([owner.push(now, number(1)), owner.push(now, number(2))], [1, 1]);
    let link = LinkId { node: NodeId::new(9), number: 1 };
    owner.take(link, 4);
    assert_eq!(owner.poll(now), None, "one append at a time");
    let answer = engine.append(0, entry);
    assert!(matches!(owner.appended(now, question, answer), Some(Written::Stored(_))));
    assert_eq!(owner.poll(now), None, "not more than one in 2 ms");
    let news = run(&mut now, &mut owner, &mut engine);
    let [Written::Stored(record)] = &news[..] else { panic!("{news:?}") };
    assert_eq!((record.entry.lines.len(), &record.entry.taken), (2, &vec![(link, 4)]));
}

#[test]
fn line_at_leisure_waits_for_others() {
    let (mut now, mut engine) = (start(), Engine::default());
    let mut owner = writer(now, 1, &engine);
    run(&mut now, &mut owner, &mut engine);
    owner.push_at_leisure(now, number(1));
    assert_eq!(owner.deadline(), Some(now + LEISURE));
    owner.push(now, number(2));
    assert!(owner.deadline().unwrap() <= now + SHORTEST_PAUSE);
}

#[test]
fn append_without_an_answer_is_made_again_unchanged() {
    let (mut now, mut engine) = (start(), Engine::default());
    let mut owner = writer(now, 1, &engine);
    run(&mut now, &mut owner, &mut engine);
    owner.push(now, number(1));
    now += SHORTEST_PAUSE;
    let Some(Request::Append { question, expected, entry }) = owner.poll(now) else { panic!() };
    // It is stored, but the answer is lost.
    engine.append(expected, entry.clone());
    owner.push(now, number(2));
    now += ANSWER_TIMEOUT;
    assert_eq!(owner.poll(now), None);
    assert!(owner.is_in_doubt());
    now = owner.deadline().unwrap();
    let Some(Request::Append { question: again, entry: same, .. }) = owner.poll(now) else { panic!() };
    assert_eq!(same, entry);
    assert_eq!(owner.appended(now, question, Appended::Stored(99)), None, "that answer comes late");
    let answer = engine.append(expected, same);
    assert_eq!((answer, owner.appended(now, again, answer)), (Appended::Refused, None));
    let news = run(&mut now, &mut owner, &mut engine);
    assert_eq!(news.len(), 2);
    assert_eq!(Journal::read_back(&engine.records).state().seen, [1, 2]);
}

#[test]
fn owner_is_fenced_by_a_claim() {
    let (mut now, mut engine) = (start(), Engine::default());
    let mut owner = writer(now, 1, &engine);
    run(&mut now, &mut owner, &mut engine);
    let mut heir = writer(now, 2, &engine);
    run(&mut now, &mut heir, &mut engine);
    owner.push(now, number(1));
    assert_eq!(run(&mut now, &mut owner, &mut engine), [Written::Fenced]);
    assert!(owner.is_fenced() && owner.poll(now + LEISURE).is_none() && owner.deadline().is_none());
    heir.push(now, number(2));
    run(&mut now, &mut heir, &mut engine);
    assert_eq!(Journal::read_back(&engine.records).state().seen, [2]);
}

/// The engine is away, and the owner is alone with its clients.
#[test]
fn released_entries_are_stored_in_their_order() {
    let (mut now, mut engine) = (start(), Engine::default());
    let mut owner = writer(now, 1, &engine);
    run(&mut now, &mut owner, &mut engine);
    let mut shown = Journal::read_back(&engine.records);
    owner.push(now, number(1));
    now += SHORTEST_PAUSE;
    assert!(owner.poll(now).is_some(), "it is under way, and perhaps stored later");
    owner.push(now, number(2));
    owner.push_at_leisure(now, number(3));
    for record in owner.release(now) {
        assert_eq!(shown.apply(&record), crate::journal::Continuity::Next);
    }
    assert_eq!((&shown.state().seen[..], owner.has_released()), (&[1, 2, 3][..], true));
    owner.push_at_leisure(now, number(4));
    assert!(owner.release(now).is_empty(), "it may wait for others");
    now += LEISURE;
    for record in owner.release(now) {
        assert_eq!(shown.apply(&record), crate::journal::Continuity::Next);
    }
    assert_eq!(shown.state().seen, [1, 2, 3, 4]);
    owner.push(now, number(5));
    let news = run(&mut now, &mut owner, &mut engine);
    let [again @ .., Written::Stored(last)] = &news[..] else { panic!("{news:?}") };
    assert!(again.iter().all(|news| matches!(news, Written::Restored(_))), "{again:?}");
    assert_eq!((again.len(), &last.entry.lines[..], owner.has_released()), (3, &[number(5)][..], false));
    assert_eq!(Journal::read_back(&engine.records).state().seen, [1, 2, 3, 4, 5]);
}

#[test]
fn released_entries_of_an_owner_that_is_fenced_are_never_stored() {
    let (mut now, mut engine) = (start(), Engine::default());
    let mut owner = writer(now, 1, &engine);
    run(&mut now, &mut owner, &mut engine);
    owner.push(now, number(1));
    assert_eq!(owner.release(now).len(), 1);
    let mut other = writer(now, 2, &engine);
    run(&mut now, &mut other, &mut engine);
    assert_eq!(run(&mut now, &mut owner, &mut engine), [Written::Fenced]);
    assert!(owner.has_released() && owner.release(now).is_empty());
    assert!(Journal::read_back(&engine.records).state().seen.is_empty());
}

#[test]
fn released_entries_are_bounded() {
    let (mut now, mut engine) = (start(), Engine::default());
    let mut owner = writer(now, 1, &engine);
    run(&mut now, &mut owner, &mut engine);
    while owner.can_release() {
        owner.push(now, number(1));
        owner.count(64 << 10);
        owner.release(now);
    }
    assert_eq!(owner.unstored.len(), 32);
    owner.push(now, number(2));
    assert!(owner.release(now).is_empty());
    assert_eq!(run(&mut now, &mut owner, &mut engine).len(), 33);
    assert!(owner.can_release());
}

#[test]
fn lost_end_is_written_again() {
    for keep in 0..4 {
        let (mut now, mut engine) = (start(), Engine::default());
        let mut first = writer(now, 1, &engine);
        for value in 1..=2 {
            first.push(now, number(value));
            run(&mut now, &mut first, &mut engine);
        }
        let mut owner = writer(now, 2, &engine);
        run(&mut now, &mut owner, &mut engine);
        owner.push(now, number(3));
        run(&mut now, &mut owner, &mut engine);
        let before = engine.records.clone();
        engine.lose_end(keep);
        owner.push(now, number(4));
        let news = run(&mut now, &mut owner, &mut engine);
        let restored = news.iter().filter(|news| matches!(news, Written::Restored(_))).count();
        assert_eq!(restored, before.len() - keep, "{keep}");
        assert!(matches!(news.last(), Some(Written::Stored(_))));
        let entries: Vec<_> = engine.records.iter().map(|record| &record.entry).collect();
        assert!(entries.iter().zip(&before).all(|(entry, record)| **entry == record.entry));
        assert_eq!(Journal::read_back(&engine.records).state().seen, [1, 2, 3, 4]);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Push(usize),
    /// The request arrives now, later, or never; its answer arrives or not.
    Poll {
        writer: usize,
        arrives: Arrives,
        answered: bool,
    },
    Late,
    Wait(u64),
    Claim(usize),
}

#[derive(Clone, Copy, Debug)]
enum Arrives {
    Now,
    Later,
    Never,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let arrives = prop_oneof![6 => Just(Arrives::Now), 2 => Just(Arrives::Later), 1 => Just(Arrives::Never)];
    let step = prop_oneof![
        6 => (0..3_usize).prop_map(Step::Push),
        12 => (0..3_usize, arrives, prop::bool::weighted(0.8)).prop_map(|(writer, arrives, answered)| Step::Poll { writer, arrives, answered }),
        2 => Just(Step::Late),
        4 => (1..700_u64).prop_map(Step::Wait),
        1 => (0..3_usize).prop_map(Step::Claim),
    ];
    prop::collection::vec(step, 0..150)
}

proptest! {
    /// With any answers, lost, late or in doubt: the journal holds each line once and in its owner's order, no two
    /// entries have one number, nobody writes after another's claim, and every writer told is right.
    #[test]
    fn journal_holds_what_was_told(steps in steps()) {
        let (mut now, mut engine) = (start(), Engine::default());
        let mut writers: Vec<Option<JournalWriter<Log>>> = vec![None, None, None];
        let mut late: Vec<(u64, Arc<Entry<Log>>)> = Vec::new();
        let mut told: Vec<Record<Log>> = Vec::new();
        let mut next = 0;
        for step in steps {
            match step {
                Step::Claim(at) => {
                    if writers[at].is_none() {
                        writers[at] = Some(writer(now, at as u32, &engine));
                    }
                }
                Step::Push(at) => if let Some(writer) = &mut writers[at] {
                    next += 1;
                    writer.push(now, number(next));
                },
                Step::Late => if let Some((expected, entry)) = late.pop() {
                    engine.append(expected, entry);
                },
                Step::Wait(millis) => now += Duration::from_millis(millis),
                Step::Poll { writer: at, arrives, answered } => {
                    let Some(writer) = &mut writers[at] else { continue };
                    let news = match writer.poll(now) {
                        Some(Request::Append { question, expected, entry }) => match arrives {
                            Arrives::Now => {
                                let answer = engine.append(expected, entry);
                                let answer = if answered { answer } else { Appended::Unknown };
                                writer.appended(now, question, answer)
                            }
                            Arrives::Later => {
                                late.push((expected, entry));
                                None
                            }
                            Arrives::Never => writer.appended(now, question, Appended::Unknown),
                        },
                        Some(Request::ReadLast { question }) => {
                            let last = answered.then(|| engine.records.last().cloned());
                            writer.read_last(now, question, last)
                        }
                        None => None,
                    };
                    match news {
                        Some(Written::Stored(record)) => told.push(record),
                        Some(Written::Restored(_)) => prop_assert!(false, "nothing was lost"),
                        Some(Written::Fenced) => writers[at] = None,
                        None => {}
                    }
                }
            }
            if writers.iter().flatten().any(JournalWriter::is_fenced) {
                prop_assert!(false, "a fenced writer is dropped");
            }
        }
        for record in &told {
            let is_there = engine.records.iter().any(|stored| {
                stored.sequence == record.sequence && stored.entry == record.entry
            });
            prop_assert!(is_there, "{:?}", record);
        }
        let mut journal = Journal::default();
        for record in &engine.records {
            prop_assert_eq!(journal.apply(record), crate::journal::Continuity::Next);
        }
        let mut seen = journal.state().seen.clone();
        seen.sort_unstable();
        seen.dedup();
        prop_assert_eq!(seen.len(), journal.state().seen.len(), "a line is there twice");
    }
}
