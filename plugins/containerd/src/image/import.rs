//! Importing images from an archive on the node: docker-archive or OCI layout, plain, or compressed with
//! gzip, bzip2, lz4 or zstd.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use oci_spec::image::ImageConfiguration;
use serde::Deserialize;
use stanchion_sdk::runtime::{Error, ErrorKind, Image, ImageDigest, Result};
use tokio_util::io::ReaderStream;

use super::{
    Images,
    manifest::{self, Blob, Document, Manifest},
    pull::finish,
    store::{self, Store},
};

/// A file of the archive, unpacked.
struct Entries {
    files: HashMap<String, PathBuf>,
    _directory: tempfile::TempDir,
}

/// `manifest.json` of a docker-archive.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

pub(super) async fn import(images: &Images, path: &Path) -> Result<Vec<Image>> {
    let (archive, tried) = (path.to_owned(), format!("importing {}", path.display()));
    let unpacked = tokio::task::spawn_blocking(move || unpack(&archive)).await;
    let unpacked = unpacked.map_err(|panic| Error::new(ErrorKind::Crashed, tried.clone()).caused_by(&panic))?;
    let entries = unpacked.map_err(|error| {
        Error::new(ErrorKind::Invalid, tried.clone()).because("it is not an image archive").caused_by(&error)
    })?;
    let store = images.store().leased().await?;
    let imported = match entries.files.contains_key("manifest.json") {
        true => docker(&store, &entries).await,
        false => oci(&store, &entries).await,
    };
    images.forget_resolved();
    imported.map_err(|error| error.context(tried))
}

/// Unpacks the archive's files into a directory beside nothing else. Names are only keys: nothing is made by them.
fn unpack(path: &Path) -> io::Result<Entries> {
    let directory = tempfile::tempdir()?;
    let mut archive = tar::Archive::new(decompressed(File::open(path)?)?);
    let mut files = HashMap::new();
    for (index, entry) in archive.entries()?.enumerate() {
        let mut entry = entry?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let name = entry.path()?.to_string_lossy().trim_start_matches("./").to_owned();
        let place = directory.path().join(index.to_string());
        io::copy(&mut entry, &mut File::create(&place)?)?;
        files.insert(name, place);
    }
    Ok(Entries { files, _directory: directory })
}

fn decompressed(mut file: File) -> io::Result<Box<dyn Read>> {
    let mut magic = [0; 4];
    let length = file.read(&mut magic)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(match &magic[..length] {
        [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(BufReader::new(file))),
        [b'B', b'Z', b'h', ..] => Box::new(bzip2::read::MultiBzDecoder::new(BufReader::new(file))),
        [0x04, 0x22, 0x4d, 0x18] => Box::new(lz4_flex::frame::FrameDecoder::new(BufReader::new(file))),
        [0x28, 0xb5, 0x2f, 0xfd] => Box::new(zstd::Decoder::new(file)?),
        _ => Box::new(BufReader::new(file)),
    })
}

impl Entries {
    fn path(&self, name: &str) -> Result<&PathBuf> {
        self.files.get(name).ok_or_else(|| Error::new(ErrorKind::Invalid, format!("the archive lacks {name}")))
    }

    fn read(&self, name: &str) -> Result<Vec<u8>> {
        std::fs::read(self.path(name)?)
            .map_err(|error| Error::new(ErrorKind::Other, format!("reading {name}")).caused_by(&error))
    }

    fn json<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<T> {
        serde_json::from_slice(&self.read(name)?)
            .map_err(|error| Error::new(ErrorKind::Invalid, format!("{name} cannot be read")).caused_by(&error))
    }
}

async fn docker(store: &Store, entries: &Entries) -> Result<Vec<Image>> {
    let mut imported = Vec::new();
    for image in entries.json::<Vec<DockerImage>>("manifest.json")? {
        let bytes = entries.read(&image.config)?;
        let config: ImageConfiguration = serde_json::from_slice(&bytes).map_err(|error| {
            Error::new(ErrorKind::Invalid, format!("{} cannot be read", image.config)).caused_by(&error)
        })?;
        let mut layers = Vec::new();
        for (name, diff_id) in image.layers.iter().zip(config.rootfs().diff_ids()) {
            let blob = layer(entries.path(name)?, diff_id).await?;
            write(store, &blob, entries.path(name)?).await?;
            layers.push(blob);
        }
        let config_blob = Blob {
            media_type: "application/vnd.oci.image.config.v1+json".to_owned(),
            digest: store::digest(&bytes),
            size: bytes.len() as u64,
            platform: None,
        };
        store.write_all(&config_blob, HashMap::new(), bytes).await?;
        let media_type = "application/vnd.oci.image.manifest.v1+json".to_owned();
        let manifest = Manifest { schema_version: 2, media_type, config: config_blob, layers };
        let bytes = serde_json::to_vec(&manifest)
            .map_err(|error| Error::new(ErrorKind::Other, "writing a manifest").caused_by(&error))?;
        for name in image.repo_tags.unwrap_or_default() {
            imported.push(complete(store, &full(&name), &manifest, bytes.clone(), &config).await?);
        }
    }
    Ok(imported)
}

