use base_types::NodeId;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A data directory that belongs to this process.
pub(crate) struct Home {
    /// Held for its lock.
    _lock: File,
}

/// Why a store can't be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has it open. Nothing was touched.
    #[error("the data directory {} is in use by another process", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// Written by another program, or by a version of this one that this build can't read. Nothing was touched.
    #[error("the data directory {} has another format: {found}; this build reads and writes {wanted}", path.display())]
    Format {
        /// The directory.
        path: PathBuf,
        /// What is there.
        found: String,
        /// What should be there.
        wanted: String,
    },
    /// It belongs to another node. Nothing was touched.
    #[error("the data directory {} belongs to node {found}, this is node {node}", path.display())]
    OtherNode {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Who asked.
        node: NodeId,
    },
    /// The file system refused.
    #[error("can't {doing} {}: {source}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The engine failed or found damage.
    #[error(transparent)]
    Engine(#[from] base_kv_api::KvError),
    /// The range is open already, or the host was shut down.
    #[error("the range {range} of {store} can't be opened: {why}")]
    Range {
        /// The store.
        store: &'static str,
        /// The range.
        range: u64,
        /// Why not.
        why: &'static str,
    },
}

const FORMAT: &str = "FORMAT";
const MAGIC: &str = "hermod-kv 1";

/// What only this crate makes; where it is without a format marker, the directory is not ours to touch.
const OURS: [&str; 3] = ["log", "ranges", "staging"];

impl Home {
    /// Locks the directory and checks that it is of our format and of this node; a fresh one is marked.
    pub(crate) fn open(path: &Path, node: NodeId) -> Result<Self, OpenError> {
        let io = |doing, path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::Io { doing, path, source }
        };
        std::fs::create_dir_all(path).map_err(io("make", path))?;
        let lock_path = path.join("LOCK");
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&lock_path);
        let lock = lock.map_err(io("open", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::InUse { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(io("lock", &lock_path)(source)),
        }
        let format_path = path.join(FORMAT);
        let wanted = MAGIC.to_owned();
        let other = |found| OpenError::Format { path: path.to_owned(), found, wanted };
        match std::fs::read_to_string(&format_path) {
            Ok(text) => {
                let (magic, owner) = text.trim_end().split_once(" node ").unwrap_or((text.trim_end(), ""));
                if magic != MAGIC {
                    return Err(other(format!("{:?}", magic.chars().take(64).collect::<String>())));
                }
                if owner != node.to_string() {
                    return Err(OpenError::OtherNode { path: path.to_owned(), found: owner.to_owned(), node });
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if let Some(left) = OURS.iter().find(|name| path.join(name).exists()) {
                    return Err(other(format!("it has a {left:?} but no {FORMAT} file")));
                }
                write_whole(&format_path, format!("{MAGIC} node {node}\n").as_bytes())
                    .map_err(io("write", &format_path))?;
            }
            Err(error) => return Err(io("read", &format_path)(error)),
        }
        Ok(Self { _lock: lock })
    }
}

/// Writes a file so that a crash leaves either all of it or nothing.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_opened_once_and_again_after_it_was_let_go() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(dir.path(), NodeId(1)).unwrap();
        assert!(matches!(Home::open(dir.path(), NodeId(1)), Err(OpenError::InUse { .. })));
        drop(home);
        Home::open(dir.path(), NodeId(1)).unwrap();
    }

    #[test]
    fn another_format_another_node_and_a_headless_directory_are_refused_untouched() {
        let dir = tempfile::tempdir().unwrap();
        drop(Home::open(dir.path(), NodeId(1)).unwrap());
        assert!(matches!(Home::open(dir.path(), NodeId(2)), Err(OpenError::OtherNode { .. })));
        std::fs::write(dir.path().join(FORMAT), "hermod-kv 2 node 1").unwrap();
        let error = Home::open(dir.path(), NodeId(1)).err().unwrap();
        assert!(error.to_string().contains("hermod-kv 2"), "{error}");
        std::fs::remove_file(dir.path().join(FORMAT)).unwrap();
        std::fs::create_dir(dir.path().join("ranges")).unwrap();
        assert!(matches!(Home::open(dir.path(), NodeId(1)), Err(OpenError::Format { .. })));
        assert!(!dir.path().join(FORMAT).exists());
    }
}
