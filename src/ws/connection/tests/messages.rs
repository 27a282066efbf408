//! Messages, confirmations, and the ways in which a socket ends.

use super::*;

#[tokio::test(start_paused = true)]
async fn events_are_confirmed_by_the_clients_pong() {
    let (stage, network) = stage(limits(), 1 << 20);
    let mut client = client(network).await;
    stage.outbox.push(now(), &message("event"), None).unwrap();
    assert_eq!(client.next().await.unwrap().unwrap(), Message::text("event"));
    assert_ne!(stage.outbox.event_bytes(), 0, "written is not arrived");
    assert!(client.next().await.unwrap().unwrap().is_ping());
    client.flush().await.unwrap();
    while stage.outbox.event_bytes() > 0 {
        tokio::task::yield_now().await;
    }
}

/// The answer was delayed until the next write or read.
#[tokio::test(start_paused = true)]
async fn a_ping_is_answered_at_once() {
    let (_stage, network) = stage(limits(), 1 << 20);
    let mut client = client(network).await;
    for payload in ["one", "two"] {
        client.send(Message::Ping(payload.into())).await.unwrap();
        let pong = tokio::time::timeout(Duration::from_secs(1), client.next()).await.expect("an answer");
        assert_eq!(pong.unwrap().unwrap(), Message::Pong(payload.into()));
    }
}

#[tokio::test(start_paused = true)]
async fn after_user_left_nothing_is_read() {
    let (mut stage, network) = stage(limits(), 1 << 20);
    let mut client = client(network).await;
    client.send(Message::text(r#"{"type":"userLeft"}"#)).await.unwrap();
    client.send(Message::text(r#"{"type":"heartbeat"}"#)).await.unwrap();
    assert_eq!(kind(stage.commands.recv().await), "userLeft");
    stage.outbox.close(Close::UserLeft);
    let Some(Ok(Message::Close(Some(close)))) = client.next().await else { panic!("no close frame") };
    assert_eq!((u16::from(close.code), close.reason.as_str()), (1000, "User left"));
    assert!(client.next().await.is_none(), "the server ends the stream once the close is answered");
    assert_eq!(kind(stage.commands.recv().await), "gone");
}

#[tokio::test(start_paused = true)]
async fn overlong_message_closes_but_history_entry_does_not() {
    let (mut stage, network) = stage(limits(), 1 << 20);
    let mut client = client(network).await;
    let long = "x".repeat(3000);
    let entry = format!(r#"{{"type":"callsApiHistoryEntry","entry":{{"endpoint":"/x","body":"{long}"}}}}"#);
    client.send(Message::text(entry)).await.unwrap();
    assert_eq!(kind(stage.commands.recv().await), "callsApiHistoryEntry");
    client.send(Message::text(format!(r#"{{"type":"e2eeMlsMessage","payload":"{long}"}}"#))).await.unwrap();
    let Some(Ok(Message::Close(Some(close)))) = client.next().await else { panic!("no close frame") };
    assert_eq!(u16::from(close.code), 1009);
    drop(client);
    assert_eq!(kind(stage.commands.recv().await), "gone");
}

#[tokio::test(start_paused = true)]
async fn broken_frames_are_closed_with_their_codes() {
    // A text frame whose payload is no UTF-8; one without a mask; one with a reserved bit.
    let frames: [(&[u8], u16, &str); 3] = [
        (&[0x81, 0x81, 0, 0, 0, 0, 0xff], 1007, "invalid_text"),
        (&[0x81, 0x01, b'x'], 1002, "protocol_error"),
        (&[0xc1, 0x81, 0, 0, 0, 0, b'x'], 1002, "protocol_error"),
    ];
    for (frame, code, reason) in frames {
        let (mut stage, mut network) = stage(limits(), 1 << 20);
        network.write_all(frame).await.unwrap();
        let mut head = [0; 4];
        network.read_exact(&mut head).await.unwrap();
        assert_eq!((head[0], u16::from_be_bytes([head[2], head[3]])), (0x88, code));
        drop(network);
        assert_eq!(kind(stage.commands.recv().await), "gone");
        assert_eq!(closes(&stage.metrics, reason), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn messages_before_stream_broke_are_delivered() {
    let (mut stage, network) = stage(limits(), 1 << 20);
    let mut client = client(network).await;
    for _ in 0..6 {
        client.send(Message::text(r#"{"type":"heartbeat"}"#)).await.unwrap();
    }
    client.send(Message::text(r#"{"type":"userLeft"}"#)).await.unwrap();
    drop(client);
    for _ in 0..6 {
        assert_eq!(kind(stage.commands.recv().await), "heartbeat");
    }
    assert_eq!(kind(stage.commands.recv().await), "userLeft");
    stage.outbox.close(Close::UserLeft);
    assert_eq!(kind(stage.commands.recv().await), "gone");
}
