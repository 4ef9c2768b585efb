//! Kills a broker again and again, by SIGKILL or by a power cut, and compares what it acknowledged with what is there.

use clap::Parser;
use hermod_tests::durability::{Fault, Lab, Plan};
use hermod_tests::{Disk, Node, NodeSetup, raise_file_limit};
use std::io;
use std::process::ExitCode;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Checks that nothing acknowledged is lost when the broker dies.
#[derive(Parser)]
struct Arguments {
    /// How often it dies.
    #[arg(long, default_value_t = 25)]
    rounds: u64,
    /// Messages, all rounds together.
    #[arg(long, default_value_t = 240_000)]
    messages: u64,
    /// The data is on an ext4 of its own, which is shut down before the kill: what was not synced is lost. Needs root.
    #[arg(long)]
    power_cut: bool,
    /// The broker lives and all connections break: what a broker must bear without any durability.
    #[arg(long, conflicts_with = "power_cut")]
    disconnect: bool,
    /// Repeats the moments of an earlier run.
    #[arg(long)]
    seed: Option<u64>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("hermod-durability: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> io::Result<u64> {
    let _ = raise_file_limit();
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |now| u64::from(now.subsec_nanos()));
    let plan =
        Plan { rounds: arguments.rounds, messages: arguments.messages, seed: arguments.seed.unwrap_or_else(now) };
    let fault = if arguments.power_cut {
        match Disk::new(4 << 30) {
            Ok(disk) => Fault::PowerCut(disk),
            Err(error) => {
                println!(
                    "SKIPPED: no power cut is possible here ({error}). It needs root, loop devices and mkfs.ext4."
                );
                return Ok(0);
            }
        }
    } else if arguments.disconnect {
        Fault::Disconnect
    } else {
        Fault::Kill
    };
    let data_dir = match &fault {
        Fault::Kill | Fault::Disconnect => None,
        Fault::PowerCut(disk) => Some(disk.path().join("data")),
    };
    let node = Node::start(NodeSetup { data_dir, ..NodeSetup::default() })?;
    println!("{} rounds, {} messages, seed {}", plan.rounds, plan.messages, plan.seed);
    let start = Instant::now();
    let report = Lab::new(node, fault, plan)?.run(|round, report| {
        println!(
            "round {round:>3} after {:>4.0} s: {} acknowledged, {} delivered, {} violations",
            start.elapsed().as_secs_f64(),
            report.acknowledged,
            report.delivered,
            report.violations()
        );
    })?;
    print!("{report}");
    Ok(report.violations())
}
