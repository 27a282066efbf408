//! The keep-alive of sockets whose clients may be silent.

use super::*;

const KEEP_ALIVE: KeepAlive =
    KeepAlive { ping_after: Duration::from_secs(40), close_after: Duration::from_secs(60) };

fn limits_with_keep_alive() -> ConnectionLimits {
    ConnectionLimits { keep_alive: Some(KEEP_ALIVE), ..limits() }
}

/// The close code of the next frame, if it is a close.
async fn close_code(client: &mut WebSocketStream<DuplexStream>) -> Option<u16> {
    match client.next().await {
        Some(Ok(Message::Close(Some(frame)))) => Some(frame.code.into()),
        other => panic!("no close: {other:?}"),
    }
}

/// The network keeps the frames, and the client answers no ping.
#[tokio::test(start_paused = true)]
async fn silent_client_is_pinged_then_closed() {
    let (stage, mut network) = stage(limits_with_keep_alive(), 1 << 16);
    let start = now();
    let mut ping = [0; 2];
    network.read_exact(&mut ping).await.unwrap();
    assert_eq!((ping, start.elapsed().as_secs()), ([0x89, 0], 40));
    let mut close = [0; 4];
    network.read_exact(&mut close).await.unwrap();
    assert_eq!((close[0], u16::from_be_bytes([close[2], close[3]])), (0x88, 1002));
    assert_eq!(start.elapsed().as_secs(), 60);
    stage.connection.await.unwrap();
    assert_eq!(closes(&stage.metrics, "idle"), 1);
}

#[tokio::test(start_paused = true)]
async fn answered_pings_keep_a_socket_open() {
    let (stage, network) = stage(limits_with_keep_alive(), 1 << 16);
    let mut client = client(network).await;
    let start = now();
    for number in 1..=10 {
        // The library answers it with the next read.
        assert!(matches!(client.next().await, Some(Ok(Message::Ping(_)))));
        assert_eq!(start.elapsed().as_secs(), 40 * number);
    }
    drop(client);
    stage.connection.await.unwrap();
    assert_eq!(closes(&stage.metrics, "connection_lost"), 1);
}

#[tokio::test(start_paused = true)]
async fn any_frame_is_a_sign_of_life() {
    let (mut stage, network) = stage(limits_with_keep_alive(), 1 << 16);
    let mut client = client(network).await;
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_secs(39)).await;
        client.send(Message::text(r#"{"type":"heartbeat"}"#)).await.unwrap();
        assert_eq!(kind(stage.commands.recv().await), "heartbeat");
    }
    let waiting = tokio::time::timeout(Duration::from_secs(39), client.next());
    assert!(waiting.await.is_err(), "no ping was due");
}

/// A client that is not read cannot be heard.
#[tokio::test(start_paused = true)]
async fn unread_client_is_not_closed_as_silent() {
    let (mut stage, network) = stage(limits_with_keep_alive(), 1 << 16);
    let mut client = client(network).await;
    let long = || Incoming {
        connection: ID,
        message: Ok(ClientMessage::Heartbeat),
        bytes: 4 << 20,
        permit: None,
        reply: None,
    };
    stage.mailbox.try_deliver(long(), None).unwrap();
    // Without space in the room nothing is read.
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert!(!stage.connection.is_finished());
    drop(stage.commands.recv().await);
    assert!(matches!(client.next().await, Some(Ok(Message::Ping(_)))), "it is heard again");
    drop(client);
    stage.connection.await.unwrap();
    assert_eq!(closes(&stage.metrics, "connection_lost"), 1);
}

#[tokio::test(start_paused = true)]
async fn socket_without_keep_alive_may_be_silent() {
    let (stage, network) = stage(limits(), 1 << 16);
    let mut client = client(network).await;
    assert!(tokio::time::timeout(Duration::from_secs(3600), client.next()).await.is_err());
    assert!(!stage.connection.is_finished());
    drop(client);
    stage.connection.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn enveloped_message_is_one_frame() {
    let (ours, theirs) = duplex(1 << 16);
    let metrics = Metrics::new();
    let mut session = EchoSession::default();
    let payload =
        Payload { bytes: r#"{"type":"chat"}"#.into(), encoding: Encoding::Identity, kind: MessageKind::Chat };
    session.output.push_back(Output::Enveloped { head: "[null,".to_owned(), payload, tail: "]" });
    session.output.push_back(Output::Reply("[1]".to_owned()));
    session.output.push_back(Output::Close(Close::Unreadable));
    let _connection = spawn(ours, session, &Arrivals::new(1 << 20), limits(), &metrics);
    let mut client = client(theirs).await;
    assert_eq!(client.next().await.unwrap().unwrap(), Message::text(r#"[null,{"type":"chat"}]"#));
    assert_eq!(client.next().await.unwrap().unwrap(), Message::text("[1]"));
    assert_eq!(close_code(&mut client).await, Some(1011));
}
