//! `/health`, `/ready`, `/metrics` and `/log/level`.

mod server;
mod token;

use crate::{LogHandle, Metrics, encode, table};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value, json};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

pub use server::serve;
pub use token::Token;

/// The longest body that is taken, in bytes.
const MAX_BODY: usize = 4096;

/// One thing that keeps a node from being ready or healthy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// What it is about: `store inbox`, `disk`, `cluster`.
    pub what: String,
    /// Why, and what to do.
    pub why: String,
}

/// What the node says about itself. Both are asked often and must not block.
pub trait Readiness: Send + Sync {
    /// What keeps it from serving clients now; nothing when it is ready.
    fn not_ready(&self) -> Vec<Reason>;

    /// What an operator should see to before it gets worse; shown beside either answer, which stays as it is.
    fn warnings(&self) -> Vec<Reason> {
        Vec::new()
    }

    /// What only a restart mends; nothing as a rule.
    fn unhealthy(&self) -> Vec<Reason> {
        Vec::new()
    }
}

/// What the routes show.
pub struct ApiState {
    /// For `/metrics`.
    pub metrics: Arc<Metrics>,
    /// For `/ready` and `/health`.
    pub readiness: Arc<dyn Readiness>,
    /// For `/log/level`.
    pub logs: Option<LogHandle>,
    /// Who may change something: whoever knows the token, or without one whoever is on this machine.
    pub token: Option<Token>,
}

impl fmt::Debug for ApiState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiState").field("token", &self.token).finish_non_exhaustive()
    }
}

/// The routes, to be merged with others or given to [`serve`].
pub fn router(state: Arc<ApiState>) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .route("/log/level", get(log_level).put(set_log_level))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(state)
}

async fn health(State(state): State<Arc<ApiState>>) -> Response {
    report("healthy", &state.readiness.unhealthy(), &state.readiness.warnings())
}

async fn ready(State(state): State<Arc<ApiState>>) -> Response {
    report("ready", &state.readiness.not_ready(), &state.readiness.warnings())
}

/// 200, or 503 with the reasons.
fn report(good: &str, reasons: &[Reason], warnings: &[Reason]) -> Response {
    let listed = |reasons: &[Reason]| -> Vec<Value> {
        reasons.iter().map(|reason| json!({ "what": reason.what, "why": reason.why })).collect()
    };
    let mut body = json!({ "status": good });
    let mut status = StatusCode::OK;
    if !reasons.is_empty() {
        status = StatusCode::SERVICE_UNAVAILABLE;
        body = json!({ "status": format!("not {good}"), "reasons": listed(reasons) });
    }
    if !warnings.is_empty() {
        body["warnings"] = listed(warnings).into();
    }
    json(status, &body)
}

async fn metrics(State(state): State<Arc<ApiState>>) -> Response {
    let mut samples = state.metrics.samples();
    samples.add(&table::READY, &[], if state.readiness.not_ready().is_empty() { 1.0 } else { 0.0 });
    if let Some(logs) = &state.logs {
        samples.add(&table::LOG_LINES_DROPPED, &[], logs.dropped() as f64);
    }
    ([(header::CONTENT_TYPE, encode::CONTENT_TYPE)], encode::encode(&samples)).into_response()
}

async fn log_level(State(state): State<Arc<ApiState>>) -> Response {
    match &state.logs {
        Some(logs) => json(StatusCode::OK, &json!({ "filter": logs.filter() })),
        None => json(StatusCode::NOT_FOUND, &json!({ "error": "this process does not log" })),
    }
}

/// The body is the filter as plain text, e.g. `info,hermod::shard=debug`.
async fn set_log_level(
    State(state): State<Arc<ApiState>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if let Err(refused) = may_change(state.token.as_ref(), peer, &headers) {
        return refused;
    }
    let Some(logs) = &state.logs else {
        return json(StatusCode::NOT_FOUND, &json!({ "error": "this process does not log" }));
    };
    let Ok(filter) = std::str::from_utf8(&body) else {
        return json(StatusCode::BAD_REQUEST, &json!({ "error": "the body is not UTF-8" }));
    };
    match logs.set_filter(filter.trim()) {
        Ok(()) => {
            tracing::info!(filter = filter.trim(), %peer, "the log filter was changed");
            json(StatusCode::OK, &json!({ "filter": logs.filter() }))
        }
        Err(error) => json(StatusCode::BAD_REQUEST, &json!({ "error": error.to_string() })),
    }
}

/// Whether a request may change something. With a token the token decides, from wherever: behind a proxy on this machine every client looks
/// local.
///
/// # Errors
/// With the response that is to be sent.
#[allow(clippy::result_large_err, reason = "the error is the response that is sent")]
pub fn may_change(token: Option<&Token>, peer: SocketAddr, headers: &HeaderMap) -> Result<(), Response> {
    match token {
        Some(token) => {
            let given = headers.get(header::AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
            match given {
                Some(given) if token.is(given) => Ok(()),
                _ => {
                    let error =
                        json!({ "error": "changing something needs `Authorization: Bearer <apiServerConfig.token>`" });
                    let mut response = json(StatusCode::UNAUTHORIZED, &error);
                    response.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
                    Err(response)
                }
            }
        }
        None if peer.ip().to_canonical().is_loopback() && names_this_machine(headers) => Ok(()),
        None => {
            let error =
                "without apiServerConfig.token only this machine may change something, as 127.0.0.1 or localhost";
            Err(json(StatusCode::FORBIDDEN, &json!({ "error": error })))
        }
    }
}

/// A page in a browser on this machine can reach us by a name of its own (DNS rebinding); an address or `localhost` it cannot claim.
fn names_this_machine(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST).and_then(|host| host.to_str().ok()) else { return false };
    host.parse::<SocketAddr>().is_ok()
        || host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok()
        || host.split(':').next().is_some_and(|name| name.eq_ignore_ascii_case("localhost"))
}

fn json(status: StatusCode, value: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], format!("{value}\n")).into_response()
}
