//! Processes beside a container's own.

use tokio::time::{Duration, sleep};

use super::{
    io,
    kit::{Kit, SERVER, ensure, refused},
    transcript::{Outcome, Stop},
};
use crate::{EnvVar, ErrorKind, ExecStdio, Runtime, TerminalSize};

/// Output and error output come apart, to their ends.
pub(super) async fn output<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let (_, id) = kit.running(SERVER).await?;
    let output = kit.exec(&id, &["sh", "-c", "echo out; echo err >&2; echo out again"]).await?;
    let expected = io::Output { code: 0, stdout: "out\nout again\n".to_owned(), stderr: "err\n".to_owned() };
    ensure!(output == expected, "expected {expected:?}, got {output:?}");
    Ok(())
}

/// Exit codes come as they are.
pub(super) async fn exit_code<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let (_, id) = kit.running(SERVER).await?;
    for code in [0, 3, 255] {
        let output = kit.exec(&id, &["sh", "-c", &format!("exit {code}")]).await?;
        ensure!(output.code == code, "`exit {code}` answered {output:?}");
    }
    Ok(())
}

/// Input arrives whole, more than a pipe holds, and ends.
pub(super) async fn input<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let (_, id) = kit.running(SERVER).await?;
    let text = "0123456789abcdef".repeat(16 * 1024);
    let output = kit.exec_with(&id, &["cat"], &text).await?;
    let (sent, got) = (text.len(), output.stdout.len());
    ensure!(output.code == 0, "`cat` ended with {}: {}", output.code, output.stderr);
    ensure!(output.stdout == text, "of {sent} bytes {got} came back, or not the same");
    Ok(())
}

/// Without input there is nothing to read.
pub(super) async fn no_input<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let (_, id) = kit.running(SERVER).await?;
    let output = kit.exec(&id, &["cat"]).await?;
    ensure!(output.code == 0 && output.stdout.is_empty(), "`cat` without input answered {output:?}");
    Ok(())
}

/// Output that nobody wants stops nothing.
pub(super) async fn output_discarded<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let (_, id) = kit.running(SERVER).await?;
    let request = kit.exec_request(&id, &["sh", "-c", "echo out; echo err >&2; exit 4"]);
    let status = kit.runtime.exec(request, ExecStdio::default()).await?;
    ensure!(status.code == 4, "without outputs `exit 4` answered {}", status.code);
    Ok(())
}

/// The container's environment and working directory are the process's too.
pub(super) async fn environment<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let sandbox = kit.sandbox().await?;
    let mut config = kit.container(&sandbox, SERVER);
    config.env = vec![EnvVar { name: "COLOUR".to_owned(), value: "dark green".to_owned() }];
    config.working_dir = Some("/proc".to_owned());
    let id = kit.started(config).await?;
    let output = kit.exec(&id, &["sh", "-c", "echo \"$COLOUR\"; pwd"]).await?;
    ensure!(output.stdout == "dark green\n/proc\n", "variable and directory came as {output:?}");
    Ok(())
}

/// A terminal is one, and without it there is none.
pub(super) async fn terminal<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let (_, id) = kit.running(SERVER).await?;
    let command = ["sh", "-c", "test -t 1 && echo terminal; echo end"];
    let (stdout, out) = io::output()?;
    // Held open: on a terminal the end of input is a hang-up.
    let (stdin, _to) = io::input()?;
    let stdio = ExecStdio { stdin: Some(stdin), stdout: Some(stdout), stderr: None };
    let mut request = kit.exec_request(&id, &command);
    request.tty = true;
    request.size = Some(TerminalSize { width: 100, height: 40 });
    let (status, text) = tokio::join!(kit.runtime.exec(request, stdio), io::read_all(out));
    let (code, text) = (status?.code, text?);
    let lines: Vec<_> = text.lines().map(str::trim_end).collect();
    ensure!(code == 0 && lines == ["terminal", "end"], "with a terminal: {code}, {text:?}");
    let without = kit.exec(&id, &command).await?;
    ensure!(without.stdout == "end\n", "without a terminal: {without:?}");
    Ok(())
}

