//! Tests against registries that answer by a script.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpListener,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::TryStreamExt;
use stanchion_runtime::{Error, ErrorKind, Progress, RegistryAuth};
use stanchion_sdk::oci::{Manifest, digest};

use super::{
    super::{blobs::Blobs, hosts},
    *,
};

/// Function from a request, head and body, to its answer.
type Script = dyn Fn(&str) -> String + Send + Sync;

/// Server on a loopback address; it ends with the test.
struct Server {
    address: String,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Starts a server that answers by `script`, which gets the server's address.
    fn start<S: Fn(&str) -> String + Send + Sync + 'static>(script: impl FnOnce(String) -> S) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let seen = Arc::<Mutex<Vec<String>>>::default();
        let (script, note): (Box<Script>, _) = (Box::new(script(address.clone())), Arc::clone(&seen));
        std::thread::spawn(move || {
            for mut client in listener.incoming().flatten() {
                let mut reader = BufReader::new(client.try_clone().expect("a socket"));
                let mut asked = String::new();
                while reader.read_line(&mut asked).expect("a request") > 2 {}
                let length = asked.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
                let mut body = vec![0; length.unwrap_or(0)];
                reader.read_exact(&mut body).expect("a body");
                asked.push_str(&String::from_utf8_lossy(&body));
                let answer = script(&asked);
                note.lock().expect("whole").push(asked);
                // A client that has read enough closes the connection.
                client.write_all(answer.as_bytes()).ok();
            }
        });
        Self { address, seen }
    }

    /// Returns the requests that begin with `begins`.
    fn seen(&self, begins: &str) -> Vec<String> {
        self.seen.lock().expect("whole").iter().filter(|asked| asked.starts_with(begins)).cloned().collect()
    }

    /// Returns its repository `team/app`.
    async fn repository(&self, auth: Option<RegistryAuth>) -> Repository {
        of(&hosts::Clients::default(), &self.address, auth).await
    }
}

async fn of(clients: &hosts::Clients, host: &str, auth: Option<RegistryAuth>) -> Repository {
    let endpoint = hosts::endpoints(host, &BTreeMap::new()).remove(0);
    let client = clients.of(&endpoint, auth).await.expect("a client");
    Repository::new(&endpoint, "team/app", "[the settings]".to_owned(), client).expect("a repository")
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n{body}")
}

fn blob(digest: &str, size: u64) -> Descriptor {
    Descriptor::new("", digest.to_owned(), size)
}

fn password() -> Option<RegistryAuth> {
    Some(RegistryAuth { username: "user".to_owned(), password: "secret".to_owned(), ..RegistryAuth::default() })
}

fn identity() -> Option<RegistryAuth> {
    Some(RegistryAuth { identity_token: "se cret".to_owned(), ..RegistryAuth::default() })
}

/// `user:secret`
const BASIC: &str = "authorization: Basic dXNlcjpzZWNyZXQ=\r\n";

/// Starts a registry that wants a token of its own `/token`, where `give` answers. It gives a manifest for a `good`
/// token.
fn with_tokens(give: impl Fn(&str) -> String + Send + Sync + 'static) -> Server {
    Server::start(|address| {
        move |asked: &str| {
            let challenge = format!("WWW-Authenticate: Bearer realm=\"http://{address}/token\",service=\"s t\"\r\n");
            match () {
                () if asked.contains(" /token") => give(asked),
                () if asked.contains("authorization: Bearer good") => answer("200 OK", "", "{}"),
                () => answer("401 Unauthorized", &challenge, ""),
            }
        }
    })
}

fn text(error: &Error) -> String {
    let text = error.chain();
    assert!(!text.contains("cret") && !text.contains("dXNl"), "I10: {text}");
    text
}

