//! Frames as bytes, for cases that no client library supports.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use tokio::io::{
    AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, DuplexStream, duplex,
    split,
};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::harness::PATIENCE;

/// A frame: the byte with FIN, the reserved bits and the opcode, and the payload without its mask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub first: u8,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn new(first: u8, payload: impl Into<Vec<u8>>) -> Self {
        Self { first, payload: payload.into() }
    }

    /// Its bytes as a client sends them.
    pub fn masked(&self) -> Vec<u8> {
        let mask = [0x37, 0xfa, 0x21, 0x3d];
        let mut bytes = self.head(0x80);
        bytes.extend(mask);
        bytes.extend(self.payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        bytes
    }

    /// Its bytes as a server sends them.
    pub fn unmasked(&self) -> Vec<u8> {
        [self.head(0), self.payload.clone()].concat()
    }

    fn head(&self, mask_bit: u8) -> Vec<u8> {
        match self.payload.len() {
            short @ 0..=125 => vec![self.first, mask_bit | short as u8],
            middle @ 126..=0xffff => {
                [&[self.first, mask_bit | 126], &(middle as u16).to_be_bytes()[..]].concat()
            }
            long => [&[self.first, mask_bit | 127], &(long as u64).to_be_bytes()[..]].concat(),
        }
    }

    /// The next frame of a stream, masked or not.
    pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Self> {
        let mut head = [0; 2];
        stream.read_exact(&mut head).await?;
        let bytes = match head[1] & 0x7f {
            126 => u64::from(stream.read_u16().await?),
            127 => stream.read_u64().await?,
            short => u64::from(short),
        };
        let mut mask = [0; 4];
        if head[1] & 0x80 != 0 {
            stream.read_exact(&mut mask).await?;
        }
        let mut payload = vec![0; usize::try_from(bytes).unwrap()];
        stream.read_exact(&mut payload).await?;
        payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        Ok(Self { first: head[0], payload })
    }
}

/// A client that sends arbitrary bytes.
pub struct Raw {
    stream: BufReader<TcpStream>,
}

impl Raw {
    /// Opens a socket, and returns the head of the answer too; it is a 101.
    pub async fn open(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> (String, Self) {
        let mut stream = BufReader::new(TcpStream::connect(address).await.unwrap());
        let mut request = format!(
            "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        );
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        stream.write_all((request + "\r\n").as_bytes()).await.unwrap();
        let head = timeout(PATIENCE, read_head(&mut stream)).await.unwrap().unwrap();
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        (head, Self { stream })
    }

    pub async fn say(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Sends to a server that may have closed the connection; returns true if it was sent.
    pub async fn try_say(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).await.is_ok()
    }

    /// The next frame; `None` at the end of the stream.
    pub async fn frame(&mut self) -> Option<Frame> {
        timeout(PATIENCE, Frame::read(&mut self.stream)).await.expect("neither a frame nor the end").ok()
    }
}

/// A message as a compressing client sends it.
pub fn deflated(message: &[u8], level: u32, window_bits: u8) -> Vec<u8> {
    let mut payload = Vec::with_capacity(message.len() * 2 + 100);
    let mut deflater = Compress::new_with_window_bits(Compression::new(level), false, window_bits);
    deflater.compress_vec(message, &mut payload, FlushCompress::Sync).unwrap();
    payload.truncate(payload.len() - 4);
    payload
}

/// A payload inflated as by a compressing client, without context takeover.
pub fn inflated(payload: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(payload.len() * 1100 + 1000);
    let payload = [payload, &[0x00, 0x00, 0xff, 0xff]].concat();
    let mut inflater = Decompress::new(false);
    inflater.decompress_vec(&payload, &mut message, FlushDecompress::Sync).unwrap();
    assert_eq!(inflater.total_in() as usize, payload.len());
    message
}

/// A proxy between a client that cannot compress and a server: forwards the client's messages of one frame
/// compressed, and the server's messages inflated.
///
/// The returned stream ends when either side does.
pub fn compressing(network: TcpStream) -> DuplexStream {
    let (near, far) = duplex(64 * 1024);
    let relay = async move {
        let (from_server, mut to_server) = split(network);
        let (from_client, mut to_client) = split(far);
        let (mut from_server, mut from_client) = (BufReader::new(from_server), BufReader::new(from_client));
        let upstream = async {
            pass_head(&mut from_client, &mut to_server).await?;
            loop {
                let mut frame = Frame::read(&mut from_client).await?;
                if matches!(frame.first, 0x81 | 0x82) {
                    frame.payload = deflated(&frame.payload, 6, 15);
                    frame.first |= 0x40;
                }
                to_server.write_all(&frame.masked()).await?;
            }
        };
        let downstream = async {
            pass_head(&mut from_server, &mut to_client).await?;
            loop {
                let mut frame = Frame::read(&mut from_server).await?;
                if frame.first & 0x40 != 0 {
                    frame.payload = inflated(&frame.payload);
                    frame.first &= !0x40;
                }
                to_client.write_all(&frame.unmasked()).await?;
            }
        };
        let _: io::Result<Infallible> = tokio::select! {
            end = upstream => end,
            end = downstream => end,
        };
    };
    #[expect(clippy::disallowed_methods, reason = "it ends with either of its sides")]
    drop(tokio::spawn(relay));
    near
}

async fn pass_head(
    from: &mut (impl AsyncBufReadExt + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
) -> io::Result<()> {
    let head = read_head(from).await?;
    to.write_all(&head).await
}

/// Everything up to the empty line.
async fn read_head(stream: &mut (impl AsyncBufReadExt + Unpin)) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_until(b'\n', &mut head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(head)
}
