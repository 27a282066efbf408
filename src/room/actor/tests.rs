//! A room with members of Phoenix Presence, whose clients are models.

use std::collections::BTreeMap;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::config::{AiConfig, Calls, TurnConfig};
use crate::id::{ConnectionId, Grants, IdentityId, MeetingId, NodeId, UserId};
use crate::limit::Rate;
use crate::media_api::upstream::Upstream;
use crate::protocol::client::{ClientMessage, MessageLimits};
use crate::protocol::deflate::{Encoding, inflate};
use crate::protocol::server::MessageKind;
use crate::room::chat::HistoryLimits;
use crate::room::io::{Join, Liveness};
use crate::room::link::{MemberLink, Taken};
use crate::room::mailbox::RoomHandle;
use crate::room::presence::model::ModelClient;
use crate::room::snapshot_throttle::LONGEST_WINDOW;

fn deps() -> RoomDeps {
    let metrics = Metrics::new();
    let calls = Calls::default();
    let upstream = Upstream::new(&calls, &TurnConfig::default(), 1024, None, metrics.clone()).unwrap().into();
    RoomDeps {
        settings: RoomSettings {
            tick: Duration::from_secs(15),
            heartbeat_timeout: Duration::from_secs(15),
            restore_grace: Duration::from_secs(30),
            members: 10,
            members_per_identity: 0,
            members_per_network: 0,
            user_bytes: 8192,
            ai_starts_per_minute: 0,
            moderators: crate::config::ModeratorDefault::Everyone,
            rules: crate::room::rules::RoomRules::default(),
            chat: HistoryLimits::default(),
            assistant: None,
            watch: crate::room::watch::WatchSettings::default(),
            files: false,
        },
        outbox: OutboxLimits {
            member_bytes: 1 << 20,
            all_bytes: 1 << 30,
            write_stall: Duration::from_secs(20),
        },
        store: StoreHandle::of_nothing(metrics.clone()),
        ai: AiHandle::new(upstream, &calls, &AiConfig::default(), Rate::UNLIMITED, metrics.clone()).unwrap(),
        media: MediaAccess::new(true),
        rulebook: Arc::default(),
        ended: Arc::default(),
        observers: Arc::default(),
        assistant: None,
        files: None,
        events: RoomEvents::default(),
        metrics,
        force: CancellationToken::new(),
    }
}

/// A running room and its clients.
struct Stage {
    handle: RoomHandle,
    metrics: Arc<Metrics>,
    clients: BTreeMap<String, Client>,
    connections: u64,
    _room: AbortOnDropHandle<()>,
}

/// The client of one member.
#[derive(Default)]
struct Client {
    link: Option<MemberLink>,
    has_presence: bool,
    model: ModelClient,
    /// The members of the newest snapshot, by their ids.
    users: BTreeMap<String, Value>,
    /// Kinds of the messages since the join.
    kinds: Vec<MessageKind>,
    /// Texts of the chat messages.
    heard: Vec<String>,
}

impl Stage {
    #[expect(clippy::disallowed_methods, reason = "the handle owns the task")]
    fn new(deps: &RoomDeps) -> Self {
        let (handle, inbox) = RoomHandle::new();
        let permit = RoomPermit { permit: None, network: None, is_claimed: true };
        let metrics = Metrics::new();
        let deps = RoomDeps { metrics: metrics.clone(), ..deps.clone() };
        let actor = Actor::new(RoomName::parse("r").unwrap(), None, inbox, permit, deps);
        let room = AbortOnDropHandle::new(tokio::spawn(actor.run(|| {})));
        Self { handle, metrics, clients: BTreeMap::new(), connections: 0, _room: room }
    }

    async fn join(&mut self, user: &str, presence: bool, encoding: Encoding) {
        self.connections += 1;
        let connection = ConnectionId::new(NodeId::new(0), self.connections);
        let join = Join {
            connection,
            user: UserId::parse(user).unwrap(),
            identity: IdentityId::new(user),
            name: user.into(),
            grants: Grants::everyone(),
            network: None,
            new_meeting: MeetingId::random(),
            presence,
            liveness: Liveness::Connection,
            password: None,
        };
        let (ack, answer) = oneshot::channel();
        self.handle.mailbox().send(Command::Join { join, encoding, ack }).await.unwrap();
        let reader = answer.await.unwrap().unwrap();
        let link = MemberLink::new(connection, self.handle.mailbox().clone(), reader);
        let client = self.clients.entry(user.to_owned()).or_default();
        client.model.rejoin();
        client.kinds.clear();
        client.users.clear();
        (client.link, client.has_presence) = (Some(link), presence);
    }

