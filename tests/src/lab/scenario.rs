use super::cluster::{Cluster, ClusterSetup, STORES};
use super::findings::Findings;
use super::load::{Cast, Load};
use super::net::Net;
use crate::random::Random;
use crate::wait_until;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A play: a fault, and what must come of it.
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// The faults of the design's list that it plays.
    pub faults: &'static str,
    /// What happens.
    pub what: &'static str,
    /// Nodes at the start, and how many may come.
    pub nodes: (usize, usize),
    /// How often `all` plays it.
    pub runs: u64,
    /// What it must show, beside that nothing is found.
    pub bars: Bars,
    /// Seconds until the copies of a dead node are replaced, instead of the default.
    pub replace_after: Option<u64>,
    /// It needs links that can be cut.
    pub links: bool,
    /// It needs disks of its own.
    pub disks: bool,
    play: fn(&mut Stage<'_, '_>) -> io::Result<()>,
}

/// Bounds that a scenario has to stay within.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bars {
    /// Of the longest gaps of the runs, in milliseconds: the median …
    pub gap_p50: Option<u64>,
    /// … and the 99th percentile.
    pub gap_p99: Option<u64>,
    /// Of the times until it serves again, or is whole again, in milliseconds: the longest.
    pub healed: Option<u64>,
}

/// Where and how scenarios are played.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The program.
    pub program: PathBuf,
    /// Plays, instead of the scenario's own number.
    pub runs: Option<u64>,
    /// Seconds that a fault lasts, where it lasts; instead of the scenario's own.
    pub seconds: Option<f64>,
    /// Repeats the same choices; not the same schedule, which is the kernel's.
    pub seed: u64,
    /// Where the logs of failed runs go.
    pub keep: PathBuf,
    /// Times how long a cluster may take to form, and everybody to drain.
    pub patience: Duration,
    /// More arguments for each node.
    pub arguments: Vec<String>,
    /// Each run has a cluster of its own; otherwise only after one that failed.
    pub fresh: bool,
    /// Nodes at the start, instead of the scenario's own number.
    pub nodes: Option<usize>,
}

/// What came of one run.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// What the checker found.
    pub findings: Findings,
    /// The longest time without an acknowledgement while the fault was on.
    pub gap: Option<Duration>,
    /// How long until it served again, or was whole again, after the fault.
    pub healed: Option<Duration>,
    /// What is worth a word.
    pub notes: Vec<String>,
    /// It could not be played to its end.
    pub broken: Option<String>,
    /// Where its logs are.
    pub kept: Option<PathBuf>,
}

impl Run {
    /// Nothing is wrong, but for the bars.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.broken.is_none() && self.findings.violations() == 0
    }
}

/// The place for the clusters of a scenario, one after the other.
#[derive(Debug)]
pub struct Theatre<'a> {
    net: &'a Net,
    scratch: PathBuf,
    plan: Plan,
}

/// One run, as the play sees it.
struct Stage<'c, 'n> {
    cluster: &'c mut Cluster<'n>,
    plan: &'c Plan,
    number: u64,
    random: Random,
    load: Option<Load>,
    run: Run,
}

/// A play may take so long to be whole again before that counts as stuck.
const WHOLE: Duration = Duration::from_secs(60);

const fn bars(gap_p50: u64, gap_p99: u64, healed: u64) -> Bars {
    const fn some(value: u64) -> Option<u64> {
        if value == 0 { None } else { Some(value) }
    }
    Bars { gap_p50: some(gap_p50), gap_p99: some(gap_p99), healed: some(healed) }
}

const fn scenario_of(
    name: &'static str,
    faults: &'static str,
    runs: u64,
    bars: Bars,
    what: &'static str,
    play: fn(&mut Stage<'_, '_>) -> io::Result<()>,
) -> Scenario {
    Scenario { name, faults, what, nodes: (3, 3), runs, bars, replace_after: None, links: false, disks: false, play }
}

