//! Reads one directory of manifests, or one manifest file.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    ffi::{OsStr, OsString},
    fs::{self, Metadata},
    io::{self, ErrorKind},
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use stanchion_plan::mutant::{self, Mutant};
use stanchion_pod::{MAX_MANIFEST, Manifest, Object, ObjectKey, ObjectKind, Pod, PodKey, Problem, decode};
use stanchion_untrusted::{Links, open, read_from};

use super::{
    directory::{self, Directory, EMPTY_MARKER, Listing},
    exposure::exposure,
    kubelets,
    last_good::LastGood,
    leftover,
    standby::{Role, Standby},
};
use crate::{config::FileSource, limits};

/// Types (statfs(2)) of file systems that other machines change without an inotify event: NFS, three of SMB, FUSE, 9P,
/// Ceph, AFS, and the lower layers of overlayfs.
const WITHOUT_INOTIFY: [u32; 9] =
    [0x6969, 0x517b, 0xff53_4d42, 0xfe53_4d42, 0x6573_5546, 0x0102_1997, 0x00c3_6400, 0x5346_414f, 0x794c_7630];

/// A source of manifests in files, and its content as last read.
#[derive(Debug)]
pub(super) struct Reader {
    path: PathBuf,
    node_name: String,
    files: BTreeMap<OsString, ManifestFile>,
    error: Option<String>,
    since: Timestamp,
    /// `true` once this agent or an earlier one has read the source: `files` then has all its manifests.
    known: bool,
    /// Manifests whose last good content is lost, until they can be read.
    lost: BTreeSet<OsString>,
    /// Identity of the directory that last held the manifests.
    directory: Option<Directory>,
    /// The same identity, until it is kept on disk.
    unsaved_directory: Option<Directory>,
    has_links: bool,
    is_silent: bool,
    last_good: LastGood,
    unkept: BTreeSet<OsString>,
    begun: bool,
    /// The kubelet that the source belongs to.
    standby: Option<Standby>,
    /// Namespaces and names of pods whose containers still run although the kubelet is away.
    running: Vec<(String, String)>,
}

/// One manifest as it was last read: a file, or the body of a URL.
#[derive(Debug, Default)]
pub(super) struct ManifestFile {
    stamp: Option<Stamp>,
    /// Content in force, until it is kept on disk.
    pub content: Vec<u8>,
    /// `true` if the content in force was kept by an earlier agent, and not read by this one.
    pub is_recalled: bool,
    /// Pods in force: those of the present content if that is good, else those of the last good one.
    pub pods: Vec<Arc<Pod>>,
    /// Objects in force, likewise.
    pub objects: Vec<(ObjectKey, Arc<Object>)>,
    /// Reasons why the present content is not in force.
    pub problems: Vec<Problem>,
    /// Doubts about the present content.
    pub warnings: Vec<Problem>,
}

/// Metadata that shows without a read whether a file has changed. Bodies of URLs have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(file: &Metadata) -> Self {
        Self {
            inode: (file.dev(), file.ino()),
            size: file.len(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }
}

impl Reader {
    pub fn new(source: &FileSource, node_name: &str, state_dir: &Path) -> Self {
        let FileSource { path, kubelet } = source.clone();
        let last_good = LastGood::of(state_dir, path.as_os_str().as_bytes());
        let mut reader = Self {
            path,
            node_name: node_name.to_owned(),
            files: BTreeMap::new(),
            error: None,
            since: crate::Clock::System.now(),
            known: false,
            lost: BTreeSet::new(),
            directory: None,
            unsaved_directory: None,
            has_links: false,
            is_silent: false,
            last_good,
            unkept: BTreeSet::new(),
            begun: false,
            standby: kubelet.map(Standby::new),
            running: Vec::new(),
        };
        reader.recall();
        reader
    }

    pub fn location(&self) -> &Path {
        &self.path
    }

    /// Returns why the source cannot be read now.
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// Returns since when the source cannot be read, or since when it can.
    pub fn since(&self) -> Timestamp {
        self.since
    }

