//! What the promises of QoS 1 and 2 come to when links break and servers die at any moment (design P1 to P3).

use crate::pair::{Failure, Pair, Step};
use base_types::QoS;
use proptest::prelude::*;

fn run(steps: &[Step]) -> Pair {
    let mut pair = Pair::new();
    for step in steps {
        pair.step(*step);
    }
    pair.drive();
    pair.check();
    pair
}

#[test]
fn messages_pass_both_ways() {
    let mut steps = vec![Step::Pass(100)];
    for _ in 0..50 {
        steps.extend([
            Step::Publish(QoS::ExactlyOnce),
            Step::Insert(QoS::ExactlyOnce),
            Step::Publish(QoS::AtLeastOnce),
        ]);
        steps.push(Step::Insert(QoS::AtLeastOnce));
    }
    let pair = run(&steps);
    assert_eq!(pair.published.len(), 100);
    assert_eq!(pair.client.delivered.len(), 100);
    assert_eq!(pair.client.largest_window, 5, "the window is used");
}

#[test]
fn a_cut_at_any_millisecond_of_an_exchange_breaks_no_promise() {
    for step in [Step::Cut, Step::Crash, Step::Leave] {
        for ms in 0..120 {
            let mut steps = vec![Step::Pass(100)];
            for qos in [QoS::ExactlyOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
                steps.extend([Step::Publish(qos), Step::Insert(qos), Step::Pass(3)]);
            }
            steps.extend([Step::Pass(ms), step, Step::Insert(QoS::ExactlyOnce)]);
            run(&steps);
        }
    }
}

/// Without failures of the store, so that the order counts too.
fn step() -> impl Strategy<Value = Step> {
    let qos = prop_oneof![Just(QoS::AtLeastOnce), Just(QoS::ExactlyOnce)];
    prop_oneof![
        4 => qos.clone().prop_map(Step::Publish),
        4 => qos.prop_map(Step::Insert),
        6 => (0..40u8).prop_map(Step::Pass),
        1 => Just(Step::Cut),
        1 => Just(Step::Leave),
        1 => Just(Step::Crash),
    ]
}

fn step_or_failure() -> impl Strategy<Value = Step> {
    let failure = prop_oneof![Just(Failure::Lost), Just(Failure::Stored), Just(Failure::Refused)];
    prop_oneof![15 => step(), 1 => failure.prop_map(Step::Fail)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_breaks_the_promises_hold(steps in prop::collection::vec(step(), 0..120)) {
        run(&steps);
    }

    #[test]
    fn when_the_store_fails_too_nothing_is_lost_or_doubled(steps in prop::collection::vec(step_or_failure(), 0..120)) {
        run(&steps);
    }
}
