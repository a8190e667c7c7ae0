//! The protocol in an event loop of one's own: no async runtime, one loop that owns [`Engine`], and threads that block on
//! sockets.
//!
//! The loop is the whole of it: carry out commands, take outcomes, wait for the next message or for the engine's timer.
//! `cargo run --release --example manual_loop` starts a simulated cluster; `-- --pd 127.0.0.1:2379` uses a given one.
#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures::executor::block_on;
use tikv_core::config::Config;
use tikv_core::engine::{Engine, EngineCommand, Operation, OperationId, Outcome, StoreCallId};
use tikv_core::error::{Execution, Fault, FaultKind};
use tikv_core::machine::Call;
use tikv_core::oracle::FetchTimestamp;
use tikv_core::pd::{PdEffect, PdInput, StreamId};
use tikv_core::raw::{self, RawOptions};
use tikv_core::request::{Response, decode_response};
use tikv_core::time::Time;
use tikv_examples::BlockingStream;
use tikv_grpc as grpc;

/// What the threads tell the loop.
enum Message {
    Store(StoreCallId, Result<Response, Fault>),
    Pd(PdInput),
}

/// The loop, and what it needs to carry commands out.
struct Loop {
    engine: Engine,
    began: Instant,
    channels: BTreeMap<Arc<str>, grpc::Channel>,
    streams: BTreeMap<StreamId, grpc::Sender>,
    to_loop: Sender<Message>,
    messages: Receiver<Message>,
}

impl Loop {
    fn new(pd: String) -> Self {
        let (to_loop, messages) = channel();
        Loop {
            engine: Engine::new(Config::default(), vec![pd], 1),
            began: Instant::now(),
            channels: BTreeMap::new(),
            streams: BTreeMap::new(),
            to_loop,
            messages,
        }
    }

    /// Runs the loop until the operation has ended.
    fn run(&mut self, operation: Operation) -> Outcome {
        let id = self.engine.start(self.now(), operation);
        loop {
            while let Some(command) = self.engine.poll_command() {
                self.carry_out(command);
            }
            if let Some(outcome) = self.take_outcome(id) {
                return outcome;
            }
            match self.messages.recv_timeout(self.until_timer()) {
                Ok(Message::Store(id, reply)) => self.engine.handle_reply(self.now(), id, reply),
                Ok(Message::Pd(input)) => self.engine.handle_pd(self.now(), input),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    self.engine.handle_timeout(self.now());
                }
            }
        }
    }

    fn take_outcome(&mut self, id: OperationId) -> Option<Outcome> {
        let (ended, outcome) = self.engine.poll_outcome()?;
        (ended == id).then_some(outcome)
    }

    fn carry_out(&mut self, command: EngineCommand) {
        match command {
            EngineCommand::Call { id, call } => self.call_store(id, call),
            EngineCommand::Pd(effect) => self.carry_out_pd(effect),
            EngineCommand::Reconnect { address } => {
                self.channels.remove(&address);
            }
            // The reply of a forgotten call is ignored by the engine; its thread ends by the call's own time limit.
            EngineCommand::CancelCall { .. } | EngineCommand::Observe(_) => {}
            EngineCommand::CheckCommit { id, .. } => self.engine.handle_checked(self.now(), id, Ok(())),
        }
    }

    fn call_store(&mut self, id: StoreCallId, call: Box<Call>) {
        let (channel, to_loop) = (self.channel(&call.address), self.to_loop.clone());
        let timeout = call.timeout(self.now());
        thread::spawn(move || {
            let reply = channel.and_then(|channel| call_store(&channel, &call, timeout));
            // The loop may be gone.
            let _ = to_loop.send(Message::Store(id, reply));
        });
    }

    fn carry_out_pd(&mut self, effect: PdEffect) {
        match effect {
            PdEffect::Call { call, address, path, body, timeout } => {
                let (channel, to_loop) = (self.channel(&address), self.to_loop.clone());
                thread::spawn(move || {
                    let result = channel.and_then(|channel| unary(&channel, path, body, timeout, &address));
                    let _ = to_loop.send(Message::Pd(PdInput::Reply { call, result }));
                });
            }
            PdEffect::OpenStream { stream, address, path } => {
                let opened = self.channel(&address).and_then(|channel| {
                    block_on(channel.bidirectional(grpc::Call::new(path))).map_err(|error| fault(&error, &address))
                });
                match opened {
                    Ok((sender, receiver)) => {
                        self.streams.insert(stream, sender);
                        let to_loop = self.to_loop.clone();
                        thread::spawn(move || receive(stream, receiver, &address, &to_loop));
                    }
                    Err(fault) => self.tell(PdInput::StreamClosed { stream, fault }),
                }
            }
            PdEffect::Send { stream, body } => {
                if let Some(sender) = self.streams.get_mut(&stream) {
                    // The receiving side reports what happened to a broken stream.
                    let _ = sender.send(body);
                }
            }
            PdEffect::CloseStream { stream } => {
                self.streams.remove(&stream);
            }
            PdEffect::CancelCall { .. } => {}
        }
    }

    /// The connection to an address. Its HTTP/2 runs on a thread of its own.
    fn channel(&mut self, address: &Arc<str>) -> Result<grpc::Channel, Fault> {
        if let Some(channel) = self.channels.get(address).filter(|channel| !channel.is_closed()) {
            return Ok(channel.clone());
        }
        let unreachable = |detail: String| {
            Fault::new(FaultKind::Unreachable, Execution::NotSent, Arc::clone(address)).with_detail(detail)
        };
        let io = BlockingStream::connect(address).map_err(|error| unreachable(error.to_string()))?;
        let (channel, driver) = block_on(grpc::Connection::handshake(io, grpc::Options::new(&**address)))
            .map_err(|error| unreachable(error.to_string()))?;
        thread::spawn(move || block_on(driver));
        self.channels.insert(Arc::clone(address), channel.clone());
        Ok(channel)
    }

    fn tell(&self, input: PdInput) {
        let _ = self.to_loop.send(Message::Pd(input));
    }

    fn now(&self) -> Time {
        Time::ZERO + self.began.elapsed()
    }

    fn until_timer(&self) -> Duration {
        let day = Duration::from_secs(24 * 60 * 60);
        self.engine.poll_timeout().map_or(day, |(due, _)| due.saturating_since(self.now()))
    }
}

