//! Many cores on a network of this file: time, loss, delay and cuts come from a seed.

use super::*;
use crate::member::{MemberEvent, MemberState};
use base_types::Incarnation;
use proptest::prelude::*;

const PORT: u16 = 7000;

/// Address of a node in the simulated network.
fn at(node: u64) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, node as u8], PORT))
}

fn node_at(address: SocketAddr) -> u64 {
    match address {
        SocketAddr::V4(address) => u64::from(address.ip().octets()[3]),
        SocketAddr::V6(_) => 0,
    }
}

fn run(node: u64, incarnation: u64) -> NodeIncarnation {
    NodeIncarnation { node: NodeId(node), incarnation: Incarnation(incarnation) }
}

struct Sim {
    now: Instant,
    start: Instant,
    rng: SmallRng,
    nodes: BTreeMap<u64, Swim>,
    /// Time stands still for these.
    stopped: BTreeSet<u64>,
    incarnations: BTreeMap<u64, u64>,
    under_way: BTreeMap<(Instant, u64), (SocketAddr, SocketAddr, Bytes)>,
    posted: u64,
    /// From, to.
    cut: BTreeSet<(u64, u64)>,
    /// Of packets from or to a node; of all with node 0.
    loss: BTreeMap<u64, f64>,
    captured: Vec<(SocketAddr, SocketAddr, Bytes)>,
    capture: bool,
    /// Who saw what, in order.
    events: BTreeMap<u64, Vec<(Instant, MemberEvent)>>,
}

impl Sim {
    fn new(seed: u64) -> Self {
        let now = Instant::now();
        Self {
            now,
            start: now,
            rng: SmallRng::seed_from_u64(seed),
            nodes: BTreeMap::new(),
            stopped: BTreeSet::new(),
            incarnations: BTreeMap::new(),
            under_way: BTreeMap::new(),
            posted: 0,
            cut: BTreeSet::new(),
            loss: BTreeMap::new(),
            captured: Vec::new(),
            capture: false,
            events: BTreeMap::new(),
        }
    }

    /// Nodes `1..=n`, each with all as seeds, started together.
    fn cluster(seed: u64, n: u64) -> Self {
        let mut sim = Self::new(seed);
        let seeds: Vec<_> = (1..=n).collect();
        for node in 1..=n {
            sim.boot(node, &seeds);
        }
        sim.until(10, "all know all", |sim| sim.is_whole());
        sim
    }

    fn boot(&mut self, node: u64, seeds: &[u64]) {
        self.boot_as(node, seeds, "test", &[Secret::new("s3cret")]);
    }

    fn boot_as(&mut self, node: u64, seeds: &[u64], env: &str, secrets: &[Secret]) {
        let incarnation = self.incarnations.entry(node).or_default();
        *incarnation += 1;
        let names: Vec<_> = seeds.iter().map(|seed| at(*seed).to_string()).collect();
        let options = SwimOptions {
            me: run(node, *incarnation),
            advertised: at(node),
            env,
            secrets,
            seeds: &names,
            chance: self.rng.random(),
            salt: self.rng.random(),
        };
        let mut swim = Swim::new(&options, self.now);
        let resolved = seeds
            .iter()
            .zip(names)
            .map(|(seed, name)| Resolved { name, addresses: Ok(vec![(at(*seed), *seed == node)]) });
        swim.on_resolved(self.now, resolved.collect());
        self.nodes.insert(node, swim);
    }

    fn kill(&mut self, node: u64) {
        self.nodes.remove(&node);
    }

    /// Nothing crosses between the two sides, in both directions.
    fn split(&mut self, left: &[u64], right: &[u64]) {
        for (a, b) in left.iter().flat_map(|a| right.iter().map(move |b| (*a, *b))) {
            self.cut.extend([(a, b), (b, a)]);
        }
    }

