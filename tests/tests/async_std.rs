//! The suite on async-std.

use std::pin::Pin;

use tikv_tests::world::Rt;
use tikv_transport_async_std::AsyncStd;

fn run(scenario: impl FnOnce(Rt) -> Pin<Box<dyn Future<Output = ()>>>) {
    let rt = Rt::new(AsyncStd::new());
    async_std::task::block_on(rt.run(scenario(rt.clone())));
}

tikv_tests::for_each_scenario!(crate::run);
