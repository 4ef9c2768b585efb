use crate::command::{Command, Op, Reply};
use crate::index::{Change, RouteIndex, State};
use crate::schema::{self, KeyKind};
use base_kv_api::{ApplyCx, Coproc, KvError, KvRead, KvSpace, RangeId, Visit};
use base_types::wire::WireError;
use base_types::{NodeIncarnation, SubscriptionOptions};
use bytes::Bytes;
use dist_api::{Receiver, Route};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The routes as a state machine: one key for each, and an index that readers of this node share.
#[derive(Debug)]
pub struct DistCoproc {
    index: Arc<RouteIndex>,
    /// How many keys there are, changes that are not published yet included.
    count: usize,
    /// How many routes lead to each run of a node.
    runs: BTreeMap<NodeIncarnation, usize>,
    /// The index does not know it yet.
    runs_changed: bool,
    /// Somebody removed routes to this run of this node.
    lost: bool,
    /// What the index learns in `applied`.
    changes: Vec<Change>,
}

impl DistCoproc {
    /// The state machine of the replica on `own`, and the index that it keeps.
    #[must_use]
    pub fn new(own: NodeIncarnation) -> (Self, Arc<RouteIndex>) {
        let index = Arc::new(RouteIndex::new(own));
        let coproc = Self {
            index: Arc::clone(&index),
            count: 0,
            runs: BTreeMap::new(),
            runs_changed: false,
            lost: false,
            changes: Vec::new(),
        };
        (coproc, index)
    }
}

impl Coproc for DistCoproc {
    fn mutate(&mut self, _: &ApplyCx, command: &Bytes, space: &mut dyn KvSpace) -> Result<Bytes, KvError> {
        let Ok(Command { op, entries }) = Command::decode(command) else { return Ok(Reply::NotUnderstood.into()) };
        for entry in entries {
            let stored = match space.get(&entry.key)? {
                Some(value) => Some((decode(entry.key.clone(), value.clone())?, value)),
                None => None,
            };
            // An inbox that was made anew goes before its former life, and whoever has it now before its former owners, in whatever order
            // they come.
            if let Some((stored, _)) = &stored
                && stored.outranks(&entry.route)
            {
                continue;
            }
            match (op, stored) {
                (Op::Add, Some((_, value))) if value == entry.value => {}
                (Op::Add, Some((stored, _))) => {
                    space.put(&entry.key, &entry.value);
                    // Clients that come back subscribe again to what they have: another owner is nothing to readers.
                    if seen(&stored) != seen(&entry.route) {
                        self.changes.push(Change::Add(entry.route));
                    }
                }
                (Op::Add, None) => {
                    space.put(&entry.key, &entry.value);
                    self.count += 1;
                    self.count_in(&entry.route);
                    self.changes.push(Change::Add(entry.route));
                }
                (Op::Remove | Op::Forget, None) => {}
                (Op::Remove | Op::Forget, Some(_)) => {
                    space.delete(&entry.key);
                    self.count -= 1;
                    self.count_out(&entry.route);
                    self.lost |= op == Op::Forget && entry.route.receiver == Receiver::Node(self.index.own());
                    self.changes.push(Change::Remove(entry.route));
                }
            }
        }
        Ok(Reply::Done.into())
    }

    fn applied(&mut self) {
        let runs = std::mem::take(&mut self.runs_changed).then_some(&self.runs);
        self.index.publish(self.changes.drain(..), self.count, runs);
        if std::mem::take(&mut self.lost) {
            self.index.tell_lost();
        }
    }

    fn reset(&mut self, keys: &dyn KvRead) -> Result<(), KvError> {
        let mut state = State::default();
        let mut failed = None;
        self.changes.clear();
        self.runs.clear();
        self.count = 0;
        let all = KeyKind::Route.keys();
        keys.scan(&all.start..&all.end, &mut |key, value| match decode(
            Bytes::copy_from_slice(key),
            Bytes::copy_from_slice(value),
        ) {
            Ok(route) => {
                self.count += 1;
                self.count_in(&route);
                state.add(&route, self.index.own());
                Visit::More
            }
            Err(error) => {
                failed = Some(error);
                Visit::Enough
            }
        })?;
        match failed {
            Some(error) => Err(error),
            None => {
                self.index.replace(state, self.count, &self.runs);
                // Not at the start, when nobody listens: a snapshot came in place of changes that nobody saw here.
                self.lost = false;
                self.index.tell_lost();
                Ok(())
            }
        }
    }

    fn on_leader(&mut self, leads: bool) {
        self.index.set_leads(leads);
    }

    /// Routes to nodes. An inbox of another lineage gets a new life when it is adopted, so a route to its former one leads nowhere: those are
    /// made from the subscriptions of the adopted inboxes.
    fn adopt(
        &self,
        _: RangeId,
        keys: &dyn KvRead,
        after: &[u8],
        each: &mut dyn FnMut(&[u8], Bytes) -> Visit,
    ) -> Result<(), KvError> {
        let all = KeyKind::Route.keys();
        let start = if after.is_empty() { all.start.to_vec() } else { [after, &[0]].concat() };
        let mut failed = None;
        keys.scan(&start..&all.end, &mut |key, value| {
            let route = match decode(Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)) {
                Ok(route) => route,
                Err(error) => {
                    failed = Some(error);
                    return Visit::Enough;
                }
            };
            if matches!(route.receiver, Receiver::Inbox { .. }) {
                return Visit::More;
            }
            for (_, command) in Command::encode(Op::Add, &[route]) {
                if each(key, command) == Visit::Enough {
                    return Visit::Enough;
                }
            }
            Visit::More
        })?;
        failed.map_or(Ok(()), Err)
    }
}

impl DistCoproc {
    fn count_in(&mut self, route: &Route) {
        if let Receiver::Node(run) = route.receiver {
            self.runs_changed = true;
            *self.runs.entry(run).or_default() += 1;
        }
    }

    fn count_out(&mut self, route: &Route) {
        if let Receiver::Node(run) = route.receiver
            && let Some(routes) = self.runs.get_mut(&run)
        {
            *routes -= 1;
            self.runs_changed = true;
            if *routes == 0 {
                self.runs.remove(&run);
            }
        }
    }
}

/// What the index has of a route beside its key.
fn seen(route: &Route) -> Option<(u64, SubscriptionOptions)> {
    match route.receiver {
        Receiver::Node(_) => None,
        Receiver::Inbox { incarnation, options, .. } => Some((incarnation, options)),
    }
}

/// What stands in the range was written by us: if it can't be read, the replica must stop.
fn decode(key: Bytes, value: Bytes) -> Result<Route, KvError> {
    schema::decode(key, value)
        .map_err(|cause: WireError| KvError { doing: "read a stored route", cause: cause.to_string() })
}

#[cfg(test)]
#[path = "coproc_test.rs"]
mod coproc_test;
