use super::findings::Findings;
use std::collections::{HashMap, HashSet};

/// What the clients of a run saw, in the order in which they saw it. Publishers, sinks, slots and wills are numbered from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A message was sent for the first time.
    Sent(Message),
    /// It was sent again.
    Repeated(Message),
    /// It was acknowledged, by PUBACK or PUBREC, through that node.
    Acked(Message, usize),
    /// It was refused: whether it was taken is unknown.
    Refused(Message),
    /// A sink is connected.
    Connected {
        /// Who.
        sink: usize,
        /// The server had its session.
        session_present: bool,
    },
    /// A message came to a sink.
    Delivered(Delivery),
    /// PUBREL came to a sink: its packet id is free again.
    Released {
        /// To whom.
        sink: usize,
        /// Which.
        packet_id: u16,
    },
    /// Something came to a sink that nobody published, or altered.
    Foreign {
        /// To whom.
        sink: usize,
        /// What, in words.
        what: String,
    },
    /// Something was done to the cluster, or undone: leaders may change, sessions may move.
    Fault,
    /// From now on these nodes see no majority: 0.5 s later they acknowledge nothing. An empty list: all do again.
    Isolated(Vec<usize>),
    /// A retained message is being set, or cleared; versions of a slot rise.
    Set {
        /// Which.
        slot: usize,
        /// Its new version.
        version: u64,
        /// It is cleared.
        clear: bool,
    },
    /// That is acknowledged.
    SetAcked {
        /// Which.
        slot: usize,
        /// The version.
        version: u64,
    },
    /// A new subscriber asks for all retained messages.
    LookupBegins {
        /// Who; one lookup each.
        reader: usize,
    },
    /// It got one.
    LookupFound {
        /// Who.
        reader: usize,
        /// Which.
        slot: usize,
        /// The version in it.
        version: u64,
    },
    /// It got all there are.
    LookupEnds {
        /// Who.
        reader: usize,
    },
    /// A subscription is being made or removed; operations on one slot follow each other.
    Switching {
        /// Which.
        slot: usize,
        /// It is made.
        on: bool,
    },
    /// That is acknowledged.
    Switched {
        /// Which.
        slot: usize,
    },
    /// That will never be acknowledged.
    SwitchUnknown {
        /// Which.
        slot: usize,
    },
    /// Whether a message to the subscription reached its session.
    Probed {
        /// Which.
        slot: usize,
        /// It did.
        reached: bool,
    },
    /// A client with a will was accepted.
    WillSet {
        /// Its number.
        will: usize,
    },
    /// It ended: without a DISCONNECT, or with one. A DISCONNECT of which it is unknown whether it arrived is neither.
    WillEnds {
        /// Its number.
        will: usize,
        /// With a DISCONNECT; `None`: unknown.
        clean: Option<bool>,
    },
    /// The will came to a sink.
    WillSeen {
        /// Its number.
        will: usize,
        /// DUP, or a reconnect of the sink, explains it when it comes again.
        repeated: bool,
    },
    /// How many connections of one client id were alive when no more came.
    Owners {
        /// Which client id.
        client: usize,
        /// How many.
        alive: usize,
    },
    /// One message came to two connections of one client id.
    BothReceive {
        /// Which client id.
        client: usize,
    },
}

/// A message by its publisher and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Message {
    /// Which publisher.
    pub publisher: usize,
    /// Its number, from 0.
    pub number: u64,
}

/// A message that came to a sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// To whom.
    pub sink: usize,
    /// What.
    pub message: Message,
    /// At this QoS.
    pub qos: u8,
    /// With DUP.
    pub dup: bool,
    /// Under this packet id; 0 at QoS 0.
    pub packet_id: u16,
}

/// A publisher.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// 0, 1 or 2.
    pub qos: u8,
    /// Message `n` goes to its topic `n` mod so many.
    pub topics: u64,
}

