//! Rooms that go from a single node into a cluster, and back.

use std::sync::Arc;

use satsuma::config::ModeratorDefault;
use satsuma::id::{IdentityId, MeetingId, NodeId, RoomName, UserId};
use satsuma::metrics::Metrics;
use satsuma::nodes::carry::carry_over;
use satsuma::nodes::engine::{Engine, Subject};
use satsuma::room::replica::kept;
use satsuma::room::replica::lines::RoomState;
use satsuma::store::data_dir::DataDir;
use satsuma::store::saved::{Persist, SavedMember, SavedRoom};
use satsuma::store::{Change, Store};
use satsuma_cluster::entry::{Entry, Record};
use satsuma_cluster::{Journal, LinkId};
use serde_json::json;

use crate::client::{Ask, Client, user_of};
use crate::cluster::{chat, told, users};
use crate::harness::{Person, TestServer};
use crate::memory_engine::{MemoryEngine, MemoryNetwork};

/// A room with everything that a restart keeps.
struct Scene {
    ada: Ask,
    bob: Ask,
    meeting: serde_json::Value,
    /// The number of the last message of the chat.
    last: u32,
}

impl Scene {
    async fn begin(server: &TestServer) -> Self {
        let mut ada = Client::join(server, "r", "Ada").await;
        let mut bob = Client::join(server, "r", "Bob").await;
        let pk = bob.pk();
        bob.say(json!({"type": "userUpdate", "user": {"raisedHand": true}})).await;
        let state = ada.until_state(|state| user_of(state, &pk)["raisedHand"] == true).await;
        ada.say(json!({"type": "moderate", "ref": "1", "action": "lock", "on": true})).await;
        let moderated = ada.until(|message| message["type"] == "moderated").await;
        assert_eq!(moderated["error"], json!(null), "{moderated}");
        let scene = Self { ada: ada.ask(), bob: bob.ask(), meeting: state["meetingId"].clone(), last: 0 };
        scene.miss(server, ada, bob).await
    }

    /// Bob is away while Ada says something.
    async fn miss(self, server: &TestServer, mut ada: Client, bob: Client) -> Self {
        let pk = bob.pk();
        let bob = bob.drop_tcp().await;
        server.until_away("r", &pk).await;
        let last = self.last + 1;
        chat(&mut ada, last).await;
        told(&mut ada, last).await;
        Self { bob, last, ..self }
    }

    /// Both come back to another server as who they were, and Bob gets what he missed.
    async fn go_on(self, server: &TestServer) -> Self {
        let eve = Person::log_in(server, "Eve").await;
        let refused = Ask::room("r").by(&eve).pk("eve").try_open(server).await;
        assert_eq!(refused.err(), Some(403), "the room is locked");
        let mut bob = self.bob.clone().open(server).await;
        let history = bob.until(|message| message["type"] == "chatHistory").await;
        assert_eq!(history["messages"].as_array().unwrap().len(), self.last as usize);
        // Events that were not confirmed for sure may come again, before it.
        let missed = told(&mut bob, self.last).await;
        assert!(missed.is_sorted_by(|a, b| a < b), "{missed:?}");
        let mut ada = self.ada.clone().open(server).await;
        let pk = bob.pk();
        let state = ada.until_state(|state| users(state) == 2).await;
        assert_eq!((&state["meetingId"], &user_of(&state, &pk)["raisedHand"]), (&self.meeting, &json!(true)));
        self.miss(server, ada, bob).await
    }
}

#[tokio::test]
async fn rooms_go_into_a_cluster_and_back() {
    let network = MemoryNetwork::default();
    let single = TestServer::with(|config| config.moderation.default = ModeratorDefault::First).await;
    let scene = Scene::begin(&single).await;
    let stopped = single.stop().await;
    let (node, _) = stopped.start_as_node(&network).await;
    let scene = scene.go_on(&node).await;
    // Once more as a node: the room is in both places, and the same.
    let (node, _) = node.stop().await.start_as_node(&network).await;
    let scene = scene.go_on(&node).await;
    let single = node.stop().await.start_with(|config| config.calls.room_check = true).await;
    let scene = scene.go_on(&single).await;
    // The journal is older than the room.
    let (node, _) = single.stop().await.start_as_node(&network).await;
    scene.go_on(&node).await;
}

