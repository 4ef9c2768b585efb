use std::fmt;
use std::path::PathBuf;

/// A secret could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the secret in {path}: {source}", path = path.display())]
pub struct SecretError {
    path: PathBuf,
    source: std::io::Error,
}

/// A text that no log, dump or error message shows.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a secret.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Takes a secret, or a reference to one: `file:PATH` stands for what is in the file, without the line end.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn resolve(text: &str) -> Result<Self, SecretError> {
        let Some(path) = text.strip_prefix("file:") else { return Ok(Self::new(text)) };
        let content = std::fs::read_to_string(path).map_err(|source| SecretError { path: path.into(), source })?;
        Ok(Self::new(content.trim_end_matches(['\r', '\n'])))
    }

    /// The text itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_show() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "Secret(***)");
    }

    #[test]
    fn a_reference_stands_for_the_file_without_its_line_end() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "hunter2\n").unwrap();
        let secret = Secret::resolve(&format!("file:{}", file.path().display())).unwrap();
        assert_eq!(secret.expose(), "hunter2");
        assert!(Secret::resolve("file:/does/not/exist").unwrap_err().to_string().contains("/does/not/exist"));
    }
}