/// Who is to get what.
#[derive(Clone, Debug)]
pub struct Sink {
    /// Of whom.
    pub publishers: Vec<usize>,
    /// What it is entitled to.
    pub kind: SinkKind,
}

/// What a sink is entitled to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SinkKind {
    /// A persistent session, subscribed before the first message: everything.
    Persistent,
    /// A persistent session in a shared group: each message goes to one of the group.
    Member(usize),
    /// A session that ends with its connection: what comes must be right, but it may miss something.
    Live,
}

/// Compares what was acknowledged with what is there, by the vocabulary of the design's list of faults.
///
/// An operation whose acknowledgement never came is *unknown*: it may have happened or not, but at QoS 2 only once, and never out
/// of order.
#[derive(Debug)]
pub struct Checker {
    sources: Vec<Stream>,
    sinks: Vec<Receiver>,
    slots: HashMap<usize, Slot>,
    lookups: HashMap<usize, Lookup>,
    switches: HashMap<usize, Switch>,
    wills: HashMap<usize, Will>,
    isolated: Vec<usize>,
    isolated_at: u64,
    faults: u32,
    findings: Findings,
}

#[derive(Debug)]
struct Stream {
    source: Source,
    fates: Vec<Fate>,
    acked: u64,
    last_ack: Option<u64>,
    longest_gap: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Fate {
    acked: bool,
    repeated: bool,
}

#[derive(Debug)]
struct Receiver {
    sink: Sink,
    known: bool,
    connection: u32,
    seen: HashMap<usize, Vec<Option<Seen>>>,
    highest: HashMap<(usize, u64), u64>,
    /// QoS 2: surfaced, and not yet released.
    unreleased: HashSet<u16>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    connection: u32,
    faults: u32,
    packet_id: u16,
}

#[derive(Debug, Default)]
struct Slot {
    acked: Option<Setting>,
    sent: Vec<Setting>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Setting {
    version: u64,
    clear: bool,
}

#[derive(Debug, Default)]
struct Lookup {
    /// Of each slot, what was acknowledged when it began.
    floors: HashMap<usize, Setting>,
    found: HashSet<usize>,
}

#[derive(Clone, Debug, Default)]
struct Switch {
    /// `None`: unknown.
    settled: Option<bool>,
    open: bool,
    /// What became of it, in words.
    story: String,
}

#[derive(Clone, Copy, Debug, Default)]
struct Will {
    set: bool,
    ended: Option<Option<bool>>,
    seen: u32,
    repeated: bool,
}

/// What is on its way when a cut is made may still arrive.
const ISOLATION_GRACE: u64 = 500_000_000;

impl Checker {
    /// For these publishers and sinks.
    #[must_use]
    pub fn new(sources: Vec<Source>, sinks: Vec<Sink>) -> Self {
        let stream = |source| Stream { source, fates: Vec::new(), acked: 0, last_ack: None, longest_gap: 0 };
        let receiver = |sink| Receiver {
            sink,
            known: false,
            connection: 0,
            seen: HashMap::new(),
            highest: HashMap::new(),
            unreleased: HashSet::new(),
        };
        Self {
            sources: sources.into_iter().map(stream).collect(),
            sinks: sinks.into_iter().map(receiver).collect(),
            slots: HashMap::new(),
            lookups: HashMap::new(),
            switches: HashMap::new(),
            wills: HashMap::new(),
            isolated: Vec::new(),
            isolated_at: 0,
            faults: 0,
            findings: Findings::default(),
        }
    }

