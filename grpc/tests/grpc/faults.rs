//! What a call reports when something breaks, and whether its request may have been executed.

use std::sync::Arc;

use futures::poll;
use h2::Reason;
use tikv_grpc::server::{Router, ServerOptions, serve_connection, unary};
use tikv_grpc::{Call, Channel, Code, Connection, ConnectionError, Error, ErrorKind, Options};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::raw::{RawServer, framed, ok};
use crate::harness::script::{HEADERS, RST_STREAM, Script};
use crate::harness::{options, pipe, run, settle};

const GET: &str = "/tikvpb.Tikv/RawGet";

async fn get(channel: &Channel) -> Error {
    channel.unary(Call::new(GET), "key".into()).await.unwrap_err()
}

#[test]
fn a_peer_that_does_not_speak_http2_is_a_protocol_violation() {
    run(|tasks| async move {
        let (client_io, mut server_io) = pipe();
        let client = tasks.connect(client_io, options()).await;
        tasks.spawn(async move {
            server_io.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").await.unwrap();
            let _ = server_io.read_to_end(&mut Vec::new()).await;
        });
        let error = get(&client).await;
        assert!(matches!(error.kind(), ErrorKind::Connection(ConnectionError::Protocol(_))), "{error:?}");
        assert_eq!(error.code(), Code::Unavailable);
        settle().await;
        assert!(matches!(client.end(), Some(ConnectionError::Protocol(_))), "{:?}", client.end());
        assert!(get(&client).await.not_sent());
    });
}

#[test]
fn a_connection_lost_within_a_response_leaves_the_request_perhaps_executed() {
    run(|tasks| async move {
        let (client_io, server_io) = pipe();
        let client = tasks.connect(client_io, options()).await;
        tasks.spawn(async move {
            let mut script = Script::greet(server_io).await;
            script.read_until(HEADERS).await;
            script.write_headers(1).await;
            script.write_data(1, &framed("a value that")[..9]).await;
        });
        let error = get(&client).await;
        assert_eq!(*error.kind(), ErrorKind::Connection(ConnectionError::ClosedByPeer));
        assert!(error.may_have_been_executed() && error.is_connection());
        settle().await;
        assert!(client.is_closed());
        assert_eq!(client.close_reason(), Some(ConnectionError::ClosedByPeer));
        let later = get(&client).await;
        assert_eq!(*later.kind(), ErrorKind::Connection(ConnectionError::ClosedByPeer));
        assert!(later.not_sent(), "nothing can be sent on a connection that is closed");
    });
}

#[test]
fn messages_that_arrived_before_the_connection_was_lost_are_received() {
    run(|tasks| async move {
        let (client_io, server_io) = pipe();
        let client = tasks.connect(client_io, options()).await;
        tasks.spawn(async move {
            let mut script = Script::greet(server_io).await;
            script.read_until(HEADERS).await;
            script.write_headers(1).await;
            script.write_data(1, &[framed("one"), framed("two")].concat()).await;
        });
        let mut streaming = client.server_streaming(Call::new(GET), "key".into()).await.unwrap();
        settle().await;
        assert_eq!(streaming.message().await.unwrap().unwrap(), "one");
        assert_eq!(streaming.message().await.unwrap().unwrap(), "two");
        let error = streaming.message().await.unwrap_err();
        assert!(error.is_connection());
        assert_eq!(streaming.message().await.unwrap_err(), error, "an error is no end with OK when asked again");
    });
}

