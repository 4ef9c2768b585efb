use super::subscriber::deliver;
use super::{Actor, Cast, Identity, Io, Phase, Wish, millis};
use crate::answer;
use crate::lab::checker::Event;
use crate::wire::{self, Incoming};
use std::cell::RefCell;
use std::rc::Rc;

/// One of two connections that fight for one client id, at different nodes.
pub(super) struct Fighter {
    side: usize,
    shared: Rc<RefCell<Shared>>,
}

struct Shared {
    run: u32,
    id: usize,
    sink: usize,
    cast: Cast,
    sides: [Side; 2],
    /// Who was accepted last: what the other one gets is not looked at any more.
    newest: usize,
    subscribed: bool,
    round: Round,
}

#[derive(Clone, Copy, Default)]
struct Side {
    online: bool,
    /// What became of it in this round is known.
    decided: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Round {
    /// Nobody comes before.
    Pause(u64),
    /// These come, since then.
    Fight(u64),
}

/// An older connection may live so long beside a newer one.
const BOUND: u64 = millis(2_000);
/// A fight may take so long: nodes hang, leaders are missing.
const PATIENCE: u64 = millis(10_000);

pub(super) fn pair(run: u32, id: usize, sink: usize, cast: Cast) -> [Fighter; 2] {
    let shared = Rc::new(RefCell::new(Shared {
        run,
        id,
        sink,
        cast,
        sides: [Side::default(); 2],
        newest: 0,
        subscribed: false,
        round: Round::Fight(0),
    }));
    [0, 1].map(|side| Fighter { side, shared: Rc::clone(&shared) })
}

impl Actor for Fighter {
    fn identity(&mut self) -> Identity {
        let shared = self.shared.borrow();
        Identity { client_id: format!("lab-{}-duel-{}", shared.run, shared.id), persistent: true, will: None }
    }

    fn connected(&mut self, session_present: bool, _: u16, io: &mut Io<'_>) {
        let shared = &mut *self.shared.borrow_mut();
        shared.sides[self.side] = Side { online: true, decided: true };
        shared.newest = self.side;
        io.see(Event::Connected { sink: shared.sink, session_present });
        if !shared.subscribed {
            let filter = format!("lab/{}/{}/#", shared.run, shared.id % shared.cast.publishers.max(1));
            wire::subscribe(io.out, io.level, 1, &[(filter, 2)]);
        }
    }

    fn packet(&mut self, incoming: &Incoming<'_>, io: &mut Io<'_>) {
        let shared = &mut *self.shared.borrow_mut();
        if matches!(incoming, Incoming::SubAck(..)) {
            shared.subscribed = true;
        }
        if shared.newest == self.side {
            answer(incoming, io.out);
            deliver(shared.run, shared.sink, shared.cast, incoming, io);
        }
    }

    fn disconnected(&mut self, io: &mut Io<'_>) {
        let shared = &mut *self.shared.borrow_mut();
        shared.sides[self.side].online = false;
        // It does not come back by itself: that would be another takeover.
        if shared.subscribed && io.phase < Phase::Drain {
            io.wish = Wish::Break;
        }
    }

    fn tick(&mut self, io: &mut Io<'_>) {
        let shared = &mut *self.shared.borrow_mut();
        let alive = shared.sides.iter().filter(|side| side.online).count();
        if io.phase == Phase::SetUp || io.phase == Phase::Drain {
            // One is enough.
            io.wish = match self.side {
                0 if !io.online => Wish::Come(io.node),
                1 => Wish::Break,
                _ => Wish::Nothing,
            };
            return;
        }
        match shared.round {
            Round::Pause(until) if io.at > until && io.phase == Phase::Play => {
                shared.round = Round::Fight(io.at);
                // Who is there is taken over; one time in three he goes just then, and both come.
                for side in &mut shared.sides {
                    side.decided = side.online;
                }
            }
            Round::Fight(since) => {
                let decided = shared.sides.iter().all(|side| side.decided);
                if !shared.sides[self.side].decided && !io.online {
                    io.wish = Wish::Come((shared.id + self.side + io.random.below(2) as usize) % io.nodes);
                }
                let over = decided && alive == 1 && io.at > since + millis(50);
                if over || io.at > since + if decided { BOUND } else { PATIENCE } {
                    // Whose node has just died has none.
                    if alive > 0 || io.calm {
                        io.see(Event::Owners { client: shared.id, alive });
                    }
                    let breaks = io.random.below(3) == 0;
                    shared.round = Round::Pause(io.at + millis(100 + io.random.below(200)));
                    if breaks && io.online {
                        io.wish = Wish::Break;
                    }
                }
            }
            Round::Pause(_) => {}
        }
    }

    fn is_done(&self, phase: Phase) -> bool {
        let shared = self.shared.borrow();
        match phase {
            Phase::SetUp | Phase::Drain => shared.subscribed && (self.side == 1 || shared.sides[0].online),
            Phase::Settle => matches!(shared.round, Round::Pause(_)),
            Phase::Play => true,
        }
    }
}
