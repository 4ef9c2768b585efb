//! Every kind of listener over real sockets.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use futures_util::{SinkExt, StreamExt};
use mqtt_transport::{
    AcceptError, ClientAuth, HandshakeLimit, Kind, ListenOptions, Peer, ProxyHeaderError, ProxyPolicy, Setup, Tls,
    TlsError, TlsFiles, Transport, TransportKind, UpgradeError, WsOptions, accept, listen,
};
use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa, KeyIdMethod,
    KeyPair, RevokedCertParams, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{self, Message};

/// A server and a client certificate from one authority, as files.
struct Pki {
    dir: TempDir,
    roots: Arc<RootCertStore>,
    client: (CertificateDer<'static>, KeyPair),
    /// Of another authority.
    stranger: (CertificateDer<'static>, KeyPair),
    expired: (CertificateDer<'static>, KeyPair),
    authorities: [CertifiedIssuer<'static, KeyPair>; 2],
}

/// The serial number of every client certificate.
const SERIAL: u64 = 7;

impl Pki {
    fn new() -> Self {
        let authority = || {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
        };
        let client_of = |issuer: &CertifiedIssuer<'_, KeyPair>, until| {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(vec!["sensor-7.example".to_owned()]).unwrap();
            params.distinguished_name.push(DnType::CommonName, "sensor-7");
            params.not_after = date_time_ymd(until, 1, 1);
            params.serial_number = Some(SERIAL.into());
            (params.signed_by(&key, issuer).unwrap().der().clone(), key)
        };
        let (ours, other) = (authority(), authority());
        let key = KeyPair::generate().unwrap();
        let server = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &ours).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("cert.pem"), server.pem()).unwrap();
        std::fs::write(dir.path().join("key.pem"), key.serialize_pem()).unwrap();
        std::fs::write(dir.path().join("trust.pem"), ours.pem()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(ours.der().clone()).unwrap();
        Self {
            dir,
            roots: Arc::new(roots),
            client: client_of(&ours, 4000),
            stranger: client_of(&other, 4000),
            expired: client_of(&ours, 2001),
            authorities: [ours, other],
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        std::fs::write(self.file(name), text).unwrap();
        self.file(name)
    }

    fn server(&self, auth: ClientAuth) -> Arc<Tls> {
        load_tls(&self.file("cert.pem"), &self.file("key.pem"), Some(&self.file("trust.pem")), auth).unwrap()
    }

    /// A revocation list of ours, or of the other authority.
    fn revocations(&self, authority: usize, revoked: &[u64]) -> String {
        let revoked = revoked.iter().map(|&serial| RevokedCertParams {
            serial_number: serial.into(),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(4000, 1, 1),
            crl_number: 1.into(),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.authorities[authority]).unwrap().pem().unwrap()
    }

    fn client(&self, identity: Option<&(CertificateDer<'static>, KeyPair)>) -> TlsConnector {
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(Arc::clone(&self.roots));
        let config = match identity {
            None => config.with_no_client_auth(),
            Some((certificate, key)) => {
                let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
                config.with_client_auth_cert(vec![certificate.clone()], key).unwrap()
            }
        };
        TlsConnector::from(Arc::new(config))
    }
}

fn load_tls(cert: &Path, key: &Path, trust: Option<&Path>, client_auth: ClientAuth) -> Result<Arc<Tls>, TlsError> {
    Tls::load(TlsFiles {
        cert_file: cert.to_owned(),
        key_file: key.to_owned(),
        trust_certs_file: trust.map(Path::to_owned),
        crl_file: None,
        client_auth,
    })
}

struct Server {
    listener: TcpListener,
    setup: Setup,
}

impl Server {
    fn new(kind: Kind) -> Self {
        Self::with(Setup::new(kind))
    }

    fn with(setup: Setup) -> Self {
        let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0)), ListenOptions::default()).unwrap();
        Self { listener: TcpListener::from_std(listener).unwrap(), setup }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.listener.local_addr().unwrap()).await.unwrap()
    }

    async fn accept(&self) -> Result<(Transport, Peer), AcceptError> {
        let (stream, peer) = self.listener.accept().await.unwrap();
        accept(stream, peer, &self.setup).await
    }

    /// What becomes of a connection that sends `bytes` at once and then reads.
    async fn answer_to(&self, bytes: &[u8]) -> (Result<(Transport, Peer), AcceptError>, TcpStream) {
        let mut client = self.connect().await;
        client.write_all(bytes).await.unwrap();
        (self.accept().await, client)
    }
}

async fn tls_client(connector: &TlsConnector, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
    connector.connect(ServerName::try_from("localhost").unwrap(), stream).await
}

async fn ws_client<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    path: &str,
    subprotocol: Option<&str>,
) -> Result<WebSocketStream<S>, tungstenite::Error> {
    let mut request = format!("ws://localhost{path}").into_client_request().unwrap();
    if let Some(subprotocol) = subprotocol {
        request.headers_mut().insert("Sec-WebSocket-Protocol", subprotocol.parse().unwrap());
    }
    Ok(tokio_tungstenite::client_async(request, stream).await?.0)
}

