//! Rooms whose members were all on a node that is killed.

use std::time::Duration;

use satsuma::id::{NodeId, RoomName};
use satsuma::nodes::engine::{Engine, Subject};
use satsuma::room::replica::lines::RoomState;
use satsuma_cluster::entry::{Entry, Line};

use crate::client::{Ask, Client};
use crate::cluster::{Mortal, chat, told};
use crate::harness::{Person, TestServer, eventually_within};
use crate::memory_engine::{MemoryEngine, MemoryNetwork};

/// A dead node is noticed, others take their rooms over, and the members may come back.
const LONG: Duration = Duration::from_secs(30);

async fn node(network: &MemoryNetwork) -> TestServer {
    let edit = |config: &mut satsuma::config::Config| {
        config.room.tick = Duration::from_millis(50);
        config.room.heartbeat_timeout = Duration::from_millis(500);
        config.room.restore_grace = Duration::from_millis(500);
    };
    TestServer::node(network, None, edit).await.0
}

/// Waits until the journal of a room ends; the number of its claims that there still are.
async fn until_ended(engine: &MemoryEngine, room: &str) -> usize {
    let subject = Subject::room(&RoomName::parse(room).unwrap());
    let entries = async || {
        let entries = engine.all(subject).await.unwrap();
        let entry = |bytes: &[u8]| Entry::<RoomState>::decode(bytes, 1 << 20).unwrap();
        entries.iter().map(|entry_of| entry(&entry_of.bytes)).collect::<Vec<_>>()
    };
    let has_ended = async || entries().await.last().is_some_and(|last| last.lines.contains(&Line::Ended));
    eventually_within(LONG, format!("{room} ends"), has_ended).await;
    entries().await.iter().filter(|entry| entry.is_claim()).count()
}

#[tokio::test]
async fn rooms_of_a_dead_node_end_by_another_one() {
    let network = MemoryNetwork::default();
    let (engine, _events) = network.node(NodeId::new(u32::MAX));
    let dead = Mortal::start(&network);
    let (b, c) = (node(&network).await, node(&network).await);
    let mut ada = Client::join(&dead.server, "left", "Ada").await;
    chat(&mut ada, 1).await;
    told(&mut ada, 1).await;
    let dead = dead.kill();
    assert_eq!(until_ended(&engine, "left").await, 2, "one of the two claims it, once");
    for node in [&b, &c] {
        assert_eq!(node.metric("satsuma_room_panics_total").await, 0.0);
    }
    drop(dead);
}

/// A node that starts when all others are gone has never heard of them.
#[tokio::test]
async fn rooms_of_an_unknown_node_end() {
    let network = MemoryNetwork::default();
    let (engine, _events) = network.node(NodeId::new(u32::MAX));
    let dead = Mortal::start(&network);
    let _ada = Client::join(&dead.server, "left", "Ada").await;
    let dead = dead.kill();
    let next = node(&network).await;
    assert_eq!(until_ended(&engine, "left").await, 2);
    next.until_metric("satsuma_rooms", 0.0).await;
    drop(dead);
}

/// Nobody waits for an engine that is away.
#[tokio::test]
async fn no_room_begins_while_the_engine_is_away() {
    let network = MemoryNetwork::default();
    let (a, id) = TestServer::node(&network, None, |_| {}).await;
    let ada = Person::log_in(&a, "Ada").await;
    network.cut_off(id, true);
    let ask = Ask::room("r").by(&ada).pk("ada");
    let answer = async || ask.answer(&a).await;
    eventually_within(LONG, "joins are refused".to_owned(), async || answer().await.status == 503).await;
    let refused = answer().await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, "2"));
    network.cut_off(id, false);
    let joins = async || ask.clone().try_open(&a).await.is_ok();
    eventually_within(LONG, "rooms begin again".to_owned(), joins).await;
}
