use super::cluster::{Cluster, ClusterSetup};
use super::net::Net;
use crate::wire::{self, AckKind, Connect, Incoming, Level};
use crate::{Event, Histogram, Swarm};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

/// What a cluster does in a second, and what it costs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flow {
    /// Messages per second: acknowledged at QoS 1, delivered at QoS 0.
    pub rate: f64,
    /// How long a PUBACK took.
    pub p50: Duration,
    /// As above.
    pub p99: Duration,
    /// Processor time of all nodes for one message, in microseconds.
    pub cpu: f64,
}

/// One node beside three, in one run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Throughput {
    /// Durable messages at QoS 1: one node with one voter.
    pub durable_one: Flow,
    /// The same load: three nodes with three voters.
    pub durable_three: Flow,
    /// Live messages at QoS 0 inside one node of the three.
    pub live_inside: Flow,
    /// The same from one node to another.
    pub live_across: Flow,
    /// The share of a core that a node of three uses when nothing happens.
    pub idle: f64,
}

/// Pairs of a publisher and its subscriber.
const PAIRS: usize = 30;
const WINDOW: u64 = 20;
const PAYLOAD: usize = 256;
const WARM_UP: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(30);

/// Measures for `time` each; `rate` live messages per second. On loopback addresses: nothing in between costs anything.
///
/// # Errors
/// A node does not start, or closes a connection.
pub fn throughput(program: &Path, directory: &Path, time: Duration, rate: u64) -> io::Result<Throughput> {
    let net = Net::loopback(3);
    let open = |nodes: usize| {
        let setup = ClusterSetup {
            program: program.to_owned(),
            nodes,
            voters: nodes,
            disks: false,
            replace_after: None,
            arguments: Vec::new(),
        };
        Cluster::start(&net, setup, &directory.join(format!("nodes-{nodes}")), PATIENCE)
    };
    let one = open(1)?;
    let durable_one = durable(&one, time)?;
    drop(one);
    let three = open(3)?;
    let before = cpu(&three);
    std::thread::sleep(time);
    let idle = (cpu(&three) - before) / 3.0 / time.as_secs_f64();
    Ok(Throughput {
        durable_one,
        durable_three: durable(&three, time)?,
        live_inside: live(&three, three.mqtt(0), three.mqtt(0), time, rate)?,
        live_across: live(&three, three.mqtt(0), three.mqtt(1), time, rate)?,
        idle,
    })
}

/// As fast as the windows let it: each publisher to one persistent session, at another node where there is one.
fn durable(cluster: &Cluster<'_>, time: Duration) -> io::Result<Flow> {
    let at = |index: usize| cluster.mqtt(index % cluster.len());
    let mut pairs = Pairs::connect(1, at, |index| at(index + 1))?;
    let start = Instant::now();
    let (mut measured, mut acked, mut before) = (None, 0, 0.0);
    loop {
        let now = Instant::now();
        if measured.is_none() && now > start + WARM_UP {
            (measured, acked, before) = (Some(now), pairs.acked, cpu(cluster));
            pairs.latency = Histogram::default();
        }
        if let Some(measured) = measured
            && now > measured + time
        {
            let (messages, seconds) = ((pairs.acked - acked) as f64, (now - measured).as_secs_f64());
            return Ok(Flow {
                rate: messages / seconds,
                p50: pairs.latency.quantile(0.5),
                p99: pairs.latency.quantile(0.99),
                cpu: (cpu(cluster) - before) / messages.max(1.0) * 1e6,
            });
        }
        for index in 0..PAIRS {
            while pairs.open[index].len() < WINDOW as usize {
                pairs.publish(index);
            }
        }
        pairs.turn()?;
    }
}

