//! Files in the chat over several nodes: shared at one, got at any, and gone with the meeting everywhere.

use std::time::Duration;

use satsuma::config::{Config, Sharing};
use satsuma::id::NodeId;
use satsuma::nodes::engine::Engine;
use serde_json::{Value, json};

use crate::client::{Ask, Client};
use crate::cluster::{Mortal, two_nodes_with, users};
use crate::files::{folder, get, is_empty, share};
use crate::harness::{Person, TestServer, eventually};
use crate::memory_engine::MemoryNetwork;

fn everyone(config: &mut Config) {
    config.files.sharing = Sharing::Everyone;
    config.room.tick = Duration::from_millis(100);
}

async fn join(node: &TestServer, person: &Person, pk: &str) -> Client {
    Ask::room("r").by(person).pk(pk).open(node).await
}

#[tokio::test]
async fn files_are_got_at_any_node() {
    let (network, a, b) = two_nodes_with(everyone).await;
    let (c, _) = TestServer::node(&network, Some(&a), everyone).await;
    let [ada, bob, eve] = ["Ada", "Bob", "Eve"].map(|name| Person::log_in(&a, name));
    let (ada, bob, eve) = (ada.await, bob.await, eve.await);
    let (mut at_a, mut at_b) = (join(&a, &ada, "a").await, join(&b, &bob, "b").await);
    at_a.until_state(|state| users(state) == 2).await;
    // Of several parts, the last one shorter.
    let content: String = (0..70_000).map(|number| format!("{number:5}")).collect();
    let nodes = [&a, &b, &c];
    for (node, person) in [(&a, &ada), (&b, &bob), (&c, &ada)] {
        let shared = share(node, person, "numbers.txt", content.clone()).await;
        assert_eq!(shared.status, 201, "{shared:?}");
        let file = shared.json();
        for client in [&mut at_a, &mut at_b] {
            assert_eq!(client.until(|message| message["type"] == "chat").await["file"], file);
        }
        for asked in nodes {
            let got = get(asked, &bob, "r", &file["id"]).await;
            assert_eq!((got.status, got.text == content), (200, true), "{:?}", got.headers);
            assert_eq!(got.header("content-disposition"), "attachment; filename*=UTF-8''numbers%2Etxt");
            assert_eq!(get(asked, &eve, "r", &file["id"]).await.status, 404, "she is no member");
        }
    }
    let empty = share(&a, &ada, "empty", "").await.json();
    assert_eq!(get(&b, &bob, "r", &empty["id"]).await.text, "");
    let refused = share(&b, &eve, "x", "x").await;
    assert_eq!(refused.json()["error"], "you are not in this meeting");
    // The end of the meeting is the end of its files, also where nobody of it is.
    for node in nodes {
        assert!(!is_empty(&folder(node)));
    }
    assert_eq!(b.admin_post("/admin/rooms/r/moderate", &json!({"action": "end"})).await.status, 200);
    at_a.closed().await;
    for node in nodes {
        eventually("the files are gone".to_owned(), async || is_empty(&folder(node))).await;
    }
}

#[tokio::test]
async fn file_of_a_dead_node_is_gone() {
    let network = MemoryNetwork::default();
    let (a, _) = TestServer::node(&network, None, everyone).await;
    let dying = Mortal::start_with(&network, &a, everyone);
    let ada = Person::log_in(&a, "Ada").await;
    let _ada = join(&a, &ada, "a").await;
    let file = share(&dying.server, &ada, "x", "hello").await.json();
    assert_eq!(get(&a, &ada, "r", &file["id"]).await.text, "hello");
    let id = dying.id;
    let _dead = dying.kill();
    eventually("nobody listens".to_owned(), async || !network.listens(id)).await;
    let gone = get(&a, &ada, "r", &file["id"]).await;
    assert_eq!((gone.status, gone.header("error-code")), (410, "file_gone"), "{gone:?}");
    // An id that no file ever had.
    let own = share(&a, &ada, "y", "y").await.json();
    let mut forged = own["id"].as_str().unwrap().to_owned();
    forged.truncate(forged.len() - 4);
    assert_eq!(get(&a, &ada, "r", &Value::from(forged.clone() + "AAAA")).await.status, 404);
    assert_eq!(get(&a, &ada, "r", &Value::from(forged)).await.status, 404);
}

#[tokio::test]
async fn node_that_does_not_answer_for_its_file_is_told() {
    let network = MemoryNetwork::default();
    let (a, _) = TestServer::node(&network, None, everyone).await;
    let ada = Person::log_in(&a, "Ada").await;
    let _ada = join(&a, &ada, "a").await;
    // It listens, and answers nobody.
    let (silent, _events) = network.node(NodeId::new(0));
    let pulse = json!({"node": 0, "number": 1, "version": 1, "is_draining": false, "name": "n", "fingerprint": "tests"});
    silent.send_to_all(pulse.to_string().into()).await;
    a.until_metric("satsuma_nodes_alive", 1.0).await;
    let of_silent = Value::from("A".repeat(27));
    let told = get(&a, &ada, "r", &of_silent).await;
    assert_eq!((told.status, told.header("error-code")), (504, "file_silent"), "{told:?}");
}

/// A file of a single server, which became a node.
#[tokio::test]
async fn file_of_before_the_cluster_is_found_at_any_node() {
    let single = TestServer::with(everyone).await;
    let ada = Person::log_in(&single, "Ada").await;
    let mut before = join(&single, &ada, "a").await;
    let file = share(&single, &ada, "x", "hello").await.json();
    before.until(|message| message["type"] == "chat").await;
    let network = MemoryNetwork::default();
    let (a, _) = single.stop().await.start_as_node(&network).await;
    let (b, _) = TestServer::node(&network, Some(&a), everyone).await;
    let mut again = join(&b, &ada, "a").await;
    again.until_state(|state| users(state) == 1).await;
    for node in [&a, &b] {
        assert_eq!(get(node, &ada, "r", &file["id"]).await.text, "hello");
    }
}