fn ws_options() -> WsOptions {
    WsOptions::new("/mqtt")
}

async fn echo(mut transport: Transport) -> Transport {
    let mut bytes = [0; 1000];
    loop {
        match transport.read(&mut bytes).await.unwrap() {
            0 => {
                transport.shutdown().await.unwrap();
                return transport;
            }
            n => {
                transport.write_all(&bytes[..n]).await.unwrap();
                transport.flush().await.unwrap();
            }
        }
    }
}

/// Sends `chunks` and reads as many bytes back.
async fn echoed<S: AsyncRead + AsyncWrite>(client: S, chunks: &[Vec<u8>]) -> Vec<u8> {
    let (mut from, mut to) = tokio::io::split(client);
    let mut got = vec![0; chunks.concat().len()];
    let send = async {
        for chunk in chunks {
            to.write_all(chunk).await.unwrap();
            to.flush().await.unwrap();
        }
    };
    tokio::join!(send, async { from.read_exact(&mut got).await.unwrap() });
    got
}

async fn ws_echoed<S: AsyncRead + AsyncWrite + Unpin>(client: WebSocketStream<S>, chunks: &[Vec<u8>]) -> Vec<u8> {
    let (mut to, mut from) = client.split();
    let wanted = chunks.concat().len();
    let mut got = Vec::new();
    let send = async {
        for chunk in chunks {
            to.send(Message::binary(chunk.clone())).await.unwrap();
        }
    };
    let receive = async {
        while got.len() < wanted {
            match from.next().await.unwrap().unwrap() {
                Message::Binary(bytes) => got.extend_from_slice(&bytes),
                other => panic!("{other:?}"),
            }
        }
    };
    tokio::join!(send, receive);
    got
}

