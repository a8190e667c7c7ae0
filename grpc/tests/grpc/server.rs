//! Our client and our server together.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::channel::oneshot;
use futures::poll;
use h2::Reason;
use tikv_grpc::server::{
    Handler, IncomingCall, Responder, Router, ServerHandle, ServerOptions, Service, Spawn, serve_connection, unary,
};
use tikv_grpc::{Call, Code, ErrorKind, Metadata, Status};
use tokio::io::DuplexStream;

use crate::harness::{Client, Tasks, options, pipe, run, settle};

const ECHO: &str = "/test.Test/Echo";
const COUNT: &str = "/test.Test/Count";
const CHAT: &str = "/test.Test/Chat";

fn serve(tasks: &Tasks, io: DuplexStream, service: impl Service + 'static, options: ServerOptions) -> ServerHandle {
    let connection = serve_connection(io, Arc::new(service), options);
    let handle = connection.handle();
    tasks.spawn(async move {
        connection.await.unwrap();
    });
    handle
}

async fn connect(tasks: &Tasks, service: impl Service + 'static) -> (Client, ServerHandle) {
    let (client_io, server_io) = pipe();
    let handle = serve(tasks, server_io, service, ServerOptions::default());
    (tasks.connect(client_io, options()).await, handle)
}

fn count(mut call: IncomingCall, mut responder: Responder) -> Handler {
    Box::pin(async move {
        let to = call.requests.single().await.map(|message| message.len());
        let Ok(to) = to else { return };
        for number in 0..to {
            if responder.ready().await.is_err() || responder.send(number.to_string().into()).is_err() {
                return;
            }
        }
        responder.finish(Status::ok());
    })
}

/// Answers every message with its echo and a second message.
fn chat(mut call: IncomingCall, mut responder: Responder) -> Handler {
    Box::pin(async move {
        while let Ok(Some(message)) = call.requests.message().await {
            let mut batch = responder.batch();
            batch.push(message);
            batch.push("again".into());
            if responder.send_batch(batch).is_err() {
                return;
            }
        }
        responder.finish(Status::ok());
    })
}

fn router() -> Router {
    Router::new().with(ECHO, unary(|message| async move { Ok(message) })).with(COUNT, count).with(CHAT, chat)
}

#[test]
fn each_kind_of_call_is_answered() {
    run(|tasks| async move {
        let (client, _server) = connect(&tasks, router()).await;
        let reply = client.unary(Call::new(ECHO), "hello".into()).await.unwrap();
        assert_eq!(reply.message, "hello");

        let mut numbers = client.server_streaming(Call::new(COUNT), "...".into()).await.unwrap();
        for number in ["0", "1", "2"] {
            assert_eq!(numbers.message().await.unwrap().unwrap(), number);
        }
        assert_eq!(numbers.message().await, Ok(None));

        let (mut sender, mut streaming) = client.bidirectional(Call::new(CHAT)).await.unwrap();
        for round in 0..5 {
            sender.send(round.to_string().into()).unwrap();
            assert_eq!(streaming.message().await.unwrap().unwrap(), round.to_string());
            assert_eq!(streaming.message().await.unwrap().unwrap(), "again");
        }
        sender.finish().unwrap();
        assert_eq!(streaming.message().await, Ok(None));
    });
}

#[test]
fn encoded_messages_are_decoded_on_the_other_side() {
    run(|tasks| async move {
        let greet = |mut call: IncomingCall, mut responder: Responder| -> Handler {
            Box::pin(async move {
                while let Ok(Some(name)) = call.requests.decoded::<String>().await {
                    responder.send_encoded(&format!("hello {name}")).unwrap();
                }
                responder.finish(Status::ok());
            })
        };
        let (client, _server) = connect(&tasks, greet).await;
        let reply = client.unary_encoded::<String, String>(Call::new(ECHO), &"you".into()).await.unwrap();
        assert_eq!(reply.message, "hello you");
        let error = client.unary_encoded::<String, u64>(Call::new(ECHO), &"you".into()).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::MalformedResponse(_)), "a text is no number");

        let (mut sender, mut streaming) = client.bidirectional(Call::new(CHAT)).await.unwrap();
        sender.send_encoded(&String::from("all")).unwrap();
        assert_eq!(streaming.decoded::<String>().await.unwrap().unwrap(), "hello all");
        sender.finish().unwrap();
        assert_eq!(streaming.decoded::<String>().await, Ok(None));
    });
}

