//! Whoever drops a part of a call gives the call up, and the server is told.

use std::future::poll_fn;

use futures::poll;
use h2::Reason;
use tikv_grpc::Call;

use crate::harness::raw::{RawCall, RawServer, framed, ok};
use crate::harness::{Client, Tasks, options, pipe, run, settle};

const GET: &str = "/tikvpb.Tikv/RawGet";

async fn client_and_server(tasks: &Tasks) -> (Client, RawServer) {
    let (client_io, server_io) = pipe();
    let server = RawServer::serve(tasks, server_io);
    (tasks.connect(client_io, options()).await, server)
}

async fn expect_cancel(mut call: RawCall) {
    let reset = poll_fn(|cx| call.respond.poll_reset(cx)).await.unwrap();
    assert_eq!(reset, Reason::CANCEL);
}

#[test]
fn dropping_the_future_of_a_call_resets_its_stream() {
    run(|tasks| async move {
        let (client, server) = client_and_server(&tasks).await;
        let mut call = Box::pin(client.unary(Call::new(GET), "key".into()));
        assert!(poll!(&mut call).is_pending());
        let arrived = server.accept().await;
        assert_eq!(client.calls(), 1);
        drop(call);
        assert_eq!(client.calls(), 0);
        expect_cancel(arrived).await;
    });
}

#[test]
fn a_call_that_was_never_polled_is_never_sent() {
    run(|tasks| async move {
        let (client, server) = client_and_server(&tasks).await;
        drop(client.unary(Call::new(GET), "key".into()));
        settle().await;
        assert!(server.is_idle());
    });
}

#[test]
fn dropping_the_receiving_half_resets_the_stream_although_the_sending_half_lives() {
    run(|tasks| async move {
        let (client, server) = client_and_server(&tasks).await;
        let (mut sender, streaming) = client.bidirectional(Call::new(GET)).await.unwrap();
        let arrived = server.accept().await;
        drop(streaming);
        expect_cancel(arrived).await;
        assert!(sender.send("late".into()).is_err());
    });
}

#[test]
fn dropping_the_sending_half_unfinished_resets_the_stream() {
    run(|tasks| async move {
        let (client, server) = client_and_server(&tasks).await;
        let (sender, mut streaming) = client.bidirectional(Call::new(GET)).await.unwrap();
        let arrived = server.accept().await;
        drop(sender);
        expect_cancel(arrived).await;
        assert!(streaming.message().await.is_err());
    });
}

#[test]
fn a_sending_half_that_is_finished_can_be_dropped() {
    run(|tasks| async move {
        let (client, server) = client_and_server(&tasks).await;
        let (sender, streaming) = client.bidirectional(Call::new(GET)).await.unwrap();
        sender.finish().unwrap();
        let mut call = server.accept().await;
        assert_eq!(call.read_to_end().await, b"");
        let mut answer = call.respond();
        answer.send_data(framed("value"), false).unwrap();
        answer.send_trailers(ok()).unwrap();
        assert_eq!(streaming.into_reply().await.unwrap().message, "value");
    });
}

#[test]
fn a_connection_survives_thousands_of_calls_that_are_given_up() {
    run(|tasks| async move {
        let (client_io, server_io) = pipe();
        // Whether a server endures it is its matter.
        let mut builder = h2::server::Builder::new();
        builder.max_pending_accept_reset_streams(usize::MAX);
        let server = RawServer::serve_with(&tasks, server_io, &builder);
        let client = tasks.connect(client_io, options()).await;
        for _ in 0..3000 {
            let mut call = Box::pin(client.unary(Call::new(GET), "key".into()));
            assert!(poll!(&mut call).is_pending());
            // The answer crosses the reset.
            let mut answer = server.accept().await.respond();
            drop(call);
            let _ = answer.send_data(framed("value"), false);
            let _ = answer.send_trailers(ok());
        }
        settle().await;
        assert_eq!((client.end(), client.is_closed(), client.calls()), (None, false, 0));
    });
}
