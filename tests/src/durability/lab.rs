use super::cast::{Cast, Role};
use super::churn::{self, Churn};
use super::publisher::Publisher;
use super::receiver::Receiver;
use super::{Fault, Report};
use crate::random::Random;
use crate::wire::{self, AckKind, Connect, Incoming, Level};
use crate::{Event, Node, Swarm};
use std::collections::{HashMap, HashSet};
use std::io;
use std::time::{Duration, Instant};

/// How much is played.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Rounds, each with one fault.
    pub rounds: u64,
    /// Messages of all publishers and rounds together.
    pub messages: u64,
    /// Repeats the same moments; not the same schedule, which is the kernel's.
    pub seed: u64,
}

/// A broker, its clients, and the fault.
pub struct Lab {
    node: Node,
    fault: Fault,
    swarm: Swarm,
    cast: Cast,
    random: Random,
    plan: Plan,
}

/// Twelve publishers, four of each kind: QoS 1, QoS 2, and those that forget. Two sessions for each.
const PUBLISHERS: usize = 12;
const RETAINED: usize = 50;
const SUBSCRIPTIONS: usize = 30;
/// Each publisher publishes so many in a stretch, which is then drained: queues have caps, and those are not what is tested.
const STRETCH: u64 = 400;
const PATIENCE: Duration = Duration::from_secs(30);
/// How long nothing more comes before nothing more will.
const QUIET: Duration = Duration::from_millis(150);

impl Lab {
    /// Connects and subscribes everybody.
    ///
    /// # Errors
    /// The broker does not let them.
    pub fn new(node: Node, fault: Fault, plan: Plan) -> io::Result<Self> {
        let level = |index: usize| if index.is_multiple_of(2) { Level::V4 } else { Level::V5 };
        let publisher = |index: usize| {
            let (qos, persistent) = [(1, true), (2, true), (1 + (index as u8 / 3) % 2, false)][index % 3];
            Publisher::new(index, level(index / 3), qos, persistent)
        };
        let receivers = (0..PUBLISHERS).flat_map(|index| {
            [true, false].map(|live| Receiver::new(index, level(index / 3 + usize::from(live)), live))
        });
        let cast = Cast {
            publishers: (0..PUBLISHERS).map(publisher).collect(),
            receivers: receivers.collect(),
            retained: Churn::new(RETAINED),
            subscriptions: Churn::new(SUBSCRIPTIONS),
            failing: false,
            round: 0,
            probed: HashMap::new(),
            report: Report::default(),
        };
        let mut lab = Self { node, fault, swarm: Swarm::new(false)?, cast, random: Random::new(plan.seed), plan };
        for client in 0..PUBLISHERS * 3 + 2 {
            let (client_id, level, clean) = lab.identity(client);
            let connect =
                if clean { Connect::clean(level, &client_id) } else { Connect::persistent(level, &client_id) };
            lab.swarm.connect(lab.node.mqtt(), &connect)?;
        }
        lab.until("everybody is connected", |cast| cast.all_connected(true))?;
        for index in 0..lab.cast.receivers.len() {
            let publisher = &lab.cast.publishers[lab.cast.receivers[index].publisher];
            let (filter, qos) = (publisher.topic(), publisher.qos);
            let client = PUBLISHERS + index;
            lab.call(client, |out, level| wire::subscribe(out, level, 1, &[(filter, qos)]), is_suback)?;
        }
        lab.leave()?;
        Ok(lab)
    }

    /// Plays all rounds; `progress` hears after each.
    ///
    /// # Errors
    /// The broker does not start again, or a tool fails. What the broker does wrong is in the report.
    pub fn run(mut self, mut progress: impl FnMut(u64, &Report)) -> io::Result<Report> {
        let each = self.plan.messages.div_ceil(self.plan.rounds * PUBLISHERS as u64);
        for round in 1..=self.plan.rounds {
            let stretches = each.div_ceil(STRETCH);
            let struck = self.random.below(stretches);
            for stretch in 0..stretches {
                let count = each * (stretch + 1) / stretches - each * stretch / stretches;
                let strikes = stretch == struck;
                // One time in four it strikes while the queues are drained.
                let draining = self.random.below(4) == 0;
                self.publish(count, strikes && !draining)?;
                self.drain(strikes && draining)?;
            }
            self.check_retained(round)?;
            self.check_subscriptions(round)?;
            progress(round, &self.cast.report);
            if self.cast.report.stuck > 0 {
                break;
            }
        }
        self.cast.judge();
        Ok(self.cast.report)
    }

