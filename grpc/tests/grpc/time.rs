//! Deadlines and keep-alive, on a clock that the test moves.

use std::sync::Arc;
use std::time::Duration;

use futures::poll;
use tikv_grpc::{Call, Code, ConnectionError, ErrorKind, KeepAlive, Options};

use crate::harness::clock::ManualClock;
use crate::harness::raw::{RawServer, framed, ok};
use crate::harness::script::{HEADERS, PING, Script};
use crate::harness::{Client, Tasks, options, pipe, run, settle};

const GET: &str = "/tikvpb.Tikv/RawGet";
const SECOND: Duration = Duration::from_secs(1);

fn timed(clock: &ManualClock) -> Options {
    Options { clock: Some(Arc::new(clock.clone())), ..options() }
}

async fn client_and_server(tasks: &Tasks, options: Options) -> (Client, RawServer) {
    let (client_io, server_io) = pipe();
    let server = RawServer::serve(tasks, server_io);
    let client = tasks.connect(client_io, options).await;
    settle().await;
    (client, server)
}

/// Lets time pass in steps in which everybody can act.
async fn pass(clock: &ManualClock, duration: Duration) {
    for _ in 0..20 {
        clock.advance(duration / 20);
        settle().await;
    }
}

#[test]
fn the_server_is_told_the_timeout() {
    run(|tasks| async move {
        let (client, server) = client_and_server(&tasks, options()).await;
        let _call = client.server_streaming(Call::new(GET).with_timeout(20 * SECOND), "key".into()).await.unwrap();
        assert_eq!(server.accept().await.header("grpc-timeout"), Some("20000000u"));
    });
}

#[test]
fn a_call_that_is_not_answered_in_time_fails_and_is_cancelled() {
    run(|tasks| async move {
        let clock = ManualClock::default();
        let (client, server) = client_and_server(&tasks, timed(&clock)).await;
        let mut call = Box::pin(client.unary(Call::new(GET).with_timeout(SECOND), "key".into()));
        assert!(poll!(&mut call).is_pending());
        let mut arrived = server.accept().await;
        clock.advance(SECOND - Duration::from_nanos(1));
        assert!(poll!(&mut call).is_pending());
        clock.advance(Duration::from_nanos(1));
        let error = call.await.unwrap_err();
        assert_eq!((error.kind(), error.code()), (&ErrorKind::DeadlineExceeded, Code::DeadlineExceeded));
        assert!(error.may_have_been_executed());
        let reset = std::future::poll_fn(|cx| arrived.respond.poll_reset(cx)).await.unwrap();
        assert_eq!(reset, h2::Reason::CANCEL);
        assert!(!client.is_closed());
    });
}

#[test]
fn a_call_whose_time_is_over_before_it_is_sent_was_not_sent() {
    run(|tasks| async move {
        let clock = ManualClock::default();
        let (client, server) = client_and_server(&tasks, timed(&clock)).await;
        let error = client.unary(Call::new(GET).with_timeout(Duration::ZERO), "key".into()).await.unwrap_err();
        assert_eq!((error.kind(), error.not_sent()), (&ErrorKind::DeadlineExceeded, true));
        settle().await;
        assert!(server.is_idle());
    });
}

#[test]
fn an_answer_that_arrived_in_time_counts_although_it_is_looked_at_later() {
    run(|tasks| async move {
        let clock = ManualClock::default();
        let (client, server) = client_and_server(&tasks, timed(&clock)).await;
        let call = Call::new(GET).with_timeout(SECOND);
        let streaming = client.server_streaming(call, "key".into()).await.unwrap();
        let mut answer = server.accept().await.respond();
        answer.send_data(framed("value"), false).unwrap();
        answer.send_trailers(ok()).unwrap();
        settle().await;
        clock.advance(2 * SECOND);
        assert_eq!(streaming.into_reply().await.unwrap().message, "value");
    });
}

#[test]
fn a_stream_ends_at_its_deadline_for_both_halves() {
    run(|tasks| async move {
        let clock = ManualClock::default();
        let (client, server) = client_and_server(&tasks, timed(&clock)).await;
        let call = Call::new(GET).with_timeout(SECOND);
        let (mut sender, mut streaming) = client.bidirectional(call).await.unwrap();
        let _answer = server.accept().await.respond();
        streaming.headers().await.unwrap();
        assert!(poll!(Box::pin(streaming.message())).is_pending());
        clock.advance(SECOND);
        assert_eq!(*streaming.message().await.unwrap_err().kind(), ErrorKind::DeadlineExceeded);
        assert_eq!(*sender.send("late".into()).unwrap_err().kind(), ErrorKind::Ended);
        assert_eq!(*streaming.headers().await.unwrap_err().kind(), ErrorKind::DeadlineExceeded);
    });
}

