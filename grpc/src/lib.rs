//! gRPC over HTTP/2 for any async runtime.
