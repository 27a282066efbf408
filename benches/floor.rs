//! Lower bound for a broadcast: the same bytes, written to as many sockets by a bare loop.
//!
//! A server can only save work beyond that. The loop has a thread of its own, whose processor time
//! counts; another thread reads and discards. `satsuma load --pid` measures the server under the same load.

#![expect(clippy::unwrap_used, reason = "a bench may panic")]

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// A room's members, and the bytes of its snapshot on the wire.
const BROADCASTS: [(&str, usize, usize); 6] = [
    ("6 members, plain", 6, 2_900),
    ("100 members, plain", 100, 45_400),
    ("100 members, deflated", 100, 12_300),
    ("200 members, plain", 200, 90_900),
    ("200 members, deflated", 200, 24_500),
    ("1,000 members, deflated", 1_000, 122_000),
];

/// Total bytes for which each broadcast is repeated.
const BYTES: usize = 2_000_000_000;

fn main() {
    // `cargo test --benches` runs this as well, where there is nothing to check.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    println!("broadcast | processor time | a socket | bytes");
    for (name, members, bytes) in BROADCASTS {
        let (mut writers, readers) = connect(members);
        let reader = std::thread::spawn(move || read(readers));
        let payload = vec![b'x'; bytes];
        let rounds = (BYTES / (members * bytes)).clamp(20, 5_000);
        let before = cpu();
        for _ in 0..rounds {
            for writer in &mut writers {
                writer.write_all(&payload).unwrap();
            }
        }
        let took = (cpu() - before).as_secs_f64() / rounds as f64;
        drop(writers);
        reader.join().unwrap();
        println!(
            "{name} | {:.3} ms | {:.1} µs | {:.2} GB/s",
            1e3 * took,
            1e6 * took / members as f64,
            (members * bytes) as f64 / took / 1e9
        );
    }
}

/// Connections over loopback, both ends of each.
fn connect(count: usize) -> (Vec<TcpStream>, Vec<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let pair = |_| {
        let writer = TcpStream::connect(address).unwrap();
        writer.set_nodelay(true).unwrap();
        (writer, listener.accept().unwrap().0)
    };
    (0..count).map(pair).unzip()
}

/// Reads until all writers are closed.
fn read(readers: Vec<TcpStream>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    runtime.block_on(async {
        let tasks: Vec<_> = readers.into_iter().map(|reader| runtime.spawn(forget(reader))).collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

async fn forget(reader: TcpStream) {
    reader.set_nonblocking(true).unwrap();
    let reader = tokio::net::TcpStream::from_std(reader).unwrap();
    let mut buffer = vec![0; 1 << 16];
    loop {
        reader.readable().await.unwrap();
        match reader.try_read(&mut buffer) {
            Ok(0) => return,
            Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => panic!("{error}"),
            _ => {}
        }
    }
}

/// The processor time of this thread.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
