//! Turning to a container: a command in it, or a request from the node to it. What hooks and probes are made of, and the
//! requests to those who serve manifests.
//!
//! Texts of failures are kubelet's, since people and tools know them.
//!
//! # Layout
//! - [`exec`]: a command. [`http`], [`tcp`], [`grpc`]: from the node; [`tls`]: for `scheme: HTTPS`.

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

/// The Kubernetes version that requests speak of.
const VERSION: &str = "1.36";

/// Who asks: `kube-probe/1.36`.
pub(crate) fn user_agent(what: &str) -> String {
    format!("kube-{what}/{VERSION}")
}

/// Host and port of an endpoint of a pod.
fn place(to: &Endpoint, pod: IpAddr) -> Result<(String, u16), String> {
    match &to.port {
        TargetPort::Number(port) => Ok((to.host(pod), *port)),
        TargetPort::Unknown(name) => Err(format!("couldn't find port: {name}")),
    }
}

/// An error of the system in the words that Go has for it.
pub(crate) fn words(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    match chars.next() {
        // An abbreviation stays one: `EOF`.
        Some(first) if !chars.as_str().starts_with(char::is_uppercase) => first.to_lowercase().chain(chars).collect(),
        _ => text.to_owned(),
    }
}
