use crate::{Disk, Node};
use std::io;

/// How the broker dies.
#[derive(Debug)]
pub enum Fault {
    /// The broker lives, but all connections break: what the others are compared with.
    Disconnect,
    /// SIGKILL: what was written stays with the operating system.
    Kill,
    /// The disk of its data loses what was not synced, as when the power fails; then SIGKILL.
    PowerCut(Disk),
}

impl Fault {
    /// Strikes. Between the loss of the disk and the kill, `meanwhile` is called: nothing may be acknowledged then.
    ///
    /// # Errors
    /// A tool fails.
    pub fn strike(&self, node: &mut Node, meanwhile: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        match self {
            Self::Disconnect => Ok(()),
            Self::Kill => node.daemon().kill(),
            Self::PowerCut(disk) => {
                disk.shut_down()?;
                meanwhile()?;
                node.daemon().kill()?;
                disk.unmount()?;
                disk.mount()
            }
        }
    }
}
