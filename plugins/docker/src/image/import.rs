//! Import of images from an archive on the node: docker-archive or OCI layout.
//!
//! Docker reads an archive with a `manifest.json`, whatever the layout of the rest. An OCI layout gets one on the way.

use std::{
    cell::Cell,
    collections::{HashMap, HashSet},
    io::{self, BufWriter, Read, Write},
    path::{Path, PathBuf},
};

use bollard::{body_try_stream, query_parameters::ImportImageOptions};
use futures_util::{StreamExt, stream};
use hyper::body::Bytes;
use serde::{Deserialize, Serialize};
use stanchion_sdk::{
    archive::{Entry, each, open_archive, room},
    blocking, limits as shared,
    oci::{self, Descriptor, Next, Search},
    runtime::{Error, ErrorKind, Image, Result},
};
use stanchion_untrusted::Limit;
use tokio::sync::mpsc;

use super::full;
use crate::{
    Docker,
    client::{failed, said},
    limits,
};

/// Size of one piece on the way to Docker, bytes.
const CHUNK: usize = 256 << 10;

/// `manifest.json` of a docker-archive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", default)]
struct DockerImage {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
}

/// Content of an archive.
#[derive(Debug)]
struct Contents {
    images: Vec<DockerImage>,
    /// Whether the archive has a `manifest.json` of its own.
    written: bool,
    /// Free space for Docker, bytes, and its directory.
    room: (u64, PathBuf),
}

impl Docker {
    pub(crate) async fn import(&self, path: PathBuf) -> Result<Vec<Image>> {
        let tried = format!("importing {}", path.display());
        self.import_now(path).await.map_err(|error| error.context(tried))
    }

    async fn import_now(&self, path: PathBuf) -> Result<Vec<Image>> {
        let archive = path.clone();
        let root = self.ready().await?.root;
        let contents = blocking(move || read(&archive, root)).await?;
        let names: Vec<_> = contents.images.iter().flat_map(|it| it.repo_tags.iter().flatten()).cloned().collect();
        if names.is_empty() {
            return Err(Error::new(ErrorKind::Invalid, "the archive names no image"));
        }
        let (send, receive) = mpsc::channel(4);
        let write = blocking(move || {
            let written = write(&path, &contents, &send);
            if let Err(error) = &written {
                // The send fails when Docker has refused; then Docker's message is the error.
                send.blocking_send(Err(io::Error::new(error.kind(), error.to_string()))).ok();
            }
            written.map_err(|error| {
                let is_wrong = error.kind() == io::ErrorKind::InvalidData;
                let kind = if is_wrong { ErrorKind::Invalid } else { ErrorKind::Other };
                Error::new(kind, "reading the archive").caused_by(&error)
            })
        });
        let pieces = stream::unfold(receive, |mut receive| async move { Some((receive.recv().await?, receive)) });
        let load = async {
            let options = ImportImageOptions { quiet: true, ..ImportImageOptions::default() };
            let mut told = Box::pin(self.client.api().import_image(options, body_try_stream(pieces), None));
            while let Some(message) = told.next().await {
                message.map_err(|error| match said(&error) {
                    "" => failed("Docker did not take it", &error),
                    text => Error::new(ErrorKind::Invalid, "Docker refuses it").because(limits::WORDS.cut(text)),
                })?;
            }
            Ok(())
        };
        let (loaded, written) = tokio::join!(load, write);
        match written {
            // Docker knows only that no more came.
            Err(error) if error.kind() == ErrorKind::Invalid => return Err(error),
            written => loaded.and(written)?,
        }
        let mut images = Vec::with_capacity(names.len());
        for name in names {
            images.push(self.arrived(&full(&name)).await?);
        }
        Ok(images)
    }
}

/// Reads the content of an archive, which Docker unpacks below `root`.
fn read(path: &Path, root: PathBuf) -> Result<Contents> {
    // If its disk is not visible from here, Docker itself reports that it is full.
    let room = room(&root).unwrap_or(u64::MAX);
    let documents = documents(path, room, &root).map_err(|error| {
        let kind = match error.kind() {
            io::ErrorKind::NotFound => ErrorKind::NotFound,
            io::ErrorKind::PermissionDenied => ErrorKind::Permission,
            _ => ErrorKind::Invalid,
        };
        Error::new(kind, "it cannot be read as an image archive").caused_by(&error)
    })?;
    let room = (room, root);
    match documents.found.get("manifest.json") {
        Some(manifest) => {
            let images = serde_json::from_slice(manifest)
                .map_err(|error| Error::new(ErrorKind::Invalid, "manifest.json cannot be read").caused_by(&error))?;
            Ok(Contents { images, written: true, room })
        }
        None => Ok(Contents { images: of_layout(&documents)?, written: false, room }),
    }
}

/// Manifests, indexes and configurations of an archive, by name. Larger files are layers.
#[derive(Default)]
struct Documents {
    found: HashMap<String, Vec<u8>>,
    /// Bytes that were read of them: many images can name one document.
    read: Cell<u64>,
}

