use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

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

    /// Mounts it again.
    ///
    /// # Errors
    /// The system refuses.
    pub fn mount(&self) -> io::Result<()> {
        run(Command::new("mount").args(["-o", "loop"]).arg(self.image()).arg(self.path()))
    }

    /// Unmounts it: nobody may use it any more.
    ///
    /// # Errors
    /// It is in use.
    pub fn unmount(&self) -> io::Result<()> {
        run(Command::new("umount").arg(self.path()))
    }

    /// `EXT4_IOC_SHUTDOWN` with `EXT4_GOING_FLAGS_NOLOGFLUSH`: from now on every write fails, and what neither fsync nor the
    /// journal has brought to the disk is lost.
    ///
    /// # Errors
    /// It has no python3, or may not.
    pub fn shut_down(&self) -> io::Result<()> {
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

/// Runs a tool to its end; an error says what it wrote.
pub(crate) fn run(command: &mut Command) -> io::Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let program = Path::new(command.get_program()).display().to_string();
    Err(io::Error::other(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim())))
}