#[test]
fn a_reset_tells_its_reason_and_only_a_refusal_means_not_executed() {
    run(|tasks| async move {
        let (client_io, server_io) = pipe();
        let server = RawServer::serve(&tasks, server_io);
        let client = tasks.connect(client_io, options()).await;
        let table = [
            (Reason::REFUSED_STREAM, Code::Unavailable, true),
            (Reason::CANCEL, Code::Cancelled, false),
            (Reason::INTERNAL_ERROR, Code::Internal, false),
            (Reason::ENHANCE_YOUR_CALM, Code::ResourceExhausted, false),
        ];
        for (reason, code, not_sent) in table {
            let reset = server.clone();
            tasks.spawn(async move {
                reset.accept().await.respond.send_reset(reason);
            });
            let error = get(&client).await;
            assert_eq!(*error.kind(), ErrorKind::Reset(reason.into()));
            assert_eq!((error.code(), error.not_sent()), (code, not_sent));
        }
        assert!(!client.is_closed(), "a reset concerns its stream alone");
        assert_eq!(client.calls(), 0);
    });
}

#[test]
fn a_reset_within_a_response_is_no_end() {
    run(|tasks| async move {
        let (client_io, server_io) = pipe();
        let server = RawServer::serve(&tasks, server_io);
        let client = tasks.connect(client_io, options()).await;
        tasks.spawn(async move {
            let mut call = server.accept().await;
            let mut answer = call.respond();
            answer.send_data(framed("one"), false).unwrap();
            settle().await;
            answer.send_reset(Reason::INTERNAL_ERROR);
        });
        let mut streaming = client.server_streaming(Call::new(GET), "key".into()).await.unwrap();
        assert_eq!(streaming.message().await.unwrap().unwrap(), "one");
        assert_eq!(*streaming.message().await.unwrap_err().kind(), ErrorKind::Reset(Reason::INTERNAL_ERROR.into()));
    });
}

#[test]
fn a_status_before_all_requests_are_read_is_received() {
    run(|tasks| async move {
        let (client_io, server_io) = pipe();
        let client = tasks.connect(client_io, options()).await;
        tasks.spawn(async move {
            let mut script = Script::greet(server_io).await;
            script.read_until(HEADERS).await;
            script.write_headers(1).await;
            script.write_trailers(1, "9").await;
            script.write(RST_STREAM, 0, 1, &0u32.to_be_bytes()).await;
            settle().await;
        });
        let (mut sender, mut streaming) = client.bidirectional(Call::new(GET)).await.unwrap();
        settle().await;
        assert_eq!(streaming.message().await.unwrap_err().code(), Code::FailedPrecondition);
        let error = sender.send("late".into()).unwrap_err();
        assert_eq!((error.kind(), error.not_sent()), (&ErrorKind::Ended, true));
        assert_eq!(sender.ready().await.unwrap_err().kind(), &ErrorKind::Ended);
    });
}

#[test]
fn a_goodbye_spares_the_calls_that_the_server_looks_at() {
    run(|tasks| async move {
        let (client_io, server_io) = pipe();
        let client = tasks.connect(client_io, options()).await;
        tasks.spawn(async move {
            let mut script = Script::greet(server_io).await;
            script.read_until(HEADERS).await;
            script.read_until(HEADERS).await;
            script.write_go_away(1, 0).await;
            script.write_headers(1).await;
            script.write_data(1, &framed("value")).await;
            script.write_trailers(1, "0").await;
            settle().await;
        });
        let mut processed = Box::pin(client.unary(Call::new(GET), "key".into()));
        assert!(poll!(&mut processed).is_pending());
        let refused = get(&client).await;
        assert!(
            matches!(refused.kind(), ErrorKind::Connection(ConnectionError::GoAway { code: 0, .. })),
            "{refused:?}"
        );
        assert!(refused.not_sent(), "the server said that it did not look at this stream");
        assert!(client.is_closed());
        assert!(matches!(client.close_reason(), Some(ConnectionError::GoAway { .. })));
        assert!(get(&client).await.not_sent());
        assert_eq!(processed.await.unwrap().message, "value");
    });
}

