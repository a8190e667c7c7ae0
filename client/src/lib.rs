//! A client for TiKV: raw and transactional, on any async runtime.
