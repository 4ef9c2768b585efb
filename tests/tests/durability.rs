//! A few rounds of the durability checker; `make durability` and `make powercut` run many.

use hermod_tests::durability::{Fault, Lab, Plan};
use hermod_tests::{Disk, Node, NodeSetup};
use std::io;

#[test]
fn nothing_acknowledged_is_lost_when_the_process_is_killed() -> io::Result<()> {
    let plan = Plan { rounds: 3, messages: 9_000, seed: 1 };
    let report = Lab::new(Node::start_default()?, Fault::Kill, plan)?.run(|_, _| {})?;
    assert_eq!(report.violations(), 0, "{report}");
    Ok(())
}

#[test]
fn broken_connections_lose_and_double_nothing() -> io::Result<()> {
    let plan = Plan { rounds: 3, messages: 9_000, seed: 2 };
    let report = Lab::new(Node::start_default()?, Fault::Disconnect, plan)?.run(|_, _| {})?;
    assert_eq!(report.violations(), 0, "{report}");
    Ok(())
}

#[test]
fn nothing_acknowledged_is_lost_when_the_power_fails() -> io::Result<()> {
    let disk = match Disk::new(2 << 30) {
        Ok(disk) => disk,
        Err(error) => {
            eprintln!("SKIPPED: no power cut is possible here ({error}); it needs root and loop devices");
            return Ok(());
        }
    };
    let node = Node::start(NodeSetup { data_dir: Some(disk.path().join("data")), ..NodeSetup::default() })?;
    let plan = Plan { rounds: 2, messages: 6_000, seed: 3 };
    let report = Lab::new(node, Fault::PowerCut(disk), plan)?.run(|_, _| {})?;
    assert_eq!(report.violations(), 0, "{report}");
    Ok(())
}
