//! Streams of messages, against a server of bare HTTP/2.

use bytes::Bytes;
use quickcheck::quickcheck;
use tikv_grpc::{Batch, Call, Code, ErrorKind, Options};

use crate::harness::raw::{RawServer, framed, headers, ok};
use crate::harness::{options, pipe, run, settle};

const BATCH_COMMANDS: &str = "/tikvpb.Tikv/BatchCommands";

#[test]
fn both_sides_of_a_call_send_in_turn() {
    run(|tasks| async move {
        let (client_io, server_io) = pipe();
        let server = RawServer::serve(&tasks, server_io);
        let client = tasks.connect(client_io, options()).await;
        tasks.spawn(async move {
            let mut call = server.accept().await;
            let mut answer = call.respond();
            for round in 0..3 {
                assert_eq!(call.read().await, framed(format!("ping {round}")));
                answer.send_data(framed(format!("pong {round}")), false).unwrap();
            }
            assert_eq!(call.read_to_end().await, b"");
            answer.send_trailers(ok()).unwrap();
        });
        let (mut sender, mut streaming) = client.bidirectional(Call::new(BATCH_COMMANDS)).await.unwrap();
        for round in 0..3 {
            sender.ready().await.unwrap();
            sender.send(format!("ping {round}").into()).unwrap();
            assert_eq!(streaming.message().await.unwrap().unwrap(), format!("pong {round}"));
        }
        sender.finish().unwrap();
        assert_eq!(streaming.message().await, Ok(None));
        assert_eq!(streaming.message().await, Ok(None));
    });
}

#[test]
fn a_batch_of_messages_shares_one_frame() {
    run(|tasks| async move {
        let (client_io, server_io) = pipe();
        let server = RawServer::serve(&tasks, server_io);
        let client = tasks.connect(client_io, options()).await;
        tasks.spawn(async move {
            let mut call = server.accept().await;
            let frame = call.read().await;
            assert_eq!(frame, [framed("one"), framed(vec![2; 1000]), framed("")].concat());
            let mut answer = call.respond();
            answer.send_data(frame, false).unwrap();
            answer.send_trailers(ok()).unwrap();
        });
        let (mut sender, mut streaming) = client.bidirectional(Call::new(BATCH_COMMANDS)).await.unwrap();
        let mut batch = Batch::new();
        batch.push("one".into());
        batch.push(vec![2; 1000].into());
        batch.push("".into());
        sender.send_batch(batch).unwrap();
        assert_eq!(streaming.message().await.unwrap().unwrap(), "one");
        assert_eq!(streaming.message().await.unwrap().unwrap(), vec![2; 1000]);
        assert_eq!(streaming.message().await.unwrap().unwrap(), "");
        assert_eq!(streaming.message().await, Ok(None));
    });
}

#[test]
fn a_stream_of_messages_ends_with_its_status() {
    run(|tasks| async move {
        let (client_io, server_io) = pipe();
        let server = RawServer::serve(&tasks, server_io);
        let client = tasks.connect(client_io, options()).await;
        tasks.spawn(async move {
            for status in ["0", "10"] {
                let mut call = server.accept().await;
                assert_eq!(call.read_to_end().await, framed("request"));
                let mut answer = call.respond();
                for number in 0..100 {
                    answer.send_data(framed(format!("message {number}")), false).unwrap();
                }
                answer.send_trailers(headers(&[("grpc-status", status), ("k", "v")])).unwrap();
            }
        });
        for code in [Code::Ok, Code::Aborted] {
            let mut streaming = client.server_streaming(Call::new(BATCH_COMMANDS), "request".into()).await.unwrap();
            for number in 0..100 {
                assert_eq!(streaming.message().await.unwrap().unwrap(), format!("message {number}"));
            }
            assert!(streaming.trailers().is_empty());
            match streaming.message().await {
                Ok(None) => assert_eq!((code, streaming.trailers().get("k")), (Code::Ok, Some("v"))),
                Ok(Some(message)) => panic!("{message:?}"),
                Err(error) => assert_eq!(error.code(), code),
            }
            assert_eq!(client.calls(), 0, "a call that has ended is not in progress though its handle lives");
        }
    });
}

#[test]
fn a_message_within_a_frame_is_a_slice_of_it_and_one_across_frames_is_put_together() {
    run(|tasks| async move {
        let (client_io, server_io) = pipe();
        let server = RawServer::serve(&tasks, server_io);
        let client = tasks.connect(client_io, options()).await;
        tasks.spawn(async move {
            let mut answer = server.accept().await.respond();
            answer.send_data([framed("one"), framed("two")].concat().into(), false).unwrap();
            for byte in framed("across") {
                answer.send_data(Bytes::copy_from_slice(&[byte]), false).unwrap();
            }
            answer.send_trailers(ok()).unwrap();
        });
        let mut streaming = client.server_streaming(Call::new(BATCH_COMMANDS), "".into()).await.unwrap();
        let one = streaming.message().await.unwrap().unwrap();
        let two = streaming.message().await.unwrap().unwrap();
        assert_eq!((&one[..], &two[..]), (&b"one"[..], &b"two"[..]));
        assert_eq!(two.as_ptr() as usize - one.as_ptr() as usize, 3 + 5, "both lie where the frame was read");
        assert_eq!(streaming.message().await.unwrap().unwrap(), "across");
        assert_eq!(streaming.message().await, Ok(None));
    });
}