    /// Waits until the room has handled everything.
    async fn settle(&self) {
        let (answer, view) = oneshot::channel();
        self.handle.mailbox().send(Command::Describe(answer)).await.unwrap();
        view.await.unwrap();
    }

    async fn say(&mut self, user: &str, text: &str) {
        if let Some(link) = self.clients.get_mut(user).and_then(|client| client.link.as_mut()) {
            link.send(
                ClientMessage::parse(text, MessageLimits::default()).map_err(|e| e.to_string()),
                0,
                None,
            )
            .unwrap();
            self.settle().await;
        }
    }

    async fn raise_hand(&mut self, user: &str, raised: bool) {
        self.say(user, &format!(r#"{{"type":"userUpdate","user":{{"raisedHand":{raised}}}}}"#)).await;
    }

    fn read(&mut self, user: &str, most: usize) {
        let client = self.clients.get_mut(user).unwrap();
        (0..most).all(|_| client.read_one());
    }

    fn read_all(&mut self) {
        self.clients.values_mut().for_each(|client| while client.read_one() {});
    }

    /// Waits until no snapshot is due.
    async fn quiet(&self) {
        tokio::time::sleep(2 * LONGEST_WINDOW).await;
        self.settle().await;
    }
}

impl Client {
    fn read_one(&mut self) -> bool {
        let Some(link) = &mut self.link else { return false };
        match link.poll_next(&Context::from_waker(Waker::noop())) {
            Poll::Pending => return false,
            Poll::Ready(Taken::Ping(number)) => drop(link.ack(now(), number)),
            Poll::Ready(Taken::Close(_)) => self.link = None,
            Poll::Ready(Taken::Message(payload)) => {
                let json = match payload.encoding {
                    Encoding::Identity => payload.bytes.to_vec(),
                    Encoding::Deflate => inflate(&payload.bytes, 1 << 20).unwrap(),
                };
                let json: Value = serde_json::from_slice(&json).unwrap();
                self.kinds.push(payload.kind);
                match payload.kind {
                    MessageKind::PresenceState => self.model.state(&json),
                    MessageKind::PresenceDiff => self.model.diff(&json),
                    MessageKind::RoomState => {
                        let users = json["state"]["users"].as_array().unwrap().iter();
                        self.users = users
                            .map(|user| (user["id"].as_str().unwrap().to_owned(), user.clone()))
                            .collect();
                    }
                    MessageKind::Chat => self.heard.push(json["message"].as_str().unwrap().to_owned()),
                    _ => {}
                }
            }
        }
        true
    }

    /// The user objects in the presences that the client knows.
    fn present(&self) -> BTreeMap<String, Value> {
        let user = |metas: &Vec<Value>| {
            let [meta] = &metas[..] else { panic!("{metas:?}") };
            let mut meta = meta.clone();
            let fields = meta.as_object_mut().unwrap();
            assert!(fields.remove("online_at").unwrap().is_u64());
            fields.remove("phx_ref").unwrap();
            fields.remove("phx_ref_prev");
            meta
        };
        self.model.view.iter().map(|(key, metas)| (key.clone(), user(metas))).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn presences_and_snapshot_precede_what_waited() {
    let mut stage = Stage::new(&deps());
    stage.join("a", false, Encoding::Identity).await;
    stage.join("b", true, Encoding::Identity).await;
    stage.say("b", r#"{"type":"heartbeat"}"#).await;
    stage.read_all();
    let b = stage.clients.get_mut("b").unwrap();
    assert_eq!(b.kinds[..2], [MessageKind::PresenceState, MessageKind::RoomState]);
    assert_eq!(b.users.keys().collect::<Vec<_>>(), ["a", "b"], "with the member itself");
    assert!(!stage.clients["a"].kinds.contains(&MessageKind::PresenceState), "a did not ask for it");
    // The connection is lost; meanwhile a chat message waits.
    let lost = stage.clients.get_mut("b").unwrap().link.take().unwrap();
    lost.disconnect(false).await;
    stage.say("a", r#"{"type":"chat","message":"hi"}"#).await;
    stage.raise_hand("a", true).await;
    stage.quiet().await;
    stage.join("b", true, Encoding::Identity).await;
    stage.read_all();
    let b = &stage.clients["b"];
    let [first, second, third, fourth] = b.kinds[..] else { panic!("{:?}", b.kinds) };
    assert_eq!([first, second], [MessageKind::PresenceState, MessageKind::RoomState]);
    assert_eq!([third, fourth], [MessageKind::ChatHistory, MessageKind::Chat]);
    assert_eq!((b.present(), &b.users["a"]["raisedHand"]), (b.users.clone(), &json!(true)));
}

#[tokio::test(start_paused = true)]
async fn history_is_compressed_once_for_those_who_join_together() {
    let mut stage = Stage::new(&deps());
    stage.join("a", false, Encoding::Deflate).await;
    for _ in 0..3 {
        stage.say("a", &format!(r#"{{"type":"chat","message":"{}"}}"#, "x".repeat(1000))).await;
    }
    stage.quiet().await;
    let history = stage.metrics.chat_history_bytes.get();
    assert!((3000..4000).contains(&history), "{history}");
    let before = stage.metrics.deflate_from_bytes.get();
    for (user, compressed) in [("b", false), ("c", true), ("d", true)] {
        stage.join(user, false, Encoding::Deflate).await;
        let more = stage.metrics.deflate_from_bytes.get() - before;
        assert_eq!(more > 3000, compressed, "{user}: {more}");
        assert!(more < 4000, "{user}: {more}");
    }
    stage.say("a", r#"{"type":"chat","message":"hi"}"#).await;
    stage.join("e", false, Encoding::Identity).await;
    stage.read_all();
    assert!(stage.clients["e"].kinds.contains(&MessageKind::ChatHistory));
}

#[tokio::test(start_paused = true)]
async fn reader_that_is_behind_gets_the_state() {
    let mut stage = Stage::new(&deps());
    for user in ["a", "b", "c"] {
        stage.join(user, true, Encoding::Identity).await;
    }
    stage.quiet().await;
    stage.read_all();
    stage.clients.values_mut().for_each(|client| client.kinds.clear());
    let conflated = stage.metrics.conflated_presences.get();
    for turn in 0..10 {
        stage.raise_hand("a", turn % 2 == 0).await;
        stage.quiet().await;
        stage.read("b", 100);
    }
    stage.read_all();
    let presences = |user: &str| {
        let kinds = stage.clients[user].kinds.iter();
        kinds.filter(|kind| **kind != MessageKind::RoomState).copied().collect::<Vec<_>>()
    };
    assert_eq!(presences("b"), [MessageKind::PresenceDiff; 10]);
    assert_eq!(presences("c"), [MessageKind::PresenceState]);
    assert_eq!(stage.clients["b"].model.view, stage.clients["c"].model.view);
    assert_eq!(stage.metrics.conflated_presences.get() - conflated, 2 * 9);
}

#[tokio::test(start_paused = true)]
async fn presences_end_with_their_last_member() {
    let mut stage = Stage::new(&deps());
    stage.join("a", false, Encoding::Identity).await;
    stage.join("b", true, Encoding::Identity).await;
    stage.quiet().await;
    stage.read_all();
    let first = stage.clients["b"].model.view.clone();
    // The same member through Orange's socket.
    stage.join("b", false, Encoding::Identity).await;
    stage.raise_hand("a", true).await;
    stage.quiet().await;
    stage.read_all();
    let kinds = &stage.clients["b"].kinds;
    assert!(kinds.iter().all(|kind| *kind == MessageKind::RoomState), "{kinds:?}");
    stage.join("b", true, Encoding::Identity).await;
    stage.read_all();
    let again = &stage.clients["b"].model.view;
    assert_eq!(stage.clients["b"].present(), stage.clients["b"].users);
    let references = |view: &crate::room::presence::model::View| {
        let metas = view.values().flatten();
        metas.map(|meta| meta["phx_ref"].as_str().unwrap()[..11].to_owned()).collect::<Vec<_>>()
    };
    assert_ne!(references(&first)[0], references(again)[0], "new references");
    assert_eq!(references(again).len(), 2);
}

/// Inputs of a room whose members read at their own pace.
#[derive(Clone, Debug)]
enum Step {
    Join { user: usize, presence: bool, deflate: bool },
    Lose { user: usize, leaves: bool },
    RaiseHand { user: usize, raised: bool },
    Chat { user: usize },
    Read { user: usize, most: usize },
    Wait { millis: u64 },
    Quiet,
}

const USERS: [&str; 4] = ["a", "b", "c", "constructor"];

fn step() -> impl Strategy<Value = Step> {
    let user = || 0..USERS.len();
    prop_oneof![
        3 => (user(), prop::bool::weighted(0.7), any::<bool>())
            .prop_map(|(user, presence, deflate)| Step::Join { user, presence, deflate }),
        2 => (user(), any::<bool>()).prop_map(|(user, leaves)| Step::Lose { user, leaves }),
        5 => (user(), any::<bool>()).prop_map(|(user, raised)| Step::RaiseHand { user, raised }),
        1 => user().prop_map(|user| Step::Chat { user }),
        5 => (user(), 1..5usize).prop_map(|(user, most)| Step::Read { user, most }),
        3 => (1..4000u64).prop_map(|millis| Step::Wait { millis }),
        2 => Just(Step::Quiet),
    ]
}

async fn play(deps: &RoomDeps, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut stage = Stage::new(deps);
    // It keeps the room running, and reads nothing but at quiet times.
    stage.join("z", true, Encoding::Identity).await;
    for step in steps.into_iter().chain([Step::Quiet]) {
        match step {
            Step::Join { user, presence, deflate } => {
                let encoding = if deflate { Encoding::Deflate } else { Encoding::Identity };
                stage.join(USERS[user], presence, encoding).await;
            }
            Step::Lose { user, leaves } => {
                let client = stage.clients.get_mut(USERS[user]);
                match client.and_then(|client| client.link.take()) {
                    Some(link) if leaves => link.leave().await,
                    Some(link) => link.disconnect(false).await,
                    None => {}
                }
            }
            Step::RaiseHand { user, raised } => stage.raise_hand(USERS[user], raised).await,
            Step::Chat { user } => stage.say(USERS[user], r#"{"type":"chat","message":"x"}"#).await,
            Step::Read { user, most } => {
                if stage.clients.contains_key(USERS[user]) {
                    stage.read(USERS[user], most);
                }
            }
            Step::Wait { millis } => tokio::time::sleep(Duration::from_millis(millis)).await,
            Step::Quiet => {
                stage.quiet().await;
                stage.read_all();
                for (user, client) in stage.clients.iter().filter(|(_, client)| client.link.is_some()) {
                    let is_first = |kind: MessageKind| client.kinds.iter().position(|other| *other == kind);
                    if !client.has_presence {
                        prop_assert_eq!(is_first(MessageKind::PresenceState), None);
                        prop_assert_eq!(is_first(MessageKind::PresenceDiff), None);
                        continue;
                    }
                    prop_assert_eq!(is_first(MessageKind::PresenceState), Some(0), "{}", user);
                    prop_assert_eq!(is_first(MessageKind::RoomState), Some(1), "{}", user);
                    let mut users = client.users.clone();
                    prop_assert!(users.contains_key(user));
                    users.remove("constructor");
                    prop_assert_eq!(client.present(), users, "{}", user);
                    // All know the same versions.
                    prop_assert_eq!(&client.model.view, &stage.clients["z"].model.view);
                }
            }
        }
    }
    Ok(())
}

proptest! {
    /// At every quiet moment a client of Phoenix Presence knows the members and their newest objects, as the
    /// snapshot has them, however slowly it reads and however often it comes back.
    #[test]
    fn presences_follow_the_room(steps in prop::collection::vec(step(), 1..60)) {
        static DEPS: std::sync::OnceLock<RoomDeps> = std::sync::OnceLock::new();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let deps = DEPS.get_or_init(|| runtime.block_on(async { deps() }));
        runtime.block_on(play(deps, steps))?;
    }
}
