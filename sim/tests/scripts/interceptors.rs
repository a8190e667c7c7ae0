//! What goes with requests, and who looks at them.

use std::sync::{Arc, Mutex, PoisonError};

use tikv::{
    Client, CommandPri, EndedRpc, Interceptor, OutgoingRpc, Priority, RequestKind, Runtime, Transaction,
    TransactionOptions,
};
use tikv_core::snapshot::SnapshotOptions;
use tikv_core::txn::CommitOptions;
use tikv_proto::kvrpcpb::Context;
use tikv_sim::cluster::{Effect, Fault};

use crate::world::{KEYS, World, secs, some};

const READS: [RequestKind; 3] = [RequestKind::Get, RequestKind::BatchGet, RequestKind::Scan];
const WRITES: [RequestKind; 2] = [RequestKind::Prewrite, RequestKind::Commit];

/// Writes down what it sees, under its name.
struct Log {
    name: &'static str,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Log {
    fn new(name: &'static str, lines: &Arc<Mutex<Vec<String>>>) -> Arc<Self> {
        Arc::new(Log { name, lines: Arc::clone(lines) })
    }

    fn write(&self, request: RequestKind, what: &str) {
        let line = format!("{} {request:?} {what}", self.name);
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }
}

impl Interceptor for Log {
    fn before(&self, rpc: &mut OutgoingRpc<'_>) {
        assert!(rpc.store_id > 0 && rpc.context.region_id > 0 && rpc.address.contains(':'));
        self.write(rpc.request, "begins");
    }

    fn after(&self, rpc: &EndedRpc<'_>) {
        let how = match rpc.reply {
            Some(Ok(response)) => {
                assert_eq!(response.kind(), rpc.request);
                "is answered"
            }
            Some(Err(_)) => "fails",
            None => "is forgotten",
        };
        self.write(rpc.request, how);
    }
}

fn taken(lines: &Mutex<Vec<String>>) -> Vec<String> {
    std::mem::take(&mut lines.lock().unwrap_or_else(PoisonError::into_inner))
}

/// client-go: `TestInterceptor`.
#[test]
fn who_looks_sees_every_request_and_its_end() {
    let world = World::new();
    let lines = Arc::default();
    let client = world.client.with_interceptor(Log::new("log", &lines));
    let txn = world.run(client.begin()).expect("PD answers");
    txn.put(KEYS[0], "v").expect("open");
    world.run(txn.commit()).expect("nothing is in the way");
    let both = |name: &str| [format!("log {name} begins"), format!("log {name} is answered")];
    assert_eq!(taken(&lines), [both("Prewrite"), both("Commit")].concat());
    let snapshot = world.run(client.snapshot()).expect("PD answers");
    assert_eq!(world.run(snapshot.get(KEYS[0])).expect("readable"), Some("v".into()));
    assert_eq!(taken(&lines), both("Get"));
    assert_eq!(world.read(KEYS[0]), some("v"));
    world.run(client.raw().put("raw", "v")).expect("nothing is in the way");
    assert_eq!(taken(&lines), both("RawPut"), "what other handles of the client do is not shown");
}

#[test]
fn what_is_done_in_the_background_is_shown_too() {
    let world = World::new();
    let lines = Arc::default();
    let client = world.client.with_interceptor(Log::new("log", &lines));
    let txn = world.run(client.begin()).expect("PD answers");
    KEYS.iter().for_each(|key| txn.put(*key, "v").expect("open"));
    world.run(txn.commit()).expect("nothing is in the way");
    world.until(|world| world.locks().is_empty());
    world.pass(secs(1));
    let seen = taken(&lines);
    let count = |line: &str| seen.iter().filter(|seen| *seen == line).count();
    assert_eq!([count("log Commit begins"), count("log Commit is answered")], [3, 3], "{seen:?}");
}

#[test]
fn who_looks_first_sees_the_end_last() {
    let world = World::new();
    let lines = Arc::default();
    let outer = world.client.with_interceptor(Log::new("outer", &lines));
    let inner = outer.with_interceptor(Log::new("inner", &lines));
    world.run(inner.raw().get("k")).expect("readable");
    let expected =
        ["outer RawGet begins", "inner RawGet begins", "inner RawGet is answered", "outer RawGet is answered"];
    assert_eq!(taken(&lines), expected);
    world.run(outer.raw().get("k")).expect("readable");
    assert_eq!(taken(&lines), [expected[0], expected[3]]);
}

