//! Tests of URL sources against servers on the loopback.

#![allow(clippy::disallowed_methods, reason = "a test measures")]

use std::{fs, net::Ipv4Addr, os::unix::fs::PermissionsExt, path::Path, sync::Arc, time::Duration};

use hyper::{
    HeaderMap,
    header::{HeaderName, HeaderValue},
};
use jiff::Timestamp;
use stanchion_board::{Board, EventLog, view::NodeView};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::mpsc, task::JoinSet};
use tokio_rustls::rustls::RootCertStore;
use tokio_util::sync::CancellationToken;

use super::{
    any::Source,
    fetch::{Fetcher, PollResult},
    get::{self, Client},
    merge::Merge,
    page::Page,
    reader::Reader,
};
use crate::{
    config::{FileSource, UrlSource},
    contact::server::Server,
};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: ";

fn ok(body: &str) -> String {
    format!("{OK}{}\r\n\r\n{body}", body.len())
}

fn status(status: &str, headers: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n{headers}\r\n")
}

fn pod(name: &str, image: &str) -> String {
    let spec = format!("spec: {{containers: [{{name: app, image: \"{image}\"}}]}}");
    format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\n{spec}\n")
}

/// A certificate signed by `ca.der`, and its key.
const CERTIFICATE: (&[u8], &[u8]) = (include_bytes!("testdata/cert.der"), include_bytes!("testdata/key.der"));

const SECRET: &str = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {a: b}\n";

fn source(url: &str) -> UrlSource {
    UrlSource {
        url: url.parse().expect("it is a URL"),
        interval: Duration::from_millis(5),
        headers: HeaderMap::new(),
        headers_file: None,
        allow_empty: false,
    }
}

fn fetcher(source: &UrlSource) -> Fetcher {
    Fetcher::new(source.clone(), 0, mpsc::channel(1).0)
}

async fn get(source: &UrlSource) -> Result<get::Fetched, String> {
    Client::new(source.clone()).get(None).await.map_err(|error| error.to_string())
}

fn body(content: &str, is_private: bool) -> PollResult {
    PollResult::Body { content: content.into(), is_private }
}

#[tokio::test]
async fn a_server_is_asked_at_once_and_again_and_again() {
    let server = Server::start(vec![ok("a"), ok("b"), status("500 Internal Server Error", "")]).await;
    let (send, mut results) = mpsc::channel(1);
    let (mut tasks, shutdown) = (JoinSet::new(), CancellationToken::new());
    tasks.spawn(Fetcher::new(source(&server.url("/")), 7, send).run(shutdown.clone()));
    assert_eq!(results.recv().await, Some((7, body("a", false))), "R-HTTP-1");
    assert_eq!(results.recv().await, Some((7, body("b", false))), "R-HTTP-1");
    assert!(matches!(results.recv().await, Some((7, PollResult::Failed { .. }))), "R-HTTP-3");
    shutdown.cancel();
    tasks.join_all().await;
}

#[tokio::test]
async fn configured_headers_stand_instead_of_the_others() {
    let dir = TempDir::new().expect("a directory");
    let file = dir.path().join("headers");
    fs::write(&file, "Authorization: Bearer hush\n\nX-Three: c\n").expect("it can be written");
    let server = Server::start(vec![ok("a")]).await;
    let mut source = source(&server.url("/pods?key=hush"));
    get(&source).await.expect("it answers");
    source.headers.append("x-two", HeaderValue::from_static("a"));
    source.headers.append("x-two", HeaderValue::from_static("b"));
    source.headers_file = Some(file.clone());
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("it is ours");
    let error = get(&source).await.expect_err("others can read it");
    assert!(error.contains("its mode is 0644") && !error.contains("hush"), "I10: {error}");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("it is ours");
    get(&source).await.expect("it answers");
    fs::write(&file, "Bearer hush").expect("it can be written");
    let error = get(&source).await.expect_err("it is no header");
    assert!(error.contains("line 1") && !error.contains("hush"), "I10: {error}");

    let requests = server.requests();
    assert!(requests[0].starts_with("get /pods?key=hush http/1.1\r\n"), "{requests:?}");
    assert!(requests[0].contains("user-agent: stanchion/") && requests[0].contains("accept: */*"), "{requests:?}");
    for sent in ["authorization: bearer hush", "x-two: a", "x-two: b", "x-three: c", "host: 127.0.0.1:"] {
        assert!(requests[1].contains(sent), "R-HTTP-2: {sent}: {requests:?}");
    }
    assert!(!requests[1].contains("user-agent") && !requests[1].contains("accept"), "R-HTTP-2: {requests:?}");
}

