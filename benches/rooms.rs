//! What a change of one member costs a room: encoding the snapshot, and handing it to everyone.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use satsuma::id::{ConnectionId, IdentityId, MeetingId, UserId};
use satsuma::metrics::Metrics;
use satsuma::protocol::client::ClientMessage;
use satsuma::room::io::{Input, Join};
use satsuma::room::outbox::{Outbox, shared_text};
use satsuma::room::state::{Room, RoomSettings};

/// A user as the stock client sends it in a call: about 430 bytes.
fn update(hand: &str) -> String {
    let session = "0123456789abcdef0123456789abcdef";
    format!(
        r#"{{"type":"userUpdate","user":{{"id":"x","name":"x","joined":true,"raisedHand":{hand},"speaking":false,"transceiverSessionId":"{session}","tracks":{{"audioEnabled":true,"audioUnavailable":false,"videoEnabled":true,"screenShareEnabled":false,"video":"{session}/5e884898-da28-4047-b1d2-ac6d5b6a8c8b","audio":"{session}/6e884898-da28-4047-b1d2-ac6d5b6a8c8b"}}}}}}"#
    )
}

fn room_of(members: u64, now: Instant) -> Room {
    let settings = RoomSettings {
        tick: Duration::from_secs(15),
        heartbeat_timeout: Duration::from_secs(15),
        restore_grace: Duration::from_secs(30),
        members: 10_000,
        user_bytes: 8192,
        ai_starts_per_minute: 0,
    };
    let mut room = Room::new(settings, now);
    for member in 0..members {
        let join = Join {
            connection: ConnectionId(member),
            user: UserId::random(),
            identity: IdentityId::new(format!("cookie:{member}")),
            name: Arc::from(format!("Member number {member}")),
            new_meeting: MeetingId::random(),
        };
        room.handle(now, Input::Join(join));
        room.handle(now, says(member, &update("false")));
    }
    room
}

fn says(connection: u64, text: &str) -> Input {
    let message = ClientMessage::parse(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    Input::Message { connection: ConnectionId(connection), at: 0, message }
}

#[expect(clippy::disallowed_methods, reason = "a bench starts at some instant")]
fn start() -> Instant {
    Instant::now()
}

/// One member's update is taken in, and the snapshot of everyone encoded.
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

/// One snapshot is put into the outboxes of 100 members, and one event.
fn fan_out(criterion: &mut Criterion) {
    let metrics = Metrics::new();
    let outboxes: Vec<_> = (0..100)
        .map(|member| {
            let outbox = Outbox::new(8 << 20, metrics.clone());
            let reader = outbox.attach(ConnectionId(member));
            (outbox, reader)
        })
        .collect();
    let snapshot = shared_text(room_of(100, start()).encode_snapshot(), &metrics);
    criterion.bench_function("fan-out of a snapshot to 100 outboxes", |bencher| {
        bencher.iter(|| {
            for (outbox, _) in &outboxes {
                outbox.put_snapshot(black_box(&snapshot).clone());
            }
        });
    });
    let event = shared_text(r#"{"type":"userLeftNotification","id":"x"}"#.to_owned(), &metrics);
    let context = std::task::Context::from_waker(std::task::Waker::noop());
    criterion.bench_function("fan-out of an event to 100 outboxes, taken and confirmed", |bencher| {
        bencher.iter(|| {
            for (outbox, reader) in &outboxes {
                let _ = black_box(outbox.push(event.clone()));
                while let std::task::Poll::Ready(satsuma::room::outbox::Taken::Message(_)) =
                    reader.poll_take(&context)
                {}
                reader.acknowledge(u64::MAX);
            }
        });
    });
}

criterion_group!(benches, snapshot, fan_out);
criterion_main!(benches);
