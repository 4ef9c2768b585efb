//! How routes are written as keys and values.

mod route;

pub(crate) use route::{KeyKind, decode, encode_key, encode_value, is_owned};
