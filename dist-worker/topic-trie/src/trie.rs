use crate::level::{Level, LongLevels};
use base_types::TopicFilter;
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use std::hash::{BuildHasher, Hasher};

/// Filters and their values.
///
/// A filter is a path of nodes, one for each level; `#` is a slot of the node above it. Nodes are 36 bytes in one slab. The literal
/// children of all nodes stand in one hash table of node numbers, keyed by (parent, level), so a step down costs one probe however
/// many children there are. A filter such as `site/17/device-4242/x` costs about 100 bytes and its value.
#[derive(Clone, Debug)]
pub struct TopicTrie<V> {
    nodes: Vec<Node>,
    free_nodes: Vec<u32>,
    children: HashTable<u32>,
    values: Vec<Option<V>>,
    free_values: Vec<u32>,
    long: LongLevels,
    /// Seeded at random: filters come from strangers.
    hash: RandomState,
}

// Nodes and values are numbered with 32 bits: 2^32 nodes would take 154 GB.
#[derive(Clone, Debug)]
struct Node {
    level: Level,
    parent: u32,
    /// The child `+`, or NONE.
    plus: u32,
    /// The value of the filter that ends here, or NONE.
    value: u32,
    /// The value of the filter that goes on with `#` and ends, or NONE.
    multi: u32,
    /// How many literal children there are.
    literals: u32,
}

const NONE: u32 = u32::MAX;
const ROOT: u32 = 0;

impl Node {
    fn new(level: Level, parent: u32) -> Self {
        Self { level, parent, plus: NONE, value: NONE, multi: NONE, literals: 0 }
    }

    fn is_unused(&self) -> bool {
        self.literals == 0 && self.plus == NONE && self.value == NONE && self.multi == NONE
    }
}

impl<V> Default for TopicTrie<V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<V> TopicTrie<V> {
    /// An empty trie.
    #[must_use]
    pub fn new() -> Self {
        Self {
            nodes: vec![Node::new(Level::EMPTY, ROOT)],
            free_nodes: Vec::new(),
            children: HashTable::new(),
            values: Vec::new(),
            free_values: Vec::new(),
            long: LongLevels::default(),
            hash: RandomState::default(),
        }
    }

    /// How many filters there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.len() - self.free_values.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Calls `found` with the value of each filter that matches the topic name, once each, in no particular order
    /// (MQTT 5.0 §4.7; [MQTT-4.7.2-1] keeps leading wildcards from topics that begin with `$`).
    ///
    /// Allocates nothing and does not recurse: the way back leads over the parents. The cost is that of the nodes whose path
    /// matches a beginning of the topic.
    pub fn for_each_match<'a>(&'a self, topic: &str, mut found: impl FnMut(&'a V)) {
        let text = topic.as_bytes();
        let system = text.first() == Some(&b'$');
        let mut at = ROOT;
        // Where the level below `at` begins; past the end when there is none.
        let mut start = 0;
        // `+` children beside the path to `at` that have not been tried.
        let mut untried = 0usize;
        loop {
            let node = &self.nodes[at as usize];
            let wild = !(system && at == ROOT);
            if wild {
                found_at(&self.values, node.multi, &mut found);
            }
            if start > text.len() {
                found_at(&self.values, node.value, &mut found);
            } else {
                let end = end_of_level(text, start);
                let has_plus = wild && node.plus != NONE;
                if let Some(child) = self.child(at, node, &text[start..end]) {
                    untried += usize::from(has_plus);
                    (at, start) = (child, end + 1);
                    continue;
                }
                if has_plus {
                    (at, start) = (node.plus, end + 1);
                    continue;
                }
            }
            if untried == 0 {
                return;
            }
            // Back to the nearest node that was left for a literal child and has a `+` too.
            loop {
                let parent = self.nodes[at as usize].parent;
                let plus = self.nodes[parent as usize].plus;
                if plus != NONE && plus != at && !(system && parent == ROOT) {
                    untried -= 1;
                    at = plus;
                    break;
                }
                at = parent;
                start = start_of_level(text, start - 1);
            }
        }
    }

    /// The value of a filter.
    #[must_use]
    pub fn get(&self, filter: &TopicFilter) -> Option<&V> {
        let slot = self.slot(filter)?;
        self.values[slot as usize].as_ref()
    }

    /// The value of a filter, to be changed.
    pub fn get_mut(&mut self, filter: &TopicFilter) -> Option<&mut V> {
        let slot = self.slot(filter)?;
        self.values[slot as usize].as_mut()
    }

    /// The value of a filter, made if there is none.
    pub fn get_or_insert_with(&mut self, filter: &TopicFilter, make: impl FnOnce() -> V) -> &mut V {
        self.place(filter).get_or_insert_with(make)
    }

    /// Sets the value of a filter; gives back the one it had.
    pub fn insert(&mut self, filter: &TopicFilter, value: V) -> Option<V> {
        self.place(filter).replace(value)
    }

    /// Removes a filter; gives back the value it had.
    pub fn remove(&mut self, filter: &TopicFilter) -> Option<V> {
        let (path, multi) = split(filter);
        let mut at = self.find(path)?;
        let node = &mut self.nodes[at as usize];
        let slot = std::mem::replace(if multi { &mut node.multi } else { &mut node.value }, NONE);
        if slot == NONE {
            return None;
        }
        let value = self.values[slot as usize].take();
        self.free_values.push(slot);
        if self.is_empty() {
            // Nothing left: give the memory back.
            *self = Self { hash: self.hash.clone(), ..Self::new() };
            return value;
        }
        while at != ROOT && self.nodes[at as usize].is_unused() {
            at = self.prune(at);
        }
        value
    }