    fn post(&mut self, from: SocketAddr, to: SocketAddr, packet: Bytes) {
        if self.capture {
            self.captured.push((from, to, packet.clone()));
        }
        let (a, b) = (node_at(from), node_at(to));
        let loss = [0, a, b].iter().map(|node| self.loss.get(node).copied().unwrap_or_default()).fold(0.0, f64::max);
        if self.cut.contains(&(a, b)) || self.rng.random_bool(loss) {
            return;
        }
        self.posted += 1;
        let delay = Duration::from_micros(self.rng.random_range(100..3000));
        self.under_way.insert((self.now + delay, self.posted), (from, to, packet));
    }

    /// The next thing happens, if it does before `end`.
    fn step(&mut self, end: Instant) -> bool {
        let woken = self.nodes.iter().filter(|(node, _)| !self.stopped.contains(node));
        let woken = woken.map(|(node, swim)| (swim.next().max(self.now), *node)).min();
        let packet = self.under_way.keys().next().map(|(due, _)| *due);
        let Some(next) = [woken.map(|(due, _)| due), packet].into_iter().flatten().min().filter(|next| *next <= end)
        else {
            self.now = end;
            return false;
        };
        self.now = next;
        let touched = if packet == Some(next) {
            let Some((_, (from, to, packet))) = self.under_way.pop_first() else { return true };
            let node = node_at(to);
            if self.stopped.contains(&node) {
                // It waits in the buffer of the socket.
                self.under_way.insert((self.now + Duration::from_millis(100), self.posted), (from, to, packet));
                self.posted += 1;
                return true;
            }
            if let Some(swim) = self.nodes.get_mut(&node) {
                let _ = swim.on_packet(next, from, &mut packet.to_vec());
            }
            node
        } else {
            let Some((_, node)) = woken else { return true };
            if let Some(swim) = self.nodes.get_mut(&node) {
                swim.on_time(next);
            }
            node
        };
        self.collect(touched);
        true
    }

