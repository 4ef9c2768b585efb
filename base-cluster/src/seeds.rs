use crate::member::{Joined, Members};
use crate::seal::Refusal;
use base_types::NodeId;
use std::net::SocketAddr;
use tokio::time::Instant;

/// A seed as it was resolved last.
#[derive(Clone, Debug)]
pub(crate) struct Resolved {
    pub(crate) name: String,
    /// Its addresses, and whether each is this node's own; or why there are none.
    pub(crate) addresses: Result<Vec<(SocketAddr, bool)>, String>,
}

/// The places where other nodes are looked for. A name with many addresses is many places; what has no address yet is one.
#[derive(Debug)]
pub(crate) struct Seeds {
    places: Vec<Place>,
    looking_since: Instant,
    tokens: u32,
}

#[derive(Debug)]
struct Place {
    name: String,
    at: Result<SocketAddr, String>,
    me: bool,
    /// Who answered last. A proxy answers with one node, then with another.
    node: Option<NodeId>,
    /// Names the place in questions and answers.
    token: u32,
    /// What came from there that could not be used.
    refused: Option<Refusal>,
}

impl Seeds {
    pub(crate) fn new(names: &[String], now: Instant) -> Self {
        let unresolved = names.iter().map(|name| Place::new(name.clone(), Err("not resolved yet".into()), false, 0));
        Self { places: unresolved.collect(), looking_since: now, tokens: 0 }
    }

    /// Takes over what the names stand for now. What is known of an address that stays is kept. True: there are new ones.
    pub(crate) fn resolved(&mut self, seeds: Vec<Resolved>) -> bool {
        let tokens = self.tokens;
        let mut before = std::mem::take(&mut self.places);
        for seed in seeds {
            let addresses = match seed.addresses {
                Ok(addresses) if addresses.is_empty() => Err("the name has no address".into()),
                other => other,
            };
            let addresses = match addresses {
                Ok(addresses) => addresses,
                Err(cause) => {
                    // What was reached once is not lost because the name service is away.
                    let (kept, rest): (Vec<_>, Vec<_>) =
                        before.into_iter().partition(|place| place.name == seed.name && place.at.is_ok());
                    before = rest;
                    if kept.is_empty() {
                        self.places.push(Place::new(seed.name, Err(cause), false, 0));
                    }
                    self.places.extend(kept);
                    continue;
                }
            };
            for (address, me) in addresses {
                if self.places.iter().any(|place| place.at == Ok(address)) {
                    continue;
                }
                let known = before.iter().position(|place| place.at == Ok(address));
                let place = known.map(|index| before.swap_remove(index)).unwrap_or_else(|| {
                    self.tokens += 1;
                    Place::new(seed.name.clone(), Ok(address), me, self.tokens)
                });
                self.places.push(Place { me, ..place });
            }
        }
        self.tokens > tokens
    }

    pub(crate) fn answered(&mut self, token: u32, node: NodeId) {
        if let Some(place) = self.places.iter_mut().find(|place| place.token == token) {
            (place.node, place.refused) = (Some(node), None);
        }
    }

    pub(crate) fn refused(&mut self, from: SocketAddr, refusal: Refusal) {
        if let Some(place) = self.places.iter_mut().find(|place| place.at == Ok(from)) {
            place.refused = Some(refusal);
        }
    }

    /// Addresses of the places where no live node was met, each with its token.
    pub(crate) fn unmet(&self, members: &Members) -> impl Iterator<Item = (SocketAddr, u32)> {
        let unmet = self.places.iter().filter(|place| !place.is_met(members));
        unmet.filter_map(|place| Some((*place.at.as_ref().ok()?, place.token)))
    }

    /// How far the search has come; `known` tells whose facts have arrived.
    pub(crate) fn joined(&mut self, members: &Members, known: impl Fn(NodeId) -> bool, now: Instant) -> Joined {
        if self.places.iter().all(|place| place.me) {
            self.looking_since = now;
            return Joined::Alone;
        }
        let met = |place: &&Place| place.me || place.is_met(members) && place.node.is_some_and(&known);
        if self.places.iter().filter(met).count() * 2 > self.places.len() {
            self.looking_since = now;
            return Joined::Majority;
        }
        Joined::Looking { since: self.looking_since }
    }

    /// When nobody but this node was met: each place, and why.
    pub(crate) fn failures(&self, members: &Members) -> Option<Vec<(String, String)>> {
        let mut others = self.places.iter().filter(|place| !place.me).peekable();
        others.peek()?;
        others.map(|place| (!place.is_met(members)).then(|| place.failure())).collect()
    }
}

impl Place {
    fn new(name: String, at: Result<SocketAddr, String>, me: bool, token: u32) -> Self {
        Self { name, at, me, node: None, token, refused: None }
    }

    fn is_met(&self, members: &Members) -> bool {
        self.me || self.node.and_then(|node| members.get(node)).is_some_and(|member| member.state.is_live())
    }

    fn failure(&self) -> (String, String) {
        match &self.at {
            Ok(address) => {
                let address = address.to_string();
                let name = if address == self.name { address } else { format!("{} ({address})", self.name) };
                let cause = match self.refused.and_then(Refusal::foreign) {
                    Some(what) => format!("sends packets of {what}"),
                    None => "no answer".into(),
                };
                (name, cause)
            }
            Err(cause) => (self.name.clone(), cause.clone()),
        }
    }
}
