//! Pull credentials from the kubelet's credential provider plugins.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use stanchion_tests::{Backend, Node, authority::Authority, pods, registry::Registry};

stanchion_tests::on_each_runtime! {
    a_plugin_gives_what_the_registry_wants,
    whatever_is_refused_is_named_and_the_next_is_tried,
}

const PLUGIN: &str = "acme-credentials";

/// Returns a node whose agent is configured with a plugin but not started, and a registry that wants `user` and
/// `secret`.
fn node(on: Backend) -> Result<(Node, Registry)> {
    let node = Node::builder().on(on).without_agent()?;
    let dir = node.path("secured");
    let authority = Authority::new(&dir)?;
    let storage = node.fixtures.as_ref().context("a node with fixtures")?.registry();
    let registry = Registry::start_secured(&dir, &storage, &authority.issue("registry")?)?;
    let (settings, programs) = (node.path("providers.yaml"), node.path("plugins"));
    fs::create_dir(&programs)?;
    let image = registry.address();
    let text = format!(
        "apiVersion: kubelet.config.k8s.io/v1\nkind: CredentialProviderConfig\nproviders:\n- name: {PLUGIN}\n  \
         matchImages: ['*.example', '{image}']\n  defaultCacheDuration: 0s\n  apiVersion: credentialprovider.kubelet.k8s.io/v1\n  \
         args: [get, now]\n  env: [{{name: ASKED, value: {:?}}}]\n",
        node.path("asked")
    );
    fs::write(&settings, text)?;
    let config = node.path("stanchion.toml");
    let images =
        format!("[images]\ncredential_provider_config = {settings:?}\ncredential_provider_bin_dir = {programs:?}\n");
    let mut toml = fs::read_to_string(&config)?.replace("[images]\n", &images);
    // Docker trusts any certificate on loopback.
    if on == Backend::Containerd {
        toml += &format!("[backend.containerd.registry.{image:?}]\nca_file = {:?}\n", authority.certificate());
    }
    fs::write(&config, toml)?;
    Ok((node, registry))
}

fn program(node: &Node, script: &str) -> Result<()> {
    let draft = node.path("plugin-draft");
    fs::write(&draft, format!("#!/bin/sh\n{script}\n"))?;
    fs::set_permissions(&draft, fs::Permissions::from_mode(0o755))?;
    fs::rename(&draft, node.path("plugins").join(PLUGIN)).context("cannot put the plugin in place")
}

/// Installs a plugin that records its request and answers with this password.
fn giving(node: &Node, registry: &Registry, password: &str) -> Result<()> {
    let answer = json!({
        "apiVersion": "credentialprovider.kubelet.k8s.io/v1", "kind": "CredentialProviderResponse",
        "cacheKeyType": "Registry", "auth": { registry.address(): { "username": "user", "password": password } },
    });
    program(node, &format!("cat > \"$ASKED\"; echo \" $*\" >> \"$ASKED\"; echo '{answer}'"))
}

fn pod(registry: &Registry, name: &str) -> String {
    let image = format!("image: {}/library/busybox:1", registry.address());
    pods::idle(name, "1").replace("image: busybox", &image)
}

/// Writes a Secret `login` with a wrong password.
fn wrong_secret(node: &Node, registry: &Registry) -> Result<()> {
    let config = json!({ "auths": { registry.address(): { "username": "user", "password": "hunter2" } } }).to_string();
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "login" },
        "type": "kubernetes.io/dockerconfigjson", "stringData": { ".dockerconfigjson": config },
    });
    let draft = node.path("login.yaml");
    fs::write(&draft, secret.to_string())?;
    fs::set_permissions(&draft, fs::Permissions::from_mode(0o600))?;
    fs::rename(&draft, node.manifest("login.yaml")).context("cannot put the secret in place")
}

/// Checks that log, `describe` and events contain no password (I10).
fn ensure_not_shown(node: &Node, pod: &str) -> Result<()> {
    let describe = ["describe", "pod", &format!("{pod}-node-1")];
    let said = [node.agent.log_text()?, node.said(&describe)?, node.said(&["get", "events"])?];
    // `user:secret` in Base64, the password in JSON, and the wrong password.
    let is_shown = |text: &String| ["dXNlcjpzZWNyZXQ", "\"secret\"", "hunter2"].iter().any(|word| text.contains(word));
    ensure!(!said.iter().any(is_shown), "a password is shown: {said:?}");
    Ok(())
}

fn text(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

// R-IMG-10
fn a_plugin_gives_what_the_registry_wants(on: Backend) -> Result<()> {
    let (mut node, registry) = node(on)?;
    giving(&node, &registry, "secret")?;
    node.agent.start()?;
    node.write("pod.yaml", pod(&registry, "pod"))?;
    node.await_running("pod")?;
    let asked = text(&node.path("asked"))?;
    let (request, arguments) = asked.split_once("} ").context("the plugin was asked something else")?;
    ensure!(arguments.trim() == "get now", "{asked}");
    let request: serde_json::Value = serde_json::from_str(&format!("{request}}}"))?;
    let wanted = json!({
        "apiVersion": "credentialprovider.kubelet.k8s.io/v1", "kind": "CredentialProviderRequest",
        "image": format!("{}/library/busybox", registry.address()),
    });
    ensure!(request == wanted, "the plugin was asked {request}");
    ensure_not_shown(&node, "pod")
}

// R-IMG-10, R-IMG-9
fn whatever_is_refused_is_named_and_the_next_is_tried(on: Backend) -> Result<()> {
    let (mut node, registry) = node(on)?;
    program(&node, "echo hunter2; echo hunter2 >&2; exit 3")?;
    node.agent.start()?;
    let describe = ["describe", "pod", "pod-node-1"];

    println!("the plugin fails, and the registry gives nothing to nobody");
    node.write("pod.yaml", pod(&registry, "pod"))?;
    let failed = "credential provider \"acme-credentials\": it ended with exit status: 3";
    node.await_said(&describe, &["CredentialProviderFailed", failed, "with none of these: ", registry.address()])?;

    println!("the pod's secret is wrong too");
    wrong_secret(&node, &registry)?;
    giving(&node, &registry, "hunter2")?;
    node.write("pod.yaml", pod(&registry, "pod").replace("spec:\n", "spec:\n  imagePullSecrets: [{name: login}]\n"))?;
    let words =
        ["with pull secret \"login\": ", "; with credential provider \"acme-credentials\": ", "; with none of these: "];
    node.await_said(&describe, &words)?;

    println!("what the plugin gives is right");
    giving(&node, &registry, "secret")?;
    node.agent.text(&["restart", "pod-node-1"])?;
    node.await_running("pod")?;
    ensure_not_shown(&node, "pod")
}