#[test]
fn a_method_that_nobody_added_is_unimplemented() {
    run(|tasks| async move {
        let (client, _server) = connect(&tasks, router()).await;
        let error = client.unary(Call::new("/test.Test/Nothing"), "".into()).await.unwrap_err();
        assert_eq!(
            (error.code(), error.to_string().as_str()),
            (Code::Unimplemented, "Unimplemented: unknown method /test.Test/Nothing")
        );
    });
}

#[test]
fn metadata_travels_both_ways() {
    run(|tasks| async move {
        let reflect = |call: IncomingCall, mut responder: Responder| -> Handler {
            assert_eq!(call.authority(), Some("store-1:20160"));
            assert_eq!(call.path(), ECHO);
            assert_eq!(call.metadata.get("content-type"), None);
            responder.set_metadata(call.metadata.clone());
            responder.send("value".into()).unwrap();
            responder.finish(Status { metadata: call.metadata, ..Status::ok() });
            Box::pin(async {})
        };
        let (client, _server) = connect(&tasks, reflect).await;
        let mut metadata = Metadata::new();
        metadata.insert("tikv-forwarded-host", "store-2:20160").unwrap();
        metadata.append("several", "a").unwrap();
        metadata.append("several", "b").unwrap();
        metadata.insert_bin("bytes-bin", &[0, 255]).unwrap();
        let call = Call { authority: Some("store-1:20160".into()), ..Call::new(ECHO).with_metadata(metadata.clone()) };
        let reply = client.unary(call, "key".into()).await.unwrap();
        assert_eq!(reply.headers, metadata);
        assert_eq!(reply.trailers, metadata);
    });
}

#[test]
fn headers_can_be_sent_and_awaited_before_a_message() {
    run(|tasks| async move {
        let (release, released) = oneshot::channel::<()>();
        let released = Mutex::new(Some(released));
        let service = move |_call: IncomingCall, mut responder: Responder| -> Handler {
            let released = released.lock().unwrap().take().unwrap();
            Box::pin(async move {
                let mut metadata = Metadata::new();
                metadata.insert("early", "yes").unwrap();
                responder.set_metadata(metadata);
                responder.send_metadata().unwrap();
                released.await.unwrap();
                responder.reply(Ok("late".into()));
            })
        };
        let (client, _server) = connect(&tasks, service).await;
        let (_sender, mut streaming) = client.bidirectional(Call::new(CHAT)).await.unwrap();
        assert_eq!(streaming.headers().await.unwrap().get("early"), Some("yes"));
        assert!(poll!(Box::pin(streaming.message())).is_pending());
        release.send(()).unwrap();
        assert_eq!(streaming.message().await.unwrap().unwrap(), "late");
    });
}

#[test]
fn errors_carry_message_and_details() {
    run(|tasks| async move {
        let fail = |_call: IncomingCall, responder: Responder| -> Handler {
            let details = Bytes::from_static(&[0, 1, 254]);
            let status = Status { details, ..Status::new(Code::Aborted, "100% ünlucky\n") };
            responder.reply(Err(status));
            Box::pin(async {})
        };
        let (client, _server) = connect(&tasks, fail).await;
        let error = client.unary(Call::new(ECHO), "".into()).await.unwrap_err();
        let status = error.status().unwrap();
        assert_eq!((status.code, status.message.as_str()), (Code::Aborted, "100% ünlucky\n"));
        assert_eq!(status.details, &[0, 1, 254][..]);
    });
}

