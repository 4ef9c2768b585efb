use base_kv_api::KvError;

/// A name that nothing else has.
#[cfg(not(feature = "sim"))]
pub(crate) fn random() -> Result<u64, KvError> {
    getrandom::u64().map_err(|e| KvError { doing: "draw a random id", cause: e.to_string() })
}

/// From the seed of the simulation.
#[cfg(feature = "sim")]
pub(crate) fn random() -> Result<u64, KvError> {
    Ok(crate::sim::random())
}