#[tokio::test]
async fn what_has_not_changed_is_no_news() {
    let named = |body: &str| ok(body).replace("\r\n\r\n", "\r\nETag: \"1\"\r\n\r\n");
    let same = status("304 Not Modified", "");
    let answers = vec![same.clone(), named("a"), same, ok("a"), status("404 Not Found", ""), ok("a"), ok("b")];
    let server = Server::start(answers).await;
    let mut fetcher = fetcher(&source(&server.url("/")));
    let mut results = Vec::new();
    for _ in 0..4 {
        results.push(fetcher.poll().await);
    }
    assert!(matches!(results[0], Some(PollResult::Failed { .. })), "what nobody has is not the same: {results:?}");
    assert_eq!(results[1..], [Some(body("a", false)), None, None], "R-HTTP-5");
    assert!(matches!(fetcher.poll().await, Some(PollResult::Failed { .. })), "R-HTTP-3");
    assert_eq!(fetcher.poll().await, Some(PollResult::Back), "R-HTTP-5");
    assert_eq!(fetcher.poll().await, Some(body("b", false)));
    let asked: Vec<_> = server.requests().iter().map(|it| it.contains("if-none-match: \"1\"")).collect();
    // The fourth answer had the same body, but no ETag.
    assert_eq!(asked, [false, false, true, true, false, false, false], "R-GAP-33");
}

#[tokio::test]
async fn all_but_a_body_is_a_failure_with_its_reason() {
    let big = ok(&"#".repeat(10 << 20));
    for (answer, said) in [
        (status("404 Not Found", ""), "404 Not Found"),
        (status("204 No Content", ""), "204 No Content"),
        (status("503 Service Unavailable", ""), "503 Service Unavailable"),
        (ok(""), "the answer is empty"),
        (ok("\r\n"), "the answer is empty"),
        (big, "must be smaller than 10 MiB"),
        (format!("{OK}10\r\n\r\nkind"), "error reading a body"),
        ("garbage\r\n\r\n".to_owned(), "invalid HTTP"),
    ] {
        let server = Server::start(vec![answer]).await;
        let url = server.url("/pods?key=hush");
        let Some(PollResult::Failed { error, is_quiet }) = fetcher(&source(&url)).poll().await else {
            panic!("{said}")
        };
        let begin = server.url("/pods?…: ");
        assert!(error.starts_with(&begin) && error.contains(said), "R-HTTP-3, R-HTTP-4, R-FILE-12: {error}");
        assert!(!is_quiet && !error.contains("hush"), "I10: {error}");
    }
    let server = Server::start(vec![ok("")]).await;
    let allowed = UrlSource { allow_empty: true, ..source(&server.url("/")) };
    assert_eq!(fetcher(&allowed).poll().await, Some(body("", false)), "R-HTTP-4");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port is free");
    let nobody = source(&format!("http://{}/", listener.local_addr().expect("it has an address")));
    drop(listener);
    let error = get(&nobody).await.expect_err("nobody is there");
    assert!(error.contains("connection refused"), "R-HTTP-3: {error}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_silent_has_ten_seconds() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port is free");
    let url = format!("http://{}/", listener.local_addr().expect("it has an address"));
    let begin = tokio::time::Instant::now();
    let error = get(&source(&url)).await.expect_err("it is silent");
    assert!(error.ends_with("no answer within 10 s"), "R-HTTP-1: {error}");
    assert_eq!(begin.elapsed().as_secs(), 10, "R-HTTP-1");
}

