use super::CliError;
use clap::{Args, Subcommand};
use mqtt_auth::{Access, AccessConfig, Anonymous};
use node_config::{AllowAnonymous, Inputs, Loaded, NodeConfig, Refused};
use std::path::PathBuf;

/// Where the configuration of a node comes from.
#[derive(Args, Clone, Debug)]
pub struct ConfigSource {
    /// YAML file of the node; conf/node.yml describes every key. Without one, everything has its default
    #[arg(short = 'c', long, alias = "conf", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Set one value over the file and the environment: a dotted key, a setting's name, or a system property of BifroMQ.
    /// Can be given more than once
    #[arg(short = 'D', long = "define", value_name = "NAME=VALUE", value_parser = definition)]
    pub define: Vec<(String, String)>,
}

impl ConfigSource {
    /// Reads file, environment and definitions.
    ///
    /// # Errors
    /// With everything that is wrong, at once.
    pub fn load(&self) -> Result<Loaded, Refused> {
        node_config::load(&Inputs::of_process(self.config.clone(), self.define.clone()))
    }
}

fn definition(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => Ok((name.trim().to_owned(), value.to_owned())),
        _ => Err("must be NAME=VALUE, such as mqttServiceConfig.server.tcpListener.port=1884".to_owned()),
    }
}

/// Look at the configuration of a node without starting it
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  hermod config check --config conf/node.yml
  hermod config print -D mqttServiceConfig.server.tcpListener.port=1884
  HERMOD_log__level=debug hermod config print")]
pub struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Report everything that is wrong with it, at once; the files that it names are read too
    Check(ConfigSource),
    /// Print what holds as YAML, and where each value comes from that is not the default
    Print(ConfigSource),
}

/// Runs `hermod config`.
///
/// # Errors
/// When the configuration, or a file that it names, would be refused at start.
pub fn run_config(args: &ConfigArgs) -> Result<(), CliError> {
    let (source, print) = match &args.command {
        ConfigCommand::Check(source) => (source, false),
        ConfigCommand::Print(source) => (source, true),
    };
    let loaded = source.load()?;
    for warning in &loaded.warnings {
        eprintln!("warning: {warning}");
    }
    if print {
        print!("{}", loaded.print());
    } else {
        Access::open(access_config(&loaded.config))?;
        let set = loaded.sources.iter().count();
        println!("the configuration is good: {set} values are set, the others have their defaults");
    }
    Ok(())
}

/// What [`Access`] is told by a configuration.
#[must_use]
pub fn access_config(config: &NodeConfig) -> AccessConfig {
    AccessConfig {
        users_file: config.auth.users_file.clone(),
        acl_file: config.auth.acl_file.clone(),
        anonymous: match config.allow_anonymous {
            AllowAnonymous::OnlyLoopback => Anonymous::OnlyLoopback,
            AllowAnonymous::Yes => Anonymous::Always,
            AllowAnonymous::No => Anonymous::Never,
        },
        ..AccessConfig::default()
    }
}
