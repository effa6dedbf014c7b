//! Validates probes and hooks as the API server does.

use k8s_openapi::{
    api::core::v1::{
        Container, ExecAction, GRPCAction, HTTPGetAction, Lifecycle, LifecycleHandler, Probe, SleepAction,
        TCPSocketAction,
    },
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{format::header_name, path::Path, ports::number_or_name, problems::Problems, spec::Pod};

/// Signals that a Linux container may have as its `stopSignal`.
const SIGNALS: [&str; 65] = [
    "SIGABRT",
    "SIGALRM",
    "SIGBUS",
    "SIGCHLD",
    "SIGCLD",
    "SIGCONT",
    "SIGFPE",
    "SIGHUP",
    "SIGILL",
    "SIGINT",
    "SIGIO",
    "SIGIOT",
    "SIGKILL",
    "SIGPIPE",
    "SIGPOLL",
    "SIGPROF",
    "SIGPWR",
    "SIGQUIT",
    "SIGRTMAX",
    "SIGRTMAX-1",
    "SIGRTMAX-10",
    "SIGRTMAX-11",
    "SIGRTMAX-12",
    "SIGRTMAX-13",
    "SIGRTMAX-14",
    "SIGRTMAX-2",
    "SIGRTMAX-3",
    "SIGRTMAX-4",
    "SIGRTMAX-5",
    "SIGRTMAX-6",
    "SIGRTMAX-7",
    "SIGRTMAX-8",
    "SIGRTMAX-9",
    "SIGRTMIN",
    "SIGRTMIN+1",
    "SIGRTMIN+10",
    "SIGRTMIN+11",
    "SIGRTMIN+12",
    "SIGRTMIN+13",
    "SIGRTMIN+14",
    "SIGRTMIN+15",
    "SIGRTMIN+2",
    "SIGRTMIN+3",
    "SIGRTMIN+4",
    "SIGRTMIN+5",
    "SIGRTMIN+6",
    "SIGRTMIN+7",
    "SIGRTMIN+8",
    "SIGRTMIN+9",
    "SIGSEGV",
    "SIGSTKFLT",
    "SIGSTOP",
    "SIGSYS",
    "SIGTERM",
    "SIGTRAP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGUSR1",
    "SIGUSR2",
    "SIGVTALRM",
    "SIGWINCH",
    "SIGXCPU",
    "SIGXFSZ",
];
const WINDOWS_SIGNALS: [&str; 2] = ["SIGKILL", "SIGTERM"];

/// Checks the hooks and probes of a container that may have them.
pub(super) fn of_container(container: &Container, pod: &Pod<'_>, path: &Path<'_>, problems: &mut Problems) {
    if let Some(lifecycle) = &container.lifecycle {
        self::lifecycle(lifecycle, pod, &path.field("lifecycle"), problems);
    }
    if let Some(probe) = &container.liveness_probe {
        let path = path.field("livenessProbe");
        self::probe(probe, pod, &path, problems);
        succeeds_once(probe, &path, problems);
    }
    if let Some(probe) = &container.readiness_probe {
        let path = path.field("readinessProbe");
        self::probe(probe, pod, &path, problems);
        if let Some(grace) = probe.termination_grace_period_seconds {
            let path = path.field("terminationGracePeriodSeconds");
            problems.invalid(&path, grace, "must not be set for readinessProbes");
        }
    }
    if let Some(probe) = &container.startup_probe {
        let path = path.field("startupProbe");
        self::probe(probe, pod, &path, problems);
        succeeds_once(probe, &path, problems);
    }
}

fn succeeds_once(probe: &Probe, path: &Path<'_>, problems: &mut Problems) {
    if let Some(threshold) = probe.success_threshold.filter(|threshold| *threshold != 1) {
        problems.invalid(&path.field("successThreshold"), threshold, "must be 1");
    }
}

fn lifecycle(lifecycle: &Lifecycle, pod: &Pod<'_>, path: &Path<'_>, problems: &mut Problems) {
    for (field, hook) in [("postStart", &lifecycle.post_start), ("preStop", &lifecycle.pre_stop)] {
        if let Some(hook) = hook {
            Handler::from(hook).validate(pod, &path.field(field), problems);
        }
    }
    let Some(signal) = &lifecycle.stop_signal else { return };
    let path = path.field("stopSignal");
    match pod.os() {
        "" => problems.forbidden(&path, "may not be set for containers with empty `spec.os.name`"),
        "windows" => problems.one_of_if_set(&path, Some(signal), &WINDOWS_SIGNALS),
        _ => problems.one_of_if_set(&path, Some(signal), &SIGNALS),
    }
}

fn probe(probe: &Probe, pod: &Pod<'_>, path: &Path<'_>, problems: &mut Problems) {
    Handler::from(probe).validate(pod, path, problems);
    let numbers = [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ];
    for (field, number) in numbers {
        problems.not_negative(&path.field(field), number.unwrap_or_default().into());
    }
    if let Some(grace) = probe.termination_grace_period_seconds.filter(|grace| *grace <= 0) {
        problems.invalid(&path.field("terminationGracePeriodSeconds"), grace, "must be greater than 0");
    }
}

/// Handler of a probe or hook; exactly one field is set.
#[derive(Default)]
struct Handler<'a> {
    exec: Option<&'a ExecAction>,
    http_get: Option<&'a HTTPGetAction>,
    tcp_socket: Option<&'a TCPSocketAction>,
    grpc: Option<&'a GRPCAction>,
    sleep: Option<&'a SleepAction>,
}

