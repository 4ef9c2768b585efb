use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// A client program that runs: mosquitto_sub, a Python or a JavaScript client. It is killed when dropped.
#[derive(Debug)]
pub struct Tool {
    name: String,
    child: Child,
    output: File,
}

const DEADLINE: Duration = Duration::from_secs(30);

impl Tool {
    /// Starts a program with arguments.
    ///
    /// # Errors
    /// It is not installed; `scripts/setup.sh` installs it.
    pub fn start(program: impl AsRef<Path>, arguments: &[&str]) -> io::Result<Self> {
        let program = program.as_ref();
        let output = tempfile::tempfile()?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output.try_clone()?);
        let child = command.spawn().map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}; scripts/setup.sh installs it", program.display()))
        })?;
        Ok(Self { name: program.display().to_string(), child, output })
    }

    /// Runs it to its end: what it wrote.
    ///
    /// # Errors
    /// It fails, or does not end; with what it wrote.
    pub fn run(program: impl AsRef<Path>, arguments: &[&str]) -> io::Result<String> {
        Self::start(program, arguments)?.finish()
    }

    /// Waits for its end: what it wrote.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn finish(mut self) -> io::Result<String> {
        let start = Instant::now();
        loop {
            match self.child.try_wait()? {
                Some(status) if status.success() => return self.output(),
                Some(status) => {
                    return Err(io::Error::other(format!("{} ended with {status}: {}", self.name, self.output()?)));
                }
                None if start.elapsed() > DEADLINE => {
                    return Err(io::Error::other(format!("{} does not end: {}", self.name, self.output()?)));
                }
                None => thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// Waits until it has written `text`.
    ///
    /// # Errors
    /// It does not; with what it wrote.
    pub fn wait_for(&mut self, text: &str) -> io::Result<()> {
        let start = Instant::now();
        loop {
            let output = self.output()?;
            if output.contains(text) {
                return Ok(());
            }
            if start.elapsed() > DEADLINE || self.child.try_wait()?.is_some_and(|status| !status.success()) {
                return Err(io::Error::other(format!("{} does not write {text:?}: {output}", self.name)));
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// What it wrote so far.
    ///
    /// # Errors
    /// The system does not say.
    pub fn output(&self) -> io::Result<String> {
        // Reading moves the offset that the program writes at, unless the file is opened anew.
        let mut file = File::open(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&self.output)))?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        Ok(text)
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The Python that has paho-mqtt.
#[must_use]
pub fn python() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python")
}

/// A client script in `tests/clients`.
#[must_use]
pub fn script(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(name).display().to_string()
}
