use serde_yaml::Value;
use std::ops::RangeInclusive;

/// One value with a key.
pub(crate) trait Leaf {
    /// Takes a value.
    ///
    /// # Errors
    /// With what is allowed, as the end of the sentence "… must be".
    fn set(&mut self, value: &Value) -> Result<(), String>;

    /// The value as it would stand in a file.
    fn get(&self) -> Value;

    /// Whether what was said must not be repeated, not even when it is wrong.
    fn is_secret(&self) -> bool {
        false
    }
}

impl<L: Leaf> Leaf for &mut L {
    fn set(&mut self, value: &Value) -> Result<(), String> {
        L::set(self, value)
    }

    fn get(&self) -> Value {
        L::get(self)
    }

    fn is_secret(&self) -> bool {
        L::is_secret(self)
    }
}

/// Keys that belong together: a mapping in the file.
pub(crate) trait Section {
    /// Its keys, in the order in which they are printed.
    fn keys(&self) -> Vec<&'static str>;

    /// What stands behind a key.
    fn slot(&mut self, key: &str) -> Option<Slot<'_>>;
}

/// What stands behind a key.
pub(crate) enum Slot<'a> {
    /// A value and, for a number, its range.
    Leaf(Box<dyn Leaf + 'a>, Option<RangeInclusive<u64>>),
    /// More keys.
    Section(&'a mut dyn Section),
}

/// Lets `section!` treat values and sections alike.
pub(crate) trait AsSlot {
    fn as_slot(&mut self, range: Option<RangeInclusive<u64>>) -> Slot<'_>;
}

/// Walks a dotted path. The empty path is the section itself.
pub(crate) fn find<'a>(section: &'a mut dyn Section, path: &str) -> Option<Slot<'a>> {
    if path.is_empty() {
        return Some(Slot::Section(section));
    }
    match path.split_once('.') {
        None => section.slot(path),
        Some((key, rest)) => match section.slot(key)? {
            Slot::Section(inner) => find(inner, rest),
            Slot::Leaf(..) => None,
        },
    }
}

/// The dotted paths of all values.
pub(crate) fn paths(section: &mut dyn Section, prefix: &str, out: &mut Vec<String>) {
    for key in section.keys() {
        let path = join(prefix, key);
        match section.slot(key) {
            Some(Slot::Section(inner)) => paths(inner, &path, out),
            Some(Slot::Leaf(..)) => out.push(path),
            None => {}
        }
    }
}

pub(crate) fn join(prefix: &str, key: &str) -> String {
    if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") }
}

/// A struct of settings: for each field its documentation, type, default, key and, for numbers, range.
macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $(
        $(#[$field_doc:meta])* $field:ident: $type:ty = $default:expr, $key:literal $(in $range:expr)?;
    )* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name { $( $(#[$field_doc])* pub $field: $type, )* }

        impl Default for $name {
            fn default() -> Self {
                Self { $( $field: $default, )* }
            }
        }

        impl $crate::section::Section for $name {
            fn keys(&self) -> Vec<&'static str> {
                vec![$($key),*]
            }

            fn slot(&mut self, key: &str) -> Option<$crate::section::Slot<'_>> {
                use $crate::section::AsSlot;
                match key {
                    $( $key => Some(self.$field.as_slot(section!(@range $($range)?))), )*
                    _ => None,
                }
            }
        }

        $crate::section::section!(@as_slot $name);
    };
    (@as_slot $name:ident) => {
        impl $crate::section::AsSlot for $name {
            fn as_slot(&mut self, _: Option<std::ops::RangeInclusive<u64>>) -> $crate::section::Slot<'_> {
                $crate::section::Slot::Section(self)
            }
        }
    };
    (@range) => { None };
    (@range $range:expr) => { Some($range) };
}
pub(crate) use section;
