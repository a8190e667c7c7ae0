//! Wire types of TiKV and PD: protocol buffer messages as plain Rust structs, and nothing else.
//!
//! The messages are compiled from the `.proto` files in this crate's `proto/` folder, one module per protocol package.
//! They cover all that a client of TiKV, TiFlash or PD sends and receives, and what a simulated cluster needs to answer.
//! Services are listed in the `.proto` files for their method names; no client or server code is generated.
//!
//! - `bytes` fields are [`bytes::Bytes`]: decoding from a `Bytes` frame shares the frame, cloning a message shares it too.
//! - Maps are `BTreeMap`: iteration and encoding are deterministic.
//! - Large optional messages are boxed ([`kvrpcpb::Context`], [`errorpb::Error`], [`kvrpcpb::KeyError`],
//!   [`kvrpcpb::LockInfo`], [`kvrpcpb::ExecDetails`] and [`kvrpcpb::ExecDetailsV2`]), so that requests and replies stay
//!   cheap to move.
//! - Every message is `Clone`, `Debug`, `Default`, `PartialEq`, `Eq` and `Hash`. Of the few floats (resource accounting),
//!   a NaN is not equal to itself; no server sends one.
//! - Names are Rust's: `GCRequest` is [`kvrpcpb::GcRequest`], enumeration fields are `i32` with typed getters and setters.
//!
//! ```
//! use prost::Message;
//! use tikv_proto::kvrpcpb::RawGetRequest;
//!
//! let request = RawGetRequest { key: "k".into(), ..Default::default() };
//! let frame = bytes::Bytes::from(request.encode_to_vec());
//! assert_eq!(RawGetRequest::decode(frame), Ok(request));
//! ```

mod wire;

/// Declares a module of generated messages. What a message and its fields mean is the protocol's matter, hence no docs.
macro_rules! package {
    ($(#[$doc:meta])* $module:ident, $file:literal) => {
        $(#[$doc])*
        #[allow(missing_docs, unused_qualifications, unreachable_pub, deprecated, clippy::all, rustdoc::all)]
        pub mod $module {
            include!(concat!(env!("OUT_DIR"), "/", $file));
        }
    };
}

package!(
    /// Identity of a keyspace (API v3).
    apipb,
    "apipb.rs"
);
package!(
    /// Pushed-down computation on TiKV and TiFlash.
    coprocessor,
    "coprocessor.rs"
);
package!(
    /// The wait-for graph and its service.
    deadlock,
    "deadlock.rs"
);
package!(
    /// Properties of a region's tables.
    debugpb,
    "debugpb.rs"
);
package!(
    /// Encryption at rest, as far as [`metapb::Region`] names it.
    encryptionpb,
    "encryptionpb.rs"
);
package!(
    /// The raft types which PD's messages name.
    eraftpb,
    "eraftpb.rs"
);
package!(
    /// Region errors: what a store says when a request does not fit its regions.
    errorpb,
    "errorpb.rs"
);
package!(
    /// etcd's member list and key-value calls, as served by PD.
    etcdserverpb,
    "etcdserverpb.rs"
);
package!(
    /// The standard gRPC health service (`grpc.health.v1`).
    health,
    "grpc.health.v1.rs"
);
package!(
    /// Keyspaces and namespaces.
    keyspacepb,
    "keyspacepb.rs"
);
package!(
    /// The key-value API of TiKV.
    kvrpcpb,
    "kvrpcpb.rs"
);
package!(
    /// The watched key-value store inside PD.
    meta_storagepb,
    "meta_storagepb.rs"
);
package!(
    /// Stores, regions, peers and epochs.
    metapb,
    "metapb.rs"
);
package!(
    /// Massively parallel processing on TiFlash.
    mpp,
    "mpp.rs"
);
package!(
    /// A key of etcd's store.
    mvccpb,
    "mvccpb.rs"
);
package!(
    /// The placement driver.
    pdpb,
    "pdpb.rs"
);
package!(
    /// A region's local state in store reports.
    raft_serverpb,
    "raft_serverpb.rs"
);
package!(
    /// Replication across data centres.
    replication_modepb,
    "replication_modepb.rs"
);
package!(
    /// Resource groups and request units.
    resource_manager,
    "resource_manager.rs"
);
package!(
    /// The frames of BatchCommands.
    tikvpb,
    "tikvpb.rs"
);
package!(
    /// Tracing contexts and spans.
    tracepb,
    "tracepb.rs"
);
package!(
    /// The separate timestamp service.
    tsopb,
    "tsopb.rs"
);
