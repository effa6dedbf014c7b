//! `stanchion`: runs Kubernetes static pods on the node's own container runtime, with no control plane.
//!
//! # Layout
//! - [`config`]: TOML → checked settings. [`run`]: the agent. [`backends`]: loads the backend libraries.
//!   [`notify`]: tells the service manager.
//! - [`client`]: asks a running agent. [`commands`]: one module a command. [`table`]: columns as kubectl's.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests read and remove what they have made"))]

mod backends;
mod client;
mod commands;
mod config;
mod limits;
mod notify;
mod run;
mod shutdown;
mod table;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

/// Keeps a node's pods standing when everything else is gone.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    /// Configuration file
    #[arg(long, global = true, env = "STANCHION_CONFIG", default_value = "/etc/stanchion/stanchion.toml")]
    config: PathBuf,
    /// The agent's socket, instead of the one that the configuration says
    #[arg(long, global = true)]
    socket: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent
    Run(run::Options),
    /// Check manifests: files, directories, or - for standard input
    Validate(commands::validate::Options),
    /// Show pods, nodes, events, manifests or backends
    Get(commands::get::Options),
    /// Show everything about a pod
    Describe(commands::describe::Options),
    /// Print what a container wrote
    Logs(commands::logs::Options),
    /// Run a program in a container
    Exec(commands::exec::Options),
    /// Stop a pod, or one container of it, and start it again
    Restart(commands::restart::Options),
    /// Show what happened
    Events(commands::get::EventOptions),
    /// Show the configured backends
    Backends(commands::backends::Options),
    /// Remove images that nothing uses
    #[command(subcommand)]
    Images(commands::images::Action),
    /// Check a backend library
    #[command(subcommand)]
    Backend(commands::backend::Action),
    /// Find out what is wrong with this node, and how to mend it
    Doctor,
}

fn main() -> ExitCode {
    let Arguments { config, socket, command } = Arguments::parse();
    let client = client::Client::new(config.clone(), socket);
    let done = match command {
        Command::Run(options) => run::run(&config, &options),
        Command::Validate(options) => commands::validate::run(&config, &options),
        Command::Get(options) => commands::get::run(&client, &options),
        Command::Describe(options) => commands::describe::run(&client, &options),
        Command::Logs(options) => commands::logs::run(&client, &options),
        Command::Exec(options) => commands::exec::run(&client, &options),
        Command::Restart(options) => commands::restart::run(&client, &options),
        Command::Events(options) => commands::get::events(&client, &options),
        Command::Backends(options) => commands::backends::run(&client, &options),
        Command::Images(action) => commands::images::run(&client, &action),
        Command::Backend(action) => commands::backend::run(&config, &action),
        Command::Doctor => commands::doctor::run(&config, &client),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
