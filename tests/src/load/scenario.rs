use super::flow::{Flow, Route};
use super::{Figures, Target, durable, memory, retained};
use std::io;

/// A load with a name.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What it is, in a few words.
    pub title: &'static str,
    /// The most CPU per message that we may take, as a ratio to the peer's.
    pub bar: Option<f64>,
    /// The best ratio measured of any peer.
    pub best: Option<f64>,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Flow(Flow),
    Retained { set: bool },
    Idle { subscribed: bool },
    Subscriptions,
    Durable,
}

/// All of them.
pub const SCENARIOS: &[Scenario] = &[
    flow("fan-in-0", "fan-in QoS 0, 10 × 100 → 2", Some((0.35, 0.19)), Route::FanIn, 10, 2, 0, 100),
    flow("fan-in-1", "fan-in QoS 1, 20 × 50 → 4", Some((0.30, 0.13)), Route::FanIn, 20, 4, 1, 50),
    flow("fan-in-2", "fan-in QoS 2, 20 × 50 → 4", Some((0.30, 0.10)), Route::FanIn, 20, 4, 2, 50),
    flow("pairs-0", "100 pairs QoS 0, window 10", Some((0.50, 0.31)), Route::Pairs, 100, 100, 0, 10),
    flow("pairs-1", "100 pairs QoS 1, window 10", Some((0.45, 0.26)), Route::Pairs, 100, 100, 1, 10),
    flow("pairs-500", "500 pairs QoS 1, window 1", Some((1.0, 1.0)), Route::Pairs, 500, 500, 1, 1),
    flow("fan-out-0", "fan-out 1 → 1000 QoS 0, window 10", Some((0.76, 0.41)), Route::FanOut, 1, 1000, 0, 10),
    flow("fan-out-1", "fan-out 1 → 1000 QoS 1, window 10", Some((0.79, 0.79)), Route::FanOut, 1, 1000, 1, 10),
    flow("shared-1", "shared group QoS 1, 20 × 20 → 10", Some((0.45, 0.25)), Route::Shared, 20, 10, 1, 20),
    paced("paced-1", "5,000 msg/s over 100 pairs QoS 1", Some((1.2, 1.0)), 5000),
    other("retained-read", "50,000 retained, read by # ten times", Some((0.6, 0.43)), Kind::Retained { set: false }),
    other("retained-set", "50,000 retained, set at QoS 1", Some((3.0, 0.42)), Kind::Retained { set: true }),
    other("idle", "5,000 idle connections", None, Kind::Idle { subscribed: false }),
    other("idle-subscribed", "5,000 idle connections, one subscription", None, Kind::Idle { subscribed: true }),
    other("subscriptions", "1 M subscriptions of 200 clients", None, Kind::Subscriptions),
    other("durable", "QoS 1 to offline sessions, 100 × 10", None, Kind::Durable),
];

/// The scenario of that name.
#[must_use]
pub fn scenario(name: &str) -> Option<&'static Scenario> {
    SCENARIOS.iter().find(|scenario| scenario.name == name)
}

impl Scenario {
    /// Runs it.
    ///
    /// # Errors
    /// The broker refuses or closes what the scenario needs.
    pub fn run(&self, target: &Target) -> io::Result<Figures> {
        let mut figures = match self.kind {
            Kind::Flow(flow) => flow.run(target),
            Kind::Retained { set } => retained::run(target, 50_000, 10, set),
            Kind::Idle { subscribed } => memory::idle(target, 5_000, subscribed),
            Kind::Subscriptions => memory::subscriptions(target, 5_000),
            Kind::Durable => durable::run(target, 100, 10, 900),
        }?;
        figures.scenario = self.name.to_owned();
        Ok(figures)
    }

    /// It compares the cost of messages, which a peer has too, and not only our own memory or durability.
    #[must_use]
    pub fn has_bar(&self) -> bool {
        self.bar.is_some()
    }
}

#[allow(clippy::too_many_arguments, reason = "a row of the table above")]
const fn flow(
    name: &'static str,
    title: &'static str,
    bars: Option<(f64, f64)>,
    route: Route,
    publishers: usize,
    receivers: usize,
    qos: u8,
    window: u64,
) -> Scenario {
    other(name, title, bars, Kind::Flow(Flow { publishers, receivers, route, qos, window, rate: None }))
}

const fn paced(name: &'static str, title: &'static str, bars: Option<(f64, f64)>, rate: u64) -> Scenario {
    let flow =
        Flow { publishers: 100, receivers: 100, route: Route::Pairs, qos: 1, window: u64::MAX, rate: Some(rate) };
    other(name, title, bars, Kind::Flow(flow))
}

const fn other(name: &'static str, title: &'static str, bars: Option<(f64, f64)>, kind: Kind) -> Scenario {
    let (bar, best) = match bars {
        Some((bar, best)) => (Some(bar), Some(best)),
        None => (None, None),
    };
    Scenario { name, title, bar, best, kind }
}
