//! The clients of a run: each is an [`Actor`] behind a link that reconnects to another node, as a proper client does, when its node
//! closes or falls silent. All of them live on one thread; what they see goes to the checker.

mod churn;
mod duel;
mod publisher;
mod retained;
mod subscriber;
mod wills;

use super::checker::{Checker, Event as Seen, Message, Sink, SinkKind, Source};
use super::findings::Findings;
use crate::random::Random;
use crate::wire::{self, Connect, Incoming, Level, Will};
use crate::{Event, Histogram, Swarm};
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Who takes part.
#[derive(Clone, Copy, Debug)]
pub struct Cast {
    /// Publishers; every fourth at QoS 2, every tenth at QoS 0.
    pub publishers: usize,
    /// Messages per second of each.
    pub rate: f64,
    /// Topics of each.
    pub topics: u64,
    /// Bytes of a payload, 32 and more.
    pub payload: usize,
    /// Persistent sessions, each subscribed to one publisher: half offline until the end, a quarter on the move.
    pub sessions: usize,
    /// Members of a shared group, one group for each of the first two publishers.
    pub members: usize,
    /// Live subscribers to everything.
    pub live: usize,
    /// Retained messages that are set and cleared.
    pub retained: usize,
    /// Subscriptions that come and go.
    pub subscriptions: usize,
    /// Operations per second on each of these two kinds.
    pub churn: f64,
    /// Clients with wills at a time.
    pub wills: usize,
    /// Client ids that two clients fight for.
    pub duels: usize,
    /// Sessions at one node that come back a second after they lost it, and that node.
    pub returning: (usize, usize),
    /// How long clients wait for an answer before they try another node, in milliseconds: an acknowledgement so long, a CONNACK
    /// twice as long.
    pub patience: u64,
}

impl Default for Cast {
    fn default() -> Self {
        Self {
            publishers: 20,
            rate: 20.0,
            topics: 10,
            payload: 128,
            sessions: 40,
            members: 3,
            live: 2,
            retained: 40,
            subscriptions: 30,
            churn: 40.0,
            wills: 4,
            duels: 0,
            returning: (0, 0),
            patience: 1_500,
        }
    }
}

/// What everybody does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// Connect and subscribe.
    SetUp,
    Play,
    /// Finish what is begun.
    Settle,
    /// Fetch everything.
    Drain,
}