#[test]
fn a_peer_that_answers_no_pings_is_given_up() {
    run(|tasks| async move {
        let clock = ManualClock::default();
        let (client, server) = client_and_server(&tasks, timed(&clock)).await;
        let mut streaming = client.server_streaming(Call::new(GET), "key".into()).await.unwrap();
        let _call = server.accept().await;
        server.freeze();
        settle().await;
        pass(&clock, 10 * SECOND).await;
        assert_eq!(client.end(), None, "the ping is out, but has still time");
        pass(&clock, 6 * SECOND).await;
        assert_eq!(client.end(), Some(ConnectionError::KeepAliveTimeout));
        let error = streaming.message().await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Connection(ConnectionError::KeepAliveTimeout));
        assert!(error.may_have_been_executed());
    });
}

#[test]
fn a_peer_that_answers_pings_is_kept() {
    run(|tasks| async move {
        let clock = ManualClock::default();
        let (client, server) = client_and_server(&tasks, timed(&clock)).await;
        let _streaming = client.server_streaming(Call::new(GET), "key".into()).await.unwrap();
        let _call = server.accept().await;
        pass(&clock, 100 * SECOND).await;
        assert_eq!(client.end(), None);
        server.freeze();
        pass(&clock, 20 * SECOND).await;
        assert_eq!(client.end(), Some(ConnectionError::KeepAliveTimeout));
    });
}

async fn pings_in(clock: &ManualClock, keep_alive: KeepAlive, with_call: bool, tasks: &Tasks) -> usize {
    let (client_io, server_io) = pipe();
    let options = Options { keep_alive: Some(keep_alive), ..timed(clock) };
    let client = tasks.connect(client_io, options).await;
    let mut script = Script::greet(server_io).await;
    let call = match with_call {
        true => Some(client.server_streaming(Call::new(GET), "key".into()).await.unwrap()),
        false => None,
    };
    if with_call {
        script.read_until(HEADERS).await;
    }
    let pings = std::rc::Rc::new(std::cell::Cell::new(0));
    let counted = pings.clone();
    tasks.spawn(async move {
        loop {
            let ping = script.read_until(PING).await;
            counted.set(counted.get() + 1);
            script.write(PING, 1, 0, &ping.payload).await;
        }
    });
    pass(clock, 61 * SECOND).await;
    assert_eq!(client.end(), None);
    drop(call);
    // The server's half stays in the pool, waiting; it is dropped with it.
    std::mem::forget(client);
    pings.get()
}

#[test]
fn only_an_idle_connection_with_calls_is_pinged() {
    run(|tasks| async move {
        let clock = ManualClock::default();
        let default = KeepAlive::default();
        let always = KeepAlive { without_calls: true, ..default };
        assert_eq!(pings_in(&clock, default, false, &tasks).await, 0);
        assert!((4..=6).contains(&pings_in(&clock, default, true, &tasks).await));
        assert!((4..=6).contains(&pings_in(&clock, always, false, &tasks).await));
    });
}

#[test]
fn any_byte_is_a_sign_of_life() {
    run(|tasks| async move {
        let clock = ManualClock::default();
        let (client_io, server_io) = pipe();
        let client = tasks.connect(client_io, timed(&clock)).await;
        let mut script = Script::greet(server_io).await;
        let mut streaming = client.server_streaming(Call::new(GET), "key".into()).await.unwrap();
        script.read_until(HEADERS).await;
        script.write_headers(1).await;
        // It never answers a ping, but sends a message every other second.
        for _ in 0..50 {
            script.write_data(1, &framed("tick")).await;
            assert_eq!(streaming.message().await.unwrap().unwrap(), "tick");
            pass(&clock, 2 * SECOND).await;
        }
        assert_eq!(client.end(), None);
    });
}

#[test]
fn a_byte_after_a_ping_is_as_good_as_a_pong() {
    run(|tasks| async move {
        let clock = ManualClock::default();
        let (client_io, server_io) = pipe();
        let client = tasks.connect(client_io, timed(&clock)).await;
        let mut script = Script::greet(server_io).await;
        let mut streaming = client.server_streaming(Call::new(GET), "key".into()).await.unwrap();
        script.read_until(HEADERS).await;
        script.write_headers(1).await;
        settle().await;
        for round in 0..3 {
            pass(&clock, 14 * SECOND).await;
            if round == 0 {
                script.read_until(PING).await;
            }
            assert_eq!(client.end(), None);
            script.write_data(1, &framed("tick")).await;
            assert_eq!(streaming.message().await.unwrap().unwrap(), "tick");
        }
        pass(&clock, 16 * SECOND).await;
        assert_eq!(client.end(), Some(ConnectionError::KeepAliveTimeout));
    });
}
