use crate::InboxConfig;
use crate::state::{Notice, State};
use crate::{adoption, command};
use base_kv_api::{ApplyCx, Coproc, KvError, KvRead, KvSpace, RangeId, Visit};
use bytes::Bytes;
use inbox_api::InboxListener;
use parking_lot::Mutex;
use std::sync::{Arc, OnceLock};
use tokio::sync::Notify;

/// The inboxes of a range: what is in the range. It and its [`InboxHandle`] look at one state: apply changes it, and the node reads it.
pub struct InboxCoproc {
    shared: Arc<Shared>,
}

/// What the node needs of a replica: its state, to read; and who is told what happens. Cheap to clone.
#[derive(Clone)]
pub struct InboxHandle {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    /// Held for one command, or one read in memory; never across a read of the disk by a fetch.
    pub(crate) state: Mutex<State>,
    pub(crate) listener: OnceLock<Arc<dyn InboxListener>>,
    /// There is something to do for the timer.
    pub(crate) wake: Notify,
}

impl InboxCoproc {
    /// An empty one; the range fills it from its keys.
    #[must_use]
    pub fn new(config: InboxConfig) -> (Self, InboxHandle) {
        let shared =
            Arc::new(Shared { state: Mutex::new(State::new(config)), listener: OnceLock::new(), wake: Notify::new() });
        (Self { shared: shared.clone() }, InboxHandle { shared })
    }
}

#[cfg(test)]
impl InboxCoproc {
    pub(crate) fn state(&self) -> parking_lot::MutexGuard<'_, State> {
        self.shared.state.lock()
    }
}

impl InboxHandle {
    /// Says who is told what happens on this node. The first one stays; what happens before it is not told, but wills that are due
    /// are told again.
    pub fn listen(&self, listener: Arc<dyn InboxListener>) {
        if self.shared.listener.set(listener).is_err() {
            tracing::warn!("the inboxes have a listener already");
        }
        self.shared.wake.notify_one();
    }
}

impl Shared {
    pub(crate) fn tell(&self, notices: Vec<Notice>) {
        let Some(listener) = self.listener.get() else { return };
        for notice in notices {
            match notice {
                Notice::Fenced(inbox, version) => listener.fenced(&inbox, version),
                Notice::Ended(inbox, incarnation, filters) => listener.ended(&inbox, incarnation, filters),
                Notice::WillDue(inbox, version, will) => listener.will_due(&inbox, version, will),
                Notice::Queued(inbox, version) => listener.queued(&inbox, version),
                Notice::Adopted => listener.adopted(),
            }
        }
    }
}

impl Coproc for InboxCoproc {
    fn mutate(&mut self, cx: &ApplyCx, command: &Bytes, space: &mut dyn KvSpace) -> Result<Bytes, KvError> {
        self.shared.state.lock().mutate(cx, command, space)
    }

    fn applied(&mut self) {
        let (notices, woken) = {
            let mut state = self.shared.state.lock();
            (state.take_notices(), state.take_woken())
        };
        if woken {
            self.shared.wake.notify_one();
        }
        self.shared.tell(notices);
    }

    fn reset(&mut self, keys: &dyn KvRead) -> Result<(), KvError> {
        let notices = {
            let mut state = self.shared.state.lock();
            state.reset(keys)?;
            state.take_notices()
        };
        self.shared.wake.notify_one();
        self.shared.tell(notices);
        Ok(())
    }

    fn on_leader(&mut self, leads: bool) {
        self.shared.state.lock().set_leads(leads);
        self.shared.wake.notify_one();
    }

    fn adopt(
        &self,
        from: RangeId,
        keys: &dyn KvRead,
        after: &[u8],
        each: &mut dyn FnMut(&[u8], Bytes) -> Visit,
    ) -> Result<(), KvError> {
        adoption::parts(keys, after, &mut |place, incarnation, part| {
            each(place, command::adopt(from.lineage, incarnation, &part))
        })
    }
}