    /// Something happened, `at` nanoseconds after the start.
    pub fn see(&mut self, at: u64, event: Event) {
        self.findings.seconds = at as f64 / 1e9;
        match event {
            Event::Sent(message) => {
                let fates = &mut self.sources[message.publisher].fates;
                debug_assert_eq!(fates.len() as u64, message.number, "publishers count without gaps");
                fates.push(Fate::default());
                self.findings.published += 1;
            }
            Event::Repeated(message) => {
                if let Some(fate) = self.fate(message) {
                    fate.repeated = true;
                }
            }
            Event::Acked(message, node) => self.acked(at, message, node),
            Event::Refused(_) => self.findings.refused += 1,
            Event::Connected { sink, session_present } => self.connected(sink, session_present),
            Event::Delivered(delivery) => self.delivered(&delivery),
            Event::Released { sink, packet_id } => {
                self.sinks[sink].unreleased.remove(&packet_id);
            }
            Event::Foreign { sink, what } => {
                self.findings.phantom += 1;
                self.findings.example("phantom", || format!("sink {sink} got what nobody published: {what}"));
            }
            Event::Fault => self.faults += 1,
            Event::Isolated(nodes) => (self.isolated, self.isolated_at) = (nodes, at),
            Event::Set { slot, version, clear } => {
                self.slots.entry(slot).or_default().sent.push(Setting { version, clear });
            }
            Event::SetAcked { slot, version } => self.set_acked(slot, version),
            Event::LookupBegins { reader } => {
                let floor = |(slot, state): (&usize, &Slot)| Some((*slot, state.acked?));
                let floors = self.slots.iter().filter_map(floor).collect();
                self.lookups.insert(reader, Lookup { floors, found: HashSet::new() });
            }
            Event::LookupFound { reader, slot, version } => self.found(reader, slot, version),
            Event::LookupEnds { reader } => self.lookup_ends(reader),
            Event::Switching { slot, .. } if self.switches.get(&slot).is_some_and(|switch| switch.open) => {
                debug_assert!(false, "operations on one slot follow each other");
            }
            Event::Switching { slot, on } => {
                // Until it is acknowledged, both may be.
                let switch = self.switches.entry(slot).or_default();
                (switch.settled, switch.open) = (Some(on), true);
                switch.story.push_str(&format!("; {:.3} s: {}", at as f64 / 1e9, if on { "made" } else { "removed" }));
            }
            Event::Switched { slot } => {
                let switch = self.switches.entry(slot).or_default();
                switch.open = false;
                switch.story.push_str(&format!(", acknowledged {:.3} s", at as f64 / 1e9));
                self.findings.looked_up += 1;
            }
            Event::SwitchUnknown { slot } => {
                let switch = self.switches.entry(slot).or_default();
                (switch.settled, switch.open) = (None, false);
                switch.story.push_str(&format!(", unknown {:.3} s", at as f64 / 1e9));
            }
            Event::Probed { slot, reached } => self.probed(slot, reached),
            Event::WillSet { will } => self.wills.entry(will).or_default().set = true,
            Event::WillEnds { will, clean } => self.wills.entry(will).or_default().ended = Some(clean),
            Event::WillSeen { will, repeated } => {
                let will = self.wills.entry(will).or_default();
                will.repeated |= repeated && will.seen > 0;
                will.seen += u32::from(!repeated || will.seen == 0);
            }
            Event::Owners { client, alive } => {
                self.findings.looked_up += 1;
                self.findings.takeovers += 1;
                if alive > 1 {
                    self.findings.two_owners += 1;
                    self.findings
                        .example("two owners", || format!("{alive} connections of client id {client} are alive"));
                } else if alive == 0 {
                    self.findings.stuck += 1;
                    self.findings.example("stuck", || format!("client id {client} has no connection left"));
                }
            }
            Event::BothReceive { client } => {
                self.findings.two_owners += 1;
                self.findings
                    .example("two owners", || format!("two connections of client id {client} get the same message"));
            }
        }
    }

    /// Something else is wrong: it did not go on within its time.
    pub fn stuck(&mut self, what: String) {
        self.findings.stuck += 1;
        self.findings.example("stuck", || what);
    }

    /// Messages acknowledged so far.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.findings.acknowledged
    }

