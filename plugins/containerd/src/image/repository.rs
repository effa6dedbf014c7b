//! One repository of a registry: its manifests and blobs over distribution's API.

use std::sync::Arc;

use futures_util::{Stream, TryStreamExt};
use reqwest::{
    Client, Response, StatusCode, Url,
    header::{ACCEPT, HeaderMap, HeaderValue, LOCATION, RANGE},
};
use sha2::{Digest, Sha256, Sha384, Sha512};
use stanchion_sdk::runtime::{Error, ErrorKind, Result};
use tokio_util::bytes::Bytes;

use super::{
    refusal::Asked,
    registry::Endpoint,
    sign_in::{Authorization, Challenge, SignIn, Token, TokenServer},
    store,
};

const ACCEPTED: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
                        application/vnd.docker.distribution.manifest.v2+json, \
                        application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker Hub's registry, which references call `docker.io`.
pub(super) const HUB: &str = "index.docker.io";
/// What registries have to take (distribution's specification); bytes.
const LARGEST_MANIFEST: usize = 4 << 20;
const LARGEST_TOKEN: usize = 1 << 20;
const LARGEST_GREETING: usize = 64 << 10;
/// How often in a row one is sent on.
const REDIRECTS: usize = 10;

/// A repository, and how it is asked.
pub(super) struct Repository {
    http: Client,
    sign_in: Arc<SignIn>,
    asked: Asked,
    /// `…/v2/`
    api: Url,
}

impl Repository {
    /// The repository that an image of that name is in at `endpoint`, whose settings are there.
    ///
    /// # Errors
    /// `Invalid`: the host is none.
    pub fn new(
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

    /// A manifest or an index, by tag or digest, as it was written, and its digest.
    pub async fn manifest(&self, version: &str) -> Result<(Vec<u8>, String)> {
        let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(ACCEPTED))]);
        let answer = self.get("manifests", version, headers).await?;
        let said = answer.headers().get("docker-content-digest").and_then(|value| value.to_str().ok());
        let said = said.map(str::to_owned);
        let bytes = body(answer, LARGEST_MANIFEST).await.map_err(|error| self.asked.unanswered(error))?;
        let wrong = |why: String| Err(Error::new(ErrorKind::Invalid, why));
        if bytes.len() > LARGEST_MANIFEST {
            return wrong(format!("the manifest is larger than {LARGEST_MANIFEST} bytes"));
        }
        let found = store::digest(&bytes);
        if version.contains(':') && has_digest(&bytes, version) != Some(true) {
            return wrong(format!("the manifest is {found}, not {version}"));
        }
        match said {
            Some(said) if has_digest(&bytes, &said) == Some(false) => {
                wrong(format!("the manifest is {found}, but the registry says {said}"))
            }
            _ => Ok((bytes, found)),
        }
    }

    /// A blob, and where in it what comes begins: where it was asked to, or at its start.
    pub async fn blob(
        &self,
        digest: &str,
        from: u64,
    ) -> Result<(u64, impl Stream<Item = reqwest::Result<Bytes>> + Send + 'static + use<>)> {
        let range = (from > 0).then(|| HeaderValue::from_str(&format!("bytes={from}-")).ok()).flatten();
        let headers = range.into_iter().map(|range| (RANGE, range)).collect();
        let answer = self.get("blobs", digest, headers).await?;
        let begins = if answer.status() == StatusCode::PARTIAL_CONTENT { from } else { 0 };
        // Their address may be secret (I10).
        Ok((begins, answer.bytes_stream().map_err(reqwest::Error::without_url)))
    }

    async fn get(&self, kind: &str, version: &str, headers: HeaderMap) -> Result<Response> {
        let Asked { repository, .. } = &self.asked;
        let url = self.api.join(&format!("./{repository}/{kind}/{version}"));
        let url =
            url.map_err(|error| Error::new(ErrorKind::Invalid, format!("{kind} {version:?}")).caused_by(&error))?;
        let shown = self.authorization().await?;
        let answer = self.follow(&url, &headers, shown.as_ref()).await?;
        let answer = match answer.status() {
            StatusCode::UNAUTHORIZED => self.get_again(&url, &headers, shown, &answer).await?,
            _ => answer,
        };
        match answer.status().is_success() {
            true => Ok(answer),
            false => Err(self.asked.refused(answer, version).await),
        }
    }

    /// Asks again with what a refusal says is wanted: tokens may end before their time, and registries come to want others.
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

    /// Asks, and goes where it is sent. By hand: what is shown stays with the host that it is for.
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

    /// What is to be shown for this repository.
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

    /// What the registry wants. It is asked before anything else: without, some give only what is for everybody.
    async fn challenge(&self) -> Result<Challenge> {
        if let Some(known) = self.sign_in.challenge() {
            return Ok(known);
        }
        let answer = self.follow(&self.api, &HeaderMap::new(), None).await?;
        let said = Challenge::of(answer.headers());
        let is_in_trouble = answer.status().is_server_error() || answer.status() == StatusCode::TOO_MANY_REQUESTS;
        // Read to its end, the connection serves the next request too.
        body(answer, LARGEST_GREETING).await.map_err(|error| self.asked.unanswered(error))?;
        let said = said.or_else(|| (!is_in_trouble).then_some(Challenge::Nothing));
        self.sign_in.learn(said.clone());
        Ok(said.unwrap_or(Challenge::Nothing))
    }

    /// A token to read this repository with.
    async fn token(&self, server: &TokenServer) -> Result<Token> {
        let scope = format!("repository:{}:pull", self.asked.repository);
        let mut query = vec![("scope", scope.as_str())];
        query.extend((!server.service.is_empty()).then_some(("service", server.service.as_str())));
        let identity = self.sign_in.identity_token();
        let asked = stanchion_sdk::clock::instant();
        let answer = match identity {
            Some(token) => {
                query.extend([("grant_type", "refresh_token"), ("client_id", "stanchion"), ("refresh_token", token)]);
                // Not to where it may be sent on: the token is in it.
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
        let text = body(answer, LARGEST_TOKEN).await.map_err(|error| self.asked.unanswered(error))?;
        Token::read(&text, asked).ok_or_else(|| {
            let message = format!("the token server of registry {} answers without a token", self.asked.host);
            Error::new(ErrorKind::Other, message)
        })
    }
}

/// Where an answer sends us, if it does.
fn sent_to(answer: &Response) -> Option<Url> {
    let place = answer.headers().get(LOCATION).filter(|_| answer.status().is_redirection())?;
    answer.url().join(place.to_str().ok()?).ok()
}

/// The body of an answer, or, when it is larger than that, its beginning and something more.
pub(super) async fn body(mut answer: Response, at_most: usize) -> reqwest::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(part) = answer.chunk().await? {
        bytes.extend_from_slice(&part);
        if bytes.len() > at_most {
            break;
        }
    }
    Ok(bytes)
}

/// Whether bytes have a digest; nothing where it is of a kind that is not known.
fn has_digest(bytes: &[u8], digest: &str) -> Option<bool> {
    fn of<D: Digest>(bytes: &[u8]) -> Vec<u8> {
        D::digest(bytes).to_vec()
    }
    let (kind, expected) = digest.split_once(':')?;
    let found = match kind {
        "sha256" => of::<Sha256>(bytes),
        "sha384" => of::<Sha384>(bytes),
        "sha512" => of::<Sha512>(bytes),
        _ => return None,
    };
    Some(store::hex(&found) == expected)
}

#[cfg(test)]
mod tests;
