use crate::controller::Controller;
use crate::{RangeBootstrap, RangeLeader, RedundantRangeRemoval, ReplicaCnt, UnreachableReplicaRemoval};
use base_kv_api::balance::Balancer;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeSet;

/// A policy that can be configured: its name, its options, and how it is made.
///
/// ```
/// use base_kv_api::balance::{Balancer, Decision, Landscape};
/// use base_kv_balance::{BalancerKind, BalancerSpec, Registry, StoreSetup};
/// use std::time::Duration;
///
/// /// Looks again after a while, and is content.
/// struct Content(Duration);
///
/// #[derive(serde::Deserialize)]
/// #[serde(rename_all = "camelCase", deny_unknown_fields, default)]
/// struct ContentOptions {
///     every_sec: u64,
/// }
///
/// impl Default for ContentOptions {
///     fn default() -> Self {
///         Self { every_sec: 60 }
///     }
/// }
///
/// impl BalancerKind for Content {
///     const NAME: &'static str = "ContentBalancer";
///     type Options = ContentOptions;
///
///     fn build(options: ContentOptions, _: &StoreSetup) -> Result<Box<dyn Balancer>, String> {
///         Ok(Box::new(Self(Duration::from_secs(options.every_sec))))
///     }
/// }
///
/// impl Balancer for Content {
///     fn name(&self) -> &'static str {
///         Self::NAME
///     }
///
///     fn balance(&mut self, _now: Duration, _landscape: &Landscape) -> Decision {
///         Decision::WakeAfter(self.0)
///     }
/// }
///
/// let registry = Registry::standard().register::<Content>();
/// let list = [BalancerSpec { name: "ContentBalancer".into(), options: serde_json::json!({ "everySec": 5 }) }];
/// assert!(registry.build(&list, &StoreSetup::default()).is_ok());
/// ```
pub trait BalancerKind {
    /// As in the configuration, in logs and metrics.
    const NAME: &'static str;

    /// Everything has a default, and nothing unknown is accepted: `#[serde(deny_unknown_fields, default)]`.
    type Options: DeserializeOwned;

    /// Makes one.
    ///
    /// # Errors
    /// With what is allowed, as a sentence, when an option can't be.
    fn build(options: Self::Options, setup: &StoreSetup) -> Result<Box<dyn Balancer>, String>;
}

/// What all policies of a store have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreSetup {
    /// Voters of a range that the store wants, at most.
    pub voters: u32,
    /// The ranges that a store begins with.
    pub ranges: BTreeSet<u64>,
}

impl Default for StoreSetup {
    /// Three voters, one range.
    fn default() -> Self {
        Self { voters: 3, ranges: BTreeSet::from([0]) }
    }
}

/// A policy as it stands in a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BalancerSpec {
    /// Its name; a class name of BifroMQ stands for ours.
    pub name: String,
    /// Its options, a mapping; null: the defaults.
    pub options: Value,
}

impl BalancerSpec {
    /// With default options.
    #[must_use]
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), options: Value::Null }
    }
}

/// Why a policy can't be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BalancerError {
    /// There is none of this name.
    #[error("there is no balancer {name:?}; known are {}", known.join(", "))]
    Unknown {
        /// What was asked for.
        name: String,
        /// All there are.
        known: Vec<&'static str>,
    },
    /// It stands there twice.
    #[error("{name} stands there twice")]
    Twice {
        /// Which.
        name: &'static str,
    },
    /// Its options can't be.
    #[error("{name}: {reason}")]
    Options {
        /// Of which.
        name: &'static str,
        /// What is wrong and what is allowed.
        reason: String,
    },
}

type Build = fn(&Value, &StoreSetup) -> Result<Box<dyn Balancer>, String>;

struct Kind {
    name: &'static str,
    build: Build,
    always: bool,
    default: bool,
}

/// The policies by name.
#[derive(Default)]
pub struct Registry {
    kinds: Vec<Kind>,
    inert: Vec<(&'static str, &'static str)>,
}

fn build<K: BalancerKind>(options: &Value, setup: &StoreSetup) -> Result<Box<dyn Balancer>, String> {
    let options = if options.is_null() { Value::Object(serde_json::Map::new()) } else { options.clone() };
    K::build(serde_json::from_value(options).map_err(|error| error.to_string())?, setup)
}

