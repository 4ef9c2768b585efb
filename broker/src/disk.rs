//! How full the disk of the data directory is, and what follows: an alarm, and later that nothing new is stored while consumers go on, so
//! that room is made before the disk is really full (then `base-kv` refuses).

use rustix::fs::statvfs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;
use telemetry::{Reason, Samples, table};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// How often it is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// An alarm ends this many percent below where it begins, so that it does not come and go.
const CALM: u8 = 1;

/// What is known of the disk. Asked on the way of a message: one atomic load.
#[derive(Debug)]
pub(crate) struct Disk {
    directory: PathBuf,
    alarm_percent: u8,
    refuse_percent: u8,
    stage: AtomicU8,
    used_percent: AtomicU8,
    total_bytes: AtomicU64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Calm = 0,
    Alarm = 1,
    Refuses = 2,
}

impl Disk {
    /// Percent of the space; 100 turns a stage off.
    pub(crate) fn new(directory: PathBuf, alarm_percent: u8, refuse_percent: u8) -> Self {
        let (stage, used_percent, total_bytes) = Default::default();
        Self { directory, alarm_percent, refuse_percent, stage, used_percent, total_bytes }
    }

    /// Whether messages that would be stored are refused.
    pub(crate) fn refuses(&self) -> bool {
        self.stage() == Stage::Refuses
    }

    fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Relaxed) {
            0 => Stage::Calm,
            1 => Stage::Alarm,
            _ => Stage::Refuses,
        }
    }

    /// What there is to warn of.
    pub(crate) fn warning(&self) -> Option<Reason> {
        let what = match self.stage() {
            Stage::Calm => return None,
            Stage::Alarm => format!("from {} % on messages that must be stored are refused", self.refuse_percent),
            Stage::Refuses => "messages that must be stored are refused (0x97); QoS 0 and consumers go on".to_owned(),
        };
        let used = self.used_percent.load(Ordering::Relaxed);
        Some(Reason {
            what: "disk".to_owned(),
            why: format!("{used} % of {} are used: {what}", self.directory.display()),
        })
    }

    #[allow(clippy::cast_precision_loss, reason = "Prometheus knows only floats")]
    pub(crate) fn read(&self, out: &mut Samples) {
        out.add(&table::DISK_TOTAL, &[], self.total_bytes.load(Ordering::Relaxed) as f64);
        out.add(&table::DISK_ALARM, &[], f64::from(self.stage() as u8));
    }

    /// Notes how much is used, and tells the stage when it is another one.
    fn note(&self, used_percent: u8) -> Option<Stage> {
        let before = self.stage();
        let reached = |percent: u8, stage: Stage| {
            percent < 100 && used_percent >= if before >= stage { percent.saturating_sub(CALM) } else { percent }
        };
        let stage = if reached(self.refuse_percent, Stage::Refuses) {
            Stage::Refuses
        } else if reached(self.alarm_percent, Stage::Alarm) {
            Stage::Alarm
        } else {
            Stage::Calm
        };
        self.used_percent.store(used_percent, Ordering::Relaxed);
        self.stage.store(stage as u8, Ordering::Relaxed);
        (stage != before).then_some(stage)
    }

    fn look(&self) {
        let stat = match statvfs(&self.directory) {
            Ok(stat) => stat,
            Err(error) => {
                warn!(%error, "how full the disk is can't be found out");
                return;
            }
        };
        self.total_bytes.store(stat.f_blocks.saturating_mul(stat.f_frsize), Ordering::Relaxed);
        // As `df` does: what only root may use counts neither as used nor as free.
        let used = stat.f_blocks.saturating_sub(stat.f_bfree);
        let percent = (used.saturating_mul(100)).div_ceil((used.saturating_add(stat.f_bavail)).max(1));
        match self.note(u8::try_from(percent).unwrap_or(100)) {
            None => {}
            Some(Stage::Calm) => info!(used_percent = percent, "the disk has room again"),
            Some(_) => {
                let why = self.warning().map(|reason| reason.why).unwrap_or_default();
                warn!(used_percent = percent, "the disk fills up: {why}");
            }
        }
    }
}

/// Looks at the disk until it is told to stop.
pub(crate) async fn run_disk(disk: std::sync::Arc<Disk>, stop: CancellationToken) {
    loop {
        let looks = std::sync::Arc::clone(&disk);
        // A file system may hang.
        drop(tokio::task::spawn_blocking(move || looks.look()).await);
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_begin_at_their_percent_and_end_below_it() {
        let disk = Disk::new(PathBuf::from("."), 90, 95);
        let stages = [(89, None), (90, Some(Stage::Alarm)), (89, None), (88, Some(Stage::Calm))];
        let later = [(96, Some(Stage::Refuses)), (94, None), (93, Some(Stage::Alarm)), (100, Some(Stage::Refuses))];
        for (used, stage) in stages.into_iter().chain(later).chain([(10, Some(Stage::Calm))]) {
            assert_eq!(disk.note(used), stage, "{used} %");
        }
        assert!(!disk.refuses() && disk.warning().is_none());
    }

    #[test]
    fn a_hundred_percent_turns_a_stage_off() {
        let disk = Disk::new(PathBuf::from("."), 100, 100);
        assert_eq!(disk.note(100), None);
    }
}
