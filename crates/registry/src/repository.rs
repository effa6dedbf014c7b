//! One repository of a registry: manifests and blobs over the distribution API.

use std::{fmt, sync::Arc};

use futures_util::{Stream, TryStreamExt};
use reqwest::{
    Client, Response, StatusCode, Url,
    header::{ACCEPT, CONTENT_RANGE, HeaderMap, HeaderValue, LOCATION, RANGE},
};
use stanchion_runtime::{Error, ErrorKind, Result};
use stanchion_sdk::{
    clock, limits as shared,
    oci::{self, Descriptor, has_digest},
};
use stanchion_untrusted::Limit;
use tokio_util::bytes::Bytes;

use super::{
    hosts::Endpoint,
    refusal::Asked,
    sign_in::{Authorization, Challenge, SignIn, Token, TokenServer},
    transfer,
};
use crate::limits;

const ACCEPTED: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
                        application/vnd.docker.distribution.manifest.v2+json, \
                        application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker Hub's registry, which references call `docker.io`.
pub(super) const HUB: &str = "index.docker.io";
/// Most redirects in a row.
const REDIRECTS: usize = 10;

/// Repository with its HTTP client and sign-in.
pub struct Repository {
    http: Client,
    sign_in: Arc<SignIn>,
    asked: Asked,
    /// Base URL of the API, `…/v2/`.
    api: Url,
}

impl Repository {
    /// Makes the repository of image `name` at `endpoint`; `settings` names the registry's settings in messages.
    ///
    /// # Errors
    /// `Invalid`: the host is not a valid name.
    pub(super) fn new(
        endpoint: &Endpoint,
        name: &str,
        settings: String,
        (http, sign_in): (Client, Arc<SignIn>),
    ) -> Result<Self> {
        let host = endpoint.host.clone();
        let scheme = if endpoint.plain { "http" } else { "https" };
        let address = if host == "docker.io" { HUB } else { &host };
        let api = Url::parse(&format!("{scheme}://{address}/v2/"));
        let api =
            api.map_err(|error| Error::new(ErrorKind::Invalid, format!("registry {host:?}")).caused_by(&error))?;
        let asked = Asked {
            repository: endpoint.repository(name),
            settings,
            has_certificate: endpoint.tls.cert_file.is_some(),
            host,
        };
        Ok(Self { http, sign_in, asked, api })
    }

