use crate::config::{RpcConfig, Security};
use crate::frame::{Frame, Kind};
use crate::hello::{Hello, Mode, Preface, Verdict, Welcome};
use crate::net::TcpStream;
use crate::noise::{self, Noise};
use crate::refusal::Refusal;
use crate::wire::Wire;
use arc_swap::ArcSwap;
use base_types::NodeIncarnation;
use bytes::BytesMut;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// A connection whose other end has proven itself.
pub(crate) struct Proven {
    pub(crate) wire: Wire,
    pub(crate) noise: Option<Noise>,
    pub(crate) peer: NodeIncarnation,
    /// What has been read beyond the handshake.
    pub(crate) read: BytesMut,
}

/// Who this node is, and how it proves it.
pub(crate) struct Passport {
    pub(crate) me: NodeIncarnation,
    pub(crate) env: String,
    security: ArcSwap<Security>,
}

/// No message of a handshake is longer; so much memory one can hold who has proven nothing.
const MESSAGE: usize = 1016;
/// How long one who is refused has to read why.
const LINGER: Duration = Duration::from_millis(200);

impl Passport {
    pub(crate) fn new(config: &RpcConfig) -> Self {
        Self { me: config.me, env: config.env.clone(), security: ArcSwap::from_pointee(config.security.clone()) }
    }

    /// From now on new connections are proven that way.
    pub(crate) fn set_security(&self, security: Security) {
        self.security.store(Arc::new(security));
    }

    /// Connects to `addr` and proves both sides. No deadline of its own. The first frame, a ping with id 0, is sent already.
    pub(crate) async fn call(&self, addr: SocketAddr, hello: &Hello) -> Result<Proven, Refusal> {
        let mut tcp = TcpStream::connect(addr).await?;
        tcp.set_nodelay(true)?;
        let security = self.security.load_full();
        let mode = mode(&security);
        let (hello, preface) = (hello.encode(), Preface::ok(mode));
        let (mut wire, mut noise, answer);
        match &*security {
            Security::Plain => {
                tcp.write_all(&[&preface[..], &message(&hello)].concat()).await?;
                Preface::check(read_preface(&mut tcp).await?, mode)?;
                answer = read_message(&mut tcp).await?;
                (wire, noise) = (Wire::Tcp(tcp), None);
            }
            Security::Secret(secret) => {
                let mut shake = noise::Handshake::caller(secret, &preface).map_err(|_| Refusal::Secret)?;
                let first = shake.write(&hello).map_err(|_| Refusal::Secret)?;
                tcp.write_all(&[&preface[..], &message(&first)].concat()).await?;
                Preface::check(read_preface(&mut tcp).await?, mode)?;
                answer = shake.read(&read_message(&mut tcp).await?).map_err(|_| Refusal::Secret)?;
                (wire, noise) = (Wire::Tcp(tcp), Some(shake.finish().map_err(|_| Refusal::Secret)?));
            }
            Security::Tls(tls) => {
                tcp.write_all(&preface).await?;
                Preface::check(read_preface(&mut tcp).await?, mode)?;
                let stream = TlsConnector::from(tls.client.clone()).connect(tls.name.clone(), tcp);
                let mut stream = Box::pin(stream).await.map_err(certificate)?;
                stream.write_all(&message(&hello)).await?;
                stream.flush().await?;
                answer = read_message(&mut stream).await.map_err(|refusal| match refusal {
                    // TLS 1.3: the called one looks at our certificate after we are done.
                    Refusal::Io(cause) => Refusal::Certificate(cause),
                    other => other,
                })?;
                (wire, noise) = (Wire::Tls(Box::new(stream.into())), None);
            }
        }
        let peer = self.welcomed(&answer)?;
        let ping = Frame::bare(Kind::Ping, 0).head();
        let mut first = BytesMut::new();
        match &mut noise {
            Some(noise) => noise.seal(&ping, &mut first).map_err(|_| Refusal::Secret)?,
            None => first.extend_from_slice(&ping),
        }
        wire.write_all(&first).await?;
        wire.flush().await?;
        Ok(Proven { wire, noise, peer, read: BytesMut::new() })
    }

    fn welcomed(&self, answer: &[u8]) -> Result<NodeIncarnation, Refusal> {
        let Some(welcome) = Welcome::decode(answer) else { return Err(Refusal::Protocol("its welcome".into())) };
        match welcome.verdict {
            Verdict::Env => Err(Refusal::Env(welcome.env)),
            Verdict::AnotherNode => Err(Refusal::AnotherNode(welcome.run)),
            Verdict::Itself => Err(Refusal::Itself),
            Verdict::OlderRun => Err(Refusal::OlderRun),
            Verdict::Superseded => Err(Refusal::Superseded),
            Verdict::TooMany => Err(Refusal::TooMany),
            Verdict::Ok if welcome.env != self.env => Err(Refusal::Env(welcome.env)),
            Verdict::Ok => Ok(welcome.run),
        }
    }

