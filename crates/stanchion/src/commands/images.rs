//! `stanchion images`

use std::process::ExitCode;

use anyhow::{Context, Result};
use http_body_util::BodyExt;
use hyper::Method;
use stanchion_board::view::PruneView;

use super::get::{json, list, yaml};
use crate::{
    client::Client,
    table::{print, row, shown},
};

/// What to do with images.
#[derive(Debug, clap::Subcommand)]
pub enum Action {
    /// Remove the images that the agent has pulled or imported and that no container uses and no manifest names
    Prune(Prune),
}

/// Options of `images prune`.
#[derive(Debug, clap::Args)]
pub struct Prune {
    /// Only show what would be removed
    #[arg(long)]
    dry_run: bool,
    /// json or yaml
    #[arg(short, long, value_parser = ["json", "yaml"])]
    output: Option<String>,
}

/// Runs the action.
pub fn run(client: &Client, action: &Action) -> Result<ExitCode> {
    let Action::Prune(options) = action;
    client.block_on(prune(client, options))
}

async fn prune(client: &Client, Prune { dry_run, output }: &Prune) -> Result<ExitCode> {
    let answer = client.send(Method::POST, &format!("/v1/images/prune?dry_run={dry_run}"), &[]).await?;
    let body = answer.into_body().collect().await.context("reading the agent's answer")?.to_bytes();
    let pruned: Vec<PruneView> =
        serde_json::from_slice(&body).context("the agent's answer cannot be read; is it of another version?")?;
    let items = || pruned.iter().map(serde_json::to_value).collect::<Result<_, _>>();
    match output.as_deref() {
        Some("json") => json(&list(items()?))?,
        Some("yaml") => yaml(&list(items()?))?,
        _ => show(&pruned, *dry_run),
    }
    let is_done = pruned.iter().all(|backend| backend.error.is_none());
    Ok(if is_done { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn show(pruned: &[PruneView], dry_run: bool) {
    let mut rows = vec![row(["BACKEND", "IMAGE", "RESULT"])];
    for PruneView { backend, images, .. } in pruned {
        for image in images {
            let result = match &image.kept {
                Some(why) => format!("kept: {why}"),
                None => if dry_run { "would be removed" } else { "removed" }.to_owned(),
            };
            rows.extend(image.names.iter().map(|name| row([backend, name, &result])));
        }
    }
    match rows.len() {
        1 => println!("No unused images that the agent has pulled or imported"),
        _ => print(&rows),
    }
    for PruneView { backend, error, freed, .. } in pruned {
        match error {
            Some(why) => eprintln!("error: {backend}: {}", shown(why)),
            None if *freed > 0 => println!("{backend}: {freed} bytes freed"),
            None => {}
        }
    }
}
