use super::Origin;
use base_types::WallMs;
use base_types::wire::{Reader, WireError, put_varint};
use bytes::BufMut;
use std::collections::BTreeMap;

/// What each node proposed last: part of the replicated state, so that every replica decides alike what is applied.
///
/// A node sends what it has no answer for again, to whoever leads then. Applied is the entry that follows the last one of its life, once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Proposers(BTreeMap<u64, Last>);

/// The last entry of a proposer that was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Last {
    pub(crate) life: u64,
    pub(crate) seq: u64,
    stamped: WallMs,
}

/// What becomes of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is the next one.
    Apply,
    /// It was applied before.
    Duplicate,
    /// One before it is missing.
    Gap,
    /// Its proposer gave up that life.
    Superseded,
}

/// A proposer that was silent for so long is forgotten. It begins a new life after a much shorter silence.
const FORGOTTEN_AFTER_MS: u64 = 24 * 3600 * 1000;
const MOST: usize = 1024;

impl Proposers {
    /// Decides about an entry, and takes note of it when it is to be applied.
    pub(crate) fn admit(&mut self, origin: &Origin, stamped: WallMs) -> Verdict {
        let last = self.0.get(&origin.proposer);
        let follows = match last {
            Some(last) if origin.life < last.life => return Verdict::Superseded,
            Some(last) if origin.life == last.life => last.seq,
            _ => 0,
        };
        if origin.seq <= follows {
            return Verdict::Duplicate;
        }
        if origin.seq != follows + 1 {
            return Verdict::Gap;
        }
        if last.is_none() {
            self.forget(stamped);
        }
        self.0.insert(origin.proposer, Last { life: origin.life, seq: origin.seq, stamped });
        Verdict::Apply
    }

    /// Makes room before a proposer is added; by the stamps of entries, which are the same everywhere.
    fn forget(&mut self, now: WallMs) {
        self.0.retain(|_, last| now.since(last.stamped) < FORGOTTEN_AFTER_MS);
        if self.0.len() >= MOST
            && let Some((_, oldest)) = self.0.iter().map(|(id, last)| (last.stamped, *id)).min()
        {
            self.0.remove(&oldest);
        }
    }

    pub(crate) fn last(&self, proposer: u64) -> Option<Last> {
        self.0.get(&proposer).copied()
    }

    pub(super) fn encode_to(&self, out: &mut impl BufMut) {
        put_varint(out, self.0.len() as u64);
        for (proposer, last) in &self.0 {
            for n in [*proposer, last.life, last.seq, last.stamped.0] {
                out.put_u64(n);
            }
        }
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, WireError> {
        let mut all = BTreeMap::new();
        for _ in 0..r.varint()? {
            let proposer = r.u64()?;
            all.insert(proposer, Last { life: r.u64()?, seq: r.u64()?, stamped: WallMs(r.u64()?) });
        }
        Ok(Self(all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn origin(proposer: u64, life: u64, seq: u64) -> Origin {
        Origin { proposer, life, seq }
    }

    proptest! {
        /// However entries of lives are doubled, dropped and mixed: of each life a prefix is applied, once, in order, and none of an
        /// earlier life after one of a later.
        #[test]
        fn of_each_life_a_prefix_is_applied_once_and_never_after_a_later_life(
            entries in prop::collection::vec((1u64..4, 1u64..5), 0..60),
        ) {
            let mut proposers = Proposers::default();
            let mut applied = Vec::new();
            for (life, seq) in entries {
                if proposers.admit(&origin(7, life, seq), WallMs(1)) == Verdict::Apply {
                    applied.push((life, seq));
                }
            }
            let mut before = (0, 0);
            for (life, seq) in applied {
                prop_assert_eq!((life > before.0, seq), if life > before.0 { (true, 1) } else { (false, before.1 + 1) });
                prop_assert!(life >= before.0);
                before = (life, seq);
            }
            let mut bytes = Vec::new();
            proposers.encode_to(&mut bytes);
            prop_assert_eq!(Proposers::decode(&mut Reader::new(bytes.into())).unwrap(), proposers);
        }
    }

    #[test]
    fn who_was_silent_for_a_day_is_forgotten_and_cannot_go_on_in_the_middle() {
        let mut proposers = Proposers::default();
        assert_eq!(proposers.admit(&origin(1, 1, 1), WallMs(0)), Verdict::Apply);
        assert_eq!(proposers.admit(&origin(2, 1, 1), WallMs(FORGOTTEN_AFTER_MS)), Verdict::Apply);
        assert_eq!(proposers.last(1), None);
        assert_eq!(proposers.admit(&origin(1, 1, 2), WallMs(FORGOTTEN_AFTER_MS)), Verdict::Gap);
        assert_eq!(proposers.admit(&origin(1, 2, 1), WallMs(FORGOTTEN_AFTER_MS)), Verdict::Apply);
    }
}
