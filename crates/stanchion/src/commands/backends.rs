//! `stanchion backends`

use std::process::ExitCode;

use anyhow::{Result, bail};
use serde_json::Value;
use stanchion_board::view::BackendView;

use super::get::encoded;
use crate::{
    client::Client,
    table::{age, aligned, row, shown},
};

/// Options of `backends`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// wide, json, yaml or name
    #[arg(short, long, value_parser = ["wide", "json", "yaml", "name"])]
    output: Option<String>,
}

/// Shows backends.
pub fn run(client: &Client, options: &Options) -> Result<ExitCode> {
    client.block_on(show(client, None, options.output.as_deref()))?;
    Ok(ExitCode::SUCCESS)
}

/// Shows backends, or the one of that name.
pub async fn show(client: &Client, name: Option<&str>, output: Option<&str>) -> Result<()> {
    let backends = client.get("/v1/backends").await?;
    print!("{}", text(backends, name, output)?);
    Ok(())
}

pub(super) fn text(mut backends: Vec<BackendView>, name: Option<&str>, output: Option<&str>) -> Result<String> {
    backends.retain(|backend| name.is_none_or(|name| backend.name == name));
    if let (Some(name), true) = (name, backends.is_empty()) {
        bail!("backend {name:?} not found; see: stanchion get backends");
    }
    let values = || Ok(backends.iter().map(serde_json::to_value).collect::<Result<_, _>>()?);
    if let Some(text) = encoded(output, values)? {
        return Ok(text);
    }
    if output == Some("name") {
        return Ok(backends.iter().map(|backend| format!("backend/{}\n", shown(&backend.name))).collect());
    }
    let wide = output == Some("wide");
    let mut head = row(["NAME", "HEALTH", "PODS", "RUNTIME", "LIBRARY-VERSION", "ABI", "SINCE"]);
    if wide {
        head.extend(row(["LIBRARY", "CAPABILITIES"]));
    }
    // The reason is the last column, because it can be long.
    head.push("REASON".to_owned());
    let mut rows = vec![head];
    for backend in &backends {
        let health = if backend.error.is_none() && !backend.runtime.is_empty() { "Ready" } else { "Unavailable" };
        let runtime = format!("{} {}", backend.runtime, backend.runtime_version);
        let (pods, since) = (backend.pods.to_string(), age(backend.since));
        let mut cells = row([&backend.name, health, &pods, runtime.trim(), &backend.version, &backend.abi, &since]);
        if wide {
            cells.extend([backend.library.display().to_string(), capabilities(backend)?]);
        }
        cells.push(reason(backend));
        rows.push(cells);
    }
    Ok(aligned(&rows))
}

fn reason(backend: &BackendView) -> String {
    let state = Some(&backend.health).filter(|health| !health.state.is_empty());
    let state = state.map(|health| format!("{}: {}", health.state, health.message));
    state.into_iter().chain(backend.error.clone()).collect::<Vec<_>>().join("; ")
}

/// Returns the backend's capabilities under the contract's names.
fn capabilities(backend: &BackendView) -> Result<String> {
    let all = serde_json::to_value(backend.capabilities)?;
    let able = all.as_object().into_iter().flatten().filter(|(_, able)| **able == Value::Bool(true));
    let able: Vec<_> = able.map(|(name, _)| name.as_str()).collect();
    Ok(if able.is_empty() { "<none>".to_owned() } else { able.join(",") })
}
