use super::{CliError, password};
use base_types::{QoS, TopicName};
use bytes::Bytes;
use clap::{ArgAction, Args, ValueEnum};
use mqtt_codec::{Connect, ConnectProperties, Version, Will};
use std::path::PathBuf;

/// How to reach a broker, and as whom; the flags are those of Mosquitto's clients.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Connection")]
pub(super) struct ConnectionArgs {
    /// Broker: name or address
    #[arg(short = 'h', long, default_value = "127.0.0.1")]
    pub(super) host: String,

    /// TCP port
    #[arg(short = 'p', long, default_value_t = 1883)]
    pub(super) port: u16,

    /// Speak TLS (usually port 8883), and trust the authorities in this PEM file
    #[arg(long, value_name = "FILE")]
    pub(super) cafile: Option<PathBuf>,

    /// PEM file with a client certificate to show
    #[arg(long, value_name = "FILE", requires_all = ["cafile", "key"])]
    pub(super) cert: Option<PathBuf>,

    /// PEM file with the private key of the client certificate
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub(super) key: Option<PathBuf>,

    /// Client id; without one the broker assigns one
    #[arg(short = 'i', long, value_name = "ID")]
    pub(super) id: Option<String>,

    /// User name
    #[arg(short = 'u', long)]
    username: Option<String>,

    /// Password; everybody on this machine can see it: rather use --password-file
    #[arg(short = 'P', long, value_name = "PASSWORD", requires = "username")]
    pw: Option<String>,

    /// Take the password from this file
    #[arg(long, value_name = "FILE", requires = "username", conflicts_with = "pw")]
    password_file: Option<PathBuf>,

    /// Version of MQTT
    #[arg(short = 'V', long, value_enum, default_value = "5")]
    protocol_version: ProtocolVersion,

    /// Seconds without a packet after which a ping is sent; 0: never
    #[arg(short = 'k', long, value_name = "SECONDS", default_value_t = 60)]
    pub(super) keepalive: u16,

    /// Keep the session (clean start, or clean session, off): subscriptions and messages wait while we are away. Needs -i
    #[arg(short = 'c', long, requires = "id")]
    disable_clean_session: bool,

    /// Seconds that the session outlives the connection (5.0). Default with -c: for ever
    #[arg(short = 'x', long, value_name = "SECONDS")]
    session_expiry_interval: Option<u32>,

    /// Topic of a will: what the broker publishes when we are gone without a word
    #[arg(long, value_name = "TOPIC")]
    will_topic: Option<String>,

    /// Payload of the will
    #[arg(long, value_name = "TEXT", requires = "will_topic", default_value = "")]
    will_payload: String,

    /// QoS of the will
    #[arg(long, value_name = "QOS", requires = "will_topic", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
    will_qos: u8,

    /// The will is retained
    #[arg(long, requires = "will_topic")]
    will_retain: bool,

    /// Seconds between our end and the will (5.0)
    #[arg(long, value_name = "SECONDS", requires = "will_topic", default_value_t = 0)]
    will_delay: u32,

    /// Tell on standard error what happens
    #[arg(short = 'd', long)]
    pub(super) debug: bool,

    /// Print this help
    #[arg(long, action = ArgAction::HelpShort, global = false)]
    help: Option<bool>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ProtocolVersion {
    #[value(name = "5", aliases = ["mqttv5", "5.0"])]
    V5,
    #[value(name = "311", aliases = ["mqttv311", "3.1.1"])]
    V4,
    #[value(name = "31", aliases = ["mqttv31", "3.1"])]
    V3,
}

impl ConnectionArgs {
    pub(super) fn version(&self) -> Version {
        match self.protocol_version {
            ProtocolVersion::V5 => Version::V5,
            ProtocolVersion::V4 => Version::V4,
            ProtocolVersion::V3 => Version::V3,
        }
    }

    /// The CONNECT that the arguments mean.
    pub(super) fn connect(&self) -> Result<Connect, CliError> {
        let version = self.version();
        let password = match (&self.pw, &self.password_file) {
            (Some(password), _) => Some(Bytes::from(password.clone())),
            (None, Some(path)) => Some(Bytes::from(password::from_file(path)?.expose().to_owned())),
            (None, None) => None,
        };
        // 3.1 has no client ids that the server assigns.
        let fallback = if version == Version::V3 { format!("hermod-{}", std::process::id()) } else { String::new() };
        let forever = self.disable_clean_session.then_some(u32::MAX);
        let properties = ConnectProperties {
            session_expiry_interval: self.session_expiry_interval.or(forever).filter(|_| version == Version::V5),
            ..ConnectProperties::default()
        };
        Ok(Connect {
            version,
            clean_start: !self.disable_clean_session,
            keep_alive: self.keepalive,
            client_id: self.id.clone().unwrap_or(fallback).into(),
            will: self.will()?,
            username: self.username.clone().map(Into::into),
            password,
            properties,
        })
    }

    fn will(&self) -> Result<Option<Will>, CliError> {
        let Some(topic) = &self.will_topic else { return Ok(None) };
        Ok(Some(Will {
            topic: topic_name(topic)?,
            payload: Bytes::from(self.will_payload.clone()),
            qos: qos(self.will_qos),
            retain: self.will_retain,
            delay_interval: self.will_delay,
            message_expiry_interval: None,
            forwarded: Bytes::new(),
            payload_is_utf8: false,
        }))
    }
}

pub(super) fn topic_name(text: &str) -> Result<TopicName, CliError> {
    TopicName::new(text.to_owned()).map_err(|error| CliError::Usage(format!("topic {text:?}: {error}")))
}

/// The range is checked by clap.
pub(super) fn qos(number: u8) -> QoS {
    QoS::try_from(number).unwrap_or_default()
}