/// At a fixed rate, from clients of one node to clients of another.
fn live(cluster: &Cluster<'_>, from: SocketAddr, to: SocketAddr, time: Duration, rate: u64) -> io::Result<Flow> {
    let mut pairs = Pairs::connect(0, |_| from, |_| to)?;
    let (start, mut sent) = (Instant::now(), 0);
    let (mut measured, mut delivered, mut before) = (None, 0, 0.0);
    loop {
        let now = Instant::now();
        if measured.is_none() && now > start + WARM_UP {
            (measured, delivered, before) = (Some(now), pairs.delivered, cpu(cluster));
        }
        if let Some(measured) = measured
            && now > measured + time
        {
            let (messages, seconds) = ((pairs.delivered - delivered) as f64, (now - measured).as_secs_f64());
            let cpu = (cpu(cluster) - before) / messages.max(1.0) * 1e6;
            return Ok(Flow { rate: messages / seconds, cpu, ..Flow::default() });
        }
        let due = ((now - start).as_secs_f64() * rate as f64) as u64;
        while sent < due {
            pairs.publish(sent as usize % PAIRS);
            sent += 1;
        }
        pairs.turn()?;
    }
}

fn cpu(cluster: &Cluster<'_>) -> f64 {
    (0..cluster.len()).map(|node| cluster.usage(node).cpu).sum()
}

struct Pairs {
    swarm: Swarm,
    qos: u8,
    topics: Vec<String>,
    /// Of each publisher, what is not acknowledged, and since when.
    open: Vec<Vec<(u16, Instant)>>,
    acked: u64,
    delivered: u64,
    closed: bool,
    latency: Histogram,
}

impl Pairs {
    /// Publisher `n` is client `n`, its subscriber is client `PAIRS` + `n`.
    fn connect(qos: u8, from: impl Fn(usize) -> SocketAddr, to: impl Fn(usize) -> SocketAddr) -> io::Result<Self> {
        let mut pairs = Self {
            swarm: Swarm::new(true)?,
            qos,
            topics: (0..PAIRS).map(|index| format!("throughput/{qos}/{index}")).collect(),
            open: vec![Vec::new(); PAIRS],
            acked: 0,
            delivered: 0,
            closed: false,
            latency: Histogram::default(),
        };
        for index in 0..PAIRS {
            let client_id = format!("throughput-publisher-{qos}-{index}");
            pairs.swarm.connect(from(index), &Connect::clean(Level::V4, &client_id))?;
        }
        for index in 0..PAIRS {
            let client_id = format!("throughput-subscriber-{qos}-{index}");
            let mut connect = Connect::clean(Level::V4, &client_id);
            connect.clean = qos == 0;
            let client = pairs.swarm.connect(to(index), &connect)?;
            wire::subscribe(pairs.swarm.out(client), Level::V4, 1, &[(&pairs.topics[index], qos)]);
        }
        let mut ready = 0;
        let start = Instant::now();
        while ready < 3 * PAIRS {
            if start.elapsed() > PATIENCE {
                return Err(io::Error::other("not everybody is connected and subscribed"));
            }
            pairs.swarm.turn(Duration::from_millis(20), |_, event, _| {
                let good =
                    matches!(event, Event::Packet(Incoming::ConnAck { code: 0, .. } | Incoming::SubAck(_, [..0x80])));
                ready += usize::from(good);
            })?;
        }
        // The route has to be known at the other nodes.
        std::thread::sleep(Duration::from_millis(500));
        Ok(pairs)
    }

    fn publish(&mut self, index: usize) {
        let packet_id = if self.qos == 0 { 0 } else { self.swarm.packet_id(index) };
        let topic = self.topics[index].as_bytes();
        let publish =
            wire::Publish { dup: false, qos: self.qos, retain: false, packet_id, topic, payload: &[7; PAYLOAD] };
        wire::publish(self.swarm.out(index), Level::V4, &publish);
        if self.qos > 0 {
            self.open[index].push((packet_id, Instant::now()));
        }
    }

    fn turn(&mut self) -> io::Result<()> {
        let Self { swarm, open, acked, delivered, latency, closed, .. } = self;
        swarm.turn(Duration::from_millis(1), |client, event, _| match event {
            Event::Packet(Incoming::Ack(AckKind::PubAck, packet_id, _)) if client < PAIRS => {
                if let Some(at) = open[client].iter().position(|(id, _)| *id == packet_id) {
                    latency.record(open[client].remove(at).1.elapsed().as_nanos() as u64);
                    *acked += 1;
                }
            }
            Event::Packet(Incoming::Publish(_)) => *delivered += 1,
            Event::Closed => *closed = true,
            Event::Packet(_) => {}
        })?;
        if self.closed {
            return Err(io::Error::other("the broker closed a connection"));
        }
        Ok(())
    }
}