/// A client. Its link connects it, again and again.
trait Actor {
    /// As whom it connects now.
    fn identity(&mut self) -> Identity;
    fn connected(&mut self, session_present: bool, receive_maximum: u16, io: &mut Io<'_>);
    fn packet(&mut self, incoming: &Incoming<'_>, io: &mut Io<'_>);
    fn disconnected(&mut self, io: &mut Io<'_>);
    /// Time has passed. Only who is online may write to `io.out`.
    fn tick(&mut self, io: &mut Io<'_>);
    /// It has done all that the phase asks of it.
    fn is_done(&self, phase: Phase) -> bool;
    /// The run is over.
    fn finish(&mut self, _io: &mut Io<'_>) {}
}

#[derive(Clone, Debug, Default)]
struct Identity {
    client_id: String,
    persistent: bool,
    will: Option<(String, String)>,
}

/// What an actor may use while it acts.
struct Io<'a> {
    /// Nanoseconds since the start.
    at: u64,
    phase: Phase,
    online: bool,
    level: Level,
    node: usize,
    nodes: usize,
    /// The node sees no majority.
    isolated: bool,
    /// Nothing has been done to the cluster lately.
    calm: bool,
    /// The node was asked to stop.
    leaving: bool,
    out: &'a mut Vec<u8>,
    wish: Wish,
    checker: &'a mut Checker,
    latency: &'a mut Histogram,
    /// Of each session that came back, how long after the CONNACK its first message came.
    first_messages: &'a mut Vec<u64>,
    random: &'a mut Random,
}

impl Io<'_> {
    fn see(&mut self, event: Seen) {
        self.checker.see(self.at, event);
    }
}

/// What an actor wants of its link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Nothing,
    /// Another connection, to the next node.
    Hop,
    /// Close it without a DISCONNECT, and stay away.
    Break,
    /// Send a DISCONNECT, and stay away.
    Leave,
    /// Be online, at this node first.
    Come(usize),
}

struct Link {
    level: Level,
    node: usize,
    wanted: bool,
    state: State,
    attempts: u32,
    /// When something came last, and when a PINGREQ went.
    heard: u64,
    pinged: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Down {
        retry: u64,
    },
    Connecting {
        since: u64,
    },
    Up,
    /// A DISCONNECT is on its way.
    Leaving {
        since: u64,
    },
}

/// The load of a run.
pub struct Load {
    swarm: Swarm,
    addresses: Vec<SocketAddr>,
    links: Vec<Link>,
    actors: Vec<Box<dyn Actor>>,
    checker: Checker,
    latency: Histogram,
    first_messages: Vec<u64>,
    random: Random,
    phase: Phase,
    epoch: Instant,
    isolated: Vec<usize>,
    /// Something was done to the cluster that is not over, or was not a moment ago.
    restless: bool,
    last_fault: Option<Instant>,
    /// In nanoseconds.
    patience: u64,
    leaving: Option<usize>,
}

const fn millis(millis: u64) -> u64 {
    millis * 1_000_000
}

/// A client gives a node up that has said nothing for so long. It asks with a PINGREQ before.
const SILENCE: u64 = millis(2_500);
const PING: u64 = millis(1_000);
const KEEP_ALIVE: u16 = 10;
/// How long a session outlives its connection, in seconds.
const EXPIRY: u32 = 3_600;
const CALM: Duration = Duration::from_secs(3);

impl Load {
    /// Connects everybody and subscribes who subscribes. `run` keeps the names of runs on one cluster apart.
    ///
    /// # Errors
    /// They are not all there within `limit`.
    pub fn start(addresses: Vec<SocketAddr>, cast: Cast, run: u32, seed: u64, limit: Duration) -> io::Result<Self> {
        let nodes = addresses.len();
        let (mut sources, mut sinks) = (Vec::new(), Vec::new());
        let mut load = Self {
            swarm: Swarm::new(false)?,
            addresses,
            links: Vec::new(),
            actors: Vec::new(),
            checker: Checker::new(Vec::new(), Vec::new()),
            latency: Histogram::default(),
            first_messages: Vec::new(),
            random: Random::new(seed),
            phase: Phase::SetUp,
            epoch: Instant::now(),
            isolated: Vec::new(),
            restless: false,
            last_fault: None,
            patience: millis(cast.patience),
            leaving: None,
        };
        for id in 0..cast.publishers {
            let qos = if id % 10 == 9 { 0 } else { 1 + u8::from(id % 4 == 1) };
            sources.push(Source { qos, topics: cast.topics });
            // At QoS 1 some have no session: what they repeat is new to the broker.
            let persistent = qos == 2 || id % 3 != 2;
            let publisher = publisher::Publisher::new(run, id, qos, persistent, cast, id as u64);
            load.add(Box::new(publisher), id, level(id));
        }
        let mut sink = |publishers: Vec<usize>, kind| {
            sinks.push(Sink { publishers, kind });
            sinks.len() - 1
        };
        for id in 0..cast.sessions {
            let publisher = id % cast.publishers.max(1);
            let sink = sink(vec![publisher], SinkKind::Persistent);
            let habit = match id / cast.publishers.max(1) % 2 {
                0 if id % 2 == 0 => subscriber::Habit::Stay,
                0 => subscriber::Habit::Move,
                _ => subscriber::Habit::Away,
            };
            let subscriber = subscriber::Subscriber::new(run, sink, cast, habit, format!("lab/{run}/{publisher}/#"));
            load.add(Box::new(subscriber), id, level(id + 1));
        }
        for id in 0..cast.returning.0 {
            let publisher = id % cast.publishers.max(1);
            let sink = sink(vec![publisher], SinkKind::Persistent);
            let filter = format!("lab/{run}/{publisher}/#");
            let subscriber = subscriber::Subscriber::new(run, sink, cast, subscriber::Habit::Return, filter);
            load.add(Box::new(subscriber), cast.returning.1, level(id));
        }
        for group in 0..cast.publishers.min(2) {
            for id in 0..cast.members {
                let sink = sink(vec![group], SinkKind::Member(group));
                let filter = format!("$share/group{group}/lab/{run}/{group}/#");
                let subscriber = subscriber::Subscriber::new(run, sink, cast, subscriber::Habit::Stay, filter);
                load.add(Box::new(subscriber), id, level(id));
            }
        }
        for id in 0..cast.live {
            let sink = sink((0..cast.publishers).collect(), SinkKind::Live);
            let filter = format!("lab/{run}/#");
            let subscriber = subscriber::Subscriber::new(run, sink, cast, subscriber::Habit::Live, filter);
            load.add(Box::new(subscriber), id, Level::V5);
        }
        if cast.retained > 0 {
            load.add(Box::new(retained::Setter::new(run, cast)), 0, Level::V5);
            for id in 0..nodes {
                load.add(Box::new(retained::Reader::new(run, id)), id, Level::V5);
            }
        }
        if cast.subscriptions > 0 {
            load.add(Box::new(churn::Churner::new(run, cast)), 1, Level::V5);
            load.add(Box::new(churn::Prober::new(run, cast)), 2, Level::V5);
        }
        if cast.wills > 0 {
            load.add(Box::new(wills::Watcher::new(run)), 0, Level::V5);
            for id in 0..cast.wills {
                load.add(Box::new(wills::Mortal::new(run, id, cast.wills)), id, level(id));
            }
        }
        for id in 0..cast.duels {
            let sink = sink(vec![id % cast.publishers.max(1)], SinkKind::Persistent);
            for (side, fighter) in duel::pair(run, id, sink, cast).into_iter().enumerate() {
                load.add(Box::new(fighter), id + side, level(id));
            }
        }
        load.checker = Checker::new(sources, sinks);
        load.until("everybody is connected and subscribed", limit, |load| load.all_done())?;
        load.phase = Phase::Play;
        Ok(load)
    }

