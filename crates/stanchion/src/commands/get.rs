//! `stanchion get`, `events`

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use http_body_util::BodyExt;
use hyper::Method;
use serde_json::json;
use stanchion_agent::{
    removed::REMOVED_AT,
    view::{BackendView, EventView, NodeView, PodView, RemovedView, SourceView},
};

use crate::{
    client::Client,
    table::{Summary, age, print, row, summary},
};

/// Options of `get`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// pods, nodes, events, manifests or backends
    kind: String,
    /// Only this one
    name: Option<String>,
    /// Only this namespace
    #[arg(short, long)]
    namespace: Option<String>,
    /// All namespaces (the default)
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// wide, json, yaml or name
    #[arg(short, long, value_parser = ["wide", "json", "yaml", "name"])]
    output: Option<String>,
    /// Print again whenever something changes
    #[arg(short, long, conflicts_with = "show_removed")]
    watch: bool,
    /// Pods that were removed too, as they were last
    #[arg(long)]
    show_removed: bool,
}

/// Options of `events`.
#[derive(Debug, clap::Args)]
pub struct EventOptions {
    /// Print new ones as they happen
    #[arg(short, long)]
    watch: bool,
}

/// Shows things.
pub fn run(client: &Client, options: &Options) -> Result<ExitCode> {
    client.block_on(async {
        match options.kind.as_str() {
            "pods" | "pod" | "po" => pods(client, options).await,
            "nodes" | "node" | "no" => nodes(client, options).await,
            "events" | "event" | "ev" => show_events(client, options.watch, options.output.as_deref()).await,
            "manifests" | "manifest" | "sources" => manifests(client).await,
            "backends" | "backend" => super::backends::show(client, options.output.as_deref()).await,
            other => bail!("unknown resource {other:?}; there are pods, nodes, events, manifests and backends"),
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Shows events.
pub fn events(client: &Client, options: &EventOptions) -> Result<ExitCode> {
    client.block_on(show_events(client, options.watch, None))?;
    Ok(ExitCode::SUCCESS)
}

async fn pods(client: &Client, options: &Options) -> Result<()> {
    if options.show_removed {
        return with_removed(client, options).await;
    }
    if let Some(name) = &options.name {
        let pod = client.find(name, options.namespace.as_deref()).await?;
        return match options.output.as_deref() {
            Some("json") => typed(&pod).and_then(|pod| json(&pod)),
            Some("yaml") => typed(&pod).and_then(|pod| yaml(&pod)),
            output => show_pods(client, &[pod], output).await,
        };
    }
    if options.watch {
        let mut lines = Lines::open(client, "/v1/pods?watch=true").await?;
        while let Some(line) = lines.next().await? {
            let pods: Vec<PodView> = serde_json::from_slice(&line).context("the agent's answer cannot be read")?;
            show_pods(client, &wanted(pods, options), options.output.as_deref()).await?;
        }
        return Ok(());
    }
    let pods = wanted(client.get("/v1/pods").await?, options);
    show_pods(client, &pods, options.output.as_deref()).await
}

/// Pods and after them those that were removed, of which `REMOVED` says when.
async fn with_removed(client: &Client, options: &Options) -> Result<()> {
    let mut pods = wanted(client.get("/v1/pods").await?, options);
    let mut removed: Vec<RemovedView> = client.get("/v1/removed").await?;
    if let Some(name) = &options.name {
        let is_meant = client.meant(name, options.namespace.as_deref()).await?;
        pods.retain(|pod| is_meant(&pod.pod.metadata));
        removed.retain(|pod| is_meant(&pod.pod.metadata));
    }
    pods.extend(wanted(removed.into_iter().map(PodView::from).collect(), options));
    show_pods(client, &pods, options.output.as_deref()).await
}

fn wanted(mut pods: Vec<PodView>, options: &Options) -> Vec<PodView> {
    let namespace = options.namespace.as_deref().filter(|_| !options.all_namespaces);
    pods.retain(|pod| namespace.is_none_or(|it| pod.pod.metadata.namespace.as_deref() == Some(it)));
    pods
}

/// A pod with its type, as kubectl shows one.
fn typed(pod: &PodView) -> Result<serde_json::Value> {
    let mut value = serde_json::to_value(&pod.pod)?;
    if let Some(object) = value.as_object_mut() {
        object.insert("apiVersion".to_owned(), "v1".into());
        object.insert("kind".to_owned(), "Pod".into());
    }
    Ok(value)
}

pub(super) fn json(value: &serde_json::Value) -> Result<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

pub(super) fn yaml(value: &serde_json::Value) -> Result<()> {
    let text = stanchion_pod::to_yaml(value).map_err(|problem| anyhow::anyhow!("{problem}"))?;
    print!("{text}");
    Ok(())
}

pub(super) fn list(items: Vec<serde_json::Value>) -> serde_json::Value {
    json!({ "apiVersion": "v1", "kind": "List", "metadata": {}, "items": items })
}

async fn show_pods(client: &Client, pods: &[PodView], output: Option<&str>) -> Result<()> {
    let name = |pod: &PodView| pod.pod.metadata.name.clone().unwrap_or_default();
    match output {
        Some("json") => {
            let items = pods.iter().map(typed).collect::<Result<_>>()?;
            json(&list(items))?;
            return Ok(());
        }
        Some("yaml") => return yaml(&list(pods.iter().map(typed).collect::<Result<_>>()?)),
        Some("name") => {
            pods.iter().for_each(|pod| println!("pod/{}", name(pod)));
            return Ok(());
        }
        _ => {}
    }
    let wide = output == Some("wide");
    let mut head = row(["NAMESPACE", "NAME", "READY", "STATUS", "RESTARTS", "AGE"]);
    if wide {
        head.extend(row(["IP", "BACKEND", "MANIFEST"]));
    }
    let removed_at = |pod: &PodView| pod.pod.metadata.annotations.as_ref()?.get(REMOVED_AT)?.parse().ok();
    let any_removed = pods.iter().any(|pod| removed_at(pod).is_some());
    if any_removed {
        head.push("REMOVED".to_owned());
    }
    let mut rows = vec![head];
    for pod in pods {
        let created = pod.pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
        let namespace = pod.pod.metadata.namespace.clone().unwrap_or_default();
        let Summary { ready, status, restarts } = summary(pod);
        let mut cells = vec![namespace, name(pod), ready, status, restarts, age(created)];
        if wide {
            let ip = pod.pod.status.as_ref().and_then(|status| status.pod_ip.clone());
            cells.extend([ip.unwrap_or_else(|| "<none>".to_owned()), pod.backend.clone(), pod.manifest.clone()]);
        }
        if any_removed {
            cells.push(removed_at(pod).map_or_else(|| "-".to_owned(), |at| age(Some(at))));
        }
        rows.push(cells);
    }
    let sources: Vec<SourceView> = client.get("/v1/sources").await?;
    let broken: Vec<_> =
        sources.iter().flat_map(|source| &source.manifests).filter(|it| !it.problems.is_empty()).collect();
    for manifest in broken.iter().filter(|manifest| manifest.pods.is_empty()) {
        rows.push(row(["-", &manifest.path, "0/0", "ManifestInvalid", "0", "-"]));
    }
    match rows.len() {
        1 => eprintln!("No pods found."),
        _ => print(&rows),
    }
    for source in &sources {
        if let Some(error) = &source.error {
            eprintln!("source {}: {error}; its pods run on as they are", source.location);
        }
    }
    for manifest in broken {
        for problem in &manifest.problems {
            eprintln!("manifest {}: {problem}", manifest.path);
        }
    }
    Ok(())
}

async fn nodes(client: &Client, options: &Options) -> Result<()> {
    let node: NodeView = client.get("/v1/node").await?;
    let backends: Vec<BackendView> = client.get("/v1/backends").await?;
    if matches!(options.output.as_deref(), Some("json" | "yaml")) {
        let value = list(vec![serde_json::to_value(&node)?]);
        return match options.output.as_deref() {
            Some("yaml") => yaml(&value),
            _ => json(&value),
        };
    }
    let is_ready = backends.iter().any(|backend| backend.error.is_none() && !backend.runtime.is_empty());
    let state = if is_ready { "Ready" } else { "NotReady" };
    let info = |key: &str| node.info.get(key).cloned().unwrap_or_default();
    let cells =
        [node.name.clone(), state.to_owned(), age(node.started_at), node.version.clone(), info("kernelVersion")];
    print(&[row(["NAME", "STATUS", "AGENT-AGE", "VERSION", "KERNEL"]), cells.to_vec()]);
    Ok(())
}

async fn show_events(client: &Client, watch: bool, output: Option<&str>) -> Result<()> {
    if output == Some("json") {
        let events: Vec<serde_json::Value> = client.get("/v1/events").await?;
        json(&list(events))?;
        return Ok(());
    }
    let show = |events: &[EventView], head: bool| {
        let mut rows = Vec::new();
        if head {
            rows.push(row(["LAST SEEN", "TYPE", "REASON", "OBJECT", "COUNT", "MESSAGE"]));
        }
        for event in events {
            let kind = format!("{:?}", event.kind);
            let cells = [
                age(Some(event.last)),
                kind,
                event.reason.clone(),
                event.object.clone(),
                event.count.to_string(),
                event.message.clone(),
            ];
            rows.push(cells.to_vec());
        }
        print(&rows);
    };
    if !watch {
        show(&client.get::<Vec<EventView>>("/v1/events").await?, true);
        return Ok(());
    }
    let mut lines = Lines::open(client, "/v1/events?watch=true").await?;
    let mut first = true;
    while let Some(line) = lines.next().await? {
        show(&serde_json::from_slice::<Vec<EventView>>(&line).context("the agent's answer cannot be read")?, first);
        first = false;
    }
    Ok(())
}

async fn manifests(client: &Client) -> Result<()> {
    let sources: Vec<SourceView> = client.get("/v1/sources").await?;
    let mut rows = vec![row(["MANIFEST", "STATE", "PODS", "PROBLEM"])];
    for source in sources {
        if let Some(error) = source.error {
            rows.push(row([&source.location, "Unreadable", "", &error]));
        }
        if let Some(notice) = source.notice {
            rows.push(row([&source.location, "Unwatched", "", &notice]));
        }
        for manifest in source.manifests {
            let problems: Vec<_> =
                manifest.problems.iter().chain(&manifest.warnings).map(ToString::to_string).collect();
            let state = if manifest.problems.is_empty() { "Valid" } else { "Invalid" };
            rows.push(row([&manifest.path, state, &manifest.pods.join(","), &problems.join("; ")]));
        }
    }
    print(&rows);
    Ok(())
}

/// Lines of an answer that goes on.
struct Lines {
    body: hyper::body::Incoming,
    rest: Vec<u8>,
}

impl Lines {
    async fn open(client: &Client, path: &str) -> Result<Self> {
        let answer = client.send(Method::GET, path, &[]).await?;
        Ok(Self { body: answer.into_body(), rest: Vec::new() })
    }

    async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let tail = self.rest.split_off(end + 1);
                return Ok(Some(std::mem::replace(&mut self.rest, tail)));
            }
            let Some(frame) = self.body.frame().await else { return Ok(None) };
            if let Ok(data) = frame.context("the agent went away")?.into_data() {
                self.rest.extend(data);
            }
        }
    }
}