    /// Everybody publishes `count`; all of it is acknowledged in the end.
    fn publish(&mut self, count: u64, strike: bool) -> io::Result<()> {
        let goals: Vec<u64> = self.cast.publishers.iter().map(|one| one.fates.len() as u64 + count).collect();
        let start = self.cast.report.acknowledged;
        let total = count * PUBLISHERS as u64;
        let mut strike = strike.then(|| start + 1 + self.random.below(total * 95 / 100));
        let begin = Instant::now();
        loop {
            for (client, goal) in goals.iter().enumerate() {
                let out = self.swarm.out(client);
                self.cast.publishers[client].fill(*goal, out, &mut self.cast.report);
            }
            let retained = PUBLISHERS * 3;
            let (out, random) = (self.swarm.out(retained), &mut self.random);
            self.cast.retained.step(random, |slot, value, id| churn::retain(out, Level::V4, slot, value, id));
            let out = self.swarm.out(retained + 1);
            self.cast
                .subscriptions
                .step(random, |slot, value, id| churn::subscription(out, Level::V5, slot, value, id));
            self.turn()?;
            if strike.is_some_and(|at| self.cast.report.acknowledged >= at) {
                strike = None;
                self.strike(false)?;
            }
            let done =
                |(publisher, goal): (&Publisher, &u64)| publisher.is_settled() && publisher.fates.len() as u64 == *goal;
            if self.cast.publishers.iter().zip(&goals).all(done) {
                break;
            }
            if begin.elapsed() > PATIENCE * 4 {
                return self.stuck("not everything is acknowledged");
            }
        }
        self.until("the operations on retained messages and subscriptions are acknowledged", |cast| {
            cast.retained.is_settled() && cast.subscriptions.is_settled()
        })
    }

    /// The offline sessions come, get everything, and go.
    fn drain(&mut self, strike: bool) -> io::Result<()> {
        let offline: Vec<usize> = self.clients(|receiver| !receiver.live).collect();
        for &client in &offline {
            self.reconnect(client)?;
        }
        if strike {
            let queued: u64 = self.cast.missing();
            let at = self.cast.report.delivered + self.random.below(queued.max(1));
            self.until("the queues are drained halfway", |cast| cast.report.delivered >= at)?;
            self.strike(true)?;
        }
        let mut last = (Instant::now(), u64::MAX);
        loop {
            let missing = self.cast.missing();
            if missing == 0 && self.cast.receivers.iter().all(Receiver::is_settled) {
                break;
            }
            if missing < last.1 {
                last = (Instant::now(), missing);
            } else if last.0.elapsed() > Duration::from_secs(10) {
                // The end of the run counts what is missing; it may not come later, either.
                return self.stuck("the queues are not drained");
            }
            self.turn()?;
        }
        self.quiet()?;
        self.leave()
    }

    fn leave(&mut self) -> io::Result<()> {
        let offline: Vec<usize> = self.clients(|receiver| !receiver.live).collect();
        for client in offline {
            wire::disconnect(self.swarm.out(client));
        }
        self.until("the offline sessions are gone", |cast| cast.receivers.iter().all(|one| one.live || !one.connected))
    }

    fn strike(&mut self, offline_too: bool) -> io::Result<()> {
        let Self { node, fault, swarm, cast, random, .. } = self;
        let linger = Duration::from_millis(random.below(50));
        cast.failing = true;
        fault.strike(node, || {
            let start = Instant::now();
            while start.elapsed() < linger {
                swarm.turn(Duration::from_millis(2), |client, event, out| cast.event(client, &event, out))?;
            }
            Ok(())
        })?;
        self.cast.report.faults += 1;
        if matches!(self.fault, Fault::Disconnect) {
            for client in 0..self.swarm.len() {
                self.swarm.close(client);
                self.cast.event(client, &Event::Closed, &mut Vec::new());
            }
        } else {
            self.restart()?;
        }
        let all: Vec<usize> = (0..PUBLISHERS * 3 + 2)
            .filter(|client| match self.cast.role(*client) {
                Role::Receiver(index) => self.cast.receivers[index].live || offline_too,
                _ => true,
            })
            .collect();
        self.cast.failing = false;
        for client in all {
            self.reconnect(client)?;
        }
        self.until("everybody is connected again", |cast| cast.all_connected(offline_too))
    }

