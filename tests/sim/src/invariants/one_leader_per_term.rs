//! Two leaders never acknowledge for one range (design P5). Election safety: Ongaro and Ousterhout, "In search of an understandable consensus
//! algorithm", figure 3. In openraft's advanced mode a leader's name is (term, replica): within a term one with a greater name may take over
//! from a lesser one. What can be seen from outside, and must not be: that a replica leads in a term in which it has followed another one.
//! It gave that one its vote, and who campaigns begins a later term.

use crate::history::History;

pub(crate) fn check(history: &History) -> Vec<String> {
    let tell = |(store, range, term, replica): &(&str, base_kv_api::RangeId, u64, base_kv_api::ReplicaId)| {
        format!("{store} {range} term {term}: {replica} followed, and then led")
    };
    history.led_again.iter().map(tell).collect()
}