    /// Plays for a while.
    ///
    /// # Errors
    /// The broker sends what is not MQTT.
    pub fn play(&mut self, time: Duration) -> io::Result<()> {
        let start = Instant::now();
        while start.elapsed() < time {
            self.turn()?;
        }
        Ok(())
    }

    /// Plays until `done` says so, at most for `limit`; how long it took, `None` when it was not done.
    ///
    /// # Errors
    /// As [`Self::play`], and those of `done`.
    pub fn play_until(
        &mut self,
        limit: Duration,
        mut done: impl FnMut() -> io::Result<bool>,
    ) -> io::Result<Option<Duration>> {
        let start = Instant::now();
        while start.elapsed() < limit {
            if done()? {
                return Ok(Some(start.elapsed()));
            }
            self.play(Duration::from_millis(50))?;
        }
        Ok(None)
    }

    /// Something is being done to the cluster.
    pub fn fault(&mut self) {
        (self.restless, self.last_fault) = (true, Some(Instant::now()));
        self.checker.see(self.now(), Seen::Fault);
    }

    /// A node is asked to stop; `None`: it has.
    pub fn leaves(&mut self, node: Option<usize>) {
        self.leaving = node;
    }

    /// The cluster is whole again: from now on clients expect to be treated as usual.
    pub fn calm(&mut self) {
        (self.restless, self.last_fault) = (false, Some(Instant::now()));
    }

    /// From now on these nodes see no majority; an empty list: all do again.
    pub fn isolate(&mut self, nodes: &[usize]) {
        self.isolated = nodes.to_vec();
        self.checker.see(self.now(), Seen::Isolated(nodes.to_vec()));
    }

