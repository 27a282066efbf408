//! The cost of one member's change: encoding the snapshot, compressing it, and queueing it for every member.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use satsuma::id::{ConnectionId, Grants, IdentityId, MeetingId, NodeId, UserId};
use satsuma::metrics::Metrics;
use satsuma::protocol::client::{ClientMessage, MessageLimits};
use satsuma::protocol::deflate::Encoding;
use satsuma::protocol::server::MessageKind;
use satsuma::room::chat::HistoryLimits;
use satsuma::room::io::{Input, Join, Liveness};
use satsuma::room::message::SharedMessage;
use satsuma::room::outbox::{Outbox, OutboxLimits};
use satsuma::room::presence::Presences;
use satsuma::room::state::{Room, RoomSettings};
use uuid::Uuid;

const NODE: NodeId = NodeId::new(0);

/// A user as the stock client sends it in a call: about 430 bytes, of which the ids are random.
fn update(hand: &str) -> String {
    // The same media every time: members change more often without new tracks than with them.
    let session = Uuid::from_u128(1).simple();
    let [video, audio] = [Uuid::from_u128(2), Uuid::from_u128(3)];
    format!(
        r#"{{"type":"userUpdate","user":{{"id":"x","name":"x","joined":true,"raisedHand":{hand},"speaking":false,"transceiverSessionId":"{session}","tracks":{{"audioEnabled":true,"audioUnavailable":false,"videoEnabled":true,"screenShareEnabled":false,"video":"{session}/{video}","audio":"{session}/{audio}"}}}}}}"#
    )
}

fn room_of(members: u64, now: Instant) -> Room {
    let settings = RoomSettings {
        tick: Duration::from_secs(15),
        heartbeat_timeout: Duration::from_secs(15),
        restore_grace: Duration::from_secs(30),
        members: 10_000,
        members_per_identity: 0,
        members_per_network: 0,
        user_bytes: 8192,
        ai_starts_per_minute: 0,
        moderators: satsuma::config::ModeratorDefault::Everyone,
        rules: satsuma::room::rules::RoomRules::default(),
        chat: HistoryLimits::default(),
        assistant: None,
        watch: satsuma::room::watch::WatchSettings::default(),
        files: false,
    };
    let mut room = Room::new(settings, now);
    for member in 0..members {
        let join = Join {
            connection: ConnectionId::new(NODE, member),
            user: UserId::random(),
            identity: IdentityId::new(format!("cookie:{member}")),
            name: Arc::from(format!("Member number {member}")),
            grants: Grants::everyone(),
            network: None,
            new_meeting: MeetingId::random(),
            presence: false,
            liveness: Liveness::Heartbeat,
            password: None,
        };
        room.handle(now, Input::Join(join));
        room.handle(now, says(member, &update("false")));
    }
    room
}

fn says(connection: u64, text: &str) -> Input {
    let message = ClientMessage::parse(text, MessageLimits::default())
        .unwrap_or_else(|error| panic!("{error}: {text}"));
    Input::Message { connection: ConnectionId::new(NODE, connection), at: 0, message }
}

#[expect(clippy::disallowed_methods, reason = "a bench starts at some instant")]
fn start() -> Instant {
    Instant::now()
}

