//! A look into an image's files, to find names of users.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::OwnedFd,
    path::Path,
    sync::Arc,
    thread,
};

use containerd_client::{
    services::v1::snapshots::{MountsRequest, RemoveSnapshotRequest, ViewSnapshotRequest},
    tonic::Code,
    types::Mount,
};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use stanchion_sdk::runtime::{Error, ErrorKind, Result};

use crate::{
    Containerd, changes,
    client::{failed, is_gone},
    image::Resolved,
    spec::Tables,
};

/// Longer tables are no tables.
const LONGEST: u64 = 1 << 20;

impl Containerd {
    /// The image's tables of users. The view that shows them is named by nothing that lasts: given up in the middle, it
    /// goes with containerd's next garbage collection.
    pub(crate) async fn tables(&self, container: &str, image: &Resolved) -> Result<Arc<Tables>> {
        if let Some(known) = &image.tables {
            return Ok(Arc::clone(known));
        }
        let tables = Arc::new(self.look_up_tables(container, image).await?);
        self.images.keep_tables(image, &tables);
        Ok(tables)
    }

    async fn look_up_tables(&self, container: &str, image: &Resolved) -> Result<Tables> {
        if image.chain_id.is_empty() {
            return Ok(Tables::default());
        }
        let tried = || format!("looking for users in the files of the image of container {container}");
        let (snapshotter, key) = (self.config.snapshotter.clone(), format!("{container}-users"));
        let view = ViewSnapshotRequest {
            snapshotter: snapshotter.clone(),
            key: key.clone(),
            parent: image.chain_id.clone(),
            ..ViewSnapshotRequest::default()
        };
        let mut snapshots = self.client.snapshots();
        let mounts = match snapshots.view(self.client.request(view)).await {
            Ok(view) => Ok(view.into_inner().mounts),
            Err(status) if status.code() == Code::AlreadyExists => {
                let request = MountsRequest { snapshotter: snapshotter.clone(), key: key.clone() };
                snapshots.mounts(self.client.request(request)).await.map(|it| it.into_inner().mounts)
            }
            Err(status) => Err(status),
        };
        let mounts = mounts.map_err(|status| failed(tried(), &status))?;
        let tables = tokio::task::spawn_blocking(move || read(&mounts)).await;
        let request = RemoveSnapshotRequest { snapshotter, key };
        match snapshots.remove(self.client.request(request)).await {
            Err(status) if !is_gone(&status) => {
                tracing::debug!(
                    container,
                    error = status.message(),
                    "a view of an image is left to garbage collection"
                );
            }
            _ => {}
        }
        let tables = tables.map_err(|panic| changes::crashed(&panic))?;
        tables.map_err(|error| Error::new(ErrorKind::Other, tried()).caused_by(&error))
    }
}

/// Mounts the files where nobody else sees them, and reads. The thread takes the mount with it when it ends, however the
/// agent ends.
fn read(mounts: &[Mount]) -> io::Result<Tables> {
    let [files] = mounts else {
        return Err(io::Error::other(format!("the snapshot has {} mounts, expected 1", mounts.len())));
    };
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("st-rootfs".to_owned()).spawn_scoped(scope, || {
            unshare(CloneFlags::CLONE_NEWNS)?;
            let nothing = None::<&str>;
            mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)?;
            // Any directory will do: only this thread sees what is mounted on it.
            show(files, Path::new("/proc"))?;
            let root = openat(CWD, "/proc", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
            Ok(Tables { passwd: table(&root, "etc/passwd")?, group: table(&root, "etc/group")? })
        })?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread that reads an image's files panicked")))
    })
}

fn show(files: &Mount, place: &Path) -> io::Result<()> {
    let is_data = |option: &&String| !matches!(option.as_str(), "rw" | "ro" | "rbind" | "bind");
    let data: Vec<_> = files.options.iter().filter(is_data).map(String::as_str).collect();
    let (kind, flags) = match files.r#type.as_str() {
        "bind" => (None, MsFlags::MS_BIND),
        kind => (Some(kind), MsFlags::MS_RDONLY),
    };
    mount(Some(files.source.as_str()), place, kind, flags, Some(data.join(",").as_str()))?;
    Ok(())
}

/// A small file, found as the image's own programs find it: no link in it leads to the node's files.
fn table(root: &OwnedFd, path: &str) -> io::Result<String> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::NOENT) => return Ok(String::new()),
        Err(error) => return Err(error.into()),
    };
    if !file.metadata()?.is_file() {
        return Ok(String::new());
    }
    let mut bytes = Vec::new();
    file.take(LONGEST).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
