//! Blobs, layers and names in containerd.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use containerd_client::{
    services::v1::{
        AbortRequest, ApplyRequest, CreateImageRequest, CreateRequest, DeleteImageRequest, DeleteRequest,
        GetImageRequest, Image, Info, InfoRequest, ListImagesRequest, PluginsRequest, ReadContentRequest,
        StatusRequest, UpdateImageRequest, UpdateRequest, WriteAction, WriteContentRequest,
        snapshots::{CommitSnapshotRequest, PrepareSnapshotRequest, RemoveSnapshotRequest, StatSnapshotRequest},
    },
    tonic::{Code, Status, metadata::MetadataValue},
    types::Descriptor,
};
use futures_util::{Stream, StreamExt, stream};
use stanchion_sdk::{
    blocking, disk,
    oci::{self, digest},
    runtime::{Error, ErrorKind, Result},
};
use stanchion_untrusted::Limit;
use tokio_util::{bytes::Bytes, sync::CancellationToken};

use crate::client::{Client, failed, is_gone};

/// Lifetime of a lease that its owner does not end, s.
const LEASE_SECONDS: i64 = 3600;
/// Time for which the content of an interrupted pull is kept for the next one.
const KEPT: Duration = Duration::from_secs(10);

/// Content, snapshots and image names of one containerd namespace.
#[derive(Clone, Debug)]
pub(super) struct Store {
    client: Client,
    snapshotter: Arc<str>,
    /// Host or archive that blobs come from. Partial writes are kept apart by it: a slow or broken transfer concerns
    /// one host.
    scope: Arc<str>,
    /// Ends with the last clone.
    lease: Option<Arc<Lease>>,
}

/// Lease that keeps unfinished content from garbage collection; ended when the last user is gone.
#[derive(Debug)]
struct Lease {
    client: Client,
    id: String,
    /// `true` once the work under the lease has ended, well or not.
    is_over: AtomicBool,
    /// `true` if nobody can reuse the content that the work has left.
    is_wrong: AtomicBool,
}

impl Drop for Lease {
    fn drop(&mut self) {
        let is_cut_off = !self.is_over.load(Ordering::Relaxed);
        let is_to_be_freed = is_cut_off || self.is_wrong.load(Ordering::Relaxed);
        let (client, id) = (self.client.clone(), std::mem::take(&mut self.id));
        if let Ok(tokio) = tokio::runtime::Handle::try_current() {
            #[allow(clippy::disallowed_methods, reason = "one call that nobody waits for; the lease expires anyway")]
            tokio.spawn(async move {
                if is_cut_off {
                    // A pull that wants the content within this time resumes it; else containerd frees its disk now.
                    tokio::time::sleep(KEPT).await;
                }
                let request = client.request(DeleteRequest { id, sync: is_to_be_freed });
                if let Err(status) = client.leases().delete(request).await {
                    tracing::debug!(error = status.message(), "a lease is left to expire");
                }
            });
        }
    }
}

impl Store {
    pub fn new(client: Client, snapshotter: Arc<str>) -> Self {
        Self { client, snapshotter, scope: "".into(), lease: None }
    }

    /// Returns the same store, for blobs from another place.
    pub fn of_place(self, place: &str) -> Self {
        Self { scope: place.into(), ..self }
    }