/// A running exec can be resized, one that has ended cannot.
pub(super) async fn resize<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let (_, id) = kit.running(SERVER).await?;
    let (stdout, out) = io::output()?;
    let (stdin, to) = io::input()?;
    let stdio = ExecStdio { stdin: Some(stdin), stdout: Some(stdout), stderr: None };
    let mut request = kit.exec_request(&id, &["cat"]);
    request.tty = true;
    let exec = request.id.clone();
    let size = TerminalSize { width: 132, height: 50 };
    let resize = async {
        // The exec is being set up meanwhile: until then it is not found.
        let answer = loop {
            match kit.runtime.resize_exec(exec.clone(), size).await {
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Conflict) => {
                    sleep(Duration::from_millis(20)).await;
                }
                answer => break answer,
            }
        };
        // End of input for `cat` on a terminal: the character, then the hang-up.
        let mut to = to;
        tokio::io::AsyncWriteExt::write_all(&mut to, b"\n\x04").await?;
        drop(to);
        answer?;
        Outcome::Ok(())
    };
    let (status, resized, text) = tokio::join!(kit.runtime.exec(request, stdio), resize, io::read_all(out));
    resized?;
    status?;
    text?;
    let late = kit.runtime.resize_exec(exec, size).await;
    refused(late, &[ErrorKind::NotFound], "resizing an exec that has ended")
}

/// A program that does not exist: an error, or what a shell says.
pub(super) async fn no_such_program<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let (_, id) = kit.running(SERVER).await?;
    let request = kit.exec_request(&id, &["/nonexistent/program"]);
    match kit.runtime.exec(request, ExecStdio::default()).await {
        Ok(status) => ensure!(matches!(status.code, 126 | 127), "a missing program ended with {}", status.code),
        Err(error) => {
            let kinds = [ErrorKind::Invalid, ErrorKind::NotFound, ErrorKind::Other];
            refused::<()>(Err(error), &kinds, "running a missing program")?;
        }
    }
    Ok(())
}

/// Nothing runs in what has exited.
pub(super) async fn in_exited<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let (_, id) = kit.running("exit 0").await?;
    kit.exit_of(&id).await?;
    let answer = kit.runtime.exec(kit.exec_request(&id, &["true"]), ExecStdio::default()).await;
    refused(answer, &[ErrorKind::Conflict, ErrorKind::NotFound], "exec in an exited container")
}

/// Nothing runs in what is gone.
pub(super) async fn in_absent<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let (_, id) = kit.running("exit 0").await?;
    kit.runtime.remove_container(id.clone()).await?;
    let answer = kit.runtime.exec(kit.exec_request(&id, &["true"]), ExecStdio::default()).await;
    refused(answer, &[ErrorKind::NotFound], "exec in a container that is gone")
}

/// When its container is killed, an exec ends, and so do its outputs.
pub(super) async fn ends_with_container<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let (_, id) = kit.running(SERVER).await?;
    let (stdout, out) = io::output()?;
    let stdio = ExecStdio { stdin: None, stdout: Some(stdout), stderr: None };
    let request = kit.exec_request(&id, &["sh", "-c", "echo up; sleep 1000"]);
    let watch = async {
        let mut out = out;
        let mut first = [0; 3];
        let read = tokio::io::AsyncReadExt::read_exact(&mut out, &mut first).await;
        ensure!(read.is_ok(), "the output of an exec that runs has ended");
        kit.runtime.stop_container(id.clone(), Duration::ZERO).await?;
        io::read_all(out).await?;
        Outcome::Ok(())
    };
    let (status, watched) = tokio::join!(kit.runtime.exec(request, stdio), watch);
    match status {
        Ok(status) => ensure!(status.code != 0, "an exec that was killed with its container ended with 0"),
        Err(error) if error.kind() == ErrorKind::Unsupported => return Err(error.into()),
        // Its container was killed under it; but until then it must run.
        Err(error) => watched.as_ref().map_or_else(|_| Err(Stop::from(error)), |()| Ok(()))?,
    }
    watched
}
