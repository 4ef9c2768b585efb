use super::network::Passing;
use super::{Image, Snapshot, SnapshotMeta, read_image};
use base_kv_api::KvError;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

/// A snapshot that is being received, chunk by chunk.
pub(crate) struct Incoming {
    transfer: u64,
    written: u64,
    file: File,
    path: Passing,
}

fn failed(error: impl std::fmt::Display) -> KvError {
    KvError { doing: "receive a snapshot", cause: error.to_string() }
}

impl Incoming {
    /// Takes a chunk. The first begins anew, whatever was received before; another must follow the one before. Blocks.
    pub(crate) fn chunk(
        this: Option<Self>,
        path: impl FnOnce() -> PathBuf,
        transfer: u64,
        offset: u64,
        bytes: &[u8],
    ) -> Result<Self, KvError> {
        let mut this = match this {
            Some(this) if this.transfer == transfer && this.written == offset => this,
            _ if offset == 0 => {
                let path = path();
                let file = File::create(&path).map_err(failed)?;
                Self { transfer, written: 0, file, path: Passing(path) }
            }
            _ => return Err(failed("a chunk does not follow the one before")),
        };
        this.file.write_all(bytes).map_err(failed)?;
        this.written += bytes.len() as u64;
        Ok(this)
    }

    /// All was received: checked, and on disk. The file is there as long as what is returned beside. Blocks.
    pub(crate) fn finish(self) -> Result<(Snapshot, Passing), KvError> {
        self.file.sync_all().map_err(failed)?;
        let applied = read_image(&self.path.0, &mut |_, _| Ok(()))?;
        let meta = SnapshotMeta { last_log_id: applied.log_id, last_membership: applied.membership };
        Ok((Snapshot { meta, snapshot: Image::File(self.path.0.clone()) }, self.path))
    }
}
