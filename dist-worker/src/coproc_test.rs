use super::*;
use crate::testing::{Model, OWN, command_as_before, inbox_route, owned, routes, run};
use base_kv_api::testing::CoprocHarness;
use base_types::WallMs;
use proptest::prelude::*;

fn harness() -> CoprocHarness<DistCoproc> {
    CoprocHarness::new(|| DistCoproc::new(OWN).0)
}

fn apply(replica: &mut CoprocHarness<DistCoproc>, op: Op, routes: &[Route]) {
    for (_, command) in Command::encode(op, routes) {
        assert_eq!(*replica.apply(WallMs(0), command), [Reply::Done as u8]);
    }
}

/// What stands under the key of a route.
fn stored(replica: &CoprocHarness<DistCoproc>, route: &Route) -> Option<Route> {
    let mut key = Vec::new();
    schema::encode_key(route, &mut key);
    let value = replica.space().get(&key).unwrap()?;
    Some(schema::decode(key.into(), value).unwrap())
}

fn runs(model: &Model) -> Vec<(NodeIncarnation, usize)> {
    let mut runs = BTreeMap::new();
    for route in model.routes() {
        if let Receiver::Node(run) = route.receiver {
            *runs.entry(run).or_default() += 1;
        }
    }
    runs.into_iter().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Against a list of routes; the harness compares with replicas that restart and replay.
    #[test]
    fn it_behaves_like_a_list_of_routes(
        commands in prop::collection::vec(
            (prop::sample::select(&[Op::Add, Op::Remove, Op::Forget]), prop::bool::weighted(0.2), prop::collection::vec(routes(), 1..6)),
            0..30,
        ),
    ) {
        let mut replica = harness();
        let mut model = Model::default();
        for (op, old, routes) in &commands {
            if *old {
                prop_assert_eq!(&*replica.apply(WallMs(0), command_as_before(*op, routes)), [Reply::Done as u8]);
                routes.iter().for_each(|route| model.change_as_before(route, *op == Op::Add));
            } else {
                apply(&mut replica, *op, routes);
                routes.iter().for_each(|route| model.change_guarded(route, *op == Op::Add));
            }
        }
        replica.check();
        for route in model.routes() {
            prop_assert_eq!(stored(&replica, route), Some(route.clone()));
        }
        let index = &replica.coproc().index;
        model.check(index);
        prop_assert_eq!(index.route_count(), model.routes().count());
        prop_assert_eq!(index.runs(), runs(&model));
        prop_assert_eq!(replica.space().len(), model.routes().count());

        let (mut restarted, index) = DistCoproc::new(OWN);
        restarted.reset(replica.space()).unwrap();
        model.check(&index);
        prop_assert_eq!(index.route_count(), model.routes().count());
        prop_assert_eq!(index.runs(), runs(&model));
    }

    /// Routes to nodes come in, once; those to inboxes of another lineage lead nowhere.
    #[test]
    fn a_lineage_is_adopted_once(one in prop::collection::vec(routes(), 0..20), other in prop::collection::vec(routes(), 0..20), piece in 1usize..4) {
        let [mut winner, mut loser] = [harness(), harness()];
        let mut model = Model::default();
        apply(&mut winner, Op::Add, &one);
        apply(&mut loser, Op::Add, &other);
        one.iter().for_each(|route| model.change_guarded(route, true));
        other.iter().filter(|route| matches!(route.receiver, Receiver::Node(_))).for_each(|route| model.change(route, true));
        for _ in 0..2 {
            let mut after = Vec::new();
            loop {
                let mut commands = Vec::new();
                let from = RangeId { id: 0, lineage: 7, epoch: 1 };
                loser.coproc().adopt(from, loser.space(), &after.clone(), &mut |place, command| {
                    after = place.to_vec();
                    commands.push(command);
                    if commands.len() < piece { Visit::More } else { Visit::Enough }
                }).unwrap();
                if commands.is_empty() {
                    break;
                }
                for command in commands {
                    prop_assert_eq!(&*winner.apply(WallMs(0), command), [Reply::Done as u8]);
                }
            }
            model.check(&winner.coproc().index);
            prop_assert_eq!(winner.space().len(), model.routes().count());
        }
        winner.check();
    }

    #[test]
    fn commands_that_make_no_sense_change_nothing(bytes in prop::collection::vec(any::<u8>(), 0..40), cut in 1usize..20) {
        let mut replica = harness();
        replica.apply(WallMs(0), bytes);
        let (_, command) = Command::encode(Op::Add, &vec![inbox_route("t", "a/b", "c", 1); 2]).pop().unwrap();
        let reply = replica.apply(WallMs(0), command.slice(..command.len() - cut));
        prop_assert_eq!(&*reply, [Reply::NotUnderstood as u8]);
        prop_assert!(replica.space().is_empty());
    }
}

