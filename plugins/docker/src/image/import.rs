//! Importing images from an archive on the node: docker-archive or OCI layout, plain, gzip or zstd.
//!
//! Docker reads an archive with a `manifest.json`, whatever the layout of the rest. An OCI layout is given one on the way.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use bollard::{body_try_stream, query_parameters::ImportImageOptions};
use futures_util::{StreamExt, stream};
use hyper::body::Bytes;
use oci_spec::image::{Arch, Descriptor, ImageIndex, ImageManifest, Os};
use serde::{Deserialize, Serialize};
use stanchion_sdk::runtime::{Error, ErrorKind, Image, Result};
use tokio::sync::mpsc;

use super::full;
use crate::{
    Docker,
    client::{failed, said},
};

/// Larger files of an archive are layers.
const LARGEST_DOCUMENT: u64 = 4 << 20;
/// What one piece on the way to Docker has.
const CHUNK: usize = 256 << 10;

/// `manifest.json` of a docker-archive.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// What an archive holds.
#[derive(Debug)]
struct Contents {
    images: Vec<DockerImage>,
    /// Whether that is written in it.
    written: bool,
}

impl Docker {
    pub(crate) async fn import(&self, path: PathBuf) -> Result<Vec<Image>> {
        let tried = format!("importing {}", path.display());
        self.import_now(path).await.map_err(|error| error.context(tried))
    }

    async fn import_now(&self, path: PathBuf) -> Result<Vec<Image>> {
        let archive = path.clone();
        let contents = self.blocking(move || read(&archive)).await?;
        let names: Vec<_> = contents.images.iter().flat_map(|it| it.repo_tags.iter().flatten()).cloned().collect();
        if names.is_empty() {
            return Err(Error::new(ErrorKind::Invalid, "the archive names no image"));
        }
        let (send, receive) = mpsc::channel(4);
        let write = self.blocking(move || {
            let written = write(&path, &contents, &send);
            if let Err(error) = &written {
                // Nobody receives when Docker has refused; then its words are the error.
                send.blocking_send(Err(io::Error::new(error.kind(), error.to_string()))).ok();
            }
            written.map_err(|error| Error::new(ErrorKind::Other, "reading the archive").caused_by(&error))
        });
        let pieces = stream::unfold(receive, |mut receive| async move { Some((receive.recv().await?, receive)) });
        let load = async {
            let options = ImportImageOptions { quiet: true, ..ImportImageOptions::default() };
            let mut told = Box::pin(self.client.api().import_image(options, body_try_stream(pieces), None));
            while let Some(message) = told.next().await {
                message.map_err(|error| match said(&error) {
                    "" => failed("Docker did not take it", &error),
                    text => Error::new(ErrorKind::Invalid, "Docker refuses it").because(text),
                })?;
            }
            Ok(())
        };
        let (loaded, written) = tokio::join!(load, write);
        loaded.and(written)?;
        let mut images = Vec::with_capacity(names.len());
        for name in names {
            images.push(self.present(&full(&name)).await?);
        }
        Ok(images)
    }
}

fn open(path: &Path) -> io::Result<tar::Archive<Box<dyn Read>>> {
    let mut file = File::open(path)?;
    let mut magic = [0; 4];
    let length = file.read(&mut magic)?;
    file.seek(SeekFrom::Start(0))?;
    let plain: Box<dyn Read> = match &magic[..length] {
        [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(BufReader::new(file))),
        [0x28, 0xb5, 0x2f, 0xfd] => Box::new(zstd::Decoder::new(file)?),
        _ => Box::new(BufReader::new(file)),
    };
    Ok(tar::Archive::new(plain))
}

/// What is in an archive.
fn read(path: &Path) -> Result<Contents> {
    let documents = documents(path).map_err(|error| {
        let kind = match error.kind() {
            io::ErrorKind::NotFound => ErrorKind::NotFound,
            io::ErrorKind::PermissionDenied => ErrorKind::Permission,
            _ => ErrorKind::Invalid,
        };
        Error::new(kind, "it cannot be read as an image archive").caused_by(&error)
    })?;
    match documents.contains_key("manifest.json") {
        true => Ok(Contents { images: json(&documents, "manifest.json")?, written: true }),
        false => Ok(Contents { images: of_layout(&documents)?, written: false }),
    }
}

