//! Registries that refuse requests, break connections, or send wrong data.

use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use stanchion_tests::{
    Backend, Node,
    authority::Authority,
    pods,
    proxy::{Fault, Proxy},
    registry::Registry,
};

stanchion_tests::on_each_runtime! {
    missing_credentials_are_named_with_the_place_to_give_them,
    credentials_of_the_configuration_are_used,
    an_identity_token_of_the_configuration_is_used,
    an_identity_token_of_a_pull_secret_is_used,
    a_layer_that_is_too_short_is_named,
    a_layer_with_another_digest_is_named,
    a_manifest_that_cannot_be_read_is_named,
    a_registry_in_trouble_is_named,
    a_broken_transfer_goes_on_where_it_broke_off,
}

/// Part of the path of every layer and image configuration, and of every manifest.
const BLOBS: &str = "/blobs/";
const MANIFESTS: &str = "/manifests/";
const ALWAYS: u32 = u32::MAX;

fn proxy(node: &Node) -> Result<&Proxy> {
    node.proxy.as_ref().context("the node has a proxy")
}

/// Returns a pod whose image names the registry by address: when a mirror fails, Docker asks the real registry.
fn of_registry(node: &Node, pod: &str, image: &str) -> Result<String> {
    let image = format!("image: {}", node.in_registry(image)?);
    Ok(pods::idle(pod, "1").replace("image: busybox", &image))
}

/// Checks that a pod whose pull fails reports all of `words`, that another pod is not touched, and that nothing
/// half-made is left; then that the pod runs once the fault is healed.
fn held_up(on: Backend, fault: Fault, path: &'static str, words: &[&str]) -> Result<()> {
    Node::builder().on(on).proxied().run(|node| {
        node.write("good.yaml", pods::idle("good", "1"))?;
        node.await_running("good")?;
        let before = (node.container("good")?.identity(), node.agent.id());
        proxy(node)?.fault(path, ALWAYS, fault);
        node.write("bad.yaml", of_registry(node, "bad", "redis:7")?)?;
        let words = [&["redis:7", "ErrImagePull"], words].concat();
        node.await_said(&["describe", "pod", "bad-node-1"], &words)?;
        node.await_nothing_half_made()?;
        ensure!((node.container("good")?.identity(), node.agent.id()) == before, "another pod was touched");
        proxy(node)?.heal();
        // Such a failure has the long back-off; `restart` cuts it short.
        node.agent.text(&["restart", "bad-node-1"])?;
        node.await_running("bad").map(drop)
    })
}

fn missing_credentials_are_named_with_the_place_to_give_them(on: Backend) -> Result<()> {
    let place = format!("[backend.{}.registry.\"127.0.0.1:", on.name());
    held_up(on, Fault::Login, "/v2/", &["username and password", &place])
}

fn credentials_of_the_configuration_are_used(on: Backend) -> Result<()> {
    Node::builder().on(on).proxied().credentials("user", "secret").run(|node| {
        proxy(node)?.fault("/v2/", ALWAYS, Fault::Login);
        node.write("pod.yaml", of_registry(node, "pod", "busybox")?)?;
        node.await_running("pod")?;
        let said = [node.agent.log_text()?, node.said(&["describe", "pod", "pod-node-1"])?, node.said(&["backends"])?];
        ensure!(said.iter().all(|text| !text.contains("secret")), "the password is shown (I10)");
        Ok(())
    })
}

/// Appends text to the configuration.
fn configure(node: &Node, table: &str) -> Result<()> {
    let path = node.path("stanchion.toml");
    let text = fs::read_to_string(&path)?;
    fs::write(&path, format!("{text}\n{table}")).context("cannot write the configuration")
}

/// Checks that log, `describe` and events do not contain the token (I10).
fn ensure_not_shown(node: &Node) -> Result<()> {
    let said = [node.agent.log_text()?, node.said(&["describe", "pod", "pod-node-1"])?, node.said(&["get", "events"])?];
    ensure!(said.iter().all(|text| !text.contains("secret")), "the token is shown: {said:?}");
    Ok(())
}

fn an_identity_token_of_the_configuration_is_used(on: Backend) -> Result<()> {
    let mut node = Node::builder().on(on).proxied().without_agent()?;
    proxy(&node)?.fault("/", ALWAYS, Fault::Identity);
    let table = format!("[backend.{}.registry.{:?}]", on.name(), proxy(&node)?.address());

    println!("without it");
    node.agent.start()?;
    node.write("pod.yaml", of_registry(&node, "pod", "busybox")?)?;
    node.await_said(&["describe", "pod", "pod-node-1"], &["ErrImagePull", "identity_token", &table])?;
    node.agent.stop()?;

    println!("with it");
    configure(&node, &format!("{table}\nidentity_token = \"secret\"\n"))?;
    node.agent.start()?;
    node.await_running("pod")?;
    ensure_not_shown(&node)
}

/// R-IMG-9
fn an_identity_token_of_a_pull_secret_is_used(on: Backend) -> Result<()> {
    Node::builder().on(on).proxied().run(|node| {
        proxy(node)?.fault("/", ALWAYS, Fault::Identity);
        let address = proxy(node)?.address();
        let config = json!({ "auths": { address: { "auth": "MDAwMDow", "identitytoken": "secret" } } }).to_string();
        let data = json!({ ".dockerconfigjson": config });
        let kind = "kubernetes.io/dockerconfigjson";
        let secret = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "login" }, "type": kind, "stringData": data });
        let draft = node.path("login.yaml");
        fs::write(&draft, secret.to_string())?;
        fs::set_permissions(&draft, fs::Permissions::from_mode(0o600))?;
        fs::rename(&draft, node.manifest("login.yaml"))?;
        let pod = of_registry(node, "pod", "busybox")?;
        node.write("pod.yaml", pod.replace("spec:\n", "spec:\n  imagePullSecrets: [{name: login}]\n"))?;
        node.await_running("pod")?;
        ensure_not_shown(node)
    })
}

