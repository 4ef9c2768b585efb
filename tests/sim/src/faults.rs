//! What goes wrong, and when: all of it from the seed.

use crate::chance::Chance;
use crate::node::name;
use crate::world::World;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Breaks things for a while, and repairs them.
pub(crate) struct Faults {
    world: Rc<World>,
    chance: Chance,
    next: Duration,
    /// Until when.
    down: Vec<(usize, Duration)>,
    network: Option<(Network, Duration)>,
    slow: Option<Duration>,
    wiped: bool,
    /// Whether clocks go wrong in this run.
    clocks: bool,
    pub(crate) count: u64,
}

/// Of the network only one thing is broken at a time.
#[derive(Clone, Debug)]
enum Network {
    /// These, from all others.
    Parted(Vec<usize>),
    /// Nothing arrives at the second from the first.
    OneWay(usize, usize),
    /// Everything between two waits, and then comes at once.
    Held(usize, usize),
    /// Messages take up to so long.
    Slow(Duration),
}

const LATENCY: Duration = Duration::from_millis(4);

impl Faults {
    pub(crate) fn new(world: &Rc<World>, begin: Duration) -> Self {
        let mut chance = Chance::new(world.seed, "faults");
        let clocks = chance.one_in(3);
        Self {
            world: Rc::clone(world),
            chance,
            clocks,
            next: begin,
            down: Vec::new(),
            network: None,
            slow: None,
            wiped: false,
            count: 0,
        }
    }

    pub(crate) fn crash(&mut self, sim: &mut turmoil::Sim<'_>, node: usize, until: Duration) {
        self.world.trace(format_args!("!! {} crashes", name(node)));
        // Nobody is told: a power cut says no good-bye. And tokio drops tasks in an order that depends on how many there ever were in the
        // process, so that their good-byes would be told in another order each time.
        self.between(&[node], |a, b| sim.partition(name(a), name(b)));
        sim.crash(name(node));
        self.between(&[node], |a, b| sim.repair(name(a), name(b)));
        if let Some((network, _)) = &self.network {
            self.break_network(sim, network);
        }
        self.world.stand_up(node);
        self.world.disks[node].crash();
        self.down.push((node, until));
    }

    fn bounce(&mut self, sim: &mut turmoil::Sim<'_>, now: Duration) {
        let (back, down): (Vec<_>, Vec<_>) = self.down.drain(..).partition(|(_, until)| *until <= now);
        self.down = down;
        for (node, _) in back {
            self.world.trace(format_args!("!! {} starts again", name(node)));
            sim.bounce(name(node));
        }
    }

    fn repair(&mut self, sim: &mut turmoil::Sim<'_>) {
        let Some((network, _)) = self.network.take() else { return };
        self.world.trace(format_args!("!! repaired: {network:?}"));
        match network {
            Network::Parted(side) => self.between(&side, |a, b| sim.repair(name(a), name(b))),
            Network::OneWay(from, to) => sim.repair_oneway(name(from), name(to)),
            Network::Held(a, b) => sim.release(name(a), name(b)),
            Network::Slow(_) => sim.set_max_message_latency(LATENCY),
        }
    }

    fn break_network(&self, sim: &turmoil::Sim<'_>, network: &Network) {
        match network {
            Network::Parted(side) => self.between(side, |a, b| sim.partition(name(a), name(b))),
            Network::OneWay(from, to) => sim.partition_oneway(name(*from), name(*to)),
            Network::Held(a, b) => sim.hold(name(*a), name(*b)),
            Network::Slow(latency) => sim.set_max_message_latency(*latency),
        }
    }

    fn between(&self, side: &[usize], mut with: impl FnMut(usize, usize)) {
        for a in side {
            (0..self.world.size).filter(|b| !side.contains(b)).for_each(|b| with(*a, b));
        }
    }

