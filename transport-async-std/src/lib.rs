//! The async-std runtime for the tikv client.
