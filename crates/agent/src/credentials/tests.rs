use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use rustix::process::{Pid, test_kill_process_group};
use tempfile::TempDir;

use super::{ProviderAnswer, Providers, settings};
use crate::config::CredentialProviders;

const IMAGE: &str = "r.example/team/app:1";

/// Creates a plugin that answers `answer`, and records its requests.
fn plugin(dir: &Path, name: &str, answer: &str) {
    let asked = dir.join(format!("{name}.asked"));
    let script = format!("#!/bin/sh\ncat >> {asked:?}; echo \" $* $VAR\" >> {asked:?}\ncat <<'END'\n{answer}\nEND\n");
    program(dir, name, &script);
}

fn program(dir: &Path, name: &str, script: &str) {
    let draft = dir.join(format!("{name}.draft"));
    fs::write(&draft, script).expect("written");
    fs::set_permissions(&draft, fs::Permissions::from_mode(0o755)).expect("set");
    fs::rename(&draft, dir.join(name)).expect("renamed");
}

fn answer(key: &str, more: &str, auth: &str) -> String {
    let head = "\"apiVersion\": \"credentialprovider.kubelet.k8s.io/v1\", \"kind\": \"CredentialProviderResponse\"";
    format!("{{{head}, \"cacheKeyType\": \"{key}\", {more} \"auth\": {auth}}}")
}

fn good(key: &str) -> String {
    answer(
        key,
        "",
        r#"{"*.example": {"username": "wide", "password": "hush"}, "r.example/team": {"username": "near", "password": "hush"}}"#,
    )
}

fn provider(name: &str, more: &str) -> String {
    format!(
        "- {{name: {name}, matchImages: ['*.example'], defaultCacheDuration: 10m, \
         apiVersion: credentialprovider.kubelet.k8s.io/v1{more}}}\n"
    )
}

/// Creates providers with these settings, and with programs in the same directory.
fn providers(dir: &Path, list: &str) -> Providers {
    let config = dir.join("providers.yaml");
    let text = format!("apiVersion: kubelet.config.k8s.io/v1\nkind: CredentialProviderConfig\nproviders:\n{list}");
    fs::write(&config, text).expect("written");
    Providers::new(Some(CredentialProviders { config, bin_dir: dir.to_owned() }))
}

fn dir() -> TempDir {
    TempDir::new().expect("a directory")
}

/// Returns the user names that each provider gave.
fn users(given: &[ProviderAnswer]) -> Vec<Vec<String>> {
    given.iter().map(|it| it.credentials.iter().flatten().map(|auth| auth.username.clone()).collect()).collect()
}

fn failure(given: &[ProviderAnswer]) -> String {
    given[0].credentials.as_ref().expect_err("it fails").to_string()
}

fn asked(dir: &Path, name: &str) -> Vec<String> {
    fs::read_to_string(dir.join(format!("{name}.asked"))).unwrap_or_default().lines().map(str::to_owned).collect()
}

// R-IMG-10
#[tokio::test]
async fn a_plugin_is_asked_in_kubelets_form_and_the_nearest_place_comes_first() {
    let dir = dir();
    plugin(dir.path(), "one", &good("Image"));
    plugin(dir.path(), "two", &good("Image"));
    plugin(dir.path(), "other", &good("Image"));
    let other = provider("other", "").replace("*.example", "other.test");
    let list = provider("one", ", args: [--get, now], env: [{name: VAR, value: set}]") + &other + &provider("two", "");
    let providers = providers(dir.path(), &list);
    let given = providers.credentials(IMAGE).await;
    assert_eq!(users(&given), [["near", "wide"], ["near", "wide"]], "R-IMG-10");
    let names: Vec<_> = given.iter().map(|it| it.provider.as_str()).collect();
    assert_eq!(names, ["one", "two"], "in the order of the file");
    let said = asked(dir.path(), "one").join("\n");
    let request: serde_json::Value =
        serde_json::from_str(said.split(" --get now set").next().expect("a part")).expect("JSON");
    assert_eq!(request["image"], "r.example/team/app", "R-IMG-10");
    assert_eq!(request["kind"], "CredentialProviderRequest");
    assert_eq!(request["apiVersion"], "credentialprovider.kubelet.k8s.io/v1");
    assert!(!format!("{given:?} {providers:?}").contains("hush"), "I10");
    assert!(asked(dir.path(), "other").is_empty());
}