/// All scenarios, in the order in which `all` plays them.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        nodes: (1, 1),
        ..scenario_of(
            "kill-one",
            "F01",
            3,
            bars(0, 0, 15_000),
            "SIGKILL of a node that is alone; it starts again",
            kill_one,
        )
    },
    scenario_of(
        "kill-leader",
        "F01 F02 F05 F06",
        20,
        bars(800, 2_000, 15_000),
        "SIGKILL of the node that leads a range: inbox, dist, retain in turn; it starts again",
        kill_leader,
    ),
    scenario_of(
        "kill-follower",
        "F03",
        20,
        bars(800, 2_000, 15_000),
        "SIGKILL of a node that does not lead the inbox range; it starts again",
        kill_follower,
    ),
    scenario_of(
        "back-on-another-node",
        "F04",
        20,
        bars(0, 2_000, 0),
        "SIGKILL of the node of 100 sessions, which come back elsewhere: present, and served within 2 s",
        back_on_another_node,
    ),
    scenario_of("stop-10s", "F07 F08", 10, bars(0, 3_000, 15_000), "SIGSTOP of a leader for 10 s, then SIGCONT", stop),
    Scenario {
        links: true,
        ..scenario_of(
            "cut-minority",
            "F09",
            10,
            bars(0, 3_000, 15_000),
            "the leader of the inbox range is cut off from the others",
            |stage| cut(stage, true),
        )
    },
    Scenario {
        links: true,
        ..scenario_of(
            "cut-majority",
            "F10",
            10,
            bars(0, 3_000, 15_000),
            "a node that does not lead the inbox range is cut off",
            |stage| cut(stage, false),
        )
    },
    Scenario {
        links: true,
        ..scenario_of(
            "one-way",
            "F12",
            10,
            bars(0, 3_000, 15_000),
            "the leader of the inbox range hears the others, and they do not hear it",
            one_way,
        )
    },
    Scenario {
        links: true,
        ..scenario_of(
            "bridge",
            "F13",
            10,
            bars(0, 3_000, 15_000),
            "two nodes are cut apart, the third sees both",
            bridge,
        )
    },
    Scenario {
        links: true,
        nodes: (5, 5),
        ..scenario_of("ring", "F11", 3, bars(0, 10_000, 15_000), "five nodes, each sees only its two neighbours", ring)
    },
    Scenario {
        links: true,
        ..scenario_of("loss", "F14", 10, bars(0, 3_000, 15_000), "one node loses 20 % of its packets", loss)
    },
    Scenario {
        links: true,
        ..scenario_of("delay", "F15", 10, bars(0, 3_000, 15_000), "100 ± 50 ms on all links", delay)
    },
    Scenario {
        disks: true,
        ..scenario_of(
            "power-cut-all",
            "F17",
            20,
            bars(0, 0, 15_000),
            "the power of all nodes fails at once",
            power_cut_all,
        )
    },
    Scenario {
        disks: true,
        ..scenario_of(
            "power-cut-one-while-other-hangs",
            "F18",
            20,
            bars(0, 0, 15_000),
            "the power of one node fails while another hangs",
            power_cut_one,
        )
    },
    scenario_of(
        "two-of-three",
        "F28",
        10,
        bars(0, 0, 10_000),
        "two nodes are killed, and start again: no acknowledgement meanwhile",
        two_of_three,
    ),
    Scenario {
        replace_after: Some(3),
        ..scenario_of(
            "wipe",
            "F26",
            5,
            bars(0, 3_000, 60_000),
            "a node loses its data directory and starts again",
            wipe,
        )
    },
    Scenario {
        nodes: (3, 4),
        replace_after: Some(3),
        ..scenario_of(
            "replace",
            "F27",
            5,
            bars(0, 3_000, 60_000),
            "a node never comes back, a fresh one comes",
            replace,
        )
    },
    scenario_of(
        "rolling-restart",
        "F32",
        10,
        bars(0, 1_000, 30_000),
        "SIGTERM and start of one node after the other",
        rolling,
    ),
    scenario_of(
        "takeover-races",
        "F31",
        3,
        bars(0, 3_000, 15_000),
        "two clients fight for one client id at different nodes, one of which is killed",
        takeovers,
    ),
    scenario_of("steady", "F34", 1, bars(0, 1_000, 0), "no fault at all; memory does not grow", steady),
];

/// The scenario of that name.
#[must_use]
pub fn scenario(name: &str) -> Option<&'static Scenario> {
    SCENARIOS.iter().find(|scenario| scenario.name == name)
}

