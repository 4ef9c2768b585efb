//! `stateStoreConfig.<store>`: how many copies, and the policies that keep them.

use crate::leaf::scalar_text;
use crate::nearest::nearest;
use crate::section::{AsSlot, Leaf, Slot, section};
use crate::{NodeConfig, Source, Sources, Violation, Warning};
use base_kv_balance::{BalancerError, BalancerSpec, Registry, StoreSetup};
use serde_yaml::Value;
use std::fmt;
use std::ops::RangeInclusive;

/// The policy that counts voters, and its option for it.
const REPLICA_CNT: &str = "ReplicaCntBalancer";
const VOTERS: &str = "votersPerRange";

section! {
    /// One replicated store.
    StoreConfig {
        /// Voters of a range, at most: as many as there are nodes, when there are fewer. Odd.
        voters_per_range: u32 = 3, "votersPerRange" in 1..=15;
        /// The policies that keep the copies.
        balance: BalanceConfig = BalanceConfig::default(), "balanceConfig";
    }
}

section! {
    /// The policies of a store.
    BalanceConfig {
        /// Which, with which options.
        balancers: Balancers = Balancers::default(), "balancers";
    }
}

impl StoreConfig {
    /// What the policies are made with: `Registry::standard().build(&config.balancers(), &config.setup())`.
    #[must_use]
    pub fn setup(&self) -> StoreSetup {
        StoreSetup { voters: self.voters_per_range, ..StoreSetup::default() }
    }

    /// The policies, by name, with their options.
    #[must_use]
    pub fn balancers(&self) -> Vec<BalancerSpec> {
        self.balance.balancers.0.clone().unwrap_or_else(|| Registry::standard().defaults())
    }
}

/// A list of policies; `None`: the default ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Balancers(Option<Vec<BalancerSpec>>);

impl Balancers {
    /// Takes a list of names, or a mapping of names to options.
    fn parse(value: &Value) -> Result<Option<Vec<BalancerSpec>>, String> {
        let spec = |name: &Value, options: &Value| {
            let name = scalar_text(name).ok_or("names")?;
            let name = Registry::standard().canonical(&name).map_err(|error| unknown(&error))?.to_owned();
            match serde_json::to_value(options) {
                Ok(options @ (serde_json::Value::Null | serde_json::Value::Object(_))) => {
                    Ok(BalancerSpec { name, options })
                }
                _ => Err(format!("a mapping of names to options, and those of {name} are no mapping")),
            }
        };
        let list: Vec<BalancerSpec> = match value {
            Value::Null => return Ok(None),
            Value::Sequence(names) => {
                names.iter().map(|name| spec(name, &Value::Null)).collect::<Result<_, String>>()?
            }
            Value::Mapping(map) => {
                map.iter().map(|(name, options)| spec(name, options)).collect::<Result<_, String>>()?
            }
            one => scalar_text(one)
                .unwrap_or_default()
                .split(',')
                .filter(|name| !name.trim().is_empty())
                .map(|name| spec(&Value::from(name.trim()), &Value::Null))
                .collect::<Result<_, String>>()?,
        };
        Ok(Some(list))
    }
}

fn unknown(error: &BalancerError) -> String {
    let BalancerError::Unknown { name, known } = error else { return error.to_string() };
    let last = name.rsplit('.').next().unwrap_or_default();
    let last = last.strip_suffix("Factory").unwrap_or(last);
    match nearest(last, known.iter().copied()) {
        Some(near) => format!("a list or mapping of known balancers, and {name:?} is none; did you mean {near:?}?"),
        None => format!("a list or mapping of known balancers, and {name:?} is none; known are {}", known.join(", ")),
    }
}

impl Leaf for Balancers {
    fn set(&mut self, value: &Value) -> Result<(), String> {
        self.0 = Self::parse(value)?;
        Ok(())
    }

    fn get(&self) -> Value {
        let Some(list) = &self.0 else { return Value::Null };
        let entry = |spec: &BalancerSpec| {
            let options = serde_yaml::to_value(&spec.options).unwrap_or_default();
            (Value::from(spec.name.as_str()), options)
        };
        Value::Mapping(list.iter().map(entry).collect())
    }
}

impl AsSlot for Balancers {
    fn as_slot(&mut self, range: Option<RangeInclusive<u64>>) -> Slot<'_> {
        Slot::Leaf(Box::new(self), range)
    }
}

