use super::{Actor, Identity, Io, Phase, Wish, millis};
use crate::answer;
use crate::lab::checker::Event;
use crate::wire::{self, Incoming};
use std::collections::HashMap;

/// Lives for a moment with a will, and dies, or leaves in order; then it is somebody else.
pub(super) struct Mortal {
    run: u32,
    will: usize,
    step: usize,
    alive: bool,
    /// When it ends, and whether in order.
    ends: (u64, bool),
    leaving: bool,
    reborn: u64,
}

impl Mortal {
    /// `step` mortals have numbers that are `step` apart.
    pub(super) fn new(run: u32, id: usize, step: usize) -> Self {
        Self { run, will: id, step, alive: false, ends: (0, false), leaving: false, reborn: 0 }
    }
}

impl Actor for Mortal {
    fn identity(&mut self) -> Identity {
        // A CONNECT without an answer may have left a will behind: its number is not used again.
        self.will += self.step;
        let will = (format!("will/{}", self.run), self.will.to_string());
        Identity { client_id: format!("lab-{}-mortal-{}", self.run, self.will), persistent: false, will: Some(will) }
    }

    fn connected(&mut self, _: bool, _: u16, io: &mut Io<'_>) {
        (self.alive, self.leaving) = (true, false);
        self.ends = (io.at + millis(1_000 + io.random.below(4_000)), io.random.below(2) == 0);
        io.see(Event::WillSet { will: self.will });
    }

    fn packet(&mut self, _: &Incoming<'_>, _: &mut Io<'_>) {}

    fn disconnected(&mut self, io: &mut Io<'_>) {
        self.alive = false;
        self.reborn = io.at + millis(100);
        let clean = match self.leaving {
            // A node that stops in order keeps wills to itself.
            false if io.leaving => None,
            false => Some(false),
            true if io.calm => Some(true),
            true => None,
        };
        io.see(Event::WillEnds { will: self.will, clean });
    }

    fn tick(&mut self, io: &mut Io<'_>) {
        if io.online && (io.phase > Phase::Play || io.at > self.ends.0) {
            // At the end all leave in order.
            self.leaving = self.ends.1 || io.phase > Phase::Play;
            io.wish = if self.leaving { Wish::Leave } else { Wish::Break };
        } else if !io.online && !self.alive && io.phase <= Phase::Play && io.at > self.reborn {
            self.reborn = u64::MAX;
            io.wish = Wish::Come(io.random.below(io.nodes as u64) as usize);
        } else if !io.online && !self.alive && io.phase > Phase::Play {
            io.wish = Wish::Break;
        }
    }

    fn is_done(&self, phase: Phase) -> bool {
        match phase {
            Phase::SetUp => self.alive,
            _ => !self.alive,
        }
    }
}

/// A persistent session that gets all wills.
pub(super) struct Watcher {
    run: u32,
    subscribed: bool,
    connection: u32,
    online: bool,
    seen: HashMap<usize, u32>,
}

impl Watcher {
    pub(super) fn new(run: u32) -> Self {
        Self { run, subscribed: false, connection: 0, online: false, seen: HashMap::new() }
    }
}

impl Actor for Watcher {
    fn identity(&mut self) -> Identity {
        Identity { client_id: format!("lab-{}-watcher", self.run), persistent: true, will: None }
    }

    fn connected(&mut self, _: bool, _: u16, io: &mut Io<'_>) {
        self.connection += 1;
        self.online = true;
        if !self.subscribed {
            wire::subscribe(io.out, io.level, 1, &[(format!("will/{}", self.run), 1)]);
        }
    }

    fn packet(&mut self, incoming: &Incoming<'_>, io: &mut Io<'_>) {
        answer(incoming, io.out);
        match incoming {
            Incoming::SubAck(..) => self.subscribed = true,
            Incoming::Publish(publish) => {
                let will = std::str::from_utf8(publish.payload).ok().and_then(|text| text.parse().ok());
                if let Some(will) = will {
                    let before = self.seen.insert(will, self.connection);
                    let repeated = before.is_some_and(|connection| publish.dup || connection != self.connection);
                    io.see(Event::WillSeen { will, repeated });
                }
            }
            _ => {}
        }
    }

    fn disconnected(&mut self, _io: &mut Io<'_>) {
        self.online = false;
    }

    fn tick(&mut self, _io: &mut Io<'_>) {}

    fn is_done(&self, phase: Phase) -> bool {
        match phase {
            Phase::SetUp | Phase::Drain => self.subscribed && self.online,
            _ => true,
        }
    }
}
