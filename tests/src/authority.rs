//! A test's own certificate authority, made with openssl.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::{process, tools};

const NEW: &str = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";

/// Certificate and key of a server or client.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Path of the certificate, PEM.
    pub certificate: PathBuf,
    /// Path of its private key.
    pub key: PathBuf,
}

/// Certificate authority.
#[derive(Debug)]
pub struct Authority {
    dir: PathBuf,
}

impl Authority {
    /// Makes an authority with its files in `dir`, which is created.
    ///
    /// # Errors
    /// When openssl fails.
    pub fn new(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let authority = Self { dir: dir.to_path_buf() };
        authority.run(&format!("openssl req -x509 {NEW} -days 2 -subj /CN=authority -keyout ca.key -out ca.pem"))?;
        Ok(authority)
    }

    /// Returns the path of its own certificate.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }

    /// Issues a certificate for `name` and the address 127.0.0.1.
    ///
    /// # Errors
    /// When openssl fails.
    pub fn issue(&self, name: &str) -> Result<Identity> {
        self.run(&format!(
            "openssl req {NEW} -subj /CN={name} -keyout {name}.key -out {name}.csr\n\
             echo subjectAltName=IP:127.0.0.1 > {name}.ext\n\
             openssl x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile {name}.ext \
             -out {name}.pem"
        ))?;
        let file = |ending: &str| self.dir.join(format!("{name}.{ending}"));
        Ok(Identity { certificate: file("pem"), key: file("key") })
    }

    fn run(&self, script: &str) -> Result<()> {
        let script = format!("set -e\n{script}");
        process::text(tools::command("sh")?.args(["-c", &script]).current_dir(&self.dir)).map(drop)
    }
}