    fn restart(&mut self) -> io::Result<()> {
        // What it sent before it died has to be read: those acknowledgements count.
        let open = |swarm: &Swarm| (0..swarm.len()).any(|client| swarm.is_open(client));
        let start = Instant::now();
        while open(&self.swarm) && start.elapsed() < PATIENCE {
            self.turn()?;
        }
        let start = Instant::now();
        self.node.restart()?;
        let restart = start.elapsed().as_millis() as u64;
        self.cast.report.slowest_restart_ms = self.cast.report.slowest_restart_ms.max(restart);
        Ok(())
    }

    /// A new subscriber sees the value of each retained message.
    fn check_retained(&mut self, round: u64) -> io::Result<()> {
        let reader = self.visitor(&format!("reader-{round}"))?;
        let mut seen = HashMap::new();
        let mut missing: HashSet<usize> = self.cast.retained.expected().collect();
        wire::subscribe(self.swarm.out(reader), Level::V5, 1, &[("retained/#", 0)]);
        let start = Instant::now();
        let mut last = Instant::now();
        while (!missing.is_empty() && start.elapsed() < Duration::from_secs(5)) || last.elapsed() < QUIET {
            let cast = &mut self.cast;
            self.swarm.turn(Duration::from_millis(20), |client, event, out| {
                if let Event::Packet(Incoming::Publish(publish)) = event
                    && client == reader
                {
                    let text = |bytes| std::str::from_utf8(bytes).unwrap_or_default();
                    let slot = text(publish.topic).strip_prefix("retained/").and_then(|slot| slot.parse().ok());
                    if let (Some(slot), Ok(value)) = (slot, text(publish.payload).parse()) {
                        seen.insert(slot, value);
                        missing.remove(&slot);
                    }
                    last = Instant::now();
                }
                cast.event(client, &event, out);
            })?;
        }
        self.swarm.close(reader);
        self.cast.retained.check("retained", true, &seen, &mut self.cast.report);
        Ok(())
    }

    /// A message to each filter comes to exactly those that are subscribed.
    fn check_subscriptions(&mut self, round: u64) -> io::Result<()> {
        let prober = self.visitor(&format!("prober-{round}"))?;
        self.cast.round = round;
        self.cast.probed.clear();
        for slot in 0..SUBSCRIPTIONS {
            let (topic, payload) = (format!("churn/{slot}"), format!("{round}/{slot}"));
            let (topic, payload) = (topic.as_bytes(), payload.as_bytes());
            let publish = wire::Publish { dup: false, qos: 1, retain: false, packet_id: 1, topic, payload };
            self.call(prober, |out, level| wire::publish(out, level, &publish), is_puback)?;
        }
        let expected: Vec<usize> = self.cast.subscriptions.expected().collect();
        let start = Instant::now();
        while expected.iter().any(|slot| !self.cast.probed.contains_key(slot))
            && start.elapsed() < Duration::from_secs(5)
        {
            self.turn()?;
        }
        self.quiet()?;
        self.swarm.close(prober);
        let Cast { subscriptions, probed, report, .. } = &mut self.cast;
        subscriptions.check("subscription", false, probed, report);
        Ok(())
    }

    fn identity(&self, client: usize) -> (String, Level, bool) {
        match self.cast.role(client) {
            Role::Publisher(index) => {
                let publisher = &self.cast.publishers[index];
                (publisher.client_id(), publisher.level, !publisher.persistent)
            }
            Role::Receiver(index) => {
                let receiver = &self.cast.receivers[index];
                (receiver.client_id(), receiver.level, false)
            }
            Role::Retained => ("retainer".to_owned(), Level::V4, true),
            Role::Subscriptions => ("churner".to_owned(), Level::V5, false),
            Role::Other => (format!("other-{client}"), Level::V5, true),
        }
    }