#[test]
fn a_newer_life_of_an_inbox_replaces_the_older_and_not_the_other_way_round() {
    let mut replica = harness();
    let lives = |replica: &CoprocHarness<DistCoproc>| {
        let mut found = dist_api::Matches::default();
        let index = &replica.coproc().index;
        index.matches(&base_types::TenantId::new("t").unwrap(), &crate::testing::topic("a"), &mut found);
        found.inboxes.iter().map(|inbox| inbox.incarnation).collect::<Vec<_>>()
    };
    let life = |incarnation| [inbox_route("t", "a", "c", incarnation)];
    apply(&mut replica, Op::Add, &life(2));
    apply(&mut replica, Op::Add, &life(1));
    assert_eq!(lives(&replica), [2]);
    apply(&mut replica, Op::Remove, &life(1));
    assert_eq!(lives(&replica), [2]);
    apply(&mut replica, Op::Add, &life(3));
    assert_eq!(lives(&replica), [3]);
    apply(&mut replica, Op::Remove, &life(3));
    assert!(lives(&replica).is_empty());
    replica.check();
}

#[test]
fn the_late_remove_of_a_former_owner_leaves_the_route_of_the_present_one() {
    let mut replica = harness();
    let route = |attach| owned(inbox_route("t", "a", "c", 1), attach);
    apply(&mut replica, Op::Add, &[route(1)]);
    // The session moves and subscribes to the same again, with the same options.
    apply(&mut replica, Op::Add, &[route(2)]);
    apply(&mut replica, Op::Remove, &[route(1)]);
    assert_eq!(stored(&replica, &route(2)), Some(route(2)));
    assert_eq!(replica.coproc().index.route_count(), 1);
    apply(&mut replica, Op::Remove, &[route(3)]);
    assert_eq!((stored(&replica, &route(2)), replica.coproc().index.route_count()), (None, 0));
    replica.check();
}

#[test]
fn the_late_add_of_a_former_owner_does_not_replace_what_the_present_one_subscribed_with() {
    let mut replica = harness();
    let options = SubscriptionOptions { no_local: true, ..SubscriptionOptions::default() };
    let mut present = owned(inbox_route("t", "a", "c", 1), 2);
    if let Receiver::Inbox { options: of_present, .. } = &mut present.receiver {
        *of_present = options;
    }
    apply(&mut replica, Op::Add, &[present.clone()]);
    apply(&mut replica, Op::Add, &[owned(inbox_route("t", "a", "c", 1), 1)]);
    assert_eq!(stored(&replica, &present), Some(present));
    let mut found = dist_api::Matches::default();
    replica.coproc().index.matches(&base_types::TenantId::new("t").unwrap(), &crate::testing::topic("a"), &mut found);
    assert_eq!(found.inboxes[0].options, options);
    replica.check();
}

#[test]
fn attaches_count_within_a_life_only() {
    let mut replica = harness();
    let route = |life, attach| owned(inbox_route("t", "a", "c", life), attach);
    apply(&mut replica, Op::Add, &[route(1, 9)]);
    apply(&mut replica, Op::Add, &[route(2, 1)]);
    apply(&mut replica, Op::Remove, &[route(1, Receiver::ANY_OWNER)]);
    assert_eq!(stored(&replica, &route(2, 1)), Some(route(2, 1)));
    apply(&mut replica, Op::Remove, &[route(2, Receiver::ANY_OWNER)]);
    assert_eq!(stored(&replica, &route(2, 1)), None);
    replica.check();
}

#[test]
fn commands_from_before_ownerships_count_as_they_did() {
    let mut replica = harness();
    let route = |attach| owned(inbox_route("t", "a", "c", 1), attach);
    let before = |replica: &mut CoprocHarness<DistCoproc>, op| {
        assert_eq!(*replica.apply(WallMs(0), command_as_before(op, &[route(0)])), [Reply::Done as u8]);
        stored(replica, &route(0))
    };
    assert_eq!(before(&mut replica, Op::Add), Some(route(0)));
    assert_eq!(before(&mut replica, Op::Remove), None);
    apply(&mut replica, Op::Add, &[route(5)]);
    assert_eq!(before(&mut replica, Op::Add), Some(route(0)));
    apply(&mut replica, Op::Add, &[route(5)]);
    assert_eq!(before(&mut replica, Op::Remove), None);
    assert_eq!(before(&mut replica, Op::Add), Some(route(0)));
    apply(&mut replica, Op::Remove, &[route(1)]);
    assert_eq!(stored(&replica, &route(0)), None);
    replica.check();
}

#[test]
fn a_stored_route_that_cannot_be_read_stops_the_replica() {
    let mut space = base_kv_api::testing::MemSpace::default();
    space.put(&[KeyKind::Route as u8, 200], b"x");
    assert!(DistCoproc::new(run(1, 1)).0.reset(&space).is_err());
}
