//! One request to the HTTP interface of a node.

use super::CliError;
use hyper::body::{Body, Bytes};
use hyper::{Method, Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;
use tokio::net::TcpStream;

/// For the whole exchange.
const DEADLINE: Duration = Duration::from_secs(10);
/// The longest answer, in bytes.
const ANSWER_MAX: usize = 64 << 20;

/// Asks `api` (`host:port`, with or without `http://`) for `path` and reads the answer as JSON.
pub(super) async fn get_json(api: &str, path: &str) -> Result<serde_json::Value, CliError> {
    ask(api, Method::GET, path, None).await
}

/// As [`get_json`], to change something, with the token of that interface if it wants one.
pub(super) async fn post_json(api: &str, path: &str, token: Option<&str>) -> Result<serde_json::Value, CliError> {
    ask(api, Method::POST, path, token).await
}

async fn ask(api: &str, method: Method, path: &str, token: Option<&str>) -> Result<serde_json::Value, CliError> {
    let host = api.trim_start_matches("http://").trim_end_matches('/');
    let failed = |why: String| CliError::Api { api: host.to_owned(), why };
    let asked = tokio::time::timeout(DEADLINE, exchange(host, method, path, token));
    let (status, body) = asked.await.map_err(|_| failed("it did not answer in time".into()))?.map_err(&failed)?;
    let json = serde_json::from_slice::<serde_json::Value>(&body);
    if status.is_success() {
        return json.map_err(|error| failed(format!("its answer to {path} is no JSON: {error}")));
    }
    let why = json.ok().and_then(|json| json.get("error")?.as_str().map(str::to_owned));
    let why = why.unwrap_or_else(|| format!("no answer to {path}"));
    Err(CliError::Answered { api: host.to_owned(), status: status.as_u16(), why })
}

async fn exchange(
    host: &str,
    method: Method,
    path: &str,
    token: Option<&str>,
) -> Result<(hyper::StatusCode, Vec<u8>), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let stream = TcpStream::connect(host).await.map_err(|e| text(&e))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| text(&e))?;
    let driver = tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(path).header("host", host);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let request = request.body(Nothing).map_err(|e| text(&e))?;
    let response = sender.send_request(request).await.map_err(|e| text(&e))?;
    let (head, mut body) = response.into_parts();
    let mut bytes = Vec::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        if let Ok(data) = frame.map_err(|e| text(&e))?.into_data() {
            bytes.extend_from_slice(&data);
        }
        if bytes.len() > ANSWER_MAX {
            return Err("its answer is too long".into());
        }
    }
    driver.abort();
    Ok((head.status, bytes))
}

/// A request without a body.
struct Nothing;

impl Body for Nothing {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, Self::Error>>> {
        std::task::Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        true
    }
}
