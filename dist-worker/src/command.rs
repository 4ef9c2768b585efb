use crate::schema;
use base_types::wire::{Reader, WireError, put_prefixed};
use bytes::Bytes;
use dist_api::Route;

/// What is proposed to the range: `format(1) op(1) [key value]…`, keys and values as they are stored, each length-prefixed.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) op: Op,
    pub(crate) entries: Vec<Entry>,
}

/// What to do with the routes of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Op {
    Add = 1,
    Remove = 2,
    /// As `Remove`, of routes to runs that somebody else took for dead: a run that lives after all adds them again.
    Forget = 3,
}

/// A route and its bytes. When these are from before ownerships stood in routes, the change is everybody's: it counts as it did then.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: Bytes,
    pub(crate) value: Bytes,
    pub(crate) route: Route,
}

const FORMAT: u8 = 1;
/// A command stops growing here.
const SIZE_SOFT_MAX: usize = 64 << 10;

impl Command {
    /// Writes routes into as few commands as stay small, each with the key that it is sent to.
    pub(crate) fn encode(op: Op, routes: &[Route]) -> Vec<(Vec<u8>, Bytes)> {
        let mut commands = Vec::new();
        let mut first = Vec::new();
        let mut command = vec![FORMAT, op as u8];
        let (mut key, mut value) = (Vec::new(), Vec::new());
        for route in routes {
            key.clear();
            value.clear();
            schema::encode_key(route, &mut key);
            schema::encode_value(route, &mut value);
            if first.is_empty() {
                first.clone_from(&key);
            }
            put_prefixed(&mut command, &key);
            put_prefixed(&mut command, &value);
            if command.len() >= SIZE_SOFT_MAX {
                let full = std::mem::replace(&mut command, vec![FORMAT, op as u8]);
                commands.push((std::mem::take(&mut first), full.into()));
            }
        }
        if !first.is_empty() {
            commands.push((first, command.into()));
        }
        commands
    }

    pub(crate) fn decode(bytes: &Bytes) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes.clone());
        match r.u8()? {
            FORMAT => {}
            other => return Err(WireError::UnknownFormat(other)),
        }
        let op = match r.u8()? {
            1 => Op::Add,
            2 => Op::Remove,
            3 => Op::Forget,
            other => return Err(WireError::Invalid { what: "a command", value: u64::from(other) }),
        };
        let mut entries = Vec::new();
        while !r.is_empty() {
            let (key, value) = (r.prefixed()?, r.prefixed()?);
            let mut route = schema::decode(key.clone(), value.clone())?;
            if !schema::is_owned(&value) {
                route = route.of_any_owner();
            }
            entries.push(Entry { key, value, route });
        }
        Ok(Self { op, entries })
    }
}

/// The answer to a command, one byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Reply {
    Done = 0,
    /// The command makes no sense to the replicas; nothing was changed.
    NotUnderstood = 1,
}

impl From<Reply> for Bytes {
    fn from(reply: Reply) -> Self {
        Self::from_static(match reply {
            Reply::Done => &[Reply::Done as u8],
            Reply::NotUnderstood => &[Reply::NotUnderstood as u8],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::routes;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn commands_carry_all_routes_in_order(all in prop::collection::vec(routes(), 0..30)) {
            let mut carried = Vec::new();
            for (_, bytes) in Command::encode(Op::Remove, &all) {
                let command = Command::decode(&bytes).unwrap();
                prop_assert_eq!(command.op, Op::Remove);
                carried.extend(command.entries.into_iter().map(|entry| entry.route));
            }
            prop_assert_eq!(carried, all);
        }
    }

    #[test]
    fn many_routes_are_cut_into_small_commands() {
        let route = crate::testing::inbox_route("t", &"l".repeat(1000), "c", 1);
        let commands = Command::encode(Op::Add, &vec![route; 1000]);
        assert!(commands.len() > 10);
        assert!(commands.iter().all(|(key, bytes)| !key.is_empty() && bytes.len() < SIZE_SOFT_MAX + 2000));
    }
}
