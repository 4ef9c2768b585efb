//! Two leaders never acknowledge for one range (design P5): a term has one leader at most. Election safety, Ongaro and Ousterhout, "In search of an
//! understandable consensus algorithm", figure 3.

use crate::history::History;

pub(crate) fn check(history: &History) -> Vec<String> {
    let several = history.leaders.iter().filter(|(_, replicas)| replicas.len() > 1);
    several.map(|((store, range, term), replicas)| format!("{store} {range} term {term}: {replicas:?}")).collect()
}
