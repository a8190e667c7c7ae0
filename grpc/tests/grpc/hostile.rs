//! Peers that send anything: every call ends, nothing panics.

use std::sync::Arc;

use futures::join;
use quickcheck::{Arbitrary, Gen, quickcheck};
use tikv_grpc::Call;
use tikv_grpc::server::{Router, ServerOptions, serve_connection, unary};
use tokio::io::AsyncWriteExt;

use crate::harness::script::{DATA, GOAWAY, HEADERS, RST_STREAM, SETTINGS, Script};
use crate::harness::{options, pipe, run};

const METHOD: &str = "/test.Test/Method";

/// What a peer does next.
#[derive(Clone, Debug)]
enum Step {
    Headers(u8),
    Data(u8, Vec<u8>),
    Trailers(u8, u8),
    Reset(u8, u8),
    GoAway(u8, u8),
    /// Any frame of a known kind.
    Frame(u8, u8, u8, Vec<u8>),
    Bytes(Vec<u8>),
}

impl Arbitrary for Step {
    fn arbitrary(g: &mut Gen) -> Self {
        let stream = *g.choose(&[1, 1, 1, 3, 3, 0, 2, 5]).unwrap_or(&1);
        let byte = u8::arbitrary(g);
        match byte % 16 {
            0..=3 => Step::Headers(stream),
            4..=7 => Step::Data(stream, message(g)),
            8..=9 => Step::Trailers(stream, u8::arbitrary(g) % 20),
            10 => Step::Reset(stream, u8::arbitrary(g) % 16),
            11 => Step::GoAway(stream, u8::arbitrary(g) % 16),
            12..=14 => Step::Frame(u8::arbitrary(g) % 10, u8::arbitrary(g), stream, Vec::arbitrary(g)),
            _ => Step::Bytes(Vec::arbitrary(g)),
        }
    }

    fn shrink(&self) -> Box<dyn Iterator<Item = Self>> {
        quickcheck::empty_shrinker()
    }
}

/// Often a message, or a part of one.
fn message(g: &mut Gen) -> Vec<u8> {
    let payload = Vec::<u8>::arbitrary(g);
    let len = payload.len() as u8;
    match u8::arbitrary(g) % 4 {
        0 => payload,
        1 => [&[0, 0, 0, 0, len.wrapping_add(1)][..], &payload].concat(),
        _ => [&[0, 0, 0, 0, len][..], &payload].concat(),
    }
}

async fn play(script: &mut Script, steps: Vec<Step>, headers: impl AsyncFn(&mut Script, u32)) {
    for step in steps {
        match step {
            Step::Headers(stream) => headers(script, stream.into()).await,
            Step::Data(stream, data) => script.write(DATA, 0, stream.into(), &data).await,
            Step::Trailers(stream, status) => script.write_trailers(stream.into(), &status.to_string()).await,
            Step::Reset(stream, code) => script.write(RST_STREAM, 0, stream.into(), &[0, 0, 0, code]).await,
            Step::GoAway(stream, code) => script.write(GOAWAY, 0, 0, &[0, 0, 0, stream, 0, 0, 0, code]).await,
            Step::Frame(kind, flags, stream, payload) => script.write(kind, flags, stream.into(), &payload).await,
            Step::Bytes(bytes) => {
                let _ = script.0.write_all(&bytes).await;
            }
        }
    }
}

quickcheck! {
    fn calls_end_whatever_a_server_sends(steps: Vec<Step>) -> bool {
        run(|tasks| async move {
            let (client_io, server_io) = pipe();
            let client = tasks.connect(client_io, options()).await;
            tasks.spawn(async move {
                let mut script = Script::greet(server_io).await;
                script.read_until(HEADERS).await;
                play(&mut script, steps, Script::write_headers).await;
            });
            let unary = client.unary(Call::new(METHOD), "request".into());
            let stream = async {
                let Ok((mut sender, mut streaming)) = client.bidirectional(Call::new(METHOD)).await else { return };
                let _ = sender.send("request".into());
                while let Ok(Some(_)) = streaming.message().await {
                    let _ = sender.send("more".into());
                }
            };
            let _ = join!(unary, stream);
        });
        true
    }

    fn a_connection_ends_whatever_a_client_sends(steps: Vec<Step>) -> bool {
        run(|_tasks| async move {
            let (mut client_io, server_io) = pipe();
            let router = Router::new().with("/", unary(|message| async move { Ok(message) }));
            let connection = serve_connection(server_io, Arc::new(router), ServerOptions::default());
            let client = async move {
                client_io.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
                let mut script = Script(client_io);
                script.write(SETTINGS, 0, 0, &[]).await;
                play(&mut script, steps, Script::write_request).await;
            };
            let _ = join!(connection, client);
        });
        true
    }
}
