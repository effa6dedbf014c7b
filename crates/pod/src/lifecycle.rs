//! What a container's life is governed by: restart rules, hooks and probes.

use std::{net::IpAddr, time::Duration};

use crate::RestartPolicy;

/// When one container is started again: what it says itself, before what its pod says (R-RSP-1).
#[derive(Clone, Debug, PartialEq)]
pub struct Restart {
    /// The container's own `restartPolicy`.
    pub policy: RestartPolicy,
    /// `restartPolicyRules`, in order: the first that matches decides.
    pub rules: Vec<RestartRule>,
}

/// One of `restartPolicyRules`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestartRule {
    /// What is done when it matches.
    pub action: RestartAction,
    /// Exit codes.
    pub codes: Vec<i32>,
    /// Whether it matches `codes`, or every code but these.
    pub is_in: bool,
}

impl RestartRule {
    /// Whether a container that ended with `code` is this rule's.
    #[must_use]
    pub fn matches(&self, code: i32) -> bool {
        self.codes.contains(&code) == self.is_in
    }
}

/// What a rule asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartAction {
    /// The container is started again.
    Container,
    /// All containers of the pod are started again, init containers first.
    Pod,
}

/// Something that is done at a point of a container's life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hook {
    /// A command in the container.
    Exec(Vec<String>),
    /// A request from the node.
    Http(HttpGet),
    /// Accepted and never fulfilled, as in Kubernetes (R-HOOK-7).
    Tcp(Endpoint),
    /// A pause.
    Sleep(Duration),
}

/// A question that is put to a container again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The question.
    pub check: Check,
    /// How long after the container's start it is put first.
    pub initial_delay: Duration,
    /// How often.
    pub period: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// How many good answers in a row make it good.
    pub success_threshold: u32,
    /// How many bad ones make it bad.
    pub failure_threshold: u32,
    /// The grace of a container that is stopped for it; `None` is the pod's.
    pub grace: Option<Duration>,
}

/// How a probe asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// A command in the container.
    Exec(Vec<String>),
    /// A request from the node.
    Http(HttpGet),
    /// A connection from the node.
    Tcp(Endpoint),
    /// `grpc.health.v1.Health/Check`.
    Grpc {
        /// In the pod.
        port: u16,
        /// The service that is asked for; may be empty.
        service: String,
    },
}

/// `httpGet`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpGet {
    /// Where.
    pub to: Endpoint,
    /// With TLS; the certificate is not looked at.
    pub is_https: bool,
    /// Path and query, with a slash at the front.
    pub path: String,
    /// `httpHeaders`.
    pub headers: Vec<(String, String)>,
}

/// Where a hook or probe turns to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `None` is the pod's address.
    pub host: Option<String>,
    /// In the pod.
    pub port: TargetPort,
}

/// A port by number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPort {
    /// The number, or that of the container's port of that name.
    Number(u16),
    /// No port of the container has this name.
    Unknown(String),
}

impl Endpoint {
    /// The host as it is written in a URL or connected to, where the pod has the address `pod`.
    #[must_use]
    pub fn host(&self, pod: IpAddr) -> String {
        self.host.clone().unwrap_or_else(|| pod.to_string())
    }
}
