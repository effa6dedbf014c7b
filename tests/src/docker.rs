//! A dockerd of the node's own: own data, state and socket, on a containerd of its own, without packet filter rules.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    ctr::{Record, Running},
    proc, process,
    process::Process,
    slot::Names,
    tools, until,
};

/// The daemon, running or stopped.
#[derive(Debug)]
pub struct Docker {
    dir: PathBuf,
    process: Option<Process>,
}

impl Docker {
    /// Starts one that keeps everything in `dir`, with its containers on the bridge of `names`, and waits until it
    /// answers. `containerd` is the socket of the containerd below it, `mirror` what stands for Docker Hub.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(dir: &Path, names: &Names, containerd: &Path, mirror: Option<&str>) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let mut docker = Self { dir: dir.to_path_buf(), process: None };
        bridge(names)?;
        let mirrors: Vec<_> = mirror.iter().map(|address| format!("http://{address}")).collect();
        docker.configure(&json!({
            "data-root": dir.join("data"),
            "exec-root": dir.join("exec"),
            "pidfile": dir.join("dockerd.pid"),
            "deprecated-key-path": dir.join("key.json"),
            "hosts": [format!("unix://{}", docker.socket().display())],
            "group": "root",
            "containerd": containerd,
            // No other containerd of the machine, no other node's: it is the one above.
            "containerd-namespace": "moby",
            "storage-driver": "overlay2",
            "exec-opts": ["native.cgroupdriver=cgroupfs"],
            "cgroup-parent": names.cgroup,
            "bridge": names.bridge,
            // Host ports go through docker-proxy; the machine's packet filter and its settings stay as they are.
            "iptables": false,
            "ip6tables": false,
            "ip-forward": false,
            "ip-masq": false,
            "userland-proxy": true,
            "registry-mirrors": mirrors,
            "live-restore": false,
            "oom-score-adjust": 0,
            "shutdown-timeout": 10,
        }))?;
        docker.resume()?;
        Ok(docker)
    }

    fn configure(&self, settings: &Value) -> Result<()> {
        let path = self.dir.join("daemon.json");
        fs::write(&path, settings.to_string()).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Makes containers run on while it is away: its live-restore, which it reads again when it is told to.
    ///
    /// # Errors
    /// When its configuration cannot be written, or it does not heed it.
    pub fn keep_containers(&mut self) -> Result<()> {
        let path = self.dir.join("daemon.json");
        let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut settings: Value = serde_json::from_slice(&text).context("the configuration of dockerd is no JSON")?;
        settings["live-restore"] = true.into();
        self.configure(&settings)?;
        self.process.as_mut().context("dockerd is not running")?.signal(Signal::HUP)?;
        let engine = self.engine();
        until("dockerd to heed its configuration", Duration::from_secs(20), || {
            ensure!(engine.get("/info")?["LiveRestoreEnabled"] == true, "live-restore is off");
            Ok(())
        })
    }

    /// Starts it again after [`end`](Self::end).
    ///
    /// # Errors
    /// When it does not start.
    pub fn resume(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "dockerd runs already");
        // One that was killed leaves it, and its pid may be another's by now.
        fs::remove_file(self.dir.join("dockerd.pid")).ok();
        let mut command = tools::command("dockerd")?;
        command.arg("--config-file").arg(self.dir.join("daemon.json"));
        let log = self.log();
        let mut process = Process::start("dockerd", &mut command, &log)?;
        until("dockerd to answer", Duration::from_secs(40), || {
            if let Some(status) = process.ended()? {
                bail!("it ended ({status}), see {}", log.display());
            }
            self.engine().get("/version").map(drop)
        })?;
        self.process = Some(process);
        Ok(())
    }

    /// Ends the daemon with `signal`.
    ///
    /// # Errors
    /// When it does not end.
    pub fn end(&mut self, signal: Signal) -> Result<ExitStatus> {
        let mut process = self.process.take().context("dockerd is not running")?;
        process.signal(signal)?;
        process.wait(Duration::from_secs(60))
    }

    /// Its process id, while it runs.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.join("docker.sock")
    }

    /// Its log.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.dir.join("dockerd.log")
    }

    /// What it says.
    #[must_use]
    pub fn engine(&self) -> Engine {
        Engine { socket: self.socket() }
    }
}

/// Whether a mount is Docker's own, and of no container: it keeps the node's network namespace under a name once a
/// container has used it.
#[must_use]
pub fn is_its_own(point: &Path) -> bool {
    point.ends_with("exec/netns/default")
}

/// Docker wants a bridge that is there.
fn bridge(names: &Names) -> Result<()> {
    let ip = |arguments: &[&str]| process::text(tools::command("ip")?.args(arguments)).map(drop);
    let link = &names.bridge;
    ip(&["link", "add", link, "type", "bridge"])?;
    ip(&["address", "add", &format!("{}.1/24", names.prefix), "dev", link])?;
    ip(&["link", "set", link, "up"])
}

/// Docker's API, asked without the library that the backend uses.
#[derive(Clone, Debug)]
pub struct Engine {
    socket: PathBuf,
}

