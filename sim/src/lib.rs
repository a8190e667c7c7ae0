//! A simulated TiKV and PD cluster: deterministic, in process or served on TCP.
