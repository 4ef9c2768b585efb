use base_types::PacketId;

/// Beyond this a list costs more than a bit for each id.
const LIST_MAX: usize = 64;
const WORDS: usize = 65_536 / 64;

/// A set of packet ids: a short list, or 8 KiB of bits; never more, whatever a client does (faults.md T22).
#[derive(Debug)]
pub(crate) enum IdSet {
    List(Vec<PacketId>),
    Bits(Box<[u64; WORDS]>),
}

impl Default for IdSet {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

fn bit(id: PacketId) -> (usize, u64) {
    (usize::from(id.get() / 64), 1 << (id.get() % 64))
}

impl IdSet {
    pub(crate) fn contains(&self, id: PacketId) -> bool {
        match self {
            Self::List(list) => list.contains(&id),
            Self::Bits(words) => {
                let (word, bit) = bit(id);
                words[word] & bit != 0
            }
        }
    }

    /// Adds an id that is not in it.
    pub(crate) fn insert(&mut self, id: PacketId) {
        if let Self::List(list) = self
            && list.len() == LIST_MAX
        {
            let mut words = Box::new([0; WORDS]);
            for id in list {
                let (word, bit) = bit(*id);
                words[word] |= bit;
            }
            *self = Self::Bits(words);
        }
        match self {
            Self::List(list) => list.push(id),
            Self::Bits(words) => {
                let (word, bit) = bit(id);
                words[word] |= bit;
            }
        }
    }

    /// Removes an id; tells whether it was there.
    pub(crate) fn remove(&mut self, id: PacketId) -> bool {
        match self {
            Self::List(list) => match list.iter().position(|other| *other == id) {
                Some(index) => {
                    list.swap_remove(index);
                    true
                }
                None => false,
            },
            Self::Bits(words) => {
                let (word, bit) = bit(id);
                let was = words[word] & bit != 0;
                words[word] &= !bit;
                was
            }
        }
    }
}

impl FromIterator<PacketId> for IdSet {
    fn from_iter<I: IntoIterator<Item = PacketId>>(ids: I) -> Self {
        let mut set = Self::default();
        for id in ids {
            if !set.contains(id) {
                set.insert(id);
            }
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU16;

    #[test]
    fn a_set_answers_the_same_as_a_list_and_as_bits() {
        let ids: Vec<_> = (1..=200u16).map(|n| NonZeroU16::new(n * 327).unwrap()).collect();
        let mut set = IdSet::default();
        for (n, id) in ids.iter().enumerate() {
            assert!(!set.contains(*id));
            set.insert(*id);
            assert!(ids[..=n].iter().all(|id| set.contains(*id)));
        }
        assert!(matches!(set, IdSet::Bits(_)));
        for id in &ids {
            assert!(set.remove(*id));
            assert!(!set.remove(*id));
            assert!(!set.contains(*id));
        }
    }
}
