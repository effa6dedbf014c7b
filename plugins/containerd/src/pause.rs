//! Pause process of a pod whose containers share a PID namespace (ADR 3): a PID namespace ends with its first process.
//! It is a task of the sandbox's own record.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use containerd_client::{
    services::v1::{Container, StartRequest},
    types::Mount,
};
use stanchion_sdk::{
    cgroup::{Cgroup, Parent},
    names,
    pause::PROGRAM,
    runtime::{ContainerId, Error, ErrorKind, Result},
};
use stanchion_untrusted::make_directory;

use crate::{Containerd, client::failed, container::runtime_root, shim, spec};

impl Containerd {
    /// Starts the pause process, and pins its PID namespace for the pod's containers.
    pub(crate) async fn start_pause(&self, record: &Container) -> Result<()> {
        let id = record.id.clone();
        let tried = || format!("starting the first process of sandbox {id}");
        let files = self.blocking(|backend| backend.pause_files());
        let options = ["rbind", "ro"].map(str::to_owned).to_vec();
        let source = files.await?.to_string_lossy().into_owned();
        let root = Mount { r#type: "bind".to_owned(), source, options, ..Mount::default() };
        let process = self.create_task(record, vec![root]).await?;
        let request = StartRequest { container_id: id.clone(), exec_id: String::new() };
        let started = self.client.tasks().start(self.client.request(request)).await;
        started.map_err(|status| failed(tried(), &status))?;
        let name = id.clone();
        let pinned = self.blocking(move |backend| {
            backend.namespaces(&name).pin_pid(process).map_err(|error| {
                Error::new(ErrorKind::Other, format!("holding the processes of sandbox {name}")).caused_by(&error)
            })
        });
        pinned.await
    }

    /// Returns the root directory of the pause program; writes it if it is missing.
    pub(crate) fn pause_files(&self) -> Result<PathBuf> {
        let dir = self.state_dir.join("pause");
        files(&dir).map_err(|error| {
            Error::new(ErrorKind::Other, format!("writing the pause program to {}", dir.display())).caused_by(&error)
        })
    }

    /// Ends the pause process and removes what it leaves, if the sandbox has one.
    pub(crate) async fn erase_pause(&self, record: &Container, parent: &Parent) -> Result<()> {
        let sandbox = &record.id;
        let id = ContainerId(sandbox.clone());
        if self.end_task(&id).await? {
            return Ok(());
        }
        // The task was lost with its shim, or was never complete.
        let failed = |what: &'static str| {
            let tried = format!("removing {what} of sandbox {sandbox}");
            move |error: io::Error| Error::new(ErrorKind::Other, tried).caused_by(&error)
        };
        let name = id.0.clone();
        let ended = self.blocking(move |it| Ok(shim::end(&it.config.socket, it.client.namespace(), &name)));
        ended.await?.map_err(failed("a forgotten shim"))?;
        Cgroup::at(&parent.container(sandbox).1).destroy().await.map_err(failed("the cgroup"))?;
        let root = runtime_root(record);
        shim::remove_record(&root, self.client.namespace(), sandbox).map_err(failed("runc's record"))
    }
}

/// Writes the root directory: the program, and mount points. Each version of the program has its own directory.
fn files(dir: &Path) -> io::Result<PathBuf> {
    let version = names::id("", &[&String::from_utf8_lossy(PROGRAM)], 0);
    let root = dir.join(version.trim_start_matches("0-"));
    let program = root.join(spec::pause::PROGRAM);
    if program.exists() {
        return Ok(root);
    }
    make_directory(dir)?;
    for place in ["proc", "dev", "sys"] {
        fs::create_dir_all(root.join(place))?;
    }
    // Complete or absent: two agents may write at once, and one may die.
    let draft = root.join(format!(".{}-{}", spec::pause::PROGRAM, std::process::id()));
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o755).open(&draft)?;
    file.write_all(PROGRAM)?;
    file.sync_all()?;
    fs::rename(&draft, &program)?;
    Ok(root)
}
