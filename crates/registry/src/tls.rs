//! Certificates: authorities for a registry's certificate, and the client certificate that a registry is shown.

use std::{
    error::Error as _,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use reqwest::{Certificate, Client, Identity, redirect::Policy};
use sha2::{Digest, Sha256};
use stanchion_runtime::{Error, ErrorKind, Result};
use stanchion_sdk::blocking;
use stanchion_untrusted::Links;

use crate::limits::CERTIFICATES;

/// Certificate settings of a registry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Tls {
    pub ca_file: Option<PathBuf>,
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
    pub insecure: bool,
}

/// Current content of the settings' files: certificates are renewed while the agent runs. It has no `Debug`, since it
/// contains a private key (I10).
pub(super) struct Files {
    authorities: Vec<u8>,
    /// Client certificate and key, or empty.
    identity: Vec<u8>,
}

impl Tls {
    /// Reads the files. Unreadable authorities are logged and left out: the node's own may suffice.
    ///
    /// # Errors
    /// `Invalid`: the client certificate or its key is missing or unusable.
    pub async fn read(&self) -> Result<Files> {
        let authorities = match &self.ca_file {
            None => Vec::new(),
            Some(path) => read(path).await.unwrap_or_else(|error| {
                tracing::warn!(path = %path.display(), %error, "the certificates of a registry cannot be read");
                Vec::new()
            }),
        };
        let identity = match (&self.cert_file, &self.key_file) {
            (None, None) => Vec::new(),
            (Some(path), None) => return Err(wrong("cert_file", path).because("key_file with its key is not set")),
            (None, Some(path)) => return Err(wrong("key_file", path).because("cert_file is not set")),
            (Some(certificate), Some(key)) => {
                let certificate = pem("cert_file", certificate, "CERTIFICATE-----", "certificate").await?;
                [certificate, pem("key_file", key, "PRIVATE KEY-----", "private key").await?].join(&b'\n')
            }
        };
        Ok(Files { authorities, identity })
    }

    /// Makes a client that uses them. It follows no redirects.
    ///
    /// # Errors
    /// `Invalid`: the files' content is unusable.
    pub fn client(&self, files: &Files) -> Result<Client> {
        let mut client = Client::builder()
            .redirect(Policy::none())
            .connect_timeout(Duration::from_secs(10))
            .read_timeout(Duration::from_secs(60))
            .user_agent(concat!("stanchion/", env!("CARGO_PKG_VERSION")))
            .tls_danger_accept_invalid_certs(self.insecure);
        if let Some(path) = self.ca_file.as_ref().filter(|_| !files.authorities.is_empty()) {
            match Certificate::from_pem_bundle(&files.authorities) {
                Ok(authorities) if !authorities.is_empty() => client = client.tls_certs_merge(authorities),
                _ => tracing::warn!(path = %path.display(), "there are no certificates in it, as PEM"),
            }
        }
        if !files.identity.is_empty() {
            client = client.identity(Identity::from_pem(&files.identity).map_err(|error| self.unusable(&error))?);
        }
        client.build().map_err(|error| self.unusable(&error))
    }

    fn unusable(&self, error: &reqwest::Error) -> Error {
        let named = |key: &str, path: &Option<PathBuf>| path.as_ref().map(|path| format!("{key} {path:?}"));
        let files = [("ca_file", &self.ca_file), ("cert_file", &self.cert_file), ("key_file", &self.key_file)];
        let files: Vec<_> = files.into_iter().filter_map(|(key, path)| named(key, path)).collect();
        let failed = Error::new(ErrorKind::Invalid, files.join(", "));
        match error.source().and_then(|cause| cause.downcast_ref()) {
            Some(rustls::Error::InconsistentKeys(_)) => failed.because("the key is not that of the certificate"),
            Some(cause) => failed.caused_by(cause),
            None => failed.caused_by(error),
        }
    }
}

impl Files {
    /// Returns a hash that changes with the content.
    pub fn fingerprint(&self) -> [u8; 32] {
        let parts = [Sha256::digest(&self.authorities), Sha256::digest(&self.identity)];
        Sha256::digest(parts.concat()).into()
    }
}

fn wrong(key: &str, path: &Path) -> Error {
    Error::new(ErrorKind::Invalid, format!("{key} {path:?}"))
}

/// Reads a file of the settings. It may be a link: programs that renew certificates use them.
async fn read(path: &Path) -> io::Result<Vec<u8>> {
    let path = path.to_owned();
    blocking(move || stanchion_untrusted::read(path, Links::Follow, CERTIFICATES)).await
}

/// Reads a PEM file that must contain `mark`; `what` names it in errors.
async fn pem(key: &str, path: &Path, mark: &str, what: &str) -> Result<Vec<u8>> {
    let bytes = read(path).await.map_err(|error| wrong(key, path).caused_by(&error))?;
    let has = |text: &str| bytes.windows(text.len()).any(|part| part == text.as_bytes());
    match () {
        () if !has(mark) => Err(wrong(key, path).because(format!("there is no {what} in it, as PEM"))),
        () if has("ENCRYPTED") => {
            let way = "its key is protected by a passphrase; `openssl pkey -in FILE -out FILE` writes it without";
            Err(wrong(key, path).because(way))
        }
        () => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use stanchion_tests::authority::Authority;

    use super::*;

    async fn client(certificate: &Path, key: &Path) -> Result<[u8; 32]> {
        let (cert_file, key_file) = (Some(certificate.to_owned()), Some(key.to_owned()));
        let tls = Tls { cert_file, key_file, ..Tls::default() };
        let files = tls.read().await?;
        tls.client(&files).map(|_| files.fingerprint())
    }

    #[tokio::test]
    async fn what_is_wrong_with_certificates_is_said_and_renewed_ones_are_noticed() {
        let dir = tempfile::tempdir().expect("a directory");
        let authority = Authority::new(&dir.path().join("ca")).expect("an authority");
        let issue = |name: &str| authority.issue(name).expect("a certificate");
        let (ours, other) = (issue("ours"), issue("other"));
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::write(&path, text).expect("a file");
            path
        };
        let absent = dir.path().join("absent");
        let locked =
            write("locked", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n");
        let garbled = write("garbled", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
        for (certificate, key, begins, said) in [
            (&absent, &ours.key, "cert_file \"", "absent\": No such file"),
            (&ours.certificate, &absent, "key_file \"", "absent\": No such file"),
            (&ours.key, &ours.key, "cert_file \"", "ours.key\": there is no certificate in it"),
            (&ours.certificate, &ours.certificate, "key_file \"", "ours.pem\": there is no private key in it"),
            (&ours.certificate, &locked, "key_file \"", "locked\": its key is protected by a passphrase"),
            (&ours.certificate, &garbled, "cert_file \"", "garbled\": "),
            (&ours.certificate, &other.key, "cert_file \"", "other.key\": the key is not that of the certificate"),
        ] {
            let error = client(certificate, key).await.expect_err(said);
            let text = error.chain();
            assert!(text.starts_with(begins) && text.contains(said), "{text}");
            assert_eq!(error.kind(), ErrorKind::Invalid, "{text}");
        }
        let before = client(&ours.certificate, &ours.key).await.expect("it is right");
        assert_eq!(client(&ours.certificate, &ours.key).await.expect("it is right"), before);
        let renewed = issue("ours");
        assert_ne!(client(&renewed.certificate, &renewed.key).await.expect("it is right"), before);
    }
}