/// How many voters a range of a store gets at most, and who said so. Displayed as a line for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VoterCount {
    /// `dist`, `inbox` or `retain`.
    pub store: &'static str,
    /// Odd.
    pub voters: u32,
    /// Where it was said.
    pub source: Source,
}

impl fmt::Display for VoterCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = if self.voters == 1 { "" } else { "s" };
        write!(f, "{}: {} voter{s} per range at most ({})", self.store, self.voters, self.source)
    }
}

/// The stores: name, section.
const STORES: [(&str, &str); 3] =
    [("dist", "distWorkerConfig"), ("inbox", "inboxStoreConfig"), ("retain", "retainStoreConfig")];

pub(crate) fn voter_counts(config: &NodeConfig, sources: &Sources) -> Vec<VoterCount> {
    let stores = &config.state_store;
    STORES
        .into_iter()
        .zip([&stores.dist_worker, &stores.inbox_store, &stores.retain_store])
        .map(|((store, section), config)| VoterCount {
            store,
            voters: config.voters_per_range,
            source: sources.of(&format!("stateStoreConfig.{section}.{VOTERS}")),
        })
        .collect()
}

/// Settles how many voters there are, and checks the options of the policies.
pub(crate) fn resolve(
    config: &mut NodeConfig,
    sources: &mut Sources,
    violations: &mut Vec<Violation>,
    warnings: &mut Vec<Warning>,
) {
    let stores = &mut config.state_store;
    for ((_, section), store) in
        STORES.into_iter().zip([&mut stores.dist_worker, &mut stores.inbox_store, &mut stores.retain_store])
    {
        let voters_key = format!("stateStoreConfig.{section}.{VOTERS}");
        let list_key = format!("stateStoreConfig.{section}.balanceConfig.balancers");
        let list_source = sources.of(&list_key);
        let mut violate = |key: &str, message: String| {
            violations.push(Violation { key: key.to_owned(), value: None, source: sources.of(key), message });
        };
        let mut adopted = None;
        if let Some(count) = voters_option(store) {
            let said = sources.of(&voters_key);
            match count {
                Err(message) => violate(&list_key, message),
                // The same level twice must mean the same; a higher one wins.
                Ok(count) if said == Source::Default || said.rank() < list_source.rank() => adopted = Some(count),
                Ok(count) if said.rank() == list_source.rank() && count != store.voters_per_range => {
                    let message = format!(
                        "{REPLICA_CNT} says {VOTERS} {count}, and {voters_key} says {}: one of them is enough",
                        store.voters_per_range
                    );
                    violate(&list_key, message);
                }
                Ok(_) => {}
            }
        }
        if let Err(error) = Registry::standard().build(&store.balancers(), &store.setup()) {
            violate(&list_key, error.to_string());
        }
        if let Some(count) = adopted {
            store.voters_per_range = count;
            sources.set(&voters_key, list_source.clone());
        }
        let mut warn = |key: &str, message: String| {
            warnings.push(Warning { key: key.to_owned(), source: sources.of(key), message });
        };
        if store.voters_per_range.is_multiple_of(2) && store.voters_per_range > 0 {
            let even = store.voters_per_range;
            store.voters_per_range = even - 1;
            let message = format!("{even} is even and stands no more failures than {}, which holds", even - 1);
            warn(&voters_key, message);
        }
        if let Some(list) = &store.balance.balancers.0 {
            for spec in list {
                if let Some(why) = Registry::standard().inert(&spec.name) {
                    warn(&list_key, format!("{} {why}", spec.name));
                }
            }
            if !list.iter().any(|spec| spec.name == REPLICA_CNT) {
                warn(&list_key, format!("without {REPLICA_CNT} nothing adds or replaces copies of the store"));
            }
        }
    }
}

/// Takes the voters out of the options of the policy, so that one place says how many there are.
fn voters_option(store: &mut StoreConfig) -> Option<Result<u32, String>> {
    let list = store.balance.balancers.0.as_mut()?;
    let spec = list.iter_mut().find(|spec| spec.name == REPLICA_CNT)?;
    let count = spec.options.as_object_mut()?.remove(VOTERS)?;
    let number = count.as_u64().and_then(|count| u32::try_from(count).ok()).filter(|count| (1..=15).contains(count));
    Some(number.ok_or_else(|| format!("{REPLICA_CNT}: {VOTERS} = {count} must be a whole number from 1 to 15")))
}
