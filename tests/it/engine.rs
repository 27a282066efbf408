//! The promises of every engine that nodes rely on, held against the engine in memory.

use std::time::Duration;

use bytes::Bytes;
use satsuma::id::{NodeId, ObjectId, RoomName};
use satsuma::nodes::engine::{
    Engine, EngineEvent, Followed, Following, NoAnswer, RequestFailure, StoredEntry, Subject, SubjectKind,
};
use satsuma_cluster::writer::Appended;
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

use crate::harness::PATIENCE;
use crate::memory_engine::MemoryNetwork;

/// Two nodes of an engine.
pub struct Pair<E> {
    pub a: E,
    pub b: E,
    pub ids: [NodeId; 2],
    pub events_of_a: Receiver<EngineEvent>,
    pub events_of_b: Receiver<EngineEvent>,
}

pub fn room(name: &str) -> Subject {
    Subject::room(&RoomName::parse(name).unwrap())
}

pub fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

pub fn number(answer: Appended) -> u64 {
    let Appended::Stored(number) = answer else { panic!("{answer:?}") };
    number
}

pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("it did not happen in time")
}

/// Waits for the first event that is one.
pub async fn event<T>(events: &mut Receiver<EngineEvent>, wanted: impl Fn(EngineEvent) -> Option<T>) -> T {
    soon(async {
        loop {
            let event = events.recv().await.expect("the engine is gone");
            if let Some(found) = wanted(event) {
                return found;
            }
        }
    })
    .await
}

pub async fn appends_are_conditional<E: Engine>(pair: &Pair<E>) {
    let (a, b, subject) = (&pair.a, &pair.b, room("conditions"));
    assert_eq!(a.last(subject).await, Ok(None));
    assert_eq!(a.all(subject).await, Ok(Vec::new()));
    let first = number(a.append(subject, 0, bytes("claim of a")).await);
    assert_eq!(b.append(subject, 0, bytes("claim of b")).await, Appended::Refused);
    // Others write as well, so numbers have holes.
    number(b.append(room("another"), 0, bytes("claim")).await);
    let second = number(b.append(subject, first, bytes("claim of b")).await);
    assert!(second > first);
    for wrong in [first, second + 1, 0] {
        assert_eq!(a.append(subject, wrong, bytes("fenced")).await, Appended::Refused, "{wrong}");
    }
    let stored = |sequence, expected, text| StoredEntry { sequence, expected, bytes: bytes(text) };
    let entries = vec![stored(first, 0, "claim of a"), stored(second, first, "claim of b")];
    assert_eq!(a.last(subject).await, Ok(entries.last().cloned()));
    assert_eq!(a.all(subject).await, Ok(entries));
}

pub async fn purged_entries_are_gone<E: Engine>(pair: &Pair<E>) {
    let (a, b, subject) = (&pair.a, &pair.b, room("purges"));
    let mut last = 0;
    let mut numbers = Vec::new();
    for text in ["1", "2", "3", "4"] {
        last = number(a.append(subject, last, bytes(text)).await);
        numbers.push(last);
    }
    for nothing in [0, 1] {
        a.purge(subject, nothing).await;
        assert_eq!(b.all(subject).await.map(|all| all.len()), Ok(4), "nothing is below {nothing}");
    }
    a.purge(subject, numbers[2]).await;
    let left: Vec<_> = b.all(subject).await.unwrap().into_iter().map(|entry| entry.sequence).collect();
    assert_eq!(left, numbers[2..], "the entry of the number itself stays");
    a.purge(subject, last).await;
    let number = number(a.append(subject, last, bytes("5")).await);
    let left: Vec<_> = b.all(subject).await.unwrap().into_iter().map(|entry| entry.sequence).collect();
    assert_eq!(left, [last, number], "a journal goes on after a purge");
}

pub async fn subjects_are_listed_by_kind<E: Engine>(pair: &Pair<E>) {
    let object = Subject::object(&ObjectId::parse("an object").unwrap());
    number(pair.a.append(object, 0, bytes("claim")).await);
    number(pair.a.append(room("a listed room"), 0, bytes("claim")).await);
    assert_eq!(pair.b.subjects(SubjectKind::Object).await, Ok(vec![object]));
    let rooms = pair.b.subjects(SubjectKind::Room).await.unwrap();
    assert!(rooms.contains(&room("a listed room")) && !rooms.contains(&object), "{rooms:?}");
}

