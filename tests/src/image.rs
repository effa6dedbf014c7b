//! OCI images in memory, and the formats in which they are stored and sent.

use std::{fs, io::Write as _, path::Path};

use anyhow::{Context as _, Result};
use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{Builder, Header};

use crate::layer::architecture;

/// Content-addressed part of an image.
#[derive(Clone, Debug)]
pub struct Blob {
    /// SHA-256 in hexadecimal.
    pub hex: String,
    /// The bytes.
    pub content: Vec<u8>,
}

impl Blob {
    fn new(content: Vec<u8>) -> Self {
        Self { hex: sha256(&content), content }
    }

    fn descriptor(&self, media_type: &str) -> Value {
        json!({ "mediaType": media_type, "digest": format!("sha256:{}", self.hex), "size": self.content.len() })
    }
}

/// Image: configuration, layers both plain and compressed, manifest.
#[derive(Clone, Debug)]
pub struct Image {
    /// Repository, e.g. `library/redis`.
    pub repository: String,
    /// Tag.
    pub tag: String,
    config: Blob,
    plain: Vec<Blob>,
    compressed: Vec<Blob>,
    manifest: Blob,
}

/// Defaults of an image for running it.
#[derive(Clone, Debug, Default)]
pub struct Run<'a> {
    /// Entry point.
    pub entrypoint: &'a [&'a str],
    /// Default arguments.
    pub cmd: &'a [&'a str],
    /// `NAME=value`.
    pub env: &'a [&'a str],
    /// Working directory.
    pub working_dir: &'a str,
    /// User, by number or name.
    pub user: &'a str,
    /// Signal that asks its program to stop.
    pub stop_signal: &'a str,
    /// Directories that are volumes.
    pub volumes: &'a [&'a str],
}

/// Layer as a tar archive, plain and compressed; made once and shared by images.
#[derive(Clone, Debug)]
pub struct PackedLayer {
    plain: Blob,
    compressed: Blob,
}

impl PackedLayer {
    /// Compresses a layer.
    ///
    /// # Errors
    /// Never in practice: it is in memory.
    pub fn new(tar: Vec<u8>) -> Result<Self> {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&tar).context("cannot compress a layer")?;
        let compressed = gzip.finish().context("cannot compress a layer")?;
        Ok(Self { plain: Blob::new(tar), compressed: Blob::new(compressed) })
    }
}

impl Run<'_> {
    /// Returns the section of an image's configuration, without empty fields.
    fn config(&self) -> Value {
        let mut config = json!({
            "Entrypoint": self.entrypoint, "Cmd": self.cmd, "Env": self.env, "WorkingDir": self.working_dir,
        });
        for (name, value) in [("User", self.user), ("StopSignal", self.stop_signal)] {
            if !value.is_empty() {
                config[name] = value.into();
            }
        }
        if !self.volumes.is_empty() {
            config["Volumes"] = self
                .volumes
                .iter()
                .map(|path| ((*path).to_owned(), json!({})))
                .collect::<serde_json::Map<_, _>>()
                .into();
        }
        config
    }
}

impl Image {
    /// Makes an image from layers and configuration.
    #[must_use]
    pub fn new(repository: &str, tag: &str, run: &Run<'_>, layers: &[PackedLayer]) -> Self {
        let plain: Vec<_> = layers.iter().map(|layer| layer.plain.clone()).collect();
        let compressed: Vec<_> = layers.iter().map(|layer| layer.compressed.clone()).collect();
        let diff_ids: Vec<_> = plain.iter().map(|layer| format!("sha256:{}", layer.hex)).collect();
        let config = Blob::new(bytes(&json!({
            "architecture": architecture(),
            "os": "linux",
            "config": run.config(),
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        })));
        let layers: Vec<_> =
            compressed.iter().map(|layer| layer.descriptor("application/vnd.oci.image.layer.v1.tar+gzip")).collect();
        let manifest = Blob::new(bytes(&json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config.descriptor("application/vnd.oci.image.config.v1+json"),
            "layers": layers,
        })));
        Self { repository: repository.to_owned(), tag: tag.to_owned(), config, plain, compressed, manifest }
    }

    /// Returns the digest of the manifest, `sha256:…`.
    #[must_use]
    pub fn digest(&self) -> String {
        format!("sha256:{}", self.manifest.hex)
    }

    /// Puts the image into the storage of a `docker-registry`.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn store(&self, storage: &Path) -> Result<()> {
        let root = storage.join("docker/registry/v2");
        for blob in self.compressed.iter().chain([&self.config, &self.manifest]) {
            write(&root.join("blobs/sha256").join(&blob.hex[..2]).join(&blob.hex).join("data"), &blob.content)?;
        }
        let repository = root.join("repositories").join(&self.repository);
        for blob in self.compressed.iter().chain([&self.config]) {
            let link = repository.join("_layers/sha256").join(&blob.hex).join("link");
            write(&link, format!("sha256:{}", blob.hex).as_bytes())?;
        }
        let tag = repository.join("_manifests/tags").join(&self.tag);
        let revision = repository.join("_manifests/revisions/sha256").join(&self.manifest.hex);
        for link in [revision, tag.join("current"), tag.join("index/sha256").join(&self.manifest.hex)] {
            write(&link.join("link"), self.digest().as_bytes())?;
        }
        Ok(())
    }

    /// Writes an archive as `docker save` does, under the name `reference`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn docker_archive(&self, path: &Path, reference: &str) -> Result<()> {
        let layers: Vec<_> = self.plain.iter().map(|layer| format!("{}/layer.tar", layer.hex)).collect();
        let config = format!("{}.json", self.config.hex);
        let mut files = vec![(config.clone(), self.config.content.as_slice())];
        files.extend(layers.iter().cloned().zip(self.plain.iter().map(|layer| layer.content.as_slice())));
        let manifest = bytes(&json!([{ "Config": config, "RepoTags": [reference], "Layers": layers }]));
        files.push(("manifest.json".to_owned(), &manifest));
        archive(path, &files)
    }

    /// Writes an OCI image layout as a tar archive, under the full name `reference`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn oci_archive(&self, path: &Path, reference: &str) -> Result<()> {
        let mut descriptor = self.manifest.descriptor(MANIFEST);
        descriptor["annotations"] = json!({
            "io.containerd.image.name": reference,
            "org.opencontainers.image.ref.name": self.tag,
        });
        let index = bytes(&json!({ "schemaVersion": 2, "manifests": [descriptor] }));
        let layout = bytes(&json!({ "imageLayoutVersion": "1.0.0" }));
        let mut files = vec![("oci-layout".to_owned(), layout.as_slice()), ("index.json".to_owned(), &index)];
        for blob in self.compressed.iter().chain([&self.config, &self.manifest]) {
            files.push((format!("blobs/sha256/{}", blob.hex), &blob.content));
        }
        archive(path, &files)
    }
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Writes files into a tar archive.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn archive(path: &Path, files: &[(String, &[u8])]) -> Result<()> {
    let failed = || format!("cannot write {}", path.display());
    let mut archive = Builder::new(fs::File::create(path).with_context(failed)?);
    for (name, content) in files {
        let mut header = Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        header.set_mtime(1);
        archive.append_data(&mut header, name, *content).with_context(failed)?;
    }
    archive.finish().with_context(failed)
}

fn write(path: &Path, content: &[u8]) -> Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    }
    fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}

fn bytes(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

/// Returns the SHA-256 of `content` in hexadecimal.
#[must_use]
pub fn sha256(content: &[u8]) -> String {
    hex::encode(Sha256::digest(content))
}
