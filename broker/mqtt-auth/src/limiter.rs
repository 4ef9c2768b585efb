use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// Addresses that are remembered; 64 bytes each.
const SOURCES_MAX: usize = 65_536;

/// How many failed logins one source may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoginLimit {
    /// So many …
    pub failures: u32,
    /// … within this time …
    pub window: Duration,
    /// … keep the source out for so long.
    pub penalty: Duration,
}

impl Default for LoginLimit {
    /// Ten in a minute: five minutes.
    fn default() -> Self {
        Self { failures: 10, window: Duration::from_secs(60), penalty: Duration::from_secs(300) }
    }
}

/// Counts failures by source.
#[derive(Debug)]
pub(crate) struct Limiter {
    limit: LoginLimit,
    sources: Mutex<HashMap<IpAddr, Source>>,
}

#[derive(Debug)]
struct Source {
    failures: u32,
    /// Start of the window, or of the penalty when there are too many failures.
    since: Instant,
}

impl Limiter {
    pub(crate) fn new(limit: LoginLimit) -> Self {
        Self { limit, sources: Mutex::new(HashMap::new()) }
    }

    /// Whether a source is kept out.
    pub(crate) fn is_out(&self, peer: IpAddr, now: Instant) -> bool {
        self.sources
            .lock()
            .get(&key(peer))
            .is_some_and(|source| source.failures >= self.limit.failures && !self.is_over(source, now))
    }

    /// A login from there failed.
    pub(crate) fn failed(&self, peer: IpAddr, now: Instant) {
        let mut sources = self.sources.lock();
        let key = key(peer);
        if sources.len() >= SOURCES_MAX && !sources.contains_key(&key) {
            sources.retain(|_, source| !self.is_over(source, now));
            if sources.len() >= SOURCES_MAX {
                // So many sources that fail within minutes: those that fail repeatedly are worth remembering.
                sources.retain(|_, source| source.failures > 1);
            }
            if sources.len() >= SOURCES_MAX {
                return;
            }
        }
        let source = sources.entry(key).or_insert(Source { failures: 0, since: now });
        if self.is_over(source, now) {
            *source = Source { failures: 0, since: now };
        }
        source.failures += 1;
        if source.failures == self.limit.failures {
            source.since = now;
        }
    }

    fn is_over(&self, source: &Source, now: Instant) -> bool {
        let lasts = if source.failures >= self.limit.failures { self.limit.penalty } else { self.limit.window };
        now.saturating_duration_since(source.since) >= lasts
    }
}

/// Who has one IPv6 address has 2⁶⁴ of them: the network counts.
fn key(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from(u128::from(address) & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    #[test]
    fn too_many_failures_keep_a_source_out_for_a_while() {
        let limiter = Limiter::new(LoginLimit::default());
        let start = Instant::now();
        for second in 0..9 {
            limiter.failed(PEER, start + Duration::from_secs(second));
            assert!(!limiter.is_out(PEER, start + Duration::from_secs(second)));
        }
        limiter.failed(PEER, start + Duration::from_secs(20));
        assert!(limiter.is_out(PEER, start + Duration::from_secs(20)));
        assert!(limiter.is_out(PEER, start + Duration::from_secs(319)));
        assert!(!limiter.is_out(PEER, start + Duration::from_secs(320)));
        assert!(!limiter.is_out("192.0.2.2".parse().unwrap(), start + Duration::from_secs(20)));
        // It starts anew then.
        limiter.failed(PEER, start + Duration::from_secs(321));
        assert!(!limiter.is_out(PEER, start + Duration::from_secs(321)));
    }

    #[test]
    fn failures_are_forgotten_after_the_window() {
        let limiter = Limiter::new(LoginLimit::default());
        let start = Instant::now();
        for minute in 0..30 {
            limiter.failed(PEER, start + Duration::from_secs(60 * minute));
            assert!(!limiter.is_out(PEER, start + Duration::from_secs(60 * minute)));
        }
    }

    #[test]
    fn an_ipv6_network_is_one_source_and_the_table_is_bounded() {
        let limiter = Limiter::new(LoginLimit::default());
        let now = Instant::now();
        for host in 0..10_u16 {
            limiter.failed(Ipv6Addr::new(0x2001, 0xdb8, 0, 1, host, 0, 0, 1).into(), now);
        }
        assert!(limiter.is_out("2001:db8:0:1::9".parse().unwrap(), now));
        for source in 0..200_000_u32 {
            limiter.failed(std::net::Ipv4Addr::from(0x0a00_0000 + source).into(), now);
        }
        assert!(limiter.sources.lock().len() <= SOURCES_MAX);
        assert!(limiter.is_out("2001:db8:0:1::9".parse().unwrap(), now), "who failed repeatedly is remembered");
    }
}
