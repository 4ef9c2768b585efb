//! Prometheus text format 0.0.4: <https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>.

use crate::Samples;
use crate::histogram::Durations;
use crate::table::{Kind, TABLE};
use std::fmt::Write;

pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All metrics of the table that have a value, in its order.
pub(crate) fn encode(samples: &Samples) -> String {
    let mut text = String::with_capacity(16 << 10);
    for metric in TABLE {
        let mut body = String::new();
        if metric.kind == Kind::Histogram {
            let of = samples.durations.range((metric.name, String::new())..);
            for ((_, labels), durations) in of.take_while(|((name, _), _)| *name == metric.name) {
                histogram(&mut body, metric.name, labels, durations);
            }
        } else {
            for (labels, value) in samples.of(metric) {
                let _ = match labels {
                    "" => writeln!(body, "{} {value}", metric.name),
                    _ => writeln!(body, "{}{{{labels}}} {value}", metric.name),
                };
            }
        }
        if !body.is_empty() {
            let help = metric.help.replace('\\', "\\\\");
            let _ = write!(text, "# HELP {0} {help}\n# TYPE {0} {1}\n{body}", metric.name, metric.kind.name());
        }
    }
    text
}

fn histogram(text: &mut String, name: &str, labels: &str, durations: &Durations) {
    let comma = if labels.is_empty() { "" } else { "," };
    for (bound, count) in &durations.buckets {
        let _ = writeln!(text, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {count}");
    }
    let braced = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
    let _ = writeln!(text, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {}", durations.count);
    let _ = writeln!(text, "{name}_sum{braced} {}", durations.seconds);
    let _ = writeln!(text, "{name}_count{braced} {}", durations.count);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table;
    use std::time::Duration;

    #[test]
    fn values_are_written_under_their_help_and_type() {
        let mut samples = Samples::default();
        samples.add(&table::SESSIONS, &["connected"], 2.0);
        samples.add(&table::SESSIONS, &["disconnected"], 3.0);
        samples.add(&table::ROUTES, &[], 1e15);
        let text = encode(&samples);
        assert!(text.contains("# TYPE hermod_sessions gauge\nhermod_sessions{state=\"connected\"} 2\n"), "{text}");
        assert!(text.contains("\nhermod_sessions{state=\"disconnected\"} 3\n"), "{text}");
        assert!(text.contains("\nhermod_routes 1000000000000000\n"), "{text}");
        assert!(!text.contains("hermod_clients"), "what has no value is not there");
    }

    #[test]
    fn labels_are_escaped() {
        let mut samples = Samples::default();
        samples.add(&table::SESSIONS, &["a\"b\\c\nd"], 1.0);
        assert!(encode(&samples).contains("hermod_sessions{state=\"a\\\"b\\\\c\\nd\"} 1\n"));
    }

    #[test]
    fn histograms_have_cumulative_buckets_sum_and_count() {
        let histogram = crate::Histogram::default();
        histogram.observe(Duration::from_millis(1));
        histogram.observe(Duration::from_secs(60));
        let mut samples = Samples::default();
        crate::counter::Measure::read(&histogram, &table::LOG_FSYNC, &mut samples);
        let text = encode(&samples);
        for line in [
            "hermod_log_fsync_seconds_bucket{le=\"0.0005\"} 0",
            "hermod_log_fsync_seconds_bucket{le=\"0.001\"} 1",
            "hermod_log_fsync_seconds_bucket{le=\"+Inf\"} 2",
            "hermod_log_fsync_seconds_sum 60.001",
            "hermod_log_fsync_seconds_count 2",
        ] {
            assert!(text.lines().any(|written| written == line), "{line} in\n{text}");
        }
    }
}