    /// Returns the registry's host.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.asked.host
    }

    /// Fetches a manifest or an index by tag or digest. Returns its exact bytes and its digest.
    ///
    /// # Errors
    /// The registry does not give it: `NotFound`, `Permission`, `Unavailable`. What it gives is too large, or another
    /// than it says or than was asked for: `Invalid`.
    pub async fn manifest(&self, version: &str) -> Result<(Vec<u8>, String)> {
        let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(ACCEPTED))]);
        let answer = self.get("manifests", version, headers).await?;
        let said = answer.headers().get("docker-content-digest").and_then(|value| value.to_str().ok());
        let said = said.map(str::to_owned);
        let bytes = self.document(answer, shared::MANIFEST).await?;
        let wrong = |why: String| Err(Error::new(ErrorKind::Invalid, why));
        let found = oci::digest(&bytes);
        if version.contains(':') && has_digest(&bytes, version) != Some(true) {
            return wrong(format!("the manifest is {found}, not {version}"));
        }
        match said {
            Some(said) if has_digest(&bytes, &said) == Some(false) => {
                wrong(format!("the manifest is {found}, but the registry says {}", shared::SHOWN.cut(&said)))
            }
            _ => Ok((bytes, found)),
        }
    }

    /// Fetches a blob into memory.
    ///
    /// # Errors
    /// The registry does not give it, or it is larger than `limit`. Its digest is not checked.
    pub async fn small_blob(&self, blob: &Descriptor, limit: Limit) -> Result<Vec<u8>> {
        let answer = self.get("blobs", &blob.digest, HeaderMap::new()).await?;
        self.document(answer, limit).await
    }

    /// Streams a blob from `from` on, or from its start. Returns the offset at which the stream begins; it ends at the
    /// blob's size.
    ///
    /// # Errors
    /// The registry does not give it, or gives another part of it or another size. The stream ends with an error if
    /// the transfer breaks off (`Unavailable`), is too slow (`Timeout`) or has more bytes (`Invalid`).
    pub async fn blob(
        &self,
        blob: &Descriptor,
        from: u64,
    ) -> Result<(u64, impl Stream<Item = Result<Bytes>> + Send + 'static + use<>)> {
        let range = (from > 0).then(|| HeaderValue::from_str(&format!("bytes={from}-")).ok()).flatten();
        let headers = range.into_iter().map(|range| (RANGE, range)).collect();
        let Descriptor { digest, size, .. } = blob;
        let answer = self.get("blobs", digest, headers).await?;
        let begins = match answer.status() {
            StatusCode::PARTIAL_CONTENT => begins(answer.headers()).unwrap_or(from),
            _ => 0,
        };
        let host = &self.asked.host;
        let wrong =
            |what: String| Error::new(ErrorKind::Invalid, format!("registry {host} sends {what} of blob {digest}"));
        if begins != 0 && begins != from {
            return Err(wrong(format!("what begins at byte {begins}, not {from},")));
        }
        let left = size.saturating_sub(begins);
        match answer.content_length() {
            Some(length) if length != left => {
                Err(wrong(format!("{length} bytes, not the {left} that the manifest says,")))
            }
            // The addresses in errors may be secret (I10).
            _ => Ok((begins, transfer::bounded(answer.bytes_stream().map_err(reqwest::Error::without_url), left))),
        }
    }

    /// Reads a document into memory. One that announces too large a size is not read.
    async fn document(&self, answer: Response, limit: Limit) -> Result<Vec<u8>> {
        let from = |error: Error| error.context(format!("reading an answer of registry {}", self.asked.host));
        transfer::whole(answer, limit).await.map_err(|error| from(error.into_error(&self.asked)))
    }

    async fn get(&self, kind: &str, version: &str, headers: HeaderMap) -> Result<Response> {
        let Asked { repository, .. } = &self.asked;
        let url = self.api.join(&format!("./{repository}/{kind}/{version}"));
        let url =
            url.map_err(|error| Error::new(ErrorKind::Invalid, format!("{kind} {version:?}")).caused_by(&error))?;
        let shown = self.authorization().await?;
        let answer = self.follow(&url, &headers, shown.as_ref()).await?;
        let answer = match answer.status() {
            StatusCode::UNAUTHORIZED if self.is_its_own(&answer) => {
                self.get_again(&url, &headers, shown, &answer).await?
            }
            StatusCode::UNAUTHORIZED => return Err(self.asked.wanted_elsewhere(answer.url())),
            _ => answer,
        };
        match answer.status().is_success() {
            true => Ok(answer),
            false => Err(self.asked.refused(answer, version).await),
        }
    }

    /// Asks again with what a refusal asks for: tokens may end before their time, and registries may change what they
    /// want.
    async fn get_again(
        &self,
        url: &Url,
        headers: &HeaderMap,
        shown: Option<Authorization>,
        refusal: &Response,
    ) -> Result<Response> {
        self.sign_in.forget(&self.asked.repository);
        self.sign_in.learn(Challenge::of(refusal.headers()));
        match self.authorization().await? {
            Some(other) if Some(&other) != shown.as_ref() => self.follow(url, headers, Some(&other)).await,
            _ => Err(self.asked.unauthorized()),
        }
    }

    /// Sends a request and follows redirects: credentials stay with the host that they are for.
    async fn follow(&self, url: &Url, headers: &HeaderMap, shown: Option<&Authorization>) -> Result<Response> {
        let mut at = url.clone();
        for _ in 0..=REDIRECTS {
            let request = self.http.get(at.clone()).headers(headers.clone());
            let request = match shown {
                Some(shown) if at.origin() == url.origin() => shown.on(request),
                _ => request,
            };
            let answer = request.send().await.map_err(|error| self.asked.unanswered(error))?;
            match sent_to(&answer) {
                Some(next) => at = next,
                None => return Ok(answer),
            }
        }
        Err(Error::new(ErrorKind::Other, format!("registry {} sends us in a circle", self.asked.host)))
    }

    /// Returns whether an answer is the registry's own. A host that it redirects to is not known to be entitled to the
    /// credentials, nor is that host's token server.
    fn is_its_own(&self, answer: &Response) -> bool {
        answer.url().origin() == self.api.origin()
    }

    /// Returns the credentials to send for this repository.
    async fn authorization(&self) -> Result<Option<Authorization>> {
        let repository = &self.asked.repository;
        match self.challenge().await? {
            Challenge::Nothing => Ok(None),
            Challenge::Basic if self.sign_in.identity_token().is_some() => Err(self.asked.wants_password()),
            Challenge::Basic => Ok(self.sign_in.password().cloned().map(Authorization::Basic)),
            Challenge::Bearer(server) => {
                if let Some(token) = self.sign_in.token(repository) {
                    return Ok(Some(Authorization::Bearer(token)));
                }
                let token = self.token(&server).await?;
                let text = token.text.clone();
                self.sign_in.keep(repository, token);
                Ok(Some(Authorization::Bearer(text)))
            }
        }
    }

    /// Returns what the registry wants. It is asked first: without credentials, some registries give only public
    /// content.
    async fn challenge(&self) -> Result<Challenge> {
        if let Some(known) = self.sign_in.challenge() {
            return Ok(known);
        }
        let answer = self.follow(&self.api, &HeaderMap::new(), None).await?;
        let said = Challenge::of(answer.headers()).filter(|_| self.is_its_own(&answer));
        let is_in_trouble = answer.status().is_server_error() || answer.status() == StatusCode::TOO_MANY_REQUESTS;
        // Once the body is read, the connection serves the next request too.
        transfer::start(answer, limits::GREETING).await;
        let said = said.or_else(|| (!is_in_trouble).then_some(Challenge::Nothing));
        self.sign_in.learn(said.clone());
        Ok(said.unwrap_or(Challenge::Nothing))
    }

    /// Fetches a token to read this repository with.
    async fn token(&self, server: &TokenServer) -> Result<Token> {
        let scope = format!("repository:{}:pull", self.asked.repository);
        let mut query = vec![("scope", scope.as_str())];
        query.extend((!server.service.is_empty()).then_some(("service", server.service.as_str())));
        let identity = self.sign_in.identity_token();
        let has_credentials = identity.is_some() || self.sign_in.password().is_some();
        if has_credentials && server.realm.scheme() != "https" && self.api.scheme() == "https" {
            return Err(self.asked.unprotected(&server.realm));
        }
        let asked = clock::instant();
        let answer = match identity {
            Some(token) => {
                query.extend([("grant_type", "refresh_token"), ("client_id", "stanchion"), ("refresh_token", token)]);
                // No redirects: the token is in the body.
                let request = self.http.post(server.realm.clone()).form(&query);
                request.send().await.map_err(|error| self.asked.unanswered(error))?
            }
            None => {
                let mut url = server.realm.clone();
                url.query_pairs_mut().extend_pairs(query);
                let shown = self.sign_in.password().cloned().map(Authorization::Basic);
                self.follow(&url, &HeaderMap::new(), shown.as_ref()).await?
            }
        };
        if !answer.status().is_success() {
            return Err(self.asked.no_token(answer, identity.is_some()).await);
        }
        let text = self.document(answer, limits::TOKEN).await?;
        Token::read(&text, asked).ok_or_else(|| {
            let message = format!("the token server of registry {} answers without a token", self.asked.host);
            Error::new(ErrorKind::Other, message)
        })
    }
}

// Omits the credentials (I10).
impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Repository").field("asked", &self.asked).finish_non_exhaustive()
    }
}

/// Returns the target of a redirect.
fn sent_to(answer: &Response) -> Option<Url> {
    let place = answer.headers().get(LOCATION).filter(|_| answer.status().is_redirection())?;
    answer.url().join(place.to_str().ok()?).ok()
}

/// Returns where a part of a blob begins, from `Content-Range`: `bytes 5-9/10`.
fn begins(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests;