    /// Messages that are acknowledged and have not come, everybody's together.
    #[must_use]
    pub fn missing(&self) -> u64 {
        let own = (0..self.sinks.len()).map(|sink| self.missing_at(sink).count() as u64).sum::<u64>();
        own + self.missing_in_groups().len() as u64
    }

    /// No QoS 2 exchange with a sink is open.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.sinks.iter().all(|receiver| receiver.unreleased.is_empty())
    }

    /// From now on the longest gaps are counted anew.
    pub fn begin_gaps(&mut self) {
        self.sources.iter_mut().for_each(|stream| stream.longest_gap = 0);
    }

    /// The longest time, in nanoseconds, that a publisher above QoS 0 was without an acknowledgement since [`Self::begin_gaps`].
    #[must_use]
    pub fn longest_gap(&self, now: u64) -> u64 {
        let streams = self.sources.iter().filter(|stream| stream.source.qos > 0);
        let gap = |stream: &Stream| stream.longest_gap.max(now.saturating_sub(stream.last_ack.unwrap_or(0)));
        streams.map(gap).max().unwrap_or(0)
    }

    /// Who publishes above QoS 0.
    #[must_use]
    pub fn publishers(&self) -> Vec<usize> {
        (0..self.sources.len()).filter(|publisher| self.sources[*publisher].source.qos > 0).collect()
    }

    /// How many messages of each publisher are acknowledged.
    #[must_use]
    pub fn acknowledged_by(&self, publisher: usize) -> u64 {
        self.sources[publisher].acked
    }

    /// Everything has been seen.
    #[must_use]
    pub fn finish(mut self) -> Findings {
        for sink in 0..self.sinks.len() {
            let missing: Vec<Message> = self.missing_at(sink).collect();
            for message in missing {
                self.lost(&format!("sink {sink}"), message);
            }
        }
        for (group, message) in self.missing_in_groups() {
            self.lost(&format!("group {group}"), message);
        }
        let mut wills: Vec<_> = self.wills.iter().map(|(number, will)| (*number, *will)).collect();
        wills.sort_unstable_by_key(|(number, _)| *number);
        for (number, will) in wills {
            self.judge_will(number, will);
        }
        self.findings.unknown = self.findings.published - self.findings.acknowledged;
        self.findings
    }

    fn fate(&mut self, message: Message) -> Option<&mut Fate> {
        self.sources[message.publisher].fates.get_mut(message.number as usize)
    }

    fn acked(&mut self, at: u64, message: Message, node: usize) {
        if self.isolated.contains(&node) && at > self.isolated_at + ISOLATION_GRACE {
            self.findings.split += 1;
            self.findings.example("split", || format!("node {} acknowledges {message:?} without a majority", node + 1));
        }
        let Some(fate) = self.fate(message) else { return };
        if std::mem::replace(&mut fate.acked, true) {
            return;
        }
        self.findings.acknowledged += 1;
        let stream = &mut self.sources[message.publisher];
        stream.acked += 1;
        if let Some(last) = stream.last_ack.replace(at) {
            stream.longest_gap = stream.longest_gap.max(at.saturating_sub(last));
        }
    }

    fn connected(&mut self, sink: usize, session_present: bool) {
        let receiver = &mut self.sinks[sink];
        receiver.connection += 1;
        if !session_present {
            // A client forgets with the server.
            receiver.unreleased.clear();
        }
        if receiver.known && !session_present && receiver.sink.kind != SinkKind::Live {
            self.findings.sessions_lost += 1;
            self.findings.example("sessions lost", || format!("the session of sink {sink} is gone"));
        }
        receiver.known = true;
    }

