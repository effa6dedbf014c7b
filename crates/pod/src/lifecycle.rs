//! Restart rules, hooks and probes of a container.

use std::{net::IpAddr, time::Duration};

use crate::RestartPolicy;

/// Restart policy of one container; overrides its pod's (R-RSP-1).
#[derive(Clone, Debug, PartialEq)]
pub struct Restart {
    /// Container's own `restartPolicy`.
    pub policy: RestartPolicy,
    /// `restartPolicyRules`, in order: the first that matches decides.
    pub rules: Vec<RestartRule>,
}

/// One of `restartPolicyRules`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestartRule {
    /// Action when the rule matches.
    pub action: RestartAction,
    /// Exit codes that the rule compares with.
    pub codes: Vec<i32>,
    /// `true`: the rule matches `codes` (`operator: In`); `false`: it matches every code but these.
    pub is_in: bool,
}

impl RestartRule {
    /// Returns whether the rule matches a container that exited with `code`.
    #[must_use]
    pub fn matches(&self, code: i32) -> bool {
        self.codes.contains(&code) == self.is_in
    }
}

/// Action of a restart rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartAction {
    /// Restart of the container.
    Container,
    /// Restart of all containers of the pod, init containers first.
    Pod,
}

/// Lifecycle hook of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hook {
    /// `exec`: a command in the container.
    Exec(Vec<String>),
    /// `httpGet`: a request from the node.
    Http(HttpGet),
    /// `tcpSocket`: accepted, and always fails, as in Kubernetes (R-HOOK-7).
    Tcp(Endpoint),
    /// `sleep`: a pause.
    Sleep(Duration),
}

/// Startup, liveness or readiness probe of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Check that the probe runs.
    pub check: Check,
    /// `initialDelaySeconds`: time from the container's start to the first check.
    pub initial_delay: Duration,
    /// `periodSeconds`.
    pub period: Duration,
    /// `timeoutSeconds` of one check.
    pub timeout: Duration,
    /// `successThreshold`: successes in a row after which the probe has succeeded.
    pub success_threshold: u32,
    /// `failureThreshold`: failures in a row after which the probe has failed.
    pub failure_threshold: u32,
    /// `terminationGracePeriodSeconds` for a container that is stopped because of this probe; `None` is the pod's.
    pub grace: Option<Duration>,
}

/// Check of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// `exec`: a command in the container.
    Exec(Vec<String>),
    /// `httpGet`: a request from the node.
    Http(HttpGet),
    /// `tcpSocket`: a connection from the node.
    Tcp(Endpoint),
    /// `grpc`: a call of `grpc.health.v1.Health/Check`.
    Grpc {
        /// Port of the pod.
        port: u16,
        /// Name of the service to check; may be empty.
        service: String,
    },
}

/// `httpGet`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpGet {
    /// Host and port of the request.
    pub to: Endpoint,
    /// `scheme: HTTPS`; the certificate is not verified.
    pub is_https: bool,
    /// `path`: path and query, with a slash at the front.
    pub path: String,
    /// `httpHeaders`.
    pub headers: Vec<(String, String)>,
}

/// Target of a hook or probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `host`; `None` is the pod's address.
    pub host: Option<String>,
    /// `port`.
    pub port: TargetPort,
}

/// Port of a hook or probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPort {
    /// Port number, given or that of the container's port of the given name.
    Number(u16),
    /// Name that no port of the container has.
    Unknown(String),
}

impl Endpoint {
    /// Returns the host for a URL or a connection; `pod` is the pod's address.
    #[must_use]
    pub fn host(&self, pod: IpAddr) -> String {
        self.host.clone().unwrap_or_else(|| pod.to_string())
    }
}