    /// Returns whether it is known which pods the source wants: not while it is undecided whether its kubelet is there.
    pub fn is_known(&self) -> bool {
        self.known && self.lost.is_empty() && !matches!(self.role(), Role::Undecided(_))
    }

    /// Returns the source's pods, whether or not they are run here.
    pub fn pods(&self) -> impl Iterator<Item = &PodKey> {
        self.files.values().flat_map(|file| &file.pods).map(|pod| &pod.key)
    }

    /// Returns the kubelet that the source belongs to.
    pub fn standby(&mut self) -> Option<&mut Standby> {
        self.standby.as_mut()
    }

    fn role(&self) -> Role {
        self.standby.as_ref().map_or(Role::Ours, Standby::role)
    }

    /// Returns why a pod of this source does not run here: no pod may run twice.
    pub fn withheld(&self, pod: &PodKey) -> Option<String> {
        match self.role() {
            Role::Ours => {
                let runs = self.running.iter().any(|running| kubelets::is_same(pod, &self.node_name, running));
                runs.then(|| "the kubelet does not answer, but containers that it started still run".to_owned())
            }
            Role::StandBy(reason) | Role::Undecided(reason) => Some(reason),
        }
    }

    /// Returns whether pods wait for the end of a kubelet's containers, which no event reports.
    pub fn awaits_ends(&self) -> bool {
        !self.running.is_empty()
    }

    /// Returns whether manifests are links, whose targets' changes the kernel does not report (R-INOT-9).
    pub fn has_links(&self) -> bool {
        self.has_links
    }

    /// Returns whether the source is on a file system that other machines change unseen (R-INOT-8).
    pub fn is_silent(&self) -> bool {
        self.is_silent
    }

    /// Returns the manifests by path, in lexical order.
    pub fn files(&self) -> impl Iterator<Item = (PathBuf, &ManifestFile)> {
        self.files.iter().map(|(name, file)| (self.path_of(name), file))
    }

    /// Reads the manifests that have changed. Files in `writing` are being written, and keep their last content.
    pub fn read(&mut self, writing: &HashSet<PathBuf>) {
        self.running = match &self.standby {
            Some(standby) if standby.role() == Role::Ours => kubelets::running(&standby.kubelet().runtime_state),
            _ => Vec::new(),
        };
        let found = self.list();
        let failed = found.as_ref().err().cloned();
        if failed.is_some() != self.error.is_some() {
            self.since = crate::Clock::System.now();
        }
        self.error = failed;
        // A source that cannot be read is not an order to delete (design: I2).
        let found = match found {
            Ok(found) => found,
            Err(_) if mutant::is_on(Mutant::TakesMissingForEmpty) => Listing::default(),
            Err(_) => return,
        };
        self.known = true;
        self.has_links = false;
        self.is_silent = is_silent(&self.path);
        self.remember_directory(&found);
        let found = found.names;

        let is_gone = |name: &&OsString| !found.contains(*name) && !writing.contains(&self.path_of(name));
        let gone: Vec<_> = self.files.keys().filter(is_gone).cloned().collect();
        for name in gone {
            self.files.remove(&name);
            self.unkept.insert(name);
        }
        let path = &self.path;
        let is_left = |name: &OsString| found.contains(name) || writing.contains(&path.join(name));
        self.unkept.extend(self.lost.extract_if(.., |name| !is_left(name)));
        for name in found {
            let path = self.path_of(&name);
            if !writing.contains(&path) {
                self.read_file(&name, &path);
            }
        }
    }

