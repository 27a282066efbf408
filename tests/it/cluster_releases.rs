//! Entries of journals that this release and those before it wrote: nodes of neighbouring releases share rooms, so each
//! reads what the other writes.
//!
//! A field may be added, with a default for entries without it. A new line, or another meaning of one, takes two releases:
//! the first reads it, and raises `VERSION` in `src/cluster/entry.rs`; the second, which no longer has the ones before as
//! a neighbour, writes it. Recordings stay as they are: `RECORD_ENTRIES=1 cargo test --test it cluster_releases` adds
//! those of a release that changes what is written.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use satsuma::id::{NodeId, RoomName};
use satsuma::nodes::engine::{Engine, Followed, Following, StoredEntry, Subject};
use satsuma::room::replica::lines::RoomState;
use satsuma_cluster::Journal;
use satsuma_cluster::compression::inflate;
use satsuma_cluster::entry::{Entry, Line, Record};
use satsuma_cluster::journal::Continuity;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::client::Client;
use crate::cluster::{chat, told, users};
use crate::harness::TestServer;
use crate::memory_engine::MemoryNetwork;

const MOST: usize = 16 << 20;

/// Messages after which a journal has a whole state.
const MANY: u32 = 300;

fn recordings() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recorded")
}

/// A line of a recording.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", untagged)]
enum Recorded {
    /// A stored entry.
    Entry { sequence: u64, expected: u64, entry: Value },
    /// The state that those before lead to.
    State { state: Value },
}

fn read(bytes: &[u8]) -> Entry<RoomState> {
    Entry::decode(bytes, MOST).unwrap_or_else(|error| {
        panic!("{error}: this release cannot read what one before it wrote. Keep reading it, or an upgrade loses rooms")
    })
}

/// The JSON of an entry.
fn json_of(bytes: &[u8]) -> Value {
    let Some((1, compressed)) = bytes.split_first() else { return serde_json::from_slice(bytes).unwrap() };
    serde_json::from_slice(&inflate(compressed, MOST).unwrap()).unwrap()
}

/// True if everything of one value is in another one, which may have further fields: a reader ignores those.
fn is_within(recorded: &Value, written: &Value) -> bool {
    match (recorded, written) {
        (Value::Object(recorded), Value::Object(written)) => {
            recorded.iter().all(|(key, value)| written.get(key).is_some_and(|other| is_within(value, other)))
        }
        (Value::Array(recorded), Value::Array(written)) => {
            recorded.len() == written.len()
                && recorded.iter().zip(written).all(|(recorded, written)| is_within(recorded, written))
        }
        _ => recorded == written,
    }
}

#[test]
fn entries_of_releases_are_read_and_written_alike() {
    let mut files = 0;
    for file in fs::read_dir(recordings()).unwrap() {
        let path = file.unwrap().path();
        let name = path.display().to_string();
        let text = fs::read_to_string(&path).unwrap();
        let (mut journal, mut entries, mut states) = (Journal::<RoomState>::default(), 0, 0);
        for line in text.lines() {
            match serde_json::from_str(line).unwrap() {
                Recorded::Entry { sequence, expected, entry } => {
                    let recorded = entry;
                    let entry = read(recorded.to_string().as_bytes());
                    let again = json_of(&entry.encode());
                    assert!(
                        is_within(&recorded, &again),
                        "{name}: what this release writes in place of an entry is not what the one before reads. Write \
                         what it knows until it is no neighbour any more, see the beginning of this file: {again}"
                    );
                    let record = Record { sequence, expected, entry: Arc::new(entry) };
                    if entries == 0 {
                        journal = Journal::read_back([&record]);
                    } else {
                        assert_eq!(journal.apply(&record), Continuity::Next, "{name}: {sequence}");
                    }
                    entries += 1;
                }
                Recorded::State { state } => {
                    let state: RoomState = serde_json::from_value(state).unwrap();
                    // The unconfirmed events are in their entries alone.
                    let folded = serde_json::to_value(journal.state()).unwrap();
                    let folded: RoomState = serde_json::from_value(folded).unwrap();
                    assert_eq!(folded, state, "{name}: the entries lead to another state than they did");
                    states += 1;
                }
            }
        }
        assert!(entries > 5 && states > 0, "{name}");
        files += 1;
    }
    assert!(files > 0, "there are no recordings");
}

