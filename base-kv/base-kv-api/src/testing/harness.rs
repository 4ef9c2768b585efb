use super::MemSpace;
use crate::{ApplyCx, Coproc, Overlay};
use base_types::WallMs;
use bytes::Bytes;

/// Proves a coprocessor deterministic: every command is applied by two replicas, and their replies and bytes are compared.
///
/// The second replica is made anew from its keys before every batch, so that an index that `reset` does not rebuild is found
/// too. [`CoprocHarness::check`] replays the whole history in other batches. Differences panic: this is for tests.
pub struct CoprocHarness<C> {
    make: Box<dyn Fn() -> C>,
    first: Replica<C>,
    second: Replica<C>,
    history: Vec<(WallMs, Vec<Bytes>)>,
}

struct Replica<C> {
    coproc: C,
    space: MemSpace,
}

impl<C: Coproc> Replica<C> {
    fn over(space: MemSpace, mut coproc: C) -> Self {
        if let Err(error) = coproc.reset(&space) {
            panic!("reset: {error}");
        }
        Self { coproc, space }
    }

    /// Applies entries as one batch: visible together, `applied` once.
    fn apply(&mut self, first_index: u64, entries: &[(WallMs, Vec<Bytes>)]) -> Vec<Bytes> {
        let mut overlay = Overlay::new(&self.space);
        let mut replies = Vec::new();
        for ((stamped, commands), index) in entries.iter().zip(first_index..) {
            for (command, position) in commands.iter().zip(0..) {
                let cx = ApplyCx { index, position, stamped: *stamped };
                match self.coproc.mutate(&cx, command, &mut overlay) {
                    Ok(reply) => replies.push(reply),
                    Err(error) => panic!("mutate at {index}.{position}: {error}"),
                }
            }
        }
        let writes = overlay.into_writes();
        self.space.write(&writes);
        self.coproc.applied();
        replies
    }
}

impl<C: Coproc> CoprocHarness<C> {
    /// `make` makes a replica's coprocessor; each gets its own shared parts (indexes, notifiers), or the comparison is void.
    #[must_use]
    pub fn new(make: impl Fn() -> C + 'static) -> Self {
        let fresh = |coproc| Replica::over(MemSpace::default(), coproc);
        Self { first: fresh(make()), second: fresh(make()), history: Vec::new(), make: Box::new(make) }
    }

    /// Applies one command as an entry of its own and answers its reply.
    pub fn apply(&mut self, stamped: WallMs, command: impl Into<Bytes>) -> Bytes {
        self.batch(stamped, vec![command.into()]).into_iter().next().unwrap_or_default()
    }

    /// Applies commands as one entry and answers their replies.
    pub fn batch(&mut self, stamped: WallMs, commands: Vec<Bytes>) -> Vec<Bytes> {
        let entry = [(stamped, commands)];
        let index = self.history.len() as u64 + 1;
        let space = std::mem::take(&mut self.second.space);
        self.second = Replica::over(space, (self.make)());
        let replies = self.first.apply(index, &entry);
        assert_eq!(replies, self.second.apply(index, &entry), "replies differ at entry {index}");
        self.same(&self.second.space, "a replica made anew from its keys");
        self.history.extend(entry);
        replies
    }

    /// Replays the history in batches of other sizes and compares the bytes.
    pub fn check(&self) {
        for size in [1, 3, usize::MAX] {
            let mut replica = Replica::over(MemSpace::default(), (self.make)());
            let mut index = 1;
            for entries in self.history.chunks(size) {
                replica.apply(index, entries);
                index += entries.len() as u64;
            }
            self.same(&replica.space, "a replay");
        }
    }

    /// The replica that was never restarted.
    #[must_use]
    pub fn coproc(&self) -> &C {
        &self.first.coproc
    }

    /// Its keys.
    #[must_use]
    pub fn space(&self) -> &MemSpace {
        &self.first.space
    }

    fn same(&self, other: &MemSpace, what: &str) {
        if let Some((mine, theirs)) = difference(&self.first.space, other) {
            panic!("{what} has other bytes: {mine:?} became {theirs:?}");
        }
    }
}

type Pair = Option<(Bytes, Bytes)>;

fn difference(a: &MemSpace, b: &MemSpace) -> Option<(Pair, Pair)> {
    let own = |pair: Option<(&Bytes, &Bytes)>| pair.map(|(k, v)| (k.clone(), v.clone()));
    let (mut a, mut b) = (a.pairs(), b.pairs());
    loop {
        match (a.next(), b.next()) {
            (None, None) => return None,
            (x, y) if x == y => {}
            (x, y) => return Some((own(x), own(y))),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{KvError, KvRead, KvSpace};

    /// Counts how often each key was named.
    #[derive(Default)]
    pub(crate) struct Counter {
        /// A planted fault: state that is not in the keys.
        forgetful: Option<u64>,
    }

    impl Coproc for Counter {
        fn mutate(&mut self, _: &ApplyCx, command: &Bytes, space: &mut dyn KvSpace) -> Result<Bytes, KvError> {
            let mut count = match space.get(command)? {
                Some(text) => String::from_utf8_lossy(&text).parse().unwrap_or(0),
                None => 0u64,
            } + 1;
            if let Some(hidden) = &mut self.forgetful {
                *hidden += 1;
                count = *hidden;
            }
            space.put(command, count.to_string().as_bytes());
            Ok(count.to_string().into())
        }

        fn reset(&mut self, _: &dyn KvRead) -> Result<(), KvError> {
            Ok(())
        }
    }

    #[test]
    fn a_deterministic_coproc_passes() {
        let mut harness = CoprocHarness::new(Counter::default);
        for n in 0..10u8 {
            harness.batch(WallMs(u64::from(n)), vec![vec![n % 3].into(), vec![n].into()]);
        }
        harness.check();
        assert_eq!(harness.space().len(), 10);
    }

    #[test]
    #[should_panic(expected = "replies differ at entry 2")]
    fn state_outside_the_keys_is_found() {
        let mut harness = CoprocHarness::new(|| Counter { forgetful: Some(0) });
        harness.apply(WallMs(0), &b"a"[..]);
        harness.apply(WallMs(0), &b"a"[..]);
    }
}