#[test]
fn a_responder_that_is_dropped_answers_that_it_was() {
    run(|tasks| async move {
        let forget = |_call: IncomingCall, _responder: Responder| -> Handler { Box::pin(async {}) };
        let (client, _server) = connect(&tasks, forget).await;
        assert_eq!(client.unary(Call::new(ECHO), "".into()).await.unwrap_err().code(), Code::Unknown);
    });
}

#[test]
fn a_responder_can_outlive_its_handler() {
    run(|tasks| async move {
        let parked = Arc::new(Mutex::new(Vec::new()));
        let park = parked.clone();
        let service = move |_call: IncomingCall, responder: Responder| -> Handler {
            park.lock().unwrap().push(responder);
            Box::pin(async {})
        };
        let (client, _server) = connect(&tasks, service).await;
        let mut first = Box::pin(client.unary(Call::new(ECHO), "1".into()));
        let mut second = Box::pin(client.unary(Call::new(ECHO), "2".into()));
        assert!(poll!(&mut first).is_pending() && poll!(&mut second).is_pending());
        settle().await;
        for (number, responder) in parked.lock().unwrap().drain(..).enumerate() {
            responder.reply(Ok(number.to_string().into()));
        }
        assert_eq!(second.await.unwrap().message, "1");
        assert_eq!(first.await.unwrap().message, "0");
    });
}

#[test]
fn many_calls_of_one_connection_interleave() {
    run(|tasks| async move {
        let (client, _server) = connect(&tasks, router()).await;
        let mut chats = Vec::new();
        for _ in 0..50 {
            chats.push(client.bidirectional(Call::new(CHAT)).await.unwrap());
        }
        for round in 0..10 {
            for (number, (sender, _)) in chats.iter_mut().enumerate() {
                sender.send(format!("{number} {round}").into()).unwrap();
            }
            for (number, (_, streaming)) in chats.iter_mut().enumerate().rev() {
                assert_eq!(streaming.message().await.unwrap().unwrap(), format!("{number} {round}"));
                assert_eq!(streaming.message().await.unwrap().unwrap(), "again");
            }
        }
        let echoes = (0..500).map(|number| client.unary(Call::new(ECHO), number.to_string().into()));
        for (number, reply) in futures::future::join_all(echoes).await.into_iter().enumerate() {
            assert_eq!(reply.unwrap().message, number.to_string());
        }
    });
}

#[test]
fn a_status_before_all_requests_are_read_reaches_the_client() {
    run(|tasks| async move {
        let refuse = |_call: IncomingCall, responder: Responder| -> Handler {
            responder.finish(Status::new(Code::ResourceExhausted, "busy"));
            Box::pin(async {})
        };
        let (client, _server) = connect(&tasks, refuse).await;
        let (mut sender, mut streaming) = client.bidirectional(Call::new(CHAT)).await.unwrap();
        let _ = sender.send("unread".into());
        settle().await;
        assert_eq!(streaming.message().await.unwrap_err().code(), Code::ResourceExhausted);
        assert!(sender.send("late".into()).is_err());
    });
}

