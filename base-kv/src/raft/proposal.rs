use base_types::WallMs;
use base_types::wire::{Reader, WireError, put_prefixed};
use bytes::{BufMut, Bytes, BytesMut};
use std::fmt;

/// The payload of a log entry: many commands and one stamp, in the form in which they stand in the log.
///
/// Layout: `format(1) stamped(8) proposer(8) life(8) seq(8) count(4)`, then each command with its length in front. Commands are slices
/// of it. Format 1, of nodes that were alone, has no proposer.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Proposal(pub(crate) Bytes);

/// Whose entry it is: what makes it apply once, however often it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The disk of the node that proposed it.
    pub(crate) proposer: u64,
    /// Which life of the proposer: begins with the process, and again whenever the proposer gave something up.
    pub(crate) life: u64,
    /// Which entry of that life, from 1.
    pub(crate) seq: u64,
}

const FORMAT_ALONE: u8 = 1;
const FORMAT: u8 = 2;
const HEADER: usize = 37;

/// A proposal that is being gathered.
pub(crate) struct Gathering {
    bytes: BytesMut,
    count: u32,
}

impl Gathering {
    pub(crate) fn new(first: usize) -> Self {
        let mut bytes = BytesMut::with_capacity((HEADER + first + 10).max(512));
        bytes.put_bytes(FORMAT, HEADER);
        Self { bytes, count: 0 }
    }

    /// Appends a command and tells its position.
    pub(crate) fn push(&mut self, command: &[u8]) -> u32 {
        put_prefixed(&mut self.bytes, command);
        self.count += 1;
        self.count - 1
    }

    pub(crate) fn count(&self) -> usize {
        self.count as usize
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn finish(mut self, stamped: WallMs, origin: &Origin) -> Proposal {
        let mut header = &mut self.bytes[1..HEADER];
        for n in [stamped.0, origin.proposer, origin.life, origin.seq] {
            header.put_u64(n);
        }
        header.put_u32(self.count);
        Proposal(self.bytes.freeze())
    }
}

impl Proposal {
    fn u64_at(&self, at: usize) -> Result<u64, WireError> {
        let bytes = self.0.get(at..at + 8).and_then(|b| b.try_into().ok()).ok_or(WireError::Truncated)?;
        Ok(u64::from_be_bytes(bytes))
    }

    /// Where the count stands.
    fn count_at(&self) -> Result<usize, WireError> {
        match self.0.first() {
            Some(&FORMAT_ALONE) => Ok(9),
            Some(&FORMAT) => Ok(HEADER - 4),
            Some(&other) => Err(WireError::UnknownFormat(other)),
            None => Err(WireError::Truncated),
        }
    }

    /// The stamp of the leader.
    pub(crate) fn stamped(&self) -> Result<WallMs, WireError> {
        self.count_at()?;
        self.u64_at(1).map(WallMs)
    }

    /// Whose it is; nobody's in the format of nodes that were alone.
    pub(crate) fn origin(&self) -> Result<Option<Origin>, WireError> {
        if self.count_at()? == 9 {
            return Ok(None);
        }
        Ok(Some(Origin { proposer: self.u64_at(9)?, life: self.u64_at(17)?, seq: self.u64_at(25)? }))
    }

    /// The same with another stamp; copied only when somebody else holds it too.
    pub(crate) fn restamped(self, stamped: WallMs) -> Self {
        let mut bytes = BytesMut::from(self.0);
        if let Some(stamp) = bytes.get_mut(1..9) {
            stamp.copy_from_slice(&stamped.0.to_be_bytes());
        }
        Self(bytes.freeze())
    }

    /// The commands in their order.
    pub(crate) fn commands(&self) -> Result<Commands, WireError> {
        let at = self.count_at()?;
        let count = self.0.get(at..at + 4).and_then(|b| b.try_into().ok()).ok_or(WireError::Truncated)?;
        Ok(Commands { left: u32::from_be_bytes(count), reader: Reader::new(self.0.slice(at + 4..)) })
    }
}

pub(crate) struct Commands {
    left: u32,
    reader: Reader,
}

impl Iterator for Commands {
    type Item = Result<Bytes, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            if self.reader.is_empty() {
                return None;
            }
            return Some(
                std::mem::replace(&mut self.reader, Reader::new(Bytes::new())).finish().map(|()| Bytes::new()),
            );
        }
        self.left -= 1;
        let command = self.reader.prefixed();
        if command.is_err() {
            self.left = 0;
            self.reader = Reader::new(Bytes::new());
        }
        Some(command)
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_entry_of_a_node_that_was_alone_is_read() {
        let mut bytes = vec![FORMAT_ALONE];
        bytes.put_u64(9);
        bytes.put_u32(1);
        put_prefixed(&mut bytes, b"x");
        let proposal = Proposal(bytes.into());
        assert_eq!((proposal.stamped(), proposal.origin()), (Ok(WallMs(9)), Ok(None)));
        assert_eq!(proposal.commands().unwrap().collect::<Result<Vec<_>, _>>().unwrap(), ["x"]);
    }

    proptest! {
        #[test]
        fn commands_survive_a_proposal_as_slices_of_it(
            commands in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20), stamp in any::<u64>(),
        ) {
            let mut gathering = Gathering::new(0);
            for (command, n) in commands.iter().zip(0..) {
                prop_assert_eq!(gathering.push(command), n);
            }
            let origin = Origin { proposer: 1, life: 2, seq: stamp };
            let proposal = gathering.finish(WallMs(1), &origin).restamped(WallMs(stamp));
            prop_assert_eq!(proposal.stamped().unwrap(), WallMs(stamp));
            prop_assert_eq!(proposal.origin().unwrap(), Some(origin));
            let read: Result<Vec<Bytes>, _> = proposal.commands().unwrap().collect();
            prop_assert_eq!(&read.unwrap(), &commands);
            let cut = Proposal(proposal.0.slice(..proposal.0.len() - 1));
            prop_assert!(cut.commands().is_err() || cut.commands().unwrap().any(|c| c.is_err()));
        }
    }
}
