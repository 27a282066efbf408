//! Back-pressure: busy rooms, slow recipients, and memory for incomplete messages.

use super::super::super::recipient_pause::LONGEST_PAUSE;
use super::*;

/// Each socket read one message more than the mailbox had space for, and inflated it.
#[tokio::test(start_paused = true)]
async fn full_mailbox_stops_reading() {
    let (mut stage, network) = stage(limits(), 1 << 20);
    let mut client = client(network).await;
    let long = Incoming {
        connection: ID,
        message: Ok(ClientMessage::Heartbeat),
        bytes: 4 << 20,
        permit: None,
        reply: None,
    };
    stage.mailbox.try_deliver(long, None).unwrap();
    client.send(Message::text(r#"{"type":"userLeft"}"#)).await.unwrap();
    let second = Duration::from_secs(1);
    tokio::time::sleep(second).await;
    assert!(stage.outbox.take_throttled(), "it is alive");
    assert_eq!(stage.metrics.received_bytes.get(), 0);
    let handled = stage.commands.recv().await;
    assert!(tokio::time::timeout(second, stage.commands.recv()).await.is_err(), "it is not handled yet");
    drop(handled);
    assert_eq!(kind(stage.commands.recv().await), "userLeft");
}

/// A socket that waited for space released it before it read, and found it taken by the next, forever.
#[tokio::test]
async fn sockets_that_wait_for_a_full_room_take_turns() {
    const SOCKETS: u64 = 9;
    let (mailbox, mut commands) = Mailbox::new(256);
    let metrics = Metrics::new();
    let arrivals = Arrivals::new(1 << 30);
    let outboxes: Vec<_> = (0..SOCKETS).map(|_| Outbox::new(OUTBOX, metrics.clone())).collect();
    let long = format!(r#"{{"type":"e2eeMlsMessage","payload":"{}"}}"#, "x".repeat(900_000));
    let (mut tasks, mut clients) = (Vec::new(), Vec::new());
    for (number, outbox) in outboxes.iter().enumerate() {
        let id = ConnectionId::new(NODE, number as u64);
        let link = MemberLink::new(id, mailbox.clone(), outbox.attach(now(), id, Encoding::Identity));
        let session = OrangeSession::new(link, MessageLimits::default(), metrics.clone());
        let (ours, theirs) = duplex(8 << 20);
        let limits = ConnectionLimits { message_bytes: 1 << 20, ..limits() };
        tasks.push(spawn(ours, session, &arrivals, limits, &metrics));
        clients.push(client(theirs).await);
    }
    for _ in 0..3 {
        for client in &mut clients {
            client.send(Message::text(&long)).await.unwrap();
        }
    }
    let all = async {
        for _ in 0..3 * SOCKETS {
            // Other tasks run before the command is handled and its space is free.
            let command = commands.recv().await;
            tokio::task::yield_now().await;
            assert_eq!(kind(command), "e2eeMlsMessage");
        }
    };
    tokio::time::timeout(Duration::from_secs(30), all).await.expect("all arrive");
}

/// A thousand sockets that each began a message of 8 MiB took 8 GB.
#[tokio::test(start_paused = true)]
async fn long_message_waits_for_memory() {
    let arrivals = Arrivals::new(1 << 20);
    let held = arrivals.share(None).try_acquire(1 << 20);
    let overrun = arrivals.share(None).acquire(1).await;
    let (mut stage, mut client) = stage_within(&arrivals).await;
    let minute = Duration::from_secs(60);
    client.send(of_mls(60_000)).await.unwrap();
    assert_eq!(kind(stage.commands.recv().await), "e2eeMlsMessage");
    let sent = tokio::time::timeout(minute, client.send(of_mls(900_000))).await;
    assert!(sent.is_err(), "it is read no further");
    assert!(stage.outbox.take_throttled() && !stage.connection.is_finished(), "and is alive");
    assert!((60_000..300_000).contains(&stage.metrics.arriving_bytes.get()));
    drop((held, overrun));
    let (arrived, flushed) = tokio::join!(stage.commands.recv(), client.flush());
    flushed.unwrap();
    assert_eq!(kind(arrived), "e2eeMlsMessage");
    assert_eq!(stage.metrics.arriving_bytes.get(), 0);
    assert!(arrivals.share(None).try_acquire(1 << 20).is_some(), "all is given back");
}

/// Each would have waited for bytes that the others hold.
#[tokio::test(start_paused = true)]
async fn incomplete_messages_do_not_deadlock() {
    let arrivals = Arrivals::new(200_000);
    let mut stages = Vec::new();
    for _ in 0..4 {
        stages.push(stage_within(&arrivals).await);
    }
    let all = stages.iter_mut().map(|(stage, client)| async {
        let (arrived, sent) = tokio::join!(stage.commands.recv(), client.send(of_mls(1_000_000)));
        sent.unwrap();
        kind(arrived)
    });
    let all = tokio::time::timeout(Duration::from_secs(60), futures_util::future::join_all(all)).await;
    assert_eq!(all.expect("an end"), ["e2eeMlsMessage"; 4]);
}

/// Otherwise no other socket could complete a long message during this one's lifetime.
#[tokio::test(start_paused = true)]
async fn overrun_message_must_complete_in_time() {
    let (arrivals, start) = (Arrivals::new(1000), now());
    let (ours, mut network) = duplex(1 << 16);
    let limits = ConnectionLimits { message_bytes: 1 << 20, ..limits() };
    let mut stage = stage_with(ours, &arrivals, limits, MessageLimits::default());
    let mut part = vec![0x81, 0xff];
    part.extend(1_000_000_u64.to_be_bytes());
    part.resize(300_000, b'x');
    network.write_all(&part).await.expect("it is read");
    let mut close = [0; 4];
    network.read_exact(&mut close).await.unwrap();
    assert_eq!((close[0], u16::from_be_bytes([close[2], close[3]])), (0x88, 1013));
    assert_eq!(start.elapsed().as_secs(), 20);
    assert_eq!(stage.metrics.arriving_bytes.get(), 0);
    drop(network);
    assert_eq!(kind(stage.commands.recv().await), "gone");
}

#[tokio::test(start_paused = true)]
async fn heavy_sender_waits_for_others_for_limited_time() {
    let (mut stage, network) = stage(limits(), 1 << 20);
    let mut client = client(network).await;
    let account = stage.outbox.account().clone();
    account.set_most(10);
    let charge = account.charge(1000);
    for _ in 0..3 {
        client.send(Message::text(r#"{"type":"heartbeat"}"#)).await.unwrap();
    }
    let half = LONGEST_PAUSE / 2;
    assert!(tokio::time::timeout(half, stage.commands.recv()).await.is_err(), "others fall behind");
    assert!(stage.outbox.take_throttled(), "it is alive");
    // One message is read anyway; then the next waits as long.
    assert_eq!(kind(tokio::time::timeout(LONGEST_PAUSE, stage.commands.recv()).await.unwrap()), "heartbeat");
    assert!(tokio::time::timeout(half, stage.commands.recv()).await.is_err());
    drop(charge);
    assert_eq!(kind(tokio::time::timeout(half, stage.commands.recv()).await.unwrap()), "heartbeat");
    assert!(!stage.outbox.take_throttled() || !stage.outbox.take_throttled());
}

#[tokio::test(start_paused = true)]
async fn full_mailbox_does_not_stop_writing() {
    let (mut stage, network) = stage(limits(), 1 << 20);
    let mut client = client(network).await;
    for _ in 0..10 {
        client.send(Message::text(r#"{"type":"heartbeat"}"#)).await.unwrap();
    }
    // The mailbox holds four and nobody reads it.
    stage.outbox.push(now(), &message("still heard"), None).unwrap();
    assert_eq!(client.next().await.unwrap().unwrap(), Message::text("still heard"));
    for _ in 0..10 {
        assert_eq!(kind(stage.commands.recv().await), "heartbeat");
    }
}
