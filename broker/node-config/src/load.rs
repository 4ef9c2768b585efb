use crate::bifromq::{self, Meaning};
use crate::check;
use crate::cluster::{self, Cluster};
use crate::leaf::scalar_text;
use crate::nearest::nearest;
use crate::section::{self, Slot, find, join};
use crate::store::{self, VoterCount};
use crate::{NodeConfig, Refused, Secret, Violation, Warning};
use serde_yaml::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// The section of the settings that BifroMQ takes by name alone.
const TENANT_SETTINGS: &str = "tenantSettings";
const ENVIRONMENT_PREFIX: &str = "HERMOD_";
/// Where BifroMQ's container image takes its `-D` from.
const JAVA_OPTIONS: &str = "EXTRA_JVM_OPTS";

/// Where a configuration comes from. Later fields win over earlier ones.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// The YAML file; without one everything has its default.
    pub file: Option<PathBuf>,
    /// Environment variables, all of them: those that start with `HERMOD_` are taken, with `__` for the dots of a path
    /// (`HERMOD_mqttServiceConfig__server__tcpListener__port=1884`), in any case. From `EXTRA_JVM_OPTS`, where the image of
    /// BifroMQ has its system properties, each `-Dname=value` is taken.
    pub environment: Vec<(String, String)>,
    /// `-D name=value`: a dotted path, a setting's name, or a system property of BifroMQ.
    pub defines: Vec<(String, String)>,
    /// Where relative paths in the configuration start; empty: the working directory.
    pub directory: PathBuf,
}

impl Inputs {
    /// The environment of this process, a file and definitions.
    #[must_use]
    pub fn of_process(file: Option<PathBuf>, defines: Vec<(String, String)>) -> Self {
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self { file, environment, defines, directory: PathBuf::new() }
    }
}

/// Where a value was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nowhere: it is the default.
    Default,
    /// In this file.
    File(PathBuf),
    /// In this environment variable.
    Environment(String),
    /// On the command line.
    Define,
}

impl Source {
    /// The higher one wins.
    pub(crate) fn rank(&self) -> u8 {
        match self {
            Self::Default => 0,
            Self::File(_) => 1,
            Self::Environment(_) => 2,
            Self::Define => 3,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Define => f.write_str("-D"),
        }
    }
}

/// Where each value was said that was said at all, by dotted path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources(BTreeMap<String, Source>);

impl Sources {
    /// Where the value of a key comes from.
    #[must_use]
    pub fn of(&self, path: &str) -> Source {
        self.0.get(path).cloned().unwrap_or(Source::Default)
    }

    pub(crate) fn set(&mut self, path: &str, source: Source) {
        self.0.insert(path.to_owned(), source);
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Source)> {
        self.0.iter().map(|(path, source)| (path.as_str(), source))
    }
}

/// A configuration that can be started.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What holds.
    pub config: NodeConfig,
    /// What to tell the operator.
    pub warnings: Vec<Warning>,
    /// Where what holds was said.
    pub sources: Sources,
    /// How this node is part of a cluster; `None`: it runs alone, and opens no port for other nodes.
    pub cluster: Option<Cluster>,
    /// What a request to the HTTP interface that changes something has to carry.
    pub api_token: Option<Secret>,
}

/// A shorter token can be guessed.
const TOKEN_MIN: usize = 16;

impl Loaded {
    /// How many voters each store gets at most, and who said so: lines for the log.
    #[must_use]
    pub fn voter_counts(&self) -> Vec<VoterCount> {
        store::voter_counts(&self.config, &self.sources)
    }
}

/// Reads and checks a configuration. Opens the files that it names, to see that they can be read; changes nothing.
///
/// # Errors
/// With everything that is wrong, at once.
pub fn load(inputs: &Inputs) -> Result<Loaded, Refused> {
    let mut loader = Loader::default();
    if let Some(path) = &inputs.file {
        loader.file(path);
    }
    for (name, value) in &inputs.environment {
        // The prefix alone is for others: `HERMOD_` variables of container platforms are named after the service.
        if let Some(name) = name.get(..ENVIRONMENT_PREFIX.len()).and_then(|prefix| {
            prefix.eq_ignore_ascii_case(ENVIRONMENT_PREFIX).then(|| &name[ENVIRONMENT_PREFIX.len()..])
        }) {
            loader.environment(name, value);
        } else if name == JAVA_OPTIONS {
            loader.java_options(value);
        } else if let Some(meaning) = bifromq::property(&name.to_ascii_lowercase()) {
            loader.property(meaning, name, value);
        }
    }
    for (name, value) in &inputs.defines {
        loader.define(name, value);
    }
    let Loader { mut config, mut sources, mut warnings, mut violations } = loader;
    // One key for one thing: the session has it among its settings.
    config.tenant.connect_timeout_seconds = config.mqtt_service.server.conn_timeout_sec;
    store::resolve(&mut config, &mut sources, &mut violations, &mut warnings);
    let (directory, environment) = (&inputs.directory, &inputs.environment);
    let cluster = cluster::resolve(&config.cluster, &sources, directory, environment, &mut violations, &mut warnings);
    let api_token = config.api_server.token.as_ref().and_then(|token| {
        let resolved = token.resolve(directory, environment).and_then(|token| match token.expose().len() {
            TOKEN_MIN.. => Ok(token),
            length => Err(format!("a token of {length} characters can be guessed: it must have {TOKEN_MIN} at least")),
        });
        let key = "apiServerConfig.token".to_owned();
        let refuse =
            |message| violations.push(Violation { source: sources.of(&key).clone(), key, value: None, message });
        resolved.map_err(refuse).ok()
    });
    check::check(&config, cluster.as_ref(), &sources, directory, &mut violations, &mut warnings);
    if violations.is_empty() {
        Ok(Loaded { config, warnings, sources, cluster, api_token })
    } else {
        Err(Refused { violations })
    }
}

