//! `stanchion get`, `events`

#[cfg(test)]
mod tests;

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use http_body_util::BodyExt;
use hyper::Method;
use serde_json::json;
use stanchion_board::view::{BackendView, EventView, NodeView, PodView, REMOVED_AT, RemovedView, SourceView};
use stanchion_untrusted::text::escaped_json;

use crate::{
    client::Client,
    table::{Summary, age, aligned, print, row, shown, summary},
};

/// Options of `get`.
#[derive(Debug, Default, clap::Args)]
pub struct Options {
    /// pods, nodes, events, manifests or backends
    kind: String,
    /// Only this one
    name: Option<String>,
    /// Only this namespace
    #[arg(short, long)]
    namespace: Option<String>,
    /// All namespaces (the default), whatever `--namespace` says, as with kubectl
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

/// Kinds of resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Pods,
    Nodes,
    Events,
    Manifests,
    Backends,
}

impl Kind {
    const ALL: [Self; 5] = [Self::Pods, Self::Nodes, Self::Events, Self::Manifests, Self::Backends];

    /// Returns the names of the kind, the usual one first.
    const fn names(self) -> &'static [&'static str] {
        match self {
            Self::Pods => &["pods", "pod", "po"],
            Self::Nodes => &["nodes", "node", "no"],
            Self::Events => &["events", "event", "ev"],
            Self::Manifests => &["manifests", "manifest", "sources"],
            Self::Backends => &["backends", "backend"],
        }
    }

    /// Returns the arguments that the kind supports; the command refuses any other.
    const fn heeds(self) -> &'static [&'static str] {
        match self {
            Self::Pods => &["NAME", "--namespace", "--all-namespaces", "--output", "--watch", "--show-removed"],
            Self::Events => &["--namespace", "--all-namespaces", "--output", "--watch"],
            Self::Nodes | Self::Manifests | Self::Backends => &["NAME", "--output"],
        }
    }

    /// Returns the requested kind if it supports all given arguments.
    fn of(options: &Options) -> Result<Self> {
        let wanted = options.kind.as_str();
        let Some(kind) = Self::ALL.into_iter().find(|kind| kind.names().contains(&wanted)) else {
            bail!("unknown resource {wanted:?}; there are pods, nodes, events, manifests and backends")
        };
        let given = [
            ("NAME", options.name.is_some()),
            ("--namespace", options.namespace.is_some()),
            ("--all-namespaces", options.all_namespaces),
            ("--output", options.output.is_some()),
            ("--watch", options.watch),
            ("--show-removed", options.show_removed),
        ];
        let plural = kind.names()[0];
        if let Some((argument, _)) = given.into_iter().find(|(it, is_given)| *is_given && !kind.heeds().contains(it)) {
            bail!("get {plural} takes no {argument}; it takes: {}", kind.heeds().join(", "));
        }
        if kind == Self::Events && options.output.as_deref() == Some("name") {
            bail!("get events takes no --output name: events have no names");
        }
        if options.name.is_some() && options.all_namespaces {
            bail!("a resource cannot be retrieved by name across all namespaces; leave out NAME or --all-namespaces");
        }
        Ok(kind)
    }
}