async fn echoed_over_all_kinds(pki: &Pki, chunks: &[Vec<u8>]) {
    let sent = chunks.concat();
    let tls = pki.server(ClientAuth::None);
    let connector = pki.client(None);
    let kinds = [Kind::Tcp, Kind::Tls(tls.clone()), Kind::Ws(ws_options()), Kind::Wss(tls, ws_options())];
    for kind in kinds {
        let name = kind.transport();
        let server = Server::new(kind);
        let stream = server.connect().await;
        let serve = async {
            let (transport, peer) = server.accept().await.unwrap();
            assert_eq!((peer.kind, transport.kind()), (name, name));
            echo(transport).await
        };
        let client = async {
            match name {
                TransportKind::Tcp => echoed(stream, chunks).await,
                TransportKind::Tls => echoed(tls_client(&connector, stream).await.unwrap(), chunks).await,
                TransportKind::Ws => ws_echoed(ws_client(stream, "/mqtt", Some("mqtt")).await.unwrap(), chunks).await,
                TransportKind::Wss => {
                    let stream = tls_client(&connector, stream).await.unwrap();
                    ws_echoed(ws_client(stream, "/mqtt", Some("mqtt")).await.unwrap(), chunks).await
                }
            }
        };
        let got = tokio::select! {
            got = client => got,
            _ = serve => panic!("{name}: the server ended first"),
        };
        assert_eq!(got, sent, "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]
    #[test]
    fn the_same_bytes_come_out_whatever_the_chunks_and_the_kind(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..3000), 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(echoed_over_all_kinds(&Pki::new(), &chunks));
    }
}

#[tokio::test]
async fn megabytes_pass_through_every_kind_though_the_sockets_fill_up() {
    let chunks: Vec<Vec<u8>> = (0..40).map(|i| vec![i as u8; 100_000]).collect();
    echoed_over_all_kinds(&Pki::new(), &chunks).await;
}

/// Reads `wanted` bytes from whatever client this is.
async fn receive(pki: &Pki, kind: TransportKind, stream: TcpStream, wanted: oneshot::Receiver<usize>) {
    let connector = pki.client(None);
    match kind {
        TransportKind::Tcp => receive_plain(stream, wanted).await,
        TransportKind::Tls => receive_plain(tls_client(&connector, stream).await.unwrap(), wanted).await,
        TransportKind::Ws => receive_ws(ws_client(stream, "/mqtt", Some("mqtt")).await.unwrap(), wanted).await,
        TransportKind::Wss => {
            let stream = tls_client(&connector, stream).await.unwrap();
            receive_ws(ws_client(stream, "/mqtt", Some("mqtt")).await.unwrap(), wanted).await;
        }
    }
}

async fn receive_plain(mut client: impl AsyncRead + Unpin, wanted: oneshot::Receiver<usize>) {
    let mut got = vec![0; wanted.await.unwrap()];
    client.read_exact(&mut got).await.unwrap();
    assert!(got.iter().all(|byte| *byte == 7));
}

async fn receive_ws<S: AsyncRead + AsyncWrite + Unpin>(
    mut client: WebSocketStream<S>,
    wanted: oneshot::Receiver<usize>,
) {
    let (wanted, mut got) = (wanted.await.unwrap(), 0);
    while got < wanted {
        got += client.next().await.unwrap().unwrap().len();
    }
}

/// A connection task writes and flushes while it can, and then waits for what it can read.
#[tokio::test]
async fn reading_goes_on_with_what_a_flush_could_not_finish() {
    let pki = Pki::new();
    let tls = pki.server(ClientAuth::None);
    for kind in [Kind::Tls(tls.clone()), Kind::Ws(ws_options()), Kind::Wss(tls, ws_options())] {
        let name = kind.transport();
        let server = Server::new(kind);
        let stream = server.connect().await;
        let (written, wanted) = oneshot::channel();
        let serve = async {
            let (mut transport, _) = server.accept().await.unwrap();
            let mut total = 0;
            // Until the socket is full and neither takes more.
            poll_fn(|cx| {
                while let Poll::Ready(n) = Pin::new(&mut transport).poll_write(cx, &[7; 50_000]) {
                    total += n.unwrap();
                }
                assert!(Pin::new(&mut transport).poll_flush(cx).is_pending(), "{name}");
                Poll::Ready(())
            })
            .await;
            written.send(total).unwrap();
            transport.read(&mut [0; 10]).await
        };
        tokio::select! {
            () = receive(&pki, name, stream, wanted) => {}
            read = serve => panic!("{name}: {read:?}"),
            () = tokio::time::sleep(Duration::from_secs(20)) => panic!("{name}: bytes are held back"),
        }
    }
}

#[tokio::test]
async fn plain_tcp_is_handed_over_at_once_with_its_addresses() {
    let server = Server::new(Kind::Tcp);
    let client = server.connect().await;
    let (transport, peer) = server.accept().await.unwrap();
    assert_eq!(peer.addr, client.local_addr().unwrap());
    assert_eq!(peer.local, client.peer_addr().unwrap());
    assert_eq!((peer.via_proxy, peer.tls), (None, None));
    assert!(transport.socket().nodelay().unwrap());
}

mod tls {
    use super::*;

    async fn handshake(
        pki: &Pki,
        auth: ClientAuth,
        identity: Option<&(CertificateDer<'static>, KeyPair)>,
    ) -> Result<Peer, AcceptError> {
        let server = Server::new(Kind::Tls(pki.server(auth)));
        let connector = pki.client(identity);
        let stream = server.connect().await;
        let client = async { tls_client(&connector, stream).await };
        let (client, accepted) = tokio::join!(client, server.accept());
        drop(client);
        Ok(accepted?.1)
    }

    #[tokio::test]
    async fn a_client_certificate_is_asked_for_as_configured() {
        let pki = Pki::new();
        for (auth, identity, allowed, name) in [
            (ClientAuth::None, None, true, None),
            (ClientAuth::None, Some(&pki.client), true, None),
            (ClientAuth::Optional, None, true, None),
            (ClientAuth::Optional, Some(&pki.client), true, Some("sensor-7")),
            (ClientAuth::Optional, Some(&pki.stranger), false, None),
            (ClientAuth::Require, None, false, None),
            (ClientAuth::Require, Some(&pki.client), true, Some("sensor-7")),
            (ClientAuth::Require, Some(&pki.stranger), false, None),
            (ClientAuth::Optional, Some(&pki.expired), false, None),
            (ClientAuth::Require, Some(&pki.expired), false, None),
        ] {
            match handshake(&pki, auth, identity).await {
                Ok(peer) => {
                    assert!(allowed, "{auth:?}");
                    let tls = peer.tls.unwrap();
                    assert_eq!(tls.common_name.as_deref(), name, "{auth:?}");
                    assert_eq!(tls.client_cert_der.as_deref(), name.map(|_| &*pki.client.0));
                    assert_eq!((tls.version, tls.cipher.starts_with("TLS13_")), ("TLSv1_3", true));
                }
                Err(error) => {
                    assert!(!allowed, "{auth:?}: {error}");
                    assert_eq!(error.cause(), "tls_handshake");
                }
            }
        }
    }

    #[tokio::test]
    async fn a_second_handshake_resumes_the_session_and_still_knows_the_client() {
        let pki = Pki::new();
        let server = Server::new(Kind::Tls(pki.server(ClientAuth::Require)));
        let connector = pki.client(Some(&pki.client));
        for round in 0..2 {
            let stream = server.connect().await;
            let client = async {
                let mut client = tls_client(&connector, stream).await.unwrap();
                let mut byte = [0];
                client.read_exact(&mut byte).await.unwrap(); // reads the ticket before it
                client.get_ref().1.handshake_kind()
            };
            let serve = async {
                let (mut transport, peer) = server.accept().await.unwrap();
                transport.write_all(b"x").await.unwrap();
                transport.flush().await.unwrap();
                peer
            };
            let (kind, peer) = tokio::join!(client, serve);
            assert_eq!(kind == Some(rustls::HandshakeKind::Resumed), round == 1);
            assert_eq!(peer.tls.unwrap().common_name.as_deref(), Some("sensor-7"));
        }
    }

    /// A handshake of a client that reads what it needs to resume the next time.
    async fn meet(server: &Server, connector: &TlsConnector) -> Result<(), AcceptError> {
        let stream = server.connect().await;
        let client = async {
            if let Ok(mut client) = tls_client(connector, stream).await {
                let _ = client.read(&mut [0]).await;
            }
        };
        let serve = async {
            let (mut transport, _) = server.accept().await?;
            transport.write_all(b"x").await?;
            transport.flush().await?;
            Ok(())
        };
        tokio::join!(client, serve).1
    }

    #[tokio::test]
    async fn a_revoked_certificate_is_refused_as_soon_as_the_list_was_read_again() {
        let pki = Pki::new();
        let crl = |text: &str| pki.write("crl.pem", text);
        let files = TlsFiles {
            cert_file: pki.file("cert.pem"),
            key_file: pki.file("key.pem"),
            trust_certs_file: Some(pki.file("trust.pem")),
            crl_file: Some(crl(&pki.revocations(0, &[1, 2]))),
            client_auth: ClientAuth::Require,
        };
        let tls = Tls::load(files.clone()).unwrap();
        let server = Server::new(Kind::Tls(Arc::clone(&tls)));
        let connector = pki.client(Some(&pki.client));
        meet(&server, &connector).await.unwrap();
        assert!(!tls.reload_if_changed().unwrap());

        // It can't resume either.
        crl(&pki.revocations(0, &[1, SERIAL]));
        assert!(tls.reload_if_changed().unwrap());
        assert_eq!(meet(&server, &connector).await.unwrap_err().cause(), "tls_handshake");
        // A mistake in a file is told once and changes nothing.
        crl("nonsense");
        assert!(matches!(tls.reload_if_changed(), Err(TlsError::Missing { .. })));
        assert!(!tls.reload_if_changed().unwrap());
        assert!(meet(&server, &connector).await.is_err());
        // Without the list of its authority nobody knows, and that denies.
        crl(&pki.revocations(1, &[]));
        assert!(tls.reload_if_changed().unwrap());
        assert!(meet(&server, &connector).await.is_err());
        crl(&[pki.revocations(0, &[]), pki.revocations(1, &[SERIAL])].concat());
        assert!(tls.reload_if_changed().unwrap());
        meet(&server, &connector).await.unwrap();

        crl("-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n");
        let text = Tls::load(files).unwrap_err().to_string();
        assert!(text.contains("crlFile") && text.contains("crl.pem"), "{text}");
    }

    #[tokio::test]
    async fn handshakes_beyond_the_limit_are_refused_and_silence_takes_no_place() {
        let pki = Pki::new();
        let handshakes = HandshakeLimit::new(1);
        let server = Server::with(Setup { handshakes, ..Setup::new(Kind::Tls(pki.server(ClientAuth::None))) });
        let server = Arc::new(server);
        let connector = pki.client(None);
        let begin = async |bytes: &[u8]| {
            let mut client = server.connect().await;
            client.write_all(bytes).await.unwrap();
            let (stream, peer) = server.listener.accept().await.unwrap();
            let server = Arc::clone(&server);
            (client, tokio::spawn(async move { accept(stream, peer, &server.setup).await.map(drop) }))
        };
        let until = async |refused: bool| {
            let wanted = async {
                loop {
                    match meet(&server, &connector).await {
                        Err(error) if refused && error.cause() == "too_many_handshakes" => return,
                        Ok(()) if !refused => return,
                        _ => {}
                    }
                }
            };
            tokio::time::timeout(Duration::from_secs(10), wanted).await.unwrap();
        };
        let _silent = begin(b"").await;
        tokio::task::yield_now().await;
        until(false).await;
        let (slow, under_way) = begin(b"\x16\x03\x01").await;
        until(true).await;
        drop(slow);
        assert_eq!(under_way.await.unwrap().unwrap_err().cause(), "tls_handshake");
        until(false).await;
    }

    #[tokio::test]
    async fn a_client_that_speaks_tls_1_2_at_most_is_served() {
        let pki = Pki::new();
        let server = Server::new(Kind::Tls(pki.server(ClientAuth::None)));
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS12])
            .unwrap()
            .with_root_certificates(Arc::clone(&pki.roots))
            .with_no_client_auth();
        let connector = TlsConnector::from(Arc::new(config));
        let stream = server.connect().await;
        let (client, accepted) = tokio::join!(tls_client(&connector, stream), server.accept());
        client.unwrap();
        assert_eq!(accepted.unwrap().1.tls.unwrap().version, "TLSv1_2");
    }

    #[tokio::test]
    async fn older_versions_are_refused_with_an_alert() {
        let pki = Pki::new();
        let server = Server::new(Kind::Tls(pki.server(ClientAuth::None)));
        let setup = &server.setup;
        for (version, refused) in [(0, true), (1, true), (2, true), (3, false)] {
            // A ClientHello: random, no session, ECDHE_ECDSA_AES_128_GCM, no compression; x25519, ECDSA with SHA-256.
            let extensions = [0, 10, 0, 4, 0, 2, 0, 29, 0, 13, 0, 4, 0, 2, 4, 3];
            let hello = [&[3, version][..], &[9; 32], &[0, 0, 2, 0xC0, 0x2B, 1, 0, 0, 16], &extensions].concat();
            let hello = [&[1, 0, 0, hello.len() as u8][..], &hello].concat();
            let mut client = server.connect().await;
            client.write_all(&[&[22, 3, 1, 0, hello.len() as u8][..], &hello].concat()).await.unwrap();
            let (stream, peer) = server.listener.accept().await.unwrap();
            let mut answer = [0; 7];
            let read = async {
                client.read_exact(&mut answer).await.unwrap();
                drop(client);
            };
            let (accepted, ()) = tokio::join!(accept(stream, peer, setup), read);
            assert_eq!(accepted.unwrap_err().cause(), "tls_handshake");
            let (kind, alert) = if refused { (21, &[2, 70]) } else { (22, &[2, 0]) };
            assert_eq!(
                (answer[0], &answer[5..]),
                (kind, &alert[..]),
                "3.{version}: fatal protocol_version or ServerHello"
            );
        }
    }

    #[tokio::test]
    async fn what_is_not_tls_fails_the_handshake() {
        let pki = Pki::new();
        let server = Server::new(Kind::Tls(pki.server(ClientAuth::None)));
        for bytes in [&b"\x10\x0C\0\x04MQTT\x04\x02\0\x3C\0\0"[..], b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xFF\xFF"]
        {
            let (accepted, _client) = server.answer_to(bytes).await;
            assert_eq!(accepted.unwrap_err().cause(), "tls_handshake", "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn unusable_files_are_refused_by_name_and_with_what_to_do() {
        let pki = Pki::new();
        let (cert, key, trust) = (pki.file("cert.pem"), pki.file("key.pem"), pki.file("trust.pem"));
        let none = pki.file("none.pem");
        let garbage = pki.write("garbage.pem", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n");
        let empty = pki.write("empty.pem", "");
        let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        let encrypted = pki.write("encrypted.pem", encrypted);
        let other = pki.write("other.pem", &KeyPair::generate().unwrap().serialize_pem());
        let load = |cert, key, trust: Option<&PathBuf>, auth| {
            load_tls(cert, key, trust.map(PathBuf::as_path), auth).map(drop).unwrap_err()
        };
        let none_asked = ClientAuth::None;
        for (error, parts) in [
            (load(&none, &key, None, none_asked), ["certFile", "none.pem", "cannot be read"]),
            (load(&cert, &none, None, none_asked), ["keyFile", "none.pem", "cannot be read"]),
            (load(&garbage, &key, None, none_asked), ["certFile", "garbage.pem", "openssl"]),
            (load(&empty, &key, None, none_asked), ["certFile", "empty.pem", "BEGIN CERTIFICATE"]),
            (load(&key, &key, None, none_asked), ["certFile", "key.pem", "no certificate"]),
            (load(&cert, &cert, None, none_asked), ["keyFile", "cert.pem", "no private key"]),
            (load(&cert, &encrypted, None, none_asked), ["keyFile", "encrypted.pem", "openssl pkey"]),
            (load(&cert, &other, None, none_asked), ["cert.pem", "other.pem", "the key belongs to it"]),
            (load(&cert, &key, None, ClientAuth::Require), ["clientAuth", "trustCertsFile", "authorities"]),
            (load(&cert, &key, Some(&empty), ClientAuth::Optional), ["trustCertsFile", "empty.pem", "no certificate"]),
        ] {
            let text = error.to_string();
            assert!(parts.iter().all(|part| text.contains(part)), "{text}");
        }
        assert!(matches!(load(&cert, &key, None, ClientAuth::Require), TlsError::NoTrust));
        assert!(load_tls(&cert, &key, Some(&trust), ClientAuth::None).is_ok());
    }
}

mod websocket {
    use super::*;

    #[tokio::test]
    async fn a_client_that_asks_for_something_else_is_refused_with_a_status() {
        let server = Server::new(Kind::Ws(ws_options()));
        for (path, subprotocol, error, status) in [
            ("/other", Some("mqtt"), UpgradeError::Path, 404),
            ("/mqtt", None, UpgradeError::Subprotocol, 400),
            ("/mqtt", Some("chat"), UpgradeError::Subprotocol, 400),
        ] {
            let stream = server.connect().await;
            let (client, accepted) = tokio::join!(ws_client(stream, path, subprotocol), server.accept());
            let accepted = accepted.unwrap_err();
            assert_eq!(accepted.cause(), "ws_upgrade");
            assert!(matches!(accepted, AcceptError::WsUpgrade(got) if got == error), "{accepted}");
            assert!(matches!(client, Err(tungstenite::Error::Http(response)) if response.status() == status));
        }
    }

    #[tokio::test]
    async fn a_text_message_is_answered_with_close_1003() {
        let server = Server::new(Kind::Ws(ws_options()));
        let stream = server.connect().await;
        let (client, accepted) = tokio::join!(ws_client(stream, "/mqtt", Some("mqtt")), server.accept());
        let (mut client, (mut transport, _)) = (client.unwrap(), accepted.unwrap());
        client.send(Message::text("hello")).await.unwrap();
        let error = transport.read(&mut [0; 10]).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
        transport.shutdown().await.unwrap();
        match client.next().await.unwrap().unwrap() {
            Message::Close(Some(close)) => assert_eq!(close.code, CloseCode::Unsupported),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn ping_and_close_are_answered_to_a_real_client() {
        let server = Server::new(Kind::Ws(ws_options()));
        let stream = server.connect().await;
        let (client, accepted) = tokio::join!(ws_client(stream, "/mqtt", Some("mqtt")), server.accept());
        let (mut client, (transport, _)) = (client.unwrap(), accepted.unwrap());
        let server = tokio::spawn(echo(transport));
        client.send(Message::Ping("are you there".into())).await.unwrap();
        assert_eq!(client.next().await.unwrap().unwrap(), Message::Pong("are you there".into()));
        client.close(None).await.unwrap();
        assert!(matches!(client.next().await.unwrap().unwrap(), Message::Close(_)));
        assert!(client.next().await.is_none());
        server.await.unwrap();
    }
}

mod proxy {
    use super::*;

    const HEADER: &[u8] = b"PROXY TCP4 192.0.2.1 192.0.2.9 56324 1883\r\n";

    fn setup(kind: Kind, proxy: ProxyPolicy) -> Setup {
        Setup { proxy, handshake_timeout: Duration::from_secs(10), ..Setup::new(kind) }
    }

    fn from(net: &str) -> Vec<mqtt_transport::Cidr> {
        vec!["10.0.0.0/8".parse().unwrap(), net.parse().unwrap()]
    }

    #[tokio::test]
    async fn a_header_is_read_as_the_policy_says() {
        let (listed, unlisted) = ("127.0.0.0/8", "192.168.0.0/16");
        for (policy, sent, read) in [
            (ProxyPolicy::Off, HEADER, false),
            (ProxyPolicy::Optional(from(unlisted)), HEADER, false),
            (ProxyPolicy::Required(from(unlisted)), HEADER, false),
            (ProxyPolicy::Optional(from(listed)), HEADER, true),
            (ProxyPolicy::Required(from(listed)), HEADER, true),
            (ProxyPolicy::Optional(from(listed)), b"", false),
        ] {
            let server = Server::with(setup(Kind::Tcp, policy.clone()));
            let (accepted, client) = server.answer_to(&[sent, b"\x10mqtt"].concat()).await;
            let (mut transport, peer) = accepted.unwrap();
            let socket = client.local_addr().unwrap();
            let expected = if read { ("192.0.2.1:56324".parse().unwrap(), Some(socket)) } else { (socket, None) };
            assert_eq!((peer.addr, peer.via_proxy), expected, "{policy:?}");
            let left = if read { b"\x10mqtt".to_vec() } else { [sent, b"\x10mqtt"].concat() };
            let mut got = vec![0; left.len()];
            transport.read_exact(&mut got).await.unwrap();
            assert_eq!(got, left, "what is not a header for us is left alone");
        }
    }

    #[tokio::test]
    async fn a_required_header_that_is_missing_or_malformed_is_refused() {
        let server = Server::with(setup(Kind::Tcp, ProxyPolicy::Required(from("127.0.0.1"))));
        for (sent, error) in [
            (&b"\x10\x0C\0\x04MQTT"[..], ProxyHeaderError::Missing),
            (b"PROXY TCP4 nonsense\r\n", ProxyHeaderError::Line),
        ] {
            let accepted = server.answer_to(sent).await.0.unwrap_err();
            assert_eq!(accepted.cause(), "proxy_header");
            assert!(matches!(accepted, AcceptError::ProxyHeader(got) if got == error), "{accepted}");
        }
    }

    #[tokio::test]
    async fn the_header_comes_before_tls_and_before_the_upgrade() {
        let pki = Pki::new();
        let policy = ProxyPolicy::Required(from("127.0.0.1"));
        let kind = Kind::Wss(pki.server(ClientAuth::None), ws_options());
        let server = Server::with(setup(kind, policy));
        let connector = pki.client(None);
        let mut stream = server.connect().await;
        let client = async {
            stream.write_all(HEADER).await.unwrap();
            let stream = tls_client(&connector, stream).await.unwrap();
            ws_client(stream, "/mqtt", Some("mqtt")).await.unwrap()
        };
        let (_client, accepted) = tokio::join!(client, server.accept());
        assert_eq!(accepted.unwrap().1.addr, "192.0.2.1:56324".parse().unwrap());
    }
}

#[tokio::test]
async fn slow_handshakes_of_every_kind_time_out() {
    let pki = Pki::new();
    let tls = pki.server(ClientAuth::None);
    let listed = ProxyPolicy::Required(vec!["127.0.0.1".parse().unwrap()]);
    for (kind, proxy, sent, wanted) in [
        (Kind::Tcp, listed.clone(), &b"PROXY TCP4 1"[..], "PROXY header"),
        (Kind::Tcp, listed.clone(), b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0C123", "PROXY header"),
        (Kind::Tls(tls.clone()), ProxyPolicy::Off, b"", "TLS handshake"),
        (Kind::Wss(tls, ws_options()), ProxyPolicy::Off, b"\x16\x03\x01\x02\0", "TLS handshake"),
        (Kind::Ws(ws_options()), ProxyPolicy::Off, b"GET /mqtt HTTP/1.1\r\nHost", "WebSocket upgrade"),
    ] {
        let limit = Duration::from_millis(50);
        let server = Server::with(Setup { proxy, handshake_timeout: limit, ..Setup::new(kind) });
        let (accepted, _client) = server.answer_to(sent).await;
        let error = accepted.unwrap_err();
        assert_eq!(error.cause(), "timeout");
        assert!(matches!(error, AcceptError::Timeout { stage, .. } if stage == wanted), "{error}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_within_the_handshake_is_no_timeout() {
    let server = Server::new(Kind::Ws(ws_options()));
    let mut client = server.connect().await;
    client.write_all(b"GET /mqtt").await.unwrap();
    drop(client);
    assert_eq!(server.accept().await.unwrap_err().cause(), "io");
}
