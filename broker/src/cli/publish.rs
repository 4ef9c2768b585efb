use super::CliError;
use super::client::{Client, ClientError};
use super::connection::{ConnectionArgs, qos, topic_name};
use bytes::Bytes;
use clap::Args;
use mqtt_codec::{ForwardedBuilder, ForwardedProperty, Publish, Version};
use std::io::{BufRead, Read};
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::mpsc;

/// Publish messages to a topic
///
/// Flags are those of mosquitto_pub. It ends when the broker has taken the messages: with QoS 1 and 2, acknowledged them.
#[derive(Args, Debug)]
#[command(
    disable_help_flag = true,
    after_help = "Examples:
  hermod pub -t home/kitchen/temperature -m 21.5
  hermod pub -t home/kitchen/temperature -m 21.5 -q 1 -r
  tail -f sensor.log | hermod pub -t sensors/1 -l -q 1
  hermod pub -h broker.example -u ann --password-file secret -t a -f picture.png"
)]
pub struct PubArgs {
    /// Topic to publish to
    #[arg(short = 't', long)]
    topic: String,

    #[command(flatten)]
    what: What,

    /// Quality of service: 0 at most once, 1 at least once, 2 exactly once
    #[arg(short = 'q', long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
    qos: u8,

    /// The broker keeps the message for those who subscribe later
    #[arg(short = 'r', long)]
    retain: bool,

    /// Send it so many times
    #[arg(long, value_name = "COUNT", default_value_t = 1, conflicts_with_all = ["stdin_line"])]
    repeat: u64,

    /// Seconds between two times
    #[arg(long, value_name = "SECONDS", default_value_t = 0.0, value_parser = seconds)]
    repeat_delay: f64,

    /// Seconds after which the message is no longer delivered (5.0)
    #[arg(long, value_name = "SECONDS")]
    message_expiry: Option<u32>,

    /// MIME type of the payload (5.0)
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,

    /// Where an answer is wanted (5.0)
    #[arg(long, value_name = "TOPIC")]
    response_topic: Option<String>,

    /// What an answer shall carry (5.0)
    #[arg(long, value_name = "TEXT")]
    correlation_data: Option<String>,

    /// Name and value that go with the message (5.0); can be given more than once
    #[arg(long, value_name = "NAME=VALUE")]
    user_property: Vec<String>,

    #[command(flatten)]
    connection: ConnectionArgs,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct What {
    /// Message
    #[arg(short = 'm', long)]
    message: Option<String>,

    /// Message: what is in this file
    #[arg(short = 'f', long, value_name = "FILE")]
    file: Option<PathBuf>,

    /// Messages: each line of standard input is one
    #[arg(short = 'l', long)]
    stdin_line: bool,

    /// Message: all of standard input
    #[arg(short = 's', long)]
    stdin_file: bool,

    /// Message without payload; with -r it removes the retained one
    #[arg(short = 'n', long)]
    null_message: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    let allowed = "must be a number of seconds from 0 to 86400";
    text.parse().ok().filter(|seconds| (0.0..=86_400.0).contains(seconds)).ok_or_else(|| allowed.to_owned())
}

/// Runs `hermod pub`.
///
/// # Errors
/// When the broker cannot be reached, refuses us, or does not take every message.
pub fn run_pub(args: &PubArgs) -> Result<(), CliError> {
    let message = args.message()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(CliError::io("cannot start"))?.block_on(async {
        let (mut client, _) = Client::connect(&args.connection).await?;
        let all = if args.what.stdin_line {
            send_lines(&mut client, message).await?
        } else {
            args.send(&mut client, message).await?
        };
        let refused = client.settle().await?;
        client.disconnect().await?;
        match refused {
            Some((count, reason)) => Err(CliError::NotPublished { count, all, reason }),
            None => Ok(()),
        }
    })
}

impl PubArgs {
    fn message(&self) -> Result<Publish, CliError> {
        let payload = if let Some(text) = &self.what.message {
            Bytes::from(text.clone())
        } else if let Some(path) = &self.what.file {
            Bytes::from(std::fs::read(path).map_err(CliError::io(format!("cannot read {}", path.display())))?)
        } else if self.what.stdin_file {
            let mut payload = Vec::new();
            std::io::stdin().lock().read_to_end(&mut payload).map_err(CliError::io("cannot read standard input"))?;
            Bytes::from(payload)
        } else {
            Bytes::new()
        };
        let forwarded = self.forwarded()?;
        if self.connection.version() < Version::V5 && (self.message_expiry.is_some() || !forwarded.is_empty()) {
            return Err(CliError::Usage("properties need MQTT 5.0 (-V 5)".into()));
        }
        Ok(Publish {
            dup: false,
            qos: qos(self.qos),
            retain: self.retain,
            topic: Some(topic_name(&self.topic)?),
            packet_id: None,
            payload,
            message_expiry_interval: self.message_expiry,
            topic_alias: None,
            subscription_identifiers: Vec::new(),
            payload_is_utf8: false,
            forwarded,
        })
    }

    fn forwarded(&self) -> Result<Bytes, CliError> {
        let mut properties = Vec::new();
        properties.extend(self.content_type.as_deref().map(ForwardedProperty::ContentType));
        properties.extend(self.response_topic.as_deref().map(ForwardedProperty::ResponseTopic));
        let correlation = self.correlation_data.as_deref().map(str::as_bytes);
        properties.extend(correlation.map(ForwardedProperty::CorrelationData));
        for text in &self.user_property {
            let (name, value) = text
                .split_once('=')
                .ok_or_else(|| CliError::Usage(format!("--user-property {text:?} must be NAME=VALUE")))?;
            properties.push(ForwardedProperty::UserProperty(name, value));
        }
        let mut builder = ForwardedBuilder::default();
        for property in properties {
            builder.push(property).map_err(ClientError::from)?;
        }
        Ok(builder.build())
    }

    async fn send(&self, client: &mut Client, message: Publish) -> Result<u64, CliError> {
        for round in 0..self.repeat {
            if round > 0 && self.repeat_delay > 0.0 {
                tokio::time::sleep(Duration::from_secs_f64(self.repeat_delay)).await;
            }
            client.publish(message.clone()).await?;
        }
        Ok(self.repeat)
    }
}

/// Publishes each line of standard input. The connection is kept alive while no line comes.
async fn send_lines(client: &mut Client, message: Publish) -> Result<u64, CliError> {
    let (lines, mut incoming) = mpsc::channel(256);
    // It ends with standard input, or with the process.
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().split(b'\n') {
            let failed = line.is_err();
            if lines.blocking_send(line).is_err() || failed {
                return;
            }
        }
    });
    let mut count = 0;
    loop {
        tokio::select! {
            line = incoming.recv() => match line {
                Some(line) => {
                    let payload = Bytes::from(line.map_err(CliError::io("cannot read standard input"))?);
                    client.publish(Publish { payload, ..message.clone() }).await?;
                    count += 1;
                }
                None => return Ok(count),
            },
            stepped = client.step_over_messages() => stepped?,
        }
    }
}
