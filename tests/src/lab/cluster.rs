use super::net::Net;
use crate::{Daemon, Disk, Usage, accepts_clients, free_port, http_get};
use rustix::process::Signal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};
use std::{fs, io, thread};

/// How a cluster is started.
#[derive(Clone, Debug)]
pub struct ClusterSetup {
    /// The program.
    pub program: PathBuf,
    /// Nodes at the start; the net may have room for more.
    pub nodes: usize,
    /// Voters of each range.
    pub voters: usize,
    /// The data of each node is on a file system of its own, for power cuts.
    pub disks: bool,
    /// Seconds until the copies of a dead node are replaced; `None`: as by default.
    pub replace_after: Option<u64>,
    /// More arguments for `hermod start`.
    pub arguments: Vec<String>,
}

/// Nodes under test, and what can be done to them. All are killed when it is dropped.
#[derive(Debug)]
pub struct Cluster<'a> {
    net: &'a Net,
    setup: ClusterSetup,
    directory: PathBuf,
    nodes: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    daemon: Option<Daemon>,
    stopped: bool,
    ports: Ports,
    disk: Option<Disk>,
}

#[derive(Clone, Copy, Debug)]
struct Ports {
    mqtt: u16,
    http: u16,
    cluster: u16,
}

/// What one node says of one range.
#[derive(Clone, Debug, PartialEq)]
pub struct Range {
    /// `dist`, `inbox` or `retain`.
    pub store: String,
    /// Its id.
    pub id: String,
    /// The node leads it.
    pub led: bool,
    /// The last entry that the node applied.
    pub applied: u64,
}

/// The names of the stores.
pub const STORES: [&str; 3] = ["dist", "inbox", "retain"];

const ASK: Duration = Duration::from_secs(1);

impl<'a> Cluster<'a> {
    /// Starts all nodes at once and waits until they are one.
    ///
    /// # Errors
    /// A node does not start, or they do not find each other within `limit`.
    pub fn start(net: &'a Net, setup: ClusterSetup, directory: &Path, limit: Duration) -> io::Result<Self> {
        let mut cluster = Self::prepare(net, setup, directory)?;
        for node in 0..cluster.setup.nodes {
            cluster.launch(node)?;
        }
        cluster.wait_whole(limit)?;
        Ok(cluster)
    }

    /// Everything but the nodes: [`Self::launch`] starts each.
    ///
    /// # Errors
    /// There is no room, or the disks cannot be made.
    pub fn prepare(net: &'a Net, setup: ClusterSetup, directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let mut nodes = Vec::new();
        for _ in 0..net.hosts() {
            let ports = match net.limits() {
                None => Ports { mqtt: 1883, http: 8091, cluster: 8899 },
                Some(_) => Ports { mqtt: free_port()?, http: free_port()?, cluster: free_port()? },
            };
            let disk = if setup.disks { Some(Disk::new(1 << 30)?) } else { None };
            nodes.push(Member { daemon: None, stopped: false, ports, disk });
        }
        Ok(Self { net, setup, directory: directory.to_owned(), nodes })
    }

    /// Nodes at the start.
    #[must_use]
    pub fn len(&self) -> usize {
        self.setup.nodes
    }

