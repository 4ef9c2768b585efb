//! What is read at one moment.

use crate::histogram::Durations;
use crate::table::Metric;
use std::collections::BTreeMap;
use std::fmt::Write;

/// The values of all metrics at one moment.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    /// By metric and its labels as they are written: `qos="0"`.
    pub(crate) numbers: BTreeMap<(&'static str, String), f64>,
    pub(crate) durations: BTreeMap<(&'static str, String), Durations>,
}

impl Samples {
    /// Adds a value; the values of the labels come in the order of [`Metric::labels`]. What is added twice is summed.
    pub fn add(&mut self, metric: &'static Metric, labels: &[&str], value: f64) {
        *self.numbers.entry((metric.name, written(metric, labels))).or_default() += value;
    }

    pub(crate) fn durations(&mut self, metric: &'static Metric, labels: &[&str], durations: Durations) {
        self.durations.insert((metric.name, written(metric, labels)), durations);
    }

    /// The sum over all labels.
    pub fn sum(&self, metric: &'static Metric) -> f64 {
        self.of(metric).map(|(_, value)| value).sum()
    }

    /// The value with these labels, 0 if there is none.
    pub fn get(&self, metric: &'static Metric, labels: &[&str]) -> f64 {
        self.numbers.get(&(metric.name, written(metric, labels))).copied().unwrap_or(0.0)
    }

    pub(crate) fn of(&self, metric: &'static Metric) -> impl Iterator<Item = (&str, f64)> {
        self.numbers
            .range((metric.name, String::new())..)
            .take_while(|((name, _), _)| *name == metric.name)
            .map(|((_, labels), value)| (labels.as_str(), *value))
    }
}

fn written(metric: &'static Metric, values: &[&str]) -> String {
    debug_assert_eq!(metric.labels.len(), values.len(), "{}", metric.name);
    let mut text = String::new();
    for (name, value) in metric.labels.iter().zip(values) {
        let comma = if text.is_empty() { "" } else { "," };
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let _ = write!(text, "{comma}{name}=\"{value}\"");
    }
    text
}
