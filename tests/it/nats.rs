//! NATS as the engine between nodes, with real servers: what it promises, and what happens when they die.

use std::time::Duration;

use satsuma::clock::now;
use satsuma::config::{ClusterConfig, Optional};
use satsuma::id::NodeId;
use satsuma::metrics::Metrics;
use satsuma::nodes::engine::{Engine, EngineEvent, Followed, Following, NoAnswer, RequestFailure, Subject};
use satsuma::nodes::nats::{NatsEngine, NatsError};
use satsuma_cluster::writer::Appended;
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

use crate::engine::{Pair, bytes, event, keeps_its_promises, number, room, soon};
use crate::harness::eventually_within;
use crate::nats_server::{Cable, NatsServer, free_port, newest};

/// Debian's, which may be old.
const OF_THE_PATH: &str = "nats-server";

const FRAME_BYTES: usize = 1 << 20;

fn config(urls: &[String]) -> ClusterConfig {
    let nats = urls.iter().map(|url| url.parse().unwrap()).collect();
    ClusterConfig { nats, secret: Optional(Some("x".repeat(32).into())), ..ClusterConfig::default() }
}

async fn node(urls: &[String], id: u32) -> (NatsEngine, Receiver<EngineEvent>) {
    NatsEngine::start(&config(urls), NodeId::new(id), FRAME_BYTES, Metrics::new()).await.unwrap()
}

async fn refusal(config: &ClusterConfig) -> String {
    let started = NatsEngine::start(config, NodeId::new(1), FRAME_BYTES, Metrics::new()).await;
    let error: NatsError = started.expect_err("a start that fails");
    let check = NatsEngine::check(config, FRAME_BYTES).await.expect_err("the check tells it as well");
    assert_eq!(check.to_string(), error.to_string());
    error.to_string()
}

async fn pair(server: &NatsServer) -> Pair<NatsEngine> {
    let ids = [0xa1, 0xb2].map(NodeId::new);
    let urls = [server.url()];
    let (a, events_of_a) = node(&urls, ids[0].bits()).await;
    let (b, events_of_b) = node(&urls, ids[1].bits()).await;
    Pair { a, b, ids, events_of_a, events_of_b }
}

/// Three servers need up to nine seconds to elect a leader, and more on a busy machine.
const ELECTION_PATIENCE: Duration = Duration::from_secs(60);

fn is(wanted: EngineEvent) -> impl Fn(EngineEvent) -> Option<()> {
    move |event| (event == wanted).then_some(())
}

