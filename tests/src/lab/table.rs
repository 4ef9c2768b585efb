use super::findings::Findings;
use super::scenario::{Run, Scenario};
use std::time::Duration;

/// Prints the head of the table.
pub fn print_header() {
    println!(
        "{:<32} {:>4} {:>8} {:>5} {:>5} {:>5} {:>5} {:>5} {:>8} {:>8} {:>9}  verdict",
        "scenario", "runs", "acked", "lost", "dup", "reord", "stale", "other", "gap p50", "gap p99", "healed"
    );
}

/// Prints the row of a scenario; answers whether it shows what it must.
pub fn print_row(scenario: &Scenario, runs: &[Run]) -> bool {
    let mut sum = Findings::default();
    runs.iter().for_each(|run| sum += &run.findings);
    let mut gaps: Vec<Duration> = runs.iter().filter_map(|run| run.gap).collect();
    gaps.sort_unstable();
    let (p50, p99) = (quantile(&gaps, 0.5), quantile(&gaps, 0.99));
    let healed = runs.iter().filter_map(|run| run.healed).max();
    let (missing, duplicated) = (sum.missing(), sum.duplicated());
    let other = sum.violations() - missing - duplicated - sum.reordered - sum.stale - sum.silent;
    let broken = runs.iter().filter(|run| run.broken.is_some()).count();
    let mut verdict = Vec::new();
    if sum.violations() > 0 {
        let wrong = sum.wrong().into_iter().filter(|(_, count)| *count > 0);
        verdict.push(wrong.map(|(name, count)| format!("{count} {name}")).collect::<Vec<_>>().join(", "));
    }
    if broken > 0 {
        verdict.push(format!("{broken} runs broke off"));
    }
    for (what, found, bar) in [
        ("gap p50", p50, scenario.bars.gap_p50),
        ("gap p99", p99, scenario.bars.gap_p99),
        ("healed", healed, scenario.bars.healed),
    ] {
        if let (Some(found), Some(bar)) = (found, bar.map(Duration::from_millis))
            && found > bar
        {
            verdict.push(format!("{what} above {bar:?}"));
        }
    }
    let good = verdict.is_empty() && !runs.is_empty();
    println!(
        "{:<32} {:>4} {:>8} {:>5} {:>5} {:>5} {:>5} {:>5} {:>8} {:>8} {:>9}  {}",
        scenario.name,
        runs.len(),
        sum.acknowledged,
        missing,
        duplicated,
        sum.reordered,
        sum.stale,
        other,
        seconds(p50),
        seconds(p99),
        seconds(healed),
        if good { "good".to_owned() } else { format!("FAILED: {}", verdict.join("; ")) }
    );
    good
}

fn quantile(sorted: &[Duration], p: f64) -> Option<Duration> {
    let rank = (sorted.len() as f64 * p).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

fn seconds(time: Option<Duration>) -> String {
    time.map_or_else(|| "-".to_owned(), |time| format!("{:.2} s", time.as_secs_f64()))
}
