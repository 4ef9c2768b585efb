//! The opening handshake, RFC 6455 §4.2.

use super::{WsOptions, WsStream};
use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Request line and headers together.
const MAX_HEAD: usize = 8 * 1024;
const MAX_HEADERS: usize = 64;
/// What we speak, in no order: the client's first choice wins.
const SUBPROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Why an upgrade was refused; the client has been told by the HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpgradeError {
    /// What came is not an HTTP/1.1 request.
    #[error("not an HTTP/1.1 request")]
    NotHttp,
    /// Request line and headers are longer than 8 KiB or have more than 64 lines.
    #[error("the request has more than 8 KiB or 64 headers")]
    TooLarge,
    /// The method is not GET.
    #[error("the method is not GET")]
    Method,
    /// The path is another one.
    #[error("no WebSocket at this path")]
    Path,
    /// The request is HTTP, and not for a WebSocket, or announces a body.
    #[error("not a WebSocket upgrade: {0}")]
    NotUpgrade(&'static str),
    /// The version is not 13.
    #[error("the WebSocket version is not 13")]
    Version,
    /// Neither `mqtt` nor `mqttv3.1` is offered [MQTT-6.0.0-3].
    #[error("the subprotocol `mqtt` is not offered")]
    Subprotocol,
}

impl UpgradeError {
    const fn status(self) -> &'static str {
        match self {
            Self::NotHttp | Self::NotUpgrade(_) | Self::Subprotocol => "400 Bad Request",
            Self::TooLarge => "431 Request Header Fields Too Large",
            Self::Method => "405 Method Not Allowed",
            Self::Path => "404 Not Found",
            Self::Version => "426 Upgrade Required",
        }
    }

    /// A whole response that closes the connection.
    fn response(self) -> String {
        let body = format!("{self}\n");
        let extra = match self {
            Self::Version => "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
            Self::Method => "Allow: GET\r\n",
            _ => "",
        };
        format!(
            "HTTP/1.1 {}\r\nConnection: close\r\n{extra}Content-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}",
            self.status(),
            body.len(),
        )
    }
}

/// Answers the upgrade request that comes first on `stream`; has no time limit of its own.
pub(crate) async fn upgrade<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    options: &WsOptions,
) -> io::Result<Result<WsStream<S>, UpgradeError>> {
    let mut bytes = Vec::with_capacity(1024);
    let answer = match read_head(&mut stream, &mut bytes).await? {
        Ok(end) => negotiate(&bytes[..end], &options.path).map(|response| (response, end)),
        Err(error) => Err(error),
    };
    match answer {
        Ok((response, end)) => {
            stream.write_all(response.as_bytes()).await?;
            stream.flush().await?;
            let early = bytes[end..].to_vec();
            Ok(Ok(WsStream::new(stream, early, options.max_frame)))
        }
        Err(error) => {
            stream.write_all(error.response().as_bytes()).await?;
            stream.shutdown().await?;
            Ok(Err(error))
        }
    }
}

/// Reads up to the empty line and tells where it ends; what came with it stays behind it.
async fn read_head<S: AsyncRead + Unpin>(
    stream: &mut S,
    bytes: &mut Vec<u8>,
) -> io::Result<Result<usize, UpgradeError>> {
    loop {
        let seen = bytes.len();
        let room = (MAX_HEAD - seen) as u64;
        if (&mut *stream).take(room).read_buf(bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // An MQTT client at the wrong port learns at once.
        if !bytes[0].is_ascii_uppercase() {
            return Ok(Err(UpgradeError::NotHttp));
        }
        let from = seen.saturating_sub(3);
        if let Some(at) = bytes[from..].windows(4).position(|end| end == b"\r\n\r\n") {
            return Ok(Ok(from + at + 4));
        }
        if bytes.len() >= MAX_HEAD {
            return Ok(Err(UpgradeError::TooLarge));
        }
    }
}

/// The response to a request that is as RFC 6455 §4.2.1 and MQTT 5.0 §6 want it.
fn negotiate(head: &[u8], path: &str) -> Result<String, UpgradeError> {
    use UpgradeError::*;
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Complete(end)) if end == head.len() => {}
        Err(httparse::Error::TooManyHeaders) => return Err(TooLarge),
        _ => return Err(NotHttp),
    }
    if request.version != Some(1) {
        return Err(NotHttp);
    }
    if request.method != Some("GET") {
        return Err(Method);
    }
    let target = request.path.unwrap_or_default();
    if target.split_once('?').map_or(target, |(path, _)| path) != path {
        return Err(Path);
    }

    let headers = Headers(request.headers);
    for name in ["content-length", "transfer-encoding"] {
        if headers.all(name).any(|value| value != b"0") {
            return Err(NotUpgrade("a body is announced"));
        }
    }
    if headers.only("host").is_none() {
        return Err(NotUpgrade("not exactly one Host header"));
    }
    if !headers.tokens("upgrade").any(|token| token.eq_ignore_ascii_case(b"websocket")) {
        return Err(NotUpgrade("no `Upgrade: websocket`"));
    }
    if !headers.tokens("connection").any(|token| token.eq_ignore_ascii_case(b"upgrade")) {
        return Err(NotUpgrade("no `Connection: Upgrade`"));
    }
    if headers.only("sec-websocket-version") != Some(b"13") {
        return Err(Version);
    }
    let key = headers.only("sec-websocket-key").filter(|key| is_key(key));
    let key = key.ok_or(NotUpgrade("no Sec-WebSocket-Key of 16 bytes in base64"))?;
    let subprotocol = headers
        .tokens("sec-websocket-protocol")
        .find_map(|token| SUBPROTOCOLS.into_iter().find(|ours| ours.as_bytes() == token))
        .ok_or(Subprotocol)?;
    Ok(format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\nSec-WebSocket-Protocol: {subprotocol}\r\n\r\n",
        accept_key(key),
    ))
}

struct Headers<'a>(&'a [httparse::Header<'a>]);

impl<'a> Headers<'a> {
    fn all(&self, name: &'static str) -> impl Iterator<Item = &'a [u8]> {
        self.0
            .iter()
            .filter(move |header| header.name.eq_ignore_ascii_case(name))
            .map(|header| header.value.trim_ascii())
    }

    /// The value of a header that must not be repeated.
    fn only(&self, name: &'static str) -> Option<&'a [u8]> {
        let mut all = self.all(name);
        let first = all.next();
        first.filter(|_| all.next().is_none())
    }

    /// The elements of a list, which may be spread over several headers of the name.
    fn tokens(&self, name: &'static str) -> impl Iterator<Item = &'a [u8]> {
        self.all(name).flat_map(|value| value.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
    }
}

/// Whether this is base64 of 16 bytes.
fn is_key(key: &[u8]) -> bool {
    key.len() == 24
        && key.ends_with(b"==")
        && key[..22].iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
}

/// §4.2.2 (5.4): proves that the request was read.
fn accept_key(key: &[u8]) -> String {
    let mut sha1 = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    sha1.update(key);
    sha1.update(GUID);
    base64(sha1.finish().as_ref())
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let at = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for i in 0..4 {
            let digit = ALPHABET[(bits >> (18 - 6 * i) & 0x3F) as usize];
            text.push(if i <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
#[path = "upgrade_test.rs"]
mod tests;