/// Runs on containerd only: Docker reads client certificates from a directory of its own.
#[test]
fn a_client_certificate_is_shown_to_a_registry_that_wants_one() -> Result<()> {
    let mut node = Node::builder().on(Backend::Containerd).without_agent()?;
    let dir = node.path("known");
    let authority = Authority::new(&dir)?;
    let storage = node.fixtures.as_ref().context("a node with fixtures")?.registry();
    let registry = Registry::start_for_known(&dir, &storage, &authority)?;
    let (address, client) = (registry.address(), authority.issue("client")?);
    let pod = format!("image: {address}/library/busybox:latest");
    node.write("pod.yaml", pods::idle("pod", "1").replace("image: busybox", &pod))?;
    let describe = ["describe", "pod", "pod-node-1"];

    println!("without one");
    let table = format!("[backend.containerd.registry.{address:?}]");
    configure(&node, &format!("{table}\nca_file = {:?}\n", authority.certificate()))?;
    node.agent.start()?;
    let wanted = format!("registry {address} wants a client certificate; set cert_file and key_file in {table}");
    node.await_said(&describe, &["ErrImagePull", &wanted])?;
    node.agent.stop()?;

    println!("with a key that is not there yet");
    configure(&node, &format!("cert_file = {:?}\nkey_file = {:?}\n", client.certificate, dir.join("late.key")))?;
    node.agent.start()?;
    node.await_said(&describe, &["ErrImagePull", &table, "key_file", "late.key", "No such file"])?;

    println!("with it");
    fs::rename(&client.key, dir.join("late.key"))?;
    node.agent.text(&["restart", "pod-node-1"])?;
    node.await_running("pod")?;
    node.remove("pod.yaml")?;
    node.await_gone("pod")?;
    node.agent.stop()?;

    println!("with it, whoever the registry may be");
    let config = node.path("stanchion.toml");
    let text = fs::read_to_string(&config)?;
    let trust = format!("ca_file = {:?}\n", authority.certificate());
    ensure!(text.contains(&trust), "{text}");
    fs::write(&config, text.replace(&trust, "insecure_skip_verify = true\n"))?;
    node.agent.start()?;
    let image = format!("image: {address}/library/redis:7");
    node.write("other.yaml", pods::idle("other", "1").replace("image: busybox", &image))?;
    node.await_running("other").map(drop)
}

fn a_layer_that_is_too_short_is_named(on: Backend) -> Result<()> {
    held_up(on, Fault::Truncate(1000), BLOBS, &["sha256:"])
}

fn a_layer_with_another_digest_is_named(on: Backend) -> Result<()> {
    held_up(on, Fault::Falsify, BLOBS, &["sha256:"])
}

fn a_manifest_that_cannot_be_read_is_named(on: Backend) -> Result<()> {
    held_up(on, Fault::Truncate(100), MANIFESTS, &["manifest"])
}

fn a_registry_in_trouble_is_named(on: Backend) -> Result<()> {
    held_up(
        on,
        Fault::Refuse { status: "503 Service Unavailable", header: "X-Test: 1" },
        "/v2/",
        &["127.0.0.1:", "503"],
    )
}

/// Runs on containerd only: Docker retries by itself and does not report `Retry-After`
/// (plugins/docker/tests/registries.rs).
#[test]
fn too_many_requests_are_asked_again_when_the_registry_wants() -> Result<()> {
    Node::builder().on(Backend::Containerd).proxied().run(|node| {
        let refuse = Fault::Refuse { status: "429 Too Many Requests", header: "Retry-After: 7" };
        proxy(node)?.fault(MANIFESTS, 1, refuse);
        node.write("pod.yaml", of_registry(node, "pod", "busybox")?)?;
        node.await_said(&["describe", "pod", "pod-node-1"], &["(429)", "Next Try"])?;
        node.await_running("pod")?;
        let seen = proxy(node)?.seen(MANIFESTS);
        let asked: Vec<_> = seen.iter().filter(|seen| seen.head.starts_with("GET")).collect();
        let waited = asked[1].at - asked[0].at;
        ensure!(waited >= Duration::from_secs(6), "asked again after {waited:?}, not after the 7 s that it wants");
        Ok(())
    })
}

fn a_broken_transfer_goes_on_where_it_broke_off(on: Backend) -> Result<()> {
    Node::builder().on(on).proxied().run(|node| {
        proxy(node)?.fault(BLOBS, 2, Fault::Cut(400_000));
        node.write("pod.yaml", of_registry(node, "pod", "redis:7")?)?;
        node.await_running("pod")?;
        let ranges = |seen: &str| seen.to_lowercase().contains("range: bytes=");
        let seen = proxy(node)?.seen(BLOBS);
        ensure!(seen.iter().any(|seen| ranges(&seen.head)), "all was fetched anew: {seen:?}");
        let events = node.said(&["get", "events"])?;
        ensure!(!events.contains("Failed"), "the pull failed: {events}");
        Ok(())
    })
}