#[tokio::test]
async fn what_is_shown_stays_with_its_host() {
    let elsewhere = Server::start(|_| |_: &str| answer("200 OK", "", "{}"));
    let there = format!("Location: http://{}/elsewhere?signature=secret\r\n", elsewhere.address);
    let server = Server::start(|_| {
        move |asked: &str| match asked {
            _ if !asked.contains(BASIC) => answer("401 Unauthorized", "WWW-Authenticate: Basic realm=x\r\n", ""),
            _ if asked.contains("/moved") => answer("307 Temporary Redirect", &there, ""),
            _ => answer("302 Found", "Location: /v2/team/app/manifests/moved\r\n", ""),
        }
    });
    let repository = server.repository(password()).await;
    assert_eq!(repository.manifest("1").await.expect("it is elsewhere").0, b"{}");
    let seen = server.seen("GET /v2/team/app/");
    assert!(seen.len() == 2 && seen.iter().all(|asked| asked.contains(BASIC)), "{seen:?}");
    let seen = elsewhere.seen("GET /elsewhere");
    assert!(seen.len() == 1 && !seen[0].contains("authorization"), "{seen:?}");
    drop(repository.blob(&blob("sha256:moved", 2), 0).await.expect("it is elsewhere"));
    assert!(elsewhere.seen("GET").iter().all(|asked| !asked.contains("authorization")));
}

