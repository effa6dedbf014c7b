//! Cases: processes beside a container's own.

use tokio::time::{Duration, sleep};

use super::{
    io,
    kit::{Kit, SERVER, ensure, refused},
    transcript::{Outcome, Stop},
};
use crate::{EnvVar, ErrorKind, ExecStdio, Runtime, TerminalSize};

/// Checks that output and error output arrive separately and completely.
pub(super) async fn output<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let (_, id) = kit.running(SERVER).await?;
    let output = kit.exec(&id, &["sh", "-c", "echo out; echo err >&2; echo out again"]).await?;
    let expected = io::Output { code: 0, stdout: "out\nout again\n".to_owned(), stderr: "err\n".to_owned() };
    ensure!(output == expected, "expected {expected:?}, got {output:?}");
    Ok(())
}

/// Checks that exit codes arrive unchanged.
pub(super) async fn exit_code<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let (_, id) = kit.running(SERVER).await?;
    for code in [0, 3, 255] {
        let output = kit.exec(&id, &["sh", "-c", &format!("exit {code}")]).await?;
        ensure!(output.code == code, "`exit {code}` answered {output:?}");
    }
    Ok(())
}

/// Checks that input larger than a pipe's buffer arrives completely, and ends.
pub(super) async fn input<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let (_, id) = kit.running(SERVER).await?;
    let text = "0123456789abcdef".repeat(16 * 1024);
    let output = kit.exec_with(&id, &["cat"], &text).await?;
    let (sent, got) = (text.len(), output.stdout.len());
    ensure!(output.code == 0, "`cat` ended with {}: {}", output.code, output.stderr);
    ensure!(output.stdout == text, "of {sent} bytes {got} came back, or not the same");
    Ok(())
}

/// Checks that an exec without input reads the end of input.
pub(super) async fn no_input<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let (_, id) = kit.running(SERVER).await?;
    let output = kit.exec(&id, &["cat"]).await?;
    ensure!(output.code == 0 && output.stdout.is_empty(), "`cat` without input answered {output:?}");
    Ok(())
}

/// Checks that discarded output does not stop the process.
pub(super) async fn output_discarded<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let (_, id) = kit.running(SERVER).await?;
    let request = kit.exec_request(&id, &["sh", "-c", "echo out; echo err >&2; exit 4"]);
    let status = kit.runtime.exec(request, ExecStdio::default()).await?;
    ensure!(status.code == 4, "without outputs `exit 4` answered {}", status.code);
    Ok(())
}

/// Checks that the process has the container's environment and working directory.
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

/// Checks that `tty` gives the process a terminal, and that it has none otherwise.
pub(super) async fn terminal<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let (_, id) = kit.running(SERVER).await?;
    let command = ["sh", "-c", "test -t 1 && echo terminal; echo end"];
    let (stdout, out) = io::output()?;
    // Held open, because on a terminal the end of input is a hang-up.
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

/// Checks that a running exec can be resized, and an ended one cannot.
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
        // Until the exec is set up, the backend does not find it.
        let answer = loop {
            match kit.runtime.resize_exec(exec.clone(), size).await {
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Conflict) => {
                    sleep(Duration::from_millis(20)).await;
                }
                answer => break answer,
            }
        };
        // `cat` on a terminal ends on this character; the hang-up follows.
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

/// Checks that a missing program gives an error, or a shell's exit code for it.
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

/// Checks that an exec in an exited container is refused.
pub(super) async fn in_exited<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let (_, id) = kit.running("exit 0").await?;
    kit.exit_of(&id).await?;
    let answer = kit.runtime.exec(kit.exec_request(&id, &["true"]), ExecStdio::default()).await;
    refused(answer, &[ErrorKind::Conflict, ErrorKind::NotFound], "exec in an exited container")
}

/// Checks that an exec in an absent container is refused.
pub(super) async fn in_absent<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let (_, id) = kit.running("exit 0").await?;
    kit.runtime.remove_container(id.clone()).await?;
    let answer = kit.runtime.exec(kit.exec_request(&id, &["true"]), ExecStdio::default()).await;
    refused(answer, &[ErrorKind::NotFound], "exec in a container that is gone")
}

/// Checks that an exec and its outputs end when its container is killed.
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
        // The exec may fail because its container was killed, but it must have run until then.
        Err(error) => watched.as_ref().map_or_else(|_| Err(Stop::from(error)), |()| Ok(()))?,
    }
    watched
}