/// A node that stops while others run leaves the rooms to them.
#[tokio::test]
async fn room_that_others_have_is_not_brought_back() {
    let network = MemoryNetwork::default();
    let (a, _) = TestServer::node(&network, None, |_| {}).await;
    let (b, _) = TestServer::node(&network, Some(&a), |_| {}).await;
    let mut bob = Client::join(&b, "r", "Bob").await;
    let ada = Client::join(&a, "r", "Ada").await;
    bob.until_state(|state| users(state) == 2).await;
    let again = ada.ask();
    let (stopped, closed) = tokio::join!(a.stop(), async {
        let mut ada = ada;
        ada.closed().await
    });
    assert_eq!(closed.0, 1012);
    chat(&mut bob, 1).await;
    assert_eq!(told(&mut bob, 1).await, [1]);
    let (a, _) = stopped.start_as_node(&network).await;
    let mut ada = again.open(&a).await;
    ada.until_state(|state| users(state) == 2).await;
    chat(&mut ada, 2).await;
    assert_eq!((told(&mut ada, 2).await.last(), told(&mut bob, 2).await), (Some(&2), vec![2]));
}

/// A store with a room whose texts are too long for one entry.
async fn stored_room(dir: &DataDir) -> (Store, SavedRoom) {
    let (store, _) = Store::open(&dir.database(), Metrics::new()).await.unwrap();
    let room = RoomName::parse("r").unwrap();
    let meeting = MeetingId::random();
    let member = |(arrival, id): (i64, &str)| SavedMember {
        user: UserId::parse(id).unwrap(),
        identity: IdentityId::new(id),
        json: "{}".into(),
        arrival,
    };
    let members = [(1, "a"), (2, "b")].map(member);
    let changes = members.clone().map(Persist::Member);
    for what in [Persist::MeetingStarted].into_iter().chain(changes) {
        store.handle().persist(Change {
            at: satsuma::clock::wall_clock(),
            room: room.clone(),
            meeting,
            what,
        });
    }
    let long = |number: u32| -> Arc<str> { format!(r#"{{"{number}":"{}"}}"#, "x".repeat(100_000)).into() };
    let events = (0..3).map(|number| (members[0].user.clone(), long(number)));
    store.handle().persist_unconfirmed(meeting, events.collect());
    let saved = store.handle().load(room).await.unwrap().unwrap();
    assert_eq!((saved.members.len(), saved.unconfirmed.len(), saved.journal), (2, 3, None));
    (store, saved)
}

async fn journal(engine: &MemoryEngine, name: &RoomName) -> Journal<RoomState> {
    let entries = engine.all(Subject::room(name)).await.unwrap();
    let record = |entry: &satsuma::nodes::engine::StoredEntry| Record {
        sequence: entry.sequence,
        expected: entry.expected,
        entry: Arc::new(Entry::decode(&entry.bytes, 1 << 20).unwrap()),
    };
    Journal::read_back(&entries.iter().map(record).collect::<Vec<_>>())
}

/// A node that dies after any number of entries leaves the rest to the next start.
#[tokio::test]
async fn interrupted_carrying_over_is_done_again() {
    let mut entries = 0;
    loop {
        let path = tempfile::tempdir().unwrap();
        let dir = DataDir::open(path.path()).unwrap();
        let (store, saved) = stored_room(&dir).await;
        let network = MemoryNetwork::default();
        let [first, second] = [1, 2].map(NodeId::new);
        let (engine, _events) = network.node(first);
        let silent = network.be_silent_after(entries);
        let handle = store.handle();
        let is_interrupted = tokio::select! {
            carried = carry_over(&engine, first, &handle, vec![saved.clone()]) => {
                carried.unwrap();
                false
            }
            _ = silent => true,
        };
        drop((engine, _events));
        network.be_silent(false);
        let (engine, _events) = network.node(second);
        let left = store.handle().load(saved.room.clone()).await.unwrap();
        assert_eq!(left.is_some(), is_interrupted, "it is stored until the journal has all of it");
        carry_over(&engine, second, &store.handle(), left.into_iter().collect()).await.unwrap();
        let journal = journal(&engine, &saved.room).await;
        let carried = kept::saved(&saved.room, &journal).unwrap();
        assert_eq!(SavedRoom { journal: None, ..carried }, saved, "after {entries} entries");
        assert_eq!(journal.taken(LinkId { node: first, number: 1 }), 0);
        assert_eq!(store.handle().load(saved.room.clone()).await.unwrap(), None);
        if !is_interrupted {
            break;
        }
        entries += 1;
    }
    assert_eq!(entries, 4, "a claim, and one entry for each of the long events");
}
