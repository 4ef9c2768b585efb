//! What the program does beside running a node: looking at a configuration, keeping users, publishing, subscribing.
//!
//! For each command there is a struct of arguments for clap and a function that runs it. An error says what happened, where, and
//! what to do about it; the caller prints it and exits with a code that is not 0.

mod client;
mod config;
mod connection;
mod error;
mod format;
mod http;
mod password;
mod publish;
mod status;
mod subscribe;
mod tls;
mod user;

pub use config::{ConfigArgs, ConfigSource, access_config, run_config};
pub use error::CliError;
pub use publish::{PubArgs, run_pub};
pub use status::{EvictArgs, StatusArgs, run_evict, run_status};
pub use subscribe::{SubArgs, run_sub};
pub use user::{UserArgs, run_user};

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, Parser, Subcommand};

    #[derive(Debug, Parser)]
    #[command(name = "hermod")]
    struct Program {
        #[command(subcommand)]
        command: Command,
    }

    #[derive(Debug, Subcommand)]
    enum Command {
        Config(ConfigArgs),
        User(UserArgs),
        Pub(Box<PubArgs>),
        Sub(Box<SubArgs>),
    }

    fn accepts(line: &str) -> bool {
        Program::try_parse_from(line.split(' ')).is_ok()
    }

    #[test]
    fn arguments_do_not_contradict_each_other() {
        Program::command().debug_assert();
    }

    #[test]
    fn flags_are_those_of_mosquitto() {
        for line in [
            "hermod pub -h 127.0.0.1 -p 1883 -t a -m b -q 2 -r -i me -u ann -P secret -V mqttv311 -k 5 -c -x 10",
            "hermod pub -t a -l -V 5 --will-topic w --will-payload gone --will-qos 1 --will-retain",
            "hermod pub -t a -n -r",
            "hermod sub -t a -t b -v -C 2 -W 3 -q 1 -R -T a/b -U c -d",
            "hermod sub -t a -F json -N",
            "hermod config print -c a.yml -Da=b -D c=d",
            "hermod config check --conf a.yml",
            "hermod user add --file users ann",
        ] {
            assert!(accepts(line), "{line}");
        }
        for line in [
            "hermod pub -t a",
            "hermod pub -t a -m b -l",
            "hermod pub -t a -m b -q 3",
            "hermod pub -t a -m b -P secret",
            "hermod pub -t a -m b -c",
            "hermod sub -v",
            "hermod sub -t a -C 0",
            "hermod config print -D nothing",
            "hermod user add ann",
            "hermod user add --file users ann secret",
        ] {
            assert!(!accepts(line), "{line}");
        }
    }
}