#[tokio::test]
async fn where_a_registry_sends_us_nobody_can_ask_for_its_credentials() {
    for auth in [password(), identity()] {
        let thief = Server::start(|address| {
            move |asked: &str| {
                let challenge = format!("WWW-Authenticate: Bearer realm=\"http://{address}/token\"\r\n");
                match asked.contains(" /token") {
                    true => answer("200 OK", "", r#"{"token": "good"}"#),
                    false => answer("401 Unauthorized", &challenge, ""),
                }
            }
        });
        let there = format!("Location: http://{}/elsewhere\r\n", thief.address);
        // The redirect answers the first request already, or that for a manifest.
        for first in [true, false] {
            let there = there.clone();
            let server = Server::start(|_| {
                move |asked: &str| match first || !asked.starts_with("GET /v2/ ") {
                    true => answer("307 Temporary Redirect", &there, ""),
                    false => answer("200 OK", "", "{}"),
                }
            });
            let error = server.repository(auth.clone()).await.manifest("1").await.expect_err("it is refused");
            assert_eq!(error.kind(), ErrorKind::Permission);
            assert!(text(&error).contains("sends us to http://127.0.0.1, which wants credentials"), "{}", text(&error));
            let asked = thief.seen("");
            let is_bare = |asked: &String| !asked.contains("/token") && !asked.contains("uthorization: ");
            assert!(!asked.is_empty() && asked.iter().all(is_bare), "{first}: {asked:?}");
        }
    }
}

#[tokio::test]
async fn an_identity_token_is_posted_and_goes_nowhere_else() {
    let server = with_tokens(|asked| {
        let form = "scope=repository%3Ateam%2Fapp%3Apull&service=s+t&grant_type=refresh_token&client_id=stanchion&\
                    refresh_token=se+cret";
        match asked.starts_with("POST") && asked.ends_with(form) {
            true => answer("200 OK", "", r#"{"access_token": "good", "expires_in": 300}"#),
            false => answer("401 Unauthorized", "", asked),
        }
    });
    server.repository(identity()).await.manifest("1").await.expect("its token is taken");
    let refused = server.repository(None).await.manifest("1").await.expect_err("nothing is shown");
    assert_eq!(refused.kind(), ErrorKind::Permission);
    let said = format!("registry {} wants other credentials (401); set username", server.address);
    assert!(text(&refused).starts_with(&said) && text(&refused).contains("identity_token, in [the settings]"));

    let elsewhere = Server::start(|_| |_: &str| answer("200 OK", "", r#"{"token": "good"}"#));
    let there = format!("Location: http://{}/token\r\n", elsewhere.address);
    let server = with_tokens(move |_| answer("307 Temporary Redirect", &there, ""));
    text(&server.repository(identity()).await.manifest("1").await.expect_err("it is not sent on"));
    assert!(elsewhere.seen("").is_empty(), "the token went elsewhere");

    let server = with_tokens(|asked| answer("400 Bad Request", "", asked));
    let refused = server.repository(identity()).await.manifest("1").await.expect_err("it is not taken");
    assert!(
        text(&refused).contains("does not accept the identity token (400); check identity_token in [the settings]")
    );
    assert_eq!(refused.kind(), ErrorKind::Permission);
    let basic = |_| |_: &str| answer("401 Unauthorized", "WWW-Authenticate: Basic realm=x\r\n", "");
    let refused = Server::start(basic).repository(identity()).await.manifest("1").await.expect_err("no token server");
    assert!(text(&refused).contains("set username and password in [the settings]"), "{}", text(&refused));
}

#[tokio::test]
async fn a_token_is_used_until_it_is_not_taken() {
    let given = Mutex::new(0);
    let server = with_tokens(move |asked| {
        let mut given = given.lock().expect("whole");
        *given += 1;
        let is_asked = "GET /token?scope=repository%3Ateam%2Fapp%3Apull&service=s+t HTTP";
        assert!(asked.starts_with(is_asked) && asked.contains(BASIC), "{asked}");
        let token = if *given == 1 { "bad" } else { "good" };
        answer("200 OK", "", &format!(r#"{{"token": "{token}", "expires_in": 300}}"#))
    });
    let clients = hosts::Clients::default();
    for _ in 0..2 {
        let repository = of(&clients, &server.address, password()).await;
        repository.manifest("1").await.expect("the second is taken");
        drop(repository.blob(&blob("sha256:0", 2), 0).await.expect("as for the manifest"));
    }
    assert_eq!((server.seen("GET /token").len(), server.seen("GET /v2/ ").len()), (2, 1));
    let asked = server.seen("GET /v2/team/app/");
    let good = asked.iter().filter(|asked| asked.contains("Bearer good")).count();
    assert_eq!((asked.len(), good), (5, 4), "{asked:?}");
}

#[tokio::test]
async fn a_blob_goes_on_in_the_middle_where_the_registry_can() {
    for (status, begins) in [("206 Partial Content", 3), ("200 OK", 0)] {
        let server = Server::start(|_| move |_: &str| answer(status, "", "defg"));
        let blob = blob("sha256:0", begins + 4);
        let (from, parts) = server.repository(None).await.blob(&blob, 3).await.expect("a blob");
        let bytes: Vec<_> = parts.try_collect().await.expect("bytes");
        assert_eq!((from, bytes.concat()), (begins, b"defg".to_vec()), "{status}");
        assert!(server.seen("GET /v2/team/app/blobs/sha256:0 ")[0].contains("range: bytes=3-\r\n"));
    }
}

#[tokio::test]
async fn a_blob_of_another_length_or_place_is_refused() {
    let range = "Content-Range: bytes 2-6/7\r\n";
    for (status, headers, size, said) in [
        ("200 OK", "", 5, "4 bytes, not the 5 that the manifest says"),
        ("200 OK", "", 3, "4 bytes, not the 3 that the manifest says"),
        ("206 Partial Content", "", 8, "4 bytes, not the 5 that the manifest says"),
        ("206 Partial Content", range, 7, "begins at byte 2, not 3"),
    ] {
        let server = Server::start(|_| move |_: &str| answer(status, headers, "defg"));
        let refused = server.repository(None).await.blob(&blob("sha256:0", size), 3).await.map(drop);
        let error = refused.expect_err(said);
        assert!(error.kind() == ErrorKind::Invalid && error.chain().contains(said), "{}", error.chain());
    }
}

#[tokio::test]
async fn credentials_of_a_registry_with_tls_go_to_no_server_without() {
    let server = with_tokens(|_| answer("200 OK", "", r#"{"token": "good"}"#));
    let realm = Url::parse(&format!("http://{}/token", server.address)).expect("an address");
    for auth in [password(), identity()] {
        let registries = BTreeMap::new();
        let endpoint = hosts::endpoints("registry.invalid", &registries).remove(0);
        let (client, sign_in) = hosts::Clients::default().of(&endpoint, auth.clone()).await.expect("a client");
        sign_in.learn(Some(Challenge::Bearer(TokenServer { realm: realm.clone(), service: String::new() })));
        let repository = Repository::new(&endpoint, "team/app", "[the settings]".to_owned(), (client, sign_in));
        let error = repository.expect("a repository").manifest("1").await.expect_err("it would be read");
        assert_eq!(error.kind(), ErrorKind::Permission);
        assert!(text(&error).contains("without TLS (http://127.0.0.1)") && text(&error).contains("[the settings]"));
        assert!(server.seen("").is_empty(), "credentials went there");
        // A registry that is itself reached without TLS gets them.
        server.repository(auth).await.manifest("1").await.ok();
        assert!(!server.seen("").is_empty());
        server.seen.lock().expect("whole").clear();
    }
}

#[tokio::test]
async fn documents_are_not_read_beyond_their_bounds() {
    let endless = |headers: &'static str| {
        let body = "x".repeat(shared::MANIFEST.size() + 2);
        Server::start(|_| move |_: &str| format!("HTTP/1.1 200 OK\r\nConnection: close\r\n{headers}\r\n{body}"))
    };
    for headers in ["", "Content-Length: 4194306\r\n"] {
        let error = endless(headers).repository(None).await.manifest("1").await.expect_err("too large");
        assert!(text(&error).contains("limit \"image manifest\""), "{}", text(&error));
    }
    let large = "x".repeat(limits::TOKEN.size() + 1);
    let server = with_tokens(move |_| answer("200 OK", "", &large));
    let error = server.repository(None).await.manifest("1").await.expect_err("no token");
    assert!(text(&error).contains("limit \"answer of a token server\""), "{}", text(&error));
    let page = "<p>".repeat(limits::REFUSAL.size());
    let server = Server::start(|_| move |_: &str| answer("418 I'm a teapot", "", &page));
    let error = text(&server.repository(None).await.manifest("1").await.expect_err("it refuses"));
    assert!(error.contains("answers 418") && error.len() < 600, "{error}");
}

#[tokio::test]
async fn a_manifest_is_what_was_asked_for_and_what_the_registry_says_it_is() {
    let body = r#"{"schemaVersion": 2}"#;
    let (right, wrong) = (digest(body.as_bytes()), format!("sha256:{}", "0".repeat(64)));
    let of = async |version: &str, said: &str| {
        let headers = format!("Docker-Content-Digest: {said}\r\n");
        let server = Server::start(|_| move |_: &str| answer("200 OK", &headers, body));
        let got = server.repository(None).await.manifest(version).await;
        let seen = server.seen("GET /v2/team/app/manifests/");
        assert!(seen[0].contains("accept: ") && seen[0].contains("docker.distribution.manifest.list.v2"), "{seen:?}");
        got.map(|(bytes, digest)| (String::from_utf8(bytes).expect("text"), digest))
    };
    for (version, said) in [("1", right.as_str()), (right.as_str(), right.as_str()), ("1", "md5:0"), (&*right, "")] {
        assert_eq!(of(version, said).await.expect("right"), (body.to_owned(), right.clone()), "{version} {said}");
    }
    for (version, said) in [("1", wrong.as_str()), (wrong.as_str(), wrong.as_str()), (&*wrong, ""), ("md5:0", "")] {
        let error = of(version, said).await.expect_err("another");
        assert!(error.kind() == ErrorKind::Invalid && error.chain().contains(&right), "{}", error.chain());
    }
}

#[tokio::test]
async fn refusals_have_a_kind_and_say_what_to_do() {
    let coded = |code: &str| format!(r#"{{"errors": [{{"code": "{code}", "message": "no"}}]}}"#);
    let nginx = "<html>\r\n<head><title>400 No required SSL certificate was sent</title></head>".to_owned();
    for (status, body, kind, said) in [
        ("401 Unauthorized", String::new(), ErrorKind::Permission, "set username and password"),
        ("403 Forbidden", coded("DENIED"), ErrorKind::Permission, "refuses (403); check the credentials"),
        ("404 Not Found", coded("MANIFEST_UNKNOWN"), ErrorKind::NotFound, "image team/app with 1 is not found"),
        ("429 Too Many Requests", String::new(), ErrorKind::Unavailable, "too many requests (429)"),
        ("503 Service Unavailable", "later\n".to_owned(), ErrorKind::Unavailable, "is in trouble (503): later"),
        ("400 Bad Request", coded("NAME_UNKNOWN"), ErrorKind::NotFound, "not found"),
        ("400 Bad Request", coded("DENIED"), ErrorKind::Permission, "refuses (400)"),
        ("400 Bad Request", nginx, ErrorKind::Permission, "set cert_file and key_file in [the settings]"),
        ("418 I'm a teapot", String::new(), ErrorKind::Other, "answers 418"),
    ] {
        let headers = "Retry-After: 7\r\n";
        let server = Server::start(|_| move |_: &str| answer(status, headers, &body));
        let error = server.repository(None).await.manifest("1").await.expect_err(status);
        let told = error.chain();
        assert!(told.contains(said) && told.contains(&format!("registry {}", server.address)), "{status}: {told}");
        let delay = status.starts_with("429").then_some(Duration::from_secs(7));
        assert_eq!((error.kind(), error.retry_delay()), (kind, delay), "{status}");
    }
    let circle = |_| |_: &str| answer("302 Found", "Location: /v2/\r\n", "");
    let error = Server::start(circle).repository(None).await.manifest("1").await.expect_err("no end");
    assert!(error.chain().contains("circle"), "{}", error.chain());
}

/// Blobs in memory, whole ones and parts.
#[derive(Default)]
struct Memory {
    whole: Mutex<BTreeMap<String, Vec<u8>>>,
    parts: Mutex<BTreeMap<String, Vec<u8>>>,
    room: u64,
}

impl Blobs for Memory {
    async fn has(&self, digest: &str) -> Result<bool> {
        Ok(self.whole.lock().expect("whole").contains_key(digest))
    }

    async fn check_room(&self, bytes: u64) -> Result<()> {
        if bytes <= self.room { Ok(()) } else { Err(Error::new(ErrorKind::Other, format!("no room for {bytes}"))) }
    }

    async fn written(&self, digest: &str) -> u64 {
        self.parts.lock().expect("whole").get(digest).map_or(0, |part| part.len() as u64)
    }

    async fn write(
        &self,
        blob: &Descriptor,
        offset: u64,
        parts: impl Stream<Item = Result<Bytes>> + Send + 'static,
    ) -> Result<()> {
        let mut bytes = self.parts.lock().expect("whole").remove(&blob.digest).unwrap_or_default();
        bytes.truncate(usize::try_from(offset).expect("it is small"));
        let written = parts.try_for_each(|part| {
            bytes.extend(part);
            std::future::ready(Ok(()))
        });
        let written = written.await;
        let is_right = written.is_ok() && has_digest(&bytes, &blob.digest) == Some(true);
        let place = if is_right { &self.whole } else { &self.parts };
        place.lock().expect("whole").insert(blob.digest.clone(), bytes);
        written.and(if is_right { Ok(()) } else { Err(Error::new(ErrorKind::Invalid, "another content")) })
    }

    async fn abort(&self, digest: &str) {
        self.parts.lock().expect("whole").remove(digest);
    }
}

#[tokio::test]
async fn what_is_missing_of_an_image_is_fetched_and_goes_on_where_it_broke_off() {
    let server = Server::start(|_| {
        |asked: &str| match asked {
            _ if asked.contains("range: bytes=4-") => answer("206 Partial Content", "", "half"),
            _ if asked.contains(&digest(b"one half")) => {
                "HTTP/1.1 200 OK\r\nContent-Length: 8\r\nConnection: close\r\n\r\none ".to_owned()
            }
            _ => answer("200 OK", "", "right"),
        }
    });
    let of = |content: &[u8]| blob(&digest(content), content.len() as u64);
    let memory = Memory { room: 13, ..Memory::default() };
    memory.whole.lock().expect("whole").insert(digest(b"here"), b"here".to_vec());
    let layers = vec![of(b"here"), of(b"one half"), of(b"here")];
    let manifest = Manifest { config: of(b"right"), layers, ..Manifest::default() };
    let repository = server.repository(None).await;
    let fetch = async |manifest: &Manifest| repository.fetch(manifest, &memory, &Progress::ignored()).await;
    fetch(&manifest).await.unwrap_or_else(|error| panic!("{}", error.chain()));
    let whole: Vec<_> = memory.whole.lock().expect("whole").values().map(Vec::len).collect();
    assert_eq!((whole.len(), whole.iter().sum::<usize>()), (3, 17));
    assert!(server.seen("GET /v2/team/app/blobs/").iter().all(|asked| !asked.contains(&digest(b"here"))));

    let wrong = Manifest { layers: vec![of(b"wrong")], ..manifest.clone() };
    assert_eq!(fetch(&wrong).await.expect_err("another content").kind(), ErrorKind::Invalid);
    assert!(memory.parts.lock().expect("whole").is_empty(), "the wrong content is left");
    let large = Manifest { layers: vec![of(b"more than there is room")], ..manifest.clone() };
    assert!(fetch(&large).await.expect_err("no room").chain().contains("no room for 23"));
    let config = blob(&digest(b"config"), shared::CONFIG.most + 1);
    let error = fetch(&Manifest { config, ..manifest }).await.expect_err("too large");
    assert!(error.chain().contains("limit \"image configuration\""), "{}", error.chain());
}
