//! `stanchion`: runs Kubernetes static pods on the node's own container runtime, with no control plane.
//!
//! # Layout
//! - [`config`]: TOML → checked settings. [`run`]: the agent. [`backends`]: loads the backend libraries.
//!   [`notify`]: tells the service manager. [`duration`]: durations as kubectl's.
//! - [`client`]: asks a running agent. [`commands`]: one module a command. [`table`]: columns as kubectl's.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests read and remove what they have made"))]

mod backends;
mod client;
mod commands;
mod config;
mod duration;
mod limits;
mod notify;
mod run;
mod shutdown;
mod table;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use stanchion_untrusted::text::escaped_lines;

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

impl Command {
    /// Whether it speaks with the agent, so that `--socket` has a meaning for it.
    const fn asks_the_agent(&self) -> bool {
        !matches!(self, Self::Run(_) | Self::Validate(_) | Self::Backend(_))
    }
}

fn main() -> ExitCode {
    let Arguments { config, socket, command } = Arguments::parse();
    if socket.is_some() && !command.asks_the_agent() {
        eprintln!("error: this command does not ask the agent, and takes no --socket");
        return ExitCode::FAILURE;
    }
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
            eprintln!("error: {}", escaped_lines(&format!("{error:#}")));
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    /// Whoever adds an argument says here that it has an effect. The arguments of `get` are tried one by one where they are.
    #[test]
    fn all_arguments_are_known() {
        fn walk(command: &clap::Command, path: &str, found: &mut Vec<String>) {
            for argument in command.get_arguments() {
                let name = match argument.get_long() {
                    Some("help" | "version") => continue,
                    Some(long) => format!("--{long}"),
                    None => argument.get_id().as_str().to_uppercase(),
                };
                found.push(format!("{path}{name}"));
            }
            command.get_subcommands().for_each(|it| walk(it, &format!("{path}{} ", it.get_name()), found));
        }
        let mut found = Vec::new();
        walk(&Arguments::command(), "", &mut found);
        found.retain(|argument| !argument.starts_with("get "));
        let expected = [
            "--config",
            "--socket",
            "run --log-format",
            "validate FILES",
            "validate --strict",
            "validate --output",
            "describe KIND",
            "describe NAME",
            "describe --namespace",
            "logs POD",
            "logs CONTAINER_NAME",
            "logs --container",
            "logs --namespace",
            "logs --follow",
            "logs --previous",
            "logs --tail",
            "logs --since",
            "logs --since-time",
            "logs --timestamps",
            "exec POD",
            "exec --container",
            "exec --namespace",
            "exec --stdin",
            "exec --tty",
            "exec COMMAND",
            "restart POD",
            "restart --container",
            "restart --namespace",
            "events --watch",
            "backends --output",
            "images prune --dry-run",
            "images prune --output",
            "backend check LIBRARY",
            "backend check --name",
            "backend check --image",
            "backend check --only",
        ];
        assert_eq!(found, expected);
        for command in ["run", "validate -", "backend check l", "doctor", "get pods"] {
            let words = ["stanchion", "--socket", "s"].into_iter().chain(command.split(' '));
            let parsed = Arguments::try_parse_from(words).expect("clap takes it");
            let asks = matches!(command, "doctor" | "get pods");
            assert_eq!(parsed.command.asks_the_agent(), asks, "{command}");
        }
    }
}
