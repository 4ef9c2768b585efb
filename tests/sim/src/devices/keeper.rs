use super::{Device, message};
use crate::chance::Chance;
use crate::history::{Retained, Shown};
use crate::node::Node;
use crate::world::{Phase, World};
use base_types::{QoS, TenantId, TopicFilter};
use retain_api::{RetainError, RetainService};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// The one writer of a retained topic: sets it to rising numbers, and clears it now and then. It looks at it too, as new subscribers do,
/// through any node.
pub(crate) struct Keeper {
    world: Rc<World>,
    topic: String,
    chance: RefCell<Chance>,
    connection: Cell<u64>,
    /// What is being written: its number, and whether it is set.
    next: Cell<(u64, bool)>,
    reads: bool,
    /// Something was sent and not answered.
    open: Cell<bool>,
}

impl Keeper {
    pub(crate) fn new(world: &Rc<World>, topic: &str, reads: bool) -> Rc<Self> {
        let part = format!("keeper of {topic} {reads} itself");
        let chance = RefCell::new(Chance::new(world.seed, &part));
        let (connection, next) = (Cell::new(0), Cell::new((1, true)));
        Rc::new(Self {
            world: Rc::clone(world),
            topic: topic.to_owned(),
            chance,
            connection,
            next,
            reads,
            open: Cell::new(false),
        })
    }

    async fn write(&self, node: &Node, connection: u64) -> Option<()> {
        let (number, set) = self.next.get();
        let payload = if set { number.to_string() } else { String::new() };
        let message = message(&self.topic, payload, QoS::AtLeastOnce, true)?;
        let sent_at = self.world.now();
        {
            let mut history = self.world.history.borrow_mut();
            let changes = history.retained.entry(self.topic.clone()).or_default();
            if changes.last().is_none_or(|last| last.number < number) {
                changes.push(Retained { number, set, sent_at, acked_at: None, abandoned: false });
            }
        }
        self.open.set(true);
        let outcome = node.retain.retain(&TenantId::default(), Arc::new(message)).await;
        let at = node.index + 1;
        self.world.trace(format_args!("{} := {number} ({set}) at n{at}: {outcome:?}", self.topic));
        if outcome == Err(RetainError::Unknown) {
            self.change(number, |change| change.abandoned = true);
        }
        if outcome.is_err() && self.connection.get() == connection {
            self.open.set(false);
        }
        if outcome.is_err() || self.connection.get() != connection {
            return None;
        }
        self.open.set(false);
        let acked_at = Some(self.world.now());
        self.change(number, |change| change.acked_at = acked_at);
        self.next.set((number + 1, !self.chance.borrow_mut().one_in(3)));
        Some(())
    }

    fn change(&self, number: u64, with: impl FnOnce(&mut Retained)) {
        let mut history = self.world.history.borrow_mut();
        let changes = history.retained.get_mut(&self.topic);
        if let Some(change) = changes.and_then(|all| all.iter_mut().find(|change| change.number == number)) {
            with(change);
        }
    }

    async fn read(&self, node: &Node, connection: u64) -> Option<()> {
        let started = self.world.now();
        node.retain.fresh().await.ok()?;
        let filter = TopicFilter::new(&*self.topic).ok()?;
        let found = node.retain.matches(&TenantId::default(), &filter, None, 10).ok()?;
        let text = found.first().map(|message| String::from_utf8_lossy(&message.payload).into_owned());
        let number = text.and_then(|text| text.parse().ok());
        if self.connection.get() != connection {
            return None;
        }
        self.world.trace(format_args!("{} is {number:?} at n{}", self.topic, node.index + 1));
        let (topic, ended) = (self.topic.clone(), self.world.now());
        self.world.history.borrow_mut().shown.push(Shown { topic, number, started, ended });
        Some(())
    }
}

impl Device for Keeper {
    fn name(&self) -> String {
        format!("{} of {}", if self.reads { "reader" } else { "keeper" }, self.topic)
    }

    fn is_busy(&self, phase: Phase) -> bool {
        matches!(phase, Phase::Storm | Phase::Calm) || self.reads && phase == Phase::Drain
    }

    fn connect(&self) -> u64 {
        if self.open.replace(false) {
            self.change(self.next.get().0, |change| change.abandoned = true);
        }
        self.connection.set(self.connection.get() + 1);
        self.connection.get()
    }

    async fn session(self: Rc<Self>, node: Rc<Node>, connection: u64) {
        let rounds = self.chance.borrow_mut().within(1..12);
        for _ in 0..rounds {
            if !self.is_busy(self.world.phase()) || self.connection.get() != connection {
                return;
            }
            let done =
                if self.reads { self.read(&node, connection).await } else { self.write(&node, connection).await };
            if done.is_none() {
                return;
            }
            let pause = self.chance.borrow_mut().within(0..250);
            sleep(Duration::from_millis(pause)).await;
        }
    }
}
