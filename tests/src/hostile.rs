//! Servers that do not behave. They run on the tokio runtime that they are started on, and end with it.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use tikv_grpc::server::{Handler, IncomingCall, Responder, Router, ServerOptions, Service, serve_connection, unary};
use tikv_grpc::{Code, Status};
use tikv_proto::metapb::{Peer, Region, RegionEpoch, Store};
use tikv_proto::pdpb::{
    GetMembersResponse, GetRegionResponse, GetStoreResponse, Member, ResponseHeader, Timestamp, TsoRequest, TsoResponse,
};
use tikv_proto::tikvpb::{BatchCommandsRequest, BatchCommandsResponse};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What all of these call their cluster.
pub const CLUSTER_ID: u64 = 42;

type Serving = Pin<Box<dyn Future<Output = ()> + Send>>;

async fn listen(serve: impl Fn(TcpStream) -> Serving + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    address
}

/// A port where nobody listens, but that nobody else gets either.
pub fn nobody() -> (SocketAddr, tokio::net::TcpSocket) {
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a port is free");
    (socket.local_addr().expect("it is bound"), socket)
}

/// Accepts, reads, and says nothing.
pub async fn silent() -> SocketAddr {
    listen(|mut stream| {
        Box::pin(async move {
            let mut buffer = [0; 4096];
            while matches!(stream.read(&mut buffer).await, Ok(1..)) {}
        })
    })
    .await
}

/// Accepts and closes at once.
pub async fn closing() -> SocketAddr {
    listen(|stream| Box::pin(async move { drop(stream) })).await
}

/// Answers whatever comes by these bytes, and then waits for the other side to leave.
pub async fn saying(bytes: &'static [u8]) -> SocketAddr {
    listen(move |mut stream| {
        Box::pin(async move {
            let mut buffer = [0; 4096];
            // Who is gone already is not told.
            let _ = stream.write_all(bytes).await;
            while matches!(stream.read(&mut buffer).await, Ok(1..)) {}
        })
    })
    .await
}

/// Speaks gRPC; what it says is up to the service.
pub async fn grpc(service: impl Service + 'static) -> SocketAddr {
    grpc_at(|_| service).await
}

/// The same, for a service that has to know where it is.
pub async fn grpc_at<S: Service + 'static>(service: impl FnOnce(SocketAddr) -> S) -> SocketAddr {
    let (know, known) = tokio::sync::watch::channel(None::<Arc<dyn Service>>);
    let address = listen(move |stream| {
        let mut known = known.clone();
        Box::pin(async move {
            let Ok(service) = known.wait_for(Option::is_some).await.map(|service| service.clone()) else { return };
            let Some(service) = service else { return };
            let _ = serve_connection(stream, service, ServerOptions::default()).await;
        })
    })
    .await;
    know.send_replace(Some(Arc::new(service(address))));
    // The channel must outlive its receivers.
    tokio::spawn(async move { know.closed().await });
    address
}

/// How a store answers the frames of BatchCommands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frames {
    /// Not at all.
    Never,
    /// It ends the stream, politely, before or at the first frame.
    End,
    /// It ends the stream with an error.
    Fail(Code),
    /// By bytes that are no message.
    Garbage,
    /// By the answer to another command.
    WrongCommand,
    /// By an answer without a command.
    NoCommand,
    /// By ids without answers.
    IdsWithoutAnswers,
    /// By answers to calls that nobody made.
    UnknownIds,
}

/// A store that has BatchCommands alone. Every other method is answered by bytes that are no message.
pub fn store(frames: Frames) -> impl Service {
    move |call: IncomingCall, responder: Responder| -> Handler {
        if call.path() == "/tikvpb.Tikv/BatchCommands" {
            Box::pin(answer_frames(frames, call, responder))
        } else {
            responder.reply(Ok(Bytes::from_static(b"\xff\xff\xff\xff")));
            Box::pin(std::future::ready(()))
        }
    }
}

async fn answer_frames(frames: Frames, mut call: IncomingCall, mut responder: Responder) {
    while let Ok(Some(frame)) = call.requests.decoded::<BatchCommandsRequest>().await {
        let sent = match frames {
            Frames::Never => Ok(()),
            Frames::End => return responder.finish(Status::ok()),
            Frames::Fail(code) => return responder.finish(Status::new(code, "not today")),
            Frames::Garbage => responder.send(Bytes::from_static(b"\xff\xff\xff\xff")),
            Frames::WrongCommand => responder.send_encoded(&answers(frame.request_ids, true)),
            Frames::NoCommand => responder.send_encoded(&answers(frame.request_ids, false)),
            Frames::IdsWithoutAnswers => {
                let request_ids = frame.request_ids;
                responder.send_encoded(&BatchCommandsResponse { request_ids, ..Default::default() })
            }
            Frames::UnknownIds => {
                let unknown = frame.request_ids.iter().map(|id| id + 1_000_000).chain([0, u64::MAX]);
                responder.send_encoded(&answers(unknown.collect(), true))
            }
        };
        if sent.is_err() {
            return;
        }
    }
}

