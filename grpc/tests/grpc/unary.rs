//! Calls that one message answers, against a server of bare HTTP/2.

use crate::harness::raw::{RawServer, framed, headers, ok};
use crate::harness::{options, pipe, run};
use bytes::Bytes;
use tikv_grpc::{Call, Code, ErrorKind, Options, Scheme};

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

#[test]
fn without_a_grpc_status_the_http_status_speaks() {
    run(|tasks| async move {
        let (client_io, server_io) = pipe();
        let server = RawServer::serve(&tasks, server_io);
        let client = tasks.connect(client_io, options()).await;
        let table = [
            (400, Code::Internal),
            (401, Code::Unauthenticated),
            (403, Code::PermissionDenied),
            (404, Code::Unimplemented),
            (429, Code::Unavailable),
            (502, Code::Unavailable),
            (503, Code::Unavailable),
            (504, Code::Unavailable),
            (500, Code::Unknown),
        ];
        for (http, code) in table {
            for with_body in [false, true] {
                let proxy = server.clone();
                tasks.spawn(async move {
                    let mut response = http::Response::new(());
                    *response.status_mut() = http::StatusCode::from_u16(http).unwrap();
                    let mut stream = proxy.accept().await.respond.send_response(response, !with_body).unwrap();
                    if with_body {
                        stream.send_data("<html>".into(), true).unwrap();
                    }
                });
                let error = client.unary(Call::new(GET), "key".into()).await.unwrap_err();
                assert_eq!(error.status().unwrap().code, code, "{http}");
            }
        }
    });
}

#[test]
fn a_grpc_status_speaks_whatever_the_http_status_is() {
    run(|tasks| async move {
        let (client_io, server_io) = pipe();
        let server = RawServer::serve(&tasks, server_io);
        let client = tasks.connect(client_io, options()).await;
        tasks.spawn(async move {
            let mut response = http::Response::new(());
            *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
            *response.headers_mut() = headers(&[("grpc-status", "7")]);
            server.accept().await.respond.send_response(response, true).unwrap();
        });
        let error = client.unary(Call::new(GET), "key".into()).await.unwrap_err();
        assert_eq!(error.code(), Code::PermissionDenied);
    });
}

#[test]
fn what_is_no_grpc_is_not_taken_for_it() {
    run(|tasks| async move {
        let (client_io, server_io) = pipe();
        let server = RawServer::serve(&tasks, server_io);
        let client = tasks.connect(client_io, options()).await;
        tasks.spawn(async move {
            // A web page.
            let mut page = server.accept().await.respond_with(&[("content-type", "text/html")]);
            page.send_data("<html>".into(), true).unwrap();
            // A body that ends without trailers.
            let mut cut = server.accept().await.respond();
            cut.send_data(framed("value"), true).unwrap();
            // Trailers without a status.
            let mut silent = server.accept().await.respond();
            silent.send_data(framed("value"), false).unwrap();
            silent.send_trailers(headers(&[("k", "v")])).unwrap();
        });
        for case in ["page", "cut", "silent"] {
            let error = client.unary(Call::new(GET), "key".into()).await.unwrap_err();
            assert_eq!(error.status().map(|status| status.code), Some(Code::Unknown), "{case}: {error:?}");
        }
    });
}

#[test]
fn an_encoding_that_is_not_supported_is_unimplemented() {
    run(|tasks| async move {
        let (client_io, server_io) = pipe();
        let server = RawServer::serve(&tasks, server_io);
        let client = tasks.connect(client_io, options()).await;
        tasks.spawn(async move {
            let mut answer = server.accept().await.respond_with(&[("grpc-encoding", "snappy")]);
            let _ = answer.send_data(framed("value"), false);
            // It announces nothing, and compresses all the same.
            let mut answer = server.accept().await.respond();
            answer.send_data(vec![1, 0, 0, 0, 1, 0].into(), false).unwrap();
            answer.send_trailers(ok()).unwrap();
        });
        let error = client.unary(Call::new(GET), "key".into()).await.unwrap_err();
        assert_eq!((error.kind(), error.code()), (&ErrorKind::UnknownEncoding("snappy".into()), Code::Unimplemented));
        let error = client.unary(Call::new(GET), "key".into()).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::MalformedResponse(_)), "{error:?}");
    });
}

#[test]
fn options_shape_the_request() {
    run(|tasks| async move {
        let (client_io, server_io) = pipe();
        let server = RawServer::serve(&tasks, server_io);
        let shaped = Options { scheme: Scheme::Https, user_agent: "me/1".into(), ..Options::new("pd:2379") };
        let client = tasks.connect(client_io, shaped).await;
        let _first = client.server_streaming(Call::new(GET), "key".into()).await.unwrap();
        let call = server.accept().await;
        assert_eq!(call.request.uri(), "https://pd:2379/tikvpb.Tikv/RawGet");
        assert_eq!(call.header("user-agent"), Some("me/1"));
        let forwarded = Call { authority: Some("other:1".into()), ..Call::new(String::from(GET)) };
        let _second = client.server_streaming(forwarded, "key".into()).await.unwrap();
        assert_eq!(server.accept().await.request.uri(), "https://other:1/tikvpb.Tikv/RawGet");
    });
}
