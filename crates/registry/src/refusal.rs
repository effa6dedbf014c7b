//! Errors of registries, in our words. They contain no credentials.

use std::{error::Error as StdError, io};

use reqwest::{Response, StatusCode, Url};
use rustls::AlertDescription as Alert;
use serde_json::Value;
use stanchion_runtime::{Error, ErrorKind};
use stanchion_sdk::limits::SHOWN;

use super::{repository::HUB, retry, transfer};
use crate::limits;

/// Registry and repository of a request.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub host: String,
    pub repository: String,
    /// Name of the registry's settings, for messages.
    pub settings: String,
    /// Whether the settings have a client certificate for it.
    pub has_certificate: bool,
}

impl Asked {
    /// Returns the error for a request without an answer.
    pub fn unanswered(&self, error: reqwest::Error) -> Error {
        let place = self.place(error.url());
        // The address of a blob may be all that is needed to get it (I10).
        let error = error.without_url();
        let unavailable = |message: String| Error::new(ErrorKind::Unavailable, message).caused_by(&error);
        match tls_failure(&error) {
            Some(rustls::Error::AlertReceived(alert)) if is_of_certificate(*alert) => {
                self.certificate(&place).because(format!("TLS alert {alert:?}"))
            }
            Some(rustls::Error::InvalidCertificate(_)) => {
                unavailable(format!("the certificate of {place} is not trusted; see ca_file in {}", self.settings))
            }
            _ => unavailable(format!("{place} cannot be reached")),
        }
    }

    /// Names the registry, or the host to which it has redirected.
    fn place(&self, at: Option<&Url>) -> String {
        let host = &self.host;
        let elsewhere = at.and_then(Url::host_str).filter(|it| !host.contains(it) && *it != HUB);
        elsewhere.map_or_else(
            || format!("registry {host}"),
            |it| format!("{}, where registry {host} sends us,", SHOWN.cut(it)),
        )
    }

    fn certificate(&self, place: &str) -> Error {
        let settings = &self.settings;
        let message = match self.has_certificate {
            true => format!("{place} does not accept our certificate; check cert_file and key_file in {settings}"),
            false => format!("{place} wants a client certificate; set cert_file and key_file in {settings}"),
        };
        Error::new(ErrorKind::Permission, message)
    }

    /// Returns the error for an unexpected answer; `version` is the tag or digest of the manifest or blob.
    pub async fn refused(&self, answer: Response, version: &str) -> Error {
        let (status, busy) = (answer.status(), retry::after(answer.headers()));
        let text = transfer::start(answer, limits::REFUSAL).await;
        let codes = codes(&text);
        let says = |word: &str| codes.iter().any(|code| code.contains(word));
        let text = shown(&text);
        let host = &self.host;
        match status.as_u16() {
            401 => self.unauthorized(),
            403 => self.forbidden(status),
            404 => self.not_found(version),
            429 => busy_until(format!("registry {host}"), busy),
            500.. => Error::new(ErrorKind::Unavailable, format!("registry {host} is in trouble ({})", status.as_u16()))
                .because(text),
            // nginx answers so when the client certificate is missing or wrong.
            400 if text.contains("SSL certificate") => self.certificate(&format!("registry {host}")).because(text),
            _ if says("UNKNOWN") => self.not_found(version),
            _ if says("DENIED") => self.forbidden(status),
            _ if says("TOOMANYREQUESTS") => busy_until(format!("registry {host}"), busy),
            code => Error::new(ErrorKind::Other, format!("registry {host} answers {code}")).because(text),
        }
    }

    /// Returns the error for a registry that wants other credentials, or some.
    pub fn unauthorized(&self) -> Error {
        let (host, settings) = (&self.host, &self.settings);
        let hint = format!(
            "registry {host} wants other credentials (401); set username and password, or identity_token, in {settings}, \
             and check the image's name"
        );
        Error::new(ErrorKind::Permission, hint)
    }