impl<'a> Theatre<'a> {
    /// A place in that directory.
    #[must_use]
    pub fn new(net: &'a Net, scratch: &Path, plan: Plan) -> Self {
        Self { net, scratch: scratch.to_owned(), plan }
    }

    /// Why a scenario cannot be played here; `None`: it can.
    #[must_use]
    pub fn lacks(&self, scenario: &Scenario) -> Option<String> {
        if scenario.links
            && let Some(why) = self.net.limits()
        {
            return Some(format!("links cannot be cut here: {why}"));
        }
        if scenario.disks && self.net.limits().is_some() {
            return Some("disks of their own need the rights of root".into());
        }
        (scenario.nodes.1 > self.net.hosts()).then(|| format!("there is room for {} nodes only", self.net.hosts()))
    }

    /// Plays a scenario as often as planned; `heard` hears after each run.
    ///
    /// # Errors
    /// A tool of the laboratory fails. What goes wrong in a run is in its report.
    pub fn play(&self, scenario: &Scenario, mut heard: impl FnMut(u64, &Run)) -> io::Result<Vec<Run>> {
        let (mut runs, mut cluster, mut clusters) = (Vec::new(), None, 0);
        for number in 0..self.plan.runs.unwrap_or(scenario.runs) {
            if cluster.is_none() {
                clusters += 1;
                let directory = self.scratch.join(format!("{}-{clusters}", scenario.name));
                match self.open(scenario, &directory) {
                    Ok(opened) => cluster = Some((opened, directory)),
                    Err(error) => {
                        let run = Run { broken: Some(format!("no cluster: {error}")), ..Run::default() };
                        let run = self.keep(scenario, number, run, &directory)?;
                        heard(number, &run);
                        runs.push(run);
                        fs::remove_dir_all(&directory)?;
                        // It will not form the next time either.
                        break;
                    }
                }
            }
            let Some((opened, directory)) = &mut cluster else { break };
            self.net.heal();
            let mut stage = Stage {
                cluster: opened,
                plan: &self.plan,
                number,
                random: Random::new(self.plan.seed.wrapping_add(number.wrapping_mul(7919))),
                load: None,
                run: Run::default(),
            };
            let result = (scenario.play)(&mut stage);
            let mut run = stage.run;
            if let Err(error) = result {
                run.broken = Some(error.to_string());
            }
            self.net.heal();
            let failed = !run.is_clean();
            if failed {
                run = self.keep(scenario, number, run, directory)?;
            }
            heard(number, &run);
            runs.push(run);
            if failed || self.plan.fresh || scenario.nodes.1 > scenario.nodes.0 {
                let directory = directory.clone();
                drop(cluster.take());
                fs::remove_dir_all(directory)?;
            }
        }
        Ok(runs)
    }

    fn open(&self, scenario: &Scenario, directory: &Path) -> io::Result<Cluster<'a>> {
        let nodes = self.plan.nodes.unwrap_or(scenario.nodes.0);
        let setup = ClusterSetup {
            program: self.plan.program.clone(),
            nodes,
            voters: nodes,
            disks: scenario.disks,
            replace_after: scenario.replace_after,
            arguments: self.plan.arguments.clone(),
        };
        Cluster::start(self.net, setup, directory, self.plan.patience)
    }

    /// Saves what explains a failure.
    fn keep(&self, scenario: &Scenario, number: u64, mut run: Run, directory: &Path) -> io::Result<Run> {
        let to = self.plan.keep.join(format!("{}-{}-{number}", scenario.name, self.plan.seed));
        fs::create_dir_all(&to)?;
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            if let (true, Some(name)) = (path.is_file(), path.file_name()) {
                fs::copy(&path, to.join(name))?;
            }
        }
        let broken = run.broken.as_deref().unwrap_or("played to its end");
        fs::write(to.join("findings.txt"), format!("{broken}\n{}{}\n", run.findings, run.notes.join("\n")))?;
        run.kept = Some(to);
        Ok(run)
    }
}

impl Stage<'_, '_> {
    fn load(&mut self, cast: Cast) -> io::Result<&mut Load> {
        // A name of its own for the run, on a cluster that others used.
        let name = self.random.below(1 << 30) as u32;
        let addresses = self.cluster.addresses().into_iter().take(self.cluster.len()).collect();
        let load = Load::start(addresses, cast, name, self.plan.seed ^ self.number, self.plan.patience)?;
        Ok(self.load.insert(load))
    }

