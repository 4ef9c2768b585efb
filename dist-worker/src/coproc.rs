use crate::command::{Command, Op, Reply};
use crate::index::{Change, RouteIndex, State};
use crate::schema::{self, KeyKind};
use base_kv_api::{ApplyCx, Coproc, KvError, KvRead, KvSpace, Visit};
use base_types::NodeIncarnation;
use base_types::wire::WireError;
use bytes::Bytes;
use dist_api::{Receiver, Route};
use std::sync::Arc;

/// The routes as a state machine: one key for each, and an index that readers of this node share.
#[derive(Debug)]
pub struct DistCoproc {
    index: Arc<RouteIndex>,
    /// How many keys there are, changes that are not published yet included.
    count: usize,
    /// What the index learns in `applied`.
    changes: Vec<Change>,
}

impl DistCoproc {
    /// The state machine of the replica on `own`, and the index that it keeps.
    #[must_use]
    pub fn new(own: NodeIncarnation) -> (Self, Arc<RouteIndex>) {
        let index = Arc::new(RouteIndex::new(own));
        (Self { index: Arc::clone(&index), count: 0, changes: Vec::new() }, index)
    }
}

impl Coproc for DistCoproc {
    fn mutate(&mut self, _: &ApplyCx, command: &Bytes, space: &mut dyn KvSpace) -> Result<Bytes, KvError> {
        let Ok(Command { op, entries }) = Command::decode(command) else { return Ok(Reply::NotUnderstood.into()) };
        for entry in entries {
            let stored = space.get(&entry.key)?;
            // An inbox that was made anew goes before its former life, in whatever order they come.
            if let Some(stored) = &stored
                && incarnation(&decode(entry.key.clone(), stored.clone())?) > incarnation(&entry.route)
            {
                continue;
            }
            match (op, stored) {
                (Op::Add, Some(stored)) if stored == entry.value => {}
                (Op::Add, stored) => {
                    space.put(&entry.key, &entry.value);
                    self.count += usize::from(stored.is_none());
                    self.changes.push(Change::Add(entry.route));
                }
                (Op::Remove, None) => {}
                (Op::Remove, Some(_)) => {
                    space.delete(&entry.key);
                    self.count -= 1;
                    self.changes.push(Change::Remove(entry.route));
                }
            }
        }
        Ok(Reply::Done.into())
    }

    fn applied(&mut self) {
        self.index.publish(self.changes.drain(..), self.count);
    }

    fn reset(&mut self, keys: &dyn KvRead) -> Result<(), KvError> {
        let mut state = State::default();
        let mut failed = None;
        self.changes.clear();
        self.count = 0;
        let all = KeyKind::Route.keys();
        keys.scan(&all.start..&all.end, &mut |key, value| match decode(
            Bytes::copy_from_slice(key),
            Bytes::copy_from_slice(value),
        ) {
            Ok(route) => {
                self.count += 1;
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
                self.index.replace(state, self.count);
                Ok(())
            }
        }
    }
}

/// Runs of a node are part of the key, lives of an inbox are not.
fn incarnation(route: &Route) -> u64 {
    match route.receiver {
        Receiver::Node(_) => 0,
        Receiver::Inbox { incarnation, .. } => incarnation,
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
