//! What the whole check runs of the simulation; `make sim` runs many more seeds.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failure here is the finding")]

use hermod_sim::{Plan, Plant, Report, run};
use std::sync::atomic::{AtomicU64, Ordering};

/// Runs seeds, two at a time, until one answers something.
fn seeds<T: Send>(count: u64, plant: Option<Plant>, look: impl Fn(&Report) -> Option<T> + Sync) -> Vec<T> {
    let next = AtomicU64::new(1);
    let found = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while found.lock().unwrap().is_empty() {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed > count {
                        return;
                    }
                    let found_one = look(&run(Plan { seed, plant, aloud: false }));
                    found.lock().unwrap().extend(found_one);
                }
            });
        }
    });
    found.into_inner().unwrap()
}

fn findings(report: &Report) -> Option<String> {
    let all: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    (!all.is_empty()).then(|| format!("seed {}: {}", report.seed, all.join("\n  ")))
}

#[test]
fn under_faults_from_thirty_seeds_nothing_happens_that_must_not() {
    let found = seeds(30, None, |report| {
        // A run in which nothing happens proves nothing.
        let idle = report.findings.is_empty() && (report.acked < 50 || report.delivered < 100 || report.faults < 3);
        findings(report).or(idle.then(|| format!("seed {}: hardly anything happened", report.seed)))
    });
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn the_same_seed_tells_the_same_story() {
    let differs = seeds(3, None, |report| {
        let again = run(Plan { seed: report.seed, plant: None, aloud: false });
        let at = report.told.iter().zip(&again.told).position(|(a, b)| a != b);
        let line = at.map(|at| format!("seed {}: {} | {}", report.seed, report.told[at], again.told[at]));
        (again.hash != report.hash).then(|| line.unwrap_or_default())
    });
    assert_eq!(differs, Vec::<String>::new());
}

/// The check of the checker.
#[test]
fn every_fault_that_is_put_in_is_found() {
    for plant in Plant::ALL {
        let found = seeds(30, Some(plant), findings);
        assert!(!found.is_empty(), "{plant:?} was not found");
    }
}
