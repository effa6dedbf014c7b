//! Sign-in to a registry for pulls: nothing, a password, or a token from a token server.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http_auth::{ChallengeParser, ChallengeRef};
use reqwest::{
    RequestBuilder, Url,
    header::{HeaderMap, WWW_AUTHENTICATE},
};
use stanchion_runtime::RegistryAuth;
use tokio::time::Instant;

/// Validity of a token whose server does not say (distribution's token specification).
const UNSAID: Duration = Duration::from_secs(60);
/// Longest time for which a token is kept.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Credentials that a registry wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    Nothing,
    Basic,
    Bearer(TokenServer),
}

/// Server that gives tokens for a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TokenServer {
    pub realm: Url,
    /// The token server's name for the registry.
    pub service: String,
}

impl Challenge {
    /// Reads what an answer wants; among several, a token.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let texts = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let parsed = texts.flat_map(|text| ChallengeParser::new(text).map_while(Result::ok));
        let mut known: Vec<_> = parsed.filter_map(|challenge| Self::read(&challenge)).collect();
        let token = known.iter().position(|challenge| matches!(challenge, Self::Bearer(_)));
        (!known.is_empty()).then(|| known.swap_remove(token.unwrap_or(0)))
    }

    fn read(challenge: &ChallengeRef<'_>) -> Option<Self> {
        let parameter = |name: &str| {
            let mut all = challenge.params.iter();
            all.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_unescaped())
        };
        match challenge.scheme.to_ascii_lowercase().as_str() {
            "basic" => Some(Self::Basic),
            "bearer" => {
                let realm = Url::parse(&parameter("realm")?).ok()?;
                Some(Self::Bearer(TokenServer { realm, service: parameter("service").unwrap_or_default() }))
            }
            _ => None,
        }
    }
}

/// Credentials of a request. No Debug (I10).
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Authorization {
    Basic(RegistryAuth),
    Bearer(String),
}

impl Authorization {
    /// Adds the credentials to a request.
    pub fn on(&self, request: RequestBuilder) -> RequestBuilder {
        match self {
            Self::Basic(auth) => request.basic_auth(&auth.username, Some(&auth.password)),
            Self::Bearer(token) => request.bearer_auth(token),
        }
    }
}

/// Token for one repository. No Debug (I10).
pub(super) struct Token {
    pub text: String,
    until: Instant,
}

impl Token {
    /// Reads the token in an answer; `asked` is the time of the request.
    pub fn read(answer: &[u8], asked: Instant) -> Option<Self> {
        let answer: serde_json::Value = serde_json::from_slice(answer).ok()?;
        let text = ["access_token", "token"].iter().find_map(|key| answer[key].as_str().filter(|it| !it.is_empty()))?;
        let good_for = answer["expires_in"].as_u64().filter(|seconds| *seconds > 0).map(Duration::from_secs);
        // A tenth is left for the way.
        let until = asked + good_for.unwrap_or(UNSAID).min(LONGEST) * 9 / 10;
        Some(Self { text: text.to_owned(), until })
    }
}

/// Account at a registry: what the registry wants, and the tokens it has given.
pub(super) struct SignIn {
    auth: Option<RegistryAuth>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    challenge: Option<Challenge>,
    /// Tokens by repository.
    tokens: HashMap<String, Token>,
}

impl SignIn {
    pub fn new(auth: Option<RegistryAuth>) -> Self {
        Self { auth, state: Mutex::default() }
    }

    /// Returns user name and password.
    pub fn password(&self) -> Option<&RegistryAuth> {
        self.auth.as_ref().filter(|auth| auth.identity_token.is_empty())
    }

    pub fn identity_token(&self) -> Option<&str> {
        self.auth.as_ref().map(|auth| auth.identity_token.as_str()).filter(|token| !token.is_empty())
    }

    /// Returns what the registry wants, if known.
    pub fn challenge(&self) -> Option<Challenge> {
        self.state().challenge.clone()
    }

    /// Notes what the registry wants; `None` for unknown.
    pub fn learn(&self, challenge: Option<Challenge>) {
        self.state().challenge = challenge;
    }

    /// Returns a token for a repository that is still valid.
    pub fn token(&self, repository: &str) -> Option<String> {
        let now = stanchion_sdk::clock::instant();
        self.state().tokens.get(repository).filter(|token| token.until > now).map(|token| token.text.clone())
    }

    pub fn keep(&self, repository: &str, token: Token) {
        let now = stanchion_sdk::clock::instant();
        let mut state = self.state();
        state.tokens.retain(|_, token| token.until > now);
        state.tokens.insert(repository.to_owned(), token);
    }

    /// Forgets a token that was refused.
    pub fn forget(&self, repository: &str) {
        self.state().tokens.remove(repository);
    }

    /// Returns whether a valid token would be lost with it.
    pub fn has_tokens(&self) -> bool {
        let now = stanchion_sdk::clock::instant();
        self.state().tokens.values().any(|token| token.until > now)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn challenge(values: &[&'static str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, value.parse().expect("a header"));
        }
        Challenge::of(&headers)
    }

    #[test]
    fn challenges_are_read_and_a_token_comes_before_a_password() {
        let server = |realm: &str, service: &str| {
            let realm = realm.parse().expect("an address");
            Some(Challenge::Bearer(TokenServer { realm, service: service.to_owned() }))
        };
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io""#;
        let hub_server = server("https://auth.docker.io/token", "registry.docker.io");
        assert_eq!(challenge(&[hub]), hub_server);
        assert_eq!(challenge(&[r#"Basic realm="a, b""#, hub]), hub_server);
        assert_eq!(challenge(&[r#"Basic realm=x, bearer service="s\"", Realm="http://a/t?k=v""#]), {
            server("http://a/t?k=v", "s\"")
        });
        assert_eq!(challenge(&["BASIC realm=x"]), Some(Challenge::Basic));
        for none in ["Bearer realm=\"/token\"", "Bearer", "Negotiate", "\"", ""] {
            assert_eq!(challenge(&[none]), None, "{none}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_are_kept_for_their_repository_until_they_end() {
        let now = stanchion_sdk::clock::instant();
        let sign_in = SignIn::new(None);
        let read = |answer: &str| Token::read(answer.as_bytes(), now);
        sign_in.keep("a", read(r#"{"token": "one", "expires_in": 300}"#).expect("a token"));
        sign_in.keep("b", read(r#"{"token": "", "access_token": "two"}"#).expect("a token"));
        assert_eq!((sign_in.token("a"), sign_in.token("b")), (Some("one".to_owned()), Some("two".to_owned())));
        assert_eq!(sign_in.token("c"), None);
        tokio::time::advance(UNSAID).await;
        assert_eq!((sign_in.token("a").as_deref(), sign_in.token("b")), (Some("one"), None));
        sign_in.forget("a");
        assert!(!sign_in.has_tokens());
        for none in ["{}", r#"{"token": 1}"#, "no JSON", ""] {
            assert!(read(none).is_none(), "{none}");
        }
        let far = read(r#"{"token": "far", "expires_in": 18446744073709551615}"#).expect("a token");
        assert!(far.until <= now + LONGEST);
    }
}
