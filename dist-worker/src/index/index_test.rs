use super::*;
use crate::testing::{Model, OWN, inbox_route, node_route, routes, run, topic};
use proptest::prelude::*;

fn index_of(routes: &[Route]) -> RouteIndex {
    let index = RouteIndex::new(OWN);
    publish(&index, routes.iter().cloned().map(Change::Add));
    index
}

fn publish(index: &RouteIndex, changes: impl Iterator<Item = Change>) {
    let changes: Vec<_> = changes.collect();
    index.publish(changes.into_iter(), 0, None);
}

fn matches(index: &RouteIndex, name: &str) -> Matches {
    let mut found = Matches::default();
    index.matches(&TenantId::new("t").unwrap(), &topic(name), &mut found);
    found
}

#[test]
fn live_sessions_of_the_own_node_are_left_out_but_not_of_groups() {
    let index = index_of(&[
        node_route("t", "a", OWN),
        node_route("t", "a", run(2, 1)),
        node_route("t", "$share/g/a", OWN),
        node_route("t", "$share/dead/a", run(OWN.node.0, 1)),
    ]);
    let found = matches(&index, "a");
    assert_eq!(found.nodes, [run(2, 1)]);
    assert_eq!(found.groups.len(), 1);
    assert_eq!(*found.groups[0].nodes, [OWN]);
}

#[test]
fn a_node_that_matches_by_two_filters_stands_once() {
    let index = index_of(&[node_route("t", "a/b", run(2, 1)), node_route("t", "a/#", run(2, 1))]);
    assert_eq!(matches(&index, "a/b").nodes, [run(2, 1)]);
}

#[test]
fn an_inbox_that_matches_by_two_filters_stands_twice() {
    let index = index_of(&[inbox_route("t", "a/b", "c", 1), inbox_route("t", "a/#", "c", 1)]);
    assert_eq!(matches(&index, "a/b").inboxes.len(), 2);
}

#[test]
fn the_members_of_a_group_are_shared_until_they_change() {
    let index = index_of(&[inbox_route("t", "$share/g/a", "c", 1)]);
    let (first, second) = (matches(&index, "a"), matches(&index, "a"));
    assert!(Arc::ptr_eq(&first.groups[0].inboxes, &second.groups[0].inboxes));
    publish(&index, [Change::Add(inbox_route("t", "$share/g/a", "d", 1))].into_iter());
    let third = matches(&index, "a");
    assert_eq!((first.groups[0].inboxes.len(), third.groups[0].inboxes.len()), (1, 2));
}

#[test]
fn tenants_do_not_hear_each_other() {
    let index = index_of(&[inbox_route("u", "#", "c", 1), node_route("u", "$share/g/#", run(2, 1))]);
    assert!(matches(&index, "a").is_empty());
}

#[test]
fn nothing_is_left_when_all_routes_are_gone() {
    let all: Vec<_> = (0..100)
        .flat_map(|i| {
            let client = format!("client-{}", i % 7);
            let (normal, shared) = (format!("a/{}", i % 30), format!("$share/g{}/a", i % 3));
            [
                inbox_route("t", &normal, &client, 1),
                inbox_route("t", &shared, &client, 1),
                node_route("t", &normal, run(2, i)),
                node_route("t", &shared, run(2, i)),
            ]
        })
        .collect();
    let index = index_of(&all);
    {
        let state = index.state.read().unwrap();
        let tenant = &state.tenants[&TenantId::new("t").unwrap()];
        assert_eq!((tenant.filters.len(), tenant.clients.len(), state.filters), (31, 7, 31));
    }
    publish(&index, all.into_iter().map(Change::Remove));
    let state = index.state.read().unwrap();
    assert_eq!((state.tenants.len(), state.filters), (0, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Against a list of routes and the matching rule of `base-types`.
    #[test]
    fn it_behaves_like_a_list_of_routes(changes in prop::collection::vec((routes(), any::<bool>()), 0..60)) {
        let index = RouteIndex::new(OWN);
        let mut model = Model::default();
        for (route, add) in &changes {
            model.change(route, *add);
            let route = route.clone();
            publish(&index, std::iter::once(if *add { Change::Add(route) } else { Change::Remove(route) }));
        }
        model.check(&index);
        let mut rebuilt = State::default();
        for route in model.routes() {
            rebuilt.add(route, OWN);
        }
        index.replace(rebuilt, 0, &BTreeMap::new());
        model.check(&index);
    }
}

/// Readers on other threads see a route that stays whatever is changed around it.
#[test]
fn readers_see_what_stays_while_others_come_and_go() {
    let index = index_of(&[inbox_route("t", "a/b", "stays", 1)]);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let found = matches(&index, "a/b");
                    assert_eq!(found.inboxes.iter().filter(|m| m.client.as_str() == "stays").count(), 1);
                }
            });
        }
        for round in 0..8 {
            let others: Vec<_> = (0..300)
                .flat_map(|i| {
                    let client = format!("c{i}");
                    [inbox_route("t", "a/b", &client, round), inbox_route("t", &format!("a/+/{i}"), &client, round)]
                })
                .collect();
            publish(&index, others.iter().cloned().map(Change::Add));
            publish(&index, others.into_iter().map(Change::Remove));
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(matches(&index, "a/b").inboxes.len(), 1);
}
