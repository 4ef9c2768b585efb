use crate::section::{Section, Slot, join};
use crate::{Loaded, NodeConfig, Source, Sources};
use serde_yaml::Value;
use std::fmt::Write;

impl NodeConfig {
    /// The configuration as a YAML file that would lead to it; a comment says where a value comes from that is not the default.
    #[must_use]
    pub fn print(&self, sources: &Sources) -> String {
        let mut out = String::new();
        emit(&mut self.clone(), "", 0, sources, &mut out);
        out
    }
}

impl Loaded {
    /// See [`NodeConfig::print`].
    #[must_use]
    pub fn print(&self) -> String {
        self.config.print(&self.sources)
    }
}

fn emit(section: &mut dyn Section, path: &str, depth: usize, sources: &Sources, out: &mut String) {
    for key in section.keys() {
        let path = join(path, key);
        let indent = "  ".repeat(depth);
        // Writing to a String cannot fail.
        match section.slot(key) {
            Some(Slot::Section(inner)) => {
                let _ = writeln!(out, "{indent}{key}:");
                emit(inner, &path, depth + 1, sources, out);
            }
            Some(Slot::Leaf(leaf, _)) => {
                let value = leaf.get();
                let text = if value.is_null() { String::new() } else { format!(" {}", whole(&value)) };
                let comment = match sources.of(&path) {
                    Source::Default => String::new(),
                    source => format!("  # {}", source.to_string().escape_debug()),
                };
                let _ = writeln!(out, "{indent}{key}:{text}{comment}");
            }
            None => {}
        }
    }
}

/// A value on one line, with everything in it.
fn whole(value: &Value) -> String {
    match value {
        Value::Mapping(map) => {
            let entries = map.iter().map(|(key, value)| format!("{}: {}", flow(key), whole(value)));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
        }
        Value::Sequence(items) => format!("[{}]", items.iter().map(whole).collect::<Vec<_>>().join(", ")),
        scalar => flow(scalar),
    }
}

/// A value on one line, without what is in a mapping.
pub(crate) fn flow(value: &Value) -> String {
    match value {
        Value::Sequence(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Value::Mapping(_) => "{…}".into(),
        Value::Null => "null".into(),
        Value::String(text) if text.chars().any(|c| c.is_control() || ",[]{}:".contains(c)) => format!("{text:?}"),
        scalar => serde_yaml::to_string(scalar).map(|text| text.trim_end().to_owned()).unwrap_or_default(),
    }
}
