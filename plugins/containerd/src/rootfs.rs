//! Looks into the files of images: to find names of users, and what is to be mounted of one.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use containerd_client::{
    services::v1::snapshots::{MountsRequest, RemoveSnapshotRequest, ViewSnapshotRequest},
    tonic::{Code, Status},
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
    /// The image's tables of users.
    pub(crate) async fn tables(&self, container: &str, image: &Resolved) -> Result<Arc<Tables>> {
        if let Some(known) = &image.tables {
            return Ok(Arc::clone(known));
        }
        let tables = match image.chain_id.as_str() {
            "" => Tables::default(),
            layers => {
                let tried = format!("looking for users in the files of the image of container {container}");
                let failed = |error: io::Error| Error::new(ErrorKind::Other, tried.clone()).caused_by(&error);
                self.look_into(layers, &format!("{container}-users"), &tried, tables_of).await?.map_err(failed)?
            }
        };
        let tables = Arc::new(tables);
        self.images.keep_tables(image, &tables);
        Ok(tables)
    }

    /// Has `look` see the files of an image, by the root of them. The view that shows them is named by nothing that lasts:
    /// given up in the middle, it goes with containerd's next garbage collection.
    pub(crate) async fn look_into<T: Send + 'static>(
        &self,
        layers: &str,
        key: &str,
        tried: &str,
        look: impl FnOnce(&OwnedFd) -> io::Result<T> + Send + 'static,
    ) -> Result<io::Result<T>> {
        let mounts = self.view(layers, key).await.map_err(|status| failed(tried, &status))?;
        let seen = tokio::task::spawn_blocking(move || unseen(&mounts, look)).await;
        if let Err(status) = self.remove_view(key).await {
            tracing::debug!(key, error = status.message(), "a view of an image is left to garbage collection");
        }
        seen.map_err(|panic| changes::crashed(&panic))
    }

    /// How the files of an image are mounted for reading: its view of that key, made if there is none.
    pub(crate) async fn view(&self, layers: &str, key: &str) -> std::result::Result<Vec<Mount>, Status> {
        let (snapshotter, key) = (self.config.snapshotter.clone(), key.to_owned());
        let view = ViewSnapshotRequest {
            snapshotter: snapshotter.clone(),
            key: key.clone(),
            parent: layers.to_owned(),
            ..ViewSnapshotRequest::default()
        };
        let mut snapshots = self.client.snapshots();
        match snapshots.view(self.client.request(view)).await {
            Ok(view) => Ok(view.into_inner().mounts),
            Err(status) if status.code() == Code::AlreadyExists => {
                let request = MountsRequest { snapshotter, key };
                snapshots.mounts(self.client.request(request)).await.map(|it| it.into_inner().mounts)
            }
            Err(status) => Err(status),
        }
    }

    /// Removes a view. Nothing happens to what is gone.
    pub(crate) async fn remove_view(&self, key: &str) -> std::result::Result<(), Status> {
        let request = RemoveSnapshotRequest { snapshotter: self.config.snapshotter.clone(), key: key.to_owned() };
        match self.client.snapshots().remove(self.client.request(request)).await {
            Err(status) if !is_gone(&status) => Err(status),
            _ => Ok(()),
        }
    }
}

/// Mounts the files where nobody else sees them, and looks at them. The thread takes the mount with it when it ends,
/// however the agent ends.
fn unseen<T: Send>(mounts: &[Mount], look: impl FnOnce(&OwnedFd) -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("st-rootfs".to_owned()).spawn_scoped(scope, || {
            unshare(CloneFlags::CLONE_NEWNS)?;
            let nothing = None::<&str>;
            mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)?;
            // Any directory will do: only this thread sees what is mounted on it.
            show(mounts, Path::new("/proc"))?;
            look(&openat(CWD, "/proc", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
        })?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread that looks at an image's files panicked")))
    })
}

