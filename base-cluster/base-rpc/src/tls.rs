use rustls::client::verify_server_name;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ParsedCertificate, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Mutual TLS among the nodes. Each certificate must be signed by the cluster's authority and carry the cluster's name, whether its
/// node calls or is called: so neither a client of the brokers nor a node of another cluster under the same authority gets in.
#[derive(Clone, Debug)]
pub struct Tls {
    pub(crate) server: Arc<ServerConfig>,
    pub(crate) client: Arc<ClientConfig>,
    pub(crate) name: ServerName<'static>,
}

/// Why TLS settings can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read, or holds no PEM of the wanted kind.
    #[error("{}: {source}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// Certificate, key and authority do not go together.
    #[error(transparent)]
    Config(#[from] rustls::Error),
    /// The authority can't be used.
    #[error(transparent)]
    Authority(#[from] VerifierBuilderError),
    /// The name is no DNS name and no address.
    #[error("'{0}' is no name that a certificate can carry")]
    Name(String),
}

impl Tls {
    /// Reads PEM files: the certificate chain of this node, its key, and the cluster's authorities. Every certificate of the cluster
    /// must carry `name` among its alternative names, for servers and for clients if it restricts its use.
    ///
    /// # Errors
    /// [`TlsError`], with the file.
    pub fn from_pem_files(cert: &Path, key: &Path, authorities: &Path, name: &str) -> Result<Self, TlsError> {
        let named = |file: &Path| {
            let file = file.to_path_buf();
            move |source| TlsError::File { file, source }
        };
        let certificates = |file: &Path| {
            CertificateDer::pem_file_iter(file)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                .and_then(|found| if found.is_empty() { Err(pem::Error::NoItemsFound) } else { Ok(found) })
                .map_err(named(file))
        };
        let key = PrivateKeyDer::from_pem_file(key).map_err(named(key))?;
        Self::new(certificates(cert)?, key, certificates(authorities)?, name)
    }

    /// From what was read already.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        authorities: Vec<CertificateDer<'static>>,
        name: &str,
    ) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        for authority in authorities {
            roots.add(authority)?;
        }
        let (roots, provider) = (Arc::new(roots), Arc::new(rustls::crypto::ring::default_provider()));
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider)).build()?;
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key.clone_key())?;
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)?;
        let name = ServerName::try_from(name.to_owned()).map_err(|_| TlsError::Name(name.to_owned()))?;
        Ok(Self { server: Arc::new(server), client: Arc::new(client), name })
    }

    /// Whether the certificate that a caller showed carries the name of the cluster. (rustls checked who signed it.)
    pub(crate) fn names(&self, shown: Option<&[CertificateDer<'static>]>) -> Result<(), String> {
        let Some(leaf) = shown.and_then(<[_]>::first) else { return Err("it showed none".into()) };
        ParsedCertificate::try_from(leaf)
            .and_then(|leaf| verify_server_name(&leaf, &self.name))
            .map_err(|error| error.to_string())
    }
}
