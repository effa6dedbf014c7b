//! `cargo xtask demo`: runs the redis static pod, from its manifest to an answer, and leaves nothing behind.

use std::{
    fs,
    net::{TcpStream, ToSocketAddrs as _},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;
use stanchion_tests::{
    Node, NodeBuilder,
    pods::{self, REDIS},
    slot::{self, Kind},
    wait::pause,
};

use crate::{build, deps, interrupt::Interrupt, say};

/// Patience until the pod runs, for pulls over slow lines.
const PATIENCE: Duration = Duration::from_secs(300);

/// Arguments of `cargo xtask demo`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// End after showing it, instead of waiting for Ctrl-C
    #[arg(long)]
    once: bool,
    /// Where the redis image comes from
    #[arg(long, value_enum, default_value_t = Images::Auto)]
    images: Images,
}

/// Source of the redis image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Images {
    /// Docker Hub if it can be reached, otherwise made here
    Auto,
    /// Docker Hub
    Hub,
    /// Made from this machine's redis and served by a registry on loopback
    Local,
}

/// Runs the demo.
pub fn run(options: &Options) -> Result<()> {
    deps::ensure_all()?;
    for dir in slot::sweep()? {
        say(format!("removed what an earlier run left in {}", dir.display()));
    }
    let programs = build::programs(false)?;
    let interrupt = Interrupt::watch()?;
    let hub = match options.images {
        Images::Auto => hub_answers(),
        Images::Hub => true,
        Images::Local => false,
    };
    let mut builder = NodeBuilder::new(Kind::Demo).programs(&programs);
    if hub {
        say("Docker Hub can be reached: pulling the real redis");
        builder = builder.public_registries();
    } else {
        say("no Docker Hub here: redis is packed from this machine's Debian package and pulled from a local registry");
    }
    say("starting a containerd of its own and the agent");
    let node = builder.start()?;
    let shown = show(&node, &interrupt);
    if shown.is_err() && !interrupt.happened() {
        eprintln!("{}", node.dump());
    }
    if shown.is_ok() && !options.once {
        while !interrupt.happened() {
            pause(Duration::from_millis(100));
        }
    }
    say("removing everything");
    let dir = node.names().dir.clone();
    let removed = take_down(node);
    shown?;
    removed?;
    say(format!("nothing is left of {}", dir.display()));
    Ok(())
}

fn show(node: &Node, interrupt: &Interrupt) -> Result<()> {
    let file = node.manifest("redis-static-pod.yaml");
    say(format!("writing {}", file.display()));
    println!("{REDIS}");
    let written = Instant::now();
    node.write("redis-static-pod.yaml", REDIS)?;
    let mut last = String::new();
    let mut told = false;
    let address = loop {
        ensure!(!interrupt.happened(), "interrupted");
        let table = node.agent.text(&["get", "pods", "-o", "wide"])?;
        if column(&table) != column(&last) {
            println!("{table}");
            last = table;
        }
        // In the first seconds the backend is still being opened.
        if !told && written.elapsed() > Duration::from_secs(5) && last.contains("BackendUnavailable") {
            println!("{}", node.agent.text(&["backends"])?);
            told = true;
        }
        // The pod is unknown for a moment after its file was written.
        match node.pod("static-pod") {
            Ok(pod) if pod.phase() == "Running" && pod.ready() => break pod.address()?,
            _ => {}
        }
        ensure!(written.elapsed() < PATIENCE, "the pod does not run after {} s", PATIENCE.as_secs());
        pause(Duration::from_millis(50));
    };
    println!("{}", node.agent.text(&["get", "pods", "-o", "wide"])?);
    let answer =
        stanchion_tests::until("redis to answer", Duration::from_secs(20), || node.redis("static-pod", "PING"))?;
    say(format!("redis at {address}:6379 answers PING with {answer}"));
    say("ctr --namespace stanchion containers ls");
    println!("{}", node.ctr().run(&["containers", "ls"])?);
    look_around(node, &pods::on_node("static-pod"))
}

fn look_around(node: &Node, pod: &str) -> Result<()> {
    let stanchion = build::cargo(&[])?.get_current_dir().context("cargo runs in the workspace")?.to_path_buf();
    let program = stanchion_tests::tools::target_dir()?.join("debug/stanchion");
    let program = program.strip_prefix(&stanchion).unwrap_or(&program).display().to_string();
    println!("Look around from another shell, in {}:\n", stanchion.display());
    println!("  export STANCHION_CONFIG={}", node.path("stanchion.toml").display());
    for command in ["get pods -o wide", &format!("describe pod {pod}"), &format!("logs -f {pod}")] {
        println!("  {program} {command}");
    }
    println!("  {program} exec -it {pod} -- redis-cli");
    println!("  ctr --address {} --namespace stanchion tasks ls", node.containerd.socket().display());
    println!("\nEdit or remove {}, kill redis, kill the agent.", node.manifest("redis-static-pod.yaml").display());
    println!("Ctrl-C ends the demo and removes all of it.\n");
    Ok(())
}

/// Returns the table's first five columns; the others change with time.
fn column(table: &str) -> Vec<Vec<&str>> {
    table.lines().map(|line| line.split_whitespace().take(5).collect()).collect()
}

/// Removes the manifests, waits until the agent has removed the pods, and stops the agent.
fn take_down(mut node: Node) -> Result<()> {
    for entry in fs::read_dir(node.path("manifests")).context("cannot read the manifest directory")? {
        let path = entry?.path();
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    // A user may have killed the agent to see what happens.
    if node.agent.ended()?.is_some() {
        return Ok(());
    }
    node.await_nothing_left()?;
    node.agent.stop().map(drop)
}

fn hub_answers() -> bool {
    let Ok(addresses) = ("registry-1.docker.io", 443).to_socket_addrs() else { return false };
    addresses.take(2).any(|address| TcpStream::connect_timeout(&address, Duration::from_secs(3)).is_ok())
}
