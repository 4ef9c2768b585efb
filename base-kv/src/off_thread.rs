use tokio::task::JoinError;

/// Does what blocks where no task has to wait for it. In a simulation right here: its time stands still meanwhile, and a thread would
/// come back at another moment each time.
#[cfg(not(feature = "sim"))]
pub(crate) async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
    tokio::task::spawn_blocking(work).await
}

#[cfg(feature = "sim")]
pub(crate) async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
    Ok(work())
}
