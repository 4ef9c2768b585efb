use super::{Actor, Cast, Identity, Io, Phase, Wish, millis};
use crate::answer;
use crate::lab::checker::Event;
use crate::wire::{self, AckKind, Incoming};
use std::collections::{HashMap, HashSet};

/// A persistent session that subscribes and unsubscribes.
pub(super) struct Churner {
    run: u32,
    cast: Cast,
    on: Vec<bool>,
    in_flight: HashMap<u16, usize>,
    last_packet_id: u16,
    due: u64,
    progress: u64,
    online: bool,
    reached: HashSet<usize>,
}

const WINDOW: usize = 8;

impl Churner {
    pub(super) fn new(run: u32, cast: Cast) -> Self {
        Self {
            run,
            cast,
            on: vec![false; cast.subscriptions],
            in_flight: HashMap::new(),
            last_packet_id: 0,
            due: 0,
            progress: 0,
            online: false,
            reached: HashSet::new(),
        }
    }
}

impl Actor for Churner {
    fn identity(&mut self) -> Identity {
        Identity { client_id: format!("lab-{}-churner", self.run), persistent: true, will: None }
    }

    fn connected(&mut self, _: bool, _: u16, _io: &mut Io<'_>) {
        self.online = true;
    }

    fn packet(&mut self, incoming: &Incoming<'_>, io: &mut Io<'_>) {
        answer(incoming, io.out);
        match incoming {
            Incoming::SubAck(id, [..0x80]) | Incoming::UnsubAck(id) => {
                if let Some(slot) = self.in_flight.remove(id) {
                    self.progress = io.at;
                    io.see(Event::Switched { slot });
                }
            }
            Incoming::SubAck(id, _) => {
                if let Some(slot) = self.in_flight.remove(id) {
                    io.see(Event::SwitchUnknown { slot });
                }
            }
            Incoming::Publish(publish) => {
                let slot: Option<usize> =
                    std::str::from_utf8(publish.topic).ok().and_then(|topic| topic.rsplit('/').next()?.parse().ok());
                self.reached.extend(slot);
            }
            _ => {}
        }
    }

    fn disconnected(&mut self, io: &mut Io<'_>) {
        self.online = false;
        for (_, slot) in self.in_flight.drain() {
            io.see(Event::SwitchUnknown { slot });
        }
    }

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
        let slot = io.random.below(self.cast.subscriptions as u64) as usize;
        if self.in_flight.values().any(|one| *one == slot) {
            return;
        }
        self.last_packet_id = if self.last_packet_id == u16::MAX { 1 } else { self.last_packet_id + 1 };
        let (id, filter) = (self.last_packet_id, format!("churn/{}/{slot}", self.run));
        let on = !self.on[slot];
        self.on[slot] = on;
        io.see(Event::Switching { slot, on });
        if on {
            wire::subscribe(io.out, io.level, id, &[(filter, 1)]);
        } else {
            wire::unsubscribe(io.out, io.level, id, &filter);
        }
        if self.in_flight.is_empty() {
            self.progress = io.at;
        }
        self.in_flight.insert(id, slot);
    }

    fn is_done(&self, phase: Phase) -> bool {
        phase == Phase::SetUp || (self.in_flight.is_empty() && (self.online || phase != Phase::Drain))
    }

    fn finish(&mut self, io: &mut Io<'_>) {
        for slot in 0..self.on.len() {
            io.see(Event::Probed { slot, reached: self.reached.contains(&slot) });
        }
    }
}

/// In the end publishes to every subscription that there may be.
pub(super) struct Prober {
    run: u32,
    cast: Cast,
    open: HashSet<u16>,
    begun: bool,
    progress: u64,
    ended: Option<u64>,
    now: u64,
}

impl Prober {
    pub(super) fn new(run: u32, cast: Cast) -> Self {
        Self {
            run,
            cast,
            open: (1..=cast.subscriptions as u16).collect(),
            begun: false,
            progress: 0,
            ended: None,
            now: 0,
        }
    }

    fn send(&self, dup: bool, io: &mut Io<'_>) {
        for &packet_id in &self.open {
            let topic = format!("churn/{}/{}", self.run, packet_id - 1);
            let publish =
                wire::Publish { dup, qos: 1, retain: false, packet_id, topic: topic.as_bytes(), payload: b"probe" };
            wire::publish(io.out, io.level, &publish);
        }
    }
}

impl Actor for Prober {
    fn identity(&mut self) -> Identity {
        Identity { client_id: format!("lab-{}-prober", self.run), persistent: true, will: None }
    }

    fn connected(&mut self, _: bool, _: u16, io: &mut Io<'_>) {
        self.progress = io.at;
        if self.begun {
            self.send(true, io);
        }
    }

    fn packet(&mut self, incoming: &Incoming<'_>, io: &mut Io<'_>) {
        if let Incoming::Ack(AckKind::PubAck, packet_id, ..0x80) = *incoming {
            self.progress = io.at;
            self.open.remove(&packet_id);
            if self.open.is_empty() {
                self.ended = Some(io.at);
            }
        }
    }

    fn disconnected(&mut self, _io: &mut Io<'_>) {}

    fn tick(&mut self, io: &mut Io<'_>) {
        self.now = io.at;
        if io.phase != Phase::Drain || !io.online {
            return;
        }
        if !self.begun {
            (self.begun, self.progress) = (true, io.at);
            self.send(false, io);
        } else if !self.open.is_empty() && io.at > self.progress + millis(self.cast.patience) {
            io.wish = Wish::Hop;
        }
    }

    fn is_done(&self, phase: Phase) -> bool {
        // What was acknowledged arrives a moment later.
        phase != Phase::Drain || self.ended.is_some_and(|ended| self.now > ended + millis(1_500))
    }
}