fn documents(path: &Path) -> io::Result<HashMap<String, Vec<u8>>> {
    let mut documents = HashMap::new();
    for entry in open(path)?.entries()? {
        let mut entry = entry?;
        if entry.header().entry_type().is_file() && entry.size() <= LARGEST_DOCUMENT {
            let name = entry.path()?.to_string_lossy().trim_start_matches("./").to_owned();
            if name.ends_with(".json") || name.starts_with("blobs/") {
                let mut document = Vec::new();
                entry.read_to_end(&mut document)?;
                // Only JSON is looked for; a small layer is none.
                if matches!(document.first(), Some(b'{' | b'[')) {
                    documents.insert(name, document);
                }
            }
        }
    }
    Ok(documents)
}

fn json<T: serde::de::DeserializeOwned>(documents: &HashMap<String, Vec<u8>>, name: &str) -> Result<T> {
    let document = documents.get(name);
    let document = document.ok_or_else(|| Error::new(ErrorKind::Invalid, format!("the archive lacks {name}")))?;
    serde_json::from_slice(document)
        .map_err(|error| Error::new(ErrorKind::Invalid, format!("{name} cannot be read")).caused_by(&error))
}

/// The images of an OCI layout that have a name, for this node's platform.
fn of_layout(documents: &HashMap<String, Vec<u8>>) -> Result<Vec<DockerImage>> {
    let index: ImageIndex = json(documents, "index.json")?;
    let mut images = Vec::new();
    for entry in index.manifests() {
        let annotation = |key: &str| entry.annotations().as_ref()?.get(key).cloned();
        let name = annotation("io.containerd.image.name").or_else(|| annotation("org.opencontainers.image.ref.name"));
        let Some(name) = name else { continue };
        let mut manifest = place(entry);
        if let Ok(nested) = json::<ImageIndex>(documents, &manifest) {
            manifest = place(for_this_node(&nested)?);
        }
        let manifest: ImageManifest = json(documents, &manifest)?;
        images.push(DockerImage {
            config: place(manifest.config()),
            // Docker takes no tag for an image without one.
            repo_tags: Some(vec![full(&name)]),
            layers: manifest.layers().iter().map(place).collect(),
        });
    }
    Ok(images)
}

fn place(blob: &Descriptor) -> String {
    format!("blobs/{}", blob.digest().to_string().replace(':', "/"))
}

fn for_this_node(index: &ImageIndex) -> Result<&Descriptor> {
    let arch = match std::env::consts::ARCH {
        "x86_64" => Arch::Amd64,
        "aarch64" => Arch::ARM64,
        other => Arch::Other(other.to_owned()),
    };
    let fits = |it: &&Descriptor| {
        it.platform().as_ref().is_none_or(|platform| *platform.os() == Os::Linux && *platform.architecture() == arch)
    };
    index
        .manifests()
        .iter()
        .find(fits)
        .ok_or_else(|| Error::new(ErrorKind::Invalid, format!("the archive has no image for this node (linux/{arch})")))
}

/// The archive as Docker reads it, in pieces.
fn write(path: &Path, contents: &Contents, to: &mpsc::Sender<io::Result<Bytes>>) -> io::Result<()> {
    let mut archive = tar::Builder::new(BufWriter::with_capacity(CHUNK, Pieces(to)));
    for entry in open(path)?.entries()? {
        let entry = entry?;
        let mut header = entry.header().clone();
        let name = entry.path()?.into_owned();
        // Links too: `docker save` makes them between equal layers.
        match entry.link_name()?.map(|link| link.into_owned()) {
            Some(link) => archive.append_link(&mut header, &name, link)?,
            None => archive.append_data(&mut header, &name, entry)?,
        }
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

/// A writer into a channel.
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
