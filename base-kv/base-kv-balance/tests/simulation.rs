//! Policies on model clusters: many seeds, faults, old views.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod world;

use base_kv_api::balance::Command;
use std::time::Duration;
use world::{TICK, World};

/// Seeds of each test; `HERMOD_SIM_SEEDS` asks for more, `HERMOD_SIM_SEED` for one.
fn seeds(default: u64) -> std::ops::Range<u64> {
    if let Some(seed) = std::env::var("HERMOD_SIM_SEED").ok().and_then(|seed| seed.parse().ok()) {
        return seed..seed + 1;
    }
    0..std::env::var("HERMOD_SIM_SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(default)
}

fn run(world: &mut World, time: Duration) {
    let end = world.now + time;
    while world.now < end {
        world.tick();
    }
}

/// Without a fault nothing is done for five minutes, and what there is is what should be.
fn assert_settled(world: &mut World, seed: u64) {
    let took = world.settle(Duration::from_secs(400));
    assert_eq!(world.unfinished(), None, "seed {seed}");
    let bound = 12 * world.nodes.len() * world.ranges as usize;
    assert!(took <= bound, "seed {seed}: {took} commands to settle");
    world.step = 4 * TICK;
    // Leaders rest for a minute before they are spread, each range once.
    let before = world.done.len();
    run(world, Duration::from_secs(100));
    let moves = &world.done[before..];
    let spread = moves.iter().all(|(_, _, command)| matches!(command, Command::TransferLeader { .. }));
    assert!(spread && moves.len() <= world.ranges as usize, "seed {seed}: it moves though nothing happens: {moves:?}");
    let before = world.done.len();
    run(world, Duration::from_secs(100));
    assert_eq!(world.done[before..], [], "seed {seed}: it moves though nothing happens");
    assert_eq!(world.unfinished(), None, "seed {seed}");
}

#[test]
fn nodes_that_start_in_any_order_make_each_range_once() {
    for seed in seeds(250) {
        let mut world = World::new(seed, 1 + seed as usize % 5, 3, -1, 1 + seed % 2);
        let mut starts: Vec<u64> = (0..world.nodes.len()).map(|_| world.rng.below(20) as u64).collect();
        starts[0] = 0;
        for second in 0..20 {
            for (node, start) in starts.iter().enumerate() {
                if *start == second {
                    world.start(node);
                }
            }
            run(&mut world, Duration::from_secs(1));
        }
        assert_settled(&mut world, seed);
        assert_eq!(world.made, world.ranges as usize, "seed {seed}");
    }
}

#[test]
fn a_majority_of_the_seeds_makes_each_range_once_and_the_rest_joins_it() {
    for seed in seeds(200) {
        let nodes = 3 + 2 * (seed as usize % 2);
        let mut world = World::new(seed, nodes, 3, -1, 1);
        for node in 0..nodes / 2 + 1 {
            world.start(node);
        }
        run(&mut world, Duration::from_secs(10));
        for node in nodes / 2 + 1..nodes {
            world.start(node);
            run(&mut world, Duration::from_secs(2));
        }
        assert_settled(&mut world, seed);
        assert_eq!(world.made, 1, "seed {seed}");
    }
}

#[test]
fn halves_that_each_made_the_range_become_one() {
    for seed in seeds(100) {
        let nodes = 2 + seed as usize % 4;
        let mut world = World::new(seed, nodes, 3, -1, 1);
        for node in 0..nodes {
            world.nodes[node].part = world.rng.below(2);
            world.start(node);
        }
        run(&mut world, Duration::from_secs(30));
        for node in 0..nodes {
            world.nodes[node].part = 0;
        }
        assert_settled(&mut world, seed);
        let merges = world.done.iter().filter(|(_, _, command)| matches!(command, Command::Merge { .. })).count();
        assert_eq!(world.made - merges, 1, "seed {seed}");
    }
}

#[test]
fn kills_restarts_wipes_and_drains_never_cost_a_majority() {
    for seed in seeds(300) {
        let mut world = World::new(
            seed,
            3 + seed as usize % 4,
            [1, 3, 3, 5][seed as usize % 4],
            [-1, 0, 1][seed as usize % 3],
            1 + seed % 3,
        );
        for node in 0..world.nodes.len() {
            world.start(node);
        }
        run(&mut world, Duration::from_secs(20));
        world.prompt = false;
        for _ in 0..60 {
            let node = world.rng.below(world.nodes.len());
            match world.rng.below(12) {
                0..3 if world.may_lose(node) => world.kill(node),
                3..7 if !world.nodes[node].up => world.start(node),
                7 if world.may_lose(node) => world.wipe_whole(node),
                8 if world.may_lose(node) => world.wipe_store(node),
                9 if world.nodes[node].up => world.nodes[node].draining = true,
                10 if world.nodes[node].draining && world.may_lose(node) => world.leave(node),
                11 if world.nodes.len() < 8 && world.rng.chance(30) => {
                    let fresh = world.add_node();
                    world.start(fresh);
                }
                _ => {}
            }
            for _ in 0..1 + world.rng.below(16) {
                world.tick();
                for group in &world.groups {
                    let what = || format!("{group:?}, {:#?}", world.done.iter().rev().take(3).collect::<Vec<_>>());
                    assert!(world.has_quorum(group), "seed {seed} at {:?}: lost its majority: {}", world.now, what());
                }
            }
        }
        for node in 0..world.nodes.len() {
            if !world.nodes[node].up || world.nodes[node].draining {
                world.kill(node);
                world.start(node);
            }
        }
        assert_settled(&mut world, seed);
        assert_eq!(world.made, world.ranges as usize, "seed {seed}");
    }
}

#[test]
fn cuts_and_kills_heal() {
    for seed in seeds(200) {
        let mut world = World::new(seed, 3 + seed as usize % 3, [3, 5][seed as usize % 2], -1, 1 + seed % 3);
        for node in 0..world.nodes.len() {
            world.start(node);
        }
        run(&mut world, Duration::from_secs(20));
        world.prompt = false;
        for _ in 0..40 {
            let node = world.rng.below(world.nodes.len());
            match world.rng.below(6) {
                0 | 1 => world.nodes[node].part = world.rng.below(3),
                2 => (0..world.nodes.len()).for_each(|node| world.nodes[node].part = 0),
                3 => world.kill(node),
                4 if !world.nodes[node].up => world.start(node),
                _ => {}
            }
            let time = TICK * (1 + world.rng.below(24) as u32);
            run(&mut world, time);
        }
        for node in 0..world.nodes.len() {
            world.nodes[node].part = 0;
            if !world.nodes[node].up {
                world.start(node);
            }
        }
        assert_settled(&mut world, seed);
        assert_eq!(world.made, world.ranges as usize, "seed {seed}");
    }
}