    /// Returns the error for a redirect to a host that wants credentials: ours are for the registry only.
    pub fn wanted_elsewhere(&self, at: &Url) -> Error {
        let (host, settings) = (&self.host, &self.settings);
        let other = format!("{}://{}", at.scheme(), SHOWN.cut(at.host_str().unwrap_or_default()));
        let message = format!(
            "registry {host} sends us to {other}, which wants credentials (401); those in {settings} are not shown there. If \
             that is the registry, name its images by its own host"
        );
        Error::new(ErrorKind::Permission, message)
    }

    /// Returns the error for a registry that wants a password while an identity token is set.
    pub fn wants_password(&self) -> Error {
        let (host, settings) = (&self.host, &self.settings);
        let message = format!(
            "registry {host} has no token server and takes no identity token; set username and password in {settings}"
        );
        Error::new(ErrorKind::Permission, message)
    }

    /// Returns the error for a registry with TLS whose token server has none.
    pub fn unprotected(&self, realm: &Url) -> Error {
        let (host, settings) = (&self.host, &self.settings);
        let server = SHOWN.cut(realm.host_str().unwrap_or_default());
        let message = format!(
            "registry {host} names a token server that would get the credentials without TLS ({}://{server}); they are not \
             sent. Have the registry name an https address, or remove its credentials from {settings}",
            realm.scheme()
        );
        Error::new(ErrorKind::Permission, message)
    }

    /// Returns the error for a token server that gives no token.
    pub async fn no_token(&self, answer: Response, has_identity: bool) -> Error {
        let (status, busy) = (answer.status().as_u16(), retry::after(answer.headers()));
        let server = answer.url().host_str().unwrap_or_default();
        let server = format!("the token server {} of registry {}", SHOWN.cut(server), self.host);
        // Its text is not shown: it may repeat the credentials (I10).
        match status {
            429 => busy_until(server, busy),
            400.. if status < 500 && has_identity => {
                let settings = &self.settings;
                let message = format!(
                    "{server} does not accept the identity token ({status}); check identity_token in {settings}"
                );
                Error::new(ErrorKind::Permission, message)
            }
            400 | 401 | 403 => self.unauthorized().because(format!("{server} answers {status}")),
            500.. => Error::new(ErrorKind::Unavailable, format!("{server} is in trouble ({status})")),
            _ => Error::new(ErrorKind::Other, format!("{server} answers {status}, without a token")),
        }
    }

    fn forbidden(&self, status: StatusCode) -> Error {
        let message = format!("registry {} refuses ({}); check the credentials", self.host, status.as_u16());
        Error::new(ErrorKind::Permission, message)
    }

    fn not_found(&self, version: &str) -> Error {
        let Self { host, repository, .. } = self;
        let message =
            format!("image {repository} with {version} is not found in registry {host} (404); check name and tag");
        Error::new(ErrorKind::NotFound, message)
    }
}

fn busy_until(who: String, delay: std::time::Duration) -> Error {
    Error::new(ErrorKind::Unavailable, format!("{who} has had too many requests (429)")).retry_after(delay)
}

/// Returns the error codes of an answer (distribution specification).
fn codes(text: &[u8]) -> Vec<String> {
    let text: Value = serde_json::from_slice(text).unwrap_or_default();
    let errors = text["errors"].as_array().cloned().unwrap_or_default();
    errors.iter().filter_map(|error| error["code"].as_str().map(str::to_uppercase)).collect()
}

/// Returns a text as one line, cut to a bounded length.
fn shown(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let line: Vec<_> = text.split_whitespace().collect();
    SHOWN.cut(&line.join(" ")).into_owned()
}

/// Returns the TLS error among the causes, if any.
fn tls_failure<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(found) = cause.downcast_ref() {
            return Some(found);
        }
        // The error that an I/O error wraps is not among its sources.
        let wrapped = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = wrapped.map(|cause| cause as &(dyn StdError + 'static)).or_else(|| cause.source());
    }
    None
}

/// Returns whether a server says by this alert that it lacks a client certificate, or wants another. Servers differ in
/// the alert that they send.
fn is_of_certificate(alert: Alert) -> bool {
    matches!(
        alert,
        Alert::CertificateRequired
            | Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
    )
}
