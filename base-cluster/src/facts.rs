use base_types::wire::{Reader, WireError, put_prefixed, put_varint};
use base_types::{Incarnation, NodeId, NodeIncarnation};
use bytes::{BufMut, Bytes};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the nodes told of themselves, as far as it has arrived here. Each node writes its own facts only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts(BTreeMap<NodeId, Arc<NodeFacts>>);

/// What one run of one node told of itself. A new run begins with nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFacts {
    run: NodeIncarnation,
    /// How many changes there were; all up to here are in `entries`.
    upto: u64,
    entries: BTreeMap<Arc<str>, Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    /// Which change of its node wrote it.
    change: u64,
    /// None: taken back.
    value: Option<Bytes>,
}

/// Why a fact is not told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FactError {
    /// The key is empty or longer than 128 bytes.
    #[error("a key of a fact has 1 to {KEY} bytes, not {0}")]
    Key(usize),
    /// The value is larger than 1 MiB.
    #[error("a fact has {VALUE} bytes at most, not {0}")]
    TooLarge(usize),
    /// The node has 1024 facts already.
    #[error("a node has {ENTRIES} facts at most")]
    TooMany,
}

const KEY: usize = 128;
const VALUE: usize = 1 << 20;
const ENTRIES: usize = 1024;
const OWNERS: usize = 4096;
/// A message ends after the entry that reaches this.
const CHUNK: usize = 1 << 20;

impl Facts {
    /// One fact of one node.
    #[must_use]
    pub fn get(&self, node: NodeId, key: &str) -> Option<&Bytes> {
        self.of(node)?.get(key)
    }

    /// The facts of a node. None until something of it has arrived, if only that it has told nothing.
    #[must_use]
    pub fn of(&self, node: NodeId) -> Option<&NodeFacts> {
        self.0.get(&node).map(|facts| &**facts)
    }

    /// The facts of all nodes, in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = &NodeFacts> {
        self.0.values().map(|facts| &**facts)
    }
}

impl NodeFacts {
    fn new(run: NodeIncarnation) -> Self {
        Self { run, upto: 0, entries: BTreeMap::new() }
    }

    /// Who told them.
    #[must_use]
    pub fn run(&self) -> NodeIncarnation {
        self.run
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Bytes> {
        self.entries.get(key)?.value.as_ref()
    }

    /// All of them, in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Bytes)> {
        self.entries.iter().filter_map(|(key, entry)| Some((&**key, entry.value.as_ref()?)))
    }
}

/// The facts that a node holds, and how they are exchanged.
///
/// A node numbers its changes. Whoever holds the facts of a node up to change `n` needs only the entries that were written later; as each key keeps
/// just its last entry, these bring him up to date whatever he missed.
pub(crate) struct FactBook {
    me: NodeIncarnation,
    facts: Facts,
    /// Runs that were forgotten, and are not taken back from those who have not forgotten them yet.
    forgotten: BTreeMap<NodeId, Incarnation>,
}

/// How far someone's knowledge of a node goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Have {
    pub(crate) run: NodeIncarnation,
    pub(crate) upto: u64,
}

/// What a node wrote after change `since`, up to change `upto`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Delta {
    run: NodeIncarnation,
    since: u64,
    upto: u64,
    entries: Vec<(Arc<str>, Entry)>,
}

impl FactBook {
    pub(crate) fn new(me: NodeIncarnation) -> Self {
        let facts = Facts([(me.node, Arc::new(NodeFacts::new(me)))].into());
        Self { me, facts, forgotten: BTreeMap::new() }
    }

    pub(crate) fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Writes or takes back (None) a fact of this node. False: it was so already.
    pub(crate) fn write(&mut self, key: &str, value: Option<Bytes>) -> Result<bool, FactError> {
        if !(1..=KEY).contains(&key.len()) {
            return Err(FactError::Key(key.len()));
        }
        if let Some(size) = value.as_ref().map(Bytes::len).filter(|size| *size > VALUE) {
            return Err(FactError::TooLarge(size));
        }
        let mine = self.facts.0.entry(self.me.node).or_insert_with(|| Arc::new(NodeFacts::new(self.me)));
        let before = mine.entries.get(key);
        if before.map_or(value.is_none(), |entry| entry.value == value) {
            return Ok(false);
        }
        if before.is_none() && mine.entries.len() >= ENTRIES {
            return Err(FactError::TooMany);
        }
        let mine = Arc::make_mut(mine);
        mine.upto += 1;
        mine.entries.insert(key.into(), Entry { change: mine.upto, value });
        Ok(true)
    }

