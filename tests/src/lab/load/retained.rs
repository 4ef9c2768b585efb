use super::{Actor, Cast, Identity, Io, Phase, Wish, millis};
use crate::answer;
use crate::lab::checker::Event;
use crate::wire::{self, AckKind, Incoming};
use std::collections::VecDeque;

/// Sets and clears retained messages, one operation on each at a time.
pub(super) struct Setter {
    run: u32,
    cast: Cast,
    version: u64,
    due: u64,
    in_flight: VecDeque<Operation>,
    last_packet_id: u16,
    progress: u64,
}

#[derive(Clone, Copy)]
struct Operation {
    packet_id: u16,
    slot: usize,
    version: u64,
    clear: bool,
}

const WINDOW: usize = 8;

impl Setter {
    pub(super) fn new(run: u32, cast: Cast) -> Self {
        Self { run, cast, version: 0, due: 0, in_flight: VecDeque::new(), last_packet_id: 0, progress: 0 }
    }

    fn send(&self, operation: Operation, dup: bool, io: &mut Io<'_>) {
        let topic = format!("retained/{}/{}", self.run, operation.slot);
        let payload = if operation.clear { String::new() } else { operation.version.to_string() };
        let (topic, payload) = (topic.as_bytes(), payload.as_bytes());
        let publish = wire::Publish { dup, qos: 1, retain: true, packet_id: operation.packet_id, topic, payload };
        wire::publish(io.out, io.level, &publish);
    }
}

impl Actor for Setter {
    fn identity(&mut self) -> Identity {
        Identity { client_id: format!("lab-{}-setter", self.run), persistent: true, will: None }
    }

    fn connected(&mut self, _: bool, _: u16, io: &mut Io<'_>) {
        self.progress = io.at;
        for operation in &self.in_flight {
            self.send(*operation, true, io);
        }
    }

    fn packet(&mut self, incoming: &Incoming<'_>, io: &mut Io<'_>) {
        let Incoming::Ack(AckKind::PubAck, packet_id, code) = *incoming else { return };
        let Some(index) = self.in_flight.iter().position(|one| one.packet_id == packet_id) else { return };
        let Some(Operation { slot, version, .. }) = self.in_flight.remove(index) else { return };
        self.progress = io.at;
        if code < 0x80 {
            io.see(Event::SetAcked { slot, version });
        }
    }

    fn disconnected(&mut self, _io: &mut Io<'_>) {}

    fn tick(&mut self, io: &mut Io<'_>) {
        if !io.online {
            return;
        }
        if !self.in_flight.is_empty() && io.at > self.progress + millis(self.cast.patience) {
            io.wish = Wish::Hop;
            return;
        }
        if io.phase != Phase::Play || io.at < self.due || self.in_flight.len() >= WINDOW {
            return;
        }
        self.due = io.at + (1e9 / self.cast.churn) as u64;
        let slot = io.random.below(self.cast.retained as u64) as usize;
        if self.in_flight.iter().any(|one| one.slot == slot) {
            return;
        }
        self.version += 1;
        self.last_packet_id = if self.last_packet_id == u16::MAX { 1 } else { self.last_packet_id + 1 };
        let clear = io.random.below(4) == 0;
        let operation = Operation { packet_id: self.last_packet_id, slot, version: self.version, clear };
        io.see(Event::Set { slot, version: self.version, clear });
        if self.in_flight.is_empty() {
            self.progress = io.at;
        }
        self.send(operation, false, io);
        self.in_flight.push_back(operation);
    }

    fn is_done(&self, phase: Phase) -> bool {
        phase == Phase::SetUp || self.in_flight.is_empty()
    }
}

/// Subscribes as somebody new, again and again, and looks at what is retained; in the end once at each node.
pub(super) struct Reader {
    run: u32,
    id: usize,
    visit: u64,
    subscribed: bool,
    found: bool,
    /// Since when nothing more has come.
    quiet: u64,
    next: u64,
    /// The lookup began when nothing was changed any more; and one such is done.
    last: bool,
    done: bool,
}

/// So long after the last one no more come.
const QUIET: u64 = millis(1_500);
/// So long after the SUBACK none come: a node may take five seconds to find out what it missed.
const NOTHING: u64 = millis(7_000);

impl Reader {
    pub(super) fn new(run: u32, id: usize) -> Self {
        Self { run, id, visit: 0, subscribed: false, found: false, quiet: 0, next: 0, last: false, done: false }
    }
}

impl Actor for Reader {
    fn identity(&mut self) -> Identity {
        self.visit += 1;
        Identity { client_id: format!("lab-{}-reader-{}-{}", self.run, self.id, self.visit), ..Identity::default() }
    }

    fn connected(&mut self, _: bool, _: u16, io: &mut Io<'_>) {
        (self.subscribed, self.found, self.quiet) = (false, false, io.at);
        self.last = io.phase == Phase::Drain;
        if !io.isolated {
            io.see(Event::LookupBegins { reader: self.id });
            wire::subscribe(io.out, io.level, 1, &[(format!("retained/{}/#", self.run), 1)]);
        }
    }

    fn packet(&mut self, incoming: &Incoming<'_>, io: &mut Io<'_>) {
        answer(incoming, io.out);
        match incoming {
            Incoming::SubAck(..) => (self.subscribed, self.quiet) = (true, io.at),
            Incoming::Publish(publish) => {
                let text = |bytes| std::str::from_utf8(bytes).ok();
                let slot = text(publish.topic).and_then(|topic| topic.rsplit('/').next()?.parse().ok());
                let version = text(publish.payload).and_then(|version| version.parse().ok());
                if let (Some(slot), Some(version), true) = (slot, version, publish.retain) {
                    io.see(Event::LookupFound { reader: self.id, slot, version });
                    (self.found, self.quiet) = (true, io.at);
                }
            }
            _ => {}
        }
    }

    fn disconnected(&mut self, io: &mut Io<'_>) {
        self.subscribed = false;
        self.next = io.at + millis(200);
    }

    fn tick(&mut self, io: &mut Io<'_>) {
        if !io.online {
            let last = io.phase == Phase::Drain;
            if io.at > self.next && (io.phase == Phase::Play || (last && !self.done)) {
                self.next = u64::MAX;
                io.wish = Wish::Come(if last { self.id } else { io.node });
            }
            return;
        }
        let over = io.at > self.quiet + if self.found { QUIET } else { NOTHING };
        if over && self.subscribed {
            io.see(Event::LookupEnds { reader: self.id });
            self.subscribed = false;
            self.done |= self.last;
        }
        if over {
            self.quiet = u64::MAX - NOTHING;
            io.wish = Wish::Leave;
        }
    }

    fn is_done(&self, phase: Phase) -> bool {
        phase != Phase::Drain || self.done
    }
}
