//! A proxy for Docker's socket that drops events.

use std::{
    io::{self, Read as _, Write as _},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context as _, Result};

/// Socket that forwards everything to Docker and back, except events: it drops them.
#[derive(Debug)]
pub struct Deaf {
    socket: PathBuf,
}

impl Deaf {
    /// Listens at `socket` until the test ends.
    ///
    /// # Errors
    /// When it cannot listen there.
    pub fn start(socket: PathBuf, docker: PathBuf) -> Result<Self> {
        let listener = UnixListener::bind(&socket).with_context(|| format!("cannot listen at {}", socket.display()))?;
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let docker = docker.clone();
                // An error only means that one side has disconnected first.
                thread::spawn(move || serve(client, &docker).ok());
            }
        });
        Ok(Self { socket })
    }

    /// Returns the path of the socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

/// Serves one connection, which carries one request.
fn serve(mut client: UnixStream, docker: &Path) -> io::Result<()> {
    let mut docker = UnixStream::connect(docker)?;
    let mut first = [0; 4096];
    let length = client.read(&mut first)?;
    docker.write_all(&first[..length])?;
    let is_events =
        String::from_utf8_lossy(&first[..length]).lines().next().is_some_and(|line| line.contains("/events"));
    let (mut from, mut to) = (client.try_clone()?, docker.try_clone()?);
    thread::spawn(move || {
        io::copy(&mut from, &mut to).ok();
        to.shutdown(Shutdown::Write).ok();
    });
    if is_events {
        // The subscription is in force once Docker has sent the head of its answer, which is forwarded.
        let mut byte = [0];
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") && docker.read(&mut byte)? == 1 {
            head.push(byte[0]);
        }
        client.write_all(&head)?;
        io::copy(&mut docker, &mut io::sink())?;
    } else {
        io::copy(&mut docker, &mut client)?;
    }
    client.shutdown(Shutdown::Both)
}
