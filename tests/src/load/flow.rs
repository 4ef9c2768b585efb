use super::figures::Span;
use super::{Figures, Target, connect, subscribe};
use crate::wire::{self, AckKind, Incoming};
use crate::{Event, Found, Histogram, SharedTracker, Swarm, Tracker, Usage};
use std::io;
use std::time::{Duration, Instant};

/// Messages that flow from publishers to receivers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flow {
    pub(super) publishers: usize,
    pub(super) receivers: usize,
    pub(super) route: Route,
    pub(super) qos: u8,
    /// See the head of `load`.
    pub(super) window: u64,
    /// Messages per second, all publishers together; `None`: as many as the windows let.
    pub(super) rate: Option<u64>,
}

/// Who gets what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// Publisher p to receiver p mod receivers, by one wildcard subscription of each receiver.
    FanIn,
    /// Publisher p to receiver p, by an exact subscription.
    Pairs,
    /// Each message to all receivers.
    FanOut,
    /// Each message to one member of a shared group.
    Shared,
}

pub(super) const PAYLOAD: usize = 256;
const WARM_UP: Duration = Duration::from_secs(1);
const DRAIN: Duration = Duration::from_secs(30);

struct Publisher {
    /// A whole PUBLISH; packet id and the head of the payload are written over.
    frame: Vec<u8>,
    packet_id_at: Option<usize>,
    payload_at: usize,
    sent: u64,
    acked: u64,
    delivered: u64,
    dirty: bool,
}

enum Judge {
    Each(Tracker),
    Group(SharedTracker),
}

impl Flow {
    pub(super) fn run(&self, target: &Target) -> io::Result<Figures> {
        let before = Usage::of(target.pid)?;
        let mut swarm = Swarm::new(true)?;
        let (receivers, _) = connect(&mut swarm, target, "load-receiver", self.receivers, true)?;
        let receivers: Vec<usize> = receivers.collect();
        subscribe(&mut swarm, &receivers, self.qos, 1, |receiver, _| self.filter(receiver))?;
        let (clients, receive_maximum) = connect(&mut swarm, target, "load-publisher", self.publishers, true)?;
        let mut run = Run {
            flow: *self,
            first_publisher: clients.start,
            window: if self.qos > 0 { self.window.min(receive_maximum.into()) } else { self.window },
            publishers: (0..self.publishers).map(|publisher| self.publisher(target, publisher)).collect(),
            dirty: (0..self.publishers).collect(),
            judge: match self.route {
                Route::Shared => Judge::Group(SharedTracker::new(self.receivers, self.publishers)),
                _ => Judge::Each(Tracker::new(self.receivers, self.publishers)),
            },
            latency: Histogram::default(),
            epoch: Instant::now(),
            deliveries: 0,
            closed: 0,
        };
        run.for_a(WARM_UP, &mut swarm)?;
        run.latency = Histogram::default();
        let (span, delivered) = (Span::start(target)?, run.deliveries);
        run.for_a(target.measure, &mut swarm)?;
        let mut figures = Figures { unit: "delivered", rss_before: before.rss, ..Figures::default() };
        span.end(&mut figures, run.deliveries - delivered)?;
        figures.set_latency(&run.latency);
        figures.found = run.drain(&mut swarm)?;
        Ok(figures)
    }

    fn filter(&self, receiver: usize) -> String {
        match self.route {
            Route::FanIn => format!("load/{receiver}/+"),
            Route::Pairs => format!("load/{receiver}/{receiver}"),
            Route::FanOut => "load/all".to_owned(),
            Route::Shared => "$share/group/load/+/+".to_owned(),
        }
    }

    fn publisher(&self, target: &Target, publisher: usize) -> Publisher {
        let topic = match self.route {
            Route::FanOut => "load/all".to_owned(),
            _ => format!("load/{}/{publisher}", publisher % self.receivers),
        };
        let mut payload = [b'x'; PAYLOAD];
        payload[..4].copy_from_slice(&(publisher as u32).to_be_bytes());
        let mut frame = Vec::new();
        let publish = wire::Publish {
            dup: false,
            qos: self.qos,
            retain: false,
            packet_id: 1,
            topic: topic.as_bytes(),
            payload: &payload,
        };
        wire::publish(&mut frame, target.level, &publish);
        let payload_at = frame.len() - PAYLOAD;
        let properties = usize::from(target.level == wire::Level::V5);
        let packet_id_at = (self.qos > 0).then(|| payload_at - properties - 2);
        Publisher { frame, packet_id_at, payload_at, sent: 0, acked: 0, delivered: 0, dirty: true }
    }

    /// How many receivers a message has.
    fn copies(&self) -> u64 {
        if self.route == Route::FanOut { self.receivers as u64 } else { 1 }
    }
}

struct Run {
    flow: Flow,
    first_publisher: usize,
    window: u64,
    publishers: Vec<Publisher>,
    /// Those whose window may have room.
    dirty: Vec<usize>,
    judge: Judge,
    latency: Histogram,
    epoch: Instant,
    deliveries: u64,
    closed: u64,
}

