//! TLS connections: to containers, whose certificates nobody checks (R-PRB-21), and to servers, whose certificates are
//! checked.

use std::{
    io,
    pin::Pin,
    sync::{Arc, LazyLock, Mutex, PoisonError},
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
        client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        crypto::{CryptoProvider, aws_lc_rs},
        pki_types::{CertificateDer, ServerName, UnixTime},
    },
};

use super::error::ContactError;

/// Connector that checks no certificate. It is made on first use, as most nodes never need it.
static CONNECTOR: LazyLock<Option<TlsConnector>> = LazyLock::new(|| {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config =
        ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions().ok()?;
    let verifier = Arc::new(Anyone(provider));
    let config = config.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    Some(TlsConnector::from(Arc::new(config)))
});

/// Opens a TLS connection over `stream` to `host`, and checks no certificate. Like Go, it sends `host` as the server's
/// name (SNI), whatever the `Host` header says, unless it is an address.
pub(super) async fn wrap(stream: TcpStream, host: &str) -> Result<TlsStream<Recorder>, ContactError> {
    let cannot = || ContactError::Tls(io::Error::other("TLS cannot be set up"));
    let connector = CONNECTOR.as_ref().ok_or_else(cannot)?;
    // rustls sends no name for an address. So an address also stands for what is no valid name, e.g. `fe80::1%eth0`.
    let name = match ServerName::try_from(host.to_owned()) {
        Ok(name) => name,
        Err(_) => stream.peer_addr().map_err(ContactError::Tls)?.ip().into(),
    };
    let first = Arc::default();
    let connected = connector.connect(name, Recorder { stream, first: Arc::clone(&first) }).await;
    connected.map_err(|error| {
        let first = first.lock().unwrap_or_else(PoisonError::into_inner);
        match first.as_slice() {
            b"HTTP/" => ContactError::PlainHttp,
            // Types of TLS records: change of cipher, alert, handshake, data.
            [20..=23, ..] => ContactError::Tls(error),
            [] if error.kind() == io::ErrorKind::UnexpectedEof => ContactError::Tls(io::Error::other("EOF")),
            [] => ContactError::Tls(error),
            _ => ContactError::Tls(io::Error::other("tls: first record does not look like a TLS handshake")),
        }
    })
}

/// Length of the head of a TLS record, bytes.
const HEAD: usize = 5;

/// A connection that remembers the first bytes that it received.
pub(super) struct Recorder {
    stream: TcpStream,
    first: Arc<Mutex<Vec<u8>>>,
}

impl AsyncRead for Recorder {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        let missing = HEAD - first.len();
        first.extend(buffer.filled()[before..].iter().take(missing));
        drop(first);
        read
    }
}

impl AsyncWrite for Recorder {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Returns a connector that accepts only certificates signed by one of these roots.
pub(crate) fn trusting(roots: RootCertStore) -> Result<TlsConnector, Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let config = config.with_root_certificates(roots).with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Returns the root certificates that this system trusts: those of `SSL_CERT_FILE` and `SSL_CERT_DIR`, or else those in
/// the system's own directories. Blocks.
pub(crate) fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in found.errors {
        tracing::warn!(%error, "a certificate of the system cannot be read");
    }
    roots.add_parsable_certificates(found.certs);
    roots
}

/// Opens a TLS connection over `stream` to `host`.
pub(crate) async fn connect(
    connector: &TlsConnector,
    stream: TcpStream,
    host: &str,
) -> Result<TlsStream<TcpStream>, ContactError> {
    let name = ServerName::try_from(host.to_owned()).map_err(|error| ContactError::Tls(io::Error::other(error)))?;
    connector.connect(name, stream).await.map_err(ContactError::Tls)
}

/// Verifier that accepts every certificate. It does not check signatures either, as they would prove nothing.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