    fn delivered(&mut self, delivery: &Delivery) {
        let Delivery { sink, message, qos, dup, packet_id } = *delivery;
        let receiver = &mut self.sinks[sink];
        let stream = &self.sources[message.publisher];
        let Some(fate) = stream
            .fates
            .get(message.number as usize)
            .copied()
            .filter(|_| qos == stream.source.qos && receiver.sink.publishers.contains(&message.publisher))
        else {
            self.findings.phantom += 1;
            self.findings.example("phantom", || format!("nobody published this for it: {delivery:?}"));
            return;
        };
        let seen = receiver.seen.entry(message.publisher).or_default();
        if seen.len() <= message.number as usize {
            seen.resize(message.number as usize + 1, None);
        }
        let now = Seen { connection: receiver.connection, faults: self.faults, packet_id };
        let before = seen[message.number as usize].replace(now);
        let swallowed = qos == 2 && !receiver.unreleased.insert(packet_id);
        let Some(before) = before else {
            if swallowed {
                self.findings.phantom += 1;
                self.findings.example("phantom", || format!("its packet id is that of another message: {delivery:?}"));
            }
            self.findings.delivered += 1;
            self.first(delivery, fate);
            return;
        };
        if qos > 0 && before.packet_id == packet_id && !dup && (swallowed || qos == 1) {
            self.findings.missing_dup += 1;
            self.findings.example("missing DUP", || format!("again without DUP: {delivery:?} after {before:?}"));
        }
        let explained = before.connection != now.connection || before.faults != now.faults || fate.repeated;
        if swallowed || (qos == 1 && explained) {
            self.findings.explained_duplicates += 1;
        } else if qos == 2 && receiver.sink.kind == SinkKind::Live {
            self.findings.qos2_live_duplicates += 1;
            self.findings
                .example("QoS 2 duplicates, live", || format!("surfaces twice: {delivery:?} after {before:?}"));
        } else if qos == 2 {
            self.findings.qos2_duplicates += 1;
            self.findings.example("QoS 2 duplicates", || format!("surfaces twice: {delivery:?} after {before:?}"));
        } else {
            self.findings.unexplained_duplicates += 1;
            self.findings
                .example("unexplained duplicates", || format!("twice without a reason: {delivery:?} after {before:?}"));
        }
    }

    fn first(&mut self, delivery: &Delivery, fate: Fate) {
        let Message { publisher, number } = delivery.message;
        let receiver = &mut self.sinks[delivery.sink];
        let topic = number % self.sources[publisher].source.topics.max(1);
        let highest = receiver.highest.entry((publisher, topic)).or_insert(number);
        let behind = number < *highest;
        let last = std::mem::replace(highest, number.max(*highest));
        // A live session may have missed it the first time; a shared group has no order between its members.
        let excused = match receiver.sink.kind {
            SinkKind::Persistent => false,
            SinkKind::Live => fate.repeated,
            SinkKind::Member(_) => true,
        };
        if behind && !excused && delivery.qos > 0 {
            self.findings.reordered += 1;
            self.findings.example("reordered", || format!("behind {last}: {delivery:?}"));
        }
    }

    fn missing_at(&self, sink: usize) -> impl Iterator<Item = Message> {
        let receiver = &self.sinks[sink];
        let publishers = receiver.sink.publishers.iter().filter(|_| receiver.sink.kind == SinkKind::Persistent);
        publishers.flat_map(move |&publisher| {
            let seen = receiver.seen.get(&publisher);
            let missing = move |number: &usize| seen.is_none_or(|seen| seen.get(*number).is_none_or(Option::is_none));
            let fates = self.sources[publisher].fates.iter().enumerate();
            let acked = fates.filter(|(_, fate)| fate.acked).map(|(number, _)| number);
            acked.filter(missing).map(move |number| Message { publisher, number: number as u64 })
        })
    }

    fn missing_in_groups(&self) -> Vec<(usize, Message)> {
        let mut groups: HashMap<usize, Vec<&Receiver>> = HashMap::new();
        for receiver in &self.sinks {
            if let SinkKind::Member(group) = receiver.sink.kind {
                groups.entry(group).or_default().push(receiver);
            }
        }
        let mut missing = Vec::new();
        for (group, members) in groups {
            for &publisher in &members[0].sink.publishers {
                for (number, _) in self.sources[publisher].fates.iter().enumerate().filter(|(_, fate)| fate.acked) {
                    let has = |member: &&Receiver| {
                        member.seen.get(&publisher).is_some_and(|seen| seen.get(number).is_some_and(Option::is_some))
                    };
                    if !members.iter().any(has) {
                        missing.push((group, Message { publisher, number: number as u64 }));
                    }
                }
            }
        }
        missing
    }