impl<'a> From<&'a Probe> for Handler<'a> {
    fn from(probe: &'a Probe) -> Self {
        Self {
            exec: probe.exec.as_ref(),
            http_get: probe.http_get.as_ref(),
            tcp_socket: probe.tcp_socket.as_ref(),
            grpc: probe.grpc.as_ref(),
            sleep: None,
        }
    }
}

impl<'a> From<&'a LifecycleHandler> for Handler<'a> {
    fn from(hook: &'a LifecycleHandler) -> Self {
        Self {
            exec: hook.exec.as_ref(),
            http_get: hook.http_get.as_ref(),
            tcp_socket: hook.tcp_socket.as_ref(),
            grpc: None,
            sleep: hook.sleep.as_ref(),
        }
    }
}

impl Handler<'_> {
    fn validate(&self, pod: &Pod<'_>, path: &Path<'_>, problems: &mut Problems) {
        let is_set = [
            ("exec", self.exec.is_some()),
            ("httpGet", self.http_get.is_some()),
            ("tcpSocket", self.tcp_socket.is_some()),
            ("grpc", self.grpc.is_some()),
            ("sleep", self.sleep.is_some()),
        ];
        let mut set = is_set.into_iter().filter(|(_, is_set)| *is_set).map(|(field, _)| field);
        let Some(first) = set.next() else { return problems.required(path, "must specify a handler type") };
        self.action(first, pod, &path.field(first), problems);
        for more in set {
            problems.forbidden(&path.field(more), "may not specify more than 1 handler type");
        }
    }

    fn action(&self, kind: &str, pod: &Pod<'_>, path: &Path<'_>, problems: &mut Problems) {
        match (kind, self) {
            ("exec", Handler { exec: Some(exec), .. }) if exec.command.as_ref().is_none_or(Vec::is_empty) => {
                problems.required(&path.field("command"), "");
            }
            ("httpGet", Handler { http_get: Some(http_get), .. }) => http(http_get, path, problems),
            ("tcpSocket", Handler { tcp_socket: Some(tcp), .. }) => {
                number_or_name(&tcp.port, &path.field("port"), problems);
            }
            ("grpc", Handler { grpc: Some(grpc), .. }) => {
                number_or_name(&IntOrString::Int(grpc.port), &path.field("port"), problems);
            }
            ("sleep", Handler { sleep: Some(sleep), .. }) if !(0..=pod.grace).contains(&sleep.seconds) => {
                let grace = pod.grace;
                let detail = format_args!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
                problems.invalid(path, sleep.seconds, detail);
            }
            _ => {}
        }
    }
}

fn http(action: &HTTPGetAction, path: &Path<'_>, problems: &mut Problems) {
    if action.path.is_none() {
        problems.required(&path.field("path"), "");
    }
    number_or_name(&action.port, &path.field("port"), problems);
    problems.one_of_if_set(&path.field("scheme"), action.scheme.as_deref(), &["HTTP", "HTTPS"]);
    for header in action.http_headers.iter().flatten() {
        problems.format(&path.field("httpHeaders"), &header.name, header_name(&header.name));
    }
}