/// Shows resources.
pub fn run(client: &Client, options: &Options) -> Result<ExitCode> {
    let kind = Kind::of(options)?;
    client.block_on(async {
        match kind {
            Kind::Pods => pods(client, options).await,
            Kind::Nodes => {
                let (node, backends) = (client.get("/v1/node").await?, client.get::<Vec<_>>("/v1/backends").await?);
                nodes(&node, &backends, options).map(|text| print!("{text}"))
            }
            Kind::Events => show_events(client, options).await,
            Kind::Manifests => {
                manifests(&client.get::<Vec<_>>("/v1/sources").await?, options).map(|text| print!("{text}"))
            }
            Kind::Backends => super::backends::show(client, options.name.as_deref(), options.output.as_deref()).await,
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Shows events.
pub fn events(client: &Client, options: &EventOptions) -> Result<ExitCode> {
    let options = Options { kind: "events".to_owned(), watch: options.watch, ..Options::default() };
    client.block_on(show_events(client, &options))?;
    Ok(ExitCode::SUCCESS)
}

async fn pods(client: &Client, options: &Options) -> Result<()> {
    if options.show_removed {
        return with_removed(client, options).await;
    }
    if options.watch {
        let is_meant = match &options.name {
            Some(name) => Some(client.meant(name, options.namespace.as_deref()).await?),
            None => None,
        };
        let mut lines = Lines::open(client, "/v1/pods?watch=true").await?;
        let mut last = None;
        while let Some(line) = lines.next().await? {
            let pods: Vec<PodView> = serde_json::from_slice(&line).context("the agent's answer cannot be read")?;
            let mut pods = wanted(pods, options);
            pods.retain(|pod| is_meant.as_ref().is_none_or(|is_meant| is_meant(&pod.pod.metadata)));
            // Changes of other pods print nothing.
            if last.as_ref() != Some(&pods) {
                show_pods(client, &pods, options).await?;
                last = Some(pods);
            }
        }
        return Ok(());
    }
    if let Some(name) = &options.name {
        let pod = client.find(name, options.namespace.as_deref()).await?;
        return match options.output.as_deref() {
            Some("json") => typed(&pod).and_then(|pod| json(&pod)),
            Some("yaml") => typed(&pod).and_then(|pod| yaml(&pod)),
            _ => show_pods(client, &[pod], options).await,
        };
    }
    let pods = wanted(client.get("/v1/pods").await?, options);
    show_pods(client, &pods, options).await
}

/// Shows pods, and after them the removed ones with a column `REMOVED`.
async fn with_removed(client: &Client, options: &Options) -> Result<()> {
    let mut pods = wanted(client.get("/v1/pods").await?, options);
    let mut removed: Vec<RemovedView> = client.get("/v1/removed").await?;
    if let Some(name) = &options.name {
        let is_meant = client.meant(name, options.namespace.as_deref()).await?;
        pods.retain(|pod| is_meant(&pod.pod.metadata));
        removed.retain(|pod| is_meant(&pod.pod.metadata));
    }
    pods.extend(wanted(removed.into_iter().map(PodView::from).collect(), options));
    show_pods(client, &pods, options).await
}

fn wanted(mut pods: Vec<PodView>, options: &Options) -> Vec<PodView> {
    let namespace = options.namespace.as_deref().filter(|_| !options.all_namespaces);
    pods.retain(|pod| namespace.is_none_or(|it| pod.pod.metadata.namespace.as_deref() == Some(it)));
    pods
}

/// Returns a pod with `apiVersion` and `kind`, as kubectl shows it.
fn typed(pod: &PodView) -> Result<serde_json::Value> {
    let mut value = serde_json::to_value(&pod.pod)?;
    if let Some(object) = value.as_object_mut() {
        object.insert("apiVersion".to_owned(), "v1".into());
        object.insert("kind".to_owned(), "Pod".into());
    }
    Ok(value)
}

pub(super) fn json(value: &serde_json::Value) -> Result<()> {
    println!("{}", escaped_json(&serde_json::to_string_pretty(value)?));
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

async fn show_pods(client: &Client, pods: &[PodView], options: &Options) -> Result<()> {
    let output = options.output.as_deref();
    let name = |pod: &PodView| pod.pod.metadata.name.clone().unwrap_or_default();
    match output {
        Some("json") => {
            let items = pods.iter().map(typed).collect::<Result<_>>()?;
            json(&list(items))?;
            return Ok(());
        }
        Some("yaml") => return yaml(&list(pods.iter().map(typed).collect::<Result<_>>()?)),
        Some("name") => {
            pods.iter().for_each(|pod| println!("pod/{}", shown(&name(pod))));
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
            eprintln!("source {}: {}; its pods keep running unchanged", shown(&source.location), shown(error));
        }
    }
    for manifest in broken {
        for problem in &manifest.problems {
            eprintln!("manifest {}: {}", shown(&manifest.path), shown(&problem.to_string()));
        }
    }
    Ok(())
}

/// Encodes values in the requested format; `None` for tables.
pub(super) fn encoded(
    output: Option<&str>,
    items: impl FnOnce() -> Result<Vec<serde_json::Value>>,
) -> Result<Option<String>> {
    Ok(match output {
        Some("json") => Some(escaped_json(&serde_json::to_string_pretty(&list(items()?))?) + "\n"),
        Some("yaml") => Some(stanchion_pod::to_yaml(&list(items()?)).map_err(|problem| anyhow::anyhow!("{problem}"))?),
        _ => None,
    })
}

fn nodes(node: &NodeView, backends: &[BackendView], options: &Options) -> Result<String> {
    if let Some(name) = options.name.as_ref().filter(|name| **name != node.name) {
        bail!("nodes {name:?} not found; this node is {:?}", node.name);
    }
    let output = options.output.as_deref();
    if let Some(text) = encoded(output, || Ok(vec![serde_json::to_value(node)?]))? {
        return Ok(text);
    }
    if output == Some("name") {
        return Ok(format!("node/{}\n", shown(&node.name)));
    }
    let is_ready = backends.iter().any(|backend| backend.error.is_none() && !backend.runtime.is_empty());
    let state = if is_ready { "Ready" } else { "NotReady" };
    let info = |key: &str| node.info.get(key).cloned().unwrap_or_default();
    let mut head = row(["NAME", "STATUS", "AGENT-AGE", "VERSION", "KERNEL"]);
    let mut cells = row([&node.name, state, &age(node.started_at), &node.version, &info("kernelVersion")]);
    if output == Some("wide") {
        head.extend(row(["OS", "ARCH", "LOGS"]));
        cells.extend([info("operatingSystem"), info("architecture"), node.log_dir.display().to_string()]);
    }
    Ok(aligned(&[head, cells]))
}

/// Keeps the events of the requested namespace.
fn wanted_events(mut events: Vec<EventView>, options: &Options) -> Vec<EventView> {
    if let Some(namespace) = options.namespace.as_deref().filter(|_| !options.all_namespaces) {
        // Objects are `Pod/namespace/name`; manifests and backends have no namespace.
        events.retain(|event| event.object.strip_prefix("Pod/").and_then(|it| it.split('/').next()) == Some(namespace));
    }
    events
}

fn event_table(events: &[EventView], output: Option<&str>, has_head: bool) -> String {
    let wide = output == Some("wide");
    let mut rows = Vec::new();
    if has_head {
        let mut head = row(["LAST SEEN", "TYPE", "REASON", "OBJECT", "COUNT"]);
        if wide {
            head.extend(row(["SUBOBJECT", "FIRST SEEN"]));
        }
        head.push("MESSAGE".to_owned());
        rows.push(head);
    }
    for event in events {
        let kind = format!("{:?}", event.kind);
        let mut cells = row([&age(Some(event.last)), &kind, &event.reason, &event.object, &event.count.to_string()]);
        if wide {
            cells.extend([event.field.clone(), age(Some(event.first))]);
        }
        cells.push(event.message.clone());
        rows.push(cells);
    }
    aligned(&rows)
}

fn event_list(events: &[EventView], output: Option<&str>) -> Result<String> {
    let values = || Ok(events.iter().map(serde_json::to_value).collect::<Result<_, _>>()?);
    Ok(encoded(output, values)?.unwrap_or_else(|| event_table(events, output, true)))
}

async fn show_events(client: &Client, options: &Options) -> Result<()> {
    let output = options.output.as_deref();
    if !options.watch {
        let events = wanted_events(client.get("/v1/events").await?, options);
        print!("{}", event_list(&events, output)?);
        return Ok(());
    }
    let mut lines = Lines::open(client, "/v1/events?watch=true").await?;
    let mut first = true;
    while let Some(line) = lines.next().await? {
        let events = serde_json::from_slice(&line).context("the agent's answer cannot be read")?;
        let events = wanted_events(events, options);
        match output {
            // kubectl writes one document after another too.
            Some("json" | "yaml") => {
                for event in &events {
                    let value = serde_json::to_value(event)?;
                    if output == Some("json") {
                        json(&value)?;
                    } else {
                        println!("---");
                        yaml(&value)?;
                    }
                }
            }
            _ => print!("{}", event_table(&events, output, first)),
        }
        first = false;
    }
    Ok(())
}

fn manifests(sources: &[SourceView], options: &Options) -> Result<String> {
    let all = sources.iter().flat_map(|source| source.manifests.iter().map(move |manifest| (source, manifest)));
    let name = options.name.as_deref();
    let found: Vec<_> = all.filter(|(_, manifest)| name.is_none_or(|name| manifest.path == name)).collect();
    if let (Some(name), true) = (name, found.is_empty()) {
        bail!("manifest {name:?} not found; see: stanchion get manifests");
    }
    let output = options.output.as_deref();
    let value = |source: &SourceView, manifest| {
        let mut value = serde_json::to_value(manifest)?;
        if let Some(object) = value.as_object_mut() {
            object.insert("source".to_owned(), source.location.clone().into());
        }
        anyhow::Ok(value)
    };
    let unreadable = || sources.iter().filter(|source| source.error.is_some() && name.is_none());
    let values = || {
        let broken = unreadable()
            .map(|source| Ok(json!({ "source": source.location, "error": source.error, "since": source.since })));
        broken.chain(found.iter().map(|(source, manifest)| value(source, manifest))).collect()
    };
    if let Some(text) = encoded(output, values)? {
        return Ok(text);
    }
    if output == Some("name") {
        return Ok(found.iter().map(|(_, manifest)| format!("manifest/{}\n", shown(&manifest.path))).collect());
    }
    let wide = output == Some("wide");
    let extended = |mut cells: Vec<String>, more: [&str; 2], last: &str| {
        if wide {
            cells.extend(row(more));
        }
        cells.push(last.to_owned());
        cells
    };
    let mut rows = vec![extended(row(["MANIFEST", "STATE", "PODS"]), ["SOURCE", "OBJECTS"], "PROBLEM")];
    for source in unreadable() {
        let error = source.error.as_deref().unwrap_or_default();
        rows.push(extended(row([&source.location, "Unreadable", ""]), [&source.location, ""], error));
    }
    for source in sources.iter().filter(|_| name.is_none()) {
        if let Some(notice) = &source.notice {
            rows.push(extended(row([&source.location, "Unwatched", ""]), [&source.location, ""], notice));
        }
    }
    for (source, manifest) in found {
        let problems: Vec<_> = manifest.problems.iter().chain(&manifest.warnings).map(ToString::to_string).collect();
        let state = if manifest.problems.is_empty() { "Valid" } else { "Invalid" };
        let cells = row([&manifest.path, state, &manifest.pods.join(",")]);
        rows.push(extended(cells, [&source.location, &manifest.objects.join(",")], &problems.join("; ")));
    }
    Ok(aligned(&rows))
}

/// Lines of an answer that goes on while the agent watches.
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
