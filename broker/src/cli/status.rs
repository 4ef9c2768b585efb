use super::{CliError, ConfigSource, http};
use clap::Args;
use serde_json::Value;

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
    runtime()?.block_on(http::post_json(&api, &path))?;
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
    let status = runtime()?.block_on(http::get_json(&api, "/cluster"))?;
    if args.json {
        println!("{status:#}");
    } else {
        print!("{}", render(&status));
    }
    Ok(list(&status, "problems").is_empty())
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or("-")
}

/// The status for people: one line a node, one line a range, and what is wrong.
fn render(status: &Value) -> String {
    let mut out = String::new();

    let mut line = |text: String| {
        out.push_str(&text);
        out.push('\n');
    };
    let nodes = list(status, "nodes");
    line(format!("cluster {}  {} nodes", text(status, "env"), nodes.len()));
    for node in nodes {
        let marks = [("me", "asked"), ("draining", "leaving")];
        let marks: Vec<_> = marks.iter().filter(|(key, _)| node[*key] == true).map(|(_, mark)| *mark).collect();
        let marks = if marks.is_empty() { String::new() } else { format!("  ({})", marks.join(", ")) };
        line(format!(
            "  {}  {:<8} {:<22} {:<8} {}{marks}",
            text(node, "id"),
            text(node, "state"),
            text(node, "address"),
            text(node, "version"),
            text(node, "roles"),
        ));
    }
    for store in list(status, "stores") {
        for range in list(store, "ranges") {
            let members = |key: &str| {
                let each = list(range, key).iter().map(|member| {
                    let lag = member["lag"].as_u64().filter(|lag| *lag > 0);
                    format!("{}{}", text(member, "node"), lag.map_or(String::new(), |lag| format!(" (-{lag})")))
                });
                each.collect::<Vec<_>>().join(" ")
            };
            line(format!("{} range {}", text(store, "name"), text(range, "range")));
            line(format!("  leader   {}", text(range, "leader")));
            line(format!("  voters   {}", members("voters")));
            if !list(range, "learners").is_empty() {
                line(format!("  learners {}", members("learners")));
            }
            for why in list(range, "why") {
                line(format!("  ! {}", why.as_str().unwrap_or("-")));
            }
        }
    }
    match status["tolerates"].as_u64() {
        Some(1) => line("one more node may fail".to_owned()),
        Some(count) => line(format!("{count} more nodes may fail")),
        None => line("something is unavailable now".to_owned()),
    }
    for problem in list(status, "problems") {
        line(format!("! {}: {}", text(problem, "what"), text(problem, "why")));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_person_sees_nodes_ranges_and_what_is_wrong() {
        let status = json!({
            "env": "Test", "tolerates": 0,
            "nodes": [{"id": "01", "state": "alive", "address": "127.0.0.1:5000", "version": "0.1", "roles": "dist inbox", "me": true}],
            "stores": [{"name": "inbox", "ranges": [{
                "range": "0@1.1", "leader": "01", "voters": [{"node": "01", "lag": 0}, {"node": "02", "lag": 7}],
                "why": ["one of 2 voters is dead"],
            }]}],
            "problems": [{"what": "store inbox", "why": "one of 2 voters is dead"}],
        });
        let shown = render(&status);
        for wanted in
            ["cluster Test  1 nodes", "(asked)", "voters   01 02 (-7)", "! one of 2 voters", "0 more nodes may fail"]
        {
            assert!(shown.contains(wanted), "{wanted} is missing in\n{shown}");
        }
    }
}
