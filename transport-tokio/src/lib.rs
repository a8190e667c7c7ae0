//! The tokio runtime for the tikv client.
