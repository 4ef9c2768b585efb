use super::*;
use UpgradeError::*;
use proptest::prelude::*;
use tokio::io::duplex;

const GOOD: &str = "GET /mqtt HTTP/1.1\r\nHost: broker\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";

fn negotiated(request: &str) -> Result<String, UpgradeError> {
    negotiate(request.as_bytes(), "/mqtt")
}

#[test]
fn the_key_of_the_rfc_gets_the_answer_of_the_rfc() {
    assert_eq!(accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}

#[test]
fn base64_pads() {
    assert_eq!([base64(b""), base64(b"f"), base64(b"fo"), base64(b"foo")], ["", "Zg==", "Zm8=", "Zm9v"]);
}

#[test]
fn a_good_request_is_switched_with_the_subprotocol_that_the_client_prefers() {
    for (offer, chosen) in [
        ("mqtt", "mqtt"),
        ("mqttv3.1", "mqttv3.1"),
        ("amqp, mqttv3.1 ,mqtt", "mqttv3.1"),
        ("amqp\r\nSec-WebSocket-Protocol: mqtt", "mqtt"),
    ] {
        let offer = format!("Sec-WebSocket-Protocol: {offer}\r\n");
        let response = negotiated(&GOOD.replace("Sec-WebSocket-Protocol: mqtt\r\n", &offer)).unwrap();
        assert!(response.starts_with("HTTP/1.1 101 "), "{response}");
        assert!(response.ends_with(&format!("Sec-WebSocket-Protocol: {chosen}\r\n\r\n")), "{offer}: {response}");
        assert!(response.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
    }
}

#[test]
fn names_and_tokens_are_compared_without_case_and_a_query_is_ignored() {
    let request = GOOD.to_lowercase().replace("get", "GET").replace("http", "HTTP");
    let request =
        request.replace("dghlihnhbxbszsbub25jzq==", "dGhlIHNhbXBsZSBub25jZQ==").replace("/mqtt ", "/mqtt?a=b ");
    assert!(negotiated(&request).is_ok());
}

#[test]
fn bad_requests_are_refused_each_with_its_status() {
    for (from, to, error, status) in [
        ("GET", "POST", Method, "405"),
        ("HTTP/1.1", "HTTP/1.0", NotHttp, "400"),
        ("/mqtt ", "/ ", Path, "404"),
        ("/mqtt ", "/mqtt/ ", Path, "404"),
        ("/mqtt ", "/../mqtt ", Path, "404"),
        ("Host: broker\r\n", "", NotUpgrade("not exactly one Host header"), "400"),
        ("Host: broker\r\n", "Host: a\r\nHost: b\r\n", NotUpgrade("not exactly one Host header"), "400"),
        ("Upgrade: websocket\r\n", "", NotUpgrade("no `Upgrade: websocket`"), "400"),
        ("Upgrade: websocket\r\n", "Upgrade: h2c\r\n", NotUpgrade("no `Upgrade: websocket`"), "400"),
        (", Upgrade", "", NotUpgrade("no `Connection: Upgrade`"), "400"),
        ("Version: 13", "Version: 8", Version, "426"),
        ("Version: 13", "Version: 13\r\nSec-WebSocket-Version: 13", Version, "426"),
        ("bXBsZSBub25jZQ==", "", NotUpgrade("no Sec-WebSocket-Key of 16 bytes in base64"), "400"),
        ("dGhl", "!GhI", NotUpgrade("no Sec-WebSocket-Key of 16 bytes in base64"), "400"),
        ("Sec-WebSocket-Protocol: mqtt\r\n", "", Subprotocol, "400"),
        ("Protocol: mqtt", "Protocol: MQTT", Subprotocol, "400"),
        ("Protocol: mqtt", "Protocol: mqttv5", Subprotocol, "400"),
        ("Host:", "Content-Length: 3\r\nHost:", NotUpgrade("a body is announced"), "400"),
        ("Host:", "Transfer-Encoding: chunked\r\nHost:", NotUpgrade("a body is announced"), "400"),
        ("Host: broker", "Host broker", NotHttp, "400"),
        ("Host: broker", "Host : broker", NotHttp, "400"),
        ("Host: broker\r\n", "Host: broker\n\n", NotHttp, "400"),
        ("GET", "G\0T", NotHttp, "400"),
    ] {
        assert!(GOOD.contains(from), "{from}");
        let got = negotiated(&GOOD.replacen(from, to, 1)).unwrap_err();
        assert_eq!(got, error, "{from} -> {to}");
        assert!(got.response().starts_with(&format!("HTTP/1.1 {status} ")), "{}", got.response());
    }
    let many: String = (0..MAX_HEADERS).map(|i| format!("X-{i}: y\r\n")).collect();
    assert_eq!(negotiated(&GOOD.replace("Host:", &format!("{many}Host:"))).unwrap_err(), TooLarge);
}

/// What the client reads when it sends `request` in pieces of `piece` bytes, and the outcome.
async fn exchange(request: &[u8], piece: usize) -> (String, Result<Vec<u8>, UpgradeError>) {
    let (ours, theirs) = duplex(64 << 10);
    let (mut from_us, mut to_us) = tokio::io::split(theirs);
    let client = async {
        for piece in request.chunks(piece) {
            if to_us.write_all(piece).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    let options = WsOptions::new("/mqtt");
    let (outcome, ()) = tokio::join!(upgrade(ours, &options), client);
    let mut ws = None;
    let outcome = outcome.unwrap().map(|stream| ws = Some(stream));
    let mut response = Vec::new();
    from_us.read_buf(&mut response).await.unwrap();
    let mut rest = Vec::new();
    if let Some(mut ws) = ws {
        to_us.shutdown().await.unwrap();
        drop(to_us);
        ws.read_to_end(&mut rest).await.unwrap();
    }
    (String::from_utf8(response).unwrap(), outcome.map(|()| rest))
}

#[tokio::test]
async fn a_request_that_comes_byte_by_byte_with_a_frame_behind_it_is_understood() {
    let mut request = GOOD.as_bytes().to_vec();
    request.extend_from_slice(b"\x82\x83\0\0\0\0abc");
    for piece in [1, 7, 4096] {
        let (response, outcome) = exchange(&request, piece).await;
        assert!(response.starts_with("HTTP/1.1 101"), "{response}");
        assert_eq!(outcome.unwrap(), b"abc");
    }
}

#[tokio::test]
async fn a_giant_request_is_refused_at_8_kib() {
    let request = GOOD.replace("Host:", &format!("X: {}\r\nHost:", "y".repeat(9000)));
    let (response, outcome) = exchange(request.as_bytes(), 1000).await;
    assert_eq!(outcome, Err(TooLarge));
    assert!(response.starts_with("HTTP/1.1 431 "), "{response}");
}

#[tokio::test]
async fn an_mqtt_client_at_the_wrong_port_is_told_at_its_first_byte() {
    let (response, outcome) = exchange(b"\x10", 1).await;
    assert_eq!(outcome, Err(NotHttp));
    assert!(response.starts_with("HTTP/1.1 400 "), "{response}");
}

proptest! {
    #[test]
    fn no_request_makes_it_panic(at in 0..GOOD.len(), with: [u8; 3], cut in 0..GOOD.len()) {
        let mut request = GOOD.as_bytes().to_vec();
        request.splice(at..(at + 2).min(GOOD.len()), with);
        let _ = negotiate(&request, "/mqtt");
        request.truncate(cut);
        let _ = negotiate(&request, "/mqtt");
    }
}