    fn lost(&mut self, who: &str, message: Message) {
        self.findings.lost += 1;
        self.findings.example("lost", || format!("{who} never got {message:?}"));
    }

    fn set_acked(&mut self, slot: usize, version: u64) {
        let state = self.slots.entry(slot).or_default();
        if let Some(at) = state.sent.iter().position(|setting| setting.version == version) {
            let setting = state.sent[at];
            state.acked = state.acked.filter(|acked| acked.version > version).or(Some(setting));
        }
    }

    fn found(&mut self, reader: usize, slot: usize, version: u64) {
        let Some(lookup) = self.lookups.get_mut(&reader) else { return };
        lookup.found.insert(slot);
        let sent = self
            .slots
            .get(&slot)
            .is_some_and(|state| state.sent.iter().any(|setting| setting.version == version && !setting.clear));
        if !sent {
            self.findings.phantom += 1;
            self.findings
                .example("phantom", || format!("retained message {slot} has version {version}, which nobody set"));
        }
        let Some(floor) = lookup.floors.get(&slot).filter(|floor| version < floor.version) else { return };
        let name = if floor.clear {
            self.findings.resurrected += 1;
            "resurrected"
        } else {
            self.findings.stale += 1;
            "stale retained"
        };
        self.findings.example(name, || {
            format!("reader {reader}: retained message {slot} has version {version} after {floor:?}")
        });
    }

    fn lookup_ends(&mut self, reader: usize) {
        let Some(lookup) = self.lookups.remove(&reader) else { return };
        self.findings.looked_up += lookup.floors.len() as u64;
        let mut gone = Vec::new();
        for (slot, floor) in lookup.floors {
            let cleared_since = self
                .slots
                .get(&slot)
                .is_some_and(|state| state.sent.iter().any(|setting| setting.clear && setting.version > floor.version));
            if !floor.clear && !cleared_since && !lookup.found.contains(&slot) {
                gone.push((slot, floor));
            }
        }
        gone.sort_unstable_by_key(|(slot, _)| *slot);
        for (slot, floor) in gone {
            self.findings.stale += 1;
            self.findings.example("stale retained", || {
                format!("reader {reader}: retained message {slot} is gone after {floor:?}")
            });
        }
    }

    fn probed(&mut self, slot: usize, reached: bool) {
        let Some(Switch { settled: Some(on), open: false, story }) = self.switches.get(&slot).cloned() else { return };
        self.findings.looked_up += 1;
        if on && !reached {
            self.findings.subscriptions_lost += 1;
            self.findings.example("subscriptions lost", || {
                format!("subscription {slot}, acknowledged, delivers nothing{story}")
            });
        } else if !on && reached {
            self.findings.resurrected += 1;
            self.findings
                .example("resurrected", || format!("subscription {slot}, removed and acknowledged, delivers{story}"));
        }
    }

    fn judge_will(&mut self, number: usize, will: Will) {
        self.findings.looked_up += 1;
        if will.seen > 1 {
            self.findings.qos2_duplicates += 1;
            self.findings.example("QoS 2 duplicates", || format!("will {number} fired {} times", will.seen));
        }
        match will.ended {
            Some(Some(false)) if will.set && will.seen == 0 => {
                self.findings.lost += 1;
                self.findings.example("lost", || format!("will {number} never fired"));
            }
            Some(Some(true)) | None if will.set && will.seen > 0 => {
                self.findings.phantom += 1;
                self.findings.example("phantom", || format!("will {number} fired, and its client is well"));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
#[path = "checker_test.rs"]
mod tests;
