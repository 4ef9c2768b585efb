use super::{Actor, Cast, Identity, Io, Phase, Wish, message_of, millis};
use crate::answer;
use crate::lab::checker::{Delivery, Event};
use crate::wire::{self, AckKind, Incoming};

/// Subscribed to one filter at QoS 2.
pub(super) struct Subscriber {
    run: u32,
    sink: usize,
    cast: Cast,
    habit: Habit,
    filter: String,
    subscribed: bool,
    online: bool,
    /// When it moves next.
    moves: u64,
    /// It came back then, and waits for its first message.
    came: Option<u64>,
}

/// Where it is while messages are published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Habit {
    Stay,
    /// To another node every second or two.
    Move,
    /// Away until the end.
    Away,
    /// Away for a second after it lost its node, then at another one.
    Return,
    /// Online, with a session that ends with its connection.
    Live,
}

impl Subscriber {
    pub(super) fn new(run: u32, sink: usize, cast: Cast, habit: Habit, filter: String) -> Self {
        Self { run, sink, cast, habit, filter, subscribed: false, online: false, moves: 0, came: None }
    }
}

impl Actor for Subscriber {
    fn identity(&mut self) -> Identity {
        let client_id = format!("lab-{}-{:?}-{}", self.run, self.habit, self.sink).to_lowercase();
        Identity { client_id, persistent: self.habit != Habit::Live, will: None }
    }

    fn connected(&mut self, session_present: bool, _: u16, io: &mut Io<'_>) {
        self.online = true;
        io.see(Event::Connected { sink: self.sink, session_present });
        if !self.subscribed || self.habit == Habit::Live {
            wire::subscribe(io.out, io.level, 1, &[(&self.filter, 2)]);
        }
        self.moves = io.at + millis(800 + io.random.below(1_500));
        self.came = (self.habit == Habit::Return && self.subscribed).then_some(io.at);
    }

    fn packet(&mut self, incoming: &Incoming<'_>, io: &mut Io<'_>) {
        answer(incoming, io.out);
        deliver(self.run, self.sink, self.cast, incoming, io);
        match incoming {
            Incoming::Publish(_) => {
                let waited = self.came.take().map(|came| io.at - came);
                io.first_messages.extend(waited);
            }
            Incoming::SubAck(_, [..0x80]) => self.subscribed = true,
            Incoming::SubAck(_, codes) => io.checker.stuck(format!("sink {} is refused: {codes:?}", self.sink)),
            _ => {}
        }
    }

    fn disconnected(&mut self, io: &mut Io<'_>) {
        self.online = false;
        if self.habit == Habit::Return {
            self.moves = io.at + millis(1_000);
            io.wish = Wish::Break;
        }
    }

    fn tick(&mut self, io: &mut Io<'_>) {
        let away = self.habit == Habit::Away && self.subscribed && io.phase < Phase::Drain;
        if away && io.online {
            io.wish = Wish::Leave;
        } else if !away && !io.online && self.habit == Habit::Away {
            io.wish = Wish::Come(io.node);
        } else if self.habit == Habit::Return && !io.online && io.at > self.moves {
            self.moves = u64::MAX;
            io.wish = Wish::Come(io.node);
        } else if self.habit == Habit::Move && io.online && io.phase == Phase::Play && io.at > self.moves {
            self.moves = u64::MAX;
            io.wish = Wish::Hop;
        }
    }

    fn is_done(&self, phase: Phase) -> bool {
        match phase {
            Phase::SetUp if self.habit == Habit::Away => self.subscribed && !self.online,
            Phase::SetUp => self.subscribed && self.online,
            Phase::Play | Phase::Settle => true,
            Phase::Drain => self.online,
        }
    }
}

/// Tells the checker of a message or a release.
pub(super) fn deliver(run: u32, sink: usize, cast: Cast, incoming: &Incoming<'_>, io: &mut Io<'_>) {
    match incoming {
        Incoming::Publish(publish) => {
            let message = message_of(run, cast.topics, cast.payload, publish.topic, publish.payload);
            let &wire::Publish { qos, dup, packet_id, .. } = publish;
            io.see(match message {
                Some(message) => Event::Delivered(Delivery { sink, message, qos, dup, packet_id }),
                None => Event::Foreign { sink, what: String::from_utf8_lossy(publish.topic).into_owned() },
            });
        }
        Incoming::Ack(AckKind::PubRel, packet_id, _) => io.see(Event::Released { sink, packet_id: *packet_id }),
        _ => {}
    }
}