pub async fn messages_reach_their_node<E: Engine>(pair: &mut Pair<E>) {
    let [a, b] = pair.ids;
    let message = |event| match event {
        EngineEvent::Message { from, message, reply } => Some((from, message, reply)),
        _ => None,
    };
    pair.a.send(b, bytes("to b")).await;
    assert_eq!(event(&mut pair.events_of_b, message).await, (a, bytes("to b"), None));
    let (engine, events) = (pair.b.clone(), &mut pair.events_of_b);
    let request = pair.a.request(b, bytes("?"), PATIENCE);
    let answer = async {
        let (from, question, reply) = event(events, message).await;
        assert_eq!((from, question), (a, bytes("?")));
        engine.reply(reply.unwrap(), bytes("!")).await;
    };
    assert_eq!(soon(async { tokio::join!(request, answer) }).await.0, Ok(bytes("!")));
    // B listens, and says nothing.
    let request = pair.a.request(b, bytes("?"), Duration::from_millis(20)).await;
    assert_eq!(request, Err(RequestFailure::NoAnswer));
    let nobody = pair.a.request(NodeId::new(!a.bits()), bytes("?"), PATIENCE).await;
    assert_eq!(nobody, Err(RequestFailure::NobodyListens));
    pair.b.send_to_all(bytes("to all")).await;
    let to_all = |event| if let EngineEvent::ToAll(message) = event { Some(message) } else { None };
    assert_eq!(event(&mut pair.events_of_a, to_all).await, bytes("to all"));
    assert_eq!(event(&mut pair.events_of_b, to_all).await, bytes("to all"), "the sender hears itself");
}

pub async fn followers_get_entries_and_broadcasts<E: Engine>(pair: &Pair<E>) {
    let subject = room("followed");
    let mut own = pair.a.follow(subject).await.unwrap();
    let mut other = pair.b.follow(subject).await.unwrap();
    let first = number(pair.a.append(subject, 0, bytes("1")).await);
    number(pair.a.append(room("not followed"), 0, bytes("claim")).await);
    pair.a.broadcast(subject, bytes("snapshot")).await;
    let second = number(pair.b.append(subject, first, bytes("2")).await);
    let stored =
        |sequence, expected, text| Followed::Stored(StoredEntry { sequence, expected, bytes: bytes(text) });
    for following in [&mut own, &mut other] {
        let mut news = Vec::new();
        for _ in 0..3 {
            news.push(soon(following.next()).await.unwrap());
        }
        let broadcast = Followed::Broadcast(bytes("snapshot"));
        assert!(news.contains(&broadcast), "{news:?}");
        // Broadcasts and entries may overtake each other, entries may not.
        news.retain(|news| *news != broadcast);
        assert_eq!(news, [stored(first, 0, "1"), stored(second, first, "2")]);
    }
}

/// Everything above.
pub async fn keeps_its_promises<E: Engine>(mut pair: Pair<E>) {
    appends_are_conditional(&pair).await;
    purged_entries_are_gone(&pair).await;
    subjects_are_listed_by_kind(&pair).await;
    followers_get_entries_and_broadcasts(&pair).await;
    messages_reach_their_node(&mut pair).await;
    pair.a.flush().await;
}

fn in_memory(network: &MemoryNetwork) -> Pair<crate::memory_engine::MemoryEngine> {
    let ids = [1, 2].map(NodeId::new);
    let (a, events_of_a) = network.node(ids[0]);
    let (b, events_of_b) = network.node(ids[1]);
    Pair { a, b, ids, events_of_a, events_of_b }
}

#[tokio::test]
async fn engine_in_memory_keeps_its_promises() {
    keeps_its_promises(in_memory(&MemoryNetwork::default())).await;
}

#[tokio::test]
async fn engine_in_memory_loses_what_it_is_told() {
    let network = MemoryNetwork::default();
    let Pair { a, b, ids, mut events_of_a, events_of_b } = in_memory(&network);
    let subject = room("lossy");
    let mut following = b.follow(subject).await.unwrap();

    network.lose_answers(1);
    assert_eq!(a.append(subject, 0, bytes("1")).await, Appended::Unknown);
    let first = a.last(subject).await.unwrap().expect("it was stored").sequence;
    assert!(matches!(soon(following.next()).await, Some(Followed::Stored(_))));
    network.lose_entries(1);
    let second = number(a.append(subject, first, bytes("2")).await);
    let third = number(a.append(subject, second, bytes("3")).await);
    let Some(Followed::Stored(seen)) = soon(following.next()).await else { panic!("no entry") };
    assert_eq!((seen.sequence, seen.expected), (third, second), "the second is missing");

    network.forget_last(subject, 2);
    assert_eq!(a.append(subject, first, bytes("2'")).await, Appended::Stored(second));
    network.be_silent(true);
    assert_eq!(a.append(subject, second, bytes("4")).await, Appended::Unknown);
    assert_eq!(a.all(subject).await, Err(NoAnswer));
    network.be_silent(false);
    assert_eq!(a.last(subject).await.unwrap().unwrap().sequence, second);

    network.cut_off(ids[0], true);
    event(&mut events_of_a, |event| (event == EngineEvent::Disconnected).then_some(())).await;
    assert_eq!(a.last(subject).await, Err(NoAnswer));
    assert_eq!(a.request(ids[1], bytes("?"), PATIENCE).await, Err(RequestFailure::NoAnswer));
    network.cut_off(ids[0], false);
    event(&mut events_of_a, |event| (event == EngineEvent::Connected).then_some(())).await;
    drop(events_of_b);
    assert_eq!(a.request(ids[1], bytes("?"), PATIENCE).await, Err(RequestFailure::NobodyListens));
}
