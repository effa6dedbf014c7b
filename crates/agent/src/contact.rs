//! Requests of hooks and probes: commands in containers, and requests from the node to containers. The sources fetch
//! manifests with the same parts.
//!
//! Error texts are a kubelet's, since people and tools know them.
//!
//! # Layout
//! - [`ContactError`]: failures. [`exec`]: commands. [`http`], [`tcp`], [`grpc`]: requests from the node. [`tls`]:
//!   connections for `scheme: HTTPS`.

pub(crate) mod error;
pub(crate) mod exec;
pub(crate) mod grpc;
pub(crate) mod http;
#[cfg(test)]
pub(crate) mod server;
pub(crate) mod tcp;
#[cfg(test)]
mod tests;
pub(crate) mod tls;

use std::net::IpAddr;

use stanchion_pod::{Endpoint, TargetPort};

use error::ContactError;

/// Kubernetes version in the `User-Agent` header.
const VERSION: &str = "1.36";

/// Returns the `User-Agent` header of a request, e.g. `kube-probe/1.36`.
pub(crate) fn user_agent(what: &str) -> String {
    format!("kube-{what}/{VERSION}")
}

/// Returns host and port of an endpoint of a pod.
fn host_and_port(to: &Endpoint, pod: IpAddr) -> Result<(String, u16), ContactError> {
    match &to.port {
        TargetPort::Number(port) => Ok((to.host(pod), *port)),
        TargetPort::Unknown(name) => Err(ContactError::UnknownPort(name.clone())),
    }
}