    fn play(&mut self, seconds: f64) -> io::Result<()> {
        self.load.as_mut().map_or(Ok(()), |load| load.play(Duration::from_secs_f64(seconds)))
    }

    /// How long the fault lasts.
    fn seconds(&self, own: f64) -> f64 {
        self.plan.seconds.unwrap_or(own)
    }

    /// Quiet before the fault, which begins now.
    fn quiet(&mut self) -> io::Result<()> {
        self.play(2.0)?;
        if let Some(load) = &mut self.load {
            load.begin_gaps();
            load.fault();
        }
        Ok(())
    }

    fn fault(&mut self) {
        if let Some(load) = &mut self.load {
            load.fault();
        }
    }

    fn note(&mut self, note: String) {
        self.run.notes.push(note);
    }

    /// Who leads the range of a store: the first time that somebody says so.
    fn leader(&mut self, store: &str) -> io::Result<usize> {
        let mut leader = None;
        let cluster = &*self.cluster;
        wait_until(&format!("somebody leads {store}"), Duration::from_secs(10), || {
            leader = cluster.leader(store);
            Ok(leader.is_some())
        })?;
        leader.ok_or_else(|| io::Error::other("no leader"))
    }

    fn follower(&mut self) -> io::Result<usize> {
        let leader = self.leader("inbox")?;
        let others: Vec<usize> = (0..self.cluster.len()).filter(|node| *node != leader).collect();
        Ok(others[self.random.below(others.len() as u64) as usize])
    }

    /// The store whose turn it is.
    fn store(&self) -> &'static str {
        STORES[(self.number as usize + 1) % STORES.len()]
    }

    /// The fault is over for the clients: the longest gap so far is its gap.
    fn take_gap(&mut self) {
        if let Some(load) = &self.load {
            let gap = load.longest_gap();
            self.run.gap = Some(self.run.gap.map_or(gap, |before| before.max(gap)));
        }
    }

    /// Plays until every publisher is served; that counts as healed.
    fn until_served(&mut self) -> io::Result<()> {
        let Some(load) = &mut self.load else { return Ok(()) };
        match load.play_until_served(WHOLE)? {
            Some(time) => self.run.healed = Some(time),
            None => load.stuck(format!("not every publisher is served within {WHOLE:?}")),
        }
        Ok(())
    }

    /// Plays until the cluster is whole; that counts as healed.
    fn until_whole(&mut self) -> io::Result<()> {
        let Some(load) = &mut self.load else { return Ok(()) };
        let cluster = &mut *self.cluster;
        let start = Instant::now();
        let time = load.play_until(WHOLE, || match cluster.ended()? {
            Some(ended) => Err(io::Error::other(ended)),
            None => Ok(cluster.ailment().is_none()),
        })?;
        match time {
            Some(_) => {
                load.calm();
                self.run.healed = Some(self.run.healed.unwrap_or_default().max(start.elapsed()));
            }
            None => {
                let ailment = self.cluster.ailment().unwrap_or_default();
                load.stuck(format!("it is not whole within {WHOLE:?}: {ailment}"));
            }
        }
        Ok(())
    }

    /// Everybody comes to an end, and it is judged.
    fn finish(&mut self) -> io::Result<()> {
        let Some(load) = self.load.take() else { return Ok(()) };
        let began = load.began();
        self.note(format!("began {}:{:06.3} past the hour", (began / 60.0) as u64 % 60, began % 60.0));
        let latency = load.latency();
        let (p50, p99) = (latency.quantile(0.5), latency.quantile(0.99));
        self.note(format!("ack p50 {:.1} ms, p99 {:.1} ms", p50.as_secs_f64() * 1e3, p99.as_secs_f64() * 1e3));
        let mut findings = load.finish(self.plan.patience)?;
        if findings.lost > 0 {
            let dropped = self.dropped();
            findings.silent = findings.lost.saturating_sub(dropped);
            self.note(format!("{dropped} dropped messages are counted in the metrics of the nodes that run"));
        }
        self.run.findings = findings;
        if let Some(ended) = self.cluster.ended()? {
            return Err(io::Error::other(ended));
        }
        Ok(())
    }

    /// What the nodes say that they dropped.
    fn dropped(&self) -> u64 {
        let running = (0..self.cluster.len()).filter(|node| self.cluster.runs(*node));
        let metrics = running.filter_map(|node| self.cluster.get(node, "/metrics").ok());
        let dropped = metrics.map(|(_, text)| {
            let lines = text.lines().filter(|line| line.starts_with("hermod_messages_dropped_total{"));
            lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64
        });
        dropped.sum()
    }
}

