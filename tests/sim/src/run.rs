//! A run: a cluster forms, has load and faults, is left in peace, and is then looked at.

use crate::chance::Chance;
use crate::devices::{Keeper, Mortal, Publisher, Subscriber, WILLS, supervise};
use crate::faults::{Faults, LATENCIES};
use crate::history::History;
use crate::invariants::{self, Finding};
use crate::node::{self, BOUND, STORES, name};
use crate::plant::Plant;
use crate::world::{Phase, World};
use base_types::QoS;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Once, mpsc};
use std::time::Duration;
use tokio::time::sleep;

/// What is to be run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Everything that is left to chance comes from here.
    pub seed: u64,
    /// What is broken on purpose.
    pub plant: Option<Plant>,
    /// Tells everything on standard output.
    pub aloud: bool,
}

/// What came of a run.
pub struct Report {
    /// Of which seed.
    pub seed: u64,
    /// What must not be.
    pub findings: Vec<Finding>,
    /// The hash of all that happened: the same for the same seed.
    pub hash: u64,
    /// The end of what happened.
    pub told: Vec<String>,
    /// How many faults there were.
    pub faults: u64,
    /// Messages that were acknowledged, and deliveries.
    pub acked: usize,
    /// PUBLISH packets that clients got.
    pub delivered: usize,
    /// Simulated time.
    pub simulated: Duration,
}

/// A cluster must form within.
const FORMS: Duration = Duration::from_secs(20);
const STORM: (u64, u64) = (8_000, 16_000);
/// All is well again so long after the last fault: the liveness of the checker's vocabulary.
const HEALS: Duration = Duration::from_secs(10);
const CALM: Duration = Duration::from_secs(2);
const DRAINS: Duration = Duration::from_secs(15);

/// Runs a plan, on a thread of its own: what libraries keep per thread must not carry over from one run to the next.
#[must_use]
pub fn run(plan: Plan) -> Report {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !tell_panic(panic) {
                before(panic);
            }
        }));
    });
    let (report, reported) = mpsc::channel();
    let failed = report.clone();
    let thread = std::thread::Builder::new().name(format!("seed {}", plan.seed)).stack_size(16 << 20);
    let ran = thread.spawn(move || {
        TELLS.set(Some((plan.seed, report.clone())));
        // Whoever asked is still there.
        let _ = report.send(run_here(plan));
    });
    if let Err(error) = ran {
        let _ = failed.send(Report::broken(plan.seed, format!("no thread: {error}")));
    }
    drop(failed);
    reported.recv().unwrap_or_else(|_| Report::broken(plan.seed, "the run ended without a word".into()))
}

thread_local! {
    static TELLS: RefCell<Option<(u64, mpsc::Sender<Report>)>> = const { RefCell::new(None) };
}

/// A run that panics is over: that is its report. Its thread stays where it is, for what would be unwound panics again while it is, and that would
/// be the end of the process.
fn tell_panic(panic: &std::panic::PanicHookInfo<'_>) -> bool {
    let Some((seed, tells)) = TELLS.take() else { return false };
    let at = panic.location().map(ToString::to_string).unwrap_or_default();
    let _ = tells.send(Report::broken(seed, format!("{} at {at}", panic.payload_as_str().unwrap_or_default())));
    drop(tells);
    loop {
        std::thread::park();
    }
}

fn run_here(plan: Plan) -> Report {
    base_kv::sim::begin(plan.seed);
    if plan.plant == Some(Plant::ForgetVote) {
        base_kv::sim::forget_votes();
    }
    let mut chance = Chance::new(plan.seed, "run");
    let size = if chance.one_in(5) { 5 } else { 3 };
    let world = match World::new(plan.seed, size, plan.plant, plan.aloud) {
        Ok(world) => world,
        Err(error) => return Report::broken(plan.seed, format!("no place for files: {error}")),
    };
    let mut faults = 0;
    let broken = drive(&world, &mut chance, &mut faults).err().map(|error| error.to_string());
    let history = world.history.borrow();
    let mut findings = match broken {
        Some(cause) => vec![Finding { invariant: "the run ends", what: cause }],
        None => invariants::check(&history),
    };
    findings.truncate(40);
    let (hash, told) = world.told();
    let acked = history.published.values().filter(|published| published.acked_at.is_some()).count();
    let (delivered, simulated) = (history.deliveries.len(), world.now());
    Report { seed: plan.seed, findings, hash, told, faults, acked, delivered, simulated }
}

impl Report {
    fn broken(seed: u64, what: String) -> Self {
        let findings = vec![Finding { invariant: "the run ends", what }];
        let (told, simulated) = (Vec::new(), Duration::ZERO);
        Self { seed, findings, hash: 0, told, faults: 0, acked: 0, delivered: 0, simulated }
    }
}