#[tokio::test]
async fn repeated_failures_are_quiet_until_the_server_is_back() {
    let gone = || status("404 Not Found", "");
    let answers = vec![gone(), gone(), gone(), status("503 Service Unavailable", ""), ok("a"), gone()];
    let server = Server::start(answers).await;
    let mut fetcher = fetcher(&source(&server.url("/")));
    let mut quiet = Vec::new();
    for _ in 0..6 {
        quiet.push(match fetcher.poll().await {
            Some(PollResult::Failed { is_quiet, .. }) => Some(is_quiet),
            _ => None,
        });
    }
    assert_eq!(quiet, [Some(false), None, None, Some(true), None, Some(false)], "R-HTTP-7");
}

#[tokio::test]
async fn redirects_are_followed_and_headers_stay_with_their_server() {
    let there = Server::start(vec![ok("there")]).await;
    let away = status("307 Temporary Redirect", &format!("Location: {}\r\n", there.url("/x")));
    let here = Server::start(vec![status("302 Found", "Location: /next\r\n"), away]).await;
    let mut source = source(&here.url("/"));
    source.headers.append("authorization", HeaderValue::from_static("Bearer hush"));
    let page = get(&source).await.expect("it answers");
    assert!(matches!(page, get::Fetched::Body { content, .. } if content == "there"), "R-HTTP-9");
    assert!(here.requests()[1].starts_with("get /next ") && here.requests()[1].contains("hush"), "R-HTTP-9");
    assert!(!there.requests()[0].contains("hush"), "I10: {:?}", there.requests());
    let endless = Server::start(vec![status("301 Moved Permanently", "Location: /\r\n")]).await;
    let error = get(&self::source(&endless.url("/"))).await.expect_err("it never ends");
    assert!(error.ends_with("stopped after 10 redirects") && endless.requests().len() == 11, "R-HTTP-9: {error}");
}

#[tokio::test]
async fn https_is_believed_only_from_whom_the_roots_vouch_for() {
    let mut roots = RootCertStore::empty();
    roots.add(include_bytes!("testdata/ca.der")[..].into()).expect("it is a certificate");
    let server = Server::secured(vec![ok("a")], CERTIFICATE).await;
    let source = |server: &Server| source(&format!("https://127.0.0.1:{}/", server.port));
    // A client without roots, and one with the system's.
    let strangers = [Client::new(source(&server)).trusting(RootCertStore::empty()), Client::new(source(&server))];
    for mut client in strangers {
        let error = client.get(None).await.expect_err("it is unknown").to_string();
        assert!(error.contains("certificate"), "R-HTTP-9: {error}");
    }
    assert_eq!(server.requests(), [""; 0], "R-HTTP-9");
    let mut client = Client::new(source(&server)).trusting(roots.clone());
    let page = client.get(None).await.expect("it is known");
    assert!(matches!(page, get::Fetched::Body { content, is_private: true, .. } if content == "a"), "R-HTTP-9");

    let plain = Server::start(vec![ok("b")]).await;
    let server =
        Server::secured(vec![status("302 Found", &format!("Location: {}\r\n", plain.url("/")))], CERTIFICATE).await;
    let error =
        Client::new(source(&server)).trusting(roots).get(None).await.expect_err("it leads out of https").to_string();
    assert!(error.contains("from https to http") && plain.requests().is_empty(), "{error}");
}

fn page(state: &Path, url: &str) -> Page {
    Page::new(&source(url), "node", state)
}

fn applied(page: &mut Page, result: PollResult) {
    page.apply(result);
    page.read();
    page.keep();
}

fn failed() -> PollResult {
    PollResult::Failed { error: "http://a/: 404 Not Found".to_owned(), is_quiet: false }
}

fn names(page: &Page) -> Vec<String> {
    page.manifest().into_iter().flat_map(|manifest| &manifest.pods).map(|pod| pod.key.name.clone()).collect()
}