#[derive(Default)]
struct Loader {
    config: NodeConfig,
    sources: Sources,
    warnings: Vec<Warning>,
    violations: Vec<Violation>,
}

/// What stands behind a path.
enum Kind {
    Leaf,
    Section(Vec<&'static str>),
    Absent,
}

impl Loader {
    fn file(&mut self, path: &Path) {
        let source = Source::File(path.to_owned());
        let value = std::fs::read_to_string(path)
            .map_err(|error| format!("the file cannot be read: {error}"))
            .and_then(|text| serde_yaml::from_str(&text).map_err(|error| format!("the file is no YAML: {error}")));
        match value {
            Ok(value) => self.take("", &value, &source),
            Err(message) => {
                self.violations.push(Violation { key: "--config".into(), value: None, source, message });
            }
        }
    }

    /// Takes a part of a file.
    fn take(&mut self, path: &str, value: &Value, source: &Source) {
        let path = bifromq::canonical(path);
        match self.kind(&path) {
            // `key:` with nothing behind it is how BifroMQ's files leave a value out.
            Kind::Leaf | Kind::Section(_) if value.is_null() => {}
            Kind::Leaf => self.set(&path, value, source, false),
            Kind::Section(keys) => {
                let Value::Mapping(mapping) = value else {
                    let message = format!("this is a section; its keys are {}", keys.join(", "));
                    return self.violate(&path, Some(value), source, message);
                };
                for (key, value) in mapping {
                    match scalar_text(key) {
                        Some(key) => self.take(&join(&path, &key), value, source),
                        None => self.violate(&path, Some(value), source, "a key must be a text".into()),
                    }
                }
            }
            Kind::Absent => match bifromq::ignored(&path) {
                Some(why) => self.ignored(&path, value, source, why),
                None => self.unknown_key(&path, source),
            },
        }
    }

    fn kind(&mut self, path: &str) -> Kind {
        match find(&mut self.config, path) {
            Some(Slot::Leaf(..)) => Kind::Leaf,
            Some(Slot::Section(section)) => Kind::Section(section.keys()),
            None => Kind::Absent,
        }
    }

    fn ignored(&mut self, path: &str, value: &Value, source: &Source, why: &str) {
        if !value.is_null() {
            self.warnings.push(Warning { key: path.to_owned(), source: source.clone(), message: why.to_owned() });
        }
    }

    fn define(&mut self, name: &str, value: &str) {
        let source = Source::Define;
        match self.named(name) {
            Some(Meaning::Key(path)) => self.set(&path, &Value::from(value), &source, true),
            Some(Meaning::Nothing(why)) => self.ignored(name, &Value::from(value), &source, why),
            None => {
                let message = match nearest(name, self.names().iter().map(String::as_str)) {
                    Some(known) => format!("there is no such name; did you mean {known:?}?"),
                    None => "there is no such name; `hermod config print` shows all".into(),
                };
                self.violate(name, Some(&Value::from(value)), &source, message);
            }
        }
    }

    fn environment(&mut self, variable: &str, value: &str) {
        let source = Source::Environment(format!("{ENVIRONMENT_PREFIX}{variable}"));
        let wanted = variable.replace("__", ".");
        let names = self.names();
        match names.iter().find(|name| name.eq_ignore_ascii_case(&wanted)).and_then(|name| self.named(name)) {
            Some(Meaning::Key(path)) => self.set(&path, &Value::from(value), &source, true),
            Some(Meaning::Nothing(why)) => self.ignored(&wanted, &Value::from(value), &source, why),
            None => {
                let near = nearest(&wanted, names.iter().map(String::as_str));
                let hint = near.map(|near| format!("; did you mean {}?", near.replace('.', "__"))).unwrap_or_default();
                let message = format!("has no effect: there is no such name{hint}");
                self.warnings.push(Warning { key: wanted, source, message });
            }
        }
    }

