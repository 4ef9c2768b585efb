//! The settings of tenants as a section: `mqtt-session` knows their names, types and ranges.

use crate::leaf::scalar_text;
use crate::section::{Leaf, Section, Slot, section};
use mqtt_session::{SettingError, Settings};
use serde_yaml::Value;

/// Set by `mqttServiceConfig.server.connTimeoutSec`: it holds before a tenant is known.
const ELSEWHERE: &str = "ConnectTimeoutSeconds";

impl Section for Settings {
    fn keys(&self) -> Vec<&'static str> {
        Self::NAMES.iter().copied().filter(|name| *name != ELSEWHERE).collect()
    }

    fn slot(&mut self, key: &str) -> Option<Slot<'_>> {
        let name = Self::NAMES.iter().find(|name| **name == key && **name != ELSEWHERE)?;
        Some(Slot::Leaf(Box::new(Setting { settings: self, name }), None))
    }
}

section!(@as_slot Settings);

struct Setting<'a> {
    settings: &'a mut Settings,
    name: &'static str,
}

impl Leaf for Setting<'_> {
    fn set(&mut self, value: &Value) -> Result<(), String> {
        let text = scalar_text(value).unwrap_or_default();
        self.settings.set(self.name, &text).map_err(|error| match error {
            SettingError::NotAllowed { allowed, .. } => match allowed.split_once("..=") {
                Some((from, to)) => format!("a whole number from {from} to {to}"),
                None => format!("one of {}", allowed.replace('|', ", ")),
            },
            other => other.to_string(),
        })
    }

    fn get(&self) -> Value {
        let text = self.settings.get(self.name).unwrap_or_default();
        match (text.parse::<u64>(), text.parse::<bool>()) {
            (Ok(number), _) => Value::from(number),
            (_, Ok(flag)) => Value::from(flag),
            _ => Value::from(text),
        }
    }
}
