//! Loads a broker that already runs on this machine, and prints what it spent.

use clap::Parser;
use hermod_tests::load::{Figures, SCENARIOS, Target, scenario};
use hermod_tests::raise_file_limit;
use hermod_tests::wire::Level;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Loads a broker on this machine and prints its CPU seconds per million messages, its memory, and what arrived wrong.
#[derive(Parser)]
struct Arguments {
    /// Where it speaks MQTT.
    #[arg(long, default_value = "127.0.0.1:1883")]
    address: SocketAddr,
    /// Its process id.
    #[arg(long)]
    pid: u32,
    /// The protocol level of the clients: 4 (3.1.1) or 5 (5.0).
    #[arg(long, default_value_t = 4)]
    protocol: u8,
    /// Seconds that are measured, after one second of warming up.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// A directory on the disk that holds the broker's data, to measure one fsync there (`durable`).
    #[arg(long)]
    disk: Option<PathBuf>,
    /// Prints one JSON object per scenario.
    #[arg(long)]
    json: bool,
    /// Which scenarios; `list` shows them, `all` runs them. Retained messages and sessions stay in the broker.
    #[arg(required = true)]
    scenarios: Vec<String>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(false) => ExitCode::SUCCESS,
        Ok(true) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("hermod-load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> io::Result<bool> {
    let _ = raise_file_limit();
    let target = Target {
        address: arguments.address,
        pid: arguments.pid,
        level: if arguments.protocol == 5 { Level::V5 } else { Level::V4 },
        measure: Duration::from_secs_f64(arguments.seconds),
        disk: arguments.disk.clone(),
    };
    let mut faulty = false;
    for name in &arguments.scenarios {
        if name == "list" {
            SCENARIOS.iter().for_each(|scenario| println!("{:<16} {}", scenario.name, scenario.title));
            continue;
        }
        let all = SCENARIOS.iter().filter(|scenario| name == "all" || scenario.name == name);
        if name != "all" && scenario(name).is_none() {
            return Err(io::Error::other(format!("no scenario is called {name:?}; `list` shows them")));
        }
        for scenario in all {
            let figures = scenario.run(&target)?;
            faulty |= figures.is_faulty();
            if arguments.json {
                println!("{}", serde_json::to_string(&figures)?);
            } else {
                print(scenario.title, &figures);
            }
        }
    }
    Ok(faulty)
}

fn print(title: &str, figures: &Figures) {
    println!("{title}");
    println!(
        "  {:.2} CPU s per million {} ({} in {:.1} s, {:.0}/s; broker {:.2} CPUs, generator {:.2})",
        figures.cpu_per_million,
        figures.unit,
        figures.messages,
        figures.seconds,
        figures.rate(),
        figures.broker_cpu,
        figures.generator_cpu,
    );
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!(
        "  latency p50 {} us, p99 {} us; RSS {:.1} MiB before, {:.1} MiB peak; lost {}, reordered {}, duplicates {}",
        figures.p50_us,
        figures.p99_us,
        mib(figures.rss_before),
        mib(figures.rss_peak),
        figures.found.lost,
        figures.found.reordered,
        figures.found.duplicates,
    );
    figures.more.iter().for_each(|(name, value)| println!("  {name}: {value:.1}"));
}
