use super::CliError;
use super::client::{Client, Incoming, explain};
use super::connection::{ConnectionArgs, qos};
use super::format::Format;
use base_types::{PacketId, RetainHandling, SubscriptionFilter, TopicFilter};
use clap::Args;
use mqtt_codec::{Publish, SubAck, Subscribe, SubscribeFilter};
use std::io::{self, Write};
use std::num::NonZeroU32;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Subscribe to topics and print what comes
///
/// Flags are those of mosquitto_sub. It ends with Ctrl-C, after -C messages, or after -W seconds.
#[derive(Args, Debug)]
#[command(
    disable_help_flag = true,
    after_help = "Examples:
  hermod sub -t 'home/#' -v
  hermod sub -t '$SYS/#' -F '%t = %p' -W 3
  hermod sub -t '$share/workers/jobs/+' -q 1 -i worker-1 -c
  hermod sub -t home/kitchen/temperature -C 1 -F json"
)]
pub struct SubArgs {
    /// Topic filter, with the wildcards + and #; can be given more than once
    #[arg(short = 't', long, value_name = "FILTER", required_unless_present = "unsubscribe")]
    topic: Vec<String>,

    /// Don't print messages that match this filter; can be given more than once
    #[arg(short = 'T', long, value_name = "FILTER")]
    filter_out: Vec<String>,

    /// Filter to unsubscribe from, in a session that was kept; can be given more than once
    #[arg(short = 'U', long, value_name = "FILTER")]
    unsubscribe: Vec<String>,

    /// Quality of service: 0 at most once, 1 at least once, 2 exactly once
    #[arg(short = 'q', long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
    qos: u8,

    /// End after so many messages
    #[arg(short = 'C', value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    /// End after so many seconds, with exit code 27
    #[arg(short = 'W', value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    timeout: Option<u64>,

    /// End when the broker has taken the subscriptions; for a session that is kept (-c)
    #[arg(short = 'E')]
    exit_after_subscribe: bool,

    /// Print the topic in front of the message
    #[arg(short = 'v', long, conflicts_with = "format")]
    verbose: bool,

    /// Print `json`, or a text in which %t is the topic, %p the payload, %x the payload in hexadecimal, %l its length, %q the QoS,
    /// %r retained, %d duplicate, %m the packet id, %U the time in seconds, %j everything as JSON
    #[arg(short = 'F', value_name = "FORMAT")]
    format: Option<String>,

    /// No line end behind a message
    #[arg(short = 'N')]
    no_line_end: bool,

    /// Don't print messages that were retained before we subscribed
    #[arg(short = 'R')]
    no_retained: bool,

    /// Print only messages that were retained before we subscribed
    #[arg(long, conflicts_with = "no_retained")]
    retained_only: bool,

    /// Don't send us what we publish ourselves (5.0)
    #[arg(long)]
    no_local: bool,

    /// Keep the retain flag as it was published (5.0)
    #[arg(long)]
    retain_as_published: bool,

    /// Retained messages: 0 send them, 1 if the subscription is new, 2 don't send them (5.0)
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
    retain_handling: u8,

    /// A number that comes with each message of these subscriptions (5.0)
    #[arg(long, value_name = "NUMBER")]
    subscription_identifier: Option<NonZeroU32>,

    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Runs `hermod sub`.
///
/// # Errors
/// When the broker cannot be reached, refuses us or every filter, or the time of `-W` is over.
pub fn run_sub(args: &SubArgs) -> Result<(), CliError> {
    let printer = Printer::new(args)?;
    let subscribe = args.subscribe()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(CliError::io("cannot start"))?.block_on(run(args, printer, subscribe))
}

async fn run(args: &SubArgs, mut printer: Printer, subscribe: Subscribe) -> Result<(), CliError> {
    let deadline = args.timeout.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let (mut client, _) = Client::connect(&args.connection).await?;
    if !args.unsubscribe.is_empty() {
        client.unsubscribe(&args.unsubscribe).await?;
    }
    if !subscribe.filters.is_empty() {
        client.subscribe(subscribe).await?;
    }
    loop {
        let incoming = tokio::select! {
            incoming = client.step() => incoming?,
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                client.disconnect().await?;
                return Err(CliError::TimedOut(args.timeout.unwrap_or_default()));
            }
            _ = tokio::signal::ctrl_c() => return Ok(client.disconnect().await?),
        };
        let done = match incoming {
            Incoming::Message(publish) => {
                let printed = printer.print(&publish);
                client.acknowledge(&publish).await?;
                match printed {
                    // Who reads us has seen enough: `hermod sub … | head`.
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => true,
                    other => other.map_err(CliError::io("cannot print"))?,
                }
            }
            Incoming::SubAck(suback) => {
                args.check(&suback)?;
                args.exit_after_subscribe
            }
            Incoming::Other => false,
        };
        if done {
            return Ok(client.disconnect().await?);
        }
    }
}