    /// Writes changed content to disk, for the agent's next start.
    pub fn keep(&mut self) {
        if !self.known || self.error.is_some() {
            return;
        }
        if !self.begun {
            self.begun = self.log_failure("begin", self.last_good.begin());
        }
        for name in std::mem::take(&mut self.unkept) {
            let done = match self.files.get(&name) {
                // The file came back with bad content, and the content from before its removal no longer counts.
                Some(file) if file.content.is_empty() => self.last_good.forget(&name),
                Some(file) => self.last_good.keep(&name, &file.content),
                None => self.last_good.forget(&name),
            };
            if !self.log_failure(&name.to_string_lossy(), done) {
                self.unkept.insert(name);
            } else if let Some(file) = self.files.get_mut(&name) {
                file.content = Vec::new();
            }
        }
        if let Some(directory) = self.unsaved_directory.take() {
            let saved = self.last_good.keep_directory(&directory);
            if !self.log_failure("directory", saved) {
                self.unsaved_directory = Some(directory);
            }
        }
    }

    fn log_failure(&self, what: &str, done: io::Result<()>) -> bool {
        if let Err(error) = &done {
            let source = self.path.display();
            tracing::warn!(%source, what, %error, "keeping the last good manifests failed; a restart may not know them");
        }
        done.is_ok()
    }

    /// Restores the content that an earlier agent kept, until the source is read.
    fn recall(&mut self) {
        let kept = match self.last_good.load() {
            Ok(Some(kept)) => kept,
            Ok(None) => return,
            Err(error) => {
                let source = self.path.display();
                tracing::warn!(%source, %error, "the last good manifests cannot be read");
                return;
            }
        };
        self.known = true;
        self.directory = self.last_good.directory();
        for (name, content) in kept {
            match content.map(|content| decode(&content, &self.node_name)) {
                Some(Ok(manifest)) => {
                    let mut file = ManifestFile::default();
                    file.put_in_force(manifest, Vec::new());
                    file.is_recalled = true;
                    self.files.insert(name, file);
                }
                _ => {
                    let (source, file) = (self.path.display(), name.to_string_lossy());
                    tracing::warn!(
                        %source, %file, "the last good content of this manifest is lost; no pod is removed until it can be read"
                    );
                    self.lost.insert(name);
                }
            }
        }
    }

    /// Lists the source, or returns why it cannot be read.
    fn list(&self) -> Result<Listing, String> {
        let failed = |error: io::Error| match error.kind() {
            ErrorKind::NotFound => format!("{} does not exist", self.path.display()),
            _ => format!("{} cannot be read: {error}", self.path.display()),
        };
        let kind = fs::metadata(&self.path).map_err(failed)?;
        if kind.is_file() {
            let names = self.path.file_name().map(OsStr::to_owned).into_iter().collect();
            return Ok(Listing { names, has_files: true, is_marked_empty: false, directory: None });
        }
        if !kind.is_dir() {
            return Err(format!("{} is neither a directory nor a file", self.path.display()));
        }
        let found = directory::list(&self.path).map_err(failed)?;
        let is_same = match (&self.directory, &found.directory) {
            (Some(last), Some(found)) => last.is(found),
            _ => false,
        };
        let had_any = !self.files.is_empty() || !self.lost.is_empty();
        // A mount that went away is not an order to delete either.
        if had_any && !found.has_files && !found.is_marked_empty && !is_same {
            return Err(format!(
                "{path} is empty, and is not the directory that had the manifests: is something not mounted? Mount it, put a \
                 manifest into the directory, or say that no pod is wanted: touch {path}/{EMPTY_MARKER}",
                path = self.path.display(),
            ));
        }
        Ok(found)
    }

    /// Remembers the identity of the directory that holds the manifests.
    fn remember_directory(&mut self, found: &Listing) {
        let Some(directory) = found.directory.filter(|_| found.has_files || found.is_marked_empty) else { return };
        if self.directory.is_none_or(|last| !last.is(&directory)) {
            self.directory = Some(directory);
            self.unsaved_directory = Some(directory);
        }
    }

