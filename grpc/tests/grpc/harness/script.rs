//! A peer of hand-written frames.

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A peer (mostly a server) that writes what it is told to.
pub(crate) struct Script(pub(crate) DuplexStream);

#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) payload: Vec<u8>,
}

impl Script {
    /// Reads the client's preface and sends SETTINGS.
    pub(crate) async fn greet(mut io: DuplexStream) -> Self {
        let mut preface = [0; 24];
        io.read_exact(&mut preface).await.unwrap();
        assert_eq!(&preface, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        let mut script = Self(io);
        script.write(SETTINGS, 0, 0, &[]).await;
        script
    }

    pub(crate) async fn write(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = length[1..].to_vec();
        frame.extend_from_slice(&[kind, flags]);
        frame.extend_from_slice(&stream.to_be_bytes());
        frame.extend_from_slice(payload);
        // The other side may have had enough.
        let _ = self.0.write_all(&frame).await;
    }

    /// `:status: 200`, `content-type: application/grpc`.
    pub(crate) async fn write_headers(&mut self, stream: u32) {
        let block = [&[0x88][..], &literal("content-type", "application/grpc")].concat();
        self.write(HEADERS, END_HEADERS, stream, &block).await;
    }

    /// `:method: POST`, `:scheme: http`, `:path: /`, `content-type: application/grpc`.
    pub(crate) async fn write_request(&mut self, stream: u32) {
        let block = [&[0x83, 0x86, 0x84][..], &literal("content-type", "application/grpc")].concat();
        self.write(HEADERS, END_HEADERS, stream, &block).await;
    }

    pub(crate) async fn write_trailers(&mut self, stream: u32, status: &str) {
        self.write(HEADERS, END_HEADERS | END_STREAM, stream, &literal("grpc-status", status)).await;
    }

    pub(crate) async fn write_data(&mut self, stream: u32, data: &[u8]) {
        self.write(DATA, 0, stream, data).await;
    }

    pub(crate) async fn write_go_away(&mut self, last_stream: u32, code: u32) {
        self.write(GOAWAY, 0, 0, &[last_stream.to_be_bytes(), code.to_be_bytes()].concat()).await;
    }

    pub(crate) async fn read(&mut self) -> Frame {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await.unwrap();
        let [a, b, c, kind, ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.0.read_exact(&mut payload).await.unwrap();
        Frame { kind, payload }
    }

    /// Reads until a frame of this kind.
    pub(crate) async fn read_until(&mut self, kind: u8) -> Frame {
        loop {
            let frame = self.read().await;
            if frame.kind == kind {
                return frame;
            }
        }
    }
}

/// A header in HPACK, without index and without compression.
fn literal(name: &str, value: &str) -> Vec<u8> {
    let length = |text: &str| u8::try_from(text.len()).unwrap();
    [&[0, length(name)], name.as_bytes(), &[length(value)], value.as_bytes()].concat()
}
