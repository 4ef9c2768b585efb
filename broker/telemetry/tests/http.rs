//! The HTTP server over real sockets.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use parking_lot::Mutex;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use telemetry::{
    ApiState, BuildInfo, LogConfig, LogFormat, LogHandle, Metrics, Readiness, Reason, Token, init_logs, router, serve,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

#[derive(Default)]
struct Node(Mutex<Vec<Reason>>);

impl Readiness for Node {
    fn not_ready(&self) -> Vec<Reason> {
        self.0.lock().clone()
    }
}

struct Server {
    addr: SocketAddr,
    node: Arc<Node>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Server {
    async fn start(logs: Option<LogHandle>, token: Option<&str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (addr, node, stop) = (listener.local_addr().unwrap(), Arc::<Node>::default(), CancellationToken::new());
        let state = Arc::new(ApiState {
            metrics: Metrics::new(BuildInfo { version: "1.2.3", commit: "abc" }),
            readiness: node.clone(),
            logs,
            token: token.and_then(Token::new),
        });
        let task = tokio::spawn(serve(vec![listener], router(state), stop.clone()));
        Self { addr, node, stop, task }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addr).await.unwrap()
    }

    /// The whole response to a request; `request` has neither Host nor the empty line at its end.
    async fn ask(&self, request: &str, body: &str) -> String {
        let host = if request.contains("\r\nHost:") { "" } else { "\r\nHost: localhost" };
        let request = format!("{request}{host}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        response
    }

    async fn get(&self, path: &str) -> String {
        self.ask(&format!("GET {path} HTTP/1.1"), "").await
    }
}

fn status(response: &str) -> &str {
    response.get(9..12).unwrap_or(response)
}

#[tokio::test]
async fn ready_says_why_not() {
    let server = Server::start(None, None).await;
    assert!(server.get("/ready").await.ends_with("{\"status\":\"ready\"}\n"));
    server.node.0.lock().push(Reason { what: "store inbox".into(), why: "no leader".into() });
    let response = server.get("/ready").await;
    assert_eq!(status(&response), "503");
    let (_, body) = response.split_once("\r\n\r\n").unwrap();
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(body["reasons"][0]["what"], "store inbox");
    assert_eq!(body["reasons"][0]["why"], "no leader");
    assert_eq!(status(&server.get("/health").await), "200", "not being ready is no reason to be killed");
}

#[tokio::test]
async fn metrics_are_text_of_prometheus() {
    let server = Server::start(None, None).await;
    let response = server.get("/metrics").await;
    assert_eq!(status(&response), "200");
    assert!(response.contains("content-type: text/plain; version=0.0.4"), "{response}");
    assert!(response.contains("\nhermod_ready 1\n"), "{response}");
    assert!(response.contains("\nhermod_build_info{version=\"1.2.3\",commit=\"abc\"} 1\n"), "{response}");
}

#[tokio::test]
async fn what_is_not_there_is_refused() {
    let server = Server::start(None, None).await;
    for (request, expected) in [
        ("GET / HTTP/1.1", "404"),
        ("GET /metrics/../ready HTTP/1.1", "404"),
        ("POST /ready HTTP/1.1", "405"),
        ("DELETE /log/level HTTP/1.1", "405"),
        ("GET /log/level HTTP/1.1", "404"),
        ("nonsense", "400"),
    ] {
        assert_eq!(status(&server.ask(request, "").await), expected, "{request}");
    }
}

#[tokio::test]
async fn the_log_level_is_read_and_changed_by_those_who_may() {
    let logs = init_logs(&LogConfig { filter: "warn".into(), format: LogFormat::Text }).unwrap();
    let put = |extra: &str| format!("PUT /log/level HTTP/1.1{extra}");

    let local = Server::start(Some(logs.clone()), None).await;
    assert!(local.get("/log/level").await.ends_with("{\"filter\":\"warn\"}\n"));
    for (extra, body, expected) in [
        ("", "error,telemetry=info", "200"),
        ("\r\nHost: 127.0.0.1:8091", "error", "200"),
        ("\r\nHost: [::1]:8091", "error", "200"),
        ("\r\nHost: [::1]", "error", "200"),
        ("\r\nHost: localhost:8091", "error", "200"),
        ("\r\nHost: evil.example", "trace", "403"),
        ("\r\nHost: localhost.evil.example", "trace", "403"),
        ("", "loud", "400"),
        ("", &"x".repeat(10_000), "413"),
    ] {
        let response = local.ask(&put(extra), body).await;
        assert_eq!(status(&response), expected, "{extra}: {response}");
    }
    assert_eq!(logs.filter(), "error");

    let guarded = Server::start(Some(logs.clone()), Some("s3cret")).await;
    for (extra, expected) in [
        ("", "401"),
        ("\r\nAuthorization: Bearer ", "401"),
        ("\r\nAuthorization: Bearer wrong", "401"),
        ("\r\nAuthorization: Basic s3cret", "401"),
        ("\r\nAuthorization: Bearer s3cret", "200"),
        ("\r\nHost: broker.example\r\nAuthorization: Bearer s3cret", "200"),
    ] {
        assert_eq!(status(&guarded.ask(&put(extra), "info").await), expected, "{extra}");
    }
    assert_eq!(logs.filter(), "info");
}

#[tokio::test]
async fn giant_heads_are_refused() {
    let server = Server::start(None, None).await;
    let long = format!("GET /ready HTTP/1.1\r\nX: {}", "y".repeat(9000));
    assert_eq!(status(&server.ask(&long, "").await), "431");
    let many: String = (0..100).map(|i| format!("\r\nX-{i}: y")).collect();
    assert_eq!(status(&server.ask(&format!("GET /ready HTTP/1.1{many}"), "").await), "431");
}

#[tokio::test(start_paused = true)]
async fn silent_connections_take_places_but_not_for_ever_and_more_wait() {
    let server = Server::start(None, None).await;
    let mut silent = Vec::new();
    for _ in 0..70 {
        silent.push(server.connect().await);
    }
    // The limit is reached; as the silent ones are cut, the others come in.
    let response = timeout(Duration::from_secs(30), server.get("/ready")).await.unwrap();
    assert_eq!(status(&response), "200");
}

#[tokio::test]
async fn a_stop_ends_idle_connections_at_once_and_frees_the_port() {
    let server = Server::start(None, None).await;
    let mut idle = server.connect().await;
    idle.write_all(b"GET /ready HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    assert!(idle.read(&mut [0; 1000]).await.unwrap() > 0);
    server.stop.cancel();
    timeout(Duration::from_secs(5), server.task).await.unwrap().unwrap();
    assert_eq!(idle.read(&mut [0; 10]).await.unwrap(), 0);
    assert!(TcpStream::connect(server.addr).await.is_err());
}
