//! Client of Docker's API.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::{
    ctr::{Record, Running},
    http, proc,
};

/// Client of Docker's API that does not use the backend's library.
#[derive(Clone, Debug)]
pub struct Engine {
    socket: PathBuf,
}

impl Engine {
    pub(super) fn at(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// Sends one request; returns status and body of the answer.
    ///
    /// # Errors
    /// When the request cannot be sent, or the answer is malformed.
    pub fn request(&self, method: &str, path: &str, body: &[u8]) -> Result<http::Answer> {
        http::request(&self.socket, method, path, body)
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

    /// Sends a GET request for `path`; returns the JSON of the answer.
    ///
    /// # Errors
    /// When there is nothing, or Docker does not answer.
    pub fn get(&self, path: &str) -> Result<Value> {
        self.json("GET", path, b"")
    }

    /// Sends a POST request to `path`; returns the JSON of the answer.
    ///
    /// # Errors
    /// When Docker refuses, or does not answer.
    pub fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.json("POST", path, body.as_bytes())
    }

    /// Returns every container, running or not, as `docker ps -a` does.
    ///
    /// # Errors
    /// When Docker does not answer.
    pub fn all(&self) -> Result<Vec<Value>> {
        let list = self.get("/containers/json?all=1")?;
        Ok(list.as_array().cloned().unwrap_or_default())
    }

    /// Returns the ids of all containers.
    ///
    /// # Errors
    /// When Docker does not answer.
    pub fn containers(&self) -> Result<Vec<String>> {
        Ok(self.all()?.iter().filter_map(|one| one["Id"].as_str().map(str::to_owned)).collect())
    }

    /// Returns the full names of all images that have one.
    ///
    /// # Errors
    /// When Docker does not answer.
    pub fn images(&self) -> Result<Vec<String>> {
        let list = self.get("/images/json")?;
        let tags = list.as_array().into_iter().flatten().filter_map(|image| image["RepoTags"].as_array()).flatten();
        // Docker omits the parts of a name that it adds itself.
        let full = |tag: &str| match tag.split('/').count() {
            1 => format!("docker.io/library/{tag}"),
            2 => format!("docker.io/{tag}"),
            _ => tag.to_owned(),
        };
        Ok(tags.filter_map(|tag| tag.as_str().map(full)).collect())
    }

    /// Returns all volumes.
    ///
    /// # Errors
    /// When Docker does not answer.
    pub fn volumes(&self) -> Result<Vec<String>> {
        let list = self.get("/volumes")?;
        Ok(list["Volumes"].as_array().into_iter().flatten().map(ToString::to_string).collect())
    }

    /// Returns the pods' containers whose first process runs, without sandboxes.
    ///
    /// # Errors
    /// When Docker does not answer.
    pub fn running(&self) -> Result<Vec<Running>> {
        let mut running = Vec::new();
        for id in self.containers()? {
            // The container may be gone by now.
            let Some(found) = self.found(&id)? else { continue };
            let Some(pid) = found["State"]["Pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()) else { continue };
            let (true, Ok(started)) = (pid > 0, proc::started(pid)) else { continue };
            let record = record(id, &found);
            if !record.container().is_empty() {
                running.push(Running { record, pid, started });
            }
        }
        Ok(running)
    }

    /// Returns a container in the form of containerd's records; `None` when it is gone.
    ///
    /// # Errors
    /// When Docker does not answer.
    pub fn record(&self, id: &str) -> Result<Option<Record>> {
        Ok(self.found(id)?.map(|found| record(id.to_owned(), &found)))
    }

    /// Returns what `docker inspect` shows; `None` when the container is gone.
    fn found(&self, id: &str) -> Result<Option<Value>> {
        let (status, body) = self.request("GET", &format!("/containers/{id}/json"), b"")?;
        (status == 200).then(|| serde_json::from_slice(&body).context("a container is no JSON")).transpose()
    }

    /// Removes a container, as `docker rm -f` does.
    ///
    /// # Errors
    /// When Docker refuses.
    pub fn remove(&self, id: &str) -> Result<()> {
        self.json("DELETE", &format!("/containers/{id}?force=true&v=true"), b"").map(drop)
    }

    /// Removes an image, as `docker rmi -f` does.
    ///
    /// # Errors
    /// When Docker refuses.
    pub fn forget_image(&self, name: &str) -> Result<()> {
        self.json("DELETE", &format!("/images/{name}?force=true"), b"").map(drop)
    }

    /// Removes everything unused, as `docker system prune -a -f` does.
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

    /// Runs a container, as `docker run -d` does; returns its id.
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

fn record(id: String, found: &Value) -> Record {
    Record {
        id,
        labels: serde_json::from_value(found["Config"]["Labels"].clone()).unwrap_or_default(),
        image: found["Config"]["Image"].as_str().unwrap_or_default().to_owned(),
        spec: json!({ "process": { "env": found["Config"]["Env"] } }),
    }
}
