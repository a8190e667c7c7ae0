//! What can move between threads, and be shared by them.

use std::future::Future;
use std::sync::Arc;
use std::thread;

use futures::executor::block_on;
use tikv_grpc::server::{RequestStream, Responder, Router, ServerConnection, ServerHandle, serve_connection, unary};
use tikv_grpc::{Batch, Call, Channel, Connection, Driver, Error, Metadata, Options, Sender, Status, Streaming};
use tokio::io::DuplexStream;

use crate::harness::{options, pipe};

fn is_send<T: Send>() {}
fn is_shared<T: Clone + Send + Sync + 'static>() {}
fn future_is_send<F: Future + Send>(_: impl FnOnce(&'static Channel) -> F) {}

#[test]
fn handles_are_shared_and_halves_of_calls_move_between_threads() {
    is_shared::<Channel>();
    is_shared::<Error>();
    is_shared::<Status>();
    is_shared::<Metadata>();
    is_shared::<Options>();
    is_shared::<Batch>();
    is_shared::<ServerHandle>();
    is_shared::<Router>();
    is_send::<Sender>();
    is_send::<Streaming>();
    is_send::<Responder>();
    is_send::<RequestStream>();
    is_send::<Driver<DuplexStream>>();
    is_send::<ServerConnection<DuplexStream>>();
    future_is_send(|channel| channel.unary(Call::new("/"), "".into()));
    future_is_send(|channel| channel.server_streaming(Call::new("/"), "".into()));
    future_is_send(|channel| channel.bidirectional(Call::new("/")));
    future_is_send(|channel| async { channel.bidirectional(Call::new("/")).await?.1.message().await });
}

#[test]
fn an_error_is_cheap_to_hand_on() {
    assert_eq!(size_of::<Error>(), size_of::<usize>());
    assert!(size_of::<Status>() <= 80);
}

#[test]
fn calls_of_several_threads_share_a_connection() {
    const ECHO: &str = "/test.Test/Echo";
    let (client_io, server_io) = pipe();
    let router = Router::new().with(ECHO, unary(|message| async move { Ok(message) }));
    let (channel, driver) = block_on(Connection::handshake(client_io, options())).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| block_on(serve_connection(server_io, Arc::new(router), Default::default())).unwrap());
        scope.spawn(|| block_on(driver));
        for thread in 0..4 {
            let channel = channel.clone();
            scope.spawn(move || {
                for round in 0..200 {
                    let message = format!("{thread} {round} ").repeat(round);
                    let reply = block_on(channel.unary(Call::new(ECHO), message.clone().into())).unwrap();
                    assert_eq!(reply.message, message);
                }
            });
        }
        // The connection, and with it driver and server, ends with the last channel.
        drop(channel);
    });
}
