//! A password from a person or a pipe, never from an argument: those can be seen by everybody on the machine.

use super::CliError;
use node_config::Secret;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use std::io::{BufRead, IsTerminal, Write};
use std::path::Path;

/// A new password: typed twice at a terminal, else one line of standard input, or what is in a file.
pub(super) fn new_password(file: Option<&Path>) -> Result<Secret, CliError> {
    if let Some(path) = file {
        return from_file(path);
    }
    if !std::io::stdin().is_terminal() {
        return line();
    }
    let first = ask("Password: ")?;
    if ask("Again: ")? == first { Ok(first) } else { Err(CliError::PasswordsDiffer) }
}

/// What is in a file, without the line end.
pub(super) fn from_file(path: &Path) -> Result<Secret, CliError> {
    let what = format!("cannot read the password in {}", path.display());
    let text = std::fs::read_to_string(path).map_err(CliError::io(what))?;
    Ok(Secret::new(text.trim_end_matches(['\r', '\n'])))
}

fn line() -> Result<Secret, CliError> {
    let mut text = String::new();
    std::io::stdin().lock().read_line(&mut text).map_err(CliError::io("cannot read a password from standard input"))?;
    Ok(Secret::new(text.trim_end_matches(['\r', '\n'])))
}

fn ask(prompt: &str) -> Result<Secret, CliError> {
    eprint!("{prompt}");
    let hidden = Hidden::new()?;
    let answer = line();
    drop(hidden);
    eprintln!();
    answer
}

/// What is typed is not shown as long as this lives.
struct Hidden(Termios);

impl Hidden {
    fn new() -> Result<Self, CliError> {
        let what = "cannot turn off the echo of the terminal";
        let before = tcgetattr(std::io::stdin()).map_err(|error| CliError::io(what)(error.into()))?;
        let mut silent = before.clone();
        silent.local_modes -= LocalModes::ECHO;
        tcsetattr(std::io::stdin(), OptionalActions::Now, &silent).map_err(|error| CliError::io(what)(error.into()))?;
        std::io::stderr().flush().map_err(CliError::io(what))?;
        Ok(Self(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // Nothing better can be done when it fails.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}