/// Mounts the files of a view at a directory, which is named from the root.
pub(crate) fn show(mounts: &[Mount], place: &Path) -> io::Result<()> {
    let [files] = mounts else {
        return Err(io::Error::other(format!("the snapshot has {} mounts, expected 1", mounts.len())));
    };
    let (kind, flags) = match files.r#type.as_str() {
        "bind" => (None, MsFlags::MS_BIND),
        kind => (Some(kind), MsFlags::MS_RDONLY),
    };
    let is_data = |option: &&String| !matches!(option.as_str(), "rw" | "ro" | "rbind" | "bind");
    let mut data: Vec<_> = files.options.iter().filter(is_data).cloned().collect();
    let show = |data: &[String]| mount(Some(files.source.as_str()), place, kind, flags, Some(data.join(",").as_str()));
    // The kernel takes a page of options, and cuts off the rest: many layers are named from the directory that they share.
    let is_long = data.iter().map(|option| option.len() + 1).sum::<usize>() > rustix::param::page_size();
    let Some(base) = is_long.then(|| shorten(&mut data)).flatten() else { return Ok(show(&data)?) };
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("st-layers".to_owned()).spawn_scoped(scope, || {
            // For this thread alone.
            unshare(CloneFlags::CLONE_FS)?;
            std::env::set_current_dir(base)?;
            Ok(show(&data)?)
        })?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread that mounts an image's files panicked")))
    })
}

/// Names the layers of an overlay from the directory that they share, which is answered.
fn shorten(options: &mut [String]) -> Option<PathBuf> {
    const LAYERS: &str = "lowerdir=";
    let layers = options.iter_mut().find(|option| option.starts_with(LAYERS))?;
    let paths: Vec<_> = layers[LAYERS.len()..].split(':').map(Path::new).collect();
    let mut base = paths.first()?.parent()?;
    while !paths.iter().all(|path| path.starts_with(base)) {
        base = base.parent()?;
    }
    let below = paths.iter().map(|path| path.strip_prefix(base).ok()?.to_str()).collect::<Option<Vec<_>>>()?.join(":");
    let base = base.to_owned();
    *layers = format!("{LAYERS}{below}");
    Some(base)
}

/// Opens what is at a path, found as the image's own programs find it: no link in it leads to the node's files.
pub(crate) fn open_in(root: &OwnedFd, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    Ok(openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)?)
}

fn tables_of(root: &OwnedFd) -> io::Result<Tables> {
    Ok(Tables { passwd: table(root, "etc/passwd")?, group: table(root, "etc/group")? })
}

/// A small file.
fn table(root: &OwnedFd, path: &str) -> io::Result<String> {
    let file = match open_in(root, Path::new(path), OFlags::RDONLY | OFlags::NONBLOCK) {
        Ok(file) => File::from(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(error),
    };
    if !file.metadata()?.is_file() {
        return Ok(String::new());
    }
    let mut bytes = Vec::new();
    file.take(LONGEST).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use nix::mount::{MntFlags, umount2};

    use super::*;

    #[test]
    fn an_image_may_have_more_layers_than_fit_into_a_page_of_options() {
        let dir = tempfile::tempdir().expect("a directory");
        let layers = (0..100).map(|number| {
            let layer = dir.path().join(format!("a-name-of-some-length-as-snapshots-have/{number}/fs"));
            fs::create_dir_all(&layer).expect("made");
            fs::write(layer.join(format!("file-{number}")), "").expect("written");
            layer.display().to_string()
        });
        let options = vec!["index=off".to_owned(), format!("lowerdir={}", layers.collect::<Vec<_>>().join(":"))];
        assert!(options[1].len() > rustix::param::page_size());
        let view = [Mount { r#type: "overlay".to_owned(), source: "overlay".to_owned(), options, ..Mount::default() }];
        let place = dir.path().join("place");
        fs::create_dir(&place).expect("made");
        show(&view, &place).expect("it is mounted");
        let files = fs::read_dir(&place).expect("it can be read").count();
        umount2(&place, MntFlags::MNT_DETACH).expect("unmounted");
        assert_eq!(files, 100);
        let seen = unseen(&view, |root| open_in(root, Path::new("file-99"), OFlags::PATH).map(drop));
        seen.expect("it is there");
    }
}
