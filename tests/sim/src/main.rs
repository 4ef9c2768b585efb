//! `hermod-sim`: runs seeds, and tells what went wrong.

use clap::Parser;
use hermod_sim::{Plan, Plant, Report, run};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

#[derive(Parser)]
#[command(version, about)]
struct Args {
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many, from there.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Puts a fault in on purpose, and succeeds when it is found.
    #[arg(long)]
    plant: Option<Plant>,
    /// Puts all faults in, one after the other.
    #[arg(long)]
    plants: bool,
    /// Runs each seed twice, and compares.
    #[arg(long)]
    replay: bool,
    /// Makes every packet a part of the story.
    #[arg(long)]
    packets: bool,
    /// Tells everything that happens.
    #[arg(long)]
    aloud: bool,
    /// Threads; one run takes one.
    #[arg(long, default_value_t = 2)]
    threads: u64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if args.packets {
        // The only one who could have set another is nobody.
        let _ = tracing::subscriber::set_global_default(hermod_sim::Packets);
    } else {
        let filter =
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "error,openraft=off".into());
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    }
    let plants: Vec<Option<Plant>> = match args.plant {
        _ if args.plants => Plant::ALL.into_iter().map(Some).collect(),
        plant => vec![plant],
    };
    let good = plants.into_iter().map(|plant| campaign(&args, plant)).fold(true, |all, one| all && one);
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs all seeds; whether it ended as it should.
fn campaign(args: &Args, plant: Option<Plant>) -> bool {
    let (next, bad, began) = (AtomicU64::new(args.seed), AtomicU64::new(0), Instant::now());
    let end = args.seed + args.seeds;
    let ran = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..args.threads.clamp(1, args.seeds.max(1)) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    // A planted fault is found once.
                    if seed >= end || (plant.is_some() && bad.load(Ordering::Relaxed) > 0) {
                        return;
                    }
                    let plan = Plan { seed, plant, aloud: args.aloud };
                    let report = run(plan);
                    ran.fetch_add(1, Ordering::Relaxed);
                    let differs = args.replay && replay_differs(plan, &report);
                    tell(&report, args);
                    if differs || !report.findings.is_empty() {
                        bad.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let (ran, bad, took) = (ran.into_inner(), bad.into_inner(), began.elapsed().as_secs_f64());
    let rate = ran as f64 / took;
    match plant {
        Some(plant) => {
            println!("{plant:?}: {} in {ran} seeds ({took:.1} s)", if bad > 0 { "found" } else { "NOT FOUND" });
            bad > 0
        }
        None => {
            println!("{ran} seeds, {bad} with findings, {took:.1} s, {rate:.2} seeds/s");
            bad == 0
        }
    }
}

/// Runs a plan again; tells where another story begins.
fn replay_differs(plan: Plan, report: &Report) -> bool {
    let again = run(Plan { aloud: false, ..plan });
    if again.hash == report.hash {
        return false;
    }
    println!("seed {}: told another story the second time", plan.seed);
    let at = report.told.iter().zip(&again.told).position(|(a, b)| a != b).unwrap_or(0);
    for line in at.saturating_sub(3)..=at + 1 {
        let of = |report: &Report| report.told.get(line).cloned().unwrap_or_default();
        println!("    {} | {}", of(report), of(&again));
    }
    true
}

fn tell(report: &Report, args: &Args) {
    let Report { seed, findings, hash, faults, acked, delivered, simulated, .. } = report;
    if findings.is_empty() && args.seeds > 20 {
        return;
    }
    let simulated = simulated.as_secs_f64();
    println!(
        "seed {seed}: {acked} acknowledged, {delivered} deliveries, {faults} faults, {simulated:.1} s simulated, {hash:016x}"
    );
    findings.iter().take(8).for_each(|finding| println!("  {finding}"));
}