    /// How far the knowledge of everything goes.
    pub(crate) fn digest(&self) -> Vec<Have> {
        self.facts.iter().map(NodeFacts::have).collect()
    }

    /// How far the knowledge of these goes.
    pub(crate) fn digest_of(&self, nodes: &[NodeId]) -> Vec<Have> {
        nodes.iter().filter_map(|node| self.facts.of(*node)).map(NodeFacts::have).collect()
    }

    /// What someone lacks who has `theirs`; not more than about [`CHUNK`] at once.
    pub(crate) fn lacking(&self, theirs: &[Have]) -> Vec<Delta> {
        let theirs: BTreeMap<_, _> = theirs.iter().map(|have| (have.run.node, have)).collect();
        let mut room = CHUNK;
        let mut deltas = Vec::new();
        for facts in self.facts.iter() {
            if room == 0 {
                break;
            }
            deltas.extend(facts.since(theirs.get(&facts.run.node).copied(), &mut room));
        }
        deltas
    }

    /// What of this node's own facts someone lacks who has them up to `upto`.
    pub(crate) fn own_since(&self, upto: Option<u64>) -> Vec<Delta> {
        let have = upto.map(|upto| Have { run: self.me, upto });
        let mine = self.facts.of(self.me.node);
        mine.and_then(|mine| mine.since(have.as_ref(), &mut { CHUNK })).into_iter().collect()
    }

    /// Takes over what others wrote. True: something is new.
    pub(crate) fn learn(&mut self, deltas: Vec<Delta>) -> bool {
        let mut news = false;
        for delta in deltas {
            news |= self.learn_one(delta);
        }
        news
    }

    fn learn_one(&mut self, delta: Delta) -> bool {
        let node = delta.run.node;
        if node == self.me.node || self.forgotten.get(&node).is_some_and(|run| *run >= delta.run.incarnation) {
            return false;
        }
        let before = self.facts.0.get(&node);
        let have = before.map(|facts| facts.have());
        let fits = match have {
            Some(have) if have.run.incarnation == delta.run.incarnation => {
                delta.since <= have.upto && have.upto < delta.upto
            }
            Some(have) => have.run.incarnation < delta.run.incarnation && delta.since == 0,
            None => delta.since == 0 && self.facts.0.len() < OWNERS,
        };
        if !fits {
            return false;
        }
        let same_run = before.filter(|facts| facts.run == delta.run).cloned();
        let mut facts = same_run.unwrap_or_else(|| Arc::new(NodeFacts::new(delta.run)));
        let after = Arc::make_mut(&mut facts);
        for (key, entry) in delta.entries {
            if after.entries.get(&key).is_none_or(|before| before.change < entry.change) {
                after.entries.insert(key, entry);
            }
        }
        after.upto = delta.upto;
        if after.entries.len() > ENTRIES {
            return false;
        }
        self.forgotten.remove(&node);
        self.facts.0.insert(node, facts);
        true
    }

    /// Forgets the facts of nodes for which `is_over` says so. True: there were some.
    pub(crate) fn forget(&mut self, mut is_over: impl FnMut(NodeIncarnation) -> bool) -> bool {
        let me = self.me.node;
        let over: Vec<_> =
            self.facts.iter().map(NodeFacts::run).filter(|run| run.node != me && is_over(*run)).collect();
        for run in &over {
            self.facts.0.remove(&run.node);
            if self.forgotten.len() < OWNERS {
                self.forgotten.insert(run.node, run.incarnation);
            }
        }
        !over.is_empty()
    }

    /// A run is there (again): what it tells is taken.
    pub(crate) fn remember(&mut self, run: NodeIncarnation) {
        self.forgotten.remove(&run.node);
    }
}

impl NodeFacts {
    fn have(&self) -> Have {
        Have { run: self.run, upto: self.upto }
    }

