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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::member::{Member, MemberState};
    use base_types::{Incarnation, NodeIncarnation};
    use std::collections::BTreeSet;

    fn at(host: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, host], 7000))
    }

    /// What node 1 sees.
    fn members(live: &[u64]) -> Members {
        let member = |node: &u64| {
            let run = NodeIncarnation { node: NodeId(*node), incarnation: Incarnation(1) };
            (run.node, Member { run, addr: at(*node as u8), state: MemberState::Alive, rpc: None })
        };
        Members { me: NodeId(1), nodes: live.iter().map(member).collect() }
    }

    fn resolved(name: &str, hosts: &[u8]) -> Resolved {
        let addresses = hosts.iter().map(|host| (at(*host), *host == 1)).collect();
        Resolved { name: name.into(), addresses: Ok(addresses) }
    }

    fn unresolved(name: &str) -> Resolved {
        Resolved { name: name.into(), addresses: Err("no such host".into()) }
    }

    fn asked(seeds: &Seeds, members: &Members) -> BTreeSet<SocketAddr> {
        seeds.unmet(members).map(|(address, _)| address).collect()
    }

    fn answer(seeds: &mut Seeds, from: u8, node: u64) {
        let token = seeds.unmet(&members(&[])).find(|(address, _)| *address == at(from)).unwrap().1;
        seeds.answered(token, NodeId(node));
    }

    #[test]
    fn a_name_with_many_addresses_is_many_seeds_and_follows_the_name_service() {
        let now = Instant::now();
        let mut seeds = Seeds::new(&["cluster".into()], now);
        assert_eq!(seeds.joined(&members(&[1]), |_| true, now), Joined::Looking { since: now });
        assert!(seeds.resolved(vec![resolved("cluster", &[1, 2, 3])]));
        assert!(!seeds.resolved(vec![resolved("cluster", &[1, 2, 3])]), "nothing new");
        assert_eq!(asked(&seeds, &members(&[1])), [at(2), at(3)].into(), "not itself");
        answer(&mut seeds, 2, 2);
        assert_eq!(asked(&seeds, &members(&[1, 2])), [at(3)].into());
        assert_eq!(seeds.joined(&members(&[1, 2]), |_| true, now), Joined::Majority);
        // One address goes, another comes; who was met is still met.
        assert!(seeds.resolved(vec![resolved("cluster", &[1, 2, 4])]));
        assert_eq!(asked(&seeds, &members(&[1, 2])), [at(4)].into());
        // The name service is away: nothing is lost by that.
        seeds.resolved(vec![unresolved("cluster")]);
        assert_eq!(seeds.joined(&members(&[1, 2]), |_| true, now), Joined::Majority);
        // Node 2 is gone: it is asked for again.
        assert_eq!(asked(&seeds, &members(&[1])), [at(2), at(4)].into());
        assert!(matches!(seeds.joined(&members(&[1]), |_| true, now), Joined::Looking { .. }));
    }

    #[test]
    fn each_seed_that_fails_is_named_with_its_cause() {
        let now = Instant::now();
        let mut seeds = Seeds::new(&[], now);
        assert_eq!(seeds.failures(&members(&[1])), None, "nobody was looked for");
        seeds.resolved(vec![resolved("me", &[1]), resolved("two", &[2]), unresolved("three"), resolved("four", &[])]);
        seeds.refused(at(2), Refusal::Secret);
        let failures = seeds.failures(&members(&[1])).unwrap();
        let text: Vec<_> = failures.iter().map(|(name, cause)| format!("{name}: {cause}")).collect();
        assert_eq!(
            text,
            [
                "two (10.0.0.2:7000): sends packets of another cluster secret",
                "three: no such host",
                "four: the name has no address"
            ]
        );
        answer(&mut seeds, 2, 2);
        assert_eq!(seeds.failures(&members(&[1, 2])), None, "one is enough");
    }
}
