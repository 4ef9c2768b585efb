use base_types::SubscriptionFilter;
use inbox_api::{InboxId, InboxListener, PendingWill, SessionVersion};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Notify, mpsc};

pub(crate) type Wills = mpsc::UnboundedReceiver<(InboxId, SessionVersion, PendingWill)>;
pub(crate) type EndedOnes = mpsc::UnboundedReceiver<Ended>;
type Ended = (InboxId, u64, Vec<SubscriptionFilter>);

/// Hears what the inboxes of a node tell, for the sessions on it. The channels are as long as the run is short.
pub(crate) struct Ears {
    sessions: Mutex<BTreeMap<InboxId, Arc<Signal>>>,
    wills: mpsc::UnboundedSender<(InboxId, SessionVersion, PendingWill)>,
    ended: mpsc::UnboundedSender<Ended>,
}

/// What a session hears.
#[derive(Default)]
pub(crate) struct Signal {
    pub(crate) queued: Notify,
    fenced: Mutex<Option<SessionVersion>>,
}

impl Signal {
    /// Whether this ownership ended.
    pub(crate) fn is_fenced(&self, version: SessionVersion) -> bool {
        self.fenced.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|fenced| fenced >= version)
    }
}

impl Ears {
    pub(crate) fn new() -> (Arc<Self>, Wills, EndedOnes) {
        let (wills, due) = mpsc::unbounded_channel();
        let (ended, gone) = mpsc::unbounded_channel();
        (Arc::new(Self { sessions: Mutex::default(), wills, ended }), due, gone)
    }

    /// What the session of a client hears from now on.
    pub(crate) fn listen(&self, inbox: &InboxId) -> Arc<Signal> {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(sessions.entry(inbox.clone()).or_default())
    }
}

impl InboxListener for Ears {
    fn queued(&self, inbox: &InboxId, _: SessionVersion) {
        self.listen(inbox).queued.notify_one();
    }

    fn will_due(&self, inbox: &InboxId, version: SessionVersion, will: PendingWill) {
        let _ = self.wills.send((inbox.clone(), version, will));
    }

    fn ended(&self, inbox: &InboxId, incarnation: u64, subscriptions: Vec<SubscriptionFilter>) {
        let _ = self.ended.send((inbox.clone(), incarnation, subscriptions));
    }

    fn fenced(&self, inbox: &InboxId, version: SessionVersion) {
        let signal = self.listen(inbox);
        let mut fenced = signal.fenced.lock().unwrap_or_else(PoisonError::into_inner);
        *fenced = (*fenced).max(Some(version));
        signal.queued.notify_one();
    }
}
