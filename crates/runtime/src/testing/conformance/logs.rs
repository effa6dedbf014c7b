//! Cases: output of containers.

use super::{
    io,
    kit::{Kit, ensure},
    transcript::{Outcome, Stop},
};
use crate::{ContainerId, EnvVar, Runtime};

/// One CRI log line.
struct Line {
    stream: String,
    partial: bool,
    text: String,
}

/// Checks that lines arrive in order, with stream and time (R-LOG-3, R-LOG-4).
pub(super) async fn lines<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let (_, id) = kit.running("echo one; echo two; echo three >&2; exit 0").await?;
    kit.exit_of(&id).await?;
    let lines = read(kit, &id, 3).await?;
    let of = |stream: &str| -> Vec<&str> {
        lines.iter().filter(|line| line.stream == stream).map(|line| line.text.as_str()).collect()
    };
    ensure!(of("stdout") == ["one", "two"], "stdout has {:?}", of("stdout"));
    ensure!(of("stderr") == ["three"], "stderr has {:?}", of("stderr"));
    ensure!(lines.iter().all(|line| !line.partial), "a short line came in parts");
    Ok(())
}

/// Checks that a long line arrives in parts of at most 16 KiB that add up to the whole line (R-LOG-3).
pub(super) async fn long_line<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let sandbox = kit.sandbox().await?;
    let mut config = kit.container(&sandbox, "echo \"$LONG\"; echo end; exit 0");
    let long = "0123456789".repeat(4000);
    config.env = vec![EnvVar { name: "LONG".to_owned(), value: long.clone() }];
    let id = kit.started(config).await?;
    kit.exit_of(&id).await?;
    let lines = read(kit, &id, 2).await?;
    let longest = lines.iter().map(|line| line.text.len()).max();
    ensure!(longest <= Some(16 * 1024), "a part is {longest:?} bytes long");
    let mut whole = Vec::new();
    let mut open = String::new();
    for line in &lines {
        open.push_str(&line.text);
        if !line.partial {
            whole.push(std::mem::take(&mut open));
        }
    }
    let lengths: Vec<_> = whole.iter().map(String::len).collect();
    ensure!(whole == [long, "end".to_owned()], "lines of 40000 and 3 bytes came back as {lengths:?} bytes");
    Ok(())
}

/// Checks that output outlives its container: log files stay after its removal, other output until then (R-LOG-11).
pub(super) async fn stay<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let (_, id) = kit.running("echo kept; exit 1").await?;
    kit.exit_of(&id).await?;
    read(kit, &id, 1).await?;
    if kit.runtime.version().await?.capabilities.log_files {
        kit.runtime.remove_container(id.clone()).await?;
    }
    let lines = read(kit, &id, 1).await?;
    ensure!(lines.len() == 1 && lines[0].text == "kept", "of one line {} are left", lines.len());
    Ok(())
}

/// Reads the log of an exited container once it has `count` full lines: a log file may lag behind the exit.
async fn read<R: Runtime>(kit: &Kit<'_, R>, id: &ContainerId, count: usize) -> Outcome<Vec<Line>> {
    let files = kit.runtime.version().await?.capabilities.log_files;
    loop {
        let text = if files {
            match tokio::fs::read_to_string(kit.log_path(0)).await {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
                text => text?,
            }
        } else {
            let (sink, out) = io::output()?;
            let (answer, text) = tokio::join!(kit.runtime.logs(id.clone(), sink), io::read_all(out));
            answer?;
            text?
        };
        let lines = text.lines().map(parse).collect::<Outcome<Vec<_>>>();
        match lines {
            Ok(lines) if lines.iter().filter(|line| !line.partial).count() >= count => return Ok(lines),
            // A log file may be read while a line is being written.
            Err(stop) if !files || text.ends_with('\n') => return Err(stop),
            Ok(_) | Err(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
        }
    }
}

fn parse(line: &str) -> Outcome<Line> {
    let wrong = |what: &str| Stop::Failed(format!("{what} in log line {line:.100?}"));
    let mut fields = line.splitn(4, ' ');
    let time = fields.next().and_then(|time| time.parse::<jiff::Timestamp>().ok());
    time.ok_or_else(|| wrong("no RFC 3339 time"))?;
    let stream = fields.next().filter(|stream| matches!(*stream, "stdout" | "stderr"));
    let stream = stream.ok_or_else(|| wrong("no stream"))?.to_owned();
    let tag = fields.next().filter(|tag| matches!(*tag, "F" | "P"));
    let partial = tag.ok_or_else(|| wrong("no tag F or P"))? == "P";
    let text = fields.next().ok_or_else(|| wrong("no text"))?.to_owned();
    Ok(Line { stream, partial, text })
}
