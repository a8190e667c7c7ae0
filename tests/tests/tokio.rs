//! The suite on tokio.

use std::pin::Pin;

use tikv_tests::world::Rt;
use tikv_transport_tokio::Tokio;
use tokio::runtime::Builder;

fn run(scenario: impl FnOnce(Rt) -> Pin<Box<dyn Future<Output = ()>>>) {
    let tokio = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let rt = Rt::new(Tokio::new(tokio.handle().clone()));
    tokio.block_on(rt.run(scenario(rt.clone())));
}

tikv_tests::for_each_scenario!(crate::run);
