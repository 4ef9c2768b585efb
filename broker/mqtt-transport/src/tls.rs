//! TLS settings from files, and what a handshake tells about the client.

mod common_name;

use crate::TlsPeer;
use ::ring::digest::{self, Digest};
use arc_swap::ArcSwap;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig, ServerConnection};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Whether a client must show a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// It is not asked.
    #[default]
    None,
    /// It is asked, and what it shows must be valid; it may show none.
    Optional,
    /// It must show a valid one.
    Require,
}

/// Why TLS settings were refused; each message names the file and what to do.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{what} {}: cannot be read: {source}", file.display())]
    Read {
        /// The setting by name.
        what: &'static str,
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is not PEM.
    #[error("{what} {}: is not PEM ({reason}); convert it with `openssl x509 -inform der` or `openssl pkey -inform der`", file.display())]
    Pem {
        /// The setting by name.
        what: &'static str,
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A PEM file has nothing of the wanted kind in it.
    #[error("{what} {}: has no {wanted}; {hint}", file.display())]
    Missing {
        /// The setting by name.
        what: &'static str,
        /// The file.
        file: PathBuf,
        /// What was looked for.
        wanted: &'static str,
        /// What to do.
        hint: &'static str,
    },
    /// Certificate and key cannot be used (together).
    #[error(
        "certFile {} with keyFile {}: {source}; check that the first certificate is the server's, that it is X.509 version 3, and that the key belongs to it", 
        cert_file.display(), key_file.display()
    )]
    Identity {
        /// The certificate chain.
        cert_file: PathBuf,
        /// The private key.
        key_file: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// Client certificates are asked for, and nothing is given to check them with.
    #[error("clientAuth needs trustCertsFile: a PEM file of the authorities that sign client certificates")]
    NoTrust,
    /// The revocation lists cannot be used.
    #[error("crlFile {}: {reason}", file.display())]
    Crl {
        /// The file.
        file: PathBuf,
        /// Why.
        reason: String,
    },
    /// The authorities cannot be used.
    #[error("trustCertsFile {}: {reason}", file.display())]
    Trust {
        /// The file.
        file: PathBuf,
        /// Why.
        reason: String,
    },
}

/// What TLS of a listener is made from: PEM files.
#[derive(Clone, Debug, Default)]
pub struct TlsFiles {
    /// The certificate chain, the server's own first.
    pub cert_file: PathBuf,
    /// Its private key: PKCS#8, PKCS#1 or SEC1, not encrypted.
    pub key_file: PathBuf,
    /// The authorities that sign client certificates.
    pub trust_certs_file: Option<PathBuf>,
    /// Revocation lists, one of each authority that signs client certificates: without the list of its authority a certificate is
    /// refused.
    pub crl_file: Option<PathBuf>,
    /// Whether a client must show a certificate.
    pub client_auth: ClientAuth,
}

/// TLS 1.2 and 1.3 of a listener, as its files say; read again when they change.
///
/// Sessions are resumed with tickets, so that reconnecting costs no signature; nothing is kept per session. The keys of the tickets live in
/// memory and go when the files are read again: a client whose certificate was revoked can't resume.
#[derive(Debug)]
pub struct Tls {
    files: TlsFiles,
    config: ArcSwap<ServerConfig>,
    /// What the files held when they were read last, used or not.
    seen: Mutex<Digest>,
}

impl Tls {
    /// Reads the files.
    pub fn load(files: TlsFiles) -> Result<Arc<Self>, TlsError> {
        let seen = Mutex::new(content(&files)?);
        let config = ArcSwap::new(build(&files)?);
        Ok(Arc::new(Self { files, config, seen }))
    }

    /// Reads the files again when one of them holds something else, and tells whether that was so. Connections that are open stay.
    ///
    /// An error is told once for what the files hold, and changes nothing.
    pub fn reload_if_changed(&self) -> Result<bool, TlsError> {
        let digest = content(&self.files)?;
        let before = std::mem::replace(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner), digest);
        if digest.as_ref() == before.as_ref() {
            return Ok(false);
        }
        self.config.store(build(&self.files)?);
        Ok(true)
    }

    /// What counts now.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        self.config.load_full()
    }
}

