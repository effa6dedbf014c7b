//! `stanchion logs`

use std::{io::Write, process::ExitCode};

use anyhow::{Context, Result, bail};
use http_body_util::BodyExt;
use hyper::Method;
use jiff::Timestamp;

use crate::{
    client::{Client, encoded, pod_path},
    duration::parse,
};

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
    /// Only what is newer, e.g. 10s, 5m, 1h30m
    #[arg(long, allow_hyphen_values = true)]
    since: Option<String>,
    /// Only what was written from then on, e.g. 2026-01-31T08:00:00Z
    #[arg(long)]
    since_time: Option<String>,
    /// Each line with its time
    #[arg(long)]
    timestamps: bool,
}

/// Prints a log.
pub fn run(client: &Client, options: &Options) -> Result<ExitCode> {
    let query = query(options)?;
    client.block_on(async {
        let pod = client.find(&options.pod, options.namespace.as_deref()).await?;
        let path = pod_path(&pod, &format!("/log?{query}"));
        let mut body = client.send(Method::GET, &path, &[]).await?.into_body();
        let mut out = std::io::stdout();
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame.context("the agent went away")?.into_data()
                && out.write_all(&data).and_then(|()| out.flush()).is_err()
            {
                // The reader has closed the pipe.
                break;
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// Returns the query for the agent.
fn query(options: &Options) -> Result<String> {
    let mut query = vec![
        format!("follow={}", options.follow),
        format!("previous={}", options.previous),
        format!("timestamps={}", options.timestamps),
    ];
    match (&options.container, &options.container_name) {
        (Some(_), Some(_)) => bail!("only one of -c or an inline [CONTAINER] arg is allowed"),
        (Some(container), None) | (None, Some(container)) => query.push(format!("container={}", encoded(container))),
        (None, None) => {}
    }
    match options.tail {
        ..-1 => bail!("--tail must be greater than or equal to -1"),
        -1 => {}
        lines => query.push(format!("tailLines={lines}")),
    }
    match (&options.since, &options.since_time) {
        (Some(_), Some(_)) => bail!("at most one of --since-time and --since may be specified"),
        (Some(since), None) => match parse(since).with_context(|| format!("--since {since:?}"))? {
            ..0 => bail!("--since must be greater than 0"),
            // As with kubectl, 0 is the default: all lines.
            0 => {}
            nanos => {
                let (seconds, nanos) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
                query.push(format!("sinceSeconds={seconds}.{nanos:09}"));
            }
        },
        (None, Some(time)) => {
            let time: Timestamp = time.parse().with_context(|| {
                format!("--since-time {time:?} is no time in RFC 3339, such as 2026-01-31T08:00:00Z")
            })?;
            query.push(format!("sinceTime={}", encoded(&time.to_string())));
        }
        (None, None) => {}
    }
    Ok(query.join("&"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn asked(words: &str) -> Result<String, String> {
        let line = Line::try_parse_from(std::iter::once("logs").chain(words.split(' ')));
        let line = line.map_err(|error| error.to_string())?;
        query(&line.options).map_err(|error| format!("{error:#}"))
    }

    // R-LOG-7.
    #[test]
    fn times_are_read_as_kubectl_reads_them() {
        let all = "follow=false&previous=false&timestamps=false";
        for (words, more) in [
            ("pod", ""),
            ("pod --since 1h30m", "&sinceSeconds=5400.000000000"),
            ("pod --since 500ms", "&sinceSeconds=0.500000000"),
            ("pod --since=0", ""),
            ("pod --since-time 2026-01-31T10:00:00+02:00", "&sinceTime=2026-01-31T08%3A00%3A00Z"),
            ("pod --tail=0", "&tailLines=0"),
            ("pod --tail -1", ""),
            ("pod a&b", "&container=a%26b"),
        ] {
            assert_eq!(asked(words), Ok(format!("{all}{more}")), "{words}");
        }
        for (words, error) in [
            ("pod --since=-5s", "--since must be greater than 0"),
            ("pod --since 5", "--since \"5\": time: missing unit in duration \"5\""),
            ("pod --tail=-2", "--tail must be greater than or equal to -1"),
            ("pod a -c b", "only one of -c or an inline [CONTAINER] arg is allowed"),
            (
                "pod --since 1s --since-time 2026-01-31T10:00:00Z",
                "at most one of --since-time and --since may be specified",
            ),
        ] {
            assert_eq!(asked(words), Err(error.to_owned()), "{words}");
        }
    }
}