/// Handles one member's update, and encodes the snapshot.
fn snapshot(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("snapshot after one update");
    for members in [10, 100, 1000] {
        let now = start();
        let mut room = room_of(members, now);
        let text = update("true");
        group.bench_function(BenchmarkId::from_parameter(members), |bencher| {
            bencher.iter_batched(
                || says(1, &text),
                |update| {
                    room.handle(now, update);
                    black_box(room.encode_snapshot())
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

/// Compresses a snapshot, once for all of its receivers.
fn deflate(criterion: &mut Criterion) {
    let metrics = Metrics::new();
    let mut group = criterion.benchmark_group("snapshot compressed once");
    for members in [2, 3, 6, 10, 100, 1000] {
        let text = room_of(members, start()).encode_snapshot();
        let compressed = |text: String| {
            let message = SharedMessage::new(MessageKind::RoomState, text, &metrics);
            message.compress(&metrics);
            message
        };
        let deflated = compressed(text.clone()).payload(Encoding::Deflate).bytes.len();
        println!("{members} members: {} bytes, {deflated} compressed", text.len());
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(BenchmarkId::from_parameter(members), |bencher| {
            bencher.iter_batched(|| text.clone(), |text| black_box(compressed(text)), BatchSize::SmallInput);
        });
    }
    group.finish();
}

/// Queues one snapshot and one event in the outboxes of 100 members.
fn fan_out(criterion: &mut Criterion) {
    let metrics = Metrics::new();
    let limits =
        OutboxLimits { member_bytes: 8 << 20, all_bytes: 512 << 20, write_stall: Duration::from_secs(20) };
    let now = start().into();
    let outboxes: Vec<_> = (0..100)
        .map(|member| {
            let outbox = Outbox::new(limits, metrics.clone());
            let reader = outbox.attach(now, ConnectionId::new(NODE, member), Encoding::Identity);
            (outbox, reader)
        })
        .collect();
    let snapshot =
        SharedMessage::new(MessageKind::RoomState, room_of(100, start()).encode_snapshot(), &metrics);
    criterion.bench_function("fan-out of a snapshot to 100 outboxes", |bencher| {
        bencher.iter(|| {
            for (outbox, _) in &outboxes {
                let _ = black_box(outbox.put_snapshot(black_box(&snapshot)));
            }
        });
    });
    let event = SharedMessage::new(
        MessageKind::UserLeftNotification,
        r#"{"type":"userLeftNotification","id":"x"}"#.to_owned(),
        &metrics,
    );
    let account = outboxes[0].0.account();
    let context = std::task::Context::from_waker(std::task::Waker::noop());
    criterion.bench_function("fan-out of an event to 100 outboxes, taken and confirmed", |bencher| {
        bencher.iter(|| {
            for (outbox, reader) in &outboxes {
                let _ = black_box(outbox.push(now, &event, Some(account)));
                while let std::task::Poll::Ready(satsuma::room::outbox::Taken::Message(_)) =
                    reader.poll_take(&context)
                {}
                reader.acknowledge(now, u64::MAX);
            }
        });
    });
}

/// Publishes one member's update as a difference of presences, encodes their state, and queues the difference in
/// the outboxes of 100 members beside the snapshot.
fn presences(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("presences after one update");
    for members in [10, 100, 1000] {
        let now = start();
        let mut room = room_of(members, now);
        let mut presences = Presences::new(0);
        let updates = [update("true"), update("false")];
        let mut turn = 0;
        group.bench_function(BenchmarkId::new("difference", members), |bencher| {
            bencher.iter_batched(
                || {
                    turn += 1;
                    says(1, &updates[turn % 2])
                },
                |update| {
                    room.handle(now, update);
                    black_box(presences.update(room.users(), |_| 0))
                },
                BatchSize::PerIteration,
            );
        });
        group
            .bench_function(BenchmarkId::new("state", members), |bencher| bencher.iter(|| presences.state()));
        println!("{members} members: {} bytes of presences", presences.state().len());
    }
    group.finish();
    let metrics = Metrics::new();
    let limits =
        OutboxLimits { member_bytes: 8 << 20, all_bytes: 512 << 20, write_stall: Duration::from_secs(20) };
    let outboxes: Vec<_> = (0..100)
        .map(|member| {
            let outbox = Outbox::new(limits, metrics.clone());
            let reader = outbox.attach(start().into(), ConnectionId::new(NODE, member), Encoding::Identity);
            (outbox, reader)
        })
        .collect();
    let snapshot =
        SharedMessage::new(MessageKind::RoomState, room_of(100, start()).encode_snapshot(), &metrics);
    let diff = SharedMessage::new(MessageKind::PresenceDiff, update("true").repeat(2), &metrics);
    let context = std::task::Context::from_waker(std::task::Waker::noop());
    for has_presence in [false, true] {
        let name = if has_presence { "and of a presence diff" } else { "alone" };
        criterion.bench_function(
            &format!("fan-out of a snapshot to 100 outboxes, taken, {name}"),
            |bencher| {
                bencher.iter(|| {
                    for (outbox, reader) in &outboxes {
                        if has_presence {
                            black_box(outbox.put_presence_diff(black_box(&diff)));
                        }
                        let _ = black_box(outbox.put_snapshot(black_box(&snapshot)));
                        while let std::task::Poll::Ready(taken) = reader.poll_take(&context) {
                            black_box(taken);
                        }
                    }
                });
            },
        );
    }
}

criterion_group!(benches, snapshot, deflate, fan_out, presences);
criterion_main!(benches);