    fn clients(&self, which: impl Fn(&Receiver) -> bool) -> impl Iterator<Item = usize> {
        let receivers = self.cast.receivers.iter().enumerate();
        receivers.filter(move |(_, receiver)| which(receiver)).map(|(index, _)| PUBLISHERS + index)
    }

    fn reconnect(&mut self, client: usize) -> io::Result<()> {
        if self.swarm.is_open(client) {
            self.swarm.close(client);
            self.cast.event(client, &Event::Closed, &mut Vec::new());
        }
        let (client_id, level, clean) = self.identity(client);
        let connect = if clean { Connect::clean(level, &client_id) } else { Connect::persistent(level, &client_id) };
        self.swarm.reconnect(client, self.node.mqtt(), &connect)
    }

    fn visitor(&mut self, client_id: &str) -> io::Result<usize> {
        let connect = Connect::clean(Level::V5, client_id);
        let client = self.swarm.connect(self.node.mqtt(), &connect)?;
        self.call(client, |_, _| {}, |incoming| matches!(incoming, Incoming::ConnAck { code: 0, .. }))?;
        Ok(client)
    }

    /// Sends something and waits for its answer.
    fn call(
        &mut self,
        client: usize,
        send: impl FnOnce(&mut Vec<u8>, Level),
        is_answer: impl Fn(&Incoming<'_>) -> bool,
    ) -> io::Result<()> {
        let level = self.swarm.level(client);
        send(self.swarm.out(client), level);
        let mut answered = false;
        let start = Instant::now();
        while !answered {
            if start.elapsed() > PATIENCE {
                return Err(io::Error::other(format!("client {client} gets no answer")));
            }
            let cast = &mut self.cast;
            self.swarm.turn(Duration::from_millis(20), |from, event, out| {
                if let Event::Packet(incoming) = &event {
                    answered |= from == client && is_answer(incoming);
                }
                cast.event(from, &event, out);
            })?;
        }
        Ok(())
    }

    fn turn(&mut self) -> io::Result<bool> {
        let cast = &mut self.cast;
        self.swarm.turn(Duration::from_millis(10), |client, event, out| cast.event(client, &event, out))
    }

    fn quiet(&mut self) -> io::Result<()> {
        let mut last = Instant::now();
        while last.elapsed() < QUIET {
            if self.turn()? {
                last = Instant::now();
            }
        }
        Ok(())
    }

    fn until(&mut self, what: &str, done: impl Fn(&Cast) -> bool) -> io::Result<()> {
        let start = Instant::now();
        while !done(&self.cast) {
            if start.elapsed() > PATIENCE {
                return self.stuck(&format!("waited in vain until {what}"));
            }
            self.turn()?;
        }
        Ok(())
    }

    fn stuck(&mut self, what: &str) -> io::Result<()> {
        self.cast.judge();
        eprintln!("retained:      {}\nsubscriptions: {}", self.cast.retained, self.cast.subscriptions);
        eprintln!("{}--- the log of the broker ends:\n{}", self.cast.report, tail(&self.node.log()));
        Err(io::Error::other(what.to_owned()))
    }
}

impl Cast {
    fn all_connected(&self, offline_too: bool) -> bool {
        self.publishers.iter().all(|publisher| publisher.connected)
            && self.receivers.iter().all(|receiver| receiver.connected || (!receiver.live && !offline_too))
            && self.retained.connected
            && self.subscriptions.connected
    }

    fn missing(&self) -> u64 {
        let missing = |receiver: &Receiver| receiver.missing(&self.publishers[receiver.publisher]).count() as u64;
        self.receivers.iter().map(missing).sum()
    }

    fn judge(&mut self) {
        self.report.lost = 0;
        for receiver in &self.receivers {
            for number in receiver.missing(&self.publishers[receiver.publisher]) {
                self.report.lost += 1;
                self.report.example(|| format!("{} never got {number}", receiver.client_id()));
            }
        }
        self.report.unknown = self.report.published - self.report.acknowledged;
    }
}

fn is_suback(incoming: &Incoming<'_>) -> bool {
    matches!(incoming, Incoming::SubAck(_, [..0x80]))
}

fn is_puback(incoming: &Incoming<'_>) -> bool {
    matches!(incoming, Incoming::Ack(AckKind::PubAck, _, ..0x80))
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}