/// What the files hold, told from anything else.
fn content(files: &TlsFiles) -> Result<Digest, TlsError> {
    let mut context = digest::Context::new(&digest::SHA256);
    let optional = [("trustCertsFile", &files.trust_certs_file), ("crlFile", &files.crl_file)];
    let optional = optional.into_iter().filter_map(|(what, file)| Some((what, file.as_ref()?)));
    for (what, file) in [("certFile", &files.cert_file), ("keyFile", &files.key_file)].into_iter().chain(optional) {
        let content = read(what, file)?;
        context.update(&content.len().to_be_bytes());
        context.update(&content);
    }
    Ok(context.finish())
}

fn build(files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsError> {
    let TlsFiles { cert_file, key_file, trust_certs_file, crl_file, client_auth } = files;
    let chain = certificates("certFile", cert_file)?;
    let key = private_key(key_file)?;
    let identity = |source| TlsError::Identity { cert_file: cert_file.clone(), key_file: key_file.clone(), source };

    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(identity)?;
    let builder = match (client_auth, trust_certs_file) {
        (ClientAuth::None, _) => builder.with_no_client_auth(),
        (_, None) => return Err(TlsError::NoTrust),
        (_, Some(file)) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(file)?), provider);
            let verifier = match client_auth {
                ClientAuth::Optional => verifier.allow_unauthenticated(),
                _ => verifier,
            };
            let verifier = match crl_file {
                Some(file) => verifier.with_crls(revocation_lists(file)?),
                None => verifier,
            };
            let unusable = |error: VerifierBuilderError| match (error, crl_file) {
                (VerifierBuilderError::InvalidCrl(reason), Some(file)) => TlsError::Crl {
                    file: file.clone(),
                    reason: format!("is no revocation list that can be used: {reason:?}"),
                },
                (error, _) => TlsError::Trust { file: file.clone(), reason: error.to_string() },
            };
            builder.with_client_cert_verifier(verifier.build().map_err(unusable)?)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(identity)?;
    config.ticketer = ring::Ticketer::new().map_err(identity)?;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 1;
    Ok(Arc::new(config))
}

fn read(what: &'static str, file: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(file).map_err(|source| TlsError::Read { what, file: file.to_owned(), source })
}

fn certificates(what: &'static str, file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(what, file)?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|error| TlsError::Pem { what, file: file.to_owned(), reason: error.to_string() })?;
    if chain.is_empty() {
        let hint = "it must contain -----BEGIN CERTIFICATE-----";
        return Err(TlsError::Missing { what, file: file.to_owned(), wanted: "certificate", hint });
    }
    Ok(chain)
}

fn revocation_lists(file: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let what = "crlFile";
    let lists: Vec<_> = CertificateRevocationListDer::pem_slice_iter(&read(what, file)?)
        .collect::<Result<_, _>>()
        .map_err(|error| TlsError::Pem { what, file: file.to_owned(), reason: error.to_string() })?;
    if lists.is_empty() {
        let hint = "it must contain -----BEGIN X509 CRL-----";
        return Err(TlsError::Missing { what, file: file.to_owned(), wanted: "revocation list", hint });
    }
    Ok(lists)
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let what = "keyFile";
    let text = read(what, file)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        pem::Error::NoItemsFound => {
            let encrypted = text.windows(9).any(|window| window == b"ENCRYPTED");
            let hint = if encrypted {
                "the key is encrypted: decrypt it with `openssl pkey -in FILE -out FILE`"
            } else {
                "it must contain -----BEGIN PRIVATE KEY-----"
            };
            TlsError::Missing { what, file: file.to_owned(), wanted: "private key", hint }
        }
        error => TlsError::Pem { what, file: file.to_owned(), reason: error.to_string() },
    })
}

fn roots(file: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("trustCertsFile", file)? {
        roots.add(certificate).map_err(|error| TlsError::Trust { file: file.to_owned(), reason: error.to_string() })?;
    }
    Ok(roots)
}

/// What the finished handshake says about the client.
pub(crate) fn peer_of(connection: &ServerConnection) -> TlsPeer {
    let certificate = connection.peer_certificates().and_then(<[_]>::first);
    TlsPeer {
        version: connection.protocol_version().and_then(|version| version.as_str()).unwrap_or("unknown"),
        cipher: connection.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()).unwrap_or("unknown"),
        client_cert_der: certificate.map(|certificate| certificate.to_vec()),
        common_name: certificate.and_then(|certificate| common_name::of(certificate)),
    }
}
