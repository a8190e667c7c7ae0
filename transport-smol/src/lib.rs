//! The smol runtime for the tikv client.
