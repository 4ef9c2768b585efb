//! An index of topic filters: finds the values of all filters that match a topic name, at a cost that does not depend on the filters
//! that don't.
//!
//! It knows no tenants and takes no locks: keep one [`TopicTrie`] per tenant, behind whatever suits its readers.

mod level;
mod trie;

pub use trie::TopicTrie;
