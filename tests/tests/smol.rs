//! The suite on smol.

use std::pin::Pin;

use tikv_tests::world::Rt;
use tikv_transport_smol::Smol;

fn run(scenario: impl FnOnce(Rt) -> Pin<Box<dyn Future<Output = ()>>>) {
    let rt = Rt::new(Smol::new());
    smol::block_on(rt.run(scenario(rt.clone())));
}

tikv_tests::for_each_scenario!(crate::run);