/// A layer of a docker-archive: plain tar, whose digest is its diff id, or compressed, whose digest must be made.
async fn layer(path: &Path, diff_id: &str) -> Result<Blob> {
    let (path, diff_id) = (path.to_owned(), diff_id.to_owned());
    let made = tokio::task::spawn_blocking(move || {
        let mut file = File::open(&path)?;
        let size = file.metadata()?.len();
        let mut magic = [0; 2];
        let is_gzip = file.read(&mut magic)? == 2 && magic == [0x1f, 0x8b];
        if !is_gzip {
            let media_type = "application/vnd.oci.image.layer.v1.tar".to_owned();
            return Ok(Blob { media_type, digest: diff_id, size, platform: None });
        }
        let media_type = "application/vnd.oci.image.layer.v1.tar+gzip".to_owned();
        Ok(Blob { media_type, digest: store::digest(&std::fs::read(&path)?), size, platform: None })
    });
    let failed =
        |error: &(dyn std::error::Error + 'static)| Error::new(ErrorKind::Other, "reading a layer").caused_by(error);
    made.await.map_err(|panic| failed(&panic))?.map_err(|error: io::Error| failed(&error))
}

async fn oci(store: &Store, entries: &Entries) -> Result<Vec<Image>> {
    let index: serde_json::Value = entries.json("index.json")?;
    let mut imported = Vec::new();
    for entry in index.get("manifests").and_then(|it| it.as_array()).into_iter().flatten() {
        let annotation = |key: &str| Some(entry.get("annotations")?.get(key)?.as_str()?.to_owned());
        let name = annotation("io.containerd.image.name").or_else(|| annotation("org.opencontainers.image.ref.name"));
        let Some(name) = name else { continue };
        let mut digest = entry.get("digest").and_then(|it| it.as_str()).unwrap_or_default().to_owned();
        let mut bytes = entries.read(&place(&digest))?;
        let manifest = loop {
            match manifest::parse(&bytes)? {
                Document::Manifest(manifest) => break *manifest,
                Document::Index(index) => {
                    digest.clone_from(&manifest::for_this_node(&index)?.digest);
                    bytes = entries.read(&place(&digest))?;
                }
            }
        };
        for blob in manifest.layers.iter().chain([&manifest.config]) {
            write(store, blob, entries.path(&place(&blob.digest))?).await?;
        }
        let config: ImageConfiguration = entries.json(&place(&manifest.config.digest))?;
        imported.push(complete(store, &full(&name), &manifest, bytes, &config).await?);
    }
    match imported.is_empty() {
        true => Err(Error::new(ErrorKind::Invalid, "the archive names no image")),
        false => Ok(imported),
    }
}

fn place(digest: &str) -> String {
    format!("blobs/{}", digest.replace(':', "/"))
}

async fn write(store: &Store, blob: &Blob, path: &Path) -> Result<()> {
    if store.has(&blob.digest).await? {
        return Ok(());
    }
    let file = tokio::fs::File::open(path)
        .await
        .map_err(|error| Error::new(ErrorKind::Other, format!("reading blob {}", blob.digest)).caused_by(&error))?;
    let parts = ReaderStream::with_capacity(file, 1 << 20);
    store.write::<io::Error>(blob, HashMap::new(), 0, parts).await
}

async fn complete(
    store: &Store,
    name: &str,
    manifest: &Manifest,
    bytes: Vec<u8>,
    config: &ImageConfiguration,
) -> Result<Image> {
    let chain_id = store.unpack(&manifest.layers, config.rootfs().diff_ids()).await?;
    let digest = store::digest(&bytes);
    finish(store, name, manifest, bytes, &digest, &chain_id).await?;
    let size = manifest.layers.iter().map(|layer| layer.size).sum();
    Ok(Image { reference: name.to_owned(), digest: ImageDigest(digest), size })
}

/// Archives hold short names too.
fn full(name: &str) -> String {
    super::reference::parse(name).map_or_else(|_| name.to_owned(), |reference| reference.whole())
}