    /// Counts gaps anew.
    pub fn begin_gaps(&mut self) {
        self.checker.begin_gaps();
    }

    /// The longest time that any publisher had no acknowledgement since [`Self::begin_gaps`].
    #[must_use]
    pub fn longest_gap(&self) -> Duration {
        Duration::from_nanos(self.checker.longest_gap(self.now()))
    }

    /// Messages acknowledged so far.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.checker.acknowledged()
    }

    /// Plays until every publisher above QoS 0 has had three acknowledgements from now on: how long it took, `None` when some have
    /// not.
    ///
    /// # Errors
    /// As [`Self::play`].
    pub fn play_until_served(&mut self, limit: Duration) -> io::Result<Option<Duration>> {
        let start = Instant::now();
        let publishers = self.checker.publishers();
        let wanted: Vec<(usize, u64)> =
            publishers.iter().map(|&one| (one, self.checker.acknowledged_by(one) + 3)).collect();
        while start.elapsed() < limit {
            if wanted.iter().all(|(publisher, count)| self.checker.acknowledged_by(*publisher) >= *count) {
                return Ok(Some(start.elapsed()));
            }
            self.turn()?;
        }
        Ok(None)
    }

    /// How long acknowledgements took, from the first sending.
    #[must_use]
    pub fn latency(&self) -> &Histogram {
        &self.latency
    }

