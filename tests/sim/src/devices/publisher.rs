use super::{Device, attach, inbox, message};
use crate::chance::Chance;
use crate::node::Node;
use crate::world::{Phase, World};
use base_types::{PacketId, QoS};
use inbox_api::{Commit, InboxId, InboxService, InsertOutcome, Origin, SessionVersion};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;
use tokio::time::sleep;

/// A client that publishes its numbers, one after the other, each until it is acknowledged.
pub(crate) struct Publisher {
    world: Rc<World>,
    number: usize,
    inbox: InboxId,
    qos: QoS,
    topics: Vec<String>,
    chance: RefCell<Chance>,
    connection: Cell<u64>,
    /// The message that is being sent.
    next: Cell<u64>,
    /// QoS 2: PUBREC came for it, PUBCOMP did not.
    releasing: Cell<bool>,
}

/// In a cluster that is well nothing takes so long.
const LONG: Duration = Duration::from_secs(2);

impl Publisher {
    pub(crate) fn new(world: &Rc<World>, number: usize, qos: QoS, topics: Vec<String>) -> Option<Rc<Self>> {
        let name = format!("p{number}");
        Some(Rc::new(Self {
            world: Rc::clone(world),
            number,
            inbox: inbox(&name)?,
            qos,
            topics,
            chance: RefCell::new(Chance::new(world.seed, &format!("{name} itself"))),
            connection: Cell::new(0),
            next: Cell::new(1),
            releasing: Cell::new(false),
        }))
    }

    fn topic(&self) -> &str {
        let index = (self.next.get() as usize / 3) % self.topics.len().max(1);
        self.topics.get(index).map_or("t", String::as_str)
    }

    fn packet_id(&self) -> Option<PacketId> {
        PacketId::new((self.next.get() % 3 + 1) as u16)
    }

    /// One PUBLISH until PUBACK or PUBREC. `None`: the connection ends without it.
    async fn publish(&self, node: &Node, connection: u64, version: Option<SessionVersion>) -> Option<()> {
        let id = (self.number, self.next.get());
        let payload = format!("{}:{}", id.0, id.1);
        let message = message(self.topic(), payload.clone(), self.qos, false)?;
        let origin = match version {
            Some(version) => Origin::Inbound { inbox: self.inbox.clone(), version, packet_id: self.packet_id()? },
            None => Origin::None,
        };
        self.world.history.borrow_mut().sent(id, self.topic(), self.qos, self.world.now());
        let (started, was_well) = (self.world.now(), self.world.is_well());
        let outcome = node.publish(message, origin).await;
        let took = self.world.now() - started;
        if was_well && took > LONG {
            let ended = format!("p{payload} at n{}: {outcome:?}", node.index + 1);
            self.world.history.borrow_mut().slow.push((self.world.now(), took, ended));
        }
        let at = node.index + 1;
        match outcome {
            Ok(outcomes) if !outcomes.iter().any(|outcome| matches!(outcome, InsertOutcome::Dropped(_))) => {
                if self.connection.get() != connection {
                    return None;
                }
                self.world.trace(format_args!("p{payload} acked at n{at} {outcomes:?}"));
                self.world.history.borrow_mut().acked(id, self.world.now());
                Some(())
            }
            other => {
                self.world.trace(format_args!("p{payload} refused at n{at}: {other:?}"));
                None
            }
        }
    }

    async fn serve(&self, node: &Node, connection: u64) -> Option<()> {
        let version = if self.qos == QoS::ExactlyOnce {
            let attached = node.inbox.attach(attach(&self.inbox, node, None)).await.ok()?;
            if self.connection.get() != connection {
                return None;
            }
            Some(attached.version?)
        } else {
            None
        };
        let messages = self.chance.borrow_mut().within(3..60);
        for _ in 0..messages {
            if !self.is_busy(self.world.phase()) || self.connection.get() != connection {
                return None;
            }
            if !self.releasing.get() {
                self.publish(node, connection, version).await?;
                if self.qos == QoS::ExactlyOnce {
                    self.releasing.set(true);
                } else {
                    self.next.set(self.next.get() + 1);
                }
            }
            if let (Some(version), true) = (version, self.releasing.get()) {
                let released = Commit { released_inbound: vec![self.packet_id()?], ..Commit::default() };
                node.inbox.commit(&self.inbox, version, released).await.ok()?;
                if self.connection.get() != connection {
                    return None;
                }
                self.releasing.set(false);
                self.next.set(self.next.get() + 1);
            }
            let pause = self.chance.borrow_mut().within(0..60);
            sleep(Duration::from_millis(pause)).await;
        }
        Some(())
    }
}

impl Device for Publisher {
    fn name(&self) -> String {
        format!("p{}", self.number)
    }

    fn is_busy(&self, phase: Phase) -> bool {
        // What was begun is brought to its end: it must not stay open whether it was published.
        matches!(phase, Phase::Storm | Phase::Calm) || self.releasing.get()
    }

    fn connect(&self) -> u64 {
        self.connection.set(self.connection.get() + 1);
        self.connection.get()
    }

    async fn session(self: Rc<Self>, node: Rc<Node>, connection: u64) {
        let _ = self.serve(&node, connection).await;
    }
}