    /// A system property of BifroMQ as an environment variable of its own.
    fn property(&mut self, meaning: Meaning, variable: &str, value: &str) {
        let source = Source::Environment(variable.to_owned());
        match meaning {
            Meaning::Key(path) => self.set(&path, &Value::from(value), &source, true),
            Meaning::Nothing(why) => self.ignored(variable, &Value::from(value), &source, why),
        }
    }

    /// Takes what it knows: the rest is for Java.
    fn java_options(&mut self, options: &str) {
        let source = Source::Environment(JAVA_OPTIONS.into());
        for (name, value) in options.split_whitespace().filter_map(|option| option.strip_prefix("-D")?.split_once('='))
        {
            match self.named(name) {
                Some(Meaning::Key(path)) => self.set(&path, &Value::from(value), &source, true),
                Some(Meaning::Nothing(why)) => self.ignored(name, &Value::from(value), &source, why),
                None => self.ignored(name, &Value::from(value), &source, "has no effect: there is no such name"),
            }
        }
    }

    /// What a name outside a file means.
    fn named(&mut self, name: &str) -> Option<Meaning> {
        for path in [bifromq::canonical(name).into_owned(), join(TENANT_SETTINGS, name)] {
            if matches!(self.kind(&path), Kind::Leaf) {
                return Some(Meaning::Key(path.into()));
            }
        }
        let ignored =
            || bifromq::ignored(&bifromq::canonical(name)).or_else(|| bifromq::ignored(&join(TENANT_SETTINGS, name)));
        bifromq::property(name).or_else(|| ignored().map(Meaning::Nothing))
    }

    /// The names that mean something outside a file.
    fn names(&mut self) -> Vec<String> {
        let mut names = Vec::new();
        section::paths(&mut self.config, "", &mut names);
        let settings: Vec<String> =
            names.iter().filter_map(|path| path.strip_prefix("tenantSettings.").map(str::to_owned)).collect();
        names.extend(settings);
        names.extend(bifromq::property_names().map(str::to_owned));
        names
    }

    /// Sets a value. A text from outside a file may stand for a number, a flag or a list.
    fn set(&mut self, path: &str, value: &Value, source: &Source, is_text: bool) {
        if self.sources.0.get(path) == Some(source) {
            return self.violate(path, Some(value), source, "this key is set twice".into());
        }
        let Some(Slot::Leaf(mut leaf, range)) = find(&mut self.config, path) else { return };
        let parsed = value.as_str().filter(|_| is_text).and_then(|text| serde_yaml::from_str::<Value>(text).ok());
        let outcome = match &range {
            Some(range) => match parsed.as_ref().unwrap_or(value) {
                number if number.as_u64().is_some_and(|number| range.contains(&number)) => leaf.set(number),
                _ => Err(format!("a whole number from {} to {}", range.start(), range.end())),
            },
            None => leaf.set(value).or_else(|allowed| parsed.map_or(Err(allowed), |value| leaf.set(&value))),
        };
        let is_secret = leaf.is_secret();
        drop(leaf);
        match outcome {
            Ok(()) => {
                self.sources.0.insert(path.to_owned(), source.clone());
            }
            Err(allowed) => {
                let value = Some(value).filter(|_| !is_secret);
                self.violate(path, value, source, format!("must be {allowed}"));
            }
        }
    }

    fn unknown_key(&mut self, path: &str, source: &Source) {
        let (parent, key) = path.rsplit_once('.').unwrap_or(("", path));
        let siblings = match self.kind(parent) {
            Kind::Section(keys) => keys,
            Kind::Leaf | Kind::Absent => Vec::new(),
        };
        let message = match nearest(key, siblings.iter().copied()) {
            Some(known) => format!("unknown key; did you mean {known:?}?"),
            None => {
                let names = self.names();
                let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
                let elsewhere: Vec<&str> =
                    names.iter().filter(|path| last(path).eq_ignore_ascii_case(key)).map(String::as_str).collect();
                match elsewhere.as_slice() {
                    [] => format!("unknown key; known here: {}", siblings.join(", ")),
                    places => format!("unknown key here; it belongs to {}", places.join(" or ")),
                }
            }
        };
        self.violate(path, None, source, message);
    }

    fn violate(&mut self, key: &str, value: Option<&Value>, source: &Source, message: String) {
        let value = value.map(crate::print::flow);
        self.violations.push(Violation { key: key.to_owned(), value, source: source.clone(), message });
    }
}