    /// Notes that the work under the store's lease has ended. Wrong content is not kept.
    pub fn end<T>(&self, made: &Result<T>) {
        let is_wrong = |error: &Error| matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Other);
        if let Some(lease) = &self.lease {
            lease.is_over.store(true, Ordering::Relaxed);
            lease.is_wrong.store(made.as_ref().err().is_some_and(is_wrong), Ordering::Relaxed);
        }
    }

    /// Returns the same store with a lease: containerd keeps content that is made through it while the lease exists.
    pub async fn leased(&self) -> Result<Self> {
        let id = format!("stanchion-{}", unique());
        let expire = stanchion_sdk::clock::now().checked_add(jiff::SignedDuration::from_secs(LEASE_SECONDS));
        let expire = expire.map(|at| at.to_string()).unwrap_or_default();
        let labels = HashMap::from([("containerd.io/gc.expire".to_owned(), expire)]);
        let request = self.client.request(CreateRequest { id: id.clone(), labels });
        self.client.leases().create(request).await.map_err(|status| failed("making a lease", &status))?;
        let header = MetadataValue::try_from(id.as_str())
            .map_err(|error| Error::new(ErrorKind::Other, "making a lease").caused_by(&error))?;
        let lease = Arc::new(Lease {
            client: self.client.clone(),
            id,
            is_over: AtomicBool::default(),
            is_wrong: AtomicBool::default(),
        });
        Ok(Self { client: self.client.with_lease(header), lease: Some(lease), ..self.clone() })
    }

    /// Lists all image names.
    pub async fn images(&self) -> Result<Vec<Image>> {
        let request = self.client.request(ListImagesRequest::default());
        let answer = self.client.images().list(request).await;
        answer.map(|answer| answer.into_inner().images).map_err(|status| failed("listing the images", &status))
    }

    /// Returns the descriptor of an image's name; `None` if there is no such name.
    pub async fn target(&self, name: &str) -> Result<Option<Descriptor>> {
        let request = self.client.request(GetImageRequest { name: name.to_owned() });
        match self.client.images().get(request).await {
            Ok(answer) => Ok(answer.into_inner().image.and_then(|image| image.target)),
            Err(status) if is_gone(&status) => Ok(None),
            Err(status) => Err(failed(format!("looking up image {name}"), &status)),
        }
    }

    /// Names an image, or moves the name.
    pub async fn name(&self, name: &str, target: Descriptor) -> Result<()> {
        let image = Image { name: name.to_owned(), target: Some(target), ..Image::default() };
        let create = CreateImageRequest { image: Some(image.clone()), ..CreateImageRequest::default() };
        let made = self.client.images().create(self.client.request(create)).await.map(drop);
        let named = match made {
            Err(status) if status.code() == Code::AlreadyExists => {
                let update = UpdateImageRequest { image: Some(image), ..UpdateImageRequest::default() };
                self.client.images().update(self.client.request(update)).await.map(drop)
            }
            made => made,
        };
        named.map_err(|status| failed(format!("naming image {name}"), &status))
    }

    /// Removes a name; `sync` waits for the garbage collection that follows.
    pub async fn forget(&self, name: &str, sync: bool) -> Result<()> {
        let request = DeleteImageRequest { name: name.to_owned(), sync, ..DeleteImageRequest::default() };
        match self.client.images().delete(self.client.request(request)).await {
            Err(status) if !is_gone(&status) => Err(failed(format!("removing image {name}"), &status)),
            _ => Ok(()),
        }
    }

    /// Returns the directory of the snapshotter, or that of the blobs if containerd does not tell.
    pub async fn root(&self) -> Result<PathBuf> {
        let plugins = [("io.containerd.snapshotter.v1", &*self.snapshotter), ("io.containerd.content.v1", "content")];
        let filters = plugins.map(|(kind, id)| format!("type=={kind},id=={id}")).to_vec();
        let answer = self.client.introspection().plugins(self.client.request(PluginsRequest { filters })).await;
        let tried = "asking where images are kept";
        let found = answer.map_err(|status| failed(tried, &status))?.into_inner().plugins;
        let root = |kind: &str| found.iter().find(|it| it.r#type == kind).and_then(|it| it.exports.get("root"));
        let root = plugins.iter().find_map(|(kind, _)| root(kind));
        let untold = || Error::new(ErrorKind::Unsupported, tried).because("containerd does not tell");
        root.map(PathBuf::from).ok_or_else(untold)
    }

    pub async fn has(&self, digest: &str) -> Result<bool> {
        let request = self.client.request(InfoRequest { digest: digest.to_owned() });
        match self.client.content().info(request).await {
            Ok(_) => Ok(true),
            Err(status) if is_gone(&status) => Ok(false),
            Err(status) => Err(failed(format!("looking up blob {digest}"), &status)),
        }
    }

    /// Refuses content that does not fit on the images' disk, before it is fetched.
    pub async fn check_room(&self, bytes: u64) -> Result<()> {
        // Without a directory that is visible from here, containerd's own errors report a full disk.
        let Ok(root) = self.root().await else { return Ok(()) };
        match blocking(move || disk::image_store(root, Vec::new())).await {
            Ok(store) if store.available < bytes => {
                let (room, root) = (store.available, store.path.display());
                let message =
                    format!("no space left on device: {bytes} bytes are missing, and {root} has room for {room}");
                Err(Error::new(ErrorKind::Other, message))
            }
            _ => Ok(()),
        }
    }

    /// Reads a small blob into memory.
    pub async fn read(&self, digest: &str, limit: Limit) -> Result<Vec<u8>> {
        let wrong = |status: &Status| failed(format!("reading blob {digest}"), status);
        let request = self.client.request(ReadContentRequest { digest: digest.to_owned(), offset: 0, size: 0 });
        let mut parts = self.client.content().read(request).await.map_err(|status| wrong(&status))?.into_inner();
        let mut blob = Vec::new();
        while let Some(part) = parts.message().await.map_err(|status| wrong(&status))? {
            let size = (blob.len() + part.data.len()) as u64;
            limit
                .check(size)
                .map_err(|error| Error::new(ErrorKind::Invalid, format!("reading blob {digest}")).caused_by(&error))?;
            blob.extend(part.data);
        }
        Ok(blob)
    }

    /// Returns how much of a blob an earlier, broken write has left, bytes.
    pub async fn written(&self, digest: &str) -> u64 {
        let request = self.client.request(StatusRequest { r#ref: self.ingest(digest) });
        let status = self.client.content().status(request).await.ok().and_then(|answer| answer.into_inner().status);
        status.and_then(|status| u64::try_from(status.offset).ok()).unwrap_or(0)
    }

    /// Removes what a broken write has left of a blob: no try can resume it.
    pub async fn abort(&self, digest: &str) {
        let request = self.client.request(AbortRequest { r#ref: self.ingest(digest) });
        if let Err(status) = self.client.content().abort(request).await
            && !is_gone(&status)
        {
            tracing::debug!(digest, error = status.message(), "a part of a blob is left to garbage collection");
        }
    }

    fn ingest(&self, digest: &str) -> String {
        format!("stanchion-{}-{digest}", self.scope)
    }

    /// Writes a blob from `offset` on. containerd checks size and digest before the blob exists.
    pub async fn write(
        &self,
        blob: &oci::Descriptor,
        labels: HashMap<String, String>,
        offset: u64,
        parts: impl Stream<Item = Result<Bytes>> + Send + 'static,
    ) -> Result<()> {
        let (digest, total) = (blob.digest.clone(), i64::try_from(blob.size).unwrap_or(i64::MAX));
        let reference = self.ingest(&digest);
        let begin = i64::try_from(offset).unwrap_or(0);
        let broken: Arc<std::sync::Mutex<Option<Error>>> = Arc::default();
        let note = Arc::clone(&broken);
        let message = move |action: WriteAction, offset: i64, data: Vec<u8>, labels: HashMap<String, String>| {
            WriteContentRequest {
                action: action.into(),
                r#ref: reference.clone(),
                total,
                expected: digest.clone(),
                offset,
                data,
                labels,
            }
        };
        let mut at = begin;
        let last = message.clone();
        let data = parts.map(move |part| match part {
            Ok(part) => {
                let request = message(WriteAction::Write, at, part.to_vec(), HashMap::new());
                at += i64::try_from(part.len()).unwrap_or(0);
                Some(request)
            }
            Err(error) => {
                note.lock().unwrap_or_else(std::sync::PoisonError::into_inner).replace(error);
                None
            }
        });
        let commit = stream::once(async move { Some(last(WriteAction::Commit, total, Vec::new(), labels)) });
        // After a broken part nothing more is sent: the ingest stays, and the next try resumes it.
        let messages = data
            .chain(commit)
            .take_while(|message| std::future::ready(message.is_some()))
            .filter_map(std::future::ready);
        // The connection owns the messages, and would ask for more of them after the caller has gone.
        let cut_off = CancellationToken::new();
        let messages = messages.take_until(cut_off.clone().cancelled_owned());
        let _cut_off = cut_off.drop_guard();
        let tried = format!("writing blob {}", blob.digest);
        let written = async {
            let mut answers = self.client.content().write(self.client.request(messages)).await?.into_inner();
            while answers.message().await?.is_some() {}
            Ok::<_, Status>(())
        };
        let written = written.await;
        if let Some(error) = broken.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take() {
            return Err(error.context(tried));
        }
        match written {
            Err(status) if status.code() != Code::AlreadyExists => Err(write_error(&status, &tried)),
            _ => Ok(()),
        }
    }

    /// Writes a blob from memory.
    pub async fn write_all(
        &self,
        blob: &oci::Descriptor,
        labels: HashMap<String, String>,
        bytes: Vec<u8>,
    ) -> Result<()> {
        let parts: Vec<_> = bytes.chunks(1 << 20).map(|part| Ok(Bytes::copy_from_slice(part))).collect();
        self.write(blob, labels, 0, stream::iter(parts)).await
    }

    /// Adds labels to a blob.
    pub async fn label(&self, digest: &str, labels: HashMap<String, String>) -> Result<()> {
        if labels.is_empty() {
            // An update without a mask would change all labels.
            return Ok(());
        }
        let paths = labels.keys().map(|label| format!("labels.{label}")).collect();
        let info = Info { digest: digest.to_owned(), labels, ..Info::default() };
        let mask = prost_types::FieldMask { paths };
        let request = UpdateRequest { info: Some(info), update_mask: Some(mask) };
        let updated = self.client.content().update(self.client.request(request)).await;
        updated.map(drop).map_err(|status| failed(format!("labelling blob {digest}"), &status))
    }

    pub async fn has_snapshot(&self, key: &str) -> Result<bool> {
        let snapshotter = self.snapshotter.to_string();
        let request = self.client.request(StatSnapshotRequest { snapshotter, key: key.to_owned() });
        match self.client.snapshots().stat(request).await {
            Ok(_) => Ok(true),
            Err(status) if is_gone(&status) => Ok(false),
            Err(status) => Err(failed(format!("looking up snapshot {key}"), &status)),
        }
    }

    /// Unpacks layers one on the other. Returns the snapshot of the last.
    pub async fn unpack(&self, layers: &[oci::Descriptor], diff_ids: &[String]) -> Result<String> {
        if layers.len() != diff_ids.len() {
            let message = format!("the image has {} layers and {} diff ids", layers.len(), diff_ids.len());
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        let mut parent = String::new();
        for ((layer, diff_id), chain_id) in layers.iter().zip(diff_ids).zip(chain_ids(diff_ids)) {
            if !self.has_snapshot(&chain_id).await? {
                self.unpack_layer(layer, diff_id, &parent, &chain_id).await?;
            }
            parent = chain_id;
        }
        Ok(parent)
    }

    async fn unpack_layer(&self, layer: &oci::Descriptor, diff_id: &str, parent: &str, chain_id: &str) -> Result<()> {
        let tried = || format!("unpacking layer {}", layer.digest);
        let key = format!("extract-{} {chain_id}", unique());
        let snapshotter = self.snapshotter.to_string();
        let mut snapshots = self.client.snapshots();
        let prepare = PrepareSnapshotRequest {
            snapshotter: snapshotter.clone(),
            key: key.clone(),
            parent: parent.to_owned(),
            ..PrepareSnapshotRequest::default()
        };
        let mounts =
            snapshots.prepare(self.client.request(prepare)).await.map_err(|status| failed(tried(), &status))?;
        let apply = ApplyRequest {
            diff: Some(descriptor(&layer.media_type, &layer.digest, layer.size)),
            mounts: mounts.into_inner().mounts,
            ..ApplyRequest::default()
        };
        let applied = self.client.diff().apply(self.client.request(apply)).await;
        let applied = applied.map_err(|status| write_error(&status, &tried())).and_then(|answer| {
            match answer.into_inner().applied {
                Some(applied) if applied.digest == *diff_id => Ok(()),
                other => {
                    let found = other.map(|applied| applied.digest).unwrap_or_default();
                    Err(Error::new(ErrorKind::Invalid, tried())
                        .because(format!("its content is {found}, not {diff_id}")))
                }
            }
        });
        let committed = match applied {
            Ok(()) => {
                let labels = HashMap::new();
                let (key, name) = (key.clone(), chain_id.to_owned());
                let commit = CommitSnapshotRequest { snapshotter: snapshotter.clone(), name, key, labels };
                match snapshots.commit(self.client.request(commit)).await {
                    Err(status) if status.code() != Code::AlreadyExists => Err(failed(tried(), &status)),
                    Err(_) => Ok(false),
                    Ok(_) => Ok(true),
                }
            }
            Err(error) => Err(error),
        };
        if !matches!(committed, Ok(true)) {
            let remove = RemoveSnapshotRequest { snapshotter, key };
            if let Err(status) = snapshots.remove(self.client.request(remove)).await {
                tracing::debug!(error = status.message(), "a half unpacked layer is left to garbage collection");
            }
        }
        committed.map(drop)
    }

    /// Returns the label that keeps an image's files while its configuration is kept; an image may have no files.
    pub fn snapshot_label(&self, chain_id: &str) -> HashMap<String, String> {
        if chain_id.is_empty() {
            return HashMap::new();
        }
        HashMap::from([(format!("containerd.io/gc.ref.snapshot.{}", self.snapshotter), chain_id.to_owned())])
    }
}

/// Returns the labels that keep an image's blobs while its manifest is kept.
pub(super) fn content_labels<'a>(digests: impl Iterator<Item = &'a str>) -> HashMap<String, String> {
    let label = |(index, digest): (usize, &str)| (format!("containerd.io/gc.ref.content.{index}"), digest.to_owned());
    digests.enumerate().map(label).collect()
}

pub(super) fn descriptor(media_type: &str, digest: &str, size: u64) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest: digest.to_owned(),
        size: i64::try_from(size).unwrap_or(i64::MAX),
        annotations: HashMap::new(),
    }
}

/// Returns the names of the layers' snapshots, each for a layer and those before it (OCI image specification, ChainID).
pub(super) fn chain_ids(diff_ids: &[String]) -> Vec<String> {
    let mut chain: Vec<String> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let next =
            chain.last().map_or_else(|| diff_id.clone(), |parent| digest(format!("{parent} {diff_id}").as_bytes()));
        chain.push(next);
    }
    chain
}

fn write_error(status: &Status, tried: &str) -> Error {
    let text = status.message();
    if text.contains("no space left on device") {
        return Error::new(ErrorKind::Other, tried)
            .because("no space left on device: make room on the disk of containerd's root directory");
    }
    match status.code() {
        Code::FailedPrecondition => Error::new(ErrorKind::Invalid, tried).because(text),
        _ => failed(tried, status),
    }
}

/// Returns text that no other process uses.
fn unique() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let now = stanchion_sdk::clock::now().as_nanosecond();
    format!("{}-{now}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}
