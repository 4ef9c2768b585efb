use base_types::{Incarnation, NodeId, NodeIncarnation};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The name of a node and the count of its starts, in the file `identity` of its data directory.
pub struct Identity;

/// Why a node does not know who it is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// Another process runs as this node. Nothing was touched.
    #[error("the data directory {} is in use by another process", path.display())]
    InUse {
        /// The data directory.
        path: PathBuf,
    },
    /// The file is not one that this build can read. Nothing was touched.
    #[error("{} is not an identity of this format: it says {found:?}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What it says, shortened.
        found: String,
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
    /// The system gave no random bytes.
    #[error("can't draw a random node id: {0}")]
    Random(String),
}

const FILE: &str = "identity";
/// The lock that whoever uses the directory holds while he runs; here it is taken in order to see that nobody does.
const LOCK: &str = "LOCK";
const MAGIC: &str = "hermod-node 1";

impl Identity {
    /// Who this run of the node is: a random id when the directory is new, and one incarnation more than at the last start.
    /// It is on disk before it is used.
    ///
    /// # Errors
    /// When another process uses the directory, the file is of another format, or the file system refuses.
    pub fn load_or_create(data_dir: &Path) -> Result<NodeIncarnation, IdentityError> {
        let io = |doing, path: &Path| {
            let path = path.to_owned();
            move |source| IdentityError::Io { doing, path, source }
        };
        std::fs::create_dir_all(data_dir).map_err(io("make", data_dir))?;
        let lock_path = data_dir.join(LOCK);
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&lock_path);
        let lock = lock.map_err(io("open", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(IdentityError::InUse { path: data_dir.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(io("lock", &lock_path)(source)),
        }
        let path = data_dir.join(FILE);
        let node = match std::fs::read(&path) {
            Ok(bytes) => {
                let text = String::from_utf8_lossy(&bytes);
                let found = || text.chars().take(64).collect();
                let before =
                    parse(&text).ok_or_else(|| IdentityError::Format { path: path.clone(), found: found() })?;
                NodeIncarnation { incarnation: Incarnation(before.incarnation.0 + 1), ..before }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let id = getrandom::u64().map_err(|error| IdentityError::Random(error.to_string()))?;
                NodeIncarnation { node: NodeId(id), incarnation: Incarnation(1) }
            }
            Err(error) => return Err(io("read", &path)(error)),
        };
        let text = format!("{MAGIC}\nnode {}\nincarnation {}\n", node.node, node.incarnation.0);
        replace(data_dir, &path, text.as_bytes()).map_err(io("write", &path))?;
        Ok(node)
    }
}

fn parse(text: &str) -> Option<NodeIncarnation> {
    let mut lines = text.lines();
    if lines.next()? != MAGIC {
        return None;
    }
    let node = u64::from_str_radix(lines.next()?.strip_prefix("node ")?, 16).ok()?;
    let incarnation = lines.next()?.strip_prefix("incarnation ")?.parse().ok()?;
    // Without its last line break it may be half a number.
    (text.ends_with('\n') && lines.next().is_none() && incarnation < u64::MAX)
        .then_some(NodeIncarnation { node: NodeId(node), incarnation: Incarnation(incarnation) })
}

/// A crash leaves the old file or the new one, never a part.
fn replace(dir: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_keeps_its_id_and_counts_its_starts() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("new/data");
        let first = Identity::load_or_create(&data).unwrap();
        let second = Identity::load_or_create(&data).unwrap();
        assert_eq!((first.incarnation, second.incarnation), (Incarnation(1), Incarnation(2)));
        assert_eq!(first.node, second.node);
        let other = Identity::load_or_create(&dir.path().join("other")).unwrap();
        assert_ne!(first.node, other.node);
    }

    #[test]
    fn a_directory_in_use_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let first = Identity::load_or_create(dir.path()).unwrap();
        let lock = File::open(dir.path().join(LOCK)).unwrap();
        lock.lock().unwrap();
        assert!(matches!(Identity::load_or_create(dir.path()), Err(IdentityError::InUse { .. })));
        drop(lock);
        let second = Identity::load_or_create(dir.path()).unwrap();
        assert_eq!(second.incarnation.0, first.incarnation.0 + 1);
    }

    #[test]
    fn what_is_no_identity_is_refused_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let good = "hermod-node 1\nnode 00000000000000ff\nincarnation 12\n";
        for bad in ["", "hermod-node 2\nnode 1\nincarnation 1\n", &good[..good.len() - 1], "hermod-node 1\nnode x\n"] {
            std::fs::write(dir.path().join(FILE), bad).unwrap();
            let error = Identity::load_or_create(dir.path()).unwrap_err();
            assert!(matches!(error, IdentityError::Format { .. }), "{error}");
            assert_eq!(std::fs::read_to_string(dir.path().join(FILE)).unwrap(), bad);
        }
        std::fs::write(dir.path().join(FILE), good).unwrap();
        let node = Identity::load_or_create(dir.path()).unwrap();
        assert_eq!(node, NodeIncarnation { node: NodeId(255), incarnation: Incarnation(13) });
    }

    #[test]
    fn a_crash_before_the_rename_leaves_the_old_identity() {
        let dir = tempfile::tempdir().unwrap();
        let first = Identity::load_or_create(dir.path()).unwrap();
        std::fs::write(dir.path().join("identity.new"), "hermod-no").unwrap();
        let second = Identity::load_or_create(dir.path()).unwrap();
        assert_eq!((second.node, second.incarnation.0), (first.node, 2));
    }
}
