use super::*;
use crate::testing::{Model, OWN, inbox_route, routes, run};
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
        commands in prop::collection::vec((prop::sample::select(&[Op::Add, Op::Remove, Op::Forget]), prop::collection::vec(routes(), 1..6)), 0..30),
    ) {
        let mut replica = harness();
        let mut model = Model::default();
        for (op, routes) in &commands {
            apply(&mut replica, *op, routes);
            for route in routes {
                model.change_guarded(route, *op == Op::Add);
            }
        }
        replica.check();
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
fn a_stored_route_that_cannot_be_read_stops_the_replica() {
    let mut space = base_kv_api::testing::MemSpace::default();
    space.put(&[KeyKind::Route as u8, 200], b"x");
    assert!(DistCoproc::new(run(1, 1)).0.reset(&space).is_err());
}
