//! `stanchion`: runs Kubernetes static pods on the node's own container runtime, with no control plane.
//!
//! # Layout
//! - [`config`]: from TOML to checked settings. [`run`]: the agent. [`backends`]: opening of the backend libraries.
//!   [`notify`]: messages to the service manager. [`duration`]: durations as in kubectl.
//! - [`client`]: client of a running agent. [`commands`]: one module per command. [`table`]: columns as in kubectl.

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
#[cfg(test)]
mod tests;

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand, parser::ValueSource};
use stanchion_untrusted::text::escaped_lines;

/// Keeps a node's pods standing when everything else is gone.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    /// Configuration file
    #[arg(long, global = true, env = "STANCHION_CONFIG", default_value = config::DEFAULT)]
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
    /// Returns whether the command talks to the agent, and so accepts `--socket`.
    const fn asks_the_agent(&self) -> bool {
        !matches!(self, Self::Run(_) | Self::Validate(_) | Self::Backend(_))
    }
}

fn main() -> ExitCode {
    program(&std::env::args_os().collect::<Vec<_>>())
}

/// Runs a command line.
fn program(words: &[OsString]) -> ExitCode {
    let matches = Arguments::command().get_matches_from(words);
    let Arguments { config, socket, command } = match Arguments::from_arg_matches(&matches) {
        Ok(arguments) => arguments,
        Err(error) => error.exit(),
    };
    if let Some(name) = ["--config", "--socket"].into_iter().find(|name| is_repeated(words, name)) {
        eprintln!("error: {name} cannot be used multiple times");
        return ExitCode::FAILURE;
    }
    if socket.is_some() && !command.asks_the_agent() {
        eprintln!("error: this command does not ask the agent, and takes no --socket");
        return ExitCode::FAILURE;
    }
    // With `--socket`, the variable `STANCHION_CONFIG` is ignored; `doctor` reads the configuration too.
    let is_config_given = matches.value_source("config") == Some(ValueSource::CommandLine);
    if socket.is_some() && is_config_given && !matches!(command, Command::Doctor) {
        eprintln!("error: --config and --socket both give the agent's socket; use one of them");
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

/// Returns whether an option stands both before and after the command's name, where clap forgets the first one.
fn is_repeated(words: &[OsString], name: &str) -> bool {
    let own = words.iter().take_while(|word| *word != "--").filter_map(|word| word.to_str());
    own.filter(|word| word.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('='))).count() > 1
}
