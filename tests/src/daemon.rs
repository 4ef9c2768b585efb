use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// A process under test. It is killed when dropped; in a test that fails, the end of its log is shown.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    status: Option<ExitStatus>,
    log: PathBuf,
}

impl Daemon {
    /// Starts it; what it writes is appended to `log`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(command: &mut Command, log: &Path) -> io::Result<Self> {
        let out = File::options().create(true).append(true).open(log)?;
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        let child = command.spawn().map_err(|error| {
            io::Error::new(error.kind(), format!("{} cannot be started: {error}", command.get_program().display()))
        })?;
        Ok(Self { child, status: None, log: log.to_owned() })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended; `None` while it runs.
    ///
    /// # Errors
    /// The system does not say.
    pub fn exited(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.status.is_none() {
            self.status = self.child.try_wait()?;
        }
        Ok(self.status)
    }

    /// Waits until `ready` says so.
    ///
    /// # Errors
    /// It ended before, or `limit` is over; both with the end of the log.
    pub fn wait_ready(&mut self, limit: Duration, mut ready: impl FnMut() -> bool) -> io::Result<()> {
        let start = Instant::now();
        while !ready() {
            if let Some(status) = self.exited()? {
                return Err(io::Error::other(format!("it ended with {status}:\n{}", self.log_end())));
            }
            if start.elapsed() > limit {
                return Err(io::Error::other(format!("it is not ready within {limit:?}:\n{}", self.log_end())));
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// SIGKILL; it is gone when this returns.
    ///
    /// # Errors
    /// The system refuses.
    pub fn kill(&mut self) -> io::Result<()> {
        if self.exited()?.is_none() {
            self.child.kill()?;
            self.status = Some(self.child.wait()?);
        }
        Ok(())
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// The system refuses.
    pub fn signal(&mut self, signal: Signal) -> io::Result<()> {
        if self.exited()?.is_none() {
            kill_process(Pid::from_child(&self.child), signal)?;
        }
        Ok(())
    }

    /// SIGTERM, and how it ended.
    ///
    /// # Errors
    /// It has not ended within `limit`.
    pub fn terminate(&mut self, limit: Duration) -> io::Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait(limit)
    }

    /// How it ended.
    ///
    /// # Errors
    /// It has not ended within `limit`.
    pub fn wait(&mut self, limit: Duration) -> io::Result<ExitStatus> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.exited()? {
                return Ok(status);
            }
            if start.elapsed() > limit {
                return Err(io::Error::other(format!("it still runs after {limit:?}:\n{}", self.log_end())));
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// What it wrote.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    fn log_end(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.kill();
        if thread::panicking() {
            eprintln!("--- the end of {}:\n{}", self.log.display(), self.log_end());
        }
    }
}

/// A loopback port that was free a moment ago. It is not one that the system gives to outgoing connections, and no two calls of
/// a process get the same.
///
/// # Errors
/// There is none.
pub fn free_port() -> io::Result<u16> {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    const PORTS: Range<u32> = 10_000..32_000;
    // Processes that run at the same time start at distant places.
    let start = process::id().wrapping_mul(7919);
    for _ in PORTS {
        let nth = start.wrapping_add(CALLS.fetch_add(1, Ordering::Relaxed)) % (PORTS.end - PORTS.start);
        let port = (PORTS.start + nth) as u16;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    Err(io::ErrorKind::AddrNotAvailable.into())
}

/// A loopback address with that port.
#[must_use]
pub fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Raises the soft limit of open files to the hard one, for this process and those it starts; answers with it.
#[must_use]
pub fn raise_file_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}
