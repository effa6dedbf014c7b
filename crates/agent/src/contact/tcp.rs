//! Opens TCP connections.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use stanchion_pod::Endpoint;
use tokio::net::TcpStream;

use super::{error::ContactError, host_and_port};
use crate::{clock::timeout_at, url::join};

/// Checks that something listens at this endpoint (R-PRB-30). It sets no linger time, since closing would block a
/// thread.
pub(crate) async fn connect(to: &Endpoint, pod: IpAddr, timeout: Duration) -> Result<(), ContactError> {
    let (host, port) = host_and_port(to, pod)?;
    open(&host, port, crate::clock::instant() + timeout).await.map(drop)
}

/// Connects before the deadline.
pub(crate) async fn open(host: &str, port: u16, deadline: Instant) -> Result<TcpStream, ContactError> {
    let to = join(host, port);
    match timeout_at(deadline, TcpStream::connect((host, port))).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) if error.raw_os_error().is_some() => Err(ContactError::Connect { to, error }),
        Ok(Err(error)) => Err(ContactError::Lookup { host: host.to_owned(), error }),
        Err(_) => Err(ContactError::ConnectTimeout(to)),
    }
}
