use base_types::WallMs;
use base_types::wire::{Reader, WireError, put_prefixed};
use bytes::{BufMut, Bytes, BytesMut};
use std::fmt;

/// The payload of a log entry: many commands and one stamp, in the form in which they stand in the log.
///
/// Layout: `format(1) stamped(8) count(4)`, then each command with its length in front. Commands are slices of it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Proposal(pub(crate) Bytes);

const FORMAT: u8 = 1;
const HEADER: usize = 13;

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

    pub(crate) fn finish(mut self, stamped: WallMs) -> Proposal {
        self.bytes[1..9].copy_from_slice(&stamped.0.to_be_bytes());
        self.bytes[9..13].copy_from_slice(&self.count.to_be_bytes());
        Proposal(self.bytes.freeze())
    }
}

impl Proposal {
    /// The stamp of the leader.
    pub(crate) fn stamped(&self) -> Result<WallMs, WireError> {
        match self.0.first() {
            Some(&FORMAT) => {}
            Some(&other) => return Err(WireError::UnknownFormat(other)),
            None => return Err(WireError::Truncated),
        }
        let stamp = self.0.get(1..9).and_then(|b| b.try_into().ok()).ok_or(WireError::Truncated)?;
        Ok(WallMs(u64::from_be_bytes(stamp)))
    }

    /// The commands in their order.
    pub(crate) fn commands(&self) -> Result<Commands, WireError> {
        self.stamped()?;
        let count = self.0.get(9..HEADER).and_then(|b| b.try_into().ok()).ok_or(WireError::Truncated)?;
        Ok(Commands { left: u32::from_be_bytes(count), reader: Reader::new(self.0.slice(HEADER..)) })
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

    proptest! {
        #[test]
        fn commands_survive_a_proposal_as_slices_of_it(
            commands in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20), stamp in any::<u64>(),
        ) {
            let mut gathering = Gathering::new(0);
            for (command, n) in commands.iter().zip(0..) {
                prop_assert_eq!(gathering.push(command), n);
            }
            let proposal = gathering.finish(WallMs(stamp));
            prop_assert_eq!(proposal.stamped().unwrap(), WallMs(stamp));
            let read: Result<Vec<Bytes>, _> = proposal.commands().unwrap().collect();
            prop_assert_eq!(&read.unwrap(), &commands);
            let cut = Proposal(proposal.0.slice(..proposal.0.len() - 1));
            prop_assert!(cut.commands().is_err() || cut.commands().unwrap().any(|c| c.is_err()));
        }
    }
}
