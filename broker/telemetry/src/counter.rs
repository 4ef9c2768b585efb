//! Things that are counted.

use crate::Label;
use crate::samples::Samples;
use crate::table::Metric;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::ops::Index;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// What a row of the table is read from.
pub(crate) trait Measure {
    const LABELS: &'static [&'static str];

    fn read(&self, metric: &'static Metric, out: &mut Samples);
}

/// Counts up. One thread counts, any thread reads: no locked instruction, but of two that count at once one is lost.
/// [`ShardMetrics`](crate::ShardMetrics) sees to it that there is one.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    #[inline]
    pub fn inc(&self) {
        self.add(1);
    }

    /// `n` more.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// How many.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Measure for Counter {
    const LABELS: &'static [&'static str] = &[];

    fn read(&self, metric: &'static Metric, out: &mut Samples) {
        out.add(metric, &[], self.get() as f64);
    }
}

/// Counts up and down, otherwise like [`Counter`].
#[derive(Debug, Default)]
pub struct Level(AtomicI64);

impl Level {
    /// One more.
    #[inline]
    pub fn inc(&self) {
        self.add(1);
    }

    /// One less.
    #[inline]
    pub fn dec(&self) {
        self.add(-1);
    }

    /// `n` more, or less if negative.
    #[inline]
    pub fn add(&self, n: i64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// How many now.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Measure for Level {
    const LABELS: &'static [&'static str] = &[];

    fn read(&self, metric: &'static Metric, out: &mut Samples) {
        out.add(metric, &[], self.get() as f64);
    }
}

/// One `C` for each value of a label: `metrics.messages_received[qos].inc()`.
#[derive(Debug)]
pub struct Family<L, C> {
    members: [C; 16],
    label: PhantomData<fn(L)>,
}

impl<L: Label, C> Family<L, C> {
    /// As many values as a label can have.
    pub const MAX: usize = 16;

    /// The members with the values of the label.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &C)> {
        L::VALUES.iter().copied().zip(&self.members)
    }
}

impl<L, C: Default> Default for Family<L, C> {
    fn default() -> Self {
        Self { members: std::array::from_fn(|_| C::default()), label: PhantomData }
    }
}

impl<L: Label, C> Index<L> for Family<L, C> {
    type Output = C;

    #[inline]
    fn index(&self, label: L) -> &C {
        const { assert!(L::VALUES.len() <= Self::MAX) };
        &self.members[label.index() % Self::MAX]
    }
}

/// What is read from one member of a family.
pub(crate) trait Value {
    fn value(&self) -> f64;
}

impl Value for Counter {
    fn value(&self) -> f64 {
        self.get() as f64
    }
}

impl Value for Level {
    fn value(&self) -> f64 {
        self.get() as f64
    }
}

impl<L: Label, C: Value> Measure for Family<L, C> {
    const LABELS: &'static [&'static str] = &[L::NAME];

    fn read(&self, metric: &'static Metric, out: &mut Samples) {
        for (value, member) in self.iter() {
            out.add(metric, &[value], member.value());
        }
    }
}

/// Counts by cause what is too rare to need more than a lock. Any thread counts; causes appear when they first happen.
#[derive(Debug, Default)]
pub struct Causes(Mutex<BTreeMap<&'static str, u64>>);

impl Causes {
    /// One more for this cause.
    pub fn inc(&self, cause: &'static str) {
        self.add(cause, 1);
    }

    /// `n` more for this cause.
    pub fn add(&self, cause: &'static str, n: u64) {
        *self.0.lock().entry(cause).or_default() += n;
    }

    /// How many for this cause.
    pub fn get(&self, cause: &str) -> u64 {
        self.0.lock().get(cause).copied().unwrap_or(0)
    }
}

impl Measure for Causes {
    const LABELS: &'static [&'static str] = &["cause"];

    fn read(&self, metric: &'static Metric, out: &mut Samples) {
        for (cause, count) in &*self.0.lock() {
            out.add(metric, &[cause], *count as f64);
        }
    }
}