// R-IMG-10
#[tokio::test]
async fn answers_are_kept_for_what_they_say_and_as_long_as_they_say() {
    for (key, more, images) in [
        ("Image", "", [1, 1, 2, 3]),
        ("Registry", "", [1, 1, 1, 2]),
        ("Global", "", [1, 1, 1, 1]),
        ("Global", "\"cacheDuration\": \"0s\",", [1, 2, 3, 4]),
    ] {
        let dir = dir();
        plugin(dir.path(), "one", &answer(key, more, "{}"));
        let providers = providers(dir.path(), &provider("one", ""));
        let asks = ["r.example/team/app:1", "r.example/team/app:2", "r.example/team/other:1", "s.example/team/app:1"];
        for (image, times) in asks.into_iter().zip(images) {
            assert_eq!(users(&providers.credentials(image).await), [Vec::<&str>::new()]);
            assert_eq!(asked(dir.path(), "one").len(), times, "R-IMG-10: {key} {more} {image}");
        }
    }
    let dir = dir();
    plugin(dir.path(), "one", &answer("Global", "\"cacheDuration\": \"300ms\",", "{}"));
    let providers = providers(dir.path(), &provider("one", ""));
    let both = tokio::join!(providers.credentials(IMAGE), providers.credentials(IMAGE));
    assert_eq!((both.0.len(), both.1.len(), asked(dir.path(), "one").len()), (1, 1, 1), "who waits is not in need");
    tokio::time::sleep(Duration::from_millis(400)).await;
    providers.credentials(IMAGE).await;
    assert_eq!(asked(dir.path(), "one").len(), 2, "R-IMG-10");
}

// R-IMG-10, I10
#[tokio::test]
async fn what_goes_wrong_is_told_without_what_was_answered() {
    let dir = dir();
    let wrong = [
        ("#!/bin/sh\necho hush; exit 3\n".to_owned(), "exit status: 3"),
        (
            "#!/bin/sh\nexec <&-; echo '{\"hush\": hush}'\n".to_owned(),
            "not a CredentialProviderResponse: Syntax at line 1",
        ),
        (format!("#!/bin/sh\necho '{}'\n", good("Hush")), "cacheKeyType must be"),
        (
            format!("#!/bin/sh\necho '{}'\n", good("Image").replace("/v1\"", "/v1beta1\"")),
            "of credentialprovider.kubelet.k8s.io/v1",
        ),
        (format!("#!/bin/sh\necho '{}'\n", answer("Image", "", "\"hush\"")), "not a CredentialProviderResponse: Data"),
        ("#!/bin/sh\nhead -c 2000000 /dev/zero\n".to_owned(), "more than 1048576 bytes"),
        ("#!/no/such/shell\n".to_owned(), "cannot be started"),
    ];
    for (script, said) in wrong {
        program(dir.path(), "one", &script);
        let given = providers(dir.path(), &provider("one", "")).credentials(IMAGE).await;
        assert!(failure(&given).contains(said), "R-IMG-10: {script}: {}", failure(&given));
        assert!(!failure(&given).contains("hush"), "I10: {}", failure(&given));
    }
}

