use super::{CliError, ConfigSource, http};
use clap::Args;
use serde_json::Value;
use std::fmt::Write as _;
use std::io::{self, Write as _};

/// Show the cluster: nodes, ranges, and what is wrong
///
/// Asks any node over its HTTP interface. Ends with 0 when everything is healthy, with 2 when something is not.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  hermod status
  hermod status --api 10.0.0.2:8091 --json")]
pub struct StatusArgs {
    /// The HTTP interface of a node; without it, that of the configuration
    #[arg(long, value_name = "HOST:PORT")]
    api: Option<String>,
    /// Print what the node answered, as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    source: ConfigSource,
}

/// Take a node out of the cluster that will not come back as it is
///
/// All nodes treat it as dead at once, until it is started again.
#[derive(Args, Debug)]
pub struct EvictArgs {
    /// The node, as `hermod status` shows it
    node: String,
    /// The HTTP interface of another node, on this machine; without it, that of the configuration
    #[arg(long, value_name = "HOST:PORT")]
    api: Option<String>,
    #[command(flatten)]
    source: ConfigSource,
}

/// Runs `hermod evict`.
///
/// # Errors
/// When the node can't be asked, or does not know the other one.
pub fn run_evict(args: &EvictArgs) -> Result<(), CliError> {
    let api = api(args.api.as_ref(), &args.source)?;
    let path = format!("/cluster/evict?node={}", args.node);
    // The token of the node that is asked, if the configuration says one.
    let token = args.source.load()?.api_token;
    runtime()?.block_on(http::post_json(&api, &path, token.as_ref().map(node_config::Secret::expose)))?;
    println!("node {} is treated as dead until it is started again", args.node);
    Ok(())
}

fn runtime() -> Result<tokio::runtime::Runtime, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(CliError::io("a runtime could not be started"))
}

fn api(named: Option<&String>, source: &ConfigSource) -> Result<String, CliError> {
    if let Some(api) = named {
        return Ok(api.clone());
    }
    let config = source.load()?.config.api_server;
    let first = config.hosts.with_port(config.http_port).next();
    first.map(|at| at.to_string()).ok_or_else(|| {
        CliError::Usage("the configuration has no HTTP interface: name that of a node with --api".to_owned())
    })
}

/// Runs `hermod status`; tells whether everything is healthy.
///
/// # Errors
/// When the node can't be asked.
pub fn run_status(args: &StatusArgs) -> Result<bool, CliError> {
    let api = api(args.api.as_ref(), &args.source)?;
    let asked = runtime()?.block_on(http::get_json(&api, "/cluster"));
    let status = asked.map_err(|error| match error {
        CliError::Answered { api, status: 404, .. } => CliError::Answered {
            api,
            status: 404,
            why: "it is no part of a cluster (clusterConfig); GET /ready shows how it is".to_owned(),
        },
        error => error,
    })?;
    let text = if args.json { format!("{status:#}\n") } else { render(&status) };
    match io::stdout().write_all(text.as_bytes()) {
        // Whoever reads it has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        written => written.map_err(CliError::io("the status can't be written"))?,
    }
    Ok(list(&status, "problems").is_empty())
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or("-")
}

