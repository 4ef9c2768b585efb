//! `hermod start`: a node from its configuration until a signal ends it.

use crate::boot::{self, Running};
use crate::cli::{CliError, ConfigSource};
use node_config::{LogFormat, NodeConfig};
use std::time::Duration;
use telemetry::{LogConfig, init_logs};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

/// Run a node
///
/// Without a configuration it serves this machine only: MQTT on 127.0.0.1:1883, MQTT over WebSocket on 127.0.0.1:8080/mqtt,
/// HTTP on 127.0.0.1:8091, data in ./data. SIGTERM or Ctrl-C ends it in order.
#[derive(Debug, clap::Args)]
pub struct StartArgs {
    #[command(flatten)]
    source: ConfigSource,
}

/// Starts a node and serves until SIGTERM or SIGINT.
///
/// # Errors
/// When the configuration is refused, or the node could not be started.
pub fn run(args: &StartArgs) -> Result<(), CliError> {
    let loaded = args.source.load()?;
    let config = &loaded.config;
    let logs = init_logs(&LogConfig {
        filter: quieter(&config.log.level),
        format: match config.log.format {
            LogFormat::Text => telemetry::LogFormat::Text,
            LogFormat::Json => telemetry::LogFormat::Json,
        },
    })
    .map_err(|error| CliError::Start(error.to_string()))?;
    for warning in &loaded.warnings {
        warn!("{warning}");
    }
    for count in loaded.voter_counts() {
        info!("{count}");
    }
    for (key, source) in loaded.sources.iter() {
        info!(key, %source, "set");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(boot::range_threads(config.mqtt_service.server.worker_threads))
        .thread_name("ranges")
        .enable_all()
        .build()
        .map_err(|error| CliError::Start(format!("threads could not be started: {error}")))?;
    let result = runtime.block_on(async {
        let mut running =
            boot::start(&loaded, logs.clone()).await.map_err(|error| CliError::Start(error.to_string()))?;
        let served = tokio::select! {
            serving = running.serve() => {
                greet(config, &running, &serving);
                true
            }
            () = wait_for_end() => false,
        };
        if served {
            wait_for_end().await;
        }
        running.stop(wait_for_end()).await;
        Ok(())
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    logs.flush(Duration::from_millis(200));
    result
}

/// openraft tells at `info` what is `debug` to us; whoever names it gets what he asks for.
fn quieter(filter: &str) -> String {
    if filter.contains("openraft") { filter.to_owned() } else { format!("{filter},openraft=error") }
}

fn greet(config: &NodeConfig, running: &Running, serving: &[String]) {
    println!("hermod {} serves", env!("CARGO_PKG_VERSION"));
    for at in serving {
        println!("  {at}");
    }
    if let Some(at) = running.api_at {
        println!("  http://{at}/health /ready /metrics");
    }
    println!("data: {}", config.data_dir.display());
    if let Some(port) = running.plain_port {
        // As it was started: it need not be on the PATH.
        let me = std::env::args().next().unwrap_or_else(|| "hermod".to_owned());
        println!("try:  {me} sub -p {port} -t 'hello/#' -v    and    {me} pub -p {port} -t hello/world -m hi");
    }
}

async fn wait_for_end() {
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    info!("told to stop: clients are told, then everything is flushed");
}