// R-IMG-10
#[tokio::test]
async fn a_plugin_that_does_not_answer_is_ended_after_a_minute() {
    let dir = dir();
    let path = dir.path().join("pid");
    program(dir.path(), "one", &format!("#!/bin/sh\necho $$ > {path:?}\nsleep 1000\n"));
    let providers = providers(dir.path(), &provider("one", ""));
    let pass = async {
        let pid = || fs::read_to_string(&path).ok()?.trim().parse().ok().and_then(Pid::from_raw);
        let pid = loop {
            match pid() {
                Some(pid) => break pid,
                None => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        };
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(61)).await;
        pid
    };
    let (given, pid) = tokio::join!(providers.credentials(IMAGE), pass);
    assert!(failure(&given).contains("within 60 s"), "R-IMG-10: {}", failure(&given));
    tokio::time::resume();
    let gone = async {
        while test_kill_process_group(pid).is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.expect("what it started goes with it");
}

// R-IMG-10
#[tokio::test]
async fn a_provider_that_is_wrong_is_named_and_the_others_are_used() {
    let dir = dir();
    plugin(dir.path(), "good", &good("Global"));
    for (wrong, said) in [
        (provider("../up", ""), "without directories"),
        (provider("one", "").replace("['*.example']", "[]"), "one has no matchImages"),
        (provider("one", "").replace("*.example", "https://r.example"), "without a scheme"),
        (provider("one", "").replace("10m", "often"), "defaultCacheDuration \"often\""),
        (provider("one", "").replace("defaultCacheDuration: 10m, ", ""), "has no defaultCacheDuration"),
        (provider("one", "").replace("kubelet.k8s.io/v1", "kubelet.k8s.io/v7"), "must be credentialprovider"),
        (provider("one", ", tokenAttributes: {requireServiceAccount: true}"), "only an API server gives"),
        (provider("one", ", arguments: []"), "unknown field `arguments`"),
        (provider("good", ""), "two providers named \"good\""),
        (provider("absent", ""), "there is no program"),
    ] {
        let providers = providers(dir.path(), &(provider("good", "") + &wrong));
        let (path, problems) = providers.check().await.expect("there are settings");
        assert!(path.ends_with("providers.yaml"));
        assert!(problems.len() == 1 && problems[0].to_string().contains(said), "R-IMG-10: {said}: {problems:?}");
        assert_eq!(users(&providers.credentials(IMAGE).await)[0], ["near", "wide"], "{wrong}");
    }
    for text in [
        "",
        "a: [",
        "apiVersion: v1\nkind: Pod",
        "apiVersion: kubelet.config.k8s.io/v1\nkind: CredentialProviderConfig",
    ] {
        let path = dir.path().join("other.json");
        fs::write(&path, text).expect("written");
        let settings = settings::read(&path);
        assert!(settings.providers.is_empty() && settings.problems.len() == 1, "{text}: {settings:?}");
    }
    let absent = settings::read(&dir.path().join("none.yaml"));
    assert!(absent.problems[0].to_string().contains("none.yaml cannot be read"), "{absent:?}");
}

// R-IMG-10
#[test]
fn a_directory_of_settings_is_one_in_the_order_of_names() {
    let dir = dir();
    for (file, name) in [("20.yml", "b"), ("10.json", "a"), ("30.txt", "c")] {
        let json = format!(
            "{{\"apiVersion\": \"kubelet.config.k8s.io/v1\", \"kind\": \"CredentialProviderConfig\", \"providers\": [{{\"name\": \"{name}\", \
             \"matchImages\": [\"*.example\"], \"defaultCacheDuration\": \"12h0m0s\", \
             \"apiVersion\": \"credentialprovider.kubelet.k8s.io/v1\"}}]}}"
        );
        fs::write(dir.path().join(file), json).expect("written");
    }
    let settings = settings::read(dir.path());
    let names: Vec<_> = settings.providers.iter().map(|it| it.name.as_str()).collect();
    assert_eq!((names, settings.problems.len()), (vec!["a", "b"], 0));
    assert_eq!(settings.providers[0].cache_duration, Duration::from_secs(12 * 3600));
}