type Sim<'a> = turmoil::Sim<'a>;

fn drive(world: &Rc<World>, chance: &mut Chance, count: &mut u64) -> turmoil::Result {
    let mut builder = turmoil::Builder::new();
    builder
        .rng_seed(chance.next())
        .tick_duration(Duration::from_millis(1))
        .simulation_duration(Duration::from_secs(600));
    builder.min_message_latency(LATENCIES.0).max_message_latency(LATENCIES.1);
    builder.tcp_capacity(1 << 16).udp_capacity(1 << 12);
    let mut sim = builder.build();
    for index in 0..world.size {
        let world = Rc::clone(world);
        sim.host(name(index), move || node::run(Rc::clone(&world), index));
    }
    let mine = Rc::clone(world);
    sim.client("devices", devices(mine));

    until(world, &mut sim, FORMS, Goal::Well)?.map_err(|why| format!("the cluster does not form: {why}"))?;
    world.enter(Phase::Storm);
    let ends = world.now() + Duration::from_millis(chance.within(STORM.0..STORM.1));
    let mut faults = Faults::new(world, world.now() + Duration::from_millis(500));
    while world.now() < ends {
        step(world, &mut sim)?;
        faults.step(&mut sim)?;
    }
    while !faults.fade(&mut sim) {
        step(world, &mut sim)?;
    }
    world.enter(Phase::Calm);
    faults.heal(&mut sim);
    *count = faults.count;
    let healing = world.now();
    let healed = until(world, &mut sim, HEALS, Goal::Well)?;
    let took = world.now() - healing;
    world.history.borrow_mut().healed = healed.clone().map(|()| took);
    if healed.is_ok() {
        world.set_well();
        let calm = world.now() + CALM;
        while world.now() < calm {
            step(world, &mut sim)?;
        }
    }
    world.enter(Phase::Drain);
    // What is missing then is a finding, and which one tells the history.
    let drained = until(world, &mut sim, DRAINS, Goal::Drained)?;
    world.trace(format_args!("drained: {drained:?}"));
    world.enter(Phase::Over);
    look(world, &mut sim)
}

fn step(world: &Rc<World>, sim: &mut Sim<'_>) -> turmoil::Result {
    sim.step()?;
    world.set_now(sim.elapsed());
    Ok(())
}

#[derive(Clone, Copy)]
enum Goal {
    Well,
    Drained,
}

/// Steps until a goal is reached; or why it was not.
fn until(
    world: &Rc<World>,
    sim: &mut Sim<'_>,
    within: Duration,
    goal: Goal,
) -> Result<Result<(), String>, Box<dyn std::error::Error>> {
    let deadline = world.now() + within;
    loop {
        let why = match goal {
            Goal::Well => ask_all(world, sim, |node| async move {
                let voters = node.world.size;
                node.is_well(voters.min(3)).await
            })?,
            Goal::Drained => {
                (0..50).try_for_each(|_| step(world, sim))?;
                drained(&world.history.borrow()).map(|()| Vec::new())
            }
        };
        match why {
            Ok(_) => return Ok(Ok(())),
            Err(why) if world.now() >= deadline => return Ok(Err(why)),
            Err(_) => {}
        }
    }
}

/// Whether every subscriber has what it must get.
fn drained(history: &History) -> Result<(), String> {
    for subscriber in history.subscriptions.keys() {
        let (expected, got) = (history.expected(subscriber, BOUND), history.got(subscriber));
        if let Some(missing) = expected.difference(&got).next() {
            return Err(format!("{subscriber} misses {missing:?}"));
        }
    }
    match invariants::missing_wills(history).pop() {
        Some(missing) => Err(missing),
        None => Ok(()),
    }
}

/// Asks all nodes, and steps until all have answered; the first complaint.
fn ask_all<F, T>(
    world: &Rc<World>,
    sim: &mut Sim<'_>,
    ask: impl Fn(Rc<node::Node>) -> F + Clone + 'static,
) -> Result<Result<Vec<T>, String>, Box<dyn std::error::Error>>
where
    F: Future<Output = Result<T, String>> + 'static,
    T: 'static,
{
    let mut all = Vec::new();
    for index in 0..world.size {
        let answer = Rc::new(RefCell::new(None));
        let (mine, ask) = (Rc::clone(&answer), ask.clone());
        let asked = world.put_on(index, move |node| async move {
            let answered = ask(node).await;
            *mine.borrow_mut() = Some(answered);
        });
        let patience = world.now() + Duration::from_secs(3);
        while asked && answer.borrow().is_none() && world.now() < patience {
            step(world, sim)?;
        }
        let answered = answer.borrow_mut().take();
        match answered {
            Some(Ok(answer)) => all.push(answer),
            Some(Err(why)) => {
                (0..20).try_for_each(|_| step(world, sim))?;
                return Ok(Err(format!("{}: {why}", name(index))));
            }
            None => {
                (0..20).try_for_each(|_| step(world, sim))?;
                return Ok(Err(format!("{} does not answer", name(index))));
            }
        }
    }
    Ok(Ok(all))
}

