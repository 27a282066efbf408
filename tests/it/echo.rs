//! An echo server on the socket that rooms use: frames can be tested on it without a room's protocol,
//! by our own cases and by Autobahn's.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::task::Poll;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::SEC_WEBSOCKET_EXTENSIONS;
use axum::response::Response;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use satsuma::protocol::close::Close;
use satsuma::protocol::deflate::{Encoding, deflate};
use satsuma::ws::extension::Compression;
use satsuma::ws::socket::{ReadEnd, Received, Socket};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::Bytes;
use tokio_tungstenite::tungstenite::handshake::server::create_response;
use tokio_tungstenite::tungstenite::protocol::frame::coding::Data;
use tokio_util::task::AbortOnDropHandle;

/// A running echo server, stopped on drop.
pub struct Echo {
    pub address: SocketAddr,
    _task: AbortOnDropHandle<()>,
}

impl Echo {
    /// Accepts messages of up to `most` bytes.
    pub async fn start(most: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(move |request| async move { upgrade(request, most) });
        let serve = async move { axum::serve(listener, router).await.unwrap() };
        Self { address, _task: AbortOnDropHandle::new(spawn(serve)) }
    }
}

fn upgrade(request: Request, most: usize) -> Response {
    let (mut parts, _) = request.into_parts();
    let upgrade = parts.extensions.remove::<OnUpgrade>().unwrap();
    let compression = Compression::negotiate(&parts.headers).unwrap();
    let mut response = create_response(&Request::from_parts(parts, ())).unwrap().map(|()| Body::empty());
    if let Some(compression) = compression {
        response.headers_mut().insert(SEC_WEBSOCKET_EXTENSIONS, compression.answer());
    }
    let form = if compression.is_some() { Encoding::Deflate } else { Encoding::Identity };
    drop(spawn(async move {
        // A client may close before the answer arrives, which is no failure.
        if let Ok(stream) = upgrade.await {
            echo(Socket::new(TokioIo::new(stream), most, form), form).await;
        }
    }));
    response
}

async fn echo<S: AsyncRead + AsyncWrite + Unpin>(mut socket: Socket<S>, form: Encoding) {
    loop {
        let received = poll_fn(|context| {
            while socket.wants_write() {
                match socket.poll_write(context) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_)) => return Poll::Ready(Err(ReadEnd::Gone)),
                    Poll::Pending => return Poll::Pending,
                }
            }
            socket.poll_receive(context)
        });
        let (kind, bytes) = match received.await {
            Ok(Received::Text(text)) => (Data::Text, Bytes::from(text)),
            Ok(Received::Binary(bytes)) => (Data::Binary, bytes),
            Ok(Received::Ping | Received::Pong(_) | Received::Piece(_)) => continue,
            Err(ReadEnd::Gone) => return,
            Err(ReadEnd::Closed { .. }) => return end(socket, None).await,
            Err(ReadEnd::Broken(close)) => return end(socket, Some(close)).await,
        };
        match deflate(&bytes).filter(|_| form == Encoding::Deflate) {
            Some(deflated) => socket.queue_message(kind, Encoding::Deflate, deflated.into()),
            None => socket.queue_message(kind, Encoding::Identity, bytes),
        }
    }
}

async fn end<S: AsyncRead + AsyncWrite + Unpin>(mut socket: Socket<S>, close: Option<Close>) {
    if let Some(close) = close {
        socket.queue_close(close);
    }
    let _ = poll_fn(|context| socket.poll_write(context)).await;
    let _ = poll_fn(|context| socket.poll_shutdown(context)).await;
    poll_fn(|context| socket.poll_drain(context)).await;
}

#[expect(
    clippy::disallowed_methods,
    reason = "sockets end with their clients, and the server with its handle"
)]
fn spawn(task: impl Future<Output = ()> + Send + 'static) -> tokio::task::JoinHandle<()> {
    tokio::spawn(task)
}
