use crate::config::PROTOCOL_VERSION;
use crate::mesh::Lane;
use crate::refusal::Refusal;
use base_types::{Incarnation, NodeId, NodeIncarnation};
use bytes::{Buf, BufMut};

const MAGIC: [u8; 4] = *b"HRMD";

/// How a side wants things proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Plain = 0,
    Secret = 1,
    Tls = 2,
}

impl Mode {
    fn name(byte: u8) -> &'static str {
        match byte {
            0 => "plain",
            1 => "a secret",
            2 => "TLS",
            _ => "an unknown one",
        }
    }
}

/// What each side says first, in the clear: "HRMD", u16 version, u8 mode, u8 code.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Preface;

/// Codes of a preface.
const OK: u8 = 0;
const MISFIT: u8 = 1;
const SECRET: u8 = 2;

impl Preface {
    pub(crate) const LEN: usize = 8;

    /// Of the caller, and of the called one who goes on.
    pub(crate) fn ok(mode: Mode) -> [u8; Self::LEN] {
        Self::with(mode, OK)
    }

    /// Of the called one who does not go on.
    pub(crate) fn refuse(mode: Mode, refusal: &Refusal) -> [u8; Self::LEN] {
        Self::with(mode, if *refusal == Refusal::Secret { SECRET } else { MISFIT })
    }

    fn with(mode: Mode, code: u8) -> [u8; Self::LEN] {
        let mut preface = [0; Self::LEN];
        let mut to = &mut preface[..];
        to.put_slice(&MAGIC);
        to.put_u16(PROTOCOL_VERSION);
        to.put_u8(mode as u8);
        to.put_u8(code);
        preface
    }

    /// Checks what the other one said.
    pub(crate) fn check(preface: [u8; Self::LEN], mode: Mode) -> Result<(), Refusal> {
        let [a, b, c, d, v, w, its_mode, code] = preface;
        if [a, b, c, d] != MAGIC {
            return Err(Refusal::Protocol("it begins otherwise".into()));
        }
        match u16::from_be_bytes([v, w]) {
            PROTOCOL_VERSION => {}
            version => return Err(Refusal::Version(version)),
        }
        if its_mode != mode as u8 {
            return Err(Refusal::Mode(Mode::name(its_mode)));
        }
        match code {
            OK => Ok(()),
            SECRET => Err(Refusal::Secret),
            code => Err(Refusal::Protocol(format!("code {code}"))),
        }
    }
}

/// Who calls, whom, and what for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) env: String,
    pub(crate) run: NodeIncarnation,
    /// Whom the caller means; not known when only an address is.
    pub(crate) to: Option<NodeId>,
    pub(crate) lane: Lane,
    /// For a single call, beside the connection of the lane.
    pub(crate) single: bool,
    /// Rises with each connection that a run of a node makes for a lane.
    pub(crate) connection: u64,
}

const SINGLE: u8 = 0x80;

impl Hello {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut to = Vec::with_capacity(64 + self.env.len());
        put_env(&mut to, &self.env);
        put_run(&mut to, self.run);
        to.put_u8(u8::from(self.to.is_some()));
        to.put_u64(self.to.map_or(0, |node| node.0));
        to.put_u8(self.lane as u8 | if self.single { SINGLE } else { 0 });
        to.put_u64(self.connection);
        to
    }

    pub(crate) fn decode(mut from: &[u8]) -> Option<Self> {
        let (env, run) = (env(&mut from)?, run(&mut from)?);
        let some = from.try_get_u8().ok()? == 1;
        let to = from.try_get_u64().ok()?;
        let lane = from.try_get_u8().ok()?;
        Some(Self {
            env,
            run,
            to: some.then_some(NodeId(to)),
            lane: *Lane::ALL.get(usize::from(lane & !SINGLE))?,
            single: lane & SINGLE != 0,
            connection: from.try_get_u64().ok()?,
        })
    }
}

/// What the called one says to that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Welcome {
    pub(crate) verdict: Verdict,
    pub(crate) env: String,
    pub(crate) run: NodeIncarnation,
}

