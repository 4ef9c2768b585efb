//! Structured logs through `tracing`, one line an event.

mod writer;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt as format, reload};
use writer::LineWriter;

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// `info`, or with other levels for some modules: `info,hermod::shard=debug`.
    pub filter: String,
    /// How a line looks.
    pub format: LogFormat,
}

/// Why logging was not set up or changed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The text is no filter.
    #[error(
        "`{filter}` is not a log filter ({reason}); write a level (error, warn, info, debug, trace, off) or a list such as `info,hermod=debug`"
    )]
    Filter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Somebody else in this process receives the events.
    #[error("logging is set up already")]
    AlreadySet,
    /// The thread that writes could not be started.
    #[error("the log writer cannot be started: {0}")]
    Writer(#[from] std::io::Error),
}

/// Changes what is logged while the process runs.
#[derive(Clone)]
pub struct LogHandle {
    filter: reload::Handle<Targets, Registry>,
    writer: Arc<LineWriter>,
}

/// Logs to standard error from now on, for the whole process.
///
/// Lines are written by a thread of their own, so that a full pipe stops nothing but the log: what it does not take in time is dropped and
/// counted. Control characters in what clients send are escaped. Call [`LogHandle::flush`] before the process ends.
pub fn init_logs(config: &LogConfig) -> Result<LogHandle, LogError> {
    let filter = parse(&config.filter)?;
    let writer = Arc::new(LineWriter::start(std::io::stderr())?);
    let (layer, handle) = layer(filter, config.format, Arc::clone(&writer));
    tracing_subscriber::registry().with(layer).try_init().map_err(|_| LogError::AlreadySet)?;
    Ok(handle)
}

type BoxedLayer = Box<dyn Layer<Registry> + Send + Sync>;

fn layer(filter: Targets, format: LogFormat, writer: Arc<LineWriter>) -> (BoxedLayer, LogHandle) {
    let (filter, handle) = reload::Layer::new(filter);
    let lines = Arc::clone(&writer);
    let layer = format::layer().with_ansi(false).with_writer(move || lines.line());
    let layer = match format {
        LogFormat::Text => layer.with_filter(filter).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).with_span_list(false).with_filter(filter).boxed(),
    };
    (layer, LogHandle { filter: handle, writer })
}

/// A list of levels and targets; a filter by the fields of spans is not offered, so that no regular expressions are held in memory.
fn parse(filter: &str) -> Result<Targets, LogError> {
    let error = |reason: String| LogError::Filter { filter: filter.to_owned(), reason };
    let level = |text: &str| match text.to_ascii_lowercase().as_str() {
        "off" => Ok(LevelFilter::OFF),
        "error" => Ok(LevelFilter::ERROR),
        "warn" => Ok(LevelFilter::WARN),
        "info" => Ok(LevelFilter::INFO),
        "debug" => Ok(LevelFilter::DEBUG),
        "trace" => Ok(LevelFilter::TRACE),
        _ => Err(error(format!("`{text}` is not a level"))),
    };
    let mut targets = Targets::new();
    for word in filter.split(',').map(str::trim) {
        targets = match word.split_once('=') {
            None => targets.with_default(level(word)?),
            Some((module, of_module)) if is_module(module) => targets.with_target(module, level(of_module)?),
            Some((module, _)) => return Err(error(format!("`{module}` is not a module"))),
        };
    }
    Ok(targets)
}

fn is_module(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':' | b'-'))
}

impl LogHandle {
    /// Logs by this filter from now on.
    pub fn set_filter(&self, filter: &str) -> Result<(), LogError> {
        let filter = parse(filter)?;
        // It fails when the subscriber is gone, with the process.
        let _ = self.filter.reload(filter);
        Ok(())
    }

    /// The filter in force.
    pub fn filter(&self) -> String {
        self.filter.with_current(ToString::to_string).unwrap_or_default()
    }

    /// Lines that were dropped because standard error did not take them.
    pub fn dropped(&self) -> u64 {
        self.writer.dropped()
    }

    /// Waits until what was logged before is written, at most so long.
    pub fn flush(&self, limit: Duration) {
        self.writer.flush(limit);
    }
}

impl fmt::Debug for LogHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogHandle").field("filter", &self.filter()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;
    use std::io;
    use tracing::subscriber::with_default;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is written while `act` runs under this filter and format.
    fn logged(filter: &str, format: LogFormat, act: impl FnOnce(&LogHandle)) -> String {
        let sink = Sink::default();
        let writer = Arc::new(LineWriter::start(sink.clone()).unwrap());
        let (layer, handle) = layer(parse(filter).unwrap(), format, writer);
        with_default(tracing_subscriber::registry().with(layer), || act(&handle));
        handle.flush(Duration::from_secs(10));
        String::from_utf8(sink.0.lock().clone()).unwrap()
    }

    #[test]
    fn the_filter_is_changed_while_running() {
        let text = logged("info", LogFormat::Text, |handle| {
            tracing::debug!("before");
            handle.set_filter("warn,telemetry::logs=debug").unwrap();
            tracing::debug!("after");
            assert!(handle.set_filter("info,nonsense").is_err());
            tracing::debug!("still");
            assert!(handle.filter().contains("telemetry::logs=debug"), "{}", handle.filter());
        });
        assert!(!text.contains("before") && text.contains("after") && text.contains("still"), "{text}");
    }

    #[test]
    fn json_is_one_object_a_line_with_the_fields_of_the_event() {
        let text = logged("info", LogFormat::Json, |_| tracing::info!(client = "c\n1", "connected"));
        let [line] = text.lines().collect::<Vec<_>>()[..] else { panic!("{text}") };
        let object: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!((&object["client"], &object["message"]), (&"c\n1".into(), &"connected".into()));
    }

    #[test]
    fn what_clients_send_cannot_forge_a_line_or_steer_a_terminal() {
        let text = logged("info", LogFormat::Text, |_| {
            tracing::info!(client = %"evil\n2026-01-01 INFO all is well\x1b[2J", "connected\r");
        });
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(!text.trim_end_matches('\n').contains(|c: char| c.is_control()), "{text:?}");
    }

    #[test]
    fn bad_filters_are_refused_with_what_is_allowed() {
        for bad in ["", " ", "loud", "info,", "hermod=loud", "info,hermod", "=", "a=b=c"] {
            let error = parse(bad).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains("write a level"), "{bad}: {error}");
        }
        for good in ["info", "INFO", "off", "info,hermod=debug", "warn, hermod::shard=trace"] {
            parse(good).unwrap();
        }
    }
}
