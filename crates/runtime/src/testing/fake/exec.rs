//! Processes beside a container's own.

use std::{collections::BTreeMap, sync::Arc};

use super::{FakeRuntime, Shared, lock, shell};
use crate::{Error, ErrorKind, ExecId, ExecRequest, ExecStdio, ExitStatus, Result};

/// Answers to scripted commands: code and output, by container name and command.
#[derive(Default)]
pub(super) struct Answers(BTreeMap<(String, Vec<String>), (i32, String)>);

impl FakeRuntime {
    /// Makes `command`, run in a container of this name, print `output` and end with `code` from now on.
    pub fn exec_answer(&self, container_name: &str, command: &[&str], code: i32, output: &str) {
        let command = command.iter().map(|&word| word.to_owned()).collect();
        let mut state = lock(&self.shared.state);
        state.answers.0.insert((container_name.to_owned(), command), (code, output.to_owned()));
    }
}

impl Shared {
    pub(super) async fn exec(self: &Arc<Self>, request: ExecRequest, stdio: ExecStdio) -> Result<ExitStatus> {
        let ExecRequest { id, container, command, tty, size, .. } = request;
        let mut changes = self.changes.subscribe();
        let answer = self.change(|state, _| {
            let what = format!("exec in container {container}");
            let Some(found) = state.containers.get(&container) else {
                return Err(Error::new(ErrorKind::NotFound, format!("{what}: there is none")));
            };
            if !found.is_running() {
                return Err(Error::new(ErrorKind::Conflict, format!("{what}: it does not run")));
            }
            if state.execs.contains_key(&id) {
                return Err(Error::new(ErrorKind::AlreadyExists, format!("{what}: exec {id} runs already")));
            }
            let answer = state.answers.0.get(&(found.config.name.clone(), command.clone())).cloned();
            state.execs.insert(id.clone(), size);
            Ok(answer)
        })?;
        let _running = Running { shared: Arc::clone(self), id };
        let pipes = shell::Pipes::new(stdio, tty);
        if let Some((code, output)) = answer {
            pipes.write(shell::Stream::Stdout, output.into_bytes()).await;
            return Ok(ExitStatus { code });
        }
        if let Some(program) = command.first().filter(|program| shell::cannot_start(program)) {
            let why = format!("exec in container {container}: {program}: no such file or directory");
            return Err(Error::new(ErrorKind::Invalid, why));
        }
        let died = async {
            while self.read(|state| state.is_running(&container)) {
                changes.changed().await.ok();
            }
        };
        // Dropping either arm is fine: the process is gone then, as when its container is killed.
        tokio::select! {
            code = shell::run_exec(self, &container, &command, &pipes) => Ok(ExitStatus { code }),
            () = died => Ok(ExitStatus { code: 137 }),
        }
    }
}

/// Entry of a running exec, removed when the exec ends or its caller gives up.
struct Running {
    shared: Arc<Shared>,
    id: ExecId,
}

impl Drop for Running {
    fn drop(&mut self) {
        lock(&self.shared.state).execs.remove(&self.id);
    }
}
