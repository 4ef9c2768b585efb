use std::io::{self, Read};
use std::path::Path;
use std::process::{self, Command, ExitCode, Stdio};
use std::{env, fs, thread};
use tempfile::TempDir;

/// What this process may do to the network: found out at the start.
#[derive(Debug)]
pub enum Sandbox {
    /// It runs in network, mount and process namespaces of its own, which go with it.
    Inside(Scratch),
    /// Namespaces are not permitted, for this reason.
    Denied(Scratch, String),
}

/// The directory of a run. It goes with it, unless something in it is to be looked at.
#[derive(Debug)]
pub struct Scratch(TempDir);

impl Scratch {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

/// Set inside, to the directory of the run.
const INSIDE: &str = "HERMOD_LAB_SANDBOX";
const UNSHARE: &[&str] = &["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];

impl Sandbox {
    /// Runs this program again in namespaces of its own, and answers with how that ended; inside, or where it is not permitted,
    /// goes on. Whatever becomes of the outer process, nothing of the inner one stays: no process, mount, interface or file.
    ///
    /// # Errors
    /// A tool fails that worked a moment ago.
    pub fn enter() -> io::Result<Result<Self, ExitCode>> {
        if env::var_os(INSIDE).is_some() {
            return inside().map(Ok);
        }
        let scratch = || TempDir::with_prefix("hermod-lab-").map(Scratch);
        let tried = Command::new("unshare").args(UNSHARE).arg("true").output();
        let why = match tried {
            Ok(output) if output.status.success() => None,
            Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(error) => Some(format!("unshare: {error}")),
        };
        if let Some(why) = why {
            return Ok(Ok(Self::Denied(scratch()?, why)));
        }
        let scratch = scratch()?;
        let mut child = Command::new("unshare")
            .args(UNSHARE)
            .arg(env::current_exe()?)
            .args(env::args_os().skip(1))
            .env(INSIDE, scratch.path())
            .stdin(Stdio::piped())
            .spawn()?;
        // The pipe stays open as long as this process lives.
        let pipe = child.stdin.take();
        let status = child.wait()?;
        drop(pipe);
        Ok(Err(ExitCode::from(status.code().unwrap_or(1) as u8)))
    }

    /// The directory of the run.
    #[must_use]
    pub fn scratch(&self) -> &Path {
        match self {
            Self::Inside(scratch) | Self::Denied(scratch, _) => scratch.path(),
        }
    }
}

fn inside() -> io::Result<Sandbox> {
    let scratch = TempDir::with_prefix_in("run-", env::var_os(INSIDE).unwrap_or_default())?;
    let root = scratch.path().to_owned();
    thread::spawn(move || {
        // The end of the pipe is the end of the outer process.
        let _ = io::stdin().read_to_end(&mut Vec::new());
        let _ = fs::remove_dir_all(root.parent().unwrap_or(&root));
        process::exit(130);
    });
    Ok(Sandbox::Inside(Scratch(scratch)))
}
