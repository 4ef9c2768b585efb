//! Every scenario of the load generator, briefly: nothing is lost, reordered or doubled.

use hermod_tests::load::{SCENARIOS, Target};
use hermod_tests::wire::Level;
use hermod_tests::{Node, raise_file_limit};
use std::io;
use std::time::Duration;

/// Too much for a debug build in a test run.
const LARGE: [&str; 5] = ["retained-read", "idle", "idle-subscribed", "subscriptions", "retained-set"];

fn run(level: Level) -> io::Result<()> {
    let _ = raise_file_limit();
    let node = Node::start_default()?;
    for scenario in SCENARIOS.iter().filter(|scenario| !LARGE.contains(&scenario.name)) {
        let measure = Duration::from_millis(300);
        let target = Target { address: node.mqtt(), pid: node.pid(), level, measure, disk: None };
        let figures = scenario.run(&target).map_err(|error| io::Error::other(format!("{}: {error}", scenario.name)))?;
        assert!(!figures.is_faulty(), "{}: {:?}", scenario.title, figures.found);
        assert!(figures.messages > 0, "{}: nothing was delivered", scenario.title);
    }
    Ok(())
}

#[test]
fn load_arrives_once_and_in_order_in_3_1_1() -> io::Result<()> {
    run(Level::V4)
}

#[test]
fn load_arrives_once_and_in_order_in_5_0() -> io::Result<()> {
    run(Level::V5)
}