    /// There are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.setup.nodes == 0
    }

    /// The links between them.
    #[must_use]
    pub fn net(&self) -> &'a Net {
        self.net
    }

    /// Where a node speaks MQTT.
    #[must_use]
    pub fn mqtt(&self, node: usize) -> SocketAddr {
        (self.net.address(node), self.nodes[node].ports.mqtt).into()
    }

    /// Where all of them do, in the order of their numbers.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        (0..self.nodes.len()).map(|node| self.mqtt(node)).collect()
    }

    /// The process id of a node that runs.
    #[must_use]
    pub fn pid(&self, node: usize) -> Option<u32> {
        self.nodes[node].daemon.as_ref().map(Daemon::pid)
    }

    /// What a node has used; nothing when it does not run.
    #[must_use]
    pub fn usage(&self, node: usize) -> Usage {
        self.pid(node).and_then(|pid| Usage::of(pid).ok()).unwrap_or_default()
    }

    /// The log of a node, all its runs.
    #[must_use]
    pub fn log(&self, node: usize) -> PathBuf {
        self.directory.join(format!("node{}.log", node + 1))
    }

    /// Whether it was started and has not been killed since.
    #[must_use]
    pub fn runs(&self, node: usize) -> bool {
        self.nodes[node].daemon.is_some() && !self.nodes[node].stopped
    }

    /// Starts a node with what is in its data directory; does not wait for it.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn launch(&mut self, node: usize) -> io::Result<()> {
        let config = self.directory.join(format!("node{}.yml", node + 1));
        fs::write(&config, self.yaml(node))?;
        let mut command = self.net.command(node, &self.setup.program);
        command.arg("start").arg("--config").arg(&config).current_dir(&self.directory);
        for store in ["dist_worker", "inbox_store", "retain_store"] {
            command.arg("-D").arg(format!("{store}_range_voter_count={}", self.setup.voters));
        }
        command.args(&self.setup.arguments);
        self.nodes[node].daemon = Some(Daemon::spawn(&mut command, &self.log(node))?);
        self.nodes[node].stopped = false;
        Ok(())
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// The system refuses.
    pub fn kill(&mut self, node: usize) -> io::Result<()> {
        self.nodes[node].stopped = false;
        self.nodes[node].daemon.take().map_or(Ok(()), |mut daemon| daemon.kill())
    }

    /// SIGSTOP: it hangs.
    ///
    /// # Errors
    /// The system refuses.
    pub fn stop(&mut self, node: usize) -> io::Result<()> {
        self.nodes[node].stopped = true;
        self.nodes[node].daemon.as_mut().map_or(Ok(()), |daemon| daemon.signal(Signal::STOP))
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// The system refuses.
    pub fn resume(&mut self, node: usize) -> io::Result<()> {
        self.nodes[node].stopped = false;
        self.nodes[node].daemon.as_mut().map_or(Ok(()), |daemon| daemon.signal(Signal::CONT))
    }

    /// SIGTERM; [`Self::left`] tells when it is gone.
    ///
    /// # Errors
    /// The system refuses.
    pub fn ask_to_leave(&mut self, node: usize) -> io::Result<()> {
        self.nodes[node].daemon.as_mut().map_or(Ok(()), |daemon| daemon.signal(Signal::TERM))
    }

    /// How a node ended that was asked to; `None` while it runs.
    ///
    /// # Errors
    /// The system does not say.
    pub fn left(&mut self, node: usize) -> io::Result<Option<ExitStatus>> {
        let Some(daemon) = &mut self.nodes[node].daemon else { return Ok(Some(ExitStatus::default())) };
        let status = daemon.exited()?;
        if status.is_some() {
            self.nodes[node].daemon = None;
        }
        Ok(status)
    }

    /// The disks of nodes lose what was not synced, all at the same time, as when the power fails; then the nodes are killed.
    ///
    /// # Errors
    /// They have no disks of their own, or a tool fails.
    pub fn power_cut(&mut self, nodes: &[usize]) -> io::Result<()> {
        for &node in nodes {
            let disk = self.nodes[node].disk.as_ref();
            disk.ok_or_else(|| io::Error::other("it has no disk of its own"))?.shut_down()?;
        }
        for &node in nodes {
            self.kill(node)?;
        }
        for &node in nodes {
            if let Some(disk) = &self.nodes[node].disk {
                disk.unmount()?;
                disk.mount()?;
            }
        }
        Ok(())
    }

    /// Deletes the data of a node that does not run.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn wipe(&mut self, node: usize) -> io::Result<()> {
        fs::remove_dir_all(self.data(node))
    }

    /// `GET path` at a node: the status and the body.
    ///
    /// # Errors
    /// No answer within a second.
    pub fn get(&self, node: usize, path: &str) -> io::Result<(u16, String)> {
        http_get((self.net.address(node), self.nodes[node].ports.http).into(), path, ASK)
    }

    /// What a node says of its ranges.
    ///
    /// # Errors
    /// It does not answer.
    pub fn ranges(&self, node: usize) -> io::Result<Vec<Range>> {
        Ok(parse_ranges(&self.get(node, "/metrics")?.1))
    }

    /// Who leads the range of a store, as the nodes that run say.
    #[must_use]
    pub fn leader(&self, store: &str) -> Option<usize> {
        let runs = (0..self.nodes.len()).filter(|node| self.runs(*node));
        runs.into_iter().find(|node| {
            self.ranges(*node).is_ok_and(|ranges| ranges.iter().any(|range| range.store == store && range.led))
        })
    }

    /// What keeps the nodes that run from being one healthy cluster; `None`: nothing.
    #[must_use]
    pub fn ailment(&self) -> Option<String> {
        let running: Vec<usize> = (0..self.nodes.len()).filter(|node| self.runs(*node)).collect();
        let voters = self.setup.voters.min(running.len());
        let mut leaders = [0; STORES.len()];
        for &node in &running {
            let name = node + 1;
            match self.get(node, "/ready") {
                Ok((200, _)) => {}
                Ok((status, body)) => return Some(format!("node {name} says {status}: {}", body.trim())),
                Err(error) => return Some(format!("node {name} does not answer: {error}")),
            }
            let Ok(ranges) = self.ranges(node) else { return Some(format!("node {name} has no metrics")) };
            for (store, leaders) in STORES.iter().zip(&mut leaders) {
                let Some(range) = ranges.iter().find(|range| range.store == *store) else {
                    return Some(format!("node {name} has no range of {store}"));
                };
                *leaders += usize::from(range.led);
            }
            match self.get(node, "/cluster") {
                // Who is alone has nothing to say of others.
                Ok((404, _)) if self.setup.nodes == 1 => {}
                Ok((200, body)) => {
                    if let Some(ailment) = thin(&body, voters) {
                        return Some(format!("node {name} sees {ailment}"));
                    }
                }
                answer => return Some(format!("node {name} has nothing to say of the cluster: {answer:?}")),
            }
        }
        for (store, leaders) in STORES.iter().zip(leaders) {
            if leaders != 1 {
                return Some(format!("{leaders} nodes lead {store}"));
            }
        }
        running
            .into_iter()
            .find(|node| !accepts_clients(self.mqtt(*node)))
            .map(|node| format!("node {} accepts no client", node + 1))
    }

    /// Waits until nothing ails it; how long that took.
    ///
    /// # Errors
    /// A node ended by itself, or something still does after `limit`.
    pub fn wait_whole(&mut self, limit: Duration) -> io::Result<Duration> {
        let start = Instant::now();
        loop {
            if let Some(ended) = self.ended()? {
                return Err(io::Error::other(ended));
            }
            match self.ailment() {
                None => return Ok(start.elapsed()),
                Some(ailment) if start.elapsed() > limit => {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, format!("{ailment}, after {limit:?}")));
                }
                Some(_) => thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// A node that ended by itself, in words with the end of its log.
    ///
    /// # Errors
    /// The system does not say.
    pub fn ended(&mut self) -> io::Result<Option<String>> {
        for (node, member) in self.nodes.iter_mut().enumerate() {
            if let Some(daemon) = &mut member.daemon
                && let Some(status) = daemon.exited()?
            {
                let log = daemon.log();
                let lines: Vec<&str> = log.lines().collect();
                let end = lines[lines.len().saturating_sub(8)..].join("\n");
                return Ok(Some(format!("node {} ended with {status}:\n{end}", node + 1)));
            }
        }
        Ok(None)
    }

    fn data(&self, node: usize) -> PathBuf {
        match &self.nodes[node].disk {
            Some(disk) => disk.path().join("data"),
            None => self.directory.join(format!("node{}", node + 1)),
        }
    }

    fn yaml(&self, node: usize) -> String {
        let Ports { mqtt, http, cluster } = self.nodes[node].ports;
        let host = self.net.address(node);
        let seeds: Vec<String> = (0..self.setup.nodes)
            .map(|seed| format!("{}:{}", self.net.address(seed), self.nodes[seed].ports.cluster))
            .collect();
        let mut yaml = format!(
            "dataDir: {}\n\
             mqttServiceConfig:\n  server:\n    \
             tcpListener: {{ host: \"{host}\", port: {mqtt} }}\n    \
             wsListener: {{ enable: false }}\n\
             apiServerConfig: {{ host: \"{host}\", httpPort: {http} }}\n\
             allowAnonymous: true\n",
            self.data(node).display()
        );
        if self.setup.nodes > 1 {
            yaml.push_str(&format!(
                "clusterConfig:\n  env: Lab\n  host: {host}\n  port: {cluster}\n  seedEndpoints: \"{}\"\n  \
                 secret: the secret of the laboratory\n",
                seeds.join(",")
            ));
        }
        if let Some(after) = self.setup.replace_after {
            yaml.push_str("stateStoreConfig:\n");
            for store in ["distWorkerConfig", "inboxStoreConfig", "retainStoreConfig"] {
                yaml.push_str(&format!(
                    "  {store}:\n    balanceConfig:\n      balancers:\n        ReplicaCntBalancer:\n          \
                     replaceDeadAfterSec: {after}\n          replaceLeftAfterSec: {after}\n        \
                     RangeLeaderBalancer: {{}}\n"
                ));
            }
        }
        yaml
    }
}

