//! `stanchion logs`

use std::{io::Write, process::ExitCode};

use anyhow::{Context, Result, bail};
use http_body_util::BodyExt;
use hyper::Method;

use crate::client::{Client, pod_path};

/// Options of `logs`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Name of the pod
    pod: String,
    /// Name of the container
    container_name: Option<String>,
    /// The container
    #[arg(short, long)]
    container: Option<String>,
    /// The pod's namespace
    #[arg(short, long)]
    namespace: Option<String>,
    /// Go on as it writes
    #[arg(short, long)]
    follow: bool,
    /// The life before this one
    #[arg(short, long)]
    previous: bool,
    /// Only the last lines; -1 is all
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    tail: i64,
    /// Only what is newer, e.g. 10s, 5m, 1h
    #[arg(long)]
    since: Option<String>,
    /// Each line with its time
    #[arg(long)]
    timestamps: bool,
}

/// Prints a log.
pub fn run(client: &Client, options: &Options) -> Result<ExitCode> {
    client.block_on(async {
        let pod = client.find(&options.pod, options.namespace.as_deref()).await?;
        let mut query = vec![
            format!("follow={}", options.follow),
            format!("previous={}", options.previous),
            format!("timestamps={}", options.timestamps),
        ];
        if let Some(container) = options.container.as_ref().or(options.container_name.as_ref()) {
            query.push(format!("container={container}"));
        }
        if options.tail >= 0 {
            query.push(format!("tailLines={}", options.tail));
        }
        if let Some(since) = &options.since {
            query.push(format!("sinceSeconds={}", seconds(since)?));
        }
        let path = pod_path(&pod, &format!("/log?{}", query.join("&")));
        let mut body = client.send(Method::GET, &path, &[]).await?.into_body();
        let mut out = std::io::stdout();
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame.context("the agent went away")?.into_data()
                && out.write_all(&data).and_then(|()| out.flush()).is_err()
            {
                // Whoever read this has enough.
                break;
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn seconds(text: &str) -> Result<u64> {
    let (number, unit) = text.split_at(text.len() - text.chars().last().map_or(0, char::len_utf8));
    let scale = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => bail!("--since {text:?} is not like 10s, 5m or 1h"),
    };
    let number: u64 = number.parse().with_context(|| format!("--since {text:?} is not like 10s, 5m or 1h"))?;
    Ok(number * scale)
}
