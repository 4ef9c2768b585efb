//! What Linux says about the process; elsewhere nothing is said.

use crate::{Samples, table};
use std::fs;

/// Clock ticks per second in `/proc`, the same on all architectures that Rust's standard library supports.
const TICKS: f64 = 100.0;

pub(crate) fn read(out: &mut Samples) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse::<f64>().ok()
    };
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let max_fds = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next()?.parse::<f64>().ok());
    for (metric, value) in [
        (&table::PROCESS_RSS, field("VmRSS").map(|kib| kib * 1024.0)),
        (&table::PROCESS_VIRTUAL, field("VmSize").map(|kib| kib * 1024.0)),
        (&table::PROCESS_THREADS, field("Threads")),
        (&table::PROCESS_CPU, cpu_seconds()),
        // The directory that is read is open, too.
        (&table::PROCESS_FDS, fs::read_dir("/proc/self/fd").ok().map(|files| files.count().saturating_sub(1) as f64)),
        (&table::PROCESS_MAX_FDS, max_fds),
    ] {
        if let Some(value) = value {
            out.add(metric, &[], value);
        }
    }
}

/// proc_pid_stat(5): fields 14 and 15, counted behind the name, which may contain anything.
fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut fields = behind_name.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_process_is_measured() {
        let mut out = Samples::default();
        read(&mut out);
        assert!(out.sum(&table::PROCESS_RSS) > 1e6);
        assert!(out.sum(&table::PROCESS_VIRTUAL) >= out.sum(&table::PROCESS_RSS));
        assert!(out.sum(&table::PROCESS_THREADS) >= 1.0);
        assert!(out.sum(&table::PROCESS_FDS) >= 3.0);
        assert!(out.sum(&table::PROCESS_MAX_FDS) >= out.sum(&table::PROCESS_FDS));
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while cpu_seconds() < Some(0.02) {
            assert!(std::time::Instant::now() < deadline, "burning CPU does not count");
        }
    }
}