/// Appends as a journal's writer does: until the engine says where the entry is.
async fn append_for_sure(engine: &NatsEngine, subject: Subject, expected: u64, text: &str) -> u64 {
    let appended = async {
        loop {
            match engine.append(subject, expected, bytes(text)).await {
                Appended::Stored(number) => return number,
                Appended::Unknown => {}
                Appended::Refused => {
                    let Ok(last) = engine.last(subject).await else { continue };
                    let last = last.expect("there is an entry");
                    assert_eq!(last.bytes, bytes(text), "the entry was stored after all");
                    return last.sequence;
                }
            }
        }
    };
    timeout(ELECTION_PATIENCE, appended).await.expect("it is stored in the end")
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs nats-server"]
async fn nats_of_the_path_keeps_its_promises() {
    let server = NatsServer::start(OF_THE_PATH, "").await;
    keeps_its_promises(pair(&server).await).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs nats-server"]
async fn newest_nats_keeps_its_promises() {
    let server = NatsServer::start(&newest(), "").await;
    keeps_its_promises(pair(&server).await).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs nats-server"]
async fn long_journal_is_read_in_order() {
    for program in [OF_THE_PATH.to_owned(), newest()] {
        let server = NatsServer::start(&program, "").await;
        let Pair { a, b, .. } = pair(&server).await;
        let (subject, other) = (room("long"), room("beside"));
        let (mut last, mut beside) = (0, 0);
        for number_of_entry in 0..600 {
            last = number(a.append(subject, last, bytes(&number_of_entry.to_string())).await);
            beside = number(b.append(other, beside, bytes("-")).await);
        }
        let entries = b.all(subject).await.unwrap();
        let texts: Vec<_> = entries.iter().map(|entry| entry.bytes.clone()).collect();
        let wanted: Vec<_> = (0..600).map(|number| bytes(&number.to_string())).collect();
        assert!(texts == wanted, "{program}: {} entries", texts.len());
        let chained = entries.windows(2).all(|pair| pair[1].expected == pair[0].sequence);
        assert!(chained, "{program}: each entry names the one before");
        assert_eq!(b.last(subject).await.unwrap().as_ref(), entries.last());
    }
}

/// Each entry that was acknowledged is there after `kill -9`, followers see by the numbers what they missed, and one that
/// nobody knows of is stored once.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs nats-server"]
async fn killed_nats_loses_nothing_acknowledged() {
    for program in [OF_THE_PATH.to_owned(), newest()] {
        let mut server = NatsServer::start(&program, "").await;
        let Pair { a, b, mut events_of_b, .. } = pair(&server).await;
        let subject = room("killed");
        let mut following = b.follow(subject).await.unwrap();
        let (mut last, mut wanted) = (0, Vec::new());
        for round in 0..5 {
            for entry in 0..20 {
                let text = format!("{round}.{entry}");
                last = append_for_sure(&a, subject, last, &text).await;
                wanted.push(bytes(&text));
                if entry == 10 {
                    server.kill();
                    server.restart();
                }
            }
            event(&mut events_of_b, is(EngineEvent::Disconnected)).await;
            event(&mut events_of_b, is(EngineEvent::Connected)).await;
        }
        let entries = b.all(subject).await.unwrap();
        let texts: Vec<_> = entries.iter().map(|entry| entry.bytes.clone()).collect();
        assert_eq!(texts, wanted, "{program}");
        // The subscription outlives the server.
        let end = append_for_sure(&a, subject, last, "the end").await;
        let mut seen = Vec::new();
        while seen.last() != Some(&end) {
            if let Followed::Stored(entry) = soon(following.next()).await.unwrap() {
                assert!(seen.last().is_none_or(|last| entry.expected >= *last), "{program}: in order");
                seen.push(entry.sequence);
            }
        }
    }
}

/// Nothing passes, and nobody closes a connection.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs nats-server"]
async fn silent_cut_is_noticed_and_survived() {
    let server = NatsServer::start(OF_THE_PATH, "").await;
    let cable = Cable::new(server.address()).await;
    let (a, mut events_of_a) = node(&[cable.url()], 1).await;
    let (b, _events_of_b) = node(&[server.url()], 2).await;
    event(&mut events_of_a, is(EngineEvent::Connected)).await;
    let subject = room("cut");
    let first = number(a.append(subject, 0, bytes("1")).await);
    let mut following = a.follow(subject).await.unwrap();

    cable.hold(true);
    // No answer takes longer than the writer waits for it, and a bit.
    let late = Duration::from_secs(2);
    assert_eq!(timeout(late, a.append(subject, first, bytes("2"))).await, Ok(Appended::Unknown));
    assert_eq!(timeout(late, a.last(subject)).await, Ok(Err(NoAnswer)));
    assert_eq!(timeout(late, a.all(subject)).await, Ok(Err(NoAnswer)));
    let short = Duration::from_millis(100);
    let request = timeout(late, a.request(NodeId::new(2), bytes("?"), short)).await;
    assert_eq!(request, Ok(Err(RequestFailure::NoAnswer)));
    event(&mut events_of_a, is(EngineEvent::Disconnected)).await;
    timeout(late, a.send(NodeId::new(2), bytes("lost"))).await.unwrap();
    timeout(late, a.follow(room("never"))).await.unwrap().unwrap_err();
    let second = append_for_sure(&b, subject, first, "claim of b").await;

    cable.hold(false);
    event(&mut events_of_a, is(EngineEvent::Connected)).await;
    assert_eq!(a.append(subject, first, bytes("2")).await, Appended::Refused, "it is fenced");
    let third = append_for_sure(&b, subject, second, "3").await;
    let entry = soon(async {
        loop {
            match following.next().await.unwrap() {
                Followed::Stored(entry) if entry.sequence == third => return entry,
                _ => {}
            }
        }
    });
    assert_eq!(entry.await.expected, second);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs nats-server"]
async fn unusable_nats_is_refused_with_a_reason() {
    let ready = async |lines: &str| {
        let server = NatsServer::launch(OF_THE_PATH, lines);
        server.until_ready().await;
        server
    };
    let server = ready("max_payload: 8MB").await;
    let error = refusal(&config(&[server.url()])).await;
    assert!(error.contains("nats-server with -js"), "{error}");
    let server = ready("jetstream { store_dir: \"DIR/data\" }").await;
    let error = refusal(&config(&[server.url()])).await;
    assert!(error.ends_with("max_payload: 1179648"), "{error}");
    let error = refusal(&config(&[format!("nats://127.0.0.1:{}", free_port())])).await;
    assert!(error.contains("no connection to nats://127.0.0.1:"), "{error}");

    let lines = "authorization { user: \"satsuma\", password: \"the password of nats\" }";
    let server = NatsServer::start(OF_THE_PATH, lines).await;
    let nobody = config(&[server.url()]);
    let error = refusal(&nobody).await;
    assert!(error.to_lowercase().contains("authorization"), "{error}");
    let user = |password: &str| ClusterConfig {
        user: Optional(Some("satsuma".to_owned())),
        password: Optional(Some(password.into())),
        ..nobody.clone()
    };
    let error = refusal(&user("5318008")).await;
    assert!(!error.contains("5318008"), "{error}");
    let config = user("the password of nats");
    NatsEngine::check(&config, FRAME_BYTES).await.unwrap();
    let start = |config: ClusterConfig| async move {
        NatsEngine::start(&config, NodeId::new(1), FRAME_BYTES, Metrics::new()).await.map(drop)
    };
    start(config.clone()).await.unwrap();
    let error = start(ClusterConfig { shards: 5, ..config.clone() }).await.unwrap_err().to_string();
    assert!(error.contains("shard 0 of 4") && error.contains("cluster.shards"), "{error}");
    start(ClusterConfig { shards: 5, prefix: "another".to_owned(), ..config }).await.unwrap();
}

/// The configuration of the documentation, with these ports and folders: its permissions are enough for everything.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs nats-server"]
async fn documented_configuration_suffices() {
    let page = include_str!("../../docs/nats.md");
    let conf = page.split("```conf\n").nth(1).unwrap().split("```").next().unwrap();
    let conf = conf.replace("listen: \"0.0.0.0:4222\"\n", "").replace("/var/lib/nats", "DIR/data");
    for program in [OF_THE_PATH.to_owned(), newest()] {
        let server = NatsServer::launch(&program, &conf);
        server.until_ready().await;
        let config = ClusterConfig {
            user: Optional(Some("satsuma".to_owned())),
            password: Optional(Some("a password of your own".into())),
            ..config(&[server.url()])
        };
        let ids = [1, 2].map(NodeId::new);
        let start = |id| NatsEngine::start(&config, id, FRAME_BYTES, Metrics::new());
        let (a, events_of_a) = start(ids[0]).await.unwrap();
        let (b, events_of_b) = start(ids[1]).await.unwrap();
        keeps_its_promises(Pair { a, b, ids, events_of_a, events_of_b }).await;
        assert!(!server.log().contains("Permissions Violation"), "{}", server.log());
    }
}

/// Its conditional appends are not exact when several servers share a stream.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs nats-server"]
async fn old_clustered_nats_is_refused() {
    let lines = format!(
        "server_name: a\njetstream {{ store_dir: \"DIR/data\" }}\nmax_payload: 8MB\n\
         cluster {{ name: c, listen: \"127.0.0.1:{}\", routes: [\"nats://127.0.0.1:{}\"] }}",
        free_port(),
        free_port()
    );
    let server = NatsServer::launch(OF_THE_PATH, &lines);
    server.until_ready().await;
    if !server.log().contains("Version:  2.9") {
        return;
    }
    let error = refusal(&config(&[server.url()])).await;
    assert!(error.contains("is too old") && error.contains("2.11 or newer"), "{error}");
}

/// Three servers of a new version.
async fn three_servers() -> Vec<NatsServer> {
    let program = std::env::var("NATS_SERVER").expect("NATS_SERVER names a server of 2.11 or newer");
    let routes = [(); 3].map(|()| free_port());
    let all: Vec<_> = routes.iter().map(|port| format!("\"nats://127.0.0.1:{port}\"")).collect();
    let servers = routes.iter().enumerate().map(|(at, port)| {
        let lines = format!(
            "server_name: s{at}\njetstream {{ store_dir: \"DIR/data\" }}\nmax_payload: 8MB\n\
             cluster {{ name: c, listen: \"127.0.0.1:{port}\", routes: [{}] }}",
            all.join(", ")
        );
        NatsServer::launch(&program, &lines)
    });
    let servers: Vec<_> = servers.collect();
    for server in &servers {
        server.until_ready().await;
    }
    servers
}

/// Nothing acknowledged is lost while the servers are killed one after another, and journals go on.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs nats-server"]
async fn three_servers_survive_the_death_of_each() {
    let mut servers = three_servers().await;
    let urls: Vec<_> = servers.iter().map(NatsServer::url).collect();
    let (a, _events_of_a) = node(&urls, 1).await;
    let (b, _events_of_b) = node(&urls[1..], 2).await;
    let subjects = ["one", "two", "three", "four"].map(room);
    let mut last = [0; 4];
    let mut wanted = vec![Vec::new(); 4];
    let mut longest = Duration::ZERO;
    for (round, server) in servers.iter_mut().enumerate() {
        for entry in 0..30 {
            for (at, subject) in subjects.iter().enumerate() {
                let text = format!("{round}.{entry}");
                let engine = if entry % 2 == 0 { &a } else { &b };
                let asked = now();
                last[at] = append_for_sure(engine, *subject, last[at], &text).await;
                longest = longest.max(asked.elapsed());
                wanted[at].push(bytes(&text));
            }
            if entry == 15 {
                server.kill();
            }
        }
        server.restart();
        server.until_ready().await;
        // The next one may only die when this one has caught up.
        eventually_within(ELECTION_PATIENCE, "all entries are read".to_owned(), async || {
            b.all(subjects[0]).await.is_ok_and(|all| all.len() == wanted[0].len())
        })
        .await;
    }
    eprintln!("longest time without an append: {longest:?}");
    for (subject, wanted) in subjects.iter().zip(wanted) {
        let entries = b.all(*subject).await.unwrap();
        let texts: Vec<_> = entries.into_iter().map(|entry| entry.bytes).collect();
        assert_eq!(texts, wanted);
    }
}
