use std::{fs, io};

/// What a process has used so far, of all its threads.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// User and system time, in seconds; the kernel counts it in ticks of 10 ms.
    pub cpu: f64,
    /// Resident memory, in bytes.
    pub rss: u64,
    /// The most it ever had resident, in bytes.
    pub peak: u64,
}

impl Usage {
    /// Reads it from `/proc`.
    ///
    /// # Errors
    /// There is no such process, or no `/proc`.
    pub fn of(pid: u32) -> io::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name in parentheses may hold anything; the fields are counted from behind it.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or_default();
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or_default()
        };
        Ok(Self { cpu: (ticks(11) + ticks(12)) as f64 / 100.0, rss: kib("VmRSS:") * 1024, peak: kib("VmHWM:") * 1024 })
    }
}
