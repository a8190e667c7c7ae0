//! A simulated TiKV and PD cluster: deterministic, in process or served on TCP.

#![forbid(unsafe_code)]

pub mod storage;