    fn read_file(&mut self, name: &OsStr, path: &Path) {
        let is_link = fs::symlink_metadata(path).is_ok_and(|entry| entry.is_symlink());
        self.has_links |= is_link;
        let stamp = match fs::metadata(path) {
            // Direct entries only, no recursion (R-FILE-2).
            Ok(entry) if entry.is_dir() && !is_link => return self.drop_file(name),
            Ok(entry) => Some(Stamp::of(&entry)),
            // Removed between the listing and now; the next read sees that.
            Err(error) if error.kind() == ErrorKind::NotFound && !is_link => return,
            Err(_) => None,
        };
        let file = self.files.entry(name.to_owned()).or_default();
        if stamp.is_some() && file.stamp == stamp {
            return;
        }
        match load(path).and_then(|content| content.decoded(&self.node_name)) {
            Ok((manifest, content)) => {
                file.put_in_force(manifest, content);
                self.lost.remove(name);
                self.unkept.insert(name.to_owned());
            }
            Err(problems) => file.problems = problems,
        }
        if !leftover::is_usual(&name.to_string_lossy()) && file.problems.is_empty() {
            let message = "the name does not end in .yaml, .yml or .json; it is read all the same".to_owned();
            file.warnings.push(Problem { message, ..Problem::default() });
        }
        file.stamp = stamp;
    }

    fn drop_file(&mut self, name: &OsStr) {
        if self.files.remove(name).is_some() {
            self.unkept.insert(name.to_owned());
        }
    }

    fn path_of(&self, name: &OsStr) -> PathBuf {
        match self.path.file_name() {
            Some(own) if own == name && !self.path.is_dir() => self.path.clone(),
            _ => self.path.join(name),
        }
    }
}

/// Returns whether a path is on a file system that other machines change unseen.
fn is_silent(path: &Path) -> bool {
    let kind = rustix::fs::statfs(path).ok().and_then(|found| u32::try_from(found.f_type).ok());
    kind.is_some_and(|kind| WITHOUT_INOTIFY.contains(&kind))
}

impl ManifestFile {
    /// Puts a decoded manifest in force.
    pub fn put_in_force(&mut self, manifest: Manifest, content: Vec<u8>) {
        self.pods = manifest.pods.into_iter().map(Arc::new).collect();
        self.objects = manifest.objects.into_iter().map(|(key, object)| (key, Arc::new(object))).collect();
        self.problems = Vec::new();
        self.warnings = manifest.warnings;
        self.content = content;
        self.is_recalled = false;
    }
}

/// Content and metadata of a manifest file.
struct Loaded {
    content: Vec<u8>,
    entry: Metadata,
}

impl Loaded {
    fn decoded(self, node_name: &str) -> Result<(Manifest, Vec<u8>), Vec<Problem>> {
        let manifest = decode(&self.content, node_name)?;
        let has_secret = manifest.objects.iter().any(|(key, _)| key.kind == ObjectKind::Secret);
        match exposure(&self.entry).filter(|_| has_secret) {
            Some(found) => {
                let message =
                    format!("holds a Secret, and {found}; it must be root's alone: chown root:root and chmod 0600");
                Err(vec![Problem { message, ..Problem::default() }])
            }
            None => Ok((manifest, self.content)),
        }
    }
}

/// Reads a manifest file.
fn load(path: &Path) -> Result<Loaded, Vec<Problem>> {
    let failed = |message: String| vec![Problem { message, ..Problem::default() }];
    let unreadable = |error: io::Error| failed(format!("cannot be read: {error}"));
    // `open` refuses FIFOs: reading one would wait for a writer (R-FILE-6).
    let file = open(path, Links::Follow).map_err(|error| match error.kind() {
        ErrorKind::InvalidInput => failed("is not a regular file: a manifest is a file or a link to one".to_owned()),
        _ => unreadable(error),
    })?;
    let entry = file.metadata().map_err(unreadable)?;
    let content = read_from(file, limits::MANIFEST).map_err(|error| match error.kind() {
        ErrorKind::FileTooLarge => {
            let mib = MAX_MANIFEST >> 20;
            failed(format!("has {} bytes or more: a manifest must be smaller than {mib} MiB", entry.len()))
        }
        _ => unreadable(error),
    })?;
    Ok(Loaded { content, entry })
}

#[cfg(test)]
mod tests;
