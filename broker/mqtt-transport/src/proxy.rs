//! The PROXY protocol, versions 1 and 2: <https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const V1_SIGNATURE: &[u8; 6] = b"PROXY ";
/// "107-byte buffer is always enough to store all the line" and the terminating NUL.
const V1_MAX: usize = 107;
/// Addresses take at most 216 bytes; the rest is for TLVs, which real proxies fill with some hundred bytes.
const V2_MAX: usize = 4096;

/// Why a PROXY header was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyHeaderError {
    /// The header is required, and something else came.
    #[error("no PROXY header came from an address that must send one")]
    Missing,
    /// The connection ended within the header.
    #[error("the connection ended within the PROXY header")]
    Cut,
    /// A version 1 line that is not formed as specified.
    #[error("malformed PROXY version 1 line")]
    Line,
    /// A version 2 header that is not formed as specified.
    #[error("malformed PROXY version 2 header: {0}")]
    Binary(&'static str),
}

/// Whether a connection begins with a header, judged by its first byte, which begins neither MQTT, TLS nor a WebSocket upgrade. Takes nothing
/// from the socket.
pub(crate) async fn begins(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0];
    let n = stream.peek(&mut first).await?;
    Ok(n == 1 && (first[0] == V2_SIGNATURE[0] || first[0] == V1_SIGNATURE[0]))
}

/// Reads one header and nothing after it. `None`: the proxy speaks for itself (a health check) or does not know for whom.
pub(crate) async fn read(stream: &mut TcpStream) -> io::Result<Result<Option<SocketAddr>, ProxyHeaderError>> {
    match read_header(stream).await {
        Ok(parsed) => Ok(parsed),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(Err(ProxyHeaderError::Cut)),
        Err(error) => Err(error),
    }
}

async fn read_header(stream: &mut TcpStream) -> io::Result<Result<Option<SocketAddr>, ProxyHeaderError>> {
    // The shortest headers are `PROXY UNKNOWN\r\n` with 15 bytes and version 2 with 16.
    let mut head = [0; 12];
    stream.read_exact(&mut head[..1]).await?;
    if head[0] != V1_SIGNATURE[0] && head[0] != V2_SIGNATURE[0] {
        return Ok(Err(ProxyHeaderError::Missing));
    }
    stream.read_exact(&mut head[1..]).await?;
    if head == *V2_SIGNATURE {
        let mut rest = [0; 4];
        stream.read_exact(&mut rest).await?;
        let len = usize::from(u16::from_be_bytes([rest[2], rest[3]]));
        if len > V2_MAX {
            return Ok(Err(ProxyHeaderError::Binary("longer than 4096 bytes")));
        }
        let mut body = vec![0; len];
        stream.read_exact(&mut body).await?;
        Ok(parse_v2(rest[0], rest[1], &body))
    } else if head.starts_with(V1_SIGNATURE) {
        let mut line = head.to_vec();
        let complete = read_line(stream, &mut line).await?;
        Ok(if complete { parse_v1(&line) } else { Err(ProxyHeaderError::Line) })
    } else {
        Ok(Err(ProxyHeaderError::Missing))
    }
}

/// Continues a line up to its LF; `false` when it is longer than it may be.
async fn read_line(stream: &mut TcpStream, line: &mut Vec<u8>) -> io::Result<bool> {
    while line.len() < V1_MAX {
        let mut ahead = [0; V1_MAX];
        let room = V1_MAX - line.len();
        let n = stream.peek(&mut ahead[..room]).await?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let end = ahead[..n].iter().position(|byte| *byte == b'\n');
        let take = end.map_or(n, |at| at + 1);
        stream.read_exact(&mut ahead[..take]).await?;
        line.extend_from_slice(&ahead[..take]);
        if end.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// §2.1: `PROXY TCP4 192.0.2.1 192.0.2.9 56324 1883\r\n`, with single spaces.
fn parse_v1(line: &[u8]) -> Result<Option<SocketAddr>, ProxyHeaderError> {
    let bad = ProxyHeaderError::Line;
    let line = std::str::from_utf8(line).map_err(|_| bad)?;
    let line = line.strip_suffix("\r\n").and_then(|line| line.strip_prefix("PROXY ")).ok_or(bad)?;
    let mut words = line.split(' ');
    let family = words.next().ok_or(bad)?;
    if family == "UNKNOWN" {
        return Ok(None); // the rest of the line is to be ignored
    }
    let fields: Vec<_> = words.collect();
    let &[source, destination, source_port, destination_port] = fields.as_slice() else { return Err(bad) };
    let ip = |text: &str| match family {
        "TCP4" => text.parse().map(IpAddr::V4).map_err(|_| bad),
        "TCP6" => text.parse().map(IpAddr::V6).map_err(|_| bad),
        _ => Err(bad),
    };
    let port = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let minimal = text == "0" || !text.starts_with('0');
        if digits && minimal { text.parse::<u16>().map_err(|_| bad) } else { Err(bad) }
    };
    let _checked = SocketAddr::new(ip(destination)?, port(destination_port)?);
    Ok(Some(SocketAddr::new(ip(source)?, port(source_port)?)))
}

/// §2.2: what follows the signature and the length.
fn parse_v2(version_command: u8, family: u8, body: &[u8]) -> Result<Option<SocketAddr>, ProxyHeaderError> {
    use ProxyHeaderError::Binary;
    if version_command >> 4 != 2 {
        return Err(Binary("the version is not 2"));
    }
    let local = match version_command & 0x0F {
        0 => true,
        1 => false,
        _ => return Err(Binary("unknown command")),
    };
    // Source address, destination address, source port, destination port.
    let short = Binary("shorter than its addresses");
    let (source, tlvs) = match family >> 4 {
        _ if local => (None, &[][..]), // "MUST discard the protocol block including the family"
        0 => (None, &[][..]),
        1 => {
            let (addresses, tlvs) = body.split_first_chunk::<12>().ok_or(short)?;
            let [a, b, c, d, _, _, _, _, p, q, ..] = *addresses;
            (Some(SocketAddr::new(Ipv4Addr::new(a, b, c, d).into(), u16::from_be_bytes([p, q]))), tlvs)
        }
        2 => {
            let (addresses, tlvs) = body.split_first_chunk::<36>().ok_or(short)?;
            let (ip, rest) = addresses.split_first_chunk::<16>().ok_or(short)?;
            (Some(SocketAddr::new(Ipv6Addr::from(*ip).into(), u16::from_be_bytes([rest[16], rest[17]]))), tlvs)
        }
        3 => (None, body.get(216..).ok_or(short)?), // a Unix socket has no address that we could tell
        _ => return Err(Binary("unknown address family")),
    };
    if source.is_some() && family & 0x0F != 1 {
        return Err(Binary("not a stream"));
    }
    check_tlvs(tlvs)?;
    Ok(source)
}

/// §2.2.1: type, length (two bytes), value, up to the end of the header. We use none, but a header that overruns itself is a broken one.
fn check_tlvs(mut tlvs: &[u8]) -> Result<(), ProxyHeaderError> {
    let overrun = ProxyHeaderError::Binary("a TLV overruns the header");
    while !tlvs.is_empty() {
        let ([_, high, low], rest) = tlvs.split_first_chunk().ok_or(overrun)?;
        tlvs = rest.get(usize::from(u16::from_be_bytes([*high, *low]))..).ok_or(overrun)?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "proxy_test.rs"]
mod tests;
