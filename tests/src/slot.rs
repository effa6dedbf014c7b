//! Directory and names of one test node: locked while in use; everything under them is removed when they are returned.

use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use crate::{cgroups, remains};

/// Number of nodes of one kind that can exist at the same time.
const SLOTS: u8 = 60;

/// Purpose of a node; each kind has its own names and addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Node of a test.
    Test,
    /// Node of the demo.
    Demo,
    /// Node of the benchmark.
    Bench,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Test, Self::Demo, Self::Bench];

    const fn name(self) -> &'static str {
        match self {
            Self::Test => "test",
            Self::Demo => "demo",
            Self::Bench => "bench",
        }
    }

    const fn first_subnet(self) -> u8 {
        match self {
            Self::Test => 0,
            Self::Demo => 64,
            Self::Bench => 128,
        }
    }
}

/// Directory and the names that belong to it, reserved while this value exists. A killed run leaves them to the next,
/// which cleans up first.
#[derive(Debug)]
pub struct Slot {
    names: Names,
    lock: PathBuf,
    // Held for its lock, which the kernel releases however the process ends.
    _held: File,
}

/// Names of a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// Directory of all files of the node.
    pub dir: PathBuf,
    /// Name of the bridge; also the prefix of other names.
    pub bridge: String,
    /// First three numbers of the pods' addresses, e.g. `10.213.4`.
    pub prefix: String,
    /// containerd namespace. runc keeps the containers of all containerds of the machine in one directory, so nodes
    /// that run the same pods must have different namespaces.
    pub namespace: String,
    /// Root of the pods' cgroups, as an absolute path in every hierarchy.
    pub cgroup: String,
    /// Root of the pods' cgroups, as in a backend's configuration.
    pub cgroup_root: String,
}

impl Names {
    fn of(kind: Kind, number: u8) -> Self {
        let dir = base().join(format!("stanchion-{}-{number}", kind.name()));
        let driver = cgroups::Driver::chosen();
        let cgroup_root = driver.root(&format!("stanchion-{}-{number}", kind.name()));
        Self {
            dir,
            bridge: format!("stn{}{number}", &kind.name()[..1]),
            prefix: format!("10.213.{}", kind.first_subnet() + number),
            namespace: match kind {
                Kind::Demo => "stanchion".to_owned(),
                Kind::Test | Kind::Bench => format!("stanchion-{}-{number}", kind.name()),
            },
            cgroup: driver.path(&cgroup_root),
            cgroup_root,
        }
    }

    /// Returns a port of the machine that no other node uses; `which` is below 10.
    #[must_use]
    pub fn port(&self, which: u16) -> u16 {
        let number: u16 = self.prefix.rsplit('.').next().and_then(|part| part.parse().ok()).unwrap_or(0);
        21000 + number * 10 + which
    }

    /// Returns the pods' network, e.g. `10.213.4.0/24`.
    #[must_use]
    pub fn subnet(&self) -> String {
        format!("{}.0/24", self.prefix)
    }
}

impl Slot {
    /// Takes a free slot and empties it.
    ///
    /// # Errors
    /// When all are taken, or one cannot be emptied.
    pub fn take(kind: Kind) -> Result<Self> {
        for number in 0..SLOTS {
            if let Some(slot) = Self::open(kind, number)? {
                let names = &slot.names;
                fs::create_dir_all(&names.dir).with_context(|| format!("cannot create {}", names.dir.display()))?;
                return Ok(slot);
            }
        }
        bail!("all {SLOTS} places for {} nodes in {} are taken", kind.name(), base().display())
    }

    /// Returns its names.
    #[must_use]
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Locks and empties a slot; `None` when it is in use.
    fn open(kind: Kind, number: u8) -> Result<Option<Self>> {
        let names = Names::of(kind, number);
        let lock = names.dir.with_extension("lock");
        let Some(held) = try_lock(&lock)? else { return Ok(None) };
        let slot = Self { names, lock, _held: held };
        remains::erase(&slot.names)?;
        Ok(Some(slot))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if std::env::var_os("STANCHION_KEEP").is_some() {
            eprintln!("STANCHION_KEEP is set: {} stays until the next run", self.names.dir.display());
            return;
        }
        // The lock file is removed last: until then nobody else takes the names.
        let removed = remains::erase(&self.names).and_then(|()| {
            fs::remove_file(&self.lock).with_context(|| format!("cannot remove {}", self.lock.display()))
        });
        if let Err(error) = removed {
            eprintln!("while cleaning up: {error:#}");
        }
    }
}

/// Removes what killed runs have left behind; returns the directories that were cleaned.
///
/// # Errors
/// When something cannot be removed.
pub fn sweep() -> Result<Vec<PathBuf>> {
    let mut swept = Vec::new();
    for kind in Kind::ALL {
        for number in 0..SLOTS {
            let names = Names::of(kind, number);
            let lock = names.dir.with_extension("lock");
            if !names.dir.exists() && !lock.exists() {
                continue;
            }
            if let Some(slot) = Slot::open(kind, number)? {
                swept.push(slot.names.dir.clone());
            }
        }
    }
    Ok(swept)
}

/// Returns the directory of all slots: a short path, because paths of Unix sockets end at 107 bytes.
fn base() -> PathBuf {
    std::env::var_os("STANCHION_TEST_DIR").map_or_else(|| PathBuf::from("/tmp"), PathBuf::from)
}

fn try_lock(path: &Path) -> Result<Option<File>> {
    let failed = || format!("cannot lock {}", path.display());
    loop {
        let file = File::options().create(true).append(true).open(path).with_context(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error).with_context(failed),
        }
        // Its last owner may have removed the file between our open and our lock.
        match fs::metadata(path) {
            Ok(now) if now.ino() == file.metadata().with_context(failed)?.ino() => return Ok(Some(file)),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(failed),
        }
    }
}
