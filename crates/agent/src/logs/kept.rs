//! The log of a container whose runtime keeps it itself.

use std::io;

use jiff::Timestamp;
use stanchion_runtime::{ContainerId, Error, ErrorKind, Runtime};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::unix::pipe,
};

use super::{Lines, LogOptions};

/// Text after a time, and the time of its last line.
pub(crate) async fn kept<R: Runtime>(
    runtime: &R,
    id: &ContainerId,
    options: LogOptions,
    after: Option<Timestamp>,
) -> Result<(String, Option<Timestamp>), Error> {
    let failed = |error: io::Error| Error::new(ErrorKind::Other, "a pipe for a log").caused_by(&error);
    let (reader, writer) = io::pipe().map_err(failed)?;
    let mut from = BufReader::new(pipe::Receiver::from_owned_fd(reader.into()).map_err(failed)?);
    let mut lines = Lines::new(options, after);
    let receive = async {
        let mut raw = Vec::new();
        while from.read_until(b'\n', &mut raw).await? > 0 {
            lines.add(&raw);
            raw.clear();
        }
        Ok::<_, io::Error>(())
    };
    let (copied, received) = tokio::join!(runtime.logs(id.clone(), writer.into()), receive);
    copied?;
    received.map_err(failed)?;
    Ok(lines.finish())
}
