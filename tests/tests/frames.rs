//! What travels together, on virtual time: there nothing but the client decides it.

use futures::future::join_all;
use tikv_sim::runtime::{Simulation, SimulationOptions};
use tikv_tests::world::Rt;

#[test]
fn a_thousand_gets_leave_in_a_few_writes() {
    let mut simulation = Simulation::new(SimulationOptions::default());
    let (client, rt) = (simulation.client(), Rt::new(simulation.runtime()));
    let writes = simulation.run(async {
        let raw = client.connect(rt.clone()).await.unwrap().raw();
        raw.batch_put((0..1_000).map(|index| (format!("{index:03}"), format!("value {index}")))).await.unwrap();
        let before = rt.writes();
        let values = join_all((0..1_000).map(|index| raw.get(format!("{index:03}")))).await;
        assert!(values.into_iter().all(|value| value.unwrap().is_some()));
        rt.writes() - before
    });
    let writes = writes.unwrap();
    assert!(writes < 30, "1000 gets took {writes} writes");
}
