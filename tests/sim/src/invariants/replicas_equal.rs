//! After the faults all replicas of a range hold the same (design P9, state machine safety): `replica mismatch` in faults.md §1.

use crate::history::History;

pub(crate) fn check(history: &History) -> Vec<String> {
    let differ = history.replicas.iter().filter(|(_, sums)| !sums.iter().all(|sum| sum.is_ok() && *sum == sums[0]));
    differ.map(|(store, sums)| format!("{store}: {sums:?}")).collect()
}