impl Documents {
    fn read(&self, name: &str, limit: Limit) -> Result<&[u8]> {
        let lacks = || Error::new(ErrorKind::Invalid, format!("the archive lacks {}", shared::SHOWN.cut(name)));
        let found = self.found.get(name).ok_or_else(lacks)?;
        let size = found.len() as u64;
        self.read.set(self.read.get().saturating_add(size));
        let large = limit.check(size).and_then(|()| shared::ARCHIVE_DOCUMENTS.check(self.read.get()));
        large.map_err(|error| Error::new(ErrorKind::Invalid, format!("reading {name}")).caused_by(&error))?;
        Ok(found)
    }
}

/// Reads the documents of an archive.
fn documents(path: &Path, room: u64, root: &Path) -> io::Result<Documents> {
    let (mut documents, mut total) = (Documents::default(), 0);
    each(open_archive(path)?, room, root, |name, entry| {
        let may_be = name.ends_with(".json") || name.starts_with("blobs/");
        let largest = shared::MANIFEST.most.max(shared::CONFIG.most);
        if may_be && entry.header().entry_type().is_file() && entry.size() <= largest {
            let mut document = Vec::new();
            entry.read_to_end(&mut document)?;
            // Only JSON is kept; a small layer is none.
            if matches!(document.first(), Some(b'{' | b'[')) {
                total += document.len() as u64;
                shared::ARCHIVE_DOCUMENTS.check(total)?;
                documents.found.insert(name.to_owned(), document);
            }
        }
        Ok(())
    })?;
    Ok(documents)
}

/// Returns the images of an OCI layout that have a name, for this node's platform.
fn of_layout(documents: &Documents) -> Result<Vec<DockerImage>> {
    let index = documents.read("index.json", shared::MANIFEST)?;
    let (mut images, mut missing) = (Vec::new(), None);
    for (name, entries) in oci::named_images(index, full)? {
        match of_entries(documents, entries) {
            // Docker takes no tag for an image without one.
            Ok(image) => images.push(DockerImage { repo_tags: Some(vec![name]), ..image }),
            // Other images of the archive may be for this node.
            Err(error) if error.kind() == ErrorKind::NotFound => missing = Some(error),
            Err(error) => return Err(error),
        }
    }
    match missing {
        Some(error) if images.is_empty() => Err(error),
        _ => Ok(images),
    }
}

fn of_entries(documents: &Documents, entries: Vec<Descriptor>) -> Result<DockerImage> {
    let mut search = Search::among(entries);
    loop {
        match search.step()? {
            Next::Read(blob, limit) => search.take(documents.read(&place(&blob), limit)?.to_vec())?,
            Next::Found(found) => {
                let layers = found.manifest.layers.iter().map(place).collect();
                return Ok(DockerImage {
                    config: place(&found.manifest.config),
                    layers: Some(layers),
                    repo_tags: None,
                });
            }
        }
    }
}

fn place(blob: &Descriptor) -> String {
    format!("blobs/{}", blob.digest.replace(':', "/"))
}

/// Writes the archive as Docker reads it, in pieces.
fn write(path: &Path, contents: &Contents, to: &mpsc::Sender<io::Result<Bytes>>) -> io::Result<()> {
    let mut archive = tar::Builder::new(BufWriter::with_capacity(CHUNK, Pieces(to)));
    let (room, place) = &contents.room;
    let configs: HashSet<_> = contents.images.iter().map(|image| image.config.trim_start_matches("./")).collect();
    let mut seen = HashSet::new();
    each(open_archive(path)?, *room, place, |name, entry| {
        if let Some(config) = configs.get(name) {
            check_config(name, entry)?;
            seen.insert(*config);
        }
        let mut header = entry.header().clone();
        let name = entry.path()?.into_owned();
        // Copies links too: `docker save` makes them between equal layers.
        match entry.link_name()?.map(|link| link.into_owned()) {
            Some(link) => archive.append_link(&mut header, &name, link),
            None => archive.append_data(&mut header, &name, entry),
        }
    })?;
    if let Some(config) = configs.iter().find(|config| !seen.contains(*config)) {
        let message = format!("the archive lacks {}", shared::SHOWN.cut(config));
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    if !contents.written {
        let manifest = serde_json::to_vec(&contents.images)?;
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(manifest.len() as u64);
        archive.append_data(&mut header, "manifest.json", &*manifest)?;
    }
    archive.into_inner()?.flush()
}

/// Fails for a configuration that is too large: Docker takes any, and returns it with each look-up of the image.
fn check_config(name: &str, entry: &Entry<'_>) -> io::Result<()> {
    let name = shared::SHOWN.cut(name);
    let wrong = |why: String| io::Error::new(io::ErrorKind::InvalidData, format!("the configuration {name}: {why}"));
    if !entry.header().entry_type().is_file() {
        return Err(wrong("it is no plain file".to_owned()));
    }
    shared::CONFIG.check(entry.size()).map_err(|error| wrong(error.to_string()))
}

/// Writer into a channel.
struct Pieces<'a>(&'a mpsc::Sender<io::Result<Bytes>>);

impl Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = Bytes::copy_from_slice(bytes);
        self.0.blocking_send(Ok(piece)).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
