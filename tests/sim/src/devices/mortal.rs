use super::{Device, attach, inbox, message};
use crate::chance::Chance;
use crate::history::{Attached, Committed, Will};
use crate::node::Node;
use crate::world::{Phase, World};
use base_types::QoS;
use inbox_api::{Commit, Detach, InboxId, InboxService, PendingWill, WillFate};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// Where wills go.
pub(crate) const WILLS: &str = "wills";
/// The publisher number of the first client with wills.
pub(crate) const FIRST: usize = 100;

/// A client with a will, a new one for each connection, that often ends without a word. Several connections may fight for its id.
pub(crate) struct Mortal {
    world: Rc<World>,
    number: usize,
    /// Which of those who use the same client id.
    hand: usize,
    inbox: InboxId,
    chance: RefCell<Chance>,
    connection: Cell<u64>,
    wills: Cell<u64>,
}

impl Mortal {
    pub(crate) fn new(world: &Rc<World>, number: usize, hand: usize) -> Option<Rc<Self>> {
        let name = format!("m{number}");
        Some(Rc::new(Self {
            world: Rc::clone(world),
            number,
            hand,
            inbox: inbox(&name)?,
            chance: RefCell::new(Chance::new(world.seed, &format!("{name} hand {hand} itself"))),
            connection: Cell::new(0),
            wills: Cell::new(hand as u64 * 100_000),
        }))
    }

    async fn serve(&self, node: &Node, connection: u64) -> Option<()> {
        let number = self.wills.get() + 1;
        self.wills.set(number);
        let text = format!("{}:{number}", FIRST + self.number);
        let will = PendingWill {
            message: Arc::new(message(WILLS, text, QoS::AtLeastOnce, false)?),
            delay_secs: 0,
            expiry_secs: None,
            owner: "".into(),
        };
        let started = self.world.now();
        // What becomes of the will of an attach that nobody answered is not known.
        let attached = node.inbox.attach(attach(&self.inbox, node, Some(will))).await.ok()?;
        let version = attached.version?;
        let (client, ended) = (format!("m{}", self.number), self.world.now());
        {
            let mut history = self.world.history.borrow_mut();
            let present = attached.session_present;
            history.attaches.push(Attached { client: client.clone(), version, started, ended, present });
            history.wills.push(Will {
                client: client.clone(),
                number,
                version,
                set_at: started,
                due: true,
                discarded: false,
            });
        }
        let at = node.index + 1;
        self.world.trace(format_args!("{client} attached at n{at} as {version:?} with will {number}"));
        let signal = node.ears.listen(&self.inbox);
        let rounds = self.chance.borrow_mut().within(1..20);
        for _ in 0..rounds {
            let started = self.world.now();
            let mark = Commit { sent_upto: Some(1), ..Commit::default() };
            if node.inbox.commit(&self.inbox, version, mark).await.is_err() || signal.is_fenced(version) {
                return None;
            }
            self.world.history.borrow_mut().commits.push(Committed { client: client.clone(), version, started });
            let pause = self.chance.borrow_mut().within(0..200);
            sleep(Duration::from_millis(pause)).await;
        }
        let fate = if self.chance.borrow_mut().one_in(3) { WillFate::Discard } else { WillFate::Publish };
        if fate == WillFate::Discard {
            self.will(number, |will| will.due = false);
        }
        if self.connection.get() != connection && fate == WillFate::Discard {
            return None;
        }
        let detach = Detach { inbox: self.inbox.clone(), version, expiry_secs: None, will: fate };
        let outcome = node.inbox.detach(detach).await;
        self.world.trace(format_args!("{client} detached {version:?} with {fate:?}: {outcome:?}"));
        // A node that was taken for dead meanwhile was too late with it.
        if outcome.is_ok() && fate == WillFate::Discard && !signal.is_fenced(version) {
            self.will(number, |will| will.discarded = true);
        }
        Some(())
    }

    fn will(&self, number: u64, with: impl FnOnce(&mut Will)) {
        let client = format!("m{}", self.number);
        let mut history = self.world.history.borrow_mut();
        let will = history.wills.iter_mut().find(|will| will.client == client && will.number == number);
        if let Some(will) = will {
            with(will);
        }
    }
}

impl Device for Mortal {
    fn name(&self) -> String {
        format!("m{} hand {}", self.number, self.hand)
    }

    fn is_busy(&self, phase: Phase) -> bool {
        matches!(phase, Phase::Storm | Phase::Calm)
    }

    fn connect(&self) -> u64 {
        self.connection.set(self.connection.get() + 1);
        self.connection.get()
    }

    async fn session(self: Rc<Self>, node: Rc<Node>, connection: u64) {
        let _ = self.serve(&node, connection).await;
    }
}