    /// When its clock began, in seconds since 1970: what the checker says counts from then.
    #[must_use]
    pub fn began(&self) -> f64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        now.saturating_sub(self.epoch.elapsed()).as_secs_f64()
    }

    /// Of each session that came back, how long after the CONNACK its first message came.
    #[must_use]
    pub fn first_messages(&self) -> Vec<Duration> {
        self.first_messages.iter().copied().map(Duration::from_nanos).collect()
    }

    /// Something did not go on within its time.
    pub fn stuck(&mut self, what: String) {
        self.checker.stuck(what);
    }

    /// Everybody finishes what is begun, fetches what is there, and it is judged.
    ///
    /// # Errors
    /// As [`Self::play`].
    pub fn finish(mut self, limit: Duration) -> io::Result<Findings> {
        for (phase, what) in [(Phase::Settle, "finish what they began"), (Phase::Drain, "fetch everything")] {
            self.phase = phase;
            if !self.until_quietly(limit, Self::all_done)? {
                let names: Vec<String> = self.idle(phase);
                self.checker.stuck(format!("within {limit:?} these did not {what}: {}", names.join(", ")));
            }
        }
        let mut missing = self.checker.missing();
        let mut progress = Instant::now();
        while (missing > 0 || !self.checker.is_settled()) && progress.elapsed() < limit.min(Duration::from_secs(10)) {
            self.turn()?;
            let now = self.checker.missing();
            if now != missing {
                (missing, progress) = (now, Instant::now());
            }
        }
        // What comes too often comes late.
        self.play(Duration::from_millis(300))?;
        for at in 0..self.actors.len() {
            self.act(at, |actor, io| actor.finish(io));
        }
        Ok(self.checker.finish())
    }

    fn add(&mut self, actor: Box<dyn Actor>, node: usize, level: Level) {
        self.swarm.add(level);
        let node = node % self.addresses.len();
        let state = State::Down { retry: 0 };
        self.links.push(Link { level, node, wanted: true, state, attempts: 0, heard: 0, pinged: 0 });
        self.actors.push(actor);
    }

    fn all_done(&self) -> bool {
        self.actors.iter().all(|actor| actor.is_done(self.phase))
    }

    fn idle(&mut self, phase: Phase) -> Vec<String> {
        let idle = self.actors.iter_mut().filter(|actor| !actor.is_done(phase));
        idle.take(6).map(|actor| actor.identity().client_id).collect()
    }

    fn until(&mut self, what: &str, limit: Duration, done: impl Fn(&Self) -> bool) -> io::Result<()> {
        if self.until_quietly(limit, done)? {
            return Ok(());
        }
        let names = self.idle(self.phase).join(", ");
        Err(io::Error::new(io::ErrorKind::TimedOut, format!("waited {limit:?} in vain until {what}: {names}")))
    }

    fn until_quietly(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) -> io::Result<bool> {
        let start = Instant::now();
        while !done(self) {
            if start.elapsed() > limit {
                return Ok(false);
            }
            self.turn()?;
        }
        Ok(true)
    }

    fn now(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    fn turn(&mut self) -> io::Result<()> {
        for at in 0..self.links.len() {
            self.tend(at);
        }
        let mut came = std::mem::take(&mut self.links);
        let Self {
            swarm,
            actors,
            checker,
            latency,
            first_messages,
            random,
            phase,
            epoch,
            isolated,
            restless,
            leaving,
            last_fault,
            addresses,
            ..
        } = self;
        let calm = !*restless && last_fault.is_none_or(|at| at.elapsed() > CALM);
        let result = swarm.turn(Duration::from_millis(2), |at, event, out| {
            let (link, now) = (&mut came[at], epoch.elapsed().as_nanos() as u64);
            let mut io = Io {
                at: now,
                phase: *phase,
                online: link.state == State::Up,
                level: link.level,
                node: link.node,
                nodes: addresses.len(),
                isolated: isolated.contains(&link.node),
                calm,
                leaving: *leaving == Some(link.node),
                out,
                wish: Wish::Nothing,
                checker: &mut *checker,
                latency: &mut *latency,
                first_messages: &mut *first_messages,
                random: &mut *random,
            };
            let actor = &mut actors[at];
            link.heard = now;
            match event {
                Event::Packet(Incoming::ConnAck { session_present, code: 0, receive_maximum }) => {
                    (link.state, link.attempts, io.online) = (State::Up, 0, true);
                    actor.connected(session_present, receive_maximum, &mut io);
                }
                Event::Packet(Incoming::ConnAck { .. } | Incoming::Disconnect(_)) => {}
                Event::Packet(incoming) => actor.packet(&incoming, &mut io),
                Event::Closed => {
                    let connected = matches!(link.state, State::Up | State::Leaving { .. });
                    link.lost(now, addresses.len());
                    if connected {
                        io.online = false;
                        actor.disconnected(&mut io);
                    }
                }
            }
            let wish = io.wish;
            link.wish(wish);
        });
        self.links = came;
        result.map(|_| ())
    }

    /// What a link does by itself.
    fn tend(&mut self, at: usize) {
        let now = self.now();
        let nodes = self.addresses.len();
        let link = &mut self.links[at];
        match link.state {
            State::Down { retry } if link.wanted && now >= retry => self.dial(at, now),
            State::Connecting { since } if now > since + 2 * self.patience || !link.wanted => self.cut(at, now),
            State::Leaving { since } if now > since + 2 * self.patience => self.cut(at, now),
            State::Up if !link.wanted => {
                link.state = State::Leaving { since: now };
                wire::disconnect(self.swarm.out(at));
            }
            State::Up if now > link.heard + SILENCE => self.cut(at, now),
            State::Up if now > link.heard.max(link.pinged) + PING => {
                link.pinged = now;
                wire::ping(self.swarm.out(at));
            }
            _ => {}
        }
        debug_assert!(self.links[at].node < nodes);
        let wish = self.act(at, |actor, io| actor.tick(io));
        match wish {
            Wish::Hop => self.cut(at, now),
            Wish::Break => {
                self.links[at].wanted = false;
                self.cut(at, now);
            }
            wish => self.links[at].wish(wish),
        }
    }

    fn act(&mut self, at: usize, act: impl FnOnce(&mut dyn Actor, &mut Io<'_>)) -> Wish {
        let (now, nodes) = (self.now(), self.addresses.len());
        let link = &self.links[at];
        let online = link.state == State::Up;
        let mut nowhere = Vec::new();
        let mut io = Io {
            at: now,
            phase: self.phase,
            online,
            level: link.level,
            node: link.node,
            nodes,
            isolated: self.isolated.contains(&link.node),
            leaving: self.leaving == Some(link.node),
            calm: !self.restless && self.last_fault.is_none_or(|at| at.elapsed() > CALM),
            out: if online { self.swarm.out(at) } else { &mut nowhere },
            wish: Wish::Nothing,
            checker: &mut self.checker,
            latency: &mut self.latency,
            first_messages: &mut self.first_messages,
            random: &mut self.random,
        };
        act(self.actors[at].as_mut(), &mut io);
        io.wish
    }

    fn dial(&mut self, at: usize, now: u64) {
        let identity = self.actors[at].identity();
        let link = &mut self.links[at];
        let will = identity.will.as_ref().map(|(topic, payload)| Will { topic, payload, delay: 0 });
        let connect = Connect {
            clean: !identity.persistent,
            keep_alive: KEEP_ALIVE,
            session_expiry: if identity.persistent { EXPIRY } else { 0 },
            will,
            ..Connect::clean(link.level, &identity.client_id)
        };
        match self.swarm.dial(at, self.addresses[link.node], &connect) {
            Ok(()) => link.state = State::Connecting { since: now },
            Err(_) => link.lost(now, self.addresses.len()),
        }
        link.heard = now;
    }

    /// Closes the connection from this side, without a word.
    fn cut(&mut self, at: usize, now: u64) {
        let connected = matches!(self.links[at].state, State::Up | State::Leaving { .. });
        self.swarm.close(at);
        self.links[at].lost(now, self.addresses.len());
        if connected {
            let wish = self.act(at, |actor, io| actor.disconnected(io));
            self.links[at].wish(wish);
        }
    }
}

impl Link {
    fn lost(&mut self, now: u64, nodes: usize) {
        self.attempts += 1;
        // At once the first time round, then slower.
        let wait = millis(20 * u64::from(self.attempts.saturating_sub(1).min(10)));
        self.state = State::Down { retry: now + wait };
        self.node = (self.node + 1) % nodes;
    }

    fn wish(&mut self, wish: Wish) {
        match wish {
            Wish::Nothing => {}
            // Told while packets are handed out: the link sees to it in its next turn.
            Wish::Hop => self.heard = 0,
            Wish::Leave | Wish::Break => self.wanted = false,
            Wish::Come(node) => {
                self.wanted = true;
                if matches!(self.state, State::Down { .. }) {
                    (self.node, self.state, self.attempts) = (node, State::Down { retry: 0 }, 0);
                }
            }
        }
    }
}

fn level(id: usize) -> Level {
    if id.is_multiple_of(2) { Level::V4 } else { Level::V5 }
}

/// 16 bytes that say which message it is, and more that follow from them.
fn payload(run: u32, message: Message, length: usize) -> Vec<u8> {
    let mut payload = run.to_be_bytes().to_vec();
    payload.extend_from_slice(&(message.publisher as u32).to_be_bytes());
    payload.extend_from_slice(&message.number.to_be_bytes());
    let mut mix = (message.number ^ (message.publisher as u64) << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    while payload.len() < length {
        mix = mix.rotate_left(23).wrapping_mul(0x2545_f491_4f6c_dd1d);
        payload.push((mix >> 56) as u8);
    }
    payload
}

/// The message that a payload is; `None`: it is none of this run, or altered.
fn message_of(run: u32, topics: u64, length: usize, topic: &[u8], bytes: &[u8]) -> Option<Message> {
    let rest = bytes.strip_prefix(&run.to_be_bytes())?;
    let (publisher, rest) = rest.split_first_chunk()?;
    let number = u64::from_be_bytes(*rest.first_chunk()?);
    let message = Message { publisher: u32::from_be_bytes(*publisher) as usize, number };
    let genuine = topic == topic_of(run, topics, message).as_bytes() && bytes == payload(run, message, length);
    genuine.then_some(message)
}

fn topic_of(run: u32, topics: u64, message: Message) -> String {
    format!("lab/{run}/{}/{}", message.publisher, message.number % topics.max(1))
}
