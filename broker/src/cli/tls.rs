//! TLS from the client's side.

use super::client::ClientError;
use super::connection::ConnectionArgs;
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

/// Does the handshake; the broker's certificate must be of an authority in `cafile`, and for the name in `-h`.
pub(super) async fn handshake(
    stream: TcpStream,
    args: &ConnectionArgs,
    cafile: &Path,
) -> Result<TlsStream<TcpStream>, ClientError> {
    let address = format!("{}:{}", args.host, args.port);
    let failed = |reason: String| ClientError::Tls { address: address.clone(), reason };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(cafile)? {
        roots.add(certificate).map_err(|error| unusable(cafile, &error))?;
    }
    let provider = Arc::new(crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| failed(error.to_string()))?.with_root_certificates(roots);
    let config = match (&args.cert, &args.key) {
        (Some(cert), Some(key)) => {
            let private = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, &error))?;
            builder.with_client_auth_cert(certificates(cert)?, private).map_err(|error| unusable(cert, &error))?
        }
        _ => builder.with_no_client_auth(),
    };
    let name = ServerName::try_from(args.host.clone()).map_err(|error| failed(error.to_string()))?;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|error| failed(error.to_string()))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ClientError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(found) if found.is_empty() => Err(unusable(path, &"there is no certificate in it")),
        other => other.map_err(|error| unusable(path, &error)),
    }
}

fn unusable(path: &Path, error: &dyn std::fmt::Display) -> ClientError {
    ClientError::Unusable { path: path.to_owned(), reason: error.to_string() }
}
