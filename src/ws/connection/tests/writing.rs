//! Writing: stalls, streams that buffer, and the end of slow readers.

use super::*;

#[tokio::test(start_paused = true)]
async fn only_a_stalled_client_is_closed() {
    let (mut stage, mut network) = stage(limits(), 1000);
    stage.outbox.push(now(), &of_bytes(10_000), None).unwrap();
    let mut taken = [0; 100];
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_secs(19)).await;
        network.read_exact(&mut taken).await.unwrap();
    }
    assert!(!stage.connection.is_finished());
    let start = now();
    assert_eq!(kind(stage.commands.recv().await), "gone");
    assert!((19..=20).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    assert_eq!(closes(&stage.metrics, "stalled"), 1);
}

/// Data that a TLS stream had encrypted, and that the network did not take at once, stayed in
/// the stream until the next message.
#[tokio::test(start_paused = true)]
async fn buffering_stream_is_flushed() {
    let (ours, mut network) = duplex(100);
    let stage = stage_on(BufWriter::with_capacity(5000, ours), limits());
    stage.outbox.push(now(), &of_bytes(996), None).unwrap();
    let mut taken = [0; 1000];
    let arrived = tokio::time::timeout(Duration::from_secs(19), network.read_exact(&mut taken));
    arrived.await.expect("all of it arrives").unwrap();
    // Nothing is queued any more, so nothing can stall.
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!stage.connection.is_finished());
}

#[tokio::test(start_paused = true)]
async fn stalled_client_of_buffering_stream_is_closed() {
    let (ours, _network) = duplex(100);
    let mut stage = stage_on(BufWriter::with_capacity(5000, ours), limits());
    stage.outbox.push(now(), &of_bytes(996), None).unwrap();
    let start = now();
    let end = tokio::time::timeout(Duration::from_secs(60), stage.commands.recv()).await;
    assert_eq!(kind(end.expect("an end")), "gone");
    assert_eq!(start.elapsed().as_secs(), 20);
    assert_eq!(closes(&stage.metrics, "stalled"), 1);
}

/// A client that took a few bytes now and then had its socket long after its membership had ended.
#[tokio::test(start_paused = true)]
async fn slow_reader_is_closed_at_its_end_deadline() {
    let (mut stage, mut network) = stage(limits(), 1000);
    stage.outbox.push(now(), &of_bytes(200_000), None).unwrap();
    let (start, mut taken) = (now(), [0; 100]);
    let trickle = async {
        loop {
            tokio::time::sleep(Duration::from_secs(5)).await;
            if network.read_exact(&mut taken).await.is_err() {
                break;
            }
            if start.elapsed() == Duration::from_secs(100) {
                stage.outbox.close(Close::TimedOut);
            }
        }
    };
    let gone = async { assert_eq!(kind(stage.commands.recv().await), "gone") };
    tokio::select! {
        () = trickle => {}
        () = gone => {}
    }
    assert!((120..=121).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    assert_eq!(closes(&stage.metrics, "stalled"), 1);
}
