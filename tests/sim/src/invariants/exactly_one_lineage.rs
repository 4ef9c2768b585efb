//! First ranges are created exactly once however the nodes start (design §6): in the end each store has one range, of one lineage and epoch, and
//! so had everybody who ever led.

use crate::history::History;
use std::collections::BTreeSet;

pub(crate) fn check(history: &History) -> Vec<String> {
    let several = history.lineages.iter().filter(|(_, ranges)| ranges.len() != 1);
    let mut wrong: Vec<_> = several.map(|(store, ranges)| format!("{store}: {ranges:?}")).collect();
    let stores: BTreeSet<_> = history.led.iter().map(|(store, ..)| store).collect();
    for store in stores {
        let led: BTreeSet<_> = history.led.iter().filter(|(of, ..)| of == store).map(|(_, range, ..)| range).collect();
        if led.len() > 1 {
            wrong.push(format!("{store}: {led:?} were led"));
        }
    }
    wrong
}
