//! Raw keys.

use bytes::Bytes;
use tikv::Error;
use tikv_core::request::RequestKind;
use tikv_sim::cluster::{Effect, Fault, region_error};

use crate::world::{World, secs};

/// T11: a second attempt would compare with what the first one wrote.
#[test]
fn a_compare_and_swap_whose_answer_is_lost_is_not_repeated() {
    let unknown = || Effect::RegionErrorAfter(Box::new(region_error::undetermined_result()));
    for effect in [Effect::LoseReply, Effect::Lose, Effect::Crash, unknown()] {
        let world = World::with_config(|config| config.call_timeout = secs(1));
        let raw = world.client.raw().with_atomic(true);
        world.run(raw.put("k", "1")).expect("nothing is in the way");
        world.inject(Fault::new(effect.clone()).on(RequestKind::RawCompareAndSwap));
        let result = world.run(raw.compare_and_swap("k", Some("1".into()), "2"));
        let error = result.expect_err("nobody knows");
        assert!(matches!(error, Error::UndeterminedWrite { .. }) && error.is_undetermined(), "{effect:?}: {error}");
        assert_eq!(world.count(RequestKind::RawCompareAndSwap), 1, "{effect:?}");
        world.pass(secs(2));
        let value = world.run(raw.get("k")).expect("another leader is elected");
        assert_eq!(value, Some(Bytes::from(if effect == Effect::Lose { "1" } else { "2" })));
    }
}

/// What says that nothing was done leaves no doubt.
#[test]
fn a_compare_and_swap_that_no_store_has_executed_is_repeated() {
    let world = World::new();
    let raw = world.client.raw().with_atomic(true);
    let elsewhere = Effect::RegionError(Box::new(region_error::region_not_found(1)));
    world.inject(Fault::new(elsewhere).on(RequestKind::RawCompareAndSwap).times(2));
    let swapped = world.run(raw.compare_and_swap("k", None, "1")).expect("the third attempt succeeds");
    assert!(swapped.swapped, "{swapped:?}");
    assert_eq!(world.count(RequestKind::RawCompareAndSwap), 3);
}
