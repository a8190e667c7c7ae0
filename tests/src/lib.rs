//! Cross-crate tests: scenarios, interoperability, parity ledgers.