#[test]
fn a_call_that_the_server_looked_at_before_its_goodbye_may_have_been_executed() {
    run(|tasks| async move {
        let (client_io, server_io) = pipe();
        let client = tasks.connect(client_io, options()).await;
        tasks.spawn(async move {
            let mut script = Script::greet(server_io).await;
            script.read_until(HEADERS).await;
            script.write_go_away(1, 2).await;
        });
        let error = get(&client).await;
        assert!(error.is_connection());
        assert!(error.may_have_been_executed());
    });
}

#[test]
fn a_server_that_is_killed_before_it_reads_a_request_says_so() {
    run(|tasks| async move {
        let (client_io, server_io) = pipe();
        let server = RawServer::serve(&tasks, server_io);
        let client = tasks.connect(client_io, options()).await;
        settle().await;
        let mut call = Box::pin(get(&client));
        assert!(poll!(&mut call).is_pending());
        server.abort(Reason::NO_ERROR);
        assert!(call.await.not_sent());
    });
}

#[test]
fn a_driver_that_is_dropped_closes_the_connection() {
    run(|_tasks| async move {
        let (client_io, _server_io) = pipe();
        let (channel, driver) = Connection::handshake(client_io, options()).await.unwrap();
        let mut call = Box::pin(get(&channel));
        assert!(poll!(&mut call).is_pending());
        drop(driver);
        let error = call.await;
        assert_eq!(*error.kind(), ErrorKind::Connection(ConnectionError::Closed));
        assert!(error.may_have_been_executed(), "it was handed over, and nobody knows how far it got");
        assert_eq!(channel.close_reason(), Some(ConnectionError::Closed));
        assert!(get(&channel).await.not_sent());
    });
}

#[test]
fn closing_a_channel_fails_the_calls_of_its_clones() {
    run(|tasks| async move {
        let (client_io, server_io) = pipe();
        let server = RawServer::serve(&tasks, server_io);
        let client = tasks.connect(client_io, options()).await;
        let mut streaming = client.server_streaming(Call::new(GET), "key".into()).await.unwrap();
        let _call = server.accept().await;
        client.channel.clone().close();
        let error = streaming.message().await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Connection(ConnectionError::Closed));
        assert_eq!(client.end(), Some(ConnectionError::Closed));
    });
}

#[test]
fn a_connection_ends_with_its_last_channel_and_call() {
    run(|tasks| async move {
        let (client_io, server_io) = pipe();
        let server = RawServer::serve(&tasks, server_io);
        let (channel, driver) = Connection::handshake(client_io, options()).await.unwrap();
        let mut driver = Box::pin(driver);
        let mut streaming = channel.clone().server_streaming(Call::new(GET), "key".into()).await.unwrap();
        drop(channel);
        let ended = async {
            let mut answer = server.accept().await.respond();
            answer.send_data(framed("value"), false).unwrap();
            answer.send_trailers(ok()).unwrap();
            assert_eq!(streaming.message().await.unwrap().unwrap(), "value");
            assert_eq!(streaming.message().await, Ok(None));
        };
        let (reason, ()) = futures::join!(&mut driver, ended);
        assert_eq!(reason, ConnectionError::Closed);
    });
}

#[test]
fn what_cannot_be_sent_is_refused_before_it_is_sent() {
    run(|tasks| async move {
        let (client_io, server_io) = pipe();
        let server = RawServer::serve(&tasks, server_io);
        let client = tasks.connect(client_io, Options { max_send_message: 10, ..options() }).await;
        let foreign = Call { authority: Some("no authority".into()), ..Call::new(GET) };
        for call in [Call::new("no slash"), Call::new("/a b"), Call::new(String::from("/\u{7f}")), foreign] {
            let error = client.unary(call.clone(), "key".into()).await.unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::InvalidCall(_)), "{call:?}: {error:?}");
            assert!(error.not_sent());
        }
        let too_long = ErrorKind::MessageTooLarge { len: 11, limit: 10 };
        let error = client.unary(Call::new(GET), vec![0; 11].into()).await.unwrap_err();
        assert_eq!((error.kind(), error.not_sent()), (&too_long, true));
        let (mut sender, _streaming) = client.bidirectional(Call::new(GET)).await.unwrap();
        let error = sender.send(vec![0; 11].into()).unwrap_err();
        assert_eq!((error.kind(), error.not_sent()), (&too_long, true));
        let mut batch = sender.batch();
        batch.push("short".into());
        batch.push(vec![0; 11].into());
        assert_eq!(*sender.send_batch(batch).unwrap_err().kind(), too_long);
        sender.send("fits".into()).unwrap();
        assert_eq!(server.accept().await.read().await, framed("fits"), "of what was refused nothing was sent");
    });
}

