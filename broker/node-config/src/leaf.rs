use crate::section::{AsSlot, Leaf, Slot};
use crate::{Cidr, Hosts};
use serde_yaml::Value;
use std::ops::RangeInclusive;
use std::path::PathBuf;

/// A scalar as a person wrote it; `None` for lists and mappings.
pub(crate) fn scalar_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

macro_rules! leaf_slot {
    ($($type:ty),*) => { $(
        impl AsSlot for $type {
            fn as_slot(&mut self, range: Option<RangeInclusive<u64>>) -> Slot<'_> {
                Slot::Leaf(Box::new(self), range)
            }
        }
    )* };
}

leaf_slot!(bool, u16, u32, u64, String, PathBuf, Option<String>, Option<PathBuf>, Hosts, Vec<Cidr>);

impl Leaf for bool {
    fn set(&mut self, value: &Value) -> Result<(), String> {
        *self = value.as_bool().ok_or("true or false")?;
        Ok(())
    }

    fn get(&self) -> Value {
        Value::Bool(*self)
    }
}

macro_rules! whole_number {
    ($($type:ty),*) => { $(
        impl Leaf for $type {
            fn set(&mut self, value: &Value) -> Result<(), String> {
                *self = value
                    .as_u64()
                    .and_then(|number| Self::try_from(number).ok())
                    .ok_or_else(|| format!("a whole number from {} to {}", Self::MIN, Self::MAX))?;
                Ok(())
            }

            fn get(&self) -> Value {
                Value::from(*self)
            }
        }
    )* };
}
whole_number!(u16, u32, u64);

impl Leaf for String {
    fn set(&mut self, value: &Value) -> Result<(), String> {
        *self = scalar_text(value).filter(|text| !text.contains('\0')).ok_or("a text")?;
        Ok(())
    }

    fn get(&self) -> Value {
        Value::String(self.clone())
    }
}

impl Leaf for PathBuf {
    fn set(&mut self, value: &Value) -> Result<(), String> {
        *self = scalar_text(value).filter(|text| !text.is_empty() && !text.contains('\0')).ok_or("a path")?.into();
        Ok(())
    }

    fn get(&self) -> Value {
        Value::String(self.display().to_string())
    }
}

macro_rules! absent_when_empty {
    ($($type:ty),*) => { $(
        impl Leaf for Option<$type> {
            fn set(&mut self, value: &Value) -> Result<(), String> {
                if value.is_null() || value.as_str() == Some("") {
                    *self = None;
                    return Ok(());
                }
                let mut inner = <$type>::default();
                inner.set(value)?;
                *self = Some(inner);
                Ok(())
            }

            fn get(&self) -> Value {
                self.as_ref().map_or(Value::Null, Leaf::get)
            }
        }
    )* };
}
absent_when_empty!(String, PathBuf);

/// The texts of a list; one scalar is a list of one, and a text may hold several between commas.
pub(crate) fn texts(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Null => Some(Vec::new()),
        Value::Sequence(items) => items.iter().map(scalar_text).collect(),
        other => Some(
            scalar_text(other)?.split(',').map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect(),
        ),
    }
}

impl Leaf for Hosts {
    fn set(&mut self, value: &Value) -> Result<(), String> {
        let allowed = || "an IP address, `localhost`, `*`, or a list of them".to_owned();
        *self = Self::parse(&texts(value).ok_or_else(allowed)?).map_err(|_| allowed())?;
        Ok(())
    }

    fn get(&self) -> Value {
        list(self.iter().map(|address| address.to_string()))
    }
}

impl Leaf for Vec<Cidr> {
    fn set(&mut self, value: &Value) -> Result<(), String> {
        let allowed = || "a list of networks such as 10.0.0.0/8 or single addresses".to_owned();
        let texts = texts(value).ok_or_else(allowed)?;
        *self = texts.iter().map(|text| text.parse()).collect::<Result<_, _>>().map_err(|_| allowed())?;
        Ok(())
    }

    fn get(&self) -> Value {
        Value::Sequence(self.iter().map(|network| Value::String(network.to_string())).collect())
    }
}

fn list(items: impl Iterator<Item = String>) -> Value {
    let mut items: Vec<Value> = items.map(Value::String).collect();
    if items.len() == 1 { items.remove(0) } else { Value::Sequence(items) }
}

/// An enum whose values are words in the file, in any case.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $( $(#[$word_doc:meta])* $variant:ident = $word:literal, )* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub enum $name { $( $(#[$word_doc])* $variant, )* }

        impl $name {
            /// The word that stands for it in a file.
            #[must_use]
            pub fn word(self) -> &'static str {
                match self { $( Self::$variant => $word, )* }
            }
        }

        impl $crate::section::Leaf for $name {
            fn set(&mut self, value: &serde_yaml::Value) -> Result<(), String> {
                let text = $crate::leaf::scalar_text(value).unwrap_or_default();
                $( if text.eq_ignore_ascii_case($word) { *self = Self::$variant; return Ok(()); } )*
                let words: &[&str] = &[$($word),*];
                Err(format!("one of {}", words.join(", ")))
            }

            fn get(&self) -> serde_yaml::Value {
                match self.word() {
                    "true" => serde_yaml::Value::Bool(true),
                    "false" => serde_yaml::Value::Bool(false),
                    word => serde_yaml::Value::from(word),
                }
            }
        }

        impl $crate::section::AsSlot for $name {
            fn as_slot(&mut self, range: Option<std::ops::RangeInclusive<u64>>) -> $crate::section::Slot<'_> {
                $crate::section::Slot::Leaf(Box::new(self), range)
            }
        }
    };
}
pub(crate) use words;