impl Engine {
    /// One request: status and body of its answer.
    ///
    /// # Errors
    /// When it cannot be sent, or the answer is not one.
    pub fn request(&self, method: &str, path: &str, body: &[u8]) -> Result<(u16, Vec<u8>)> {
        let failed = || format!("{method} {path} at {}", self.socket.display());
        let mut stream = UnixStream::connect(&self.socket).with_context(failed)?;
        stream.set_read_timeout(Some(Duration::from_secs(60))).with_context(failed)?;
        // Of this version the answer ends with the connection, and comes in one piece.
        let head = format!(
            "{method} {path} HTTP/1.0\r\nHost: docker\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).with_context(failed)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).with_context(failed)?;
        let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").with_context(failed)?;
        let head = String::from_utf8_lossy(&answer[..end]).into_owned();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        Ok((status.with_context(|| format!("{}: it answers {head:?}", failed()))?, answer.split_off(end + 4)))
    }

    fn json(&self, method: &str, path: &str, body: &[u8]) -> Result<Value> {
        let (status, body) = self.request(method, path, body)?;
        let said = String::from_utf8_lossy(&body);
        ensure!((200..300).contains(&status), "{method} {path}: status {status}: {said}");
        if body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&body).with_context(|| format!("{method} {path}: the answer is no JSON: {said}"))
    }

    /// What is at `path`.
    ///
    /// # Errors
    /// When there is nothing, or Docker does not answer.
    pub fn get(&self, path: &str) -> Result<Value> {
        self.json("GET", path, b"")
    }

    /// Does something.
    ///
    /// # Errors
    /// When Docker refuses, or does not answer.
    pub fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.json("POST", path, body.as_bytes())
    }

    /// Every container, running or not, as `docker ps -a` has it.
    ///
    /// # Errors
    /// When Docker does not answer.
    pub fn all(&self) -> Result<Vec<Value>> {
        let list = self.get("/containers/json?all=1")?;
        Ok(list.as_array().cloned().unwrap_or_default())
    }

    /// Ids of all containers.
    ///
    /// # Errors
    /// When Docker does not answer.
    pub fn containers(&self) -> Result<Vec<String>> {
        Ok(self.all()?.iter().filter_map(|one| one["Id"].as_str().map(str::to_owned)).collect())
    }

    /// All volumes.
    ///
    /// # Errors
    /// When Docker does not answer.
    pub fn volumes(&self) -> Result<Vec<String>> {
        let list = self.get("/volumes")?;
        Ok(list["Volumes"].as_array().into_iter().flatten().map(ToString::to_string).collect())
    }

    /// Containers of pods whose first process runs, sandboxes left out.
    ///
    /// # Errors
    /// When Docker does not answer.
    pub fn running(&self) -> Result<Vec<Running>> {
        let mut running = Vec::new();
        for id in self.containers()? {
            let (status, body) = self.request("GET", &format!("/containers/{id}/json"), b"")?;
            if status != 200 {
                // Gone since.
                continue;
            }
            let found: Value = serde_json::from_slice(&body).context("a container is no JSON")?;
            let Some(pid) = found["State"]["Pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()) else { continue };
            let (true, Ok(started)) = (pid > 0, proc::started(pid)) else { continue };
            let record = Record {
                id,
                labels: serde_json::from_value(found["Config"]["Labels"].clone()).unwrap_or_default(),
                image: found["Config"]["Image"].as_str().unwrap_or_default().to_owned(),
                spec: json!({ "process": { "env": found["Config"]["Env"] } }),
            };
            if !record.container().is_empty() {
                running.push(Running { record, pid, started });
            }
        }
        Ok(running)
    }

    /// `docker rm -f`
    ///
    /// # Errors
    /// When Docker refuses.
    pub fn remove(&self, id: &str) -> Result<()> {
        self.json("DELETE", &format!("/containers/{id}?force=true&v=true"), b"").map(drop)
    }

    /// `docker system prune -a -f`
    ///
    /// # Errors
    /// When Docker refuses.
    pub fn prune(&self) -> Result<()> {
        self.post("/containers/prune", &Value::Null)?;
        self.post("/networks/prune", &Value::Null)?;
        // {"dangling":["false"]}
        self.post("/images/prune?filters=%7B%22dangling%22%3A%5B%22false%22%5D%7D", &Value::Null)?;
        self.post("/build/prune", &Value::Null).map(drop)
    }

    /// Loads an archive, as `docker load` does.
    ///
    /// # Errors
    /// When Docker refuses.
    pub fn load(&self, archive: &Path) -> Result<()> {
        let bytes = fs::read(archive).with_context(|| format!("cannot read {}", archive.display()))?;
        let (status, said) = self.request("POST", "/images/load?quiet=1", &bytes)?;
        let said = String::from_utf8_lossy(&said);
        ensure!(status == 200 && !said.contains("errorDetail"), "docker load: status {status}: {said}");
        Ok(())
    }

    /// `docker run -d`
    ///
    /// # Errors
    /// When Docker refuses.
    pub fn run(&self, name: &str, image: &str, command: &[&str], labels: &Value) -> Result<String> {
        let body = json!({ "Image": image, "Entrypoint": command, "Labels": labels });
        let made = self.post(&format!("/containers/create?name={name}"), &body)?;
        let id = made["Id"].as_str().context("a new container has no id")?.to_owned();
        self.post(&format!("/containers/{id}/start"), &Value::Null)?;
        Ok(id)
    }
}