impl Registry {
    /// Knows none.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Knows all of this crate, and those names of BifroMQ that have no effect in this version.
    #[must_use]
    pub fn standard() -> Self {
        const ONE_RANGE: &str = "has no effect: each store is one range in this version";
        Self::new()
            .always::<RedundantRangeRemoval>()
            .always::<RangeBootstrap>()
            .always::<UnreachableReplicaRemoval>()
            .default_one::<ReplicaCnt>()
            .default_one::<RangeLeader>()
            .without_effect("RangeSplitBalancer", ONE_RANGE)
            .without_effect("DistWorkerSplitBalancer", ONE_RANGE)
            .without_effect(
                "RecoveryBalancer",
                "has no effect yet: a range that lost the majority of its voters waits for them in this version",
            )
    }

    /// Knows one more, that is used when it is asked for. They are asked in the order in which they were registered.
    #[must_use]
    pub fn register<K: BalancerKind>(self) -> Self {
        self.with::<K>(false, false)
    }

    /// Knows one more, that is used when no list says otherwise.
    #[must_use]
    pub fn default_one<K: BalancerKind>(self) -> Self {
        self.with::<K>(false, true)
    }

    /// Knows one more, that is always used; a list can give it options.
    #[must_use]
    pub fn always<K: BalancerKind>(self) -> Self {
        self.with::<K>(true, true)
    }

    fn with<K: BalancerKind>(mut self, always: bool, default: bool) -> Self {
        self.kinds.retain(|kind| kind.name != K::NAME);
        self.kinds.push(Kind { name: K::NAME, build: build::<K>, always, default });
        self
    }

    /// Knows a name that may stand in a list and does nothing, and why.
    #[must_use]
    pub fn without_effect(mut self, name: &'static str, why: &'static str) -> Self {
        self.inert.push((name, why));
        self
    }

    /// All names that may stand in a list.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.kinds.iter().map(|kind| kind.name).chain(self.inert.iter().map(|(name, _)| *name))
    }

    /// The names that are used when nothing is said.
    #[must_use]
    pub fn defaults(&self) -> Vec<BalancerSpec> {
        self.kinds
            .iter()
            .filter(|kind| kind.default && !kind.always)
            .map(|kind| BalancerSpec::named(kind.name))
            .collect()
    }

    /// Our name for one: itself, or for a class of BifroMQ (`org.apache.bifromq.dist.worker.balance.ReplicaCntBalancerFactory`)
    /// its last part without `Factory`.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn canonical(&self, name: &str) -> Result<&'static str, BalancerError> {
        let last = name.trim().rsplit('.').next().unwrap_or_default();
        let last = last.strip_suffix("Factory").unwrap_or(last);
        self.names()
            .find(|known| *known == last)
            .ok_or_else(|| BalancerError::Unknown { name: name.to_owned(), known: self.names().collect() })
    }

    /// Why a name that may stand in a list does nothing.
    #[must_use]
    pub fn inert(&self, name: &str) -> Option<&'static str> {
        let name = self.canonical(name).ok()?;
        self.inert.iter().find(|(known, _)| *known == name).map(|(_, why)| *why)
    }

    /// Makes what a list says, and what is always there.
    ///
    /// # Errors
    /// With the first thing that is wrong with the list.
    pub fn build(&self, list: &[BalancerSpec], setup: &StoreSetup) -> Result<Controller, BalancerError> {
        let mut named: Vec<(&'static str, &Value)> = Vec::new();
        for spec in list {
            let name = self.canonical(&spec.name)?;
            if named.iter().any(|(other, _)| *other == name) {
                return Err(BalancerError::Twice { name });
            }
            named.push((name, &spec.options));
        }
        let mut balancers = Vec::new();
        for kind in &self.kinds {
            let options = named.iter().find(|(name, _)| *name == kind.name).map(|(_, options)| *options);
            let options = match options {
                Some(options) => options,
                None if kind.always => &Value::Null,
                None => continue,
            };
            let balancer =
                (kind.build)(options, setup).map_err(|reason| BalancerError::Options { name: kind.name, reason })?;
            balancers.push(balancer);
        }
        Ok(Controller::new(balancers))
    }
}
