//! What a peer can send on a connection.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use bytes::{BufMut, Bytes};
use tikv_grpc::server::{Router, ServerOptions, serve_connection, unary};
use tikv_grpc::{Call, Connection, Options};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::input::Input;

/// Polls of a connection. Each follows on a wake-up, of which a few per frame are in order.
const MAX_POLLS: usize = 20_000;
/// Longest message that is accepted: what is announced beyond must be refused, not allocated.
const MAX_MESSAGE: usize = 1 << 20;
/// Frames of a story.
const MAX_FRAMES: usize = 64;

/// Arbitrary frames, well-formed or not, from a server or from a client, which then is gone: whatever they are, the other side
/// does not panic, does not spin, and brings every call to its end.
pub fn grpc_frames(data: &[u8]) {
    let mut input = Input::new(data);
    let flags = input.byte();
    let chunk = 1 + usize::from(input.byte());
    if flags & 1 == 0 {
        let script = script(&mut input, &[], &RESPONSE_HEADERS);
        let ended = drive(client(Scripted::new(&script, chunk)));
        assert!(ended, "calls go on although the server is gone");
    } else {
        let script = script(&mut input, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &REQUEST_HEADERS);
        let router = Router::new().with("/a.B/C", unary(|message| async move { Ok(message) }));
        let options = ServerOptions { max_receive_message: MAX_MESSAGE, ..ServerOptions::default() };
        let ended = drive(serve_connection(Scripted::new(&script, chunk), Arc::new(router), options));
        assert!(ended, "a connection goes on although the client is gone");
    }
}

/// A unary call and a stream, until both have ended.
async fn client(io: Scripted) {
    let options = Options { max_receive_message: MAX_MESSAGE, ..Options::new("store:1") };
    let Ok((channel, driver)) = Connection::handshake(io, options).await else { return };
    let unary = async {
        let _ = channel.unary(Call::new("/a.B/C"), Bytes::from_static(b"question")).await;
    };
    let streaming = async {
        let Ok((mut sender, mut streaming)) = channel.bidirectional(Call::new("/a.B/C")).await else { return };
        // The stream may be gone by now.
        let _ = sender.send(Bytes::from_static(b"first"));
        while let Ok(Some(message)) = streaming.message().await {
            assert!(message.len() <= MAX_MESSAGE);
        }
    };
    let calls = futures::future::join(unary, streaming);
    futures::future::join(calls, driver).await;
}

/// Polls for as long as something happens. Whether it came to an end.
fn drive<F: Future>(future: F) -> bool {
    let mut future = pin!(future);
    let woken = Arc::new(Flag(AtomicBool::new(true)));
    let waker = Waker::from(Arc::clone(&woken));
    let mut polls = 0;
    while woken.0.swap(false, Ordering::Relaxed) {
        polls += 1;
        assert!(polls < MAX_POLLS, "spins");
        if future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
            return true;
        }
    }
    false
}

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A peer that sends what is written and then is gone; it takes everything that it is sent.
#[derive(Debug)]
struct Scripted {
    chunks: VecDeque<Bytes>,
}

impl Scripted {
    fn new(script: &[u8], chunk: usize) -> Self {
        Scripted { chunks: script.chunks(chunk).map(Bytes::copy_from_slice).collect() }
    }
}

impl AsyncRead for Scripted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(chunk) = self.chunks.front_mut() {
            let part = chunk.split_to(chunk.len().min(buffer.remaining()));
            buffer.put_slice(&part);
            if chunk.is_empty() {
                self.chunks.pop_front();
            }
        }
        let _ = cx;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Scripted {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Parts of a block of headers, in HPACK without Huffman coding and without the dynamic table.
const RESPONSE_HEADERS: [&[u8]; 7] = [
    b"\x88",                         // :status 200
    b"\x8d",                         // :status 404
    b"\x0f\x10\x10application/grpc", // content-type
    b"\x00\x0bgrpc-status\x010",
    b"\x00\x0bgrpc-status\x0214",
    b"\x00\x0cgrpc-message\x03%41",
    b"\x00\x0dgrpc-encoding\x04gzip",
];
const REQUEST_HEADERS: [&[u8]; 7] = [
    b"\x83\x86\x04\x06/a.B/C\x0f\x10\x10application/grpc\x00\x02te\x08trailers",
    b"\x83",                         // :method POST
    b"\x86",                         // :scheme http
    b"\x04\x06/a.B/C",               // :path
    b"\x0f\x10\x10application/grpc", // content-type
    b"\x00\x0cgrpc-timeout\x0399u",
    b"\x00\x0agrpc-fooo\x01\xff",
];

/// The preface, SETTINGS, and frames as the input wants them.
fn script(input: &mut Input<'_>, preface: &[u8], headers: &[&[u8]]) -> Vec<u8> {
    let mut script = preface.to_vec();
    frame(&mut script, 4, 0, 0, b"");
    for _ in 0..MAX_FRAMES {
        if input.is_empty() {
            break;
        }
        let what = input.byte();
        let (flags, stream) = (input.byte(), [1, 3, 0, 2, 5, 1][usize::from(input.below(6))]);
        match what % 16 {
            0..=4 => {
                let parts = 1 + input.below(4);
                let mut block: Vec<u8> =
                    (0..parts).flat_map(|_| headers[usize::from(input.byte()) % headers.len()].to_vec()).collect();
                block.extend_from_slice(&input.bytes(3));
                frame(&mut script, 1, flags & 0x2d, stream, &block);
            }
            5..=9 => {
                let mut message = Vec::new();
                let (announced, body) = (input.byte(), input.bytes(40));
                message.put_u8(flags >> 6 & 1);
                // Sometimes more is announced than follows, up to all that 32 bits can say.
                message.put_u32(if announced < 200 { body.len() as u32 } else { u32::MAX >> (announced % 32) });
                message.put_slice(&body);
                frame(&mut script, 0, flags & 0x09, stream, &message);
            }
            10 => frame(&mut script, 3, 0, stream, &u32::from(input.byte()).to_be_bytes()),
            11 => frame(&mut script, 7, 0, 0, &[0, 0, 0, input.byte(), 0, 0, 0, input.byte()]),
            12 => frame(&mut script, 8, 0, stream, &[input.byte(), 0, input.byte(), input.byte()]),
            13 => frame(&mut script, 9, flags, stream, &input.bytes(8)),
            14 => frame(&mut script, input.byte() % 12, flags, stream, &input.bytes(24)),
            _ => script.extend_from_slice(&input.bytes(32)),
        }
    }
    script
}

fn frame(script: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    script.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    script.extend_from_slice(&[kind, flags]);
    script.extend_from_slice(&stream.to_be_bytes());
    script.extend_from_slice(payload);
}