fn kill_one(stage: &mut Stage<'_, '_>) -> io::Result<()> {
    stage.load(Cast::default())?;
    stage.quiet()?;
    stage.cluster.kill(0)?;
    stage.play(0.2)?;
    stage.cluster.launch(0)?;
    stage.until_served()?;
    stage.take_gap();
    stage.play(1.0)?;
    stage.finish()
}

fn kill_leader(stage: &mut Stage<'_, '_>) -> io::Result<()> {
    stage.load(Cast::default())?;
    let store = stage.store();
    let victim = stage.leader(store)?;
    stage.note(format!("node {} leads {store} and is killed", victim + 1));
    kill(stage, victim)
}

fn kill_follower(stage: &mut Stage<'_, '_>) -> io::Result<()> {
    stage.load(Cast::default())?;
    let victim = stage.follower()?;
    kill(stage, victim)
}

fn kill(stage: &mut Stage<'_, '_>, victim: usize) -> io::Result<()> {
    stage.quiet()?;
    stage.cluster.kill(victim)?;
    let seconds = stage.seconds(4.0);
    stage.play(seconds)?;
    stage.take_gap();
    stage.fault();
    stage.cluster.launch(victim)?;
    stage.until_whole()?;
    stage.take_gap();
    stage.finish()
}

fn back_on_another_node(stage: &mut Stage<'_, '_>) -> io::Result<()> {
    const CLIENTS: usize = 100;
    const LIMIT: Duration = Duration::from_secs(2);
    let victim = stage.random.below(stage.cluster.len() as u64) as usize;
    let cast =
        Cast { rate: 5.0, sessions: 0, live: 0, churn: 5.0, wills: 2, returning: (CLIENTS, victim), ..Cast::default() };
    stage.load(cast)?;
    stage.quiet()?;
    stage.cluster.kill(victim)?;
    stage.play(6.0)?;
    stage.take_gap();
    if let Some(load) = &mut stage.load {
        let mut times = load.first_messages();
        times.sort_unstable();
        let slowest = times.last().copied().unwrap_or_default();
        if times.len() < CLIENTS {
            load.stuck(format!("only {} of {CLIENTS} sessions came back and got a message", times.len()));
        }
        if slowest > LIMIT {
            load.stuck(format!("the first message of a session came {slowest:?} after its CONNACK"));
        }
        stage.run.notes.push(format!("slowest first message {} ms after CONNACK", slowest.as_millis()));
    }
    stage.fault();
    stage.cluster.launch(victim)?;
    stage.until_whole()?;
    stage.finish()
}

fn stop(stage: &mut Stage<'_, '_>) -> io::Result<()> {
    stage.load(Cast::default())?;
    let store = stage.store();
    let victim = stage.leader(store)?;
    stage.note(format!("node {} leads {store} and hangs", victim + 1));
    stage.quiet()?;
    stage.cluster.stop(victim)?;
    let seconds = stage.seconds(10.0);
    stage.play(seconds)?;
    stage.fault();
    stage.cluster.resume(victim)?;
    stage.until_whole()?;
    stage.play(1.0)?;
    stage.take_gap();
    stage.finish()
}

fn cut(stage: &mut Stage<'_, '_>, leader: bool) -> io::Result<()> {
    stage.load(Cast::default())?;
    let victim = if leader { stage.leader("inbox")? } else { stage.follower()? };
    let others: Vec<usize> = (0..stage.cluster.len()).filter(|node| *node != victim).collect();
    stage.quiet()?;
    stage.cluster.net().cut(&[victim], &others);
    isolate(stage, &[victim]);
    let seconds = stage.seconds(8.0);
    stage.play(seconds)?;
    heal(stage)
}

