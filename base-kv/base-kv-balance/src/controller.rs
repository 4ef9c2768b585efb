use crate::backoff::Backoff;
use crate::view::sooner;
use base_kv_api::balance::{Balancer, Command, Decision, Landscape};
use std::collections::VecDeque;
use std::time::Duration;

/// Asks the policies of a store, in order; the first that wants something gets it. One command at a time.
///
/// The driver is a loop: [`Controller::next`], carry out what it says, [`Controller::settled`], and again when the landscape has changed
/// or the time is up. Each policy sees every landscape, also when another one has already spoken, since some of them wait for
/// things to last.
pub struct Controller {
    balancers: Vec<Box<dyn Balancer>>,
    in_flight: Option<usize>,
    refused: Backoff<String>,
    history: VecDeque<Record>,
}

/// Decisions that are remembered.
const HISTORY: usize = 64;
/// How long the same command is not given again after it was carried out: the landscape may not show it yet.
const SETTLE: Duration = Duration::from_secs(1);

/// A command that was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// When, since the process started.
    pub at: Duration,
    /// By whom.
    pub balancer: &'static str,
    /// What.
    pub command: Command,
    /// For which reason, for people.
    pub why: String,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is being carried out.
    UnderWay,
    /// It was carried out; at this time.
    Done(Duration),
    /// It was refused, and nothing happened; at this time, and why.
    Refused(Duration, String),
}

impl Controller {
    /// Asks these, in this order.
    #[must_use]
    pub fn new(balancers: Vec<Box<dyn Balancer>>) -> Self {
        Self { balancers, in_flight: None, refused: Backoff::default(), history: VecDeque::new() }
    }

    /// The next step, and whose it is. Nothing while a command is under way.
    pub fn next(&mut self, now: Duration, landscape: &Landscape) -> (Decision, Option<&'static str>) {
        let decisions: Vec<Decision> =
            self.balancers.iter_mut().map(|balancer| balancer.balance(now, landscape)).collect();
        if self.in_flight.is_some() {
            return (Decision::Idle, None);
        }
        let mut rest = (Decision::Idle, None);
        for (index, decision) in decisions.into_iter().enumerate() {
            let balancer = &self.balancers[index];
            let name = balancer.name();
            let decision = match decision {
                Decision::Now(command) => match self.pause(now, name, &command) {
                    None => {
                        self.in_flight = Some(index);
                        let why = balancer.why().to_owned();
                        self.remember(Record {
                            at: now,
                            balancer: name,
                            command: command.clone(),
                            why,
                            outcome: Outcome::UnderWay,
                        });
                        return (Decision::Now(command), Some(name));
                    }
                    Some(left) => Decision::WakeAfter(left),
                },
                waits => waits,
            };
            let merged = sooner(rest.0.clone(), decision);
            if merged != rest.0 {
                rest = (merged, Some(name));
            }
        }
        rest
    }

    /// What became of the command that [`Controller::next`] gave last.
    pub fn settled(&mut self, now: Duration, outcome: Result<(), String>) {
        let Some(index) = self.in_flight.take() else { return };
        let Some(record) = self.history.back_mut() else { return };
        let key = key(record.balancer, &record.command);
        self.balancers[index].settled(now, &record.command, outcome.as_ref().copied().map_err(String::as_str));
        record.outcome = match outcome {
            Ok(()) => {
                self.refused.accepted(&key);
                Outcome::Done(now)
            }
            Err(reason) => {
                self.refused.refused(now, key);
                Outcome::Refused(now, reason)
            }
        };
    }

    /// The last commands, the oldest first.
    pub fn history(&self) -> impl DoubleEndedIterator<Item = &Record> {
        self.history.iter()
    }

    /// What each policy does or waits for, by name.
    pub fn whys(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.balancers.iter().map(|balancer| (balancer.name(), balancer.why()))
    }

    /// Goes on with the policies of another one, and with its own memory: for new options while the node runs.
    pub fn replace(&mut self, other: Self) {
        self.balancers = other.balancers;
        self.in_flight = None;
        self.refused = Backoff::default();
    }

    /// How long a command has to wait: it was refused, or has just been carried out.
    fn pause(&self, now: Duration, name: &'static str, command: &Command) -> Option<Duration> {
        let just_done = self.history.iter().rev().find_map(|record| match record.outcome {
            Outcome::Done(at) if record.command == *command => (at + SETTLE).checked_sub(now),
            _ => None,
        });
        self.refused.wait(now, &key(name, command)).or(just_done).filter(|left| !left.is_zero())
    }

    fn remember(&mut self, record: Record) {
        if self.history.len() == HISTORY {
            self.history.pop_front();
        }
        self.history.push_back(record);
    }
}

/// The same intention, whatever the membership is that it was computed for.
fn key(name: &str, command: &Command) -> String {
    let mut command = command.clone();
    match &mut command {
        Command::AddLearner { config, .. }
        | Command::ChangeVoters { config, .. }
        | Command::RemoveLearners { config, .. } => *config = 0,
        Command::Bootstrap { .. } | Command::TransferLeader { .. } | Command::Merge { .. } => {}
    }
    format!("{name} {command:?}")
}
