//! Restart rules, hooks and probes.

use std::time::Duration;

use k8s_openapi::{api::core::v1 as wire, apimachinery::pkg::util::intstr::IntOrString};

use super::seconds;
use crate::{
    Check, Endpoint, Hook, HttpGet, Port, Probe, Problem, Restart, RestartAction, RestartPolicy, RestartRule,
    TargetPort,
};

pub(super) fn restart_policy(text: Option<&str>) -> Option<RestartPolicy> {
    match text {
        Some("Always") => Some(RestartPolicy::Always),
        Some("OnFailure") => Some(RestartPolicy::OnFailure),
        Some("Never") => Some(RestartPolicy::Never),
        _ => None,
    }
}

pub(super) fn restart(wire: &wire::Container) -> Option<Restart> {
    let policy = restart_policy(wire.restart_policy.as_deref())?;
    Some(Restart { policy, rules: wire.restart_policy_rules.iter().flatten().filter_map(rule).collect() })
}

fn rule(wire: &wire::ContainerRestartRule) -> Option<RestartRule> {
    let codes = wire.exit_codes.as_ref()?;
    Some(RestartRule {
        action: if wire.action == "RestartAllContainers" { RestartAction::Pod } else { RestartAction::Container },
        codes: codes.values.clone().unwrap_or_default(),
        is_in: codes.operator == "In",
    })
}

/// Returns warnings about fields that are accepted and never work, as in Kubernetes (R-HOOK-7, R-CND-6).
pub(crate) fn doubts(spec: &wire::PodSpec) -> Vec<Problem> {
    let kinds =
        [("containers", &spec.containers[..]), ("initContainers", spec.init_containers.as_deref().unwrap_or(&[]))];
    let mut doubts = Vec::new();
    for (kind, containers) in kinds {
        for (index, lifecycle) in containers.iter().enumerate().filter_map(|(i, it)| Some((i, it.lifecycle.as_ref()?)))
        {
            for (name, hook) in [("postStart", &lifecycle.post_start), ("preStop", &lifecycle.pre_stop)] {
                if hook.as_ref().is_some_and(|hook| hook.tcp_socket.is_some()) {
                    let field = format!("spec.{kind}[{index}].lifecycle.{name}.tcpSocket");
                    let message = "always fails, as in Kubernetes; use exec or httpGet".to_owned();
                    doubts.push(Problem { field, message, ..Problem::default() });
                }
            }
        }
    }
    if spec.readiness_gates.as_ref().is_some_and(|gates| !gates.is_empty()) {
        let message = "nobody on a lone node sets these conditions: the pod runs and is never Ready".to_owned();
        doubts.push(Problem { field: "spec.readinessGates".to_owned(), message, ..Problem::default() });
    }
    doubts
}

/// Builds the hooks and probes of one container: knows its ports, and expands its variables.
pub(super) struct Context<'a> {
    pub ports: &'a [Port],
    pub expand: &'a dyn Fn(&str) -> String,
}

impl Context<'_> {
    pub(super) fn hook(&self, wire: &wire::LifecycleHandler) -> Option<Hook> {
        match (&wire.exec, &wire.http_get, &wire.sleep) {
            // The command of a hook is not expanded, unlike that of a probe.
            (Some(exec), _, _) => Some(Hook::Exec(exec.command.clone().unwrap_or_default())),
            (_, Some(get), _) => Some(Hook::Http(self.http(get))),
            (_, _, Some(sleep)) => Some(Hook::Sleep(seconds(Some(sleep.seconds)))),
            _ => wire.tcp_socket.as_ref().map(|tcp| Hook::Tcp(self.endpoint(tcp.host.as_ref(), &tcp.port))),
        }
    }

    pub(super) fn probe(&self, wire: &wire::Probe) -> Option<Probe> {
        let check = match (&wire.exec, &wire.http_get, &wire.tcp_socket, &wire.grpc) {
            (Some(exec), ..) => Check::Exec(exec.command.iter().flatten().map(|word| (self.expand)(word)).collect()),
            (_, Some(get), ..) => Check::Http(self.http(get)),
            (_, _, Some(tcp), _) => Check::Tcp(self.endpoint(tcp.host.as_ref(), &tcp.port)),
            (_, _, _, Some(grpc)) => Check::Grpc {
                port: u16::try_from(grpc.port).unwrap_or_default(),
                service: grpc.service.clone().unwrap_or_default(),
            },
            _ => return None,
        };
        let count = |number: Option<i32>, default: u32| number.map_or(default, i32::unsigned_abs).max(1);
        let at_least_one = |number: Option<i32>, default: u32| Duration::from_secs(count(number, default).into());
        Some(Probe {
            check,
            initial_delay: seconds(wire.initial_delay_seconds.map(i64::from)),
            period: at_least_one(wire.period_seconds, 10),
            timeout: at_least_one(wire.timeout_seconds, 1),
            success_threshold: count(wire.success_threshold, 1),
            failure_threshold: count(wire.failure_threshold, 3),
            grace: wire.termination_grace_period_seconds.map(|grace| seconds(Some(grace))),
        })
    }

    fn http(&self, wire: &wire::HTTPGetAction) -> HttpGet {
        let path = wire.path.as_deref().unwrap_or_default();
        HttpGet {
            to: self.endpoint(wire.host.as_ref(), &wire.port),
            is_https: wire.scheme.as_deref() == Some("HTTPS"),
            path: if path.starts_with('/') { path.to_owned() } else { format!("/{path}") },
            headers: wire.http_headers.iter().flatten().map(|it| (it.name.clone(), it.value.clone())).collect(),
        }
    }

    fn endpoint(&self, host: Option<&String>, port: &IntOrString) -> Endpoint {
        let number = |name: &str| self.ports.iter().find(|port| port.name.as_deref() == Some(name));
        let port = match port {
            IntOrString::Int(number) => TargetPort::Number(u16::try_from(*number).unwrap_or_default()),
            IntOrString::String(name) => match (number(name), name.parse()) {
                (Some(port), _) => TargetPort::Number(port.container_port),
                (None, Ok(number)) => TargetPort::Number(number),
                (None, Err(_)) => TargetPort::Unknown(name.clone()),
            },
        };
        Endpoint { host: host.filter(|host| !host.is_empty()).cloned(), port }
    }
}
