use crate::password::{PasswordError, check_hash};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

/// Why a text is no file of users, or a user cannot be put into it.
#[derive(Debug, thiserror::Error)]
pub enum UsersError {
    /// The file cannot be read or written.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// A line is not `name:hash`.
    #[error("line {line}: must be `name:hash`")]
    NoUser {
        /// Counted from 1.
        line: usize,
    },
    /// A hash is none.
    #[error("line {line}: {source}")]
    Hash {
        /// Counted from 1.
        line: usize,
        /// Why.
        source: PasswordError,
    },
    /// The same name twice.
    #[error("line {line}: {name:?} has a line already")]
    Twice {
        /// Counted from 1.
        line: usize,
        /// Whose.
        name: String,
    },
    /// A name that cannot stand in the file.
    #[error(
        "a user name must have 1 to 65535 bytes, no control characters, no `#` at its start and no blanks around it"
    )]
    Name,
    /// There is a user of this name already.
    #[error("there is a user {0:?} already; `passwd` changes the password")]
    Exists(String),
    /// There is no such user.
    #[error("there is no user {0:?}")]
    Missing(String),
    /// Nobody is in the file.
    #[error("there is no user in it; add one with `hermod user add`")]
    Empty,
}

/// A file of users: one `name:hash` on a line, hashes in PHC form (`$argon2id$…`). Empty lines and lines that start with `#` are
/// kept as they are.
#[derive(Clone, Debug, Default)]
pub struct Users {
    lines: Vec<String>,
    /// Name to line and hash.
    users: BTreeMap<String, (usize, String)>,
}

impl Users {
    /// Reads a text.
    ///
    /// # Errors
    /// With the first line that is wrong.
    pub fn parse(text: &str) -> Result<Self, UsersError> {
        let mut users = Self::default();
        for (index, line) in text.lines().enumerate() {
            users.lines.push(line.to_owned());
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let number = index + 1;
            // A hash has no colon, a name may.
            let (name, hash) = line.rsplit_once(':').ok_or(UsersError::NoUser { line: number })?;
            if !is_name(name) {
                return Err(UsersError::NoUser { line: number });
            }
            check_hash(hash).map_err(|source| UsersError::Hash { line: number, source })?;
            if users.users.insert(name.to_owned(), (index, hash.to_owned())).is_some() {
                return Err(UsersError::Twice { line: number, name: name.to_owned() });
            }
        }
        Ok(users)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read, or is wrong.
    pub fn read(path: &Path) -> Result<Self, UsersError> {
        Self::parse(&std::fs::read_to_string(path)?)
    }

    /// Writes the file: whole or not at all, readable for its owner only.
    ///
    /// # Errors
    /// When it cannot be written; it is then as it was.
    pub fn write(&self, path: &Path) -> Result<(), UsersError> {
        let mut text = self.lines.join("\n");
        if !text.is_empty() {
            text.push('\n');
        }
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(format!(".{}.tmp", std::process::id()));
        let temporary = Path::new(&temporary);
        let outcome = write_new(temporary, &text).and_then(|()| std::fs::rename(temporary, path));
        if outcome.is_err() {
            // What is left of a failed attempt is of no use to anybody.
            let _ = std::fs::remove_file(temporary);
        }
        Ok(outcome?)
    }

    /// The hash of a user's password.
    #[must_use]
    pub fn hash(&self, name: &str) -> Option<&str> {
        self.users.get(name).map(|(_, hash)| hash.as_str())
    }

    /// Somebody's hash.
    pub(crate) fn any_hash(&self) -> Option<&str> {
        self.users.values().next().map(|(_, hash)| hash.as_str())
    }

    /// The names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.users.keys().map(String::as_str)
    }

    /// Whether nobody is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// Adds a user.
    ///
    /// # Errors
    /// When there is one of that name, or the name cannot stand in the file.
    pub fn add(&mut self, name: &str, hash: &str) -> Result<(), UsersError> {
        if !is_name(name) {
            return Err(UsersError::Name);
        }
        if self.users.contains_key(name) {
            return Err(UsersError::Exists(name.to_owned()));
        }
        self.users.insert(name.to_owned(), (self.lines.len(), hash.to_owned()));
        self.lines.push(format!("{name}:{hash}"));
        Ok(())
    }

    /// Gives a user another password.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn change(&mut self, name: &str, hash: &str) -> Result<(), UsersError> {
        let (line, old) = self.users.get_mut(name).ok_or_else(|| UsersError::Missing(name.to_owned()))?;
        if let Some(text) = self.lines.get_mut(*line) {
            *text = format!("{name}:{hash}");
        }
        hash.clone_into(old);
        Ok(())
    }

    /// Removes a user.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn remove(&mut self, name: &str) -> Result<(), UsersError> {
        let (gone, _) = self.users.remove(name).ok_or_else(|| UsersError::Missing(name.to_owned()))?;
        self.lines.remove(gone);
        for (line, _) in self.users.values_mut().filter(|(line, _)| *line > gone) {
            *line -= 1;
        }
        Ok(())
    }
}

fn write_new(path: &Path, text: &str) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 65_535
        && name.trim() == name
        && !name.starts_with('#')
        && !name.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{HashCost, hash_password};

    fn hash() -> String {
        hash_password(b"x", HashCost::minimal()).unwrap()
    }

    #[test]
    fn editing_keeps_what_it_does_not_touch() {
        let (one, two) = (hash(), hash());
        let mut users = Users::parse(&format!("# staff\nann:{one}\n\nbob:b:{one}\n")).unwrap();
        users.add("eve", &two).unwrap();
        users.change("ann", &two).unwrap();
        users.remove("bob:b").unwrap();
        assert!(matches!(users.add("ann", &one), Err(UsersError::Exists(_))));
        assert!(matches!(users.remove("bob"), Err(UsersError::Missing(_))));
        users.change("eve", &one).unwrap();

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users");
        users.write(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("# staff\nann:{two}\n\neve:{one}\n"));
        assert_eq!(Users::read(&path).unwrap().names().collect::<Vec<_>>(), ["ann", "eve"]);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn lines_that_are_no_users_are_refused() {
        let hash = hash();
        for (text, part) in [
            ("ann", "line 1: must be"),
            ("\nann:secret", "line 2: "),
            (&*format!(":{hash}"), "line 1: must be"),
            (&*format!("ann:{hash}\nann:{hash}"), "line 2: \"ann\" has"),
        ] {
            let error = Users::parse(text).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        for name in ["", "#a", "a\nb", " a", "a\u{7f}"] {
            assert!(matches!(Users::default().add(name, &hash), Err(UsersError::Name)), "{name:?}");
        }
    }
}
