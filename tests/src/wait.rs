use std::time::{Duration, Instant};
use std::{io, thread};

/// Looks again and again until `condition` holds.
///
/// # Errors
/// [`io::ErrorKind::TimedOut`], naming `what`, when it does not within `limit`; and those of `condition`.
pub fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> io::Result<bool>) -> io::Result<()> {
    let start = Instant::now();
    while !condition()? {
        if start.elapsed() > limit {
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("{what}: not within {limit:?}")));
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