/// An answer for each id: that of a heartbeat, for which nobody here asks, or none.
fn answers(request_ids: Vec<u64>, with_command: bool) -> BatchCommandsResponse {
    use tikv_proto::tikvpb::batch_commands_response::{Response, response::Cmd};

    let cmd = with_command.then(|| Cmd::TxnHeartBeat(Default::default()));
    let responses = vec![Response { cmd }; request_ids.len()];
    BatchCommandsResponse { responses, request_ids, ..Default::default() }
}

/// A PD of one member. What it says wrong is up to its fields.
#[derive(Clone, Debug)]
pub struct FakePd {
    /// What it answers to the question for members; `None` for the truth.
    pub members: Option<Bytes>,
    /// Timestamps.
    pub tso: Tso,
    /// The region it names for every key.
    pub region: Option<Region>,
    /// The store it names for every id.
    pub store: Option<Store>,
}

/// How [`FakePd`] gives timestamps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tso {
    /// Right ones.
    Right,
    /// None: it reads and is silent.
    Never,
    /// It ends the stream at the first request.
    End,
    /// Bytes that are no message.
    Garbage,
    /// Fewer than asked for.
    TooFew,
    /// Messages without a timestamp.
    Without,
    /// Negative ones.
    Negative,
    /// Those of another cluster.
    OtherCluster,
}

impl FakePd {
    /// All is right: one region without bounds, whose only peer is on a store at `store`.
    #[must_use]
    pub fn new(store: &str) -> Self {
        let region = Region {
            id: 2,
            region_epoch: Some(RegionEpoch { conf_ver: 1, version: 1 }),
            peers: vec![Peer { id: 3, store_id: 1, ..Peer::default() }],
            ..Region::default()
        };
        let store = Store { id: 1, address: store.to_owned(), ..Store::default() };
        FakePd { members: None, tso: Tso::Right, region: Some(region), store: Some(store) }
    }

    /// Serves it.
    pub async fn start(self) -> SocketAddr {
        grpc_at(|address| self.router(address)).await
    }

    fn router(self, address: SocketAddr) -> Router {
        let members = self.members.unwrap_or_else(|| encoded(&members(address)));
        let leader = self.region.as_ref().and_then(|region| region.peers.first().copied());
        let region = GetRegionResponse { header: header(), region: self.region, leader, ..Default::default() };
        let store = GetStoreResponse { header: header(), store: self.store, ..Default::default() };
        let tso = self.tso;
        let stream = move |call: IncomingCall, responder: Responder| -> Handler {
            Box::pin(answer_timestamps(tso, call, responder))
        };
        Router::new()
            .with("/pdpb.PD/GetMembers", always(members))
            .with("/pdpb.PD/GetRegion", always(encoded(&region)))
            .with("/pdpb.PD/GetStore", always(encoded(&store)))
            .with("/pdpb.PD/Tso", stream)
    }
}

fn members(address: SocketAddr) -> GetMembersResponse {
    let member = Member { member_id: 1, client_urls: vec![format!("http://{address}")], ..Member::default() };
    GetMembersResponse { header: header(), members: vec![member.clone()], leader: Some(member), ..Default::default() }
}

fn header() -> Option<ResponseHeader> {
    Some(ResponseHeader { cluster_id: CLUSTER_ID, ..Default::default() })
}

fn encoded(message: &impl Message) -> Bytes {
    message.encode_to_vec().into()
}

fn always(answer: Bytes) -> impl Service {
    unary(move |_| std::future::ready(Ok(answer.clone())))
}

async fn answer_timestamps(tso: Tso, mut call: IncomingCall, mut responder: Responder) {
    let mut physical = 1_700_000_000_000;
    while let Ok(Some(TsoRequest { count, .. })) = call.requests.decoded().await {
        physical += 1;
        let timestamp = Some(Timestamp { physical, logical: i64::from(count), ..Timestamp::default() });
        let right = TsoResponse { header: header(), count, timestamp };
        let sent = match tso {
            Tso::Right => responder.send_encoded(&right),
            Tso::Never => Ok(()),
            Tso::End => return responder.finish(Status::ok()),
            Tso::Garbage => responder.send(Bytes::from_static(b"\xff\xff\xff\xff")),
            Tso::TooFew => responder.send_encoded(&TsoResponse { count: 0, ..right }),
            Tso::Without => responder.send_encoded(&TsoResponse { timestamp: None, ..right }),
            Tso::Negative => {
                let timestamp = Some(Timestamp { physical: -1, logical: -1, ..Timestamp::default() });
                responder.send_encoded(&TsoResponse { timestamp, ..right })
            }
            Tso::OtherCluster => {
                let header = Some(ResponseHeader { cluster_id: CLUSTER_ID + 1, ..Default::default() });
                responder.send_encoded(&TsoResponse { header, ..right })
            }
        };
        if sent.is_err() {
            return;
        }
    }
}
