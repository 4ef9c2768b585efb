use crate::wire::{self, Incoming, Level};
use crate::{Daemon, free_port, http_get, loopback, sample};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{env, fs};
use tempfile::TempDir;

/// How a node is started.
#[derive(Clone, Debug, Default)]
pub struct NodeSetup {
    /// Where its data lives; `None`: in a temporary directory that goes with the [`Node`].
    pub data_dir: Option<PathBuf>,
    /// More YAML below `mqttServiceConfig.server`, without indentation.
    pub server: String,
    /// More YAML at the top level.
    pub top: String,
    /// More arguments for `hermod start`.
    pub arguments: Vec<String>,
    /// The program; `None`: `hermod` as [`hermod`] finds it.
    pub program: Option<PathBuf>,
}

/// A broker process on ports of its own, which it keeps over restarts.
#[derive(Debug)]
pub struct Node {
    setup: NodeSetup,
    scratch: TempDir,
    ports: Ports,
    daemon: Daemon,
}

#[derive(Clone, Copy, Debug)]
struct Ports {
    mqtt: u16,
    ws: u16,
    http: u16,
}

/// How long a start may take, a debug build on a busy machine included.
const START: Duration = Duration::from_secs(60);

impl Node {
    /// Starts a node and waits until it accepts a client.
    ///
    /// # Errors
    /// It does not start; with the end of its log.
    pub fn start(setup: NodeSetup) -> io::Result<Self> {
        let scratch = TempDir::with_prefix("hermod-")?;
        let ports = Ports { mqtt: free_port()?, ws: free_port()?, http: free_port()? };
        let daemon = spawn(&setup, scratch.path(), ports)?;
        let mut node = Self { setup, scratch, ports, daemon };
        node.wait_ready()?;
        Ok(node)
    }

    /// A node with default settings but for ports and data directory.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_default() -> io::Result<Self> {
        Self::start(NodeSetup::default())
    }

    /// Starts it again after it ended, with its data and its ports.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn restart(&mut self) -> io::Result<()> {
        self.daemon.kill()?;
        self.daemon = spawn(&self.setup, self.scratch.path(), self.ports)?;
        self.wait_ready()
    }

    /// The process.
    pub fn daemon(&mut self) -> &mut Daemon {
        &mut self.daemon
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.daemon.pid()
    }

    /// Where it speaks MQTT over TCP.
    #[must_use]
    pub fn mqtt(&self) -> SocketAddr {
        loopback(self.ports.mqtt)
    }

    /// Where it speaks MQTT over WebSocket.
    #[must_use]
    pub fn ws(&self) -> SocketAddr {
        loopback(self.ports.ws)
    }

    /// Where it speaks HTTP.
    #[must_use]
    pub fn http(&self) -> SocketAddr {
        loopback(self.ports.http)
    }

    /// Where its data lives.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.setup.data_dir.clone().unwrap_or_else(|| self.scratch.path().join("data"))
    }

    /// A directory that goes with the node.
    #[must_use]
    pub fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    /// What it wrote, restarts included.
    #[must_use]
    pub fn log(&self) -> String {
        self.daemon.log()
    }

    /// `GET path`: the status and the body.
    ///
    /// # Errors
    /// No answer, or one that is no HTTP.
    pub fn get(&self, path: &str) -> io::Result<(u16, String)> {
        http_get(self.http(), path, Duration::from_secs(10))
    }

    /// The value of one line of `/metrics`, such as `hermod_sessions{state="connected"}`; 0 when it is not there.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn metric(&self, name: &str) -> io::Result<f64> {
        Ok(sample(&self.get("/metrics")?.1, name))
    }

    fn wait_ready(&mut self) -> io::Result<()> {
        let to = self.mqtt();
        self.daemon.wait_ready(START, || accepts_clients(to))
    }
}

fn spawn(setup: &NodeSetup, scratch: &Path, ports: Ports) -> io::Result<Daemon> {
    let config = scratch.join("node.yml");
    let data = setup.data_dir.clone().unwrap_or_else(|| scratch.join("data"));
    let Ports { mqtt, ws, http } = ports;
    let server: String = setup.server.lines().map(|line| format!("    {line}\n")).collect();
    let yaml = format!(
        "dataDir: {}\n\
         mqttServiceConfig:\n  server:\n    \
         tcpListener: {{ host: 127.0.0.1, port: {mqtt} }}\n    \
         wsListener: {{ host: 127.0.0.1, port: {ws} }}\n\
         {server}\
         apiServerConfig: {{ host: 127.0.0.1, httpPort: {http} }}\n{}",
        data.display(),
        setup.top
    );
    fs::write(&config, yaml)?;
    let program = match &setup.program {
        Some(program) => program.clone(),
        None => hermod()?,
    };
    let mut command = Command::new(program);
    command.arg("start").arg("--config").arg(&config).args(&setup.arguments).current_dir(scratch);
    Daemon::spawn(&mut command, &scratch.join("hermod.log"))
}

/// The `hermod` program: `$HERMOD`, or the one of the profile that the caller was built with.
///
/// # Errors
/// It is not built.
pub fn hermod() -> io::Result<PathBuf> {
    if let Some(path) = env::var_os("HERMOD") {
        return std::path::absolute(path);
    }
    let this = env::current_exe()?;
    let found = this.ancestors().skip(1).take(2).map(|directory| directory.join("hermod")).find(|path| path.is_file());
    found.ok_or_else(|| io::Error::other("the program `hermod` is not built; run `make build` or `cargo build`"))
}

/// Whether a broker there accepts a client now.
#[must_use]
pub fn accepts_clients(to: SocketAddr) -> bool {
    let attempt = || -> io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(2))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        let mut out = Vec::new();
        wire::connect(&mut out, &wire::Connect::clean(Level::V4, "ready?"));
        wire::disconnect(&mut out);
        stream.write_all(&out)?;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer)?;
        Ok(matches!(wire::parse(Level::V4, answer[0], &answer[2..])?, Incoming::ConnAck { code: 0, .. }))
    };
    attempt().unwrap_or(false)
}
