use super::*;
use proptest::prelude::*;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

fn v2(version_command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let len = (body.len() as u16).to_be_bytes();
    [&V2_SIGNATURE[..], &[version_command, family], &len, body].concat()
}

const INET: [u8; 12] = [192, 0, 2, 1, 192, 0, 2, 9, 0xDC, 0x04, 0x07, 0x5B];

fn inet6() -> [u8; 36] {
    let mut body = [0; 36];
    body[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
    body[15] = 1;
    body[32..].copy_from_slice(&[0xDC, 0x04, 0x07, 0x5B]);
    body
}

/// What is made of `bytes` sent in pieces, and what is left on the socket after them.
async fn received(bytes: &[u8], piece: usize) -> (Result<Option<SocketAddr>, ProxyHeaderError>, Vec<u8>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    client.set_nodelay(true).unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    let sender = async move {
        for piece in bytes.chunks(piece) {
            if client.write_all(piece).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    let receiver = async move {
        let header = read(&mut server).await.unwrap();
        let mut rest = Vec::new();
        if header.is_ok() {
            server.read_to_end(&mut rest).await.unwrap();
        }
        (header, rest)
    };
    tokio::join!(sender, receiver).1
}

#[tokio::test]
async fn good_headers_give_the_client_and_leave_what_follows() {
    let v4 = Some("192.0.2.1:56324".parse().unwrap());
    let v6 = Some("[2001:db8::1]:56324".parse().unwrap());
    let tlvs = [&INET[..], &[0x01, 0, 4, b'm', b'q', b't', b't', 0x04, 0, 0]].concat();
    let unix = vec![b'u'; 216];
    for (header, client) in [
        (b"PROXY TCP4 192.0.2.1 192.0.2.9 56324 1883\r\n".to_vec(), v4),
        (b"PROXY TCP6 2001:db8::1 2001:db8::2 56324 1883\r\n".to_vec(), v6),
        (b"PROXY UNKNOWN\r\n".to_vec(), None),
        (b"PROXY UNKNOWN ffff::1 ffff::1 65535 65535\r\n".to_vec(), None),
        (v2(0x21, 0x11, &INET), v4),
        (v2(0x21, 0x11, &tlvs), v4),
        (v2(0x21, 0x21, &inet6()), v6),
        (v2(0x21, 0x31, &unix), None),
        (v2(0x21, 0x00, b""), None),
        (v2(0x21, 0x00, &[0x04, 0, 1, 0]), None),
        (v2(0x20, 0x00, b""), None),
        (v2(0x20, 0x11, b"what a LOCAL command carries is discarded"), None),
    ] {
        for piece in [1, 5, 4096] {
            let wire = [&header[..], b"\x10\x0C\0\x04MQTT"].concat();
            let (got, rest) = received(&wire, piece).await;
            assert_eq!(got, Ok(client), "{}", header.escape_ascii());
            assert_eq!(rest, b"\x10\x0C\0\x04MQTT");
        }
    }
}

#[tokio::test]
async fn bad_headers_are_refused() {
    use ProxyHeaderError::*;
    let line = |text: &str| text.as_bytes().to_vec();
    for (header, error) in [
        (b"\x10\x0C\0\x04MQTT\x04\x02\0\x3C\0\0".to_vec(), Missing),
        (line("POST /mqtt HTTP/1.1\r\n"), Missing),
        (line("PROXY TCP4 192.0"), Cut),
        (line("PR"), Cut),
        (line("PROXY TCP4 192.0.2.1 192.0.2.9 56324 1883\n"), Line),
        (line("PROXY TCP4 192.0.2.1 192.0.2.9 56324\r\n"), Line),
        (line("PROXY TCP4 192.0.2.1 192.0.2.9 56324 1883 \r\n"), Line),
        (line("PROXY TCP4  192.0.2.1 192.0.2.9 56324 1883\r\n"), Line),
        (line("PROXY TCP4 192.0.2.1 192.0.2.9 056324 1883\r\n"), Line),
        (line("PROXY TCP4 192.0.2.1 192.0.2.9 +5632 1883\r\n"), Line),
        (line("PROXY TCP4 192.0.2.1 192.0.2.9 65536 1883\r\n"), Line),
        (line("PROXY TCP4 192.0.2.1 192.0.2.9 1 65536\r\n"), Line),
        (line("PROXY TCP4 2001:db8::1 192.0.2.9 56324 1883\r\n"), Line),
        (line("PROXY TCP6 192.0.2.1 192.0.2.9 56324 1883\r\n"), Line),
        (line("PROXY UDP4 192.0.2.1 192.0.2.9 56324 1883\r\n"), Line),
        (line("PROXY TCP4 \u{0660}.0.0.1 192.0.2.9 56324 1883\r\n"), Line),
        (format!("PROXY UNKNOWN {}\r\n", "x".repeat(100)).into_bytes(), Line),
        (v2(0x11, 0x11, &INET), Binary("the version is not 2")),
        (v2(0x22, 0x11, &INET), Binary("unknown command")),
        (v2(0x21, 0x41, &INET), Binary("unknown address family")),
        (v2(0x21, 0x12, &INET), Binary("not a stream")),
        (v2(0x21, 0x11, &INET[..11]), Binary("shorter than its addresses")),
        (v2(0x21, 0x21, &INET), Binary("shorter than its addresses")),
        (v2(0x21, 0x31, &INET), Binary("shorter than its addresses")),
        (v2(0x21, 0x11, &[&INET[..], &[1, 0, 2, 0]].concat()), Binary("a TLV overruns the header")),
        (v2(0x21, 0x11, &[&INET[..], &[1, 0xFF, 0xFF]].concat()), Binary("a TLV overruns the header")),
        (v2(0x21, 0x11, &[&INET[..], &[1]].concat()), Binary("a TLV overruns the header")),
        (v2(0x21, 0x11, &[0; V2_MAX + 1]), Binary("longer than 4096 bytes")),
        (v2(0x21, 0x11, &INET)[..20].to_vec(), Cut),
    ] {
        assert_eq!(received(&header, 4096).await.0, Err(error), "{}", header.escape_ascii());
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_parsers_panic(
        line in prop::collection::vec(any::<u8>(), 0..110),
        version_command: u8,
        family: u8,
        body in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let _ = parse_v1(&line);
        let _ = parse_v1(&[b"PROXY TCP4 ", &line[..]].concat());
        let _ = parse_v2(version_command, family, &body);
        let _ = parse_v2(0x21, 0x11, &body);
    }

    #[test]
    fn every_address_that_is_written_is_read(ip: [u8; 4], port: u16) {
        let addr = SocketAddr::new(Ipv4Addr::from(ip).into(), port);
        let line = format!("PROXY TCP4 {} 0.0.0.0 {port} 0\r\n", addr.ip());
        prop_assert_eq!(parse_v1(line.as_bytes()), Ok(Some(addr)));
    }
}