    /// Called at each step of the storm.
    pub(crate) fn step(&mut self, sim: &mut turmoil::Sim<'_>) -> std::io::Result<()> {
        let now = self.world.now();
        self.bounce(sim, now);
        if self.network.as_ref().is_some_and(|(_, until)| *until <= now) {
            self.repair(sim);
        }
        if self.slow.is_some_and(|until| until <= now) {
            self.quick_disks();
        }
        if now < self.next {
            return Ok(());
        }
        self.next = now + Duration::from_millis(self.chance.within(100..2_500));
        self.count += 1;
        let size = self.world.size as u64;
        let node = self.chance.within(0..size) as usize;
        let other = (node + 1 + self.chance.within(0..size - 1) as usize) % self.world.size;
        let until = now + Duration::from_millis(self.chance.within(200..4_000));
        match self.chance.within(0..16) {
            0..=4 if self.may_fall(node) => self.crash(sim, node, until),
            // The power of the building.
            5 => {
                for node in (0..self.world.size)
                    .filter(|node| !self.down.iter().any(|(down, _)| down == node))
                    .collect::<Vec<_>>()
                {
                    let until = now + Duration::from_millis(self.chance.within(100..1_500));
                    self.crash(sim, node, until);
                }
            }
            6 if !self.wiped && self.down.is_empty() && self.network.is_none() => {
                self.wiped = true;
                self.crash(sim, node, until);
                self.world.disks[node].wipe()?;
                self.world.trace(format_args!("!! {} has a new disk", name(node)));
            }
            7..=13 if self.network.is_none() => {
                let network = match self.chance.within(0..7) {
                    0..=2 if self.world.size > 3 && self.chance.one_in(2) => Network::Parted(vec![node, other]),
                    0..=2 => Network::Parted(vec![node]),
                    3 | 4 => Network::OneWay(node, other),
                    5 => Network::Held(node, other),
                    _ => Network::Slow(Duration::from_millis(self.chance.within(20..150))),
                };
                self.world.trace(format_args!("!! {network:?}"));
                self.break_network(sim, &network);
                // Long enough that connections that lost something are found dead: turmoil sends nothing again.
                self.network = Some((network, until + Duration::from_millis(700)));
            }
            14 => {
                self.world.trace(format_args!("!! slow disks"));
                base_kv::sim::syncs_take(Duration::from_millis(5), Duration::from_millis(80));
                self.slow = Some(until);
            }
            15 if self.clocks => {
                self.world.history.borrow_mut().wrong_clocks = true;
                let by = self.chance.within(0..7_200_000) as i64 - 3_600_000;
                self.world.trace(format_args!("!! the clock of {} is wrong by {by} ms", name(node)));
                self.world.wrong_clocks[node].store(by, Ordering::Relaxed);
            }
            _ => {}
        }
        Ok(())
    }

    /// A minority may be down at a time; more is the power of the building.
    fn may_fall(&self, node: usize) -> bool {
        self.down.len() < (self.world.size - 1) / 2 && !self.down.iter().any(|(down, _)| *down == node)
    }

    fn quick_disks(&mut self) {
        self.slow = None;
        base_kv::sim::syncs_take(Duration::from_micros(300), Duration::from_millis(3));
    }

    /// Nothing new breaks; whether the network is whole again. What was cut too shortly would leave connections that lost something and do not
    /// know it: turmoil sends nothing again.
    pub(crate) fn fade(&mut self, sim: &mut turmoil::Sim<'_>) -> bool {
        let now = self.world.now();
        self.bounce(sim, now);
        if self.network.as_ref().is_some_and(|(_, until)| *until <= now) {
            self.repair(sim);
        }
        self.network.is_none()
    }

    /// The storm is over.
    pub(crate) fn heal(&mut self, sim: &mut turmoil::Sim<'_>) {
        self.repair(sim);
        self.quick_disks();
        self.world.wrong_clocks.iter().for_each(|clock| clock.store(0, Ordering::Relaxed));
        self.bounce(sim, Duration::MAX);
    }
}

pub(crate) const LATENCIES: (Duration, Duration) = (Duration::from_micros(200), LATENCY);
