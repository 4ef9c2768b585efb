use crate::Node;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

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

/// An ext4 file system on a loop device.
#[derive(Debug)]
pub struct Disk {
    scratch: TempDir,
}

impl Disk {
    /// Makes and mounts one of that many bytes.
    ///
    /// # Errors
    /// It may not be: this needs root, loop devices, and mkfs.ext4.
    pub fn new(bytes: u64) -> io::Result<Self> {
        let disk = Self { scratch: TempDir::with_prefix("hermod-disk-")? };
        File::create(disk.image())?.set_len(bytes)?;
        std::fs::create_dir(disk.path())?;
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(disk.image()))?;
        disk.mount()?;
        Ok(disk)
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.scratch.path().join("mnt")
    }

    fn image(&self) -> PathBuf {
        self.scratch.path().join("image")
    }

    fn mount(&self) -> io::Result<()> {
        run(Command::new("mount").args(["-o", "loop"]).arg(self.image()).arg(self.path()))
    }

    fn unmount(&self) -> io::Result<()> {
        run(Command::new("umount").arg(self.path()))
    }

    /// `EXT4_IOC_SHUTDOWN` with `EXT4_GOING_FLAGS_NOLOGFLUSH`: from now on every write fails, and what neither fsync nor the
    /// journal has brought to the disk is lost.
    fn shut_down(&self) -> io::Result<()> {
        const SHUTDOWN: &str = "import fcntl, os, struct, sys\n\
             fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack('I', 2))";
        run(Command::new("python3").args(["-c", SHUTDOWN]).arg(self.path()))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.unmount();
    }
}

fn run(command: &mut Command) -> io::Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let program = Path::new(command.get_program()).display().to_string();
    Err(io::Error::other(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim())))
}