fn one_way(stage: &mut Stage<'_, '_>) -> io::Result<()> {
    stage.load(Cast::default())?;
    let victim = stage.leader("inbox")?;
    stage.quiet()?;
    for other in (0..stage.cluster.len()).filter(|node| *node != victim) {
        stage.cluster.net().cut_one_way(victim, other);
    }
    let seconds = stage.seconds(8.0);
    stage.play(seconds)?;
    heal(stage)
}

fn bridge(stage: &mut Stage<'_, '_>) -> io::Result<()> {
    stage.load(Cast::default())?;
    let leader = stage.leader("inbox")?;
    let other = stage.follower()?;
    stage.quiet()?;
    stage.cluster.net().cut(&[leader], &[other]);
    let seconds = stage.seconds(8.0);
    stage.play(seconds)?;
    heal(stage)
}

fn ring(stage: &mut Stage<'_, '_>) -> io::Result<()> {
    stage.load(Cast::default())?;
    stage.quiet()?;
    let nodes = stage.cluster.len();
    for node in 0..nodes {
        stage.cluster.net().cut(&[node], &[(node + 2) % nodes]);
    }
    let seconds = stage.seconds(10.0);
    stage.play(seconds)?;
    heal(stage)
}

fn loss(stage: &mut Stage<'_, '_>) -> io::Result<()> {
    stage.load(Cast::default())?;
    let victim = stage.random.below(stage.cluster.len() as u64) as usize;
    stage.quiet()?;
    stage.cluster.net().lose(victim, 20);
    let seconds = stage.seconds(8.0);
    stage.play(seconds)?;
    heal(stage)
}

fn delay(stage: &mut Stage<'_, '_>) -> io::Result<()> {
    // A client that knows the distance waits.
    stage.load(Cast { patience: 6_000, ..Cast::default() })?;
    stage.quiet()?;
    stage.cluster.net().delay(Duration::from_millis(100), Duration::from_millis(50));
    let seconds = stage.seconds(8.0);
    stage.play(seconds)?;
    heal(stage)
}

fn isolate(stage: &mut Stage<'_, '_>, nodes: &[usize]) {
    if let Some(load) = &mut stage.load {
        load.isolate(nodes);
    }
}

/// The links are whole again; it takes a while until the cluster is.
fn heal(stage: &mut Stage<'_, '_>) -> io::Result<()> {
    stage.take_gap();
    stage.fault();
    isolate(stage, &[]);
    stage.cluster.net().heal();
    stage.until_whole()?;
    stage.play(1.0)?;
    stage.take_gap();
    stage.finish()
}

fn power_cut_all(stage: &mut Stage<'_, '_>) -> io::Result<()> {
    stage.load(Cast::default())?;
    stage.quiet()?;
    let nodes: Vec<usize> = (0..stage.cluster.len()).collect();
    stage.cluster.power_cut(&nodes)?;
    // What they sent before is read: those acknowledgements count.
    stage.play(0.2)?;
    for node in nodes {
        stage.cluster.launch(node)?;
    }
    stage.until_served()?;
    stage.until_whole()?;
    stage.finish()
}

fn power_cut_one(stage: &mut Stage<'_, '_>) -> io::Result<()> {
    stage.load(Cast::default())?;
    let hung = stage.follower()?;
    let others: Vec<usize> = (0..stage.cluster.len()).filter(|node| *node != hung).collect();
    let victim = others[stage.random.below(2) as usize];
    stage.quiet()?;
    stage.cluster.stop(hung)?;
    stage.play(2.0)?;
    stage.fault();
    stage.cluster.power_cut(&[victim])?;
    stage.play(1.0)?;
    stage.fault();
    stage.cluster.resume(hung)?;
    stage.until_served()?;
    stage.cluster.launch(victim)?;
    stage.until_whole()?;
    stage.finish()
}

fn two_of_three(stage: &mut Stage<'_, '_>) -> io::Result<()> {
    stage.load(Cast::default())?;
    let survivor = stage.random.below(stage.cluster.len() as u64) as usize;
    let victims: Vec<usize> = (0..stage.cluster.len()).filter(|node| *node != survivor).collect();
    stage.quiet()?;
    for &victim in &victims {
        stage.cluster.kill(victim)?;
    }
    isolate(stage, &[survivor]);
    let seconds = stage.seconds(4.0);
    stage.play(seconds)?;
    stage.fault();
    isolate(stage, &[]);
    for victim in victims {
        stage.cluster.launch(victim)?;
    }
    stage.until_served()?;
    let served = stage.run.healed;
    stage.until_whole()?;
    stage.run.healed = served;
    stage.finish()
}