fn call_store(channel: &grpc::Channel, call: &Call, timeout: Duration) -> Result<Response, Fault> {
    let kind = call.request.kind();
    let mut body = BytesMut::new();
    call.request.encode_with_context(&call.context, &mut body);
    let message = unary(channel, kind.facts().path, body.freeze(), timeout, &call.address)?;
    decode_response(kind, message).map_err(|error| {
        Fault::new(FaultKind::Protocol, Execution::MaybeExecuted, Arc::clone(&call.address))
            .with_detail(error.to_string())
    })
}

fn unary(
    channel: &grpc::Channel,
    path: &'static str,
    body: Bytes,
    timeout: Duration,
    address: &Arc<str>,
) -> Result<Bytes, Fault> {
    let reply = block_on(channel.unary(grpc::Call::new(path).with_timeout(timeout), body));
    reply.map(|reply| reply.message).map_err(|error| fault(&error, address))
}

fn receive(stream: StreamId, mut receiver: grpc::Streaming, address: &Arc<str>, to_loop: &Sender<Message>) {
    loop {
        let input = match block_on(receiver.message()) {
            Ok(Some(body)) => PdInput::StreamMessage { stream, body },
            Ok(None) => {
                let fault = Fault::new(FaultKind::Disconnected, Execution::MaybeExecuted, Arc::clone(address));
                PdInput::StreamClosed { stream, fault }
            }
            Err(error) => PdInput::StreamClosed { stream, fault: fault(&error, address) },
        };
        let ended = matches!(input, PdInput::StreamClosed { .. });
        if to_loop.send(Message::Pd(input)).is_err() || ended {
            return;
        }
    }
}

fn fault(error: &grpc::Error, address: &Arc<str>) -> Fault {
    let execution = if error.not_sent() { Execution::NotSent } else { Execution::MaybeExecuted };
    let kind = error.status().map_or(FaultKind::Disconnected, |status| FaultKind::Status(status.code as u32));
    Fault::new(kind, execution, Arc::clone(address)).with_detail(error.to_string())
}

fn main() -> Result<(), Box<dyn Error>> {
    let cluster = tikv_examples::cluster(std::env::args())?;
    let mut event_loop = Loop::new(cluster.pd().to_owned());
    let config = Config::default();
    let options = RawOptions::new(&config);

    let put = raw::put(&config, "loop/a".into(), "1".into(), None, &options)?;
    println!("put      {:?}", event_loop.run(Operation::RawPut(put)));
    let get = raw::get(&config, "loop/a".into(), &options)?;
    println!("get      {:?}", event_loop.run(Operation::RawGet(get)));
    println!("ts       {:?}", event_loop.run(Operation::Timestamp(FetchTimestamp::new(&config))));
    Ok(())
}
