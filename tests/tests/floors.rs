//! The arrows between the crates, as `ARCHITECTURE.md` draws them, read from the manifests.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A crate may depend on crates of lower floors only.
const FLOORS: &[&[&str]] = &[
    &["base-types", "base2histogram"],
    &[
        "base-kv-api",
        "base-rpc",
        "dist-api",
        "inbox-api",
        "mqtt-codec",
        "mqtt-transport",
        "retain-api",
        "telemetry",
        "topic-trie",
    ],
    &["base-cluster", "base-kv-balance", "dist-worker", "inbox-store", "mqtt-auth", "mqtt-session", "retain-store"],
    &["base-kv", "node-config"],
    &["hermod"],
    &["hermod-tests"],
];

/// Dependencies that only these crates may have, tests and benches apart.
const ONLY: &[(&str, &[&str])] = &[("openraft", &["base-kv"]), ("rocksdb", &["base-kv"])];

/// Cores: no runtime, no clock of a runtime.
const WITHOUT_TOKIO: &[&str] =
    &["base-types", "base-kv-api", "base-kv-balance", "mqtt-codec", "mqtt-session", "topic-trie"];

#[derive(Debug, Default)]
struct Manifest {
    dependencies: Vec<String>,
    dev_dependencies: Vec<String>,
    has_lints: bool,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// All crates of the workspace, by name.
fn manifests() -> BTreeMap<String, Manifest> {
    let workspace = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let members = workspace.split_once("members = [").unwrap().1.split_once(']').unwrap().0;
    let paths = members.split(',').map(|member| member.trim().trim_matches('"')).filter(|member| !member.is_empty());
    paths.map(|path| parse(&fs::read_to_string(root().join(path).join("Cargo.toml")).unwrap())).collect()
}

fn parse(text: &str) -> (String, Manifest) {
    let (mut name, mut manifest, mut section) = (String::new(), Manifest::default(), "");
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(header) = line.strip_prefix('[') {
            section = header.trim_matches(['[', ']']);
            continue;
        }
        let (key, value) = line.split_once('=').map_or((line, ""), |(key, value)| (key.trim(), value.trim()));
        let package = || key.split('.').next().unwrap().to_owned();
        match section {
            "package" if key == "name" => name = value.trim_matches('"').to_owned(),
            "dependencies" => manifest.dependencies.push(package()),
            "dev-dependencies" => manifest.dev_dependencies.push(package()),
            "lints" => manifest.has_lints |= key == "workspace" && value == "true",
            _ => {}
        }
    }
    (name, manifest)
}

fn floor(name: &str) -> Option<usize> {
    FLOORS.iter().position(|crates| crates.contains(&name))
}

#[test]
fn every_crate_has_a_floor_and_the_lints() {
    let manifests = manifests();
    for (name, manifest) in &manifests {
        assert!(floor(name).is_some(), "{name} has no floor");
        assert!(manifest.has_lints, "{name} does not take the lint table of the workspace");
    }
    for name in FLOORS.iter().copied().flatten() {
        assert!(manifests.contains_key(*name), "{name} is no crate");
    }
}

#[test]
fn arrows_go_down_only() {
    let manifests = manifests();
    for (name, manifest) in &manifests {
        for dependency in manifest.dependencies.iter().chain(&manifest.dev_dependencies) {
            if manifests.contains_key(dependency) {
                assert!(floor(dependency) < floor(name), "{name} depends on {dependency}, which is not below it");
            }
        }
    }
}

#[test]
fn raft_and_the_disk_are_seen_by_one_crate() {
    for (name, manifest) in manifests() {
        for (dependency, allowed) in ONLY {
            let seen = manifest.dependencies.iter().any(|one| one == dependency);
            assert!(!seen || allowed.contains(&name.as_str()), "{name} depends on {dependency}");
        }
    }
}

#[test]
fn cores_have_no_runtime() {
    let manifests = manifests();
    for name in WITHOUT_TOKIO {
        let dependencies = &manifests[*name].dependencies;
        assert!(!dependencies.iter().any(|dependency| dependency.starts_with("tokio")), "{name} depends on tokio");
    }
}

#[test]
fn openraft_is_pinned_and_commits_with_a_quorum() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let versions: Vec<&str> = lock
        .split("[[package]]")
        .filter(|package| package.contains("name = \"openraft\"\n"))
        .filter_map(|package| package.split("version = \"").nth(1)?.split('"').next())
        .collect();
    // Below 0.10.0-alpha.25 it can commit without a quorum.
    let [version] = versions[..] else { panic!("{versions:?}") };
    let alpha: u32 =
        version.strip_prefix("0.10.0-alpha.").expect("the line that base-kv is written for").parse().unwrap();
    assert!(alpha >= 25, "{version}");
    let workspace = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    assert!(workspace.contains(&format!("openraft = \"={version}\"")), "the pin is not exact");
}