/// Whether the caller may go on. What he got wrong he can see in the rest of the welcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Ok = 0,
    Env = 1,
    AnotherNode = 2,
    Itself = 3,
    OlderRun = 4,
    Superseded = 5,
    TooMany = 6,
}

impl Welcome {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut to = Vec::with_capacity(32 + self.env.len());
        to.put_u8(self.verdict as u8);
        put_env(&mut to, &self.env);
        put_run(&mut to, self.run);
        to
    }

    pub(crate) fn decode(mut from: &[u8]) -> Option<Self> {
        use Verdict::{AnotherNode, Env, Itself, Ok, OlderRun, Superseded, TooMany};
        let verdict = from.try_get_u8().ok()?;
        let verdict = [Ok, Env, AnotherNode, Itself, OlderRun, Superseded, TooMany]
            .into_iter()
            .find(|known| *known as u8 == verdict)?;
        Some(Self { verdict, env: env(&mut from)?, run: run(&mut from)? })
    }
}

impl From<&Refusal> for Verdict {
    fn from(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::Env(_) => Self::Env,
            Refusal::Itself => Self::Itself,
            Refusal::OlderRun => Self::OlderRun,
            Refusal::Superseded => Self::Superseded,
            Refusal::TooMany => Self::TooMany,
            _ => Self::AnotherNode,
        }
    }
}

fn put_env(to: &mut Vec<u8>, env: &str) {
    // `Rpc::start` lets no longer one in.
    let env = env.as_bytes().get(..255).unwrap_or(env.as_bytes());
    to.put_u8(u8::try_from(env.len()).unwrap_or(u8::MAX));
    to.put_slice(env);
}

fn put_run(to: &mut Vec<u8>, run: NodeIncarnation) {
    to.put_u64(run.node.0);
    to.put_u64(run.incarnation.0);
}

fn env(from: &mut &[u8]) -> Option<String> {
    let len = usize::from(from.try_get_u8().ok()?);
    let (env, rest) = from.split_at_checked(len)?;
    *from = rest;
    Some(std::str::from_utf8(env).ok()?.to_owned())
}

fn run(from: &mut &[u8]) -> Option<NodeIncarnation> {
    let (node, incarnation) = (from.try_get_u64().ok()?, from.try_get_u64().ok()?);
    Some(NodeIncarnation { node: NodeId(node), incarnation: Incarnation(incarnation) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_hello_is_read_as_it_was_written_and_no_bytes_harm(
            env in ".{0,40}", node: u64, incarnation: u64, to: Option<u64>, lane in 0usize..3, single: bool, connection: u64,
            cut in 0usize..60, junk in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            let run = NodeIncarnation { node: NodeId(node), incarnation: Incarnation(incarnation) };
            let hello = Hello { env: env.clone(), run, to: to.map(NodeId), lane: Lane::ALL[lane], single, connection };
            let bytes = hello.encode();
            prop_assert_eq!(Hello::decode(&bytes), Some(hello));
            prop_assert_eq!(Hello::decode(&bytes[..bytes.len().saturating_sub(1 + cut)]), None);
            let welcome = Welcome { verdict: Verdict::Superseded, env, run };
            prop_assert_eq!(Welcome::decode(&welcome.encode()), Some(welcome));
            let _ = (Hello::decode(&junk), Welcome::decode(&junk));
        }
    }

    #[test]
    fn a_misfit_is_named() {
        let with = |at: usize, byte: u8| {
            let mut preface = Preface::ok(Mode::Plain);
            preface[at] = byte;
            Preface::check(preface, Mode::Plain).map_err(|refusal| refusal.to_string())
        };
        assert_eq!(with(7, 0), Ok(()));
        assert_eq!(with(5, 2), Err("version 2".into()));
        assert_eq!(with(6, 1), Err("another way to prove itself: a secret".into()));
        assert_eq!(with(7, SECRET), Err("another secret".into()));
        assert!(with(0, b'G').is_err());
    }
}
