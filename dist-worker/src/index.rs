mod routes;

use crate::clients::Clients;
use crate::index::routes::Routes;
use base_types::{NodeIncarnation, TenantId, TopicName};
use crossbeam_utils::sync::ShardedLock;
use dist_api::{DistListener, Matches, Receiver, Route};
use foldhash::fast::RandomState;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use topic_trie::TopicTrie;

/// The routes of a replica in memory: a trie of filters for each tenant.
///
/// Routes to live sessions of the node that it stands on are left out under normal filters, because the node knows its sessions
/// itself; members of shared groups are all here. Only apply changes it. Readers take a lock that is sharded by thread, and not even that
/// while there is nothing in it.
#[derive(Debug)]
pub struct RouteIndex {
    own: NodeIncarnation,
    state: ShardedLock<State>,
    /// Filters in `state`.
    filters: AtomicUsize,
    /// Routes in the range, those left out here included.
    routes: AtomicUsize,
    /// How many of them lead to each run of a node.
    runs: Mutex<BTreeMap<NodeIncarnation, usize>>,
    /// The replica leads.
    leads: AtomicBool,
    listener: Listener,
}

/// Who is told of routes that were lost, once there is somebody.
#[derive(Default)]
struct Listener(OnceLock<Arc<dyn DistListener>>);

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.get().is_some() { "Listener" } else { "nobody" })
    }
}

/// So many changes are made in one go before readers get their turn.
const CHANGES_AT_ONCE: usize = 256;

impl RouteIndex {
    pub(crate) fn new(own: NodeIncarnation) -> Self {
        Self {
            own,
            state: ShardedLock::default(),
            filters: AtomicUsize::new(0),
            routes: AtomicUsize::new(0),
            runs: Mutex::default(),
            leads: AtomicBool::new(false),
            listener: Listener::default(),
        }
    }

    /// The run of the node that the index stands on.
    pub(crate) fn own(&self) -> NodeIncarnation {
        self.own
    }

    /// Appends what `topic` is routed to.
    pub fn matches(&self, tenant: &TenantId, topic: &TopicName, into: &mut Matches) {
        if self.filters.load(Ordering::Acquire) == 0 {
            return;
        }
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(tenant) = state.tenants.get(tenant) {
            tenant.filters.for_each_match(topic.as_str(), |routes| routes.append_to(&tenant.clients, into));
        }
    }

    /// How many routes the range has.
    #[must_use]
    pub fn route_count(&self) -> usize {
        self.routes.load(Ordering::Relaxed)
    }

    /// The runs that routes lead to, and how many for each.
    pub(crate) fn runs(&self) -> Vec<(NodeIncarnation, usize)> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|(&run, &routes)| (run, routes)).collect()
    }

    pub(crate) fn leads(&self) -> bool {
        self.leads.load(Ordering::Acquire)
    }

    pub(crate) fn set_leads(&self, leads: bool) {
        self.leads.store(leads, Ordering::Release);
    }

    pub(crate) fn listen(&self, listener: Arc<dyn DistListener>) {
        if self.listener.0.set(listener).is_err() {
            tracing::warn!("the routes have a listener already");
        }
    }

    /// Routes to this run of this node are gone, or may be.
    pub(crate) fn tell_lost(&self) {
        if let Some(listener) = self.listener.0.get() {
            listener.own_routes_lost();
        }
    }

    /// Makes changes visible to readers; `runs` when they changed.
    pub(crate) fn publish(
        &self,
        changes: impl ExactSizeIterator<Item = Change>,
        routes: usize,
        runs: Option<&BTreeMap<NodeIncarnation, usize>>,
    ) {
        let mut changes = changes.peekable();
        while changes.peek().is_some() {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            for change in changes.by_ref().take(CHANGES_AT_ONCE) {
                match change {
                    Change::Add(route) => state.add(&route, self.own),
                    Change::Remove(route) => state.remove(&route, self.own),
                }
            }
            self.filters.store(state.filters, Ordering::Release);
        }
        self.set_counts(routes, runs);
    }

    fn set_counts(&self, routes: usize, runs: Option<&BTreeMap<NodeIncarnation, usize>>) {
        self.routes.store(routes, Ordering::Relaxed);
        if let Some(runs) = runs {
            self.runs.lock().unwrap_or_else(PoisonError::into_inner).clone_from(runs);
        }
    }

    /// Puts another state in place of the present one.
    pub(crate) fn replace(&self, new: State, routes: usize, runs: &BTreeMap<NodeIncarnation, usize>) {
        let old = {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            self.filters.store(new.filters, Ordering::Release);
            std::mem::replace(&mut *state, new)
        };
        // Freed when readers no longer wait.
        drop(old);
        self.set_counts(routes, Some(runs));
    }
}

/// One change of the routes, by value of what was committed.
#[derive(Debug)]
pub(crate) enum Change {
    Add(Route),
    Remove(Route),
}

/// What readers see.
#[derive(Debug, Default)]
pub(crate) struct State {
    tenants: HashMap<TenantId, Tenant, RandomState>,
    filters: usize,
}

#[derive(Debug, Default)]
struct Tenant {
    filters: TopicTrie<Routes>,
    clients: Clients,
}

impl State {
    /// Adds a route, or replaces its options and incarnation.
    pub(crate) fn add(&mut self, route: &Route, own: NodeIncarnation) {
        if is_left_out(route, own) {
            return;
        }
        let tenant = match self.tenants.get_mut(&route.tenant) {
            Some(tenant) => tenant,
            None => self.tenants.entry(route.tenant.detached()).or_default(),
        };
        let before = tenant.filters.len();
        let routes = tenant.filters.get_or_insert_with(route.filter.topic_filter(), Routes::default);
        routes.add(route, &mut tenant.clients);
        self.filters += tenant.filters.len() - before;
    }

    /// Removes a route if it is there.
    pub(crate) fn remove(&mut self, route: &Route, own: NodeIncarnation) {
        if is_left_out(route, own) {
            return;
        }
        let Some(tenant) = self.tenants.get_mut(&route.tenant) else { return };
        let filter = route.filter.topic_filter();
        let Some(routes) = tenant.filters.get_mut(filter) else { return };
        routes.remove(route, &mut tenant.clients);
        if routes.is_empty() {
            tenant.filters.remove(filter);
            self.filters -= 1;
        }
        if tenant.filters.is_empty() {
            self.tenants.remove(&route.tenant);
        }
    }
}

/// Whether a route is of no use to a reader on `own`: it leads to live sessions there that are known better, or to sessions that died with
/// an earlier run.
fn is_left_out(route: &Route, own: NodeIncarnation) -> bool {
    use base_types::MatchKind::{Normal, Shared};
    let Receiver::Node(run) = route.receiver else { return false };
    run.node == own.node
        && match route.filter.kind() {
            Normal => true,
            Shared => run != own,
        }
}

#[cfg(test)]
#[path = "index/index_test.rs"]
mod index_test;