impl Run {
    fn for_a(&mut self, time: Duration, swarm: &mut Swarm) -> io::Result<()> {
        let start = Instant::now();
        let mut due = 0;
        let mut next = 0;
        loop {
            let elapsed = start.elapsed();
            if elapsed >= time {
                return Ok(());
            }
            match self.flow.rate {
                None => self.fill(swarm),
                Some(rate) => {
                    let upto = (elapsed.as_secs_f64() * rate as f64) as u64;
                    let now = self.now();
                    for _ in due..upto {
                        self.publish(next, now, swarm);
                        next = (next + 1) % self.publishers.len();
                    }
                    due = due.max(upto);
                    self.dirty.clear();
                }
            }
            let wait = self.flow.rate.map_or(Duration::from_millis(20), |_| Duration::from_millis(1));
            self.turn(wait, swarm)?;
        }
    }

    fn turn(&mut self, wait: Duration, swarm: &mut Swarm) -> io::Result<bool> {
        let came = swarm.turn(wait, |client, event, _| self.event(client, &event))?;
        if self.closed > 0 {
            return Err(io::Error::other(format!("the broker closed {} connections", self.closed)));
        }
        Ok(came)
    }

    fn event(&mut self, client: usize, event: &Event<'_>) {
        match event {
            Event::Packet(Incoming::Publish(publish)) => {
                let Some((publisher, number, at)) = head(publish.payload) else { return };
                let first = match &mut self.judge {
                    Judge::Each(tracker) => tracker.delivered(client, publisher, number),
                    Judge::Group(tracker) => tracker.delivered(client, publisher, number),
                };
                self.deliveries += 1;
                self.latency.record(self.now().saturating_sub(at));
                if first {
                    self.publishers[publisher].delivered += 1;
                    self.touch(publisher);
                }
            }
            Event::Packet(Incoming::Ack(AckKind::PubAck | AckKind::PubComp, ..)) => {
                let publisher = client - self.first_publisher;
                self.publishers[publisher].acked += 1;
                self.touch(publisher);
            }
            Event::Closed => self.closed += 1,
            Event::Packet(_) => {}
        }
    }

    fn touch(&mut self, publisher: usize) {
        if !self.publishers[publisher].dirty {
            self.publishers[publisher].dirty = true;
            self.dirty.push(publisher);
        }
    }

    fn fill(&mut self, swarm: &mut Swarm) {
        let now = self.now();
        for publisher in std::mem::take(&mut self.dirty) {
            self.publishers[publisher].dirty = false;
            for _ in self.outstanding(publisher)..self.window {
                self.publish(publisher, now, swarm);
            }
        }
    }

    fn outstanding(&self, publisher: usize) -> u64 {
        let state = &self.publishers[publisher];
        let delivered = state.delivered / self.flow.copies();
        state.sent - if self.flow.qos > 0 { delivered.min(state.acked) } else { delivered }
    }

    fn publish(&mut self, publisher: usize, now: u64, swarm: &mut Swarm) {
        let client = self.first_publisher + publisher;
        let state = &mut self.publishers[publisher];
        if let Some(at) = state.packet_id_at {
            state.frame[at..at + 2].copy_from_slice(&swarm.packet_id(client).to_be_bytes());
        }
        let at = state.payload_at;
        state.frame[at + 4..at + 12].copy_from_slice(&state.sent.to_be_bytes());
        state.frame[at + 12..at + 20].copy_from_slice(&now.to_be_bytes());
        state.sent += 1;
        swarm.out(client).extend_from_slice(&state.frame);
    }

    /// Waits until everything has arrived, or nothing more comes; then judges.
    fn drain(&mut self, swarm: &mut Swarm) -> io::Result<Found> {
        let start = Instant::now();
        let quiet = Duration::from_secs(3);
        let mut last = Instant::now();
        while (0..self.publishers.len()).any(|publisher| self.outstanding(publisher) > 0) {
            if self.turn(Duration::from_millis(50), swarm)? {
                last = Instant::now();
            }
            if last.elapsed() > quiet || start.elapsed() > DRAIN {
                break;
            }
        }
        // What comes too often comes late.
        while self.turn(Duration::from_millis(50), swarm)? {}
        let sent: Vec<u64> = self.publishers.iter().map(|publisher| publisher.sent).collect();
        let (fan_out, receivers) = (self.flow.route == Route::FanOut, self.flow.receivers);
        Ok(match &self.judge {
            Judge::Each(tracker) => {
                tracker.finish(&sent, |receiver, publisher| fan_out || publisher % receivers == receiver)
            }
            Judge::Group(tracker) => tracker.finish(&sent),
        })
    }

    fn now(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }
}

fn head(payload: &[u8]) -> Option<(usize, u64, u64)> {
    let (publisher, rest) = payload.split_first_chunk()?;
    let (number, rest) = rest.split_first_chunk()?;
    let at = rest.first_chunk()?;
    Some((u32::from_be_bytes(*publisher) as usize, u64::from_be_bytes(*number), u64::from_be_bytes(*at)))
}