#[test]
fn a_message_longer_than_accepted_ends_the_call() {
    run(|tasks| async move {
        let (client_io, server_io) = pipe();
        let server = RawServer::serve(&tasks, server_io);
        let client = tasks.connect(client_io, Options { max_receive_message: 10, ..options() }).await;
        let mut streaming = client.server_streaming(Call::new(BATCH_COMMANDS), "".into()).await.unwrap();
        let mut answer = server.accept().await.respond();
        answer.send_data(framed(vec![1; 10]), false).unwrap();
        answer.send_data(framed(vec![2; 11]), false).unwrap();
        assert_eq!(streaming.message().await.unwrap().unwrap(), vec![1; 10]);
        let error = streaming.message().await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::MessageTooLarge { len: 11, limit: 10 });
        assert_eq!((error.code(), error.may_have_been_executed()), (Code::ResourceExhausted, true));
        let reset = std::future::poll_fn(|cx| answer.poll_reset(cx)).await.unwrap();
        assert_eq!(reset, h2::Reason::CANCEL);
    });
}

#[test]
fn a_response_that_is_no_sequence_of_messages_is_malformed() {
    run(|tasks| async move {
        let (client_io, server_io) = pipe();
        let server = RawServer::serve(&tasks, server_io);
        let client = tasks.connect(client_io, options()).await;
        let truncated = framed("truncated").slice(..9);
        for garbage in [Bytes::from_static(b"garbage instead of a message"), truncated] {
            let (server, body) = (server.clone(), garbage.clone());
            tasks.spawn(async move {
                let mut answer = server.accept().await.respond();
                answer.send_data(body, false).unwrap();
                answer.send_trailers(ok()).unwrap();
            });
            let mut streaming = client.server_streaming(Call::new(BATCH_COMMANDS), "".into()).await.unwrap();
            let error = streaming.message().await.unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::MalformedResponse(_)), "{garbage:?}: {error:?}");
        }
        settle().await;
        assert!(!client.is_closed());
    });
}

#[test]
fn an_error_status_is_told_although_a_message_was_cut_off() {
    run(|tasks| async move {
        let (client_io, server_io) = pipe();
        let server = RawServer::serve(&tasks, server_io);
        let client = tasks.connect(client_io, options()).await;
        tasks.spawn(async move {
            let mut answer = server.accept().await.respond();
            answer.send_data(framed("cut off").slice(..8), false).unwrap();
            answer.send_trailers(headers(&[("grpc-status", "15")])).unwrap();
        });
        let mut streaming = client.server_streaming(Call::new(BATCH_COMMANDS), "".into()).await.unwrap();
        assert_eq!(streaming.message().await.unwrap_err().code(), Code::DataLoss);
    });
}

#[test]
fn a_stream_can_be_polled_by_another_task_than_the_one_that_sends() {
    run(|tasks| async move {
        let (client_io, server_io) = pipe();
        let server = RawServer::serve(&tasks, server_io);
        let client = tasks.connect(client_io, options()).await;
        let (mut sender, mut streaming) = client.bidirectional(Call::new(BATCH_COMMANDS)).await.unwrap();
        let (received, done) = futures::channel::oneshot::channel();
        tasks.spawn(async move {
            assert_eq!(streaming.message().await.unwrap().unwrap(), "answer");
            received.send(()).unwrap();
        });
        settle().await;
        sender.send("question".into()).unwrap();
        let mut call = server.accept().await;
        assert_eq!(call.read().await, framed("question"));
        let mut answer = call.respond();
        answer.send_data(framed("answer"), false).unwrap();
        done.await.unwrap();
    });
}

quickcheck! {
    /// Frames cut the sequence of messages anywhere, empty frames included.
    fn messages_arrive_whole_however_frames_cut_them(messages: Vec<Vec<u8>>, cuts: Vec<u8>) -> bool {
        let wire: Vec<u8> = messages.iter().flat_map(framed).collect();
        run(move |tasks| async move {
            let (client_io, server_io) = pipe();
            let server = RawServer::serve(&tasks, server_io);
            let client = tasks.connect(client_io, options()).await;
            tasks.spawn(async move {
                let mut answer = server.accept().await.respond();
                let mut rest = Bytes::from(wire);
                // HTTP/2 tolerates no more than a hundred empty frames.
                let mut cuts = cuts.into_iter().take(90);
                while !rest.is_empty() {
                    let cut = cuts.next().map_or(rest.len(), |cut| usize::from(cut % 20).min(rest.len()));
                    answer.send_data(rest.split_to(cut), false).unwrap();
                }
                answer.send_trailers(ok()).unwrap();
            });
            let mut streaming = client.server_streaming(Call::new(BATCH_COMMANDS), "".into()).await.unwrap();
            for message in messages {
                assert_eq!(streaming.message().await.unwrap().unwrap(), message);
            }
            assert_eq!(streaming.message().await, Ok(None));
        });
        true
    }
}