    fn since(&self, have: Option<&Have>, room: &mut usize) -> Option<Delta> {
        let since = match have {
            Some(have) if have.run.incarnation == self.run.incarnation && have.upto >= self.upto => return None,
            Some(have) if have.run.incarnation == self.run.incarnation => have.upto,
            Some(have) if have.run.incarnation > self.run.incarnation => return None,
            _ => 0,
        };
        let mut changes: Vec<_> = self.entries.iter().filter(|(_, entry)| entry.change > since).collect();
        changes.sort_unstable_by_key(|(_, entry)| entry.change);
        let mut delta = Delta { run: self.run, since, upto: self.upto, entries: Vec::new() };
        for (key, entry) in changes {
            if *room == 0 {
                delta.upto = delta.entries.last().map_or(since, |(_, last)| last.change);
                break;
            }
            *room = room.saturating_sub(key.len() + entry.value.as_ref().map_or(0, Bytes::len) + 32);
            delta.entries.push((Arc::clone(key), entry.clone()));
        }
        Some(delta)
    }
}

fn put_run(run: NodeIncarnation, out: &mut impl BufMut) {
    out.put_u64(run.node.0);
    put_varint(out, run.incarnation.0);
}

fn get_run(r: &mut Reader) -> Result<NodeIncarnation, WireError> {
    Ok(NodeIncarnation { node: NodeId(r.u64()?), incarnation: Incarnation(r.varint()?) })
}

/// Appends a list: its length, then each.
pub(crate) fn put_list<T, B: BufMut>(list: &[T], out: &mut B, put: impl Fn(&T, &mut B)) {
    put_varint(out, list.len() as u64);
    for item in list {
        put(item, out);
    }
}

/// Reads a list.
pub(crate) fn get_list<T>(
    r: &mut Reader,
    max: usize,
    get: impl Fn(&mut Reader) -> Result<T, WireError>,
) -> Result<Vec<T>, WireError> {
    let len = r.varint()?;
    if len > max as u64 {
        return Err(WireError::Invalid { what: "length of a list", value: len });
    }
    // Grows with what is really there.
    (0..len).map(|_| get(r)).collect()
}

impl Have {
    pub(crate) fn put(&self, out: &mut impl BufMut) {
        put_run(self.run, out);
        put_varint(out, self.upto);
    }

    pub(crate) fn get(r: &mut Reader) -> Result<Self, WireError> {
        Ok(Self { run: get_run(r)?, upto: r.varint()? })
    }

    pub(crate) fn get_list(r: &mut Reader) -> Result<Vec<Self>, WireError> {
        get_list(r, OWNERS, Self::get)
    }
}

impl Delta {
    /// Whose facts.
    pub(crate) fn node(&self) -> NodeId {
        self.run.node
    }

    pub(crate) fn put<B: BufMut>(&self, out: &mut B) {
        put_run(self.run, out);
        put_varint(out, self.since);
        put_varint(out, self.upto);
        put_list(&self.entries, out, |(key, entry), out: &mut B| {
            put_prefixed(out, key.as_bytes());
            put_varint(out, entry.change);
            out.put_u8(u8::from(entry.value.is_some()));
            if let Some(value) = &entry.value {
                put_prefixed(out, value);
            }
        });
    }

    pub(crate) fn get(r: &mut Reader) -> Result<Self, WireError> {
        let (run, since, upto) = (get_run(r)?, r.varint()?, r.varint()?);
        let entries = get_list(r, ENTRIES, |r| {
            let key = r.text("key of a fact")?;
            let change = r.varint()?;
            let value = match r.u8()? {
                0 => None,
                // Not a slice of the message: that would be kept as long as the smallest fact in it.
                _ => Some(Bytes::copy_from_slice(&r.prefixed()?)),
            };
            let size = value.as_ref().map_or(0, Bytes::len);
            if key.len() > KEY || size > VALUE {
                return Err(WireError::Invalid { what: "size of a fact", value: size as u64 });
            }
            Ok((Arc::from(&*key), Entry { change, value }))
        })?;
        Ok(Self { run, since, upto, entries })
    }

    pub(crate) fn get_list(r: &mut Reader) -> Result<Vec<Self>, WireError> {
        get_list(r, OWNERS, Self::get)
    }
}

#[cfg(test)]
mod facts_test;