/// Records the journal of a room: its life, and a part of it after it was written as a whole.
#[tokio::test]
async fn entries_are_recorded() {
    if std::env::var_os("RECORD_ENTRIES").is_none() {
        return;
    }
    let network = MemoryNetwork::default();
    let (a, _) = TestServer::node(&network, None, |config| {
        config.limits.messages_per_second = 10_000;
        config.limits.message_burst = 10_000;
        config.chat.history_messages = 5;
    })
    .await;
    let (b, _) = TestServer::node(&network, Some(&a), |_| {}).await;
    let (engine, _events) = network.node(NodeId::new(1));
    let subject = Subject::room(&RoomName::parse("r").unwrap());
    let mut following = engine.follow(subject).await.unwrap();
    let mut ada = Client::join(&a, "r", "Ada").await;
    let mut bob = Client::join(&b, "r", "Bob").await;
    ada.until_state(|state| users(state) == 2).await;
    bob.say(json!({"type": "userUpdate", "user": {"joined": true, "raisedHand": true}})).await;
    chat(&mut bob, 1).await;
    told(&mut ada, 1).await;
    ada.say(json!({"type": "directMessage", "to": bob.pk(), "message": "hi"})).await;
    bob.say(json!({"type": "userLeft"})).await;
    bob.closed().await;
    chat(&mut ada, 2).await;
    told(&mut ada, 2).await;
    let mut life = Vec::new();
    record(&mut following, &mut life, |journal| journal.state().chat().len() == 2).await;
    write("life", &life);
    // Of what follows only the newest is kept.
    for number in 3..MANY {
        chat(&mut ada, number).await;
        told(&mut ada, number).await;
    }
    let entries = engine.all(subject).await.unwrap();
    let is_whole = |entry: &StoredEntry| {
        let lines = record_of(entry).entry.lines.clone();
        lines.iter().any(|line| matches!(line, Line::Whole(_)))
    };
    let whole = entries.iter().position(is_whole).unwrap();
    write("whole", &entries[whole..entries.len().min(whole + 8)]);
    drop((a, b));
}

/// Records entries until their state is so.
async fn record(
    following: &mut impl Following,
    entries: &mut Vec<StoredEntry>,
    is_enough: impl Fn(&Journal<RoomState>) -> bool,
) {
    let mut journal = Journal::<RoomState>::default();
    while !is_enough(&journal) {
        let Some(Followed::Stored(entry)) = following.next().await else { continue };
        journal.apply(&record_of(&entry));
        entries.push(entry);
    }
}

fn record_of(entry: &StoredEntry) -> Record<RoomState> {
    Record { sequence: entry.sequence, expected: entry.expected, entry: Arc::new(read(&entry.bytes)) }
}

fn write(name: &str, entries: &[StoredEntry]) {
    let records: Vec<_> = entries.iter().map(record_of).collect();
    let state = serde_json::to_value(Journal::read_back(&records).state()).unwrap();
    let lines = entries.iter().map(|StoredEntry { sequence, expected, bytes }| Recorded::Entry {
        sequence: *sequence,
        expected: *expected,
        entry: json_of(bytes),
    });
    let lines = lines.chain([Recorded::State { state }]);
    let lines: Vec<String> = lines.map(|line| serde_json::to_string(&line).unwrap() + "\n").collect();
    fs::create_dir_all(recordings()).unwrap();
    let path = recordings().join(format!("room-{}-{name}.jsonl", env!("CARGO_PKG_VERSION")));
    fs::write(path, lines.concat()).unwrap();
}
