//! Back-pressure: much data through small windows and small buffers.

use std::sync::Arc;

use bytes::Bytes;
use futures::poll;
use tikv_grpc::server::{Handler, IncomingCall, Responder, ServerOptions, serve_connection};
use tikv_grpc::{Call, Options, Status};

use crate::harness::raw::RawServer;
use crate::harness::{Tasks, options, pipe, run, settle};

const METHOD: &str = "/tikvpb.Tikv/Coprocessor";
const MESSAGE: usize = 1 << 20;
const MESSAGES: usize = 64;

/// Sends back what it gets, message by message, with back-pressure.
fn echo(mut call: IncomingCall, mut responder: Responder) -> Handler {
    Box::pin(async move {
        let status = async {
            while let Some(message) = call.requests.message().await? {
                responder.ready().await?;
                responder.send(message)?;
            }
            Ok::<(), Status>(())
        };
        let status = status.await.err().unwrap_or_else(Status::ok);
        responder.finish(status);
    })
}

fn serve(tasks: &Tasks, io: tokio::io::DuplexStream, options: ServerOptions) {
    let connection = serve_connection(io, Arc::new(echo), options);
    tasks.spawn(async move {
        connection.await.unwrap();
    });
}

fn message(number: usize) -> Bytes {
    vec![number as u8; MESSAGE + number].into()
}

#[test]
fn sixty_four_mebibytes_pass_a_small_window_in_both_directions() {
    run(|tasks| async move {
        let (client_io, server_io) = pipe();
        let small = 64 << 10;
        let window = ServerOptions {
            stream_window: small,
            connection_window: small,
            max_frame_size: 1 << 14,
            ..Default::default()
        };
        serve(&tasks, server_io, window);
        let window = Options { stream_window: small, connection_window: small, max_frame_size: 1 << 14, ..options() };
        let client = tasks.connect(client_io, window).await;
        let (mut sender, mut streaming) = client.bidirectional(Call::new(METHOD)).await.unwrap();
        tasks.spawn(async move {
            for number in 0..MESSAGES {
                sender.ready().await.unwrap();
                sender.send(message(number)).unwrap();
            }
            sender.finish().unwrap();
        });
        for number in 0..MESSAGES {
            assert!(streaming.message().await.unwrap().unwrap() == message(number));
        }
        assert_eq!(streaming.message().await, Ok(None));
    });
}

#[test]
fn who_does_not_receive_holds_the_sender_back() {
    run(|tasks| async move {
        let (client_io, server_io) = pipe();
        let server = RawServer::serve(&tasks, server_io);
        let client = tasks.connect(client_io, Options { send_buffer: 1000, ..options() }).await;
        settle().await;
        let (mut sender, _streaming) = client.bidirectional(Call::new(METHOD)).await.unwrap();
        let mut call = server.accept().await;
        let mut sent = 0;
        while poll!(Box::pin(sender.ready())).is_ready() {
            sender.send(vec![7; 995].into()).unwrap();
            sent += 1000;
            settle().await;
        }
        // The window is full, and at most one message more than the buffer's limit waits.
        assert!((65_535..=65_535 + 2000).contains(&sent), "{sent}");
        let mut received = 0;
        while received < 40_000 {
            received += call.read().await.len();
        }
        sender.ready().await.unwrap();
    });
}

#[test]
fn a_stream_that_is_held_back_does_not_hold_back_another() {
    run(|tasks| async move {
        let (client_io, server_io) = pipe();
        serve(&tasks, server_io, ServerOptions { stream_window: 1 << 16, ..Default::default() });
        let client = tasks.connect(client_io, Options { stream_window: 1 << 16, ..options() }).await;
        let (mut held, _not_read) = client.bidirectional(Call::new(METHOD)).await.unwrap();
        for _ in 0..100 {
            if poll!(Box::pin(held.ready())).is_pending() {
                break;
            }
            held.send(vec![1; 100_000].into()).unwrap();
            settle().await;
        }
        assert!(poll!(Box::pin(held.ready())).is_pending());
        let reply = client.unary(Call::new(METHOD), vec![2; 300_000].into()).await.unwrap();
        assert!(reply.message == vec![2; 300_000]);
    });
}
