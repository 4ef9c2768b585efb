use base_kv::sim::Disk;
use base_types::{Incarnation, NodeId, NodeIncarnation};
use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use tempfile::TempDir;

/// What stays of a node when it is not running.
pub(crate) struct NodeDisk {
    place: u64,
    wipes: Cell<u64>,
    starts: Cell<u64>,
    kv: RefCell<Disk>,
    files: RefCell<TempDir>,
    lies: bool,
}

fn files() -> std::io::Result<TempDir> {
    let memory = std::path::Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }
}

impl NodeDisk {
    /// An empty one, for the node at a place in the cluster. One that lies says that it syncs and does not.
    pub(crate) fn new(place: usize, lies: bool) -> std::io::Result<Self> {
        let (wipes, starts) = (Cell::new(0), Cell::new(0));
        let disk = Self { place: place as u64, wipes, starts, kv: RefCell::default(), files: files()?.into(), lies };
        disk.tell_lies();
        Ok(disk)
    }

    fn tell_lies(&self) {
        if self.lies {
            self.kv.borrow().lie();
        }
    }

    /// The next run of the node. The count of its starts survives a crash: it is synced before it is used.
    pub(crate) fn start(&self) -> NodeIncarnation {
        self.starts.set(self.starts.get() + 1);
        let node = NodeId((self.place + 1) * 100 + self.wipes.get());
        NodeIncarnation { node, incarnation: Incarnation(self.starts.get()) }
    }

    pub(crate) fn kv(&self) -> Disk {
        self.kv.borrow().clone()
    }

    pub(crate) fn files(&self) -> PathBuf {
        self.files.borrow().path().to_owned()
    }

    /// The power is cut.
    pub(crate) fn crash(&self) {
        self.kv.borrow().crash();
    }

    /// A new disk: another node, at the same address.
    pub(crate) fn wipe(&self) -> std::io::Result<()> {
        self.wipes.set(self.wipes.get() + 1);
        self.starts.set(0);
        *self.kv.borrow_mut() = Disk::default();
        *self.files.borrow_mut() = files()?;
        self.tell_lies();
        Ok(())
    }
}
