//! Runs a process in a container, with its streams over an upgraded connection.

use std::{
    io,
    os::fd::OwnedFd,
    sync::atomic::{AtomicU64, Ordering},
};

use axum::{
    Extension,
    extract::{Path, Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use hyper_util::rt::TokioIo;
use stanchion_board::{
    exec::{ExecOptions, HEADER},
    frame::{self, Channel},
    view::PodView,
};
use stanchion_pod::k8s_openapi::api::core::v1 as wire;
use stanchion_runtime::{ContainerId, Descendants, ExecId, ExecRequest, ExecStdio, Runtime};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::unix::pipe,
    sync::mpsc,
};

use super::{ApiError, container, find, stream};
use crate::{handle::Handle, listener::Exchange};

pub(super) async fn exec<R: Runtime>(
    State(handle): State<Handle<R>>,
    Extension(exchange): Extension<Exchange>,
    Path((namespace, name)): Path<(String, String)>,
    mut request: Request,
) -> Result<Response, ApiError> {
    let bad = |message: String| ApiError(StatusCode::BAD_REQUEST, message);
    let (key, view) = find(&handle, namespace, name)?;
    let header = request.headers().get(HEADER).and_then(|value| value.to_str().ok());
    let options: ExecOptions =
        header.and_then(|text| serde_json::from_str(text).ok()).ok_or_else(|| bad("no command given".to_owned()))?;
    if options.command.is_empty() {
        return Err(bad("no command given".to_owned()));
    }
    let name = container(&view, options.container.clone())?;
    let id = running(&view, &name);
    let id =
        id.ok_or_else(|| ApiError(StatusCode::CONFLICT, format!("container {name} of pod {key} is not running")))?;
    let runtime = handle.runtime(&view.backend);
    let runtime = runtime
        .ok_or_else(|| ApiError(StatusCode::SERVICE_UNAVAILABLE, format!("backend {} is not open", view.backend)))?;
    let held = stream(&exchange)?;
    let upgrade = hyper::upgrade::on(&mut request);
    #[allow(clippy::disallowed_methods, reason = "ends with its connection or its process, whichever is first")]
    tokio::spawn(async move {
        let _held = held;
        match upgrade.await {
            Ok(connection) => {
                if let Err(error) = run(&*runtime, id, options, TokioIo::new(connection)).await {
                    tracing::debug!(%error, "an exec connection broke off");
                }
            }
            Err(error) => tracing::debug!(%error, "an exec connection was not taken up"),
        }
    });
    let headers = [(header::CONNECTION, "Upgrade"), (header::UPGRADE, "stanchion-exec")];
    Ok((StatusCode::SWITCHING_PROTOCOLS, headers).into_response())
}

/// Returns the id of a container, if it runs.
fn running(view: &PodView, name: &str) -> Option<ContainerId> {
    let is_running = |state: &wire::ContainerState| state.running.is_some();
    let mut running = view.statuses().filter(|it| it.name == name && it.state.as_ref().is_some_and(is_running));
    let id = running.find_map(|status| status.container_id.clone())?;
    id.split_once("://").map(|(_, id)| ContainerId::from(id))
}

async fn run<R: Runtime>(
    runtime: &R,
    container: ContainerId,
    options: ExecOptions,
    connection: impl AsyncRead + AsyncWrite + Unpin,
) -> io::Result<()> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let id = ExecId(format!("exec-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    let (input, stdin) = match options.stdin {
        true => pipe_in().map(|(ours, theirs)| (Some(ours), Some(theirs)))?,
        false => (None, None),
    };
    let (out, stdout) = pipe_out()?;
    let (err, stderr) = pipe_out()?;
    let request = ExecRequest {
        id: id.clone(),
        container,
        command: options.command,
        tty: options.tty,
        size: options.size,
        descendants: Descendants::Stay,
    };
    let stdio = ExecStdio { stdin, stdout: Some(stdout), stderr: Some(stderr) };
    let (mut from, mut to) = tokio::io::split(connection);
    let (send, mut frames) = mpsc::channel(8);
    // Dropping a future ends it. Dropping the call to the runtime kills the process.
    let outputs = async {
        tokio::join!(copy(out, Channel::Stdout, send.clone()), copy(err, Channel::Stderr, send.clone()));
    };
    let finished = async {
        let ended = runtime.exec(request, stdio);
        let (ended, ()) = tokio::join!(ended, outputs);
        let last = match ended {
            Ok(status) => (Channel::Exit, status.code.to_string().into_bytes()),
            Err(error) => (Channel::Error, error.chain().into_bytes()),
        };
        drop(send.send(last).await);
    };
    let written = write_frames(&mut to, &mut frames);
    let received = read_frames(&mut from, input, runtime, &id);
    let answered = async { tokio::join!(finished, written).1 };
    tokio::select! {
        done = answered => done,
        gone = received => gone,
    }
}

/// Writes frames to the client, up to the last one.
async fn write_frames(
    to: &mut (impl AsyncWrite + Unpin),
    frames: &mut mpsc::Receiver<(Channel, Vec<u8>)>,
) -> io::Result<()> {
    while let Some((channel, bytes)) = frames.recv().await {
        frame::write(to, channel, &bytes).await?;
        if matches!(channel, Channel::Exit | Channel::Error) {
            break;
        }
    }
    to.shutdown().await
}

/// Passes the client's input and terminal sizes on, until the client disconnects.
async fn read_frames<R: Runtime>(
    from: &mut (impl AsyncRead + Unpin),
    mut input: Option<pipe::Sender>,
    runtime: &R,
    id: &ExecId,
) -> io::Result<()> {
    while let Some((channel, bytes)) = frame::read(from).await? {
        match channel {
            Channel::Stdin if bytes.is_empty() => input = None,
            Channel::Stdin => {
                if let Some(pipe) = &mut input {
                    // The process may have closed its input.
                    if pipe.write_all(&bytes).await.is_err() {
                        input = None;
                    }
                }
            }
            Channel::Resize => {
                if let Ok(size) = serde_json::from_slice(&bytes)
                    && let Err(error) = runtime.resize_exec(id.clone(), size).await
                {
                    tracing::debug!(error = error.chain(), "resizing a terminal failed");
                }
            }
            _ => {}
        }
    }
    Ok(())
}

async fn copy(mut from: pipe::Receiver, channel: Channel, to: mpsc::Sender<(Channel, Vec<u8>)>) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if to.send((channel, buffer[..count].to_vec())).await.is_err() {
            return;
        }
    }
}

/// Makes a pipe for the agent to write. The other end blocks, as programs expect.
fn pipe_in() -> io::Result<(pipe::Sender, OwnedFd)> {
    let (theirs, ours) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    Ok((pipe::Sender::from_owned_fd(ours)?, theirs))
}

/// Makes a pipe for the agent to read.
fn pipe_out() -> io::Result<(pipe::Receiver, OwnedFd)> {
    let (ours, theirs) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    Ok((pipe::Receiver::from_owned_fd(ours)?, theirs))
}
