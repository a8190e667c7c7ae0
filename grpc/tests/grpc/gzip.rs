//! Compressed messages.

use std::sync::Arc;

use tikv_grpc::server::{Router, ServerOptions, serve_connection, unary};
use tikv_grpc::{Call, Code, Encoding, ErrorKind, Options};

use crate::harness::raw::{RawServer, framed, ok};
use crate::harness::{options, pipe, run};

const ECHO: &str = "/test.Test/Echo";

#[test]
fn long_messages_are_compressed_and_short_ones_are_not() {
    run(|tasks| async move {
        let (client_io, server_io) = pipe();
        let server = RawServer::serve(&tasks, server_io);
        let client = tasks.connect(client_io, Options { compression: Encoding::Gzip, ..options() }).await;
        tasks.spawn(async move {
            let mut call = server.accept().await;
            assert_eq!(call.header("grpc-encoding"), Some("gzip"));
            assert_eq!(call.header("grpc-accept-encoding"), Some("gzip,identity"));
            let request = call.read_to_end().await;
            assert_eq!(request[0], 1);
            assert!(request.len() < 1000);
            // The same bytes back, and a message that is not compressed.
            let mut answer = call.respond_with(&[("grpc-encoding", "gzip")]);
            answer.send_data([&request[..], &framed("plain")].concat().into(), false).unwrap();
            answer.send_trailers(ok()).unwrap();
        });
        let mut streaming = client.server_streaming(Call::new(ECHO), vec![7; 100_000].into()).await.unwrap();
        assert!(streaming.message().await.unwrap().unwrap() == vec![7; 100_000]);
        assert_eq!(streaming.message().await.unwrap().unwrap(), "plain");
        assert_eq!(streaming.message().await, Ok(None));
    });
}

#[test]
fn both_halves_understand_each_other() {
    run(|tasks| async move {
        let (client_io, server_io) = pipe();
        let router = Router::new().with(ECHO, unary(|message| async move { Ok(message) }));
        let zipping = ServerOptions { compression: Encoding::Gzip, ..Default::default() };
        let connection = serve_connection(server_io, Arc::new(router), zipping);
        tasks.spawn(async move {
            connection.await.unwrap();
        });
        let client = tasks.connect(client_io, Options { compression: Encoding::Gzip, ..options() }).await;
        for message in [vec![], vec![1], vec![2; 1 << 20]] {
            let reply = client.unary(Call::new(ECHO), message.clone().into()).await.unwrap();
            assert!(reply.message == message);
        }
        let text = "text ".repeat(1000);
        let reply = client.unary_encoded::<String, String>(Call::new(ECHO), &text).await.unwrap();
        assert_eq!(reply.message, text);
    });
}

#[test]
fn a_message_that_grows_beyond_the_limit_is_refused() {
    run(|tasks| async move {
        let (client_io, server_io) = pipe();
        let router = Router::new().with(ECHO, unary(|message| async move { Ok(message) }));
        let limited = ServerOptions { max_receive_message: 10_000, ..Default::default() };
        let connection = serve_connection(server_io, Arc::new(router), limited);
        tasks.spawn(async move {
            connection.await.unwrap();
        });
        let client = tasks.connect(client_io, Options { compression: Encoding::Gzip, ..options() }).await;
        client.unary(Call::new(ECHO), vec![7; 10_000].into()).await.unwrap();
        let error = client.unary(Call::new(ECHO), vec![7; 10_001].into()).await.unwrap_err();
        assert_eq!(error.code(), Code::ResourceExhausted);
    });
}

#[test]
fn a_corrupt_message_is_malformed() {
    run(|tasks| async move {
        let (client_io, server_io) = pipe();
        let server = RawServer::serve(&tasks, server_io);
        let client = tasks.connect(client_io, options()).await;
        tasks.spawn(async move {
            let mut answer = server.accept().await.respond_with(&[("grpc-encoding", "gzip")]);
            answer.send_data(vec![1, 0, 0, 0, 3, 1, 2, 3].into(), false).unwrap();
            answer.send_trailers(ok()).unwrap();
        });
        let error = client.unary(Call::new(ECHO), "".into()).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::MalformedResponse(_)), "{error:?}");
    });
}
