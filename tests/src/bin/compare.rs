//! Hermod on default settings next to Mosquitto in memory: the same load, in turns, on this machine.

use clap::Parser;
use hermod_tests::load::{Figures, SCENARIOS, Scenario, Target};
use hermod_tests::wire::Level;
use hermod_tests::{Mosquitto, Node, NodeSetup, Usage, raise_file_limit};
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

/// Compares the CPU seconds per million messages of Hermod (default settings, fsync on) with Mosquitto's (in memory).
#[derive(Parser)]
struct Arguments {
    /// The Mosquitto program.
    #[arg(long, default_value = "/usr/sbin/mosquitto")]
    mosquitto: PathBuf,
    /// How often each scenario runs on each broker, in turns; the median counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds that are measured each time.
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// The protocol level of the clients: 4 (3.1.1) or 5 (5.0).
    #[arg(long, default_value_t = 4)]
    protocol: u8,
    /// Runs Hermod only.
    #[arg(long)]
    alone: bool,
    /// Writes all figures there, one JSON object a line.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Which scenarios; all when none is named.
    scenarios: Vec<String>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("hermod-compare: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> io::Result<bool> {
    let _ = raise_file_limit();
    if let Some(unknown) = arguments.scenarios.iter().find(|name| hermod_tests::load::scenario(name).is_none()) {
        let known: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        return Err(io::Error::other(format!("no scenario is called {unknown:?}; there are {}", known.join(", "))));
    }
    let mut json = arguments.json.as_ref().map(std::fs::File::create).transpose()?;
    empty_node()?;
    if !arguments.alone {
        let version = Mosquitto::version(&arguments.mosquitto)?;
        println!(
            "Peer: Mosquitto {version}. The bars are ratios to 2.1; Debian's 2.0.11 costs about 1.35 times as much."
        );
    }
    println!(
        "CPU seconds per million messages; median of {} rounds of {} s; MQTT {}",
        arguments.rounds,
        arguments.seconds,
        if arguments.protocol == 5 { "5.0" } else { "3.1.1" }
    );
    println!(
        "{:<42} {:>8} {:>8} {:>7} {:>6} {:>6}  {:>9} {:>15}  faults",
        "scenario", "hermod", "peer", "ratio", "bar", "best", "msg/s", "p50/p99 us"
    );
    let mut fine = true;
    for scenario in SCENARIOS {
        if !arguments.scenarios.is_empty() && !arguments.scenarios.iter().any(|name| name == scenario.name) {
            continue;
        }
        fine &= compare(arguments, scenario, json.as_mut())?;
    }
    Ok(fine)
}

fn compare(arguments: &Arguments, scenario: &Scenario, mut json: Option<&mut std::fs::File>) -> io::Result<bool> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let mut failed = None;
    for _ in 0..arguments.rounds {
        // A process of its own for each run: memory that one scenario left would belong to the next.
        if !arguments.alone && scenario.has_bar() {
            let peer = Mosquitto::start(&arguments.mosquitto)?;
            theirs.push(scenario.run(&target(arguments, peer.mqtt(), peer.pid(), None))?);
        }
        let node = Node::start_default()?;
        let target = target(arguments, node.mqtt(), node.pid(), Some(node.scratch().to_owned()));
        match scenario.run(&target) {
            Ok(figures) => ours.push(figures),
            Err(error) => failed = Some(error),
        }
    }
    if let Some(json) = &mut json {
        for (broker, figures) in [("hermod", &ours), ("mosquitto", &theirs)] {
            for figures in figures {
                writeln!(json, "{}", serde_json::json!({ "broker": broker, "figures": figures }))?;
            }
        }
    }
    print!("{:<42} ", scenario.title);
    let faulty = ours.iter().find(|figures| figures.is_faulty()).map(|figures| figures.found);
    let Some(median) = median(&mut ours) else {
        println!("failed: {}", failed.map_or_else(String::new, |error| error.to_string()));
        return Ok(false);
    };
    let peer = self::median(&mut theirs).map(|figures| figures.cpu_per_million);
    let ratio = peer.map(|peer| median.cpu_per_million / peer);
    let or_dash = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"));
    let met = scenario.bar.zip(ratio).is_none_or(|(bar, ratio)| ratio <= bar);
    println!(
        "{:>8.2} {:>8} {:>6}{} {:>6} {:>6}  {:>9.0} {:>15}  {}",
        median.cpu_per_million,
        or_dash(peer),
        or_dash(ratio),
        if met { ' ' } else { '!' },
        or_dash(scenario.bar),
        or_dash(scenario.best),
        median.rate(),
        format!("{}/{}", median.p50_us, median.p99_us),
        faulty.map_or_else(
            || "none".to_owned(),
            |found| { format!("lost {}, reordered {}, duplicates {}", found.lost, found.reordered, found.duplicates) }
        ),
    );
    median.more.iter().for_each(|(name, value)| println!("    {name}: {value:.1}"));
    if let Some(error) = failed {
        println!("    failed in a round: {error}");
        return Ok(false);
    }
    Ok(met && faulty.is_none())
}

fn target(arguments: &Arguments, address: std::net::SocketAddr, pid: u32, disk: Option<PathBuf>) -> Target {
    let level = if arguments.protocol == 5 { Level::V5 } else { Level::V4 };
    Target { address, pid, level, measure: Duration::from_secs_f64(arguments.seconds), disk }
}

fn median(runs: &mut [Figures]) -> Option<&Figures> {
    runs.sort_by(|a, b| a.cpu_per_million.total_cmp(&b.cpu_per_million));
    runs.get(runs.len() / 2)
}

/// What a node costs that nobody uses: start, memory, CPU.
fn empty_node() -> io::Result<()> {
    let start = Instant::now();
    let node = Node::start(NodeSetup::default())?;
    let ready = start.elapsed();
    thread::sleep(Duration::from_secs(2));
    let (before, span) = (Usage::of(node.pid())?, Duration::from_secs(10));
    thread::sleep(span);
    let after = Usage::of(node.pid())?;
    println!(
        "Empty node: ready in {:.2} s (bar 1), RSS {:.1} MB (bar 40), CPU {:.2} % of a core (bar 1)",
        ready.as_secs_f64(),
        after.rss as f64 / 1e6,
        (after.cpu - before.cpu) / span.as_secs_f64() * 100.0
    );
    Ok(())
}
