//! Bad configuration on the real agent: it refuses with key, file and remedy, or waits and reports why.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use stanchion_tests::{Node, NodeBuilder, pods};

/// Checks that the agent does not start, and that its error contains all of `words` and the file's path.
fn refused(builder: NodeBuilder, words: &[&str]) -> Result<()> {
    let mut node = builder.without_agent()?;
    let (status, said) = node.agent.run_to_end()?;
    ensure!(!status.success(), "it accepts that");
    let file = node.path("stanchion.toml").display().to_string();
    for word in words.iter().chain([&file.as_str()]) {
        ensure!(said.contains(word), "{word:?} is not in: {said}");
    }
    Ok(())
}

#[test]
fn an_unknown_key_is_named_with_the_nearest_known_one() -> Result<()> {
    refused(Node::builder().agent("stat_dir = \"/nowhere\"\n"), &["stat_dir", "state_dir"])
}

#[test]
fn times_that_make_no_sense_are_named() -> Result<()> {
    refused(Node::builder().agent("shutdown_grace_period = \"soon\"\n"), &["agent.shutdown_grace_period", "soon"])?;
    refused(
        Node::builder().agent("shutdown_grace_period_critical_pods = \"40s\"\n"),
        &["agent.shutdown_grace_period_critical_pods", "longer"],
    )
}

#[test]
fn an_unknown_key_of_the_backend_is_named() -> Result<()> {
    let mut node = Node::builder().backend("sockt = \"/nowhere\"\n").without_agent()?;
    node.agent.launch()?;
    let said = node.until("the agent to say so", || {
        let said = format!("{}{}", node.agent.log_text()?, node.said(&["backends"])?);
        ensure!(said.contains("sockt"), "it says: {said}");
        Ok(said)
    })?;
    ensure!(said.contains("socket"), "no known key is offered: {said}");
    Ok(())
}

#[test]
fn a_default_backend_that_is_not_configured_is_named() -> Result<()> {
    let node = Node::builder().without_agent()?;
    let config = node.path("stanchion.toml");
    let text = fs::read_to_string(&config)?;
    fs::write(&config, text.replace("default_backend = \"containerd\"", "default_backend = \"containrd\""))?;
    let mut node = node;
    let (status, said) = node.agent.run_to_end()?;
    ensure!(!status.success(), "it accepts that");
    for word in ["containrd", "containerd", "default_backend"] {
        ensure!(said.contains(word), "{word:?} is not in: {said}");
    }
    Ok(())
}

/// Checks that the agent runs, `backends` prints all of `words`, and `describe` of a pod names the backend.
fn unavailable(builder: NodeBuilder, words: &[&str], prepare: impl FnOnce(&Node) -> Result<()>) -> Result<()> {
    let mut node = builder.without_agent()?;
    prepare(&node)?;
    node.agent.start()?;
    node.await_said(&["backends"], words)?;
    node.write("pod.yaml", pods::idle("pod", "1"))?;
    node.await_said(&["describe", "pod", "pod-node-1"], &["containerd"])?;
    ensure!(node.agent.ended()?.is_none(), "the agent ended");
    Ok(())
}

/// Sets the backend's `library`.
fn use_library(node: &Node, library: &str) -> Result<()> {
    let config = node.path("stanchion.toml");
    let text = fs::read_to_string(&config)?;
    let at = text.find("[backend.containerd]\n").context("the configuration has the backend")? + 21;
    fs::write(&config, format!("{}library = {library:?}\n{}", &text[..at], &text[at..])).context("cannot write")
}

#[test]
fn a_missing_library_is_named_and_waited_for() -> Result<()> {
    let library = "/nonexistent/libstanchion_none.so";
    unavailable(Node::builder(), &[library], |node| use_library(node, library))
}

#[test]
fn a_library_that_others_could_replace_is_not_loaded() -> Result<()> {
    unavailable(Node::builder(), &["belongs to user 65534", "chown root"], |node| {
        let copy = node.path("libstanchion_containerd.so");
        let original = stanchion_tests::tools::target_dir()?.join("debug/libstanchion_containerd.so");
        fs::copy(original, &copy)?;
        std::os::unix::fs::chown(&copy, Some(65534), Some(65534))?;
        use_library(node, &copy.to_string_lossy())
    })
}

#[test]
fn a_library_that_is_no_backend_is_named() -> Result<()> {
    unavailable(Node::builder(), &["libnotabackend.so"], |node| {
        let copy = node.path("libnotabackend.so");
        fs::write(&copy, b"\x7fELF but no more")?;
        use_library(node, &copy.to_string_lossy())
    })
}

#[test]
fn an_absent_socket_is_waited_for() -> Result<()> {
    let mut node = Node::builder().without_agent()?;
    node.containerd.end(Signal::TERM)?;
    fs::remove_file(node.containerd.socket()).or_else(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    })?;
    node.agent.start()?;
    let socket = node.containerd.socket().display().to_string();
    node.await_said(&["backends"], &[&socket])?;
    node.write("pod.yaml", pods::idle("pod", "1"))?;
    node.await_said(&["get", "pods"], &["pod-node-1"])?;
    node.containerd.resume()?;
    node.await_running("pod")?;
    node.remove("pod.yaml")?;
    node.await_nothing_left()
}

#[test]
fn the_environment_overrides_the_file() -> Result<()> {
    let node = Node::builder().without_agent()?;
    let mut command = node.agent.command(&["run", "--config"])?;
    command.arg(node.path("stanchion.toml")).env("STANCHION_AGENT__NODE_NAME", "from-environment");
    let log = node.path("other.log");
    let _process = stanchion_tests::process::Process::start("stanchion", &mut command, &log)?;
    node.await_said(&["get", "nodes"], &["from-environment"])
}