    /// The other side. `admit` looks at a hello that fits so far. No deadline of its own.
    pub(crate) async fn answer(
        &self,
        mut tcp: TcpStream,
        admit: impl Fn(&Hello) -> Result<(), Refusal>,
    ) -> Result<(Proven, Hello), Refusal> {
        tcp.set_nodelay(true)?;
        let security = self.security.load_full();
        let mode = mode(&security);
        if let Err(refusal) = Preface::check(read_preface(&mut tcp).await?, mode) {
            return Err(turn_away(tcp, mode, refusal).await);
        }
        let preface = Preface::ok(mode);
        match &*security {
            Security::Plain => {
                let hello = read_message(&mut tcp).await?;
                let (hello, welcome) = self.judge(&hello, admit);
                tcp.write_all(&[&preface[..], &message(&welcome.encode())].concat()).await?;
                let hello = hello?;
                Ok((Proven { wire: Wire::Tcp(tcp), noise: None, peer: hello.run, read: BytesMut::new() }, hello))
            }
            Security::Secret(secret) => {
                let first = read_message(&mut tcp).await?;
                let Ok((mut shake, hello)) = noise::Handshake::called(secret, &preface, &first) else {
                    return Err(turn_away(tcp, mode, Refusal::Secret).await);
                };
                let (hello, welcome) = self.judge(&hello, admit);
                let second = shake.write(&welcome.encode()).map_err(|_| Refusal::Secret)?;
                tcp.write_all(&[&preface[..], &message(&second)].concat()).await?;
                let hello = hello?;
                // The first message can be a recorded one. Who seals another one has understood our answer.
                let mut noise = shake.finish().map_err(|_| Refusal::Secret)?;
                let (mut sealed, mut read) =
                    (BytesMut::from(&message(&read_message(&mut tcp).await?)[..]), BytesMut::new());
                noise.open(&mut sealed, &mut read).map_err(|_| Refusal::Secret)?;
                Ok((Proven { wire: Wire::Tcp(tcp), noise: Some(noise), peer: hello.run, read }, hello))
            }
            Security::Tls(tls) => {
                tcp.write_all(&preface).await?;
                let stream = TlsAcceptor::from(tls.server.clone()).accept(tcp);
                let mut stream = Box::pin(stream).await.map_err(certificate)?;
                tls.names(stream.get_ref().1.peer_certificates()).map_err(Refusal::Certificate)?;
                let hello = read_message(&mut stream).await?;
                let (hello, welcome) = self.judge(&hello, admit);
                stream.write_all(&message(&welcome.encode())).await?;
                stream.flush().await?;
                let (hello, wire) = (hello?, Wire::Tls(Box::new(stream.into())));
                Ok((Proven { wire, noise: None, peer: hello.run, read: BytesMut::new() }, hello))
            }
        }
    }

    fn judge(&self, hello: &[u8], admit: impl Fn(&Hello) -> Result<(), Refusal>) -> (Result<Hello, Refusal>, Welcome) {
        let judged = match Hello::decode(hello) {
            None => Err(Refusal::Protocol("its hello".into())),
            Some(hello) if hello.env != self.env => Err(Refusal::Env(hello.env)),
            Some(hello) if hello.run.node == self.me.node => Err(Refusal::Itself),
            Some(hello) if hello.to.is_some_and(|to| to != self.me.node) => Err(Refusal::AnotherNode(self.me)),
            Some(hello) => admit(&hello).map(|()| hello),
        };
        let verdict = judged.as_ref().map_or_else(Verdict::from, |_| Verdict::Ok);
        (judged, Welcome { verdict, env: self.env.clone(), run: self.me })
    }
}

/// Tells a caller that he does not fit, and gives him a moment to read it.
async fn turn_away(mut tcp: TcpStream, mode: Mode, refusal: Refusal) -> Refusal {
    let farewell = async {
        tcp.write_all(&Preface::refuse(mode, &refusal)).await?;
        tcp.shutdown().await?;
        let mut rest = [0; MESSAGE];
        while tcp.read(&mut rest).await? > 0 {}
        std::io::Result::Ok(())
    };
    let _ = tokio::time::timeout(LINGER, farewell).await;
    refusal
}

fn mode(security: &Security) -> Mode {
    match security {
        Security::Plain => Mode::Plain,
        Security::Secret(_) => Mode::Secret,
        Security::Tls(_) => Mode::Tls,
    }
}

fn certificate(error: std::io::Error) -> Refusal {
    Refusal::Certificate(error.to_string())
}

/// With its u16 length in front.
fn message(bytes: &[u8]) -> Vec<u8> {
    let len = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    [&len.to_be_bytes()[..], bytes].concat()
}

async fn read_preface(from: &mut TcpStream) -> Result<[u8; Preface::LEN], Refusal> {
    let mut preface = [0; Preface::LEN];
    from.read_exact(&mut preface).await?;
    Ok(preface)
}

async fn read_message(from: &mut (impl AsyncReadExt + Unpin)) -> Result<Vec<u8>, Refusal> {
    let len = usize::from(from.read_u16().await?);
    if len > MESSAGE {
        return Err(Refusal::Protocol(format!("a message of {len} bytes in the handshake")));
    }
    let mut message = vec![0; len];
    from.read_exact(&mut message).await?;
    Ok(message)
}