/// The status for people: one line a node, one line a replica, and what is wrong, each once.
fn render(status: &Value) -> String {
    let mut out = String::new();
    let nodes = list(status, "nodes");
    let plural = if nodes.len() == 1 { "" } else { "s" };
    line(&mut out, format_args!("cluster {:?}: {} node{plural}", text(status, "env"), nodes.len()));
    let at = |id: &str| nodes.iter().find(|node| node["id"] == id).map_or("-", |node| text(node, "address"));
    let mut by_address: Vec<_> = nodes.iter().collect();
    by_address.sort_by_key(|node| text(node, "address"));
    for node in by_address {
        let since = node["forSeconds"].as_u64().map_or(String::new(), |secs| format!(" {secs} s"));
        let state = format!("{}{since}", text(node, "state"));
        let marks =
            [("me", true, "asked"), ("draining", true, "leaving"), ("answersCalls", false, "no answer over TCP")];
        let marks: Vec<_> =
            marks.iter().filter(|(key, value, _)| node[*key] == *value).map(|(.., mark)| *mark).collect();
        let marks = if marks.is_empty() { String::new() } else { format!("  ({})", marks.join(", ")) };
        let (id, at) = (text(node, "id"), text(node, "address"));
        let (version, roles) = (text(node, "version"), text(node, "roles"));
        line(&mut out, format_args!("  {id}  {state:<10}  {at:<21}  {version:<7}  {roles}{marks}"));
    }
    let mut told = Vec::new();
    for store in list(status, "stores") {
        for range in list(store, "ranges") {
            line(&mut out, format_args!("{} range {}", text(store, "name"), text(range, "range")));
            let leader = Some(text(range, "leader")).filter(|_| range["available"] != false);
            let mut members = Vec::new();
            for (key, role) in [("voters", "voter"), ("learners", "learner")] {
                for member in list(range, key) {
                    let id = text(member, "node");
                    let role = if Some(id) == leader { "leader" } else { role };
                    let behind = member["lag"].as_u64().filter(|lag| *lag > 0);
                    let behind = behind.map_or(String::new(), |lag| format!("  {lag} behind"));
                    members.push((
                        role == "learner",
                        at(id) == "-",
                        at(id),
                        format!("  {role:<8} {id}  {}{behind}", at(id)),
                    ));
                }
            }
            members.sort();
            members.iter().for_each(|(.., member)| line(&mut out, format_args!("{member}")));
            for why in list(range, "why").iter().filter_map(Value::as_str) {
                line(&mut out, format_args!("  ! {why}"));
                told.push(why);
            }
        }
    }
    for problem in list(status, "problems") {
        if !told.contains(&text(problem, "why")) {
            line(&mut out, format_args!("! {}: {}", text(problem, "what"), text(problem, "why")));
        }
    }
    match status["tolerates"].as_u64() {
        Some(0) => line(&mut out, format_args!("no more node may fail")),
        Some(1) => line(&mut out, format_args!("one more node may fail")),
        Some(count) => line(&mut out, format_args!("{count} more nodes may fail")),
        None => line(&mut out, format_args!("something is unavailable now")),
    }
    out
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = writeln!(out, "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn status(available: bool) -> Value {
        json!({
            "env": "Test", "tolerates": if available { json!(0) } else { Value::Null },
            "nodes": [
                {"id": "01", "state": "alive", "address": "10.0.0.1:5", "version": "0.1", "roles": "dist inbox", "me": true},
                {"id": "02", "state": "dead", "forSeconds": 7, "address": "10.0.0.2:5", "answersCalls": false},
            ],
            "stores": [{"name": "inbox", "ranges": [{
                "range": "0@1.1", "available": available, "leader": "01",
                "voters": [{"node": "01", "lag": 0}, {"node": "02", "lag": 7}, {"node": "03"}],
                "learners": [{"node": "04"}],
                "why": ["range 0@1.1: one of 2 voters is dead"],
            }]}],
            "problems": [
                {"what": "cluster", "why": "no seed answers"},
                {"what": "store inbox", "why": "range 0@1.1: one of 2 voters is dead"},
            ],
        })
    }

    #[test]
    fn a_person_sees_nodes_ranges_and_what_is_wrong_each_once() {
        let shown = render(&status(true));
        for wanted in [
            "cluster \"Test\": 2 nodes\n",
            "  01  alive ",
            "(asked)",
            "  02  dead 7 s ",
            "(no answer over TCP)",
            "inbox range 0@1.1\n  leader   01  10.0.0.1:5\n  voter    02  10.0.0.2:5  7 behind\n  voter    03  -\n  learner  04  -\n  ! range",
            "! cluster: no seed answers\nno more node may fail\n",
        ] {
            assert!(shown.contains(wanted), "{wanted} is missing in\n{shown}");
        }
        assert_eq!(shown.matches("is dead").count(), 1, "{shown}");
    }

    #[test]
    fn who_leads_without_a_majority_is_not_shown_as_the_leader() {
        let shown = render(&status(false));
        assert!(!shown.contains("leader"), "{shown}");
        assert!(shown.ends_with("something is unavailable now\n"), "{shown}");
    }
}
