//! Streams of messages, against a server of bare HTTP/2.

mod harness;

use harness::raw::{RawServer, framed, ok};
use harness::{options, pipe, run};
use tikv_grpc::{Batch, Call};

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