#[test]
fn each_attempt_is_shown_and_how_it_failed() {
    let world = World::with_config(|config| config.call_timeout = secs(1));
    world.write(&KEYS, "v");
    let lines = Arc::default();
    let client = world.client.with_interceptor(Log::new("log", &lines));
    world.inject(Fault::new(Effect::Lose).on(RequestKind::Get));
    let snapshot = world.run(client.snapshot()).expect("PD answers");
    assert_eq!(world.run(snapshot.get(KEYS[0])).expect("readable"), Some("v".into()));
    let expected = ["log Get begins", "log Get fails", "log Get begins", "log Get is answered"];
    assert_eq!(taken(&lines), expected);
    world.inject(Fault::new(Effect::Lose).on(RequestKind::Get).forever());
    let given_up =
        async { futures::future::select(Box::pin(snapshot.get(KEYS[1])), world.runtime.sleep(secs(0))).await };
    drop(world.run(given_up));
    assert_eq!(taken(&lines), ["log Get begins", "log Get is forgotten"]);
}

/// All contexts of requests of these kinds, at least one of each.
fn contexts(world: &World, kinds: &[RequestKind]) -> Vec<Context> {
    let mut contexts = Vec::new();
    for kind in kinds {
        let seen = world.seen(*kind);
        assert!(!seen.is_empty(), "{kind:?}");
        contexts.extend(seen.into_iter().map(|seen| seen.context));
    }
    contexts
}

/// Reads in all ways, writes and commits.
fn use_all(world: &World, client: &Client, options: TransactionOptions) {
    world.forget_seen();
    let txn: Transaction = world.run(client.begin_with(options)).expect("PD answers");
    world.run(txn.get(KEYS[0])).expect("readable");
    world.run(txn.batch_get(KEYS)).expect("readable");
    world.run(txn.scan::<&str>(.., 10)).expect("readable");
    KEYS.iter().for_each(|key| txn.put(*key, "v").expect("open"));
    world.run(txn.commit()).expect("nothing is in the way");
    world.until(|world| world.locks().is_empty());
}

/// client-go: `TestResourceGroupTag`, `TestResourceGroupName`, `TestRequestPriority`.
#[test]
fn tag_group_and_priority_go_with_every_request() {
    let world = World::new();
    let reads = |options: SnapshotOptions| {
        options.resource_group_tag("tag".into()).resource_group("group").priority(Priority::Low)
    };
    let commit = |mut options: CommitOptions| {
        options.priority = CommandPri::High;
        options.call = options.call.with_context(|context| {
            context.resource_group_tag = "tag".into();
            context.resource_control_context.get_or_insert_default().resource_group_name = "group".to_owned();
        });
        options
    };
    use_all(&world, &world.client, TransactionOptions::default().reads(reads).commit(commit));
    let is_marked = |context: &Context| {
        let group = context.resource_control_context.as_ref().map(|control| &*control.resource_group_name);
        context.resource_group_tag == "tag" && group == Some("group")
    };
    for (kinds, priority) in [(&READS[..], CommandPri::Low), (&WRITES[..], CommandPri::High)] {
        let contexts = contexts(&world, kinds);
        assert!(contexts.iter().all(|context| is_marked(context) && context.priority() == priority), "{contexts:?}");
    }
}

/// Tags requests that have none by what they are. client-go: `SetResourceGroupTagger`.
struct Tagger;

impl Interceptor for Tagger {
    fn before(&self, rpc: &mut OutgoingRpc<'_>) {
        if rpc.context.resource_group_tag.is_empty() {
            rpc.context.resource_group_tag = format!("{:?}", rpc.request).into();
        }
    }
}

#[test]
fn what_an_interceptor_changes_is_sent() {
    let world = World::new();
    let reads = |options: SnapshotOptions| options.resource_group_tag("tag".into());
    use_all(&world, &world.client.with_interceptor(Arc::new(Tagger)), TransactionOptions::default().reads(reads));
    assert!(contexts(&world, &READS).iter().all(|context| context.resource_group_tag == "tag"));
    for kind in WRITES {
        assert!(contexts(&world, &[kind]).iter().all(|context| context.resource_group_tag == format!("{kind:?}")));
    }
}
