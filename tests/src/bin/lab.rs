//! The fault laboratory: plays faults on a cluster of real nodes and judges what its clients saw.

use clap::{Parser, Subcommand};
use hermod_tests::lab::{
    Flow, Net, Plan, Run, SCENARIOS, Sandbox, Scenario, Theatre, print_header, print_row, scenario, throughput,
};
use hermod_tests::{hermod, raise_file_limit};
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Plays faults on a cluster and judges what its clients saw.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Names the scenarios.
    List,
    /// Plays scenarios.
    Run {
        /// Which.
        #[arg(required = true)]
        names: Vec<String>,
        #[command(flatten)]
        options: Options,
    },
    /// Plays all scenarios.
    All {
        #[command(flatten)]
        options: Options,
    },
    /// Measures one node beside three: durable QoS 1, live QoS 0, and what idleness costs.
    Throughput {
        /// The program under test; also $HERMOD.
        #[arg(long)]
        hermod: Option<PathBuf>,
        /// Seconds of each measurement.
        #[arg(long, default_value_t = 8.0)]
        seconds: f64,
        /// Live messages per second.
        #[arg(long, default_value_t = 10_000)]
        rate: u64,
    },
}

#[derive(clap::Args)]
struct Options {
    /// How often each is played, instead of its own number.
    #[arg(long)]
    runs: Option<u64>,
    /// How long each fault lasts, instead of its own time.
    #[arg(long)]
    seconds: Option<f64>,
    /// Repeats the choices of an earlier run.
    #[arg(long)]
    seed: Option<u64>,
    /// The program under test; also $HERMOD.
    #[arg(long)]
    hermod: Option<PathBuf>,
    /// A cluster of its own for each run.
    #[arg(long)]
    fresh: bool,
    /// Seconds that a cluster may take to form, and everybody to drain.
    #[arg(long, default_value_t = 30)]
    patience: u64,
    /// Nodes, instead of the scenario's own number; one hides nothing behind others.
    #[arg(long)]
    nodes: Option<usize>,
    /// A setting for each node, as for `hermod start -D`.
    #[arg(short = 'D', value_name = "NAME=VALUE")]
    set: Vec<String>,
}

fn main() -> ExitCode {
    let (chosen, options): (Vec<&Scenario>, Options) = match Arguments::parse().command {
        Command::Throughput { hermod, seconds, rate } => {
            return end(measure(hermod, Duration::from_secs_f64(seconds), rate).map(|()| ExitCode::SUCCESS));
        }
        Command::List => {
            for Scenario { name, faults, what, .. } in SCENARIOS {
                println!("{name:<32} {faults:<16} {what}");
            }
            return ExitCode::SUCCESS;
        }
        Command::All { options } => (SCENARIOS.iter().collect(), options),
        Command::Run { names, options } => {
            let chosen: Option<Vec<_>> = names.iter().map(|name| scenario(name)).collect();
            let Some(chosen) = chosen else {
                eprintln!("hermod-lab: no such scenario; `hermod-lab list` names them");
                return ExitCode::FAILURE;
            };
            (chosen, options)
        }
    };
    end(Sandbox::enter().and_then(|sandbox| sandbox.map_or_else(Ok, |sandbox| play(&sandbox, &chosen, &options))))
}

fn end(result: io::Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        eprintln!("hermod-lab: {error}");
        ExitCode::FAILURE
    })
}

fn program(given: Option<&PathBuf>) -> io::Result<PathBuf> {
    given.map_or_else(hermod, std::path::absolute)
}

fn measure(hermod: Option<PathBuf>, time: Duration, rate: u64) -> io::Result<()> {
    let directory = tempfile::TempDir::with_prefix("hermod-lab-")?;
    let found = throughput(&program(hermod.as_ref())?, directory.path(), time, rate)?;
    let durable = |name: &str, flow: &Flow| {
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        println!(
            "durable QoS 1, {name:<12} {:>8.0}/s  PUBACK p50 {:>6.2} ms, p99 {:>6.2} ms  {:>6.1} µs of processor time each",
            flow.rate,
            millis(flow.p50),
            millis(flow.p99),
            flow.cpu
        );
    };
    let live = |name: &str, flow: &Flow| {
        println!("live QoS 0, {name:<15} {:>8.0}/s  {:>44.1} µs of processor time each", flow.rate, flow.cpu);
    };
    durable("one node", &found.durable_one);
    durable("three nodes", &found.durable_three);
    live("inside a node", &found.live_inside);
    live("across two", &found.live_across);
    println!("idle, three nodes: {:.1} % of a core each", found.idle * 100.0);
    println!(
        "durable rate of three: {:.0} % of one (goal: 50 % and more); live across: {:.1} times inside (goal: 2 and less)",
        found.durable_three.rate / found.durable_one.rate * 100.0,
        found.live_across.cpu / found.live_inside.cpu,
    );
    Ok(())
}

fn play(sandbox: &Sandbox, chosen: &[&Scenario], options: &Options) -> io::Result<ExitCode> {
    let _ = raise_file_limit();
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |now| u64::from(now.subsec_nanos()));
    let seed = options.seed.unwrap_or_else(now);
    let program = program(options.hermod.as_ref())?;
    let plan = Plan {
        program: program.clone(),
        runs: options.runs,
        seconds: options.seconds,
        seed,
        keep: std::env::current_exe()?.with_file_name("lab"),
        patience: Duration::from_secs(options.patience),
        arguments: options.set.iter().flat_map(|set| ["-D".to_owned(), set.clone()]).collect(),
        fresh: options.fresh,
        nodes: options.nodes,
    };
    let hosts = chosen.iter().map(|scenario| scenario.nodes.1).max().unwrap_or(3).max(options.nodes.unwrap_or(0));
    let net = Net::new(hosts, sandbox, seed)?;
    match net.limits() {
        None => println!("{}, seed {seed}, each node in a network namespace of its own", program.display()),
        Some(why) => println!("{}, seed {seed}, on loopback addresses, because {why}", program.display()),
    }
    let theatre = Theatre::new(&net, sandbox.scratch(), plan);
    let (mut results, mut skipped) = (Vec::new(), Vec::new());
    for scenario in chosen {
        if let Some(why) = theatre.lacks(scenario) {
            println!("SKIPPED {}: {why}", scenario.name);
            skipped.push(scenario.name);
            continue;
        }
        let start = Instant::now();
        let runs = theatre.play(scenario, |number, run| tell(scenario, number, run, start))?;
        results.push((scenario, runs));
    }
    println!();
    print_header();
    let good = results.iter().fold(true, |good, (scenario, runs)| print_row(scenario, runs) && good);
    if !skipped.is_empty() {
        println!("skipped: {}", skipped.join(", "));
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn tell(scenario: &Scenario, number: u64, run: &Run, start: Instant) {
    let millis = |time: Option<Duration>| time.map_or("-".to_owned(), |time| format!("{} ms", time.as_millis()));
    println!(
        "{} {} after {:.0} s: {} acked, gap {}, healed {}, {}; {}",
        scenario.name,
        number + 1,
        start.elapsed().as_secs_f64(),
        run.findings.acknowledged,
        millis(run.gap),
        millis(run.healed),
        if run.is_clean() { "nothing found".to_owned() } else { format!("{} FOUND", run.findings.violations()) },
        run.notes.join("; "),
    );
    if let Some(broken) = &run.broken {
        println!("  broke off: {broken}");
    }
    if !run.is_clean() {
        print!("{}", run.findings);
    }
    if let Some(kept) = &run.kept {
        println!("  logs: {}", kept.display());
    }
}