#[test]
fn a_body_is_in_force_as_a_whole_or_not_at_all() {
    let state = TempDir::new().expect("a directory");
    let mut page = page(state.path(), "http://a/");
    assert!(page.manifest().is_none() && !page.is_known(), "R-SRC-4");
    applied(&mut page, body("kind: 1", false));
    assert!(!page.is_known() && !page.manifest().expect("it is shown").problems.is_empty(), "R-SRC-4, R-HTTP-6");
    let one = r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}"#;
    let item = "{metadata: {name: b}, spec: {containers: [{name: c, image: i}]}}";
    let list = format!("apiVersion: v1\nkind: PodList\nitems:\n- {item}\n");
    let several = format!("{}---\n{}", pod("a", "i"), pod("c", "i"));
    for (content, pods) in [(one, vec!["a-node"]), (&list, vec!["b-node"]), (&several, vec!["a-node", "c-node"])] {
        applied(&mut page, body(content, false));
        assert_eq!(names(&page), pods, "R-HTTP-6");
    }
    for broken in
        [format!("{list}- {{metadata: {{name: B}}}}\n"), "{".to_owned(), "<html>".to_owned(), "kind: List\n".to_owned()]
    {
        applied(&mut page, body(&broken, false));
        let manifest = page.manifest().expect("it is shown");
        assert!(manifest.problems.iter().any(|it| !it.message.is_empty()), "R-HTTP-6: {broken}");
        assert_eq!(names(&page), ["a-node", "c-node"], "R-HTTP-6: {broken}");
    }
    applied(&mut page, failed());
    assert_eq!((page.error().is_some(), names(&page).len()), (true, 2), "R-HTTP-3");
    applied(&mut page, body("apiVersion: v1\nkind: PodList\nitems: []\n", false));
    assert_eq!((page.error(), names(&page), page.is_known()), (None, Vec::new(), true), "R-SRC-3");
}

#[test]
fn pods_of_a_url_say_so_and_tolerate_what_they_say() {
    let state = TempDir::new().expect("a directory");
    let mut page = page(state.path(), "http://a/");
    applied(&mut page, body(&pod("a", "i"), false));
    let pod = &page.manifest().expect("it is known").pods[0];
    assert_eq!(pod.annotations["kubernetes.io/config.source"], "http", "R-ID-8");
    assert_eq!(pod.wire.spec.as_ref().and_then(|spec| spec.tolerations.clone()).unwrap_or_default(), [], "R-HTTP-8");
}

#[test]
fn the_last_good_body_outlives_the_agent() {
    let state = TempDir::new().expect("a directory");
    let url = "http://a/pods?node=1";
    let mut first = page(state.path(), url);
    applied(&mut first, body(&pod("a", "i"), false));
    applied(&mut first, body("kind: [", false));
    let mut second = page(state.path(), url);
    assert!(second.is_known() && second.error().is_none(), "R-GAP-33");
    assert_eq!(names(&second), ["a-node"], "R-GAP-33");
    applied(&mut second, failed());
    assert_eq!(names(&second), ["a-node"], "R-GAP-33");
    assert!(!page(state.path(), "http://a/pods?node=2").is_known(), "it is another's");
    applied(&mut second, body("apiVersion: v1\nkind: List\nitems: []\n", false));
    let third = page(state.path(), url);
    assert!(third.is_known() && names(&third).is_empty(), "R-GAP-33: none is remembered too");
    let allowed = UrlSource { allow_empty: true, ..source(url) };
    applied(&mut Page::new(&allowed, "node", state.path()), body("", false));
    let fourth = Page::new(&allowed, "node", state.path());
    assert!(fourth.is_known() && names(&fourth).is_empty(), "R-HTTP-4");
}

