use std::collections::BTreeMap;
use std::time::Duration;

/// Since when something has been so, as far as it was looked at.
#[derive(Debug, Clone)]
pub(crate) struct Since<K>(BTreeMap<K, Duration>);

impl<K> Default for Since<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord + Copy> Since<K> {
    /// Takes note of everything that is so now; what is not among it is so no longer.
    pub(crate) fn observe(&mut self, now: Duration, so: impl IntoIterator<Item = K>) {
        self.0 = so.into_iter().map(|key| (key, self.0.get(&key).copied().unwrap_or(now))).collect();
    }

    /// How long it has been so; `None` when it is not.
    pub(crate) fn lasting(&self, now: Duration, key: &K) -> Option<Duration> {
        self.0.get(key).map(|since| now.saturating_sub(*since))
    }
}
