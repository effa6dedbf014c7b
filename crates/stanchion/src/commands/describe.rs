//! `stanchion describe`

use std::process::ExitCode;

use anyhow::{Result, bail};
use stanchion_board::view::{BackendView, ContainerView, EventView, PodView, REMOVED_AT};
use stanchion_pod::k8s_openapi::{
    api::core::v1::{Container, ContainerState, ContainerStatus, Probe},
    apimachinery::pkg::util::intstr::IntOrString,
};
use stanchion_runtime::clock::now;

use crate::{
    client::Client,
    table::{age, init_statuses, print, row, shown, statuses, summary},
};

/// Options of `describe`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// pod, or pod/NAME
    kind: String,
    /// Name of the pod
    name: Option<String>,
    /// Its namespace
    #[arg(short, long)]
    namespace: Option<String>,
}

/// Shows everything about a pod.
pub fn run(client: &Client, options: &Options) -> Result<ExitCode> {
    let name = match (options.kind.as_str(), &options.name) {
        ("pod" | "pods" | "po", Some(name)) => name.clone(),
        (kind, None) if kind.contains('/') => kind.to_owned(),
        ("pod" | "pods" | "po", None) => bail!("say which pod: stanchion describe pod NAME"),
        (kind, Some(name)) if kind.contains('/') => bail!("{kind:?} names a pod already; leave out {name:?}"),
        (kind, _) => bail!("cannot describe {kind:?}; say which pod: stanchion describe pod NAME"),
    };
    client.block_on(async {
        let namespace = options.namespace.as_deref();
        let pod = match client.find(&name, namespace).await {
            Ok(pod) => pod,
            Err(error) => match client.find_removed(&name, namespace).await?.into_iter().next() {
                Some(removed) => removed.into(),
                None => return Err(error),
            },
        };
        let events: Vec<EventView> = client.get("/v1/events").await?;
        let backends: Vec<BackendView> = client.get("/v1/backends").await.unwrap_or_default();
        show(&pod, &events, backends.iter().find(|backend| backend.name == pod.backend));
        Ok(ExitCode::SUCCESS)
    })
}

fn line(label: &str, value: &str) {
    println!("{:<18}{}", format!("{label}:"), shown(value));
}

fn show(view: &PodView, events: &[EventView], backend: Option<&BackendView>) {
    let (metadata, spec) = (&view.pod.metadata, view.pod.spec.clone().unwrap_or_default());
    let report = view.pod.status.clone().unwrap_or_default();
    let name = metadata.name.clone().unwrap_or_default();
    let namespace = metadata.namespace.clone().unwrap_or_default();
    let or_none = |text: Option<String>| text.filter(|text| !text.is_empty()).unwrap_or_else(|| "<none>".to_owned());
    line("Name", &name);
    line("Namespace", &namespace);
    line("Node", &or_none(spec.node_name.clone()));
    line("Backend", &or_none(Some(view.backend.clone())));
    line("Manifest", &or_none(Some(view.manifest.clone())));
    line("UID", &or_none(metadata.uid.clone()));
    line("Start Time", &report.start_time.as_ref().map(|time| time.0.to_string()).unwrap_or_default());
    let labels = metadata.labels.iter().flatten().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>();
    if let Some(at) = metadata.annotations.as_ref().and_then(|annotations| annotations.get(REMOVED_AT)) {
        line("Removed", at);
    }
    line("Labels", &or_none(Some(labels.join(", "))));
    line("Status", &summary(view).status);
    line("QoS Class", &or_none(report.qos_class.clone()));
    line("IP", &or_none(report.pod_ip.clone()));
    if let Some(reason) = &report.reason {
        line("Reason", reason);
    }
    if let Some(message) = &report.message {
        line("Message", message);
    }
    // The network's state does not affect pods on the node's network.
    let network = backend.filter(|backend| backend.health.state.starts_with("network-"));
    if let Some(backend) = network.filter(|_| spec.host_network != Some(true)) {
        line("Network", &backend.health.message);
    }
    let kinds = [
        ("Init Containers", spec.init_containers.as_deref().unwrap_or_default(), init_statuses(view)),
        ("Containers", &spec.containers, statuses(view)),
    ];
    for (label, containers, statuses) in kinds.into_iter().filter(|(_, containers, _)| !containers.is_empty()) {
        println!("{label}:");
        for container in containers {
            let status = statuses.iter().find(|status| status.name == container.name);
            let extra = view.containers.iter().find(|extra| extra.name == container.name);
            show_container(container, status, extra);
        }
    }
    println!("Conditions:");
    let mut rows = vec![row(["  Type", "Status", "Reason", "Message"])];
    for condition in report.conditions.iter().flatten() {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        rows.push(vec![
            format!("  {}", condition.type_),
            condition.status.clone(),
            text(&condition.reason),
            text(&condition.message),
        ]);
    }
    print(&rows);
    println!("Events:");
    let object = format!("Pod/{namespace}/{name}");
    let mut rows = vec![row(["  Type", "Reason", "Age", "Count", "Message"])];
    for event in events.iter().filter(|event| event.object == object) {
        let cells = [
            format!("  {:?}", event.kind),
            event.reason.clone(),
            age(Some(event.last)),
            event.count.to_string(),
            event.message.clone(),
        ];
        rows.push(cells.to_vec());
    }
    print(&rows);
}

