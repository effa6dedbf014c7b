//! Import of images from an archive on the node: docker-archive or OCI layout. Reads block, so they run on another
//! thread.

use std::{
    collections::HashMap,
    io::{self, Read},
    path::Path,
    sync::Arc,
};

use futures_util::{Stream, stream};
use serde::{Deserialize, Serialize};
use stanchion_registry::reference;
use stanchion_sdk::{
    archive::{Compression, Part, Unpacked},
    blocking, limits,
    oci::{self, Descriptor, Found, ImageConfig, Manifest, Next, Search},
    runtime::{Error, ErrorKind, Image, ImageDigest, Result},
};
use stanchion_untrusted::Limit;
use tokio_util::bytes::Bytes;

use super::{Images, pull::finish, store::Store};

/// Size of one read of a blob, bytes.
const PIECE: u64 = 1 << 20;

/// `manifest.json` of a docker-archive.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct DockerImage {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
}

/// Manifest that is written for an image of a docker-archive.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Written<'a> {
    schema_version: u32,
    media_type: &'a str,
    config: WrittenBlob<'a>,
    layers: Vec<WrittenBlob<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WrittenBlob<'a> {
    media_type: &'a str,
    digest: &'a str,
    size: u64,
}

impl<'a> From<&'a Descriptor> for WrittenBlob<'a> {
    fn from(blob: &'a Descriptor) -> Self {
        let Descriptor { media_type, digest, size, .. } = blob;
        Self { media_type, digest, size: *size }
    }
}

/// Image that an archive names.
enum Listed {
    Docker(DockerImage),
    /// A name, and the entries of `index.json` that have it.
    Oci(String, Vec<Descriptor>),
}

/// Image that was found in an archive.
struct Packed {
    names: Vec<String>,
    found: Found,
    config: ImageConfig,
    /// Places of its blobs, by digest.
    parts: HashMap<String, Part>,
}

pub(super) async fn import(images: &Images, path: &Path) -> Result<Vec<Image>> {
    let imported = import_now(images, path).await;
    images.forget_resolved();
    imported.map_err(|error| error.context(format!("importing {}", path.display())))
}

async fn import_now(images: &Images, path: &Path) -> Result<Vec<Image>> {
    let (path, work) = (path.to_owned(), Arc::clone(&images.work));
    let (archive, listed) = blocking(move || {
        let archive = Unpacked::of(&path, &work).map_err(|error| {
            let why = match error.kind() {
                io::ErrorKind::StorageFull => "it cannot be unpacked",
                _ => "it is not an image archive",
            };
            Error::new(ErrorKind::Invalid, why).caused_by(&error)
        })?;
        let listed = list(&archive)?;
        Ok((Arc::new(archive), listed))
    })
    .await?;
    let store = images.store().leased().await?.of_place("archive");
    let imported = import_all(&store, &archive, listed).await;
    store.end(&imported);
    imported
}

async fn import_all(store: &Store, archive: &Arc<Unpacked>, listed: Vec<Listed>) -> Result<Vec<Image>> {
    let (mut imported, mut missing) = (Vec::new(), None);
    for image in listed {
        let source = Arc::clone(archive);
        let packed = blocking(move || find(&source, image)).await;
        let Packed { names, found, config, parts } = match packed {
            // Other images of the archive may be for this node.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                missing = Some(error);
                continue;
            }
            packed => packed?,
        };
        store.check_room(parts.values().fold(0, |total: u64, part| total.saturating_add(part.size))).await?;
        for blob in found.manifest.layers.iter().chain([&found.manifest.config]) {
            write(store, archive, blob, &parts).await?;
        }
        let chain_id = store.unpack(&found.manifest.layers, config.diff_ids()).await?;
        for name in names {
            finish(store, &name, &found.manifest, found.bytes.clone(), &found.digest, &chain_id).await?;
            let (digest, size) = (ImageDigest(found.digest.clone()), found.manifest.size());
            imported.push(Image { reference: name, digest, size });
        }
    }
    match (imported.is_empty(), missing) {
        (true, Some(error)) => Err(error),
        (true, None) => Err(Error::new(ErrorKind::Invalid, "the archive names no image")),
        (false, _) => Ok(imported),
    }
}

/// Lists the images that an archive names.
fn list(archive: &Unpacked) -> Result<Vec<Listed>> {
    if archive.has("manifest.json") {
        let bytes = read(archive, "manifest.json", limits::MANIFEST)?;
        let images: Vec<DockerImage> = serde_json::from_slice(&bytes)
            .map_err(|error| Error::new(ErrorKind::Invalid, "manifest.json cannot be read").caused_by(&error))?;
        return Ok(images.into_iter().map(Listed::Docker).collect());
    }
    let index = read(archive, "index.json", limits::MANIFEST)?;
    Ok(oci::named_images(&index, full)?.into_iter().map(|(name, entries)| Listed::Oci(name, entries)).collect())
}

/// Finds the blobs of an image.
fn find(archive: &Unpacked, image: Listed) -> Result<Packed> {
    match image {
        Listed::Docker(image) => of_docker(archive, image),
        Listed::Oci(name, entries) => of_oci(archive, name, entries),
    }
}

