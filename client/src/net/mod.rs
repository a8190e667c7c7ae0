//! Connections to PD and to stores.

mod connection;
mod fault;
mod pd;
mod store;

pub(crate) use connection::NetOptions;
pub(crate) use pd::PdService;
pub(crate) use store::{StorePool, Submitted};