fn show_container(container: &Container, status: Option<&ContainerStatus>, extra: Option<&ContainerView>) {
    let detail = |label: &str, value: &str| println!("    {:<16}{}", format!("{label}:"), shown(value));
    println!("  {}:", shown(&container.name));
    detail("Image", container.image.as_deref().unwrap_or_default());
    let ports = container.ports.iter().flatten();
    let ports = ports.map(|port| format!("{}/{}", port.container_port, port.protocol.as_deref().unwrap_or("TCP")));
    detail("Ports", &ports.collect::<Vec<_>>().join(", "));
    if let Some(status) = status {
        detail("Container ID", status.container_id.as_deref().unwrap_or_default());
        detail("Image ID", &status.image_id);
        show_state("State", status.state.as_ref());
        show_state("Last State", status.last_state.as_ref());
        detail("Ready", if status.ready { "True" } else { "False" });
        detail("Restart Count", &status.restart_count.to_string());
    }
    for (label, probe) in [
        ("Liveness", &container.liveness_probe),
        ("Readiness", &container.readiness_probe),
        ("Startup", &container.startup_probe),
    ] {
        if let Some(probe) = probe {
            detail(label, &describe_probe(probe));
        }
    }
    let Some(extra) = extra else { return };
    if let Some(at) = extra.next_try {
        detail("Next Try", &format!("in {} s", at.duration_since(now()).as_secs().max(0)));
    }
    if let Some(pull) = &extra.pull {
        let percent = (u128::from(pull.received) * 100).checked_div(u128::from(pull.total)).unwrap_or(0);
        detail(
            "Image Pull",
            &format!("{percent} % ({} of {} bytes, {} layers)", pull.received, pull.total, pull.layers),
        );
    }
}

fn show_state(label: &str, state: Option<&ContainerState>) {
    let detail = |label: &str, value: &str| println!("    {:<16}{}", format!("{label}:"), shown(value));
    let more = |label: &str, value: Option<&String>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            println!("      {:<14}{}", format!("{label}:"), shown(value));
        }
    };
    let Some(state) = state else { return };
    if let Some(running) = &state.running {
        detail(label, "Running");
        more("Started", running.started_at.as_ref().map(|time| time.0.to_string()).as_ref());
    }
    if let Some(waiting) = &state.waiting {
        detail(label, "Waiting");
        more("Reason", waiting.reason.as_ref());
        more("Message", waiting.message.as_ref());
    }
    if let Some(ended) = &state.terminated {
        detail(label, "Terminated");
        more("Reason", ended.reason.as_ref());
        more("Message", ended.message.as_ref());
        more("Exit Code", Some(&ended.exit_code.to_string()));
        more("Started", ended.started_at.as_ref().map(|time| time.0.to_string()).as_ref());
        more("Finished", ended.finished_at.as_ref().map(|time| time.0.to_string()).as_ref());
    }
}

/// Formats a probe as kubectl does:
/// `http-get http://:8080/health delay=0s timeout=1s period=10s #success=1 #failure=3`.
fn describe_probe(probe: &Probe) -> String {
    let port = |port: &IntOrString| match port {
        IntOrString::Int(number) => number.to_string(),
        IntOrString::String(name) => name.clone(),
    };
    let what = match (&probe.exec, &probe.http_get, &probe.tcp_socket, &probe.grpc) {
        (Some(exec), ..) => format!("exec [{}]", exec.command.as_deref().unwrap_or_default().join(" ")),
        (_, Some(get), ..) => format!(
            "http-get {}://{}:{}{}",
            get.scheme.as_deref().unwrap_or("HTTP").to_lowercase(),
            get.host.as_deref().unwrap_or_default(),
            port(&get.port),
            get.path.as_deref().unwrap_or_default()
        ),
        (_, _, Some(tcp), _) => {
            format!("tcp-socket {}:{}", tcp.host.as_deref().unwrap_or_default(), port(&tcp.port))
        }
        (_, _, _, Some(grpc)) => format!("grpc <pod>:{} {}", grpc.port, grpc.service.as_deref().unwrap_or_default()),
        _ => "unknown".to_owned(),
    };
    format!(
        "{what} delay={}s timeout={}s period={}s #success={} #failure={}",
        probe.initial_delay_seconds.unwrap_or(0),
        probe.timeout_seconds.unwrap_or(1),
        probe.period_seconds.unwrap_or(10),
        probe.success_threshold.unwrap_or(1),
        probe.failure_threshold.unwrap_or(3)
    )
}