fn parse_ranges(metrics: &str) -> Vec<Range> {
    let mut ranges: Vec<Range> = Vec::new();
    for line in metrics.lines() {
        let Some((name, rest)) = line.strip_prefix("hermod_range_").and_then(|line| line.split_once("{store=\""))
        else {
            continue;
        };
        let Some((store, rest)) = rest.split_once("\",range=\"") else { continue };
        let Some((id, value)) = rest.split_once("\"} ") else { continue };
        let value: f64 = value.parse().unwrap_or_default();
        let at = ranges.iter().position(|range| range.store == store && range.id == id).unwrap_or_else(|| {
            ranges.push(Range { store: store.to_owned(), id: id.to_owned(), led: false, applied: 0 });
            ranges.len() - 1
        });
        match name {
            "leader" => ranges[at].led = value > 0.0,
            "applied_index" => ranges[at].applied = value as u64,
            _ => {}
        }
    }
    ranges
}

/// The store in what `GET /cluster` says that has no range, or a range that has not so many voters that are up to date.
fn thin(body: &str, voters: usize) -> Option<String> {
    let Ok(body) = serde_json::from_str::<serde_json::Value>(body) else { return Some("no JSON".into()) };
    let stores = body["stores"].as_array().map(Vec::as_slice).unwrap_or_default();
    for store in STORES {
        let Some(found) = stores.iter().find(|one| one["name"] == store) else {
            return Some(format!("no store {store}"));
        };
        let ranges = found["ranges"].as_array().map(Vec::as_slice).unwrap_or_default();
        if ranges.is_empty() {
            return Some(format!("no range of {store}"));
        }
        for range in ranges {
            let count = range["voters"].as_array().map_or(0, Vec::len);
            let in_sync = range["inSync"].as_u64().unwrap_or(0) as usize;
            if count != voters || in_sync < voters {
                return Some(format!("{count} voters of {store}, {in_sync} in sync, not {voters}"));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_metrics_tell_who_leads() {
        let text = "# TYPE hermod_range_leader gauge\nhermod_range_leader{store=\"inbox\",range=\"0\"} 1\n\
                    hermod_range_applied_index{store=\"inbox\",range=\"0\"} 42\n\
                    hermod_range_leader{store=\"dist\",range=\"0\"} 0\n";
        let ranges = parse_ranges(text);
        assert_eq!(ranges.len(), 2);
        let inbox = Range { store: "inbox".into(), id: "0".into(), led: true, applied: 42 };
        assert_eq!(ranges[0], inbox);
        assert!(!ranges[1].led);
    }

    #[test]
    fn a_range_with_too_few_voters_is_seen() {
        let range = r#"{"voters":[{},{},{}],"inSync":3}"#;
        let body = |inbox: &str| {
            format!(
                r#"{{"stores":[{{"name":"dist","ranges":[{range}]}},{{"name":"inbox","ranges":[{inbox}]}},
                   {{"name":"retain","ranges":[{range}]}}]}}"#
            )
        };
        assert_eq!(thin(&body(range), 3), None);
        assert!(thin(&body(range), 2).is_some());
        assert!(thin(&body(""), 3).is_some());
        assert!(thin(&body(r#"{"voters":[{},{},{}],"inSync":2}"#), 3).is_some());
        assert!(thin("", 3).is_some());
    }
}
