use crate::{Daemon, accepts_clients, free_port, loopback};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use std::{fs, str};
use tempfile::TempDir;

/// A Mosquitto process as a peer: in memory, nothing on disk, no limits on its queues.
#[derive(Debug)]
pub struct Mosquitto {
    daemon: Daemon,
    port: u16,
    _scratch: TempDir,
}

impl Mosquitto {
    /// Starts it and waits until it accepts a client.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(program: &Path) -> io::Result<Self> {
        let scratch = TempDir::with_prefix("mosquitto-")?;
        let port = free_port()?;
        // 100 in flight: enough for the windows of the scenarios, and what costs it least; it looks for packet ids in lists.
        let config = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nmax_queued_messages 0\n\
             max_inflight_messages 100\nlog_dest stderr\nlog_type error\nlog_type warning\n"
        );
        let path = scratch.path().join("mosquitto.conf");
        fs::write(&path, config)?;
        let mut daemon =
            Daemon::spawn(Command::new(program).arg("-c").arg(&path), &scratch.path().join("mosquitto.log"))?;
        daemon.wait_ready(Duration::from_secs(10), || accepts_clients(loopback(port)))?;
        Ok(Self { daemon, port, _scratch: scratch })
    }

    /// What it calls its version, such as `2.0.11`.
    ///
    /// # Errors
    /// It is not there.
    pub fn version(program: &Path) -> io::Result<String> {
        let help = Command::new(program).arg("-h").output()?;
        let text = str::from_utf8(&help.stdout).unwrap_or_default();
        let version = text.lines().find_map(|line| line.strip_prefix("mosquitto version "));
        version.map(|version| version.trim().to_owned()).ok_or_else(|| io::Error::other("it does not say its version"))
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.daemon.pid()
    }

    /// Where it speaks MQTT.
    #[must_use]
    pub fn mqtt(&self) -> SocketAddr {
        loopback(self.port)
    }
}
