//! Programs that the tests run: the machine's own, or Debian packages unpacked below the target directory.
//!
//! `cargo xtask` unpacks packages that bring a service (containerd, docker-registry, redis) instead of installing them,
//! so that it adds no service to the machine.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

/// Directories of programs below a root.
const PROGRAMS: [&str; 4] = ["usr/bin", "usr/sbin", "bin", "sbin"];

/// Returns the root of the workspace.
///
/// # Panics
/// When this crate is in no workspace.
#[must_use]
pub fn workspace_dir() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("the directory of tests is in the workspace").to_owned()
}

/// Returns the target directory: the nearest ancestor of the running program that cargo has tagged.
///
/// # Errors
/// When the program was not built by cargo.
pub fn target_dir() -> Result<PathBuf> {
    let program = env::current_exe().context("cannot tell the path of the running program")?;
    program
        .ancestors()
        .find(|dir| dir.join("CACHEDIR.TAG").exists())
        .map(Path::to_path_buf)
        .with_context(|| format!("{} is not in a cargo target directory (no CACHEDIR.TAG above it)", program.display()))
}

/// Returns the directory into which `cargo xtask` unpacks packages.
///
/// # Errors
/// Those of [`target_dir`].
pub fn unpacked_dir() -> Result<PathBuf> {
    Ok(target_dir()?.join("xtask/tools"))
}

/// Returns the path of a program, looking among the machine's first, then among the unpacked ones.
///
/// # Errors
/// Those of [`target_dir`].
pub fn find(program: &str) -> Result<Option<PathBuf>> {
    Ok(first(search_path()?.into_iter().chain(cni_dirs()?), program))
}

/// Returns the path of a program that is installed on the machine.
#[must_use]
pub fn installed(program: &str) -> Option<PathBuf> {
    first(own_path().into_iter(), program)
}

fn first(mut dirs: impl Iterator<Item = PathBuf>, program: &str) -> Option<PathBuf> {
    dirs.find_map(|dir| Some(dir.join(program)).filter(|path| path.is_file()))
}

/// Returns the directories of CNI plugins. They are on no `PATH`: one plugin is called `bridge`, as is a program of
/// iproute2.
///
/// # Errors
/// Those of [`target_dir`].
pub fn cni_dirs() -> Result<[PathBuf; 2]> {
    Ok([PathBuf::from("/usr/lib/cni"), unpacked_dir()?.join("usr/lib/cni")])
}

/// Returns a command for a program, with search paths for its helpers and libraries.
///
/// # Errors
/// When the program is not found; the error says what to do.
pub fn command(program: &str) -> Result<Command> {
    let Some(path) = find(program)? else {
        bail!("{program} is not installed; `cargo xtask test` and `cargo xtask demo` fetch what they need")
    };
    let mut command = Command::new(path);
    apply(&mut command)?;
    Ok(command)
}

/// Sets the search paths of `command`, for programs that start others (containerd, the agent).
///
/// # Errors
/// Those of [`target_dir`].
pub fn apply(command: &mut Command) -> Result<()> {
    command.env("PATH", env::join_paths(search_path()?).context("PATH cannot be joined")?);
    if let Some(libraries) = library_path()? {
        command.env("LD_LIBRARY_PATH", libraries);
    }
    Ok(())
}

/// Returns the search path for programs, with `first` before everything else.
///
/// # Errors
/// Those of [`target_dir`].
pub fn search_path_from(first: &Path) -> Result<OsString> {
    let dirs = std::iter::once(first.to_path_buf()).chain(search_path()?);
    env::join_paths(dirs).context("PATH cannot be joined")
}

/// Returns `LD_LIBRARY_PATH` for unpacked programs; `None` while nothing is unpacked.
///
/// # Errors
/// Those of [`target_dir`].
pub fn library_path() -> Result<Option<OsString>> {
    let root = unpacked_dir()?;
    let triple = format!("{}-linux-gnu", env::consts::ARCH);
    let dirs = [root.join("usr/lib").join(&triple), root.join("lib").join(&triple), root.join("usr/lib")];
    let present: Vec<_> = dirs.into_iter().filter(|dir| dir.is_dir()).collect();
    if present.is_empty() {
        return Ok(None);
    }
    env::join_paths(present).map(Some).context("the target directory's path contains a colon")
}

/// Returns the machine's directories of programs.
fn own_path() -> Vec<PathBuf> {
    let own = env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<PathBuf> = env::split_paths(&own).collect();
    // A login shell of an ordinary user lacks the sbin directories.
    dirs.extend(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from));
    dirs
}

fn search_path() -> Result<Vec<PathBuf>> {
    let mut dirs = own_path();
    let root = unpacked_dir()?;
    dirs.extend(PROGRAMS.map(|dir| root.join(dir)));
    Ok(dirs)
}