impl SubArgs {
    fn subscribe(&self) -> Result<Subscribe, CliError> {
        for filter in &self.topic {
            SubscriptionFilter::parse(&filter.as_str().into())
                .map_err(|error| CliError::Usage(format!("-t {filter:?}: {error}")))?;
        }
        let retain_handling = match self.retain_handling {
            0 => RetainHandling::Send,
            1 => RetainHandling::SendIfNew,
            _ => RetainHandling::DontSend,
        };
        let filters = self.topic.iter().map(|filter| SubscribeFilter {
            filter: filter.as_str().into(),
            qos: qos(self.qos),
            no_local: self.no_local,
            retain_as_published: self.retain_as_published,
            retain_handling,
        });
        Ok(Subscribe {
            packet_id: PacketId::MIN,
            subscription_identifier: self.subscription_identifier,
            user_properties: Vec::new(),
            filters: filters.collect(),
        })
    }

    /// Tells which filters were refused; when all were, there is nothing to wait for.
    fn check(&self, suback: &SubAck) -> Result<(), CliError> {
        let refused: Vec<String> = self
            .topic
            .iter()
            .zip(&suback.reason_codes)
            .filter(|(_, code)| code.is_error())
            .map(|(filter, code)| format!("{filter:?}: {}", explain(*code, None)))
            .collect();
        if !refused.is_empty() && refused.len() == suback.reason_codes.len() {
            return Err(CliError::Refused(refused.join(", ")));
        }
        for text in refused {
            eprintln!("warning: the broker refused {text}");
        }
        Ok(())
    }
}

/// Prints the messages that are wanted, and counts them.
struct Printer {
    format: Format,
    line_end: bool,
    filter_out: Vec<TopicFilter>,
    /// Whether retained messages are wanted, and others.
    wanted: (bool, bool),
    left: Option<u64>,
}

impl Printer {
    fn new(args: &SubArgs) -> Result<Self, CliError> {
        let format = match &args.format {
            Some(text) => Format::parse(text).map_err(|error| CliError::Usage(format!("-F {text:?}: {error}")))?,
            None => Format::plain(args.verbose),
        };
        let out = |filter: &String| {
            TopicFilter::new(filter.clone()).map_err(|error| CliError::Usage(format!("-T {filter:?}: {error}")))
        };
        Ok(Self {
            format,
            line_end: !args.no_line_end,
            filter_out: args.filter_out.iter().map(out).collect::<Result<_, _>>()?,
            wanted: (!args.no_retained, !args.retained_only),
            left: args.count,
        })
    }

    /// Whether it was the last.
    fn print(&mut self, publish: &Publish) -> io::Result<bool> {
        let wanted = if publish.retain { self.wanted.0 } else { self.wanted.1 };
        let out =
            publish.topic.as_ref().is_some_and(|topic| self.filter_out.iter().any(|filter| filter.matches(topic)));
        if !wanted || out {
            return Ok(false);
        }
        let mut text = self.format.show(publish);
        if self.line_end {
            text.push(b'\n');
        }
        let mut stdout = io::stdout().lock();
        stdout.write_all(&text)?;
        stdout.flush()?;
        self.left = self.left.map(|left| left.saturating_sub(1));
        Ok(self.left == Some(0))
    }
}