    /// Takes what a core has to say.
    fn collect(&mut self, node: u64) {
        let Some(swim) = self.nodes.get_mut(&node) else { return };
        let packets = swim.take_packets();
        let events = swim.take_events();
        let now = self.now;
        self.events.entry(node).or_default().extend(events.into_iter().map(|event| (now, event)));
        for (to, packet) in packets {
            self.post(at(node), to, packet);
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step(end) {}
    }

    /// How long it took; fails after so many seconds.
    #[track_caller]
    fn until(&mut self, seconds: u64, what: &str, is_so: impl Fn(&Self) -> bool) -> Duration {
        let start = self.now;
        let end = start + Duration::from_secs(seconds);
        while !is_so(self) {
            assert!(self.step(end), "not within {seconds} s: {what}\n{}", self.views());
        }
        self.now - start
    }

    fn views(&self) -> String {
        let view = |(node, swim): (&u64, &Swim)| {
            let of = |m: &Member| format!(" {}.{}={:?}", m.run.node.0, m.run.incarnation.0, m.state);
            let members: String = swim.members().nodes.values().map(of).collect();
            format!("{node} ({:?}):{members}\n", swim.standing)
        };
        self.nodes.iter().map(view).collect()
    }

    fn state(&self, viewer: u64, of: u64) -> Option<MemberState> {
        self.nodes.get(&viewer)?.members().get(NodeId(of)).map(|member| member.state)
    }

    fn incarnation(&self, viewer: u64, of: u64) -> Option<u64> {
        self.nodes.get(&viewer)?.members().get(NodeId(of)).map(|member| member.run.incarnation.0)
    }

    /// Every running node sees exactly the running nodes as live, in their last run.
    fn is_whole(&self) -> bool {
        let all: Vec<_> = self.nodes.keys().copied().collect();
        all.iter().all(|viewer| {
            let live = self.nodes[viewer].members().nodes.values().filter(|member| member.state.is_live());
            live.map(|member| (member.run.node.0, member.run.incarnation.0))
                .eq(all.iter().map(|node| (*node, self.incarnations[node])))
        })
    }

    fn all_see(&self, of: u64, is_so: impl Fn(MemberState) -> bool) -> bool {
        self.nodes.keys().all(|viewer| *viewer == of || self.state(*viewer, of).is_some_and(&is_so))
    }

    fn deaths(&self) -> usize {
        let events = self.events.values().flatten();
        events.filter(|(_, event)| matches!(event, MemberEvent::Dead(_))).count()
    }
}

impl Sim {
    /// How often nodes had to come back under a new generation.
    fn renewals(&self) -> u32 {
        self.nodes.values().map(|swim| swim.foca.identity().generation).sum()
    }
}

fn is_dead(state: MemberState) -> bool {
    matches!(state, MemberState::Dead(_))
}

/// How many times as many seeds as usual: `HERMOD_TEST_SEEDS=50`.
fn seeds(usual: u64) -> std::ops::Range<u64> {
    0..usual * std::env::var("HERMOD_TEST_SEEDS").ok().and_then(|times| times.parse().ok()).unwrap_or(1)
}

/// The longest of many runs, one per seed.
fn longest(runs: u64, measure: impl Fn(u64) -> Duration) -> Duration {
    seeds(runs).map(measure).max().unwrap_or_default()
}

#[test]
fn five_nodes_join_through_any_seed_in_any_order() {
    let time = longest(20, |seed| {
        let mut sim = Sim::new(seed);
        let mut order: Vec<u64> = (1..=5).collect();
        order.shuffle(&mut sim.rng);
        for node in order {
            // One seed that it is not itself: a chain, a star, whatever chance makes; each is connected through node 1.
            let seed = if node == 1 { sim.rng.random_range(2..=5) } else { sim.rng.random_range(1..node) };
            sim.boot(node, &[seed]);
            let pause = Duration::from_millis(sim.rng.random_range(0..3000));
            sim.run(pause);
        }
        sim.until(10, "all know all", Sim::is_whole)
    });
    println!("join, after the last start: {time:?}");
}

#[test]
fn nodes_join_though_the_first_seed_is_dead() {
    let mut sim = Sim::new(1);
    for node in 2..=4 {
        sim.boot(node, &[1, 2, 3]);
    }
    let time = sim.until(10, "all know all", Sim::is_whole);
    println!("join, first seed dead: {time:?}");
    let now = sim.now;
    let swim = sim.nodes.get_mut(&2).unwrap();
    assert_eq!(swim.joined(|_| true, now), Joined::Majority);
    assert!(matches!(swim.joined(|_| false, now), Joined::Looking { .. }), "facts are part of it");
    assert_eq!(swim.problems(now), []);
}

#[test]
fn a_node_without_other_seeds_is_alone() {
    let mut sim = Sim::new(1);
    sim.boot(1, &[1]);
    sim.run(Duration::from_secs(10));
    let now = sim.now;
    let swim = sim.nodes.get_mut(&1).unwrap();
    assert_eq!((swim.joined(|_| true, now), swim.problems(now)), (Joined::Alone, vec![]));
}

#[test]
fn a_node_that_reaches_no_seed_says_so_and_goes_on_looking() {
    let mut sim = Sim::new(1);
    sim.boot(1, &[1, 2, 3]);
    sim.run(Duration::from_millis(5500));
    let problems = sim.nodes[&1].problems(sim.now);
    let text = problems.iter().map(Problem::to_string).collect::<String>();
    assert!(text.contains("10.0.0.2:7000: no answer; 10.0.0.3:7000: no answer"), "{text}");
    let (now, start) = (sim.now, sim.start);
    assert_eq!(sim.nodes.get_mut(&1).unwrap().joined(|_| true, now), Joined::Looking { since: start });
    sim.run(Duration::from_secs(3600));
    sim.boot(3, &[1, 2, 3]);
    sim.until(6, "both know both", Sim::is_whole);
    sim.run(Duration::from_secs(1));
    assert_eq!(sim.nodes[&1].problems(sim.now), []);
}

#[test]
fn a_crash_is_known_to_all_within_five_seconds() {
    for n in [2, 3, 5, 9] {
        let time = longest(20, |seed| {
            let mut sim = Sim::cluster(seed, n);
            let pause = Duration::from_millis(sim.rng.random_range(0..5000));
            sim.run(pause);
            sim.kill(1);
            sim.until(5, "all know it", |sim| sim.all_see(1, is_dead))
        });
        println!("{n} nodes, crash known to all: {time:?}");
    }
}

#[test]
fn two_of_five_that_crash_together_are_both_known_within_five_seconds() {
    let time = longest(20, |seed| {
        let mut sim = Sim::cluster(seed, 5);
        sim.kill(1);
        sim.kill(2);
        sim.until(5, "all know it", |sim| sim.all_see(1, is_dead) && sim.all_see(2, is_dead))
    });
    println!("two of five: {time:?}");
}

#[test]
fn a_restart_is_the_death_of_the_old_run_then_the_rise_of_the_new_one() {
    let time = longest(20, |seed| {
        let mut sim = Sim::cluster(seed, 3);
        sim.kill(1);
        let pause = Duration::from_millis(sim.rng.random_range(0..6000));
        sim.run(pause);
        sim.boot(1, &[1, 2, 3]);
        let time = sim.until(10, "the new run is known", Sim::is_whole);
        for viewer in [2, 3] {
            let of_it: Vec<_> = sim.events[&viewer]
                .iter()
                .map(|(_, event)| *event)
                .filter(|event| matches!(event, MemberEvent::Up(run) | MemberEvent::Dead(run) if run.node.0 == 1))
                .collect();
            assert_eq!(of_it, [MemberEvent::Up(run(1, 1)), MemberEvent::Dead(run(1, 1)), MemberEvent::Up(run(1, 2))]);
            assert!(sim.nodes[&viewer].members().is_gone(run(1, 1)));
            assert!(!sim.nodes[&viewer].members().is_gone(run(1, 2)));
        }
        time
    });
    println!("restart known to all: {time:?}");
}

#[test]
fn who_leaves_has_left_at_once_and_for_all() {
    let time = longest(20, |seed| {
        let mut sim = Sim::cluster(seed, 5);
        sim.loss.insert(0, 0.1);
        let now = sim.now;
        sim.nodes.get_mut(&1).unwrap().leave(now);
        for _ in 0..3 {
            sim.collect(1);
            sim.run(Duration::from_millis(100));
            let now = sim.now;
            sim.nodes.get_mut(&1).unwrap().farewell(now);
        }
        sim.collect(1);
        assert!(matches!(sim.state(1, 1), Some(MemberState::Left(_))));
        sim.kill(1);
        let time = sim.until(2, "all know", |sim| sim.all_see(1, |state| matches!(state, MemberState::Left(_))));
        assert_eq!(sim.deaths(), 0);
        sim.run(Duration::from_secs(20));
        assert!(sim.all_see(1, |state| matches!(state, MemberState::Left(_))), "and it stays so");
        sim.boot(1, &[2, 3]);
        sim.until(10, "it may come back", Sim::is_whole);
        time
    });
    println!("leave known to all, after the last farewell: {time:?}");
}

#[test]
fn two_halves_that_declared_each_other_dead_are_whole_again() {
    for (left, right) in [(&[1, 2][..], &[3, 4][..]), (&[1], &[2, 3]), (&[1], &[2]), (&[1, 2, 3], &[4, 5])] {
        let time = longest(20, |seed| {
            let n = left.len() + right.len();
            let mut sim = Sim::cluster(seed, n as u64);
            sim.split(left, right);
            sim.run(Duration::from_secs(20));
            for (a, b) in left.iter().flat_map(|a| right.iter().map(move |b| (*a, *b))) {
                assert!(sim.state(a, b).is_some_and(is_dead) && sim.state(b, a).is_some_and(is_dead));
            }
            let long = Duration::from_secs(sim.rng.random_range(0..300));
            sim.run(long);
            sim.cut.clear();
            sim.until(15, "whole again", Sim::is_whole)
        });
        println!("partition {}|{} healed: {time:?}", left.len(), right.len());
    }
}

#[test]
fn a_cluster_that_fell_apart_into_single_nodes_is_whole_again() {
    let time = longest(10, |seed| {
        let mut sim = Sim::cluster(seed, 5);
        sim.split(&[1, 2, 3, 4, 5], &[1, 2, 3, 4, 5]);
        sim.run(Duration::from_secs(60));
        sim.cut.clear();
        sim.until(15, "whole again", Sim::is_whole)
    });
    println!("all apart, healed: {time:?}");
}

#[test]
fn a_link_that_works_one_way_kills_nobody_while_a_third_node_hears_both() {
    for seed in seeds(5) {
        let mut sim = Sim::cluster(seed, 3);
        sim.cut.insert((1, 2));
        sim.run(Duration::from_secs(300));
        assert_eq!((sim.deaths(), sim.renewals()), (0, 0), "one way\n{}", sim.views());
        sim.cut.insert((2, 1));
        sim.run(Duration::from_secs(300));
        assert_eq!((sim.deaths(), sim.renewals()), (0, 0), "a bridge\n{}", sim.views());
    }
}

#[test]
fn no_false_death_in_ten_minutes_with_a_tenth_of_all_packets_lost() {
    for n in [2, 3, 5] {
        for seed in seeds(4) {
            let mut sim = Sim::cluster(seed, n);
            sim.loss.insert(0, 0.1);
            sim.run(Duration::from_secs(600));
            assert_eq!((sim.deaths(), sim.renewals()), (0, 0), "{n} nodes, seed {seed}\n{}", sim.views());
        }
    }
}

#[test]
fn a_fifth_of_one_nodes_packets_may_be_lost_for_a_minute() {
    for seed in seeds(10) {
        let mut sim = Sim::cluster(seed, 3);
        sim.loss.insert(1, 0.2);
        sim.run(Duration::from_secs(60));
        assert_eq!((sim.deaths(), sim.renewals()), (0, 0), "seed {seed}");
    }
}

#[test]
fn a_process_that_was_stopped_accuses_nobody_and_is_taken_back() {
    let time = longest(10, |seed| {
        let mut sim = Sim::cluster(seed, 3);
        sim.stopped.insert(1);
        sim.until(5, "the others know", |sim| {
            sim.state(2, 1).is_some_and(is_dead) && sim.state(3, 1).is_some_and(is_dead)
        });
        sim.run(Duration::from_secs(10));
        sim.stopped.clear();
        let time = sim.until(15, "whole again", Sim::is_whole);
        let accused = sim.events[&1].iter().filter(|(_, event)| matches!(event, MemberEvent::Dead(_))).count();
        assert_eq!(accused, 0);
        time
    });
    println!("stopped, and taken back: {time:?}");
}

#[test]
fn who_is_evicted_is_dead_for_all_until_it_starts_again() {
    let time = longest(10, |seed| {
        let mut sim = Sim::cluster(seed, 4);
        let now = sim.now;
        sim.nodes.get_mut(&2).unwrap().on_evicted(now, &[run(1, 1)]);
        sim.collect(2);
        let before = sim.posted;
        let all_sure = |sim: &Sim| sim.all_see(1, is_dead) && sim.state(1, 1).is_some_and(is_dead);
        let time = sim.until(5, "all know, itself too", all_sure);
        assert_eq!(sim.nodes[&1].problems(sim.now), [Problem::Evicted]);
        assert!(sim.posted - before < 500, "no storm: {}", sim.posted - before);
        sim.run(Duration::from_secs(60));
        assert!(sim.all_see(1, is_dead), "{}", sim.views());
        sim.kill(1);
        sim.boot(1, &[2, 3]);
        sim.until(10, "the next run is welcome", Sim::is_whole);
        time
    });
    println!("evicted: {time:?}");
}

#[test]
fn an_old_copy_of_a_node_stays_out_and_says_why() {
    let mut sim = Sim::cluster(1, 3);
    sim.incarnations.insert(1, 7);
    sim.boot(1, &[2, 3]);
    sim.until(10, "start 8 is in", Sim::is_whole);
    sim.kill(1);
    sim.incarnations.insert(1, 2);
    sim.boot(1, &[2, 3]);
    let before = sim.posted;
    sim.run(Duration::from_secs(10));
    let problem = Problem::Superseded { mine: Incarnation(3), known: Incarnation(8) };
    assert_eq!(sim.nodes[&1].problems(sim.now), [problem]);
    assert_eq!(sim.incarnation(2, 1), Some(8));
    assert!(sim.posted - before < 1000);
}

#[test]
fn a_second_process_with_the_data_of_a_running_node_stays_out_and_says_why() {
    let mut sim = Sim::cluster(1, 3);
    // A copy of node 1, at another address.
    let options = SwimOptions {
        me: run(1, 1),
        advertised: at(4),
        env: "test",
        secrets: &[Secret::new("s3cret")],
        seeds: &[],
        chance: 1,
        salt: 2,
    };
    let mut swim = Swim::new(&options, sim.now);
    swim.on_resolved(
        sim.now,
        vec![Resolved { name: "seed".into(), addresses: Ok(vec![(at(2), false), (at(1), false)]) }],
    );
    sim.nodes.insert(4, swim);
    sim.run(Duration::from_secs(10));
    assert_eq!(sim.nodes[&4].problems(sim.now)[0], Problem::Twin { from: at(1) });
    assert_eq!(sim.nodes[&1].problems(sim.now), [Problem::Twin { from: at(4) }], "it is told, too");
    assert!((1..=3).all(|viewer| (1..=3).all(|node| sim.state(viewer, node) == Some(MemberState::Alive))));
}

#[test]
fn nodes_of_another_cluster_or_secret_never_mix() {
    let secret = |text: &str| vec![Secret::new(text)];
    let strangers = [
        ("other", secret("s3cret"), Refusal::Env),
        ("test", secret("other"), Refusal::Secret),
        ("test", vec![], Refusal::Secret),
    ];
    for (env, secrets, refusal) in strangers {
        let mut sim = Sim::cluster(1, 3);
        sim.boot_as(4, &[1, 2, 3], env, &secrets);
        sim.run(Duration::from_secs(10));
        assert!((1..=3).all(|node| sim.state(node, 4).is_none()));
        assert_eq!(sim.nodes[&4].members().nodes.len(), 1);
        assert!(sim.nodes[&1].counts().refused[&refusal] > 0);
        let problems = sim.nodes[&4].problems(sim.now);
        assert!(matches!(problems[..], [Problem::NoSeed { .. }]), "{problems:?}");
    }
}

#[test]
fn a_secret_is_changed_node_by_node() {
    let (old, new) = (Secret::new("old"), Secret::new("new"));
    let mut sim = Sim::new(1);
    for node in 1..=3 {
        sim.boot_as(node, &[1, 2, 3], "test", std::slice::from_ref(&old));
    }
    sim.until(10, "all with the old one", Sim::is_whole);
    for secrets in [vec![old.clone(), new.clone()], vec![new.clone(), old.clone()], vec![new.clone()]] {
        for node in 1..=3 {
            sim.kill(node);
            sim.boot_as(node, &[1, 2, 3], "test", &secrets);
            sim.until(10, "whole", Sim::is_whole);
        }
    }
}

#[test]
fn packets_that_were_recorded_change_nothing_when_they_come_again() {
    let mut sim = Sim::new(3);
    sim.capture = true;
    for node in 1..=3 {
        sim.boot(node, &[1, 2, 3]);
    }
    sim.until(10, "whole", Sim::is_whole);
    // A life with something in it: a death, a return, a good-bye.
    sim.kill(3);
    sim.until(5, "3 is dead", |sim| sim.all_see(3, is_dead));
    sim.boot(3, &[1, 2]);
    sim.until(10, "whole", Sim::is_whole);
    sim.kill(2);
    sim.until(5, "2 is dead", |sim| sim.all_see(2, is_dead));
    sim.run(Duration::from_secs(5));
    sim.capture = false;
    let mut captured = std::mem::take(&mut sim.captured);
    // What is still under way is no repetition.
    captured.retain(|(_, _, packet)| sim.under_way.values().all(|(_, _, pending)| pending != packet));
    assert!(captured.len() > 100);
    let before = sim.views();
    let inject = |sim: &mut Sim| {
        let now = sim.now;
        for (from, to, packet) in &captured {
            // To whom it was meant, and to everybody else.
            for node in [1, 3] {
                let Some(swim) = sim.nodes.get_mut(&node) else { continue };
                let _ = swim.on_packet(now, *from, &mut packet.to_vec());
                // What it answers goes to whoever recorded them.
                let answers = swim.take_packets();
                assert!(answers.iter().all(|(_, answer)| answer.len() <= packet.len()), "no amplification");
                let _ = to;
            }
        }
    };
    inject(&mut sim);
    assert_eq!(sim.views(), before, "nothing changed");
    sim.run(Duration::from_secs(10));
    assert_eq!(sim.deaths(), 2 + 2, "3 seen by 1 and 2, 2 seen by 1 and 3; no more\n{}", sim.views());
    // To a run that never heard of any of it.
    sim.kill(1);
    sim.boot(1, &[]);
    sim.cut.extend([(1, 3), (3, 1)]);
    let before = sim.nodes[&1].members().clone();
    inject(&mut sim);
    assert_eq!(sim.nodes[&1].members(), &before);
    assert_eq!(sim.nodes[&1].problems(sim.now), []);
}

#[test]
fn a_proxy_in_front_of_the_nodes_is_a_seed_too() {
    let mut sim = Sim::new(1);
    // Node 9 is the proxy: what comes to it goes to one of the others, and the answer back.
    for node in 1..=3 {
        sim.boot(node, &[9]);
    }
    let end = sim.now + Duration::from_secs(10);
    while !sim.is_whole() {
        assert!(sim.step(end), "{}", sim.views());
        let waiting: Vec<_> =
            sim.under_way.iter().filter(|(_, (_, to, _))| *to == at(9)).map(|(key, _)| *key).collect();
        for key in waiting {
            let (from, _, packet) = sim.under_way.remove(&key).unwrap();
            let to = sim.rng.random_range(1..=3);
            sim.under_way.insert(key, (from, at(to), packet));
        }
    }
}

#[test]
fn a_node_that_advertises_a_wrong_address_is_told_within_five_seconds() {
    let mut sim = Sim::cluster(1, 2);
    // It sends from where it is, and says that it is elsewhere.
    let options = SwimOptions {
        me: run(3, 1),
        advertised: at(77),
        env: "test",
        secrets: &[Secret::new("s3cret")],
        seeds: &[],
        chance: 1,
        salt: 2,
    };
    let mut swim = Swim::new(&options, sim.now);
    let addresses = Ok(vec![(at(1), false)]);
    swim.on_resolved(sim.now, vec![Resolved { name: "seed".into(), addresses }]);
    sim.nodes.insert(3, swim);
    sim.run(Duration::from_millis(4500));
    let problems = sim.nodes[&3].problems(sim.now);
    assert_eq!(problems, [Problem::AdvertisedAddress { advertised: at(77), seen_as: at(3) }]);
}

#[test]
fn the_longest_welcome_is_not_longer_than_the_question() {
    let addr: SocketAddr = "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535".parse().unwrap();
    let peer = Peer::new(run(u64::MAX, u64::MAX), u64::MAX, addr).evicted();
    let welcome = Welcome { token: u32::MAX, peer, seen_as: addr, known: Some(peer) };
    assert_eq!(postcard::to_stdvec(&welcome).unwrap().len(), 138);
    const { assert!(138 <= HELLO) };
}

/// A seal of node 1, and one packet that node 2 sealed for it.
fn sealed(secrets: &[Secret], kind: Kind, body: &[u8]) -> (Seal, Bytes) {
    let one = Seal::new("test", secrets, run(1, 1), 11);
    let mut two = Seal::new("test", secrets, run(2, 1), 22);
    let packet = two.seal(kind, 11, body);
    (one, packet)
}

proptest! {
    #[test]
    fn an_altered_packet_is_never_opened(
        plain: bool,
        body in proptest::collection::vec(any::<u8>(), 0..1300),
        flip in any::<prop::sample::Index>(),
        bit in 0..8u8,
        cut in any::<prop::sample::Index>(),
    ) {
        let secrets = if plain { vec![] } else { vec![Secret::new("x")] };
        let (mut seal, packet) = sealed(&secrets, Kind::Gossip, &body);
        let mut altered = packet.to_vec();
        altered[flip.index(packet.len())] ^= 1 << bit;
        prop_assert!(seal.open(&mut altered).is_err());
        prop_assert!(seal.open(&mut packet.to_vec()[..cut.index(packet.len())]).is_err());
        let mut longer = packet.to_vec();
        longer.push(0);
        prop_assert!(seal.open(&mut longer).is_err());
        let mut whole = packet.to_vec();
        prop_assert_eq!(seal.open(&mut whole).unwrap().body, &body[..]);
        let mut again = packet.to_vec();
        prop_assert_eq!(seal.open(&mut again), Err(Refusal::Replayed));
    }

    #[test]
    fn noise_changes_nothing(noise in proptest::collection::vec(any::<u8>(), 0..1600), header: bool, plain: bool) {
        let secrets = if plain { vec![] } else { vec![Secret::new("x")] };
        let (_, packet) = sealed(&secrets, Kind::Gossip, &[0; 40]);
        let mut noise = noise;
        if header {
            let n = noise.len().min(HEADER);
            noise[..n].copy_from_slice(&packet[..n]);
        }
        let options = SwimOptions {
            me: run(1, 1), advertised: at(1), env: "test", secrets: &secrets, seeds: &[], chance: 1, salt: 11,
        };
        let now = Instant::now();
        let mut swim = Swim::new(&options, now);
        let before = swim.members().clone();
        prop_assert!(swim.on_packet(now, at(9), &mut noise).is_err());
        prop_assert_eq!(swim.members(), &before);
        prop_assert_eq!(swim.take_packets().len(), 0);
        prop_assert_eq!(swim.counts().refused.values().sum::<u64>(), 1);
    }

    /// What an insider sends is well sealed, and may still be nonsense.
    #[test]
    fn nonsense_under_a_good_seal_does_no_harm(body in proptest::collection::vec(any::<u8>(), 0..1300), kind in 0..3) {
        let secrets = vec![Secret::new("x")];
        let kind = [Kind::Hello, Kind::Welcome, Kind::Gossip][kind as usize];
        let (_, packet) = sealed(&secrets, kind, &body);
        let options = SwimOptions {
            me: run(1, 1), advertised: at(1), env: "test", secrets: &secrets, seeds: &[], chance: 1, salt: 11,
        };
        let now = Instant::now();
        let mut swim = Swim::new(&options, now);
        let _ = swim.on_packet(now, at(9), &mut packet.to_vec());
        swim.on_time(now);
    }

    #[test]
    fn each_counter_is_taken_once_in_any_order(order in proptest::collection::vec(1..200usize, 1..300)) {
        let secrets = vec![Secret::new("x")];
        let mut one = Seal::new("test", &secrets, run(1, 1), 11);
        let mut two = Seal::new("test", &secrets, run(2, 1), 22);
        let packets: Vec<_> = (0..200).map(|n| two.seal(Kind::Gossip, 11, &[n as u8])).collect();
        let mut seen = BTreeSet::new();
        for index in order {
            let opened = one.open(&mut packets[index].to_vec()).is_ok();
            prop_assert_eq!(opened, seen.insert(index));
        }
    }
}