fn of_docker(archive: &Unpacked, image: DockerImage) -> Result<Packed> {
    let bytes = read(archive, &image.config, limits::CONFIG)?;
    let config = ImageConfig::read(&bytes).map_err(|error| error.context(shown(&image.config)))?;
    let mut parts = HashMap::new();
    let mut layers = Vec::new();
    let names = image.layers.unwrap_or_default();
    limits::LAYERS.check_count(names.len()).map_err(|error| wrong("manifest.json", &error))?;
    for (name, diff_id) in names.iter().zip(config.diff_ids()) {
        let part = archive.part(name).map_err(|error| wrong("a layer", &error))?;
        let layer = layer(archive, part, diff_id).map_err(|error| wrong(&shown(name), &error))?;
        layer.check()?;
        parts.insert(layer.digest.clone(), part);
        layers.push(layer);
    }
    if names.len() != config.diff_ids().len() {
        let message = format!("the image has {} layers and {} diff ids", names.len(), config.diff_ids().len());
        return Err(Error::new(ErrorKind::Invalid, message));
    }
    let blob = Descriptor::new("application/vnd.oci.image.config.v1+json", oci::digest(&bytes), bytes.len() as u64);
    parts.insert(blob.digest.clone(), archive.part(&image.config).map_err(|error| wrong("the configuration", &error))?);
    let manifest = Manifest { media_type: oci::MANIFEST.to_owned(), config: blob, layers };
    let written = Written {
        schema_version: 2,
        media_type: &manifest.media_type,
        config: (&manifest.config).into(),
        layers: manifest.layers.iter().map(Into::into).collect(),
    };
    let bytes = serde_json::to_vec(&written)
        .map_err(|error| Error::new(ErrorKind::Other, "writing a manifest").caused_by(&error))?;
    let found = Found { digest: oci::digest(&bytes), manifest, bytes };
    let names = image.repo_tags.unwrap_or_default().iter().map(|name| full(name)).collect();
    Ok(Packed { names, found, config, parts })
}

/// Describes a layer of a docker-archive: plain tar, whose digest is its diff id, or compressed, whose digest is
/// computed.
fn layer(archive: &Unpacked, part: Part, diff_id: &str) -> io::Result<Descriptor> {
    let mut start = Vec::new();
    archive.reader(part).take(4).read_to_end(&mut start)?;
    let kind = match Compression::of(&start) {
        Compression::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
        Compression::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        _ => return Ok(Descriptor::new("application/vnd.oci.image.layer.v1.tar", diff_id.to_owned(), part.size)),
    };
    Ok(Descriptor::new(kind, archive.digest(part)?, part.size))
}

fn of_oci(archive: &Unpacked, name: String, entries: Vec<Descriptor>) -> Result<Packed> {
    let mut search = Search::among(entries);
    let found = loop {
        match search.step()? {
            Next::Found(found) => break *found,
            Next::Read(blob, limit) => search.take(read(archive, &place(&blob.digest), limit)?)?,
        }
    };
    let config = &found.manifest.config;
    let bytes = read(archive, &place(&config.digest), limits::CONFIG)?;
    if oci::has_digest(&bytes, &config.digest) != Some(true) {
        let message = format!("the image configuration {} has another content", config.digest);
        return Err(Error::new(ErrorKind::Invalid, message));
    }
    let config = ImageConfig::read(&bytes)?;
    let mut parts = HashMap::new();
    for blob in found.manifest.layers.iter().chain([&found.manifest.config]) {
        let part = archive.part(&place(&blob.digest)).map_err(|error| wrong("a blob", &error))?;
        if part.size != blob.size {
            let message = format!("blob {} has {} bytes, not {}", blob.digest, part.size, blob.size);
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        parts.insert(blob.digest.clone(), part);
    }
    Ok(Packed { names: vec![name], found, config, parts })
}

fn read(archive: &Unpacked, name: &str, limit: Limit) -> Result<Vec<u8>> {
    archive.read(name, limit).map_err(|error| wrong(&shown(name), &error))
}

fn wrong(what: &str, error: &(dyn std::error::Error + 'static)) -> Error {
    Error::new(ErrorKind::Invalid, format!("reading {what}")).caused_by(error)
}

fn shown(name: &str) -> String {
    limits::SHOWN.cut(name).into_owned()
}

fn place(digest: &str) -> String {
    format!("blobs/{}", digest.replace(':', "/"))
}

/// Writes a blob; containerd checks its digest.
async fn write(store: &Store, archive: &Arc<Unpacked>, blob: &Descriptor, parts: &HashMap<String, Part>) -> Result<()> {
    if store.has(&blob.digest).await? {
        return Ok(());
    }
    let part = parts.get(&blob.digest).copied().expect("every blob of a packed image has its part");
    let written = store.write(blob, HashMap::new(), 0, pieces(Arc::clone(archive), part)).await;
    if written.is_err() {
        store.abort(&blob.digest).await;
    }
    written
}

/// Streams a file of an archive in pieces.
fn pieces(archive: Arc<Unpacked>, part: Part) -> impl Stream<Item = Result<Bytes>> + Send + 'static {
    stream::try_unfold(part, move |part| {
        let archive = Arc::clone(&archive);
        async move {
            if part.size == 0 {
                return Ok(None);
            }
            let size = part.size.min(PIECE);
            let piece = blocking(move || {
                let mut piece = Vec::new();
                archive
                    .reader(part)
                    .take(size)
                    .read_to_end(&mut piece)
                    .map_err(|error| wrong("the archive", &error))?;
                Ok(piece)
            });
            let piece = piece.await?;
            if piece.len() as u64 != size {
                return Err(Error::new(ErrorKind::Invalid, "the archive became shorter while it was read"));
            }
            Ok(Some((Bytes::from(piece), Part { at: part.at + size, size: part.size - size })))
        }
    })
}

/// Completes an image name: archives hold short names too.
fn full(name: &str) -> String {
    reference::parse(name).map_or_else(|_| name.to_owned(), |reference| reference.whole())
}

#[cfg(test)]
mod tests;