#[test]
fn secrets_come_over_https_only() {
    let state = TempDir::new().expect("a directory");
    let mut page = page(state.path(), "https://a/");
    let objects = |page: &Page| page.manifest().map_or(0, |manifest| manifest.objects.len());
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\ndata: {a: b}\n";
    applied(&mut page, body(map, false));
    assert_eq!(objects(&page), 1);
    applied(&mut page, body(&format!("{map}---\n{SECRET}"), false));
    let problem = page.manifest().expect("it is shown").problems[0].message.clone();
    assert!(objects(&page) == 1 && problem.contains("serve it over https"), "I10: {problem}");
    applied(&mut page, body(&format!("{map}---\n{SECRET}"), true));
    assert_eq!(objects(&page), 2);
    assert_eq!(objects(&self::page(state.path(), "https://a/")), 2, "R-GAP-33");
    let kept = fs::read_dir(state.path().join("manifests")).expect("something is kept").flatten();
    for entry in kept.flat_map(|source| fs::read_dir(source.path()).expect("it can be read")).flatten() {
        assert_eq!(entry.metadata().expect("it is there").permissions().mode() & 0o777, 0o600, "I10");
    }
}

#[test]
fn files_and_urls_are_united_when_all_have_spoken() {
    let state = TempDir::new().expect("a directory");
    let manifests = TempDir::new().expect("a directory");
    fs::write(manifests.path().join("a.yaml"), pod("a", "file")).expect("it can be written");
    let files = FileSource { path: manifests.path().to_owned(), kubelet: None };
    let mut reader = Reader::new(&files, "node", state.path());
    reader.read(&std::collections::HashSet::new());
    let mut sources = [Source::Files(reader), Source::Page(page(state.path(), "http://a/"))];
    let (board, events) =
        (Arc::new(Board::new(NodeView::default(), 0)), Arc::new(EventLog::new(|| Timestamp::UNIX_EPOCH)));
    let mut merge = Merge::new(Arc::clone(&board), Arc::clone(&events));
    let mut merged = |sources: &mut [Source; 2], result: Option<PollResult>| {
        if let (Source::Page(page), Some(result)) = (&mut sources[1], result) {
            page.apply(result);
            page.read();
        }
        merge.merge(sources, None)
    };
    let warnings = || {
        let all = events.all();
        all.iter().filter(|event| event.reason == "ManifestInvalid").map(|event| event.count).sum::<u32>()
    };
    let desired = merged(&mut sources, None);
    assert_eq!((desired.pods.len(), desired.complete), (1, false), "R-SRC-4");
    let desired = merged(&mut sources, Some(failed()));
    assert_eq!((desired.pods.len(), desired.complete, warnings()), (1, false, 1), "R-SRC-4, R-HTTP-3");
    let desired = merged(&mut sources, Some(body(&format!("{}---\n{}", pod("a", "url"), pod("b", "url")), false)));
    assert!(desired.complete && desired.pods.len() == 2, "R-SRC-1");
    let images: Vec<_> = desired.pods.values().map(|it| it.pod.containers[0].image.clone()).collect();
    assert_eq!(images, ["file", "url"], "R-SRC-1, R-MRG-2: the first source wins");
    let problem = board.sources()[1].manifests[0].problems[0].to_string();
    assert!(problem.contains("a.yaml"), "R-MRG-2: {problem}");

    let before = warnings();
    let desired = merged(&mut sources, Some(failed()));
    assert!(desired.complete && desired.pods.len() == 2, "R-HTTP-3");
    let stale: Vec<_> = desired.pods.values().map(|it| it.stale.as_deref().unwrap_or_default().to_owned()).collect();
    assert_eq!(stale, ["", "http://a/: 404 Not Found"], "R-HTTP-3");
    assert_eq!(warnings(), before + 1);
    merged(&mut sources, Some(PollResult::Failed { error: "http://a/: other words".to_owned(), is_quiet: true }));
    assert_eq!(board.sources()[1].error.as_deref(), Some("http://a/: other words"));
    assert_eq!(warnings(), before + 1, "R-HTTP-7");
    merged(&mut sources, Some(PollResult::Back));
    let is_said = events.all().iter().any(|event| event.reason == "ManifestValid");
    assert!(!is_said, "one of its pods is still another source's");
}

#[test]
fn what_is_configured_is_never_shown() {
    let mut source = source("http://a/?key=hush");
    let mut value = HeaderValue::from_static("Bearer hush");
    value.set_sensitive(true);
    source.headers.append(HeaderName::from_static("authorization"), value);
    assert!(!format!("{source:?} {}", fetcher(&source).name()).contains("hush"), "I10");
}
