//! The cluster on a simulated network: the code of the nodes as it is, from the sockets to the stores; time, network, disks and chance from a
//! seed. The same seed tells the same story, to the last packet.
//!
//! A [`run`] lets three or five nodes form a cluster, lets clients publish, subscribe, take over and move about while nodes crash, lose what
//! was not synced, are cut off, lose their disks or their sense of time; then it lets them heal, and looks whether anything happened that must
//! not (`invariants`). That it would find it is shown by faults that are put in on purpose ([`Plant`]).
//!
//! What is simulated: UDP and TCP (turmoil), disks (`base_kv::sim`), clocks, the devices. What is not: MQTT on the wire, RocksDB, the broker's
//! threads. Those are for the laboratory in `tests/`, with real processes. Read [`run`], `node`, then `invariants`.

mod chance;
mod clock;
mod devices;
mod disk;
mod ears;
mod faults;
pub mod history;
mod invariants;
mod node;
mod packets;
mod plant;
mod policy;
mod run;
mod world;

pub use invariants::Finding;
pub use packets::Packets;
pub use plant::Plant;
pub use run::{Plan, Report, run};