    /// All filters and their values, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (TopicFilter, &V)> {
        self.nodes.iter().enumerate().flat_map(move |(at, node)| {
            [(node.value, false), (node.multi, true)].into_iter().filter_map(move |(slot, multi)| {
                let value = self.values.get(slot as usize)?.as_ref()?;
                Some((TopicFilter::new(self.path(at as u32, multi)).ok()?, value))
            })
        })
    }

    /// Where the value of a filter stands, or shall stand.
    fn place(&mut self, filter: &TopicFilter) -> &mut Option<V> {
        let (path, multi) = split(filter);
        let mut at = ROOT;
        for level in path.into_iter().flat_map(|path| path.split('/')) {
            at = self.step(at, level);
        }
        let node = &mut self.nodes[at as usize];
        let slot = if multi { &mut node.multi } else { &mut node.value };
        if *slot == NONE {
            *slot = self.free_values.pop().unwrap_or_else(|| {
                self.values.push(None);
                (self.values.len() - 1) as u32
            });
        }
        &mut self.values[*slot as usize]
    }

    fn slot(&self, filter: &TopicFilter) -> Option<u32> {
        let (path, multi) = split(filter);
        let node = &self.nodes[self.find(path)? as usize];
        Some(if multi { node.multi } else { node.value }).filter(|&slot| slot != NONE)
    }

    fn find(&self, path: Option<&str>) -> Option<u32> {
        path.into_iter().flat_map(|path| path.split('/')).try_fold(ROOT, |at, level| {
            let node = &self.nodes[at as usize];
            if level == "+" {
                Some(node.plus).filter(|&plus| plus != NONE)
            } else {
                self.child(at, node, level.as_bytes())
            }
        })
    }

    /// The child of `at` for a level, made if there is none.
    fn step(&mut self, at: u32, level: &str) -> u32 {
        let node = &self.nodes[at as usize];
        if level == "+" {
            if node.plus == NONE {
                let plus = self.add_node(at, level);
                self.nodes[at as usize].plus = plus;
            }
            return self.nodes[at as usize].plus;
        }
        if let Some(child) = self.child(at, node, level.as_bytes()) {
            return child;
        }
        let child = self.add_node(at, level);
        self.nodes[at as usize].literals += 1;
        let hash = hash_of(&self.hash, at, level.as_bytes());
        self.children.insert_unique(hash, child, |&other| {
            let node = &self.nodes[other as usize];
            hash_of(&self.hash, node.parent, node.level.bytes(&self.long))
        });
        child
    }

    fn child(&self, parent: u32, node: &Node, level: &[u8]) -> Option<u32> {
        if node.literals == 0 {
            return None;
        }
        let hash = hash_of(&self.hash, parent, level);
        let is_it = |&child: &u32| {
            let child = &self.nodes[child as usize];
            child.parent == parent && child.level.bytes(&self.long) == level
        };
        self.children.find(hash, is_it).copied()
    }

    fn add_node(&mut self, parent: u32, level: &str) -> u32 {
        let node = Node::new(Level::new(level, &mut self.long), parent);
        if let Some(at) = self.free_nodes.pop() {
            self.nodes[at as usize] = node;
            return at;
        }
        self.nodes.push(node);
        (self.nodes.len() - 1) as u32
    }

    /// Removes a node without value and children; answers its parent.
    fn prune(&mut self, at: u32) -> u32 {
        let Node { level, parent, .. } = self.nodes[at as usize];
        if self.nodes[parent as usize].plus == at {
            self.nodes[parent as usize].plus = NONE;
        } else {
            self.nodes[parent as usize].literals -= 1;
            let hash = hash_of(&self.hash, parent, level.bytes(&self.long));
            if let Ok(entry) = self.children.find_entry(hash, |&child| child == at) {
                entry.remove();
            }
        }
        level.free(&mut self.long);
        self.nodes[at as usize] = Node::new(Level::EMPTY, ROOT);
        self.free_nodes.push(at);
        parent
    }

    /// The text of the filter that ends at a node.
    fn path(&self, mut at: u32, multi: bool) -> String {
        let mut levels = Vec::new();
        while at != ROOT {
            let node = &self.nodes[at as usize];
            levels.push(String::from_utf8_lossy(node.level.bytes(&self.long)));
            at = node.parent;
        }
        levels.reverse();
        if multi {
            levels.push("#".into());
        }
        levels.join("/")
    }
}

/// The levels of a filter before a `#`, if there are any, and whether there is a `#`.
fn split(filter: &TopicFilter) -> (Option<&str>, bool) {
    match filter.as_str() {
        "#" => (None, true),
        text => text.strip_suffix("/#").map_or((Some(text), false), |path| (Some(path), true)),
    }
}

fn found_at<'a, V>(values: &'a [Option<V>], slot: u32, found: &mut impl FnMut(&'a V)) {
    if slot != NONE
        && let Some(value) = &values[slot as usize]
    {
        found(value);
    }
}

fn hash_of(seed: &RandomState, parent: u32, level: &[u8]) -> u64 {
    let mut hasher = seed.build_hasher();
    hasher.write_u32(parent);
    hasher.write(level);
    hasher.finish()
}

fn end_of_level(text: &[u8], start: usize) -> usize {
    text[start..].iter().position(|&b| b == b'/').map_or(text.len(), |len| start + len)
}

fn start_of_level(text: &[u8], end: usize) -> usize {
    text[..end].iter().rposition(|&b| b == b'/').map_or(0, |slash| slash + 1)
}

#[cfg(test)]
#[path = "trie_test.rs"]
mod trie_test;
