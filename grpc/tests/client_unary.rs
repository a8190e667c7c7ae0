//! Calls that one message answers, against a server of bare HTTP/2.

mod harness;

use bytes::Bytes;
use harness::raw::{RawServer, framed, headers, ok};
use harness::{options, pipe, run};
use tikv_grpc::{Call, Code, ErrorKind};

const GET: &str = "/tikvpb.Tikv/RawGet";

#[test]
fn a_request_is_answered_by_a_message_and_a_status() {
    run(|tasks| async move {
        let (client_io, server_io) = pipe();
        let server = RawServer::serve(&tasks, server_io);
        let client = tasks.connect(client_io, options()).await;
        tasks.spawn(async move {
            let mut call = server.accept().await;
            assert_eq!(call.request.method(), "POST");
            assert_eq!(call.request.uri(), "http://tikv:20160/tikvpb.Tikv/RawGet");
            assert_eq!(call.header("te"), Some("trailers"));
            assert_eq!(call.header("content-type"), Some("application/grpc"));
            assert_eq!(call.header("grpc-timeout"), None);
            assert_eq!(call.read_to_end().await, framed("key"));
            let mut answer = call.respond_with(&[("region", "7")]);
            answer.send_data(framed("value"), false).unwrap();
            answer.send_trailers(headers(&[("grpc-status", "0"), ("took", "1ms")])).unwrap();
        });
        let reply = client.unary(Call::new(GET), "key".into()).await.unwrap();
        assert_eq!(reply.message, "value");
        assert_eq!(reply.headers.get("region"), Some("7"));
        assert_eq!(reply.trailers.get("took"), Some("1ms"));
        assert_eq!(client.calls(), 0);
    });
}

#[test]
fn a_status_behind_the_headers_is_the_error_of_the_call() {
    run(|tasks| async move {
        let (client_io, server_io) = pipe();
        let server = RawServer::serve(&tasks, server_io);
        let client = tasks.connect(client_io, options()).await;
        tasks.spawn(async move {
            let mut answer = server.accept().await.respond();
            let trailers = [("grpc-status", "8"), ("grpc-message", "server%20is%20busy%20%E2%9C%8B"), ("k-bin", "AQI")];
            answer.send_trailers(headers(&trailers)).unwrap();
        });
        let error = client.unary(Call::new(GET), "key".into()).await.unwrap_err();
        let status = error.status().unwrap();
        assert_eq!((status.code, status.message.as_str()), (Code::ResourceExhausted, "server is busy ✋"));
        assert_eq!(status.metadata.get_bin("k-bin"), Some(Bytes::from_static(&[1, 2])));
        assert!(error.may_have_been_executed());
    });
}

#[test]
fn a_status_instead_of_headers_is_the_error_of_the_call() {
    run(|tasks| async move {
        let (client_io, server_io) = pipe();
        let server = RawServer::serve(&tasks, server_io);
        let client = tasks.connect(client_io, options()).await;
        tasks.spawn(async move {
            server.accept().await.respond_trailers_only(&[("grpc-status", "12"), ("grpc-message", "no")]);
        });
        let error = client.unary(Call::new(GET), "key".into()).await.unwrap_err();
        assert_eq!(error.code(), Code::Unimplemented);
        assert_eq!(error.to_string(), "Unimplemented: no");
    });
}

#[test]
fn ok_without_a_message_or_with_two_is_malformed() {
    run(|tasks| async move {
        let (client_io, server_io) = pipe();
        let server = RawServer::serve(&tasks, server_io);
        let client = tasks.connect(client_io, options()).await;
        tasks.spawn(async move {
            for messages in [0, 2] {
                let mut answer = server.accept().await.respond();
                for _ in 0..messages {
                    answer.send_data(framed("value"), false).unwrap();
                }
                answer.send_trailers(ok()).unwrap();
            }
        });
        for _ in [0, 2] {
            let error = client.unary(Call::new(GET), "key".into()).await.unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::MalformedResponse(_)), "{error:?}");
        }
    });
}