#[test]
fn options_that_cannot_be_sent_are_refused() {
    run(|_tasks| async move {
        for options in [Options::new("no authority"), Options { user_agent: "\n".into(), ..options() }] {
            let error = Connection::handshake(pipe().0, options).await.map(drop).unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::InvalidCall(_)));
            assert!(error.not_sent());
        }
    });
}

#[test]
fn calls_beyond_the_servers_limit_wait_their_turn_without_being_sent() {
    run(|tasks| async move {
        let (client_io, server_io) = pipe();
        let server = RawServer::serve_with(&tasks, server_io, h2::server::Builder::new().max_concurrent_streams(1));
        let client = tasks.connect(client_io, Options { max_queued_calls: 2, ..options() }).await;
        settle().await;
        let mut first = Box::pin(get_ok(&client));
        let mut given_up = Box::pin(get_ok(&client));
        let mut third = Box::pin(client.unary(Call::new(GET), "third".into()));
        assert!(poll!(&mut first).is_pending() && poll!(&mut given_up).is_pending() && poll!(&mut third).is_pending());
        let refused = get(&client).await;
        assert_eq!((refused.kind(), refused.not_sent()), (&ErrorKind::TooManyCalls(2), true));
        assert_eq!(client.calls(), 1);

        drop(given_up);
        let mut call = server.accept().await;
        settle().await;
        assert!(server.is_idle());
        call.respond_trailers_only(&[("grpc-status", "5")]);
        assert_eq!(first.await.unwrap_err().code(), Code::NotFound);
        drop(call);
        assert!(poll!(&mut third).is_pending());
        assert_eq!(server.accept().await.read_to_end().await, framed("third"));
    });
}

#[test]
fn calls_that_wait_for_a_stream_when_the_connection_is_lost_were_not_sent() {
    run(|tasks| async move {
        let (client_io, server_io) = pipe();
        let server = RawServer::serve_with(&tasks, server_io, h2::server::Builder::new().max_concurrent_streams(1));
        let client = tasks.connect(client_io, options()).await;
        settle().await;
        let mut sent = Box::pin(get(&client));
        let mut waiting = Box::pin(get(&client));
        assert!(poll!(&mut sent).is_pending() && poll!(&mut waiting).is_pending());
        let _call = server.accept().await;
        client.close();
        let waiting = waiting.await;
        assert!(waiting.not_sent() && waiting.is_connection());
        assert!(sent.await.may_have_been_executed());
    });
}

async fn get_ok(channel: &Channel) -> Result<(), Error> {
    channel.unary(Call::new(GET), "key".into()).await.map(drop)
}

#[test]
fn every_call_gets_its_turn_although_the_server_allows_one_at_a_time() {
    run(|tasks| async move {
        let (client_io, server_io) = pipe();
        let router = Router::new().with(GET, unary(|message| async move { Ok(message) }));
        let options_of_server = ServerOptions { max_concurrent_streams: 1, ..Default::default() };
        let connection = serve_connection(server_io, Arc::new(router), options_of_server);
        tasks.spawn(async move {
            connection.await.unwrap();
        });
        let client = tasks.connect(client_io, options()).await;
        get_ok(&client).await.unwrap();
        let calls = (0..300).map(|_| get_ok(&client));
        let answers = futures::future::join_all(calls).await;
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    });
}
