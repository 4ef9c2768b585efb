use crate::Source;
use std::fmt;

/// Something in the configuration that cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The dotted path of the key.
    pub key: String,
    /// What it was set to; `None` when the value is not the point.
    pub value: Option<String>,
    /// Where that was said.
    pub source: Source,
    /// What is wrong and what is allowed, as a sentence.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.key)?;
        if let Some(value) = &self.value {
            write!(f, " = {value}")?;
        }
        write!(f, " ({}): {}", self.source, self.message)
    }
}

/// Something that works, but perhaps not as meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The dotted path of the key.
    pub key: String,
    /// Where it was said.
    pub source: Source,
    /// As a sentence.
    pub message: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.key, self.source, self.message)
    }
}

/// The configuration is refused: everything that is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// At least one.
    pub violations: Vec<Violation>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.violations.len();
        writeln!(f, "the configuration has {count} error{}:", if count == 1 { "" } else { "s" })?;
        for violation in &self.violations {
            writeln!(f, "  {violation}")?;
        }
        write!(f, "nothing was started; every key is described in conf/node.yml")
    }
}

impl std::error::Error for Refused {}
