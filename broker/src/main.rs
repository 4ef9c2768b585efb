//! The program `hermod`.

use clap::{Parser, Subcommand};
use hermod::{cli, start};
use std::process::ExitCode;

/// An MQTT broker cluster in one binary
#[derive(Debug, Parser)]
#[command(name = "hermod", version, after_help = "Start with `hermod start`; every command has --help.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Start(start::StartArgs),
    Status(cli::StatusArgs),
    Evict(cli::EvictArgs),
    Config(cli::ConfigArgs),
    User(cli::UserArgs),
    Pub(cli::PubArgs),
    Sub(cli::SubArgs),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Start(args) => start::run(&args),
        Command::Status(args) => match cli::run_status(&args) {
            Ok(false) => return ExitCode::from(2),
            result => result.map(|_| ()),
        },
        Command::Evict(args) => cli::run_evict(&args),
        Command::Config(args) => cli::run_config(&args),
        Command::User(args) => cli::run_user(&args),
        Command::Pub(args) => cli::run_pub(&args),
        Command::Sub(args) => cli::run_sub(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hermod: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
