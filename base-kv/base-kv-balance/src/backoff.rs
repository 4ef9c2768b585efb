use std::collections::BTreeMap;
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);
/// Keys that are kept at most; the longest past give way.
const KEYS_MAX: usize = 1024;

/// What was refused, and when it may be tried again: half a second later, then twice as long each time, up to 30 s.
#[derive(Debug, Clone)]
pub(crate) struct Backoff<K>(BTreeMap<K, (Duration, Duration)>);

impl<K> Default for Backoff<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord + Clone> Backoff<K> {
    pub(crate) fn refused(&mut self, now: Duration, key: K) {
        let pause = self.0.get(&key).map_or(FIRST, |(_, pause)| (*pause * 2).min(LONGEST));
        if self.0.len() >= KEYS_MAX
            && let Some(oldest) = self.0.iter().min_by_key(|(_, (until, _))| *until).map(|(key, _)| key.clone())
        {
            self.0.remove(&oldest);
        }
        self.0.insert(key, (now + pause, pause));
    }

    pub(crate) fn accepted(&mut self, key: &K) {
        self.0.remove(key);
    }

    /// How long it has to wait still.
    pub(crate) fn wait(&self, now: Duration, key: &K) -> Option<Duration> {
        let (until, _) = self.0.get(key)?;
        until.checked_sub(now).filter(|left| !left.is_zero())
    }
}