/// The clients; ends when the run is over.
async fn devices(world: Rc<World>) -> turmoil::Result {
    let topics = |from: &[usize]| from.iter().map(|n| format!("t/{n}")).collect::<Vec<_>>();
    let patience = Duration::from_secs(5);
    for (number, qos) in [(1, QoS::AtLeastOnce), (2, QoS::ExactlyOnce), (3, QoS::AtLeastOnce)] {
        let publisher = Publisher::new(&world, number, qos, topics(&[1, 2])).ok_or("a name")?;
        tokio::task::spawn_local(supervise(Rc::clone(&world), publisher, patience));
    }
    let subscribers = [
        ("s1", QoS::AtLeastOnce, topics(&[1, 2]), None),
        ("s2", QoS::ExactlyOnce, topics(&[1, 2]), None),
        ("s3", QoS::AtLeastOnce, topics(&[1]), Some("t/2".to_owned())),
        ("w", QoS::AtLeastOnce, vec![WILLS.to_owned()], None),
    ];
    for (name, qos, topics, other) in subscribers {
        let subscriber = Subscriber::new(&world, name, qos, topics, other).ok_or("a name")?;
        tokio::task::spawn_local(supervise(Rc::clone(&world), subscriber, patience * 2));
    }
    for number in [1, 2] {
        // Several at once for one client id.
        for hand in 0..number {
            let mortal = Mortal::new(&world, number, hand).ok_or("a name")?;
            tokio::task::spawn_local(supervise(Rc::clone(&world), mortal, patience));
        }
    }
    for topic in ["r/1", "r/2"] {
        for reads in [false, true] {
            tokio::task::spawn_local(supervise(Rc::clone(&world), Keeper::new(&world, topic, reads), patience));
        }
    }
    while world.phase() != Phase::Over {
        sleep(Duration::from_millis(50)).await;
    }
    // Whoever looks at the replicas needs time to pass.
    sleep(Duration::from_secs(300)).await;
    Ok(())
}

/// Looks at the replicas in the end.
fn look(world: &Rc<World>, sim: &mut Sim<'_>) -> turmoil::Result {
    for (index, store) in STORES.into_iter().enumerate() {
        let mut sums = Vec::new();
        // Housekeeping goes on: what differs at first may be a moment's difference.
        for _ in 0..20 {
            sums = match ask_all(world, sim, move |node| async move { Ok(node.checksum(index).await) })? {
                Ok(sums) => sums,
                Err(why) => vec![Err(why)],
            };
            if sums.iter().all(|sum| sum.is_ok() && *sum == sums[0]) {
                break;
            }
            (0..100).try_for_each(|_| step(world, sim))?;
        }
        world.trace(format_args!("{store}: {sums:?}"));
        world.history.borrow_mut().replicas.insert(store, sums);
        let ranges = ask_all(world, sim, move |node| async move {
            Ok(node.host.replicas(store).into_iter().map(|view| view.range).collect::<Vec<_>>())
        })?;
        let ranges = ranges.unwrap_or_default().into_iter().flatten().collect();
        world.history.borrow_mut().lineages.insert(store, ranges);
    }
    let wanted: Vec<_> = {
        let history = world.history.borrow();
        let topics = |(name, of): (&String, &Vec<crate::history::Subscription>)| {
            let topics: std::collections::BTreeSet<_> = of.iter().map(|s| s.topic.clone()).collect();
            topics.into_iter().map(|topic| (name.clone(), topic)).collect::<Vec<_>>()
        };
        history.subscriptions.iter().flat_map(topics).collect()
    };
    for (client, to) in wanted {
        let asked = Rc::new((client, to));
        let mine = Rc::clone(&asked);
        let leads = ask_all(world, sim, move |node| {
            let asked = Rc::clone(&mine);
            async move { Ok(crate::devices::topic(&asked.1).is_some_and(|topic| node.leads_to(&topic, &asked.0))) }
        })?;
        for (node, leads) in leads.unwrap_or_default().into_iter().enumerate() {
            world.history.borrow_mut().routes.push((asked.0.clone(), asked.1.clone(), node, leads));
        }
    }
    Ok(())
}
