//! The cluster for operators: `GET /cluster`, `/stores`, `/store/landscape`, `/store/ranges`.

use super::control::Control;
use super::facts::{self, About};
use axum::extract::{ConnectInfo, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use base_cluster::{Cluster, EvictError, MemberState};
use base_kv_api::balance::{Liveness, ReplicaView};
use base_kv_balance::{Diagnosis, ProblemKind, RangeHealth};
use base_rpc::{Lane, Rpc};
use base_types::{Incarnation, NodeId, NodeIncarnation};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use telemetry::{Reason, Samples, Token, table};
use tokio::time::Instant;
use tracing::warn;

/// What is asked.
pub(crate) struct Status {
    pub(crate) env: String,
    pub(crate) cluster: Cluster,
    pub(crate) rpc: Arc<Rpc>,
    pub(crate) controls: Vec<Arc<Control>>,
}

/// The routes, to be merged with the node's others.
pub(crate) fn router(status: Arc<Status>, token: Option<Token>) -> Router {
    let token = Arc::new(token);
    Router::new()
        .route("/cluster", get(cluster))
        .route("/cluster/evict", post(evict).layer(Extension(token)))
        .route("/stores", get(stores))
        .route("/store/landscape", get(landscape))
        .route("/store/ranges", get(ranges))
        .with_state(status)
}

impl Status {
    /// What is wrong now, for `/ready` and for people; the worst first.
    pub(crate) fn problems(&self) -> Vec<Reason> {
        let of_cluster = self.cluster.problems().into_iter();
        let mut all: Vec<Reason> =
            of_cluster.map(|problem| Reason { what: "cluster".to_owned(), why: problem.to_string() }).collect();
        for control in &self.controls {
            for problem in control.diagnosis().problems {
                all.push(Reason { what: format!("store {}", control.store()), why: problem.to_string() });
            }
        }
        all
    }

    /// The figures of the cluster, for a scrape.
    #[allow(clippy::cast_precision_loss, reason = "Prometheus knows only floats")]
    pub(crate) fn read(&self, out: &mut Samples) {
        let members = self.cluster.members().borrow().clone();
        for state in ["alive", "suspect", "dead", "left"] {
            let count = members.nodes.values().filter(|member| state_name(member.state).0 == state).count();
            out.add(&table::CLUSTER_NODES, &[state], count as f64);
        }
        let packets = self.cluster.packets();
        out.add(&table::CLUSTER_PACKETS, &["out"], packets.sent as f64);
        out.add(&table::CLUSTER_PACKETS, &["in"], packets.taken as f64);
        for (cause, count) in packets.refused {
            out.add(&table::CLUSTER_REFUSED, &["udp", cause.name()], count as f64);
        }
        let calls = self.rpc.counters();
        for (because, count) in calls.refused {
            out.add(&table::CLUSTER_REFUSED, &["tcp", because.label()], count as f64);
        }
        for (lane, counters) in Lane::ALL.iter().zip(calls.lanes) {
            let lane = match lane {
                Lane::Raft => "raft",
                Lane::Data => "data",
                Lane::Bulk => "bulk",
            };
            for (direction, bytes, frames) in
                [("in", counters.bytes_in, counters.frames_in), ("out", counters.bytes_out, counters.frames_out)]
            {
                out.add(&table::RPC_BYTES, &[lane, direction], bytes as f64);
                out.add(&table::RPC_FRAMES, &[lane, direction], frames as f64);
            }
            for (cause, count) in [("busy", counters.busy), ("lost", counters.lost), ("unsent", counters.unsent)] {
                out.add(&table::RPC_DROPPED, &[lane, cause], count as f64);
            }
        }
    }

    /// What keeps this node from serving: it is alone where it should not be.
    pub(crate) fn keeps_from_serving(&self) -> Vec<Reason> {
        let problems = self.cluster.problems().into_iter();
        problems.map(|problem| Reason { what: "cluster".to_owned(), why: problem.to_string() }).collect()
    }

    /// Has all nodes treat one as dead, and its replicas replaced at once. One that membership never met, since it was gone before all others
    /// started, may still have replicas.
    async fn evict(&self, node: NodeId) -> Result<(), EvictError> {
        let last = Incarnation(u64::MAX);
        let known = self.cluster.members().borrow().get(node).map_or(last, |member| member.run.incarnation);
        match self.cluster.evict(node).await {
            Err(EvictError::Unknown(_)) if self.has_replicas(node) => {}
            result => result?,
        }
        let before = self.cluster.facts().borrow().get(self.cluster.me().node, facts::EVICTED).cloned();
        let mut runs = before.and_then(|bytes| facts::decode_runs(bytes).ok()).unwrap_or_default();
        runs.retain(|run| run.node != node);
        runs.push(NodeIncarnation { node, incarnation: known });
        if let Err(error) = self.cluster.publish(facts::EVICTED, facts::encode_runs(&runs)) {
            warn!(%node, %error, "the replicas of an evicted node are replaced only when it has been dead for long");
        }
        Ok(())
    }

    fn has_replicas(&self, node: NodeId) -> bool {
        let ranges = self.controls.iter().flat_map(|control| control.diagnosis().ranges);
        ranges.into_iter().any(|range| range.voters.values().chain(range.learners.values()).any(|on| *on == node))
    }

    /// What a node tells of itself.
    pub(crate) fn about(&self, node: NodeId) -> About {
        let told = self.cluster.facts().borrow().get(node, facts::ABOUT).cloned();
        told.and_then(|bytes| About::decode(bytes).ok()).unwrap_or_default()
    }

    fn nodes(&self) -> Vec<Value> {
        let members = self.cluster.members().borrow().clone();
        let each = members.nodes.values().map(|member| {
            let (state, since) = state_name(member.state);
            let about = self.about(member.run.node);
            json!({
                "id": member.run.node.to_string(),
                "incarnation": member.run.incarnation.0,
                "state": state,
                "forSeconds": since.map(|since| since.elapsed().as_secs()),
                "answersCalls": member.rpc,
                "address": member.addr.to_string(),
                "version": about.version,
                "roles": "broker dist inbox retain",
                "mqtt": about.mqtt,
                "api": about.api,
                "draining": about.draining,
                "me": member.run.node == members.me,
            })
        });
        each.collect()
    }

    fn store(control: &Control) -> (Value, Diagnosis) {
        let diagnosis = control.diagnosis();
        let ranges: Vec<Value> = diagnosis.ranges.iter().map(|range| range_json(range, &diagnosis)).collect();
        let balancers: Vec<Value> =
            control.whys().into_iter().map(|(name, why)| json!({ "name": name, "says": why })).collect();
        let json = json!({
            "name": control.store(),
            "ranges": ranges,
            "tolerates": diagnosis.tolerates,
            "balancers": balancers,
        });
        (json, diagnosis)
    }

    fn control(&self, query: &HashMap<String, String>) -> Result<&Arc<Control>, Box<Response>> {
        let name = query.get("storeName").or_else(|| query.get("store_name")).map_or("", String::as_str);
        // BifroMQ's names end in `.store`.
        let wanted = name.split('.').next().unwrap_or_default();
        self.controls.iter().find(|control| control.store() == wanted).ok_or_else(|| {
            let known: Vec<_> = self.controls.iter().map(|control| control.store()).collect();
            let error = format!("there is no store {name:?}; name one with ?storeName=: {}", known.join(", "));
            Box::new((StatusCode::NOT_FOUND, Json(json!({ "error": error }))).into_response())
        })
    }
}

fn state_name(state: MemberState) -> (&'static str, Option<Instant>) {
    match state {
        MemberState::Alive => ("alive", None),
        MemberState::Suspect => ("suspect", None),
        MemberState::Dead(since) => ("dead", Some(since)),
        MemberState::Left(since) => ("left", Some(since)),
    }
}

/// Whether the range has a leader that a majority can follow. Who lost his majority may still take himself for one.
fn is_available(range: &RangeHealth, diagnosis: &Diagnosis) -> bool {
    let out = |kind: &ProblemKind| matches!(kind, ProblemKind::NoMajority { .. } | ProblemKind::NoLeader);
    range.leader.is_some() && !diagnosis.problems.iter().any(|p| p.range == Some(range.range) && out(&p.kind))
}

fn range_json(range: &RangeHealth, diagnosis: &Diagnosis) -> Value {
    let members = |members: &std::collections::BTreeMap<base_kv_api::ReplicaId, NodeId>| -> Vec<Value> {
        let each = members.iter().map(|(replica, node)| {
            json!({ "replica": replica.to_string(), "node": node.to_string(), "lag": range.lag.get(replica) })
        });
        each.collect()
    };
    let why = diagnosis.problems.iter().filter(|problem| problem.range == Some(range.range));
    json!({
        "range": range.range.to_string(),
        "id": range.range.id,
        "epoch": range.range.epoch,
        "available": is_available(range, diagnosis),
        "leader": range.leader.map(|(_, node)| node.to_string()),
        "voters": members(&range.voters),
        "learners": members(&range.learners),
        "inSync": range.in_sync,
        "tolerates": range.tolerates,
        "why": why.map(ToString::to_string).collect::<Vec<_>>(),
    })
}

async fn cluster(State(status): State<Arc<Status>>) -> Json<Value> {
    let mut tolerates = usize::MAX;
    let mut stores = Vec::new();
    let mut unavailable = false;
    for control in &status.controls {
        let (json, diagnosis) = Status::store(control);
        tolerates = tolerates.min(diagnosis.tolerates);
        unavailable |=
            diagnosis.ranges.is_empty() || diagnosis.ranges.iter().any(|range| !is_available(range, &diagnosis));
        stores.push(json);
    }
    let problems: Vec<Value> = status.problems().into_iter().map(|p| json!({ "what": p.what, "why": p.why })).collect();
    Json(json!({
        "env": status.env,
        "me": status.cluster.members().borrow().me.to_string(),
        "nodes": status.nodes(),
        "stores": stores,
        "tolerates": if unavailable { Value::Null } else { json!(tolerates) },
        "problems": problems,
    }))
}

/// Has all nodes treat one as dead, `?node=ID`, until it is started again.
async fn evict(
    State(status): State<Arc<Status>>,
    Query(query): Query<HashMap<String, String>>,
    Extension(token): Extension<Arc<Option<Token>>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
) -> Response {
    if let Err(refused) = telemetry::may_change((*token).as_ref(), peer, &headers) {
        return refused;
    }
    let text = query.get("node").map_or("", String::as_str);
    let Ok(node) = u64::from_str_radix(text, 16) else {
        let error = format!("{text:?} is no node id; `hermod status` shows them");
        return (StatusCode::BAD_REQUEST, Json(json!({ "error": error }))).into_response();
    };
    match status.evict(NodeId(node)).await {
        Ok(()) => {
            warn!(node = %NodeId(node), %peer, "a node was evicted by an operator");
            Json(json!({ "evicted": text })).into_response()
        }
        Err(error) => (StatusCode::CONFLICT, Json(json!({ "error": error.to_string() }))).into_response(),
    }
}

async fn stores(State(status): State<Arc<Status>>) -> Json<Value> {
    let names: Vec<_> = status.controls.iter().map(|control| Status::store(control).0).collect();
    Json(json!({ "stores": names }))
}

/// What each node says that it has: the raw material of the balancers.
async fn landscape(State(status): State<Arc<Status>>, Query(query): Query<HashMap<String, String>>) -> Response {
    let control = match status.control(&query) {
        Ok(control) => control,
        Err(refused) => return *refused,
    };
    let landscape = control.landscape();
    let nodes: Vec<Value> = landscape
        .nodes
        .values()
        .map(|node| {
            json!({
                "id": node.run.node.to_string(),
                "alive": node.liveness == Liveness::Alive,
                "known": node.known,
                "draining": node.draining,
                "replicas": node.replicas.iter().map(replica_json).collect::<Vec<_>>(),
            })
        })
        .collect();
    Json(json!({ "store": landscape.store, "nodes": nodes })).into_response()
}

fn replica_json(view: &ReplicaView) -> Value {
    let names = |members: &std::collections::BTreeMap<base_kv_api::ReplicaId, NodeId>| -> Vec<Value> {
        members.iter().map(|(id, node)| json!({ "replica": id.to_string(), "node": node.to_string() })).collect()
    };
    json!({
        "range": view.range.to_string(),
        "replica": view.replica.to_string(),
        "role": format!("{:?}", view.role).to_lowercase(),
        "term": view.term,
        "leader": view.leader.map(|leader| leader.to_string()),
        "config": view.config,
        "changing": view.changing,
        "voters": names(&view.voters),
        "learners": names(&view.learners),
        "lastTerm": view.last.0,
        "lastIndex": view.last.1,
        "committed": view.committed,
        "applied": view.applied,
        "fault": view.fault,
    })
}

async fn ranges(State(status): State<Arc<Status>>, Query(query): Query<HashMap<String, String>>) -> Response {
    match status.control(&query) {
        Ok(control) => Json(Status::store(control).0).into_response(),
        Err(refused) => *refused,
    }
}
