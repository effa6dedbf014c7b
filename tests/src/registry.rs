//! Debian's `docker-registry` on a loopback port.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result, bail};

use crate::{
    authority::{Authority, Identity},
    process::Process,
    tools, until,
};

/// `user` with the password `secret`, as htpasswd(1) writes it with bcrypt.
const USERS: &str = "user:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

/// Running registry.
#[derive(Debug)]
pub struct Registry {
    process: Process,
    address: String,
}

impl Registry {
    /// Serves `storage` on a free port; configuration and log go to `dir`.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(dir: &Path, storage: &Path) -> Result<Self> {
        Self::start_on(dir, storage, "127.0.0.1:0")
    }

    /// Serves `storage` at `address`.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_on(dir: &Path, storage: &Path, address: &str) -> Result<Self> {
        Self::begin(dir, storage, address, "", "")
    }

    /// Serves `storage` on a free port, with TLS, to clients that log in as `user` with `secret`.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_secured(dir: &Path, storage: &Path, identity: &Identity) -> Result<Self> {
        let users = dir.join("users");
        fs::write(&users, USERS).with_context(|| format!("cannot write {}", users.display()))?;
        let Identity { certificate, key } = identity;
        let tls = format!(", tls: {{certificate: {certificate:?}, key: {key:?}}}");
        let auth = format!("auth: {{htpasswd: {{realm: tests, path: {users:?}}}}}\n");
        Self::begin(dir, storage, "127.0.0.1:0", &tls, &auth)
    }

    /// Serves `storage` on a free port, with TLS, to clients with a certificate of the same authority.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_for_known(dir: &Path, storage: &Path, authority: &Authority) -> Result<Self> {
        let Identity { certificate, key } = authority.issue("registry")?;
        let clients = authority.certificate();
        let tls = format!(", tls: {{certificate: {certificate:?}, key: {key:?}, clientcas: [{clients:?}]}}");
        Self::begin(dir, storage, "127.0.0.1:0", &tls, "")
    }

    fn begin(dir: &Path, storage: &Path, address: &str, http: &str, rest: &str) -> Result<Self> {
        let config = dir.join("registry.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: info}}\nhttp: {{addr: \"{address}\", secret: none{http}}}\nstorage:\n  filesystem: \
             {{rootdirectory: {storage:?}}}\n  maintenance: {{uploadpurging: {{enabled: false}}}}\n{rest}"
        );
        fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
        let log = dir.join("registry.log");
        // The log is appended to: only the new part has the port of this start.
        let skip = fs::read(&log).map_or(0, |text| text.len());
        let mut command = tools::command("docker-registry")?;
        let mut process = Process::start("docker-registry", command.arg("serve").arg(&config), &log)?;
        let address = until("docker-registry to listen", Duration::from_secs(20), || {
            let text = fs::read_to_string(&log)?;
            if let Some(status) = process.ended()? {
                bail!("it ended ({status}): {text}");
            }
            let listening = text[skip..].split_once("listening on ").context("it does not listen yet")?.1;
            let end = listening.find(|c: char| c == '"' || c == ',' || c.is_whitespace());
            Ok(listening[..end.context("the line is not complete yet")?].to_owned())
        })?;
        Ok(Self { process, address })
    }

    /// Returns its address, `127.0.0.1:port`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Returns its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Kills it.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub fn stop(&mut self) -> Result<()> {
        self.process.kill()
    }
}
