//! Rates: tokens, and the end of clients that send too much.

use super::*;

#[tokio::test(start_paused = true)]
async fn throttled_messages_are_read_later() {
    let (mut stage, network) = stage(limits(), 1 << 20);
    let mut client = client(network).await;
    for number in 0..230 {
        let text = format!(r#"{{"type":"directMessage","to":"b","message":"{number}"}}"#);
        client.send(Message::text(text)).await.unwrap();
    }
    for number in 0..230 {
        let Some(Command::Message(Incoming {
            message: Ok(ClientMessage::DirectMessage { message, .. }),
            ..
        })) = stage.commands.recv().await
        else {
            panic!("message {number} is lost")
        };
        assert_eq!(message.as_json(), format!("\"{number}\""));
    }
    assert!(stage.metrics.throttled.get() >= 1);
}

/// Each throttled socket held its last message, up to 8 MiB inflated from a few kilobytes.
#[tokio::test(start_paused = true)]
async fn message_is_delivered_before_its_tokens_are_paid() {
    let message_burst = NonZeroU32::new(2).unwrap();
    let (mut stage, network) = stage(ConnectionLimits { message_burst, ..limits() }, 1 << 20);
    let mut client = client(network).await;
    for _ in 0..4 {
        client.send(Message::text(r#"{"type":"heartbeat"}"#)).await.unwrap();
    }
    let start = now();
    let mut arrived = Vec::new();
    for _ in 0..4 {
        assert_eq!(kind(stage.commands.recv().await), "heartbeat");
        arrived.push(start.elapsed().as_millis() / 10);
    }
    assert_eq!(arrived, [0, 0, 0, 2], "50 a second");
}

/// A few kilobytes, compressed, made the server inflate and read 8 MiB, and counted as one message.
#[tokio::test(start_paused = true)]
async fn a_long_message_counts_as_several() {
    let message_burst = NonZeroU32::new(20).unwrap();
    let limits = ConnectionLimits { message_bytes: 1 << 20, message_burst, ..limits() };
    let (ours, theirs) = duplex(1 << 21);
    let mut stage = stage_with(ours, &Arrivals::new(1 << 20), limits, MessageLimits::default());
    let mut client = client(theirs).await;
    let long = format!(r#"{{"type":"heartbeat","and":"{}"}}"#, "x".repeat(10 * BYTES_A_TOKEN));
    for is_throttled in [false, true] {
        client.send(Message::text(&long)).await.unwrap();
        assert_eq!(kind(stage.commands.recv().await), "heartbeat");
        assert_eq!(stage.metrics.throttled.get() > 0, is_throttled);
    }
}

/// Millions of frames of an endless message were read as fast as they came, for no token.
#[tokio::test(start_paused = true)]
async fn empty_frames_are_charged_as_they_arrive() {
    let (mut stage, network) = stage(limits(), 1 << 16);
    let (mut hear, mut say) = tokio::io::split(network);
    let sent = std::cell::Cell::new(0);
    // A first frame of a text, then empty ones that continue it, each masked with zeros.
    let flood = async {
        let mut frames = [0x00, 0x80, 0, 0, 0, 0].repeat(1000);
        frames[0] = 0x01;
        loop {
            say.write_all(&frames).await.unwrap();
            frames[0] = 0x00;
            sent.set(sent.get() + 1000);
        }
    };
    let mut close_frame = [0; 2];
    tokio::select! {
        () = flood => {}
        read = hear.read_exact(&mut close_frame) => assert_eq!(read.unwrap(), 2),
    }
    let sent = sent.get();
    assert_eq!(close_frame[0], 0x88);
    drop((hear, say));
    assert_eq!(kind(stage.commands.recv().await), "gone");
    assert_eq!(closes(&stage.metrics, "too_fast"), 1);
    // 60 s of 50 tokens and a burst of 200, 16 frames each; and the data buffered in the network.
    assert!((50_000..90_000).contains(&sent), "{sent}");
}

#[tokio::test]
async fn throttled_too_long_socket_is_closed() {
    let limits = ConnectionLimits { throttled_time: Duration::from_millis(30), ..limits() };
    let (mut stage, network) = stage(limits, 1 << 20);
    let (mut say, mut hear) = client(network).await.split();
    let flood = async { while say.send(Message::text(r#"{"type":"heartbeat"}"#)).await.is_ok() {} };
    let drain = async { while kind(stage.commands.recv().await) != "gone" {} };
    let close = async {
        loop {
            if let Some(Ok(Message::Close(close))) = hear.next().await {
                break close.unwrap().code;
            }
        }
    };
    let (_, (), code) = tokio::join!(flood, drain, close);
    assert_eq!(u16::from(code), 1008);
}

/// The debt had no timer, so that nothing more was ever read.
#[tokio::test(start_paused = true)]
async fn late_charge_is_paid_in_time() {
    let (ours, theirs) = duplex(1 << 16);
    let metrics = Metrics::new();
    let session = EchoSession::default();
    let _connection = spawn(ours, session, &Arrivals::new(1 << 20), limits(), &metrics);
    let mut client = client(theirs).await;
    let start = now();
    for text in ["charge", "charge", "after it"] {
        client.send(Message::text(text)).await.unwrap();
        while client.next().await.unwrap().unwrap() != Message::text(text) {}
    }
    assert!((2..8).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
}