fn wipe(stage: &mut Stage<'_, '_>) -> io::Result<()> {
    stage.load(Cast::default())?;
    let victim = stage.random.below(stage.cluster.len() as u64) as usize;
    stage.quiet()?;
    stage.cluster.kill(victim)?;
    stage.cluster.wipe(victim)?;
    stage.play(1.0)?;
    stage.fault();
    stage.cluster.launch(victim)?;
    stage.until_whole()?;
    stage.take_gap();
    // The others may go now, one after the other: what it knows must be enough.
    stage.finish()
}

fn replace(stage: &mut Stage<'_, '_>) -> io::Result<()> {
    stage.load(Cast::default())?;
    let victim = stage.random.below(stage.cluster.len() as u64) as usize;
    stage.quiet()?;
    stage.cluster.kill(victim)?;
    stage.play(1.0)?;
    stage.fault();
    let fresh = stage.cluster.len();
    stage.cluster.launch(fresh)?;
    stage.until_whole()?;
    stage.take_gap();
    stage.finish()
}

fn rolling(stage: &mut Stage<'_, '_>) -> io::Result<()> {
    const LEAVE: Duration = Duration::from_secs(20);
    stage.load(Cast::default())?;
    stage.quiet()?;
    for node in 0..stage.cluster.len() {
        stage.fault();
        if let Some(load) = &mut stage.load {
            load.begin_gaps();
        }
        stage.cluster.ask_to_leave(node)?;
        let Stage { load, cluster, .. } = stage;
        let Some(load) = load else { return Ok(()) };
        load.leaves(Some(node));
        if load.play_until(LEAVE, || Ok(cluster.left(node)?.is_some()))?.is_none() {
            load.stuck(format!("node {} has not left within {LEAVE:?}", node + 1));
            cluster.kill(node)?;
        }
        load.leaves(None);
        stage.fault();
        stage.cluster.launch(node)?;
        stage.until_whole()?;
        stage.take_gap();
    }
    stage.finish()
}

fn takeovers(stage: &mut Stage<'_, '_>) -> io::Result<()> {
    // 20 client ids, two or three fights a second each.
    stage.load(Cast { duels: 20, sessions: 10, rate: 5.0, publishers: 10, ..Cast::default() })?;
    stage.quiet()?;
    stage.play(4.0)?;
    let victim = stage.random.below(stage.cluster.len() as u64) as usize;
    stage.fault();
    stage.cluster.kill(victim)?;
    let seconds = stage.seconds(4.0);
    stage.play(seconds)?;
    stage.fault();
    stage.cluster.launch(victim)?;
    stage.until_whole()?;
    stage.play(3.0)?;
    stage.take_gap();
    stage.finish()?;
    let takeovers = stage.run.findings.takeovers;
    stage.note(format!("{takeovers} takeovers"));
    Ok(())
}

fn steady(stage: &mut Stage<'_, '_>) -> io::Result<()> {
    const GROWTH: f64 = 1.05;
    stage.load(Cast { rate: 30.0, ..Cast::default() })?;
    let seconds = stage.seconds(30.0);
    let memory = |stage: &Stage<'_, '_>| -> Vec<u64> {
        (0..stage.cluster.len()).map(|node| stage.cluster.usage(node).rss).collect()
    };
    stage.play(seconds * 0.2)?;
    if let Some(load) = &mut stage.load {
        load.begin_gaps();
    }
    let before = memory(stage);
    stage.play(seconds * 0.8)?;
    let after = memory(stage);
    stage.take_gap();
    for (node, (before, after)) in before.into_iter().zip(after).enumerate() {
        let (before, after) = (before as f64 / 1e6, after as f64 / 1e6);
        stage.note(format!("node {}: {before:.0} MB, then {after:.0} MB", node + 1));
        // In less than ten minutes caches fill: only then it is held to it.
        if seconds >= 600.0
            && after > before * GROWTH
            && let Some(load) = &mut stage.load
        {
            load.stuck(format!("the memory of node {} grew from {before:.0} to {after:.0} MB", node + 1));
        }
    }
    stage.finish()
}
