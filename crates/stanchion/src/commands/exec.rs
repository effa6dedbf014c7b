//! `stanchion exec`

use std::{io::Write, process::ExitCode};

use anyhow::{Context, Result, bail};
use hyper::Method;
use hyper_util::rt::TokioIo;
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};
use stanchion_board::{
    exec::{ExecOptions, HEADER},
    frame::{self, Channel},
};
use stanchion_runtime::TerminalSize;
use tokio::{
    io::AsyncReadExt,
    signal::unix::{SignalKind, signal},
};

use crate::client::{Client, pod_path};

/// Options of `exec`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Name of the pod
    pod: String,
    /// The container
    #[arg(short, long)]
    container: Option<String>,
    /// The pod's namespace
    #[arg(short, long)]
    namespace: Option<String>,
    /// Pass standard input on
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Give the program a terminal
    #[arg(short = 't', long)]
    tty: bool,
    /// Program and arguments
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// Runs a program in a container and exits with its exit code.
pub fn run(client: &Client, options: &Options) -> Result<ExitCode> {
    client.block_on(async {
        let pod = client.find(&options.pod, options.namespace.as_deref()).await?;
        let tty = options.tty && isatty(std::io::stdin());
        if options.tty && !tty {
            eprintln!("standard input is not a terminal; the program gets none");
        }
        let wanted = ExecOptions {
            container: options.container.clone(),
            command: options.command.clone(),
            stdin: options.stdin,
            tty,
            size: if tty { size() } else { None },
        };
        let wanted = serde_json::to_string(&wanted)?;
        let headers = [("connection", "Upgrade"), ("upgrade", "stanchion-exec"), (HEADER, &wanted)];
        let answer = client.send(Method::POST, &pod_path(&pod, "/exec"), &headers).await?;
        let connection = hyper::upgrade::on(answer).await.context("talking to the agent")?;
        // Without --stdin nobody reads the keys, and Ctrl-C has to end this command.
        let _raw = if tty && options.stdin { Raw::enter() } else { None };
        converse(TokioIo::new(connection), options.stdin, tty).await
    })
}

async fn converse(connection: TokioIo<hyper::upgrade::Upgraded>, stdin: bool, tty: bool) -> Result<ExitCode> {
    let (mut from, mut to) = tokio::io::split(connection);
    let mut resized = signal(SignalKind::window_change()).context("watching the terminal's size")?;
    let sending = async {
        let mut input = tokio::io::stdin();
        let mut buffer = vec![0; 16 << 10];
        let mut open = stdin;
        loop {
            tokio::select! {
                read = input.read(&mut buffer), if open => {
                    let count = read.unwrap_or(0);
                    open = count > 0;
                    frame::write(&mut to, Channel::Stdin, &buffer[..count]).await?;
                }
                Some(()) = resized.recv(), if tty => {
                    if let Some(size) = size() {
                        frame::write(&mut to, Channel::Resize, &serde_json::to_vec(&size)?).await?;
                    }
                }
                else => std::future::pending().await,
            }
        }
    };
    let receiving = async {
        while let Some((channel, bytes)) = frame::read(&mut from).await? {
            let text = || String::from_utf8_lossy(&bytes).into_owned();
            match channel {
                Channel::Stdout => std::io::stdout().write_all(&bytes).and_then(|()| std::io::stdout().flush())?,
                Channel::Stderr => std::io::stderr().write_all(&bytes)?,
                Channel::Exit => return Ok(ExitCode::from(text().parse::<u8>().unwrap_or(255))),
                Channel::Error => bail!("{}", text()),
                _ => {}
            }
        }
        bail!("the agent went away")
    };
    tokio::select! {
        ended = receiving => ended,
        failed = sending => {
            let failed: Result<()> = failed;
            failed.and_then(|()| bail!("the connection ended"))
        }
    }
}

fn size() -> Option<TerminalSize> {
    let size = tcgetwinsize(std::io::stdout()).ok()?;
    Some(TerminalSize { width: size.ws_col, height: size.ws_row })
}

/// Raw mode of the terminal, until this value is dropped: every key goes to the program.
struct Raw(Termios);

impl Raw {
    fn enter() -> Option<Self> {
        let before = tcgetattr(std::io::stdin()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(std::io::stdin(), OptionalActions::Now, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0).is_err() {
            eprintln!("the terminal's settings cannot be restored; type: reset");
        }
    }
}