/// Counts how many of it live.
struct Alive(Arc<AtomicUsize>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn never_answer(alive: &Arc<AtomicUsize>) -> impl Service + use<> {
    let alive = alive.clone();
    move |call: IncomingCall, responder: Responder| -> Handler {
        alive.fetch_add(1, Ordering::SeqCst);
        let guard = Alive(alive.clone());
        Box::pin(async move {
            let _held = (guard, call, responder);
            std::future::pending::<()>().await;
        })
    }
}

#[test]
fn a_handler_is_dropped_when_its_client_gives_up_or_leaves() {
    run(|tasks| async move {
        let alive = Arc::new(AtomicUsize::new(0));
        let (client, _server) = connect(&tasks, never_answer(&alive)).await;
        let first = client.server_streaming(Call::new(ECHO), "".into()).await.unwrap();
        let _second = client.bidirectional(Call::new(ECHO)).await.unwrap();
        settle().await;
        assert_eq!(alive.load(Ordering::SeqCst), 2);
        drop(first);
        settle().await;
        assert_eq!(alive.load(Ordering::SeqCst), 1);
        client.close();
        settle().await;
        assert_eq!(alive.load(Ordering::SeqCst), 0);
    });
}

#[test]
fn handlers_can_run_elsewhere() {
    struct Elsewhere(Mutex<Vec<Handler>>);

    impl Spawn for Elsewhere {
        fn spawn(&self, handler: Handler) {
            self.0.lock().unwrap().push(handler);
        }
    }

    run(|tasks| async move {
        let elsewhere = Arc::new(Elsewhere(Mutex::default()));
        let (client_io, server_io) = pipe();
        let spawner: Option<Arc<dyn Spawn>> = Some(elsewhere.clone());
        serve(&tasks, server_io, router(), ServerOptions { spawner, ..Default::default() });
        let client = tasks.connect(client_io, options()).await;
        let mut call = Box::pin(client.unary(Call::new(ECHO), "hello".into()));
        assert!(poll!(&mut call).is_pending());
        settle().await;
        let handlers = std::mem::take(&mut *elsewhere.0.lock().unwrap());
        assert_eq!(handlers.len(), 1);
        for handler in handlers {
            tasks.spawn(handler);
        }
        assert_eq!(call.await.unwrap().message, "hello");
    });
}

#[test]
fn a_responder_that_moved_to_another_task_waits_for_room_while_its_handler_waits_for_cancellation() {
    run(|tasks| async move {
        let parked = Arc::new(Mutex::new(None));
        let alive = Arc::new(AtomicUsize::new(0));
        let (park, count) = (parked.clone(), alive.clone());
        let service = move |_call: IncomingCall, responder: Responder| -> Handler {
            *park.lock().unwrap() = Some(responder);
            count.fetch_add(1, Ordering::SeqCst);
            let guard = Alive(count.clone());
            Box::pin(async move {
                std::future::pending::<()>().await;
                drop(guard);
            })
        };
        let (client_io, server_io) = pipe();
        serve(&tasks, server_io, service, ServerOptions { send_buffer: 1, ..Default::default() });
        let small = tikv_grpc::Options { stream_window: 1 << 16, ..options() };
        let client = tasks.connect(client_io, small).await;
        let mut streaming = client.server_streaming(Call::new(COUNT), "".into()).await.unwrap();
        settle().await;
        let mut responder = parked.lock().unwrap().take().unwrap();
        let (done, mut is_done) = oneshot::channel();
        tasks.spawn(async move {
            while responder.ready().await.is_ok() {
                responder.send(vec![0; 10_000].into()).unwrap();
            }
            done.send(()).unwrap();
        });
        for _ in 0..100 {
            settle().await;
            assert_eq!(streaming.message().await.unwrap().unwrap().len(), 10_000);
        }
        assert_eq!((is_done.try_recv(), alive.load(Ordering::SeqCst)), (Ok(None), 1));
        drop(streaming);
        is_done.await.unwrap();
        assert_eq!(alive.load(Ordering::SeqCst), 0);
    });
}

#[test]
fn a_message_longer_than_accepted_is_refused() {
    run(|tasks| async move {
        let (client_io, server_io) = pipe();
        serve(&tasks, server_io, router(), ServerOptions { max_receive_message: 10, ..Default::default() });
        let client = tasks.connect(client_io, options()).await;
        let error = client.unary(Call::new(ECHO), vec![0; 11].into()).await.unwrap_err();
        assert_eq!(error.code(), Code::ResourceExhausted);
        client.unary(Call::new(ECHO), vec![0; 10].into()).await.unwrap();
    });
}

#[test]
fn what_is_no_grpc_is_refused_in_http() {
    run(|tasks| async move {
        let (client_io, server_io) = pipe();
        serve(&tasks, server_io, router(), ServerOptions::default());
        let (mut requests, connection) = h2::client::handshake(client_io).await.unwrap();
        tasks.spawn(async move {
            let _ = connection.await;
        });
        let get = http::Request::get("http://host/test.Test/Echo").body(()).unwrap();
        let html =
            http::Request::post("http://host/test.Test/Echo").header("content-type", "text/html").body(()).unwrap();
        for (request, status) in [(get, 405), (html, 415)] {
            let response = requests.send_request(request, true).unwrap().0.await.unwrap();
            assert_eq!(response.status(), status);
        }
        let zipped = http::Request::post("http://host/test.Test/Echo")
            .header("content-type", "application/grpc+proto")
            .header("grpc-encoding", "snappy")
            .body(())
            .unwrap();
        let response = requests.send_request(zipped, true).unwrap().0.await.unwrap();
        assert_eq!(response.headers()["grpc-status"], "12");
    });
}

#[test]
fn a_server_that_shuts_down_answers_what_it_has_and_refuses_the_rest() {
    run(|tasks| async move {
        let (release, released) = oneshot::channel::<()>();
        let released = Mutex::new(Some(released));
        let service = move |_call: IncomingCall, responder: Responder| -> Handler {
            let released = released.lock().unwrap().take().unwrap();
            Box::pin(async move {
                released.await.unwrap();
                responder.reply(Ok("done".into()));
            })
        };
        let (client, server) = connect(&tasks, service).await;
        let mut call = Box::pin(client.unary(Call::new(ECHO), "".into()));
        assert!(poll!(&mut call).is_pending());
        settle().await;
        server.shut_down();
        settle().await;
        assert!(client.is_closed());
        let error = client.unary(Call::new(ECHO), "".into()).await.unwrap_err();
        assert!(error.not_sent() && error.is_connection());
        release.send(()).unwrap();
        assert_eq!(call.await.unwrap().message, "done");
        settle().await;
        assert!(client.end().is_some());
    });
}

#[test]
fn a_server_that_closes_fails_its_calls() {
    run(|tasks| async move {
        let alive = Arc::new(AtomicUsize::new(0));
        let (client, server) = connect(&tasks, never_answer(&alive)).await;
        let mut streaming = client.server_streaming(Call::new(ECHO), "".into()).await.unwrap();
        settle().await;
        server.close();
        let error = streaming.message().await.unwrap_err();
        assert!(error.is_connection() && error.may_have_been_executed());
        assert_eq!(alive.load(Ordering::SeqCst), 0);
    });
}

#[test]
fn a_client_that_resets_with_any_reason_cancels() {
    run(|tasks| async move {
        let (client_io, server_io) = pipe();
        let seen = Arc::new(Mutex::new(None));
        let see = seen.clone();
        let service = move |mut call: IncomingCall, _responder: Responder| -> Handler {
            let see = see.clone();
            Box::pin(async move {
                let status = call.requests.message().await.unwrap_err();
                *see.lock().unwrap() = Some(status.code);
            })
        };
        serve(&tasks, server_io, service, ServerOptions::default());
        let (mut requests, connection) = h2::client::handshake(client_io).await.unwrap();
        tasks.spawn(async move {
            let _ = connection.await;
        });
        let request = http::Request::post("http://host/x").header("content-type", "application/grpc").body(()).unwrap();
        let (_response, mut stream) = requests.send_request(request, false).unwrap();
        settle().await;
        stream.send_reset(Reason::INTERNAL_ERROR);
        settle().await;
        assert_eq!(*seen.lock().unwrap(), Some(Code::Cancelled));
    });
}
