//! `stanchion backend check`, the conformance suite for authors, on the libraries that Stanchion ships.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use stanchion_tests::{Backend, Node, tools};

fn library(backend: Backend) -> Result<PathBuf> {
    Ok(tools::target_dir()?.join(format!("debug/libstanchion_{}.so", backend.name())))
}

/// Runs the whole suite through the library. The suite imports its own image, so it needs no registry.
fn keeps_the_contract(backend: Backend) -> Result<()> {
    let node = Node::builder().on(backend).without_agent()?;
    let library = library(backend)?;
    let mut command = node.agent.command(&["backend", "check", &library.to_string_lossy()])?;
    let output = command.output().context("starting it")?;
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    ensure!(output.status.success(), "it ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    ensure!(said.starts_with(&format!("{} ", backend.name())), "it does not begin with the runtime");
    for case in ["images.import", "container.stop_grace", "abandoned.container", "images.remove"] {
        ensure!(said.lines().any(|line| line.starts_with("passed") && line.ends_with(case)), "{case} did not pass");
    }
    let unsupported = match backend {
        // `stdin` without `tty`: containerd's shim does not support it together with a logger.
        Backend::Containerd | Backend::K3s => 1,
        // `hostUsers: false`.
        Backend::Docker => 5,
    };
    ensure!(said.contains(&format!(" passed, {unsupported} unsupported, 0 failed, in ")), "no sum of it all");
    let images = node.view().table()?;
    ensure!(!images.contains("conformance"), "something is left: {images}");
    node.await_nothing_left()
}

#[test]
fn the_library_for_containerd_keeps_the_contract() -> Result<()> {
    keeps_the_contract(Backend::Containerd)
}

#[test]
fn the_library_for_docker_keeps_the_contract() -> Result<()> {
    keeps_the_contract(Backend::Docker)
}

#[test]
fn a_running_agent_is_left_alone() -> Result<()> {
    Node::builder().run(|node| {
        let library = library(Backend::chosen())?;
        node.await_said(&["backend", "check", &library.to_string_lossy()], &["error: another agent (pid"])
    })
}
