//! File trees as image layers: deterministic tar archives.

use std::{
    collections::BTreeSet,
    env, fmt, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use tar::{Builder, EntryType, Header};

use crate::{process, tools};

/// Layer under construction. The same calls make the same bytes.
pub struct Layer {
    archive: Builder<Vec<u8>>,
    present: BTreeSet<PathBuf>,
}

impl fmt::Debug for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layer").field("present", &self.present).finish_non_exhaustive()
    }
}

impl Default for Layer {
    fn default() -> Self {
        Self { archive: Builder::new(Vec::new()), present: BTreeSet::new() }
    }
}

impl Layer {
    /// Adds a directory, and its parents.
    ///
    /// # Errors
    /// When the path does not fit into a tar header.
    pub fn dir(&mut self, path: &str, mode: u32) -> Result<()> {
        self.owned_dir(path, mode, 0)
    }

    /// Adds a directory whose UID and GID are `owner`, and its parents.
    ///
    /// # Errors
    /// When the path does not fit into a tar header.
    pub fn owned_dir(&mut self, path: &str, mode: u32, owner: u32) -> Result<()> {
        self.parents(Path::new(path))?;
        if self.present.insert(relative(path)) {
            self.append(path, header(EntryType::Directory, mode, owner), &[])?;
        }
        Ok(())
    }

    /// Adds a file.
    ///
    /// # Errors
    /// When the path does not fit into a tar header.
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.owned_file(path, mode, 0, content)
    }

    /// Adds a file whose UID and GID are `owner`.
    ///
    /// # Errors
    /// When the path does not fit into a tar header.
    pub fn owned_file(&mut self, path: &str, mode: u32, owner: u32, content: &[u8]) -> Result<()> {
        self.parents(Path::new(path))?;
        if self.present.insert(relative(path)) {
            self.append(path, header(EntryType::Regular, mode, owner), content)?;
        }
        Ok(())
    }

    /// Adds a symbolic link.
    ///
    /// # Errors
    /// When a path does not fit into a tar header.
    pub fn link(&mut self, path: &str, to: &str) -> Result<()> {
        self.parents(Path::new(path))?;
        if self.present.insert(relative(path)) {
            let mut header = header(EntryType::Symlink, 0o777, 0);
            self.archive
                .append_link(&mut header, relative(path), to)
                .with_context(|| format!("cannot add {path} to a layer"))?;
        }
        Ok(())
    }

    /// Adds a program of this machine at `path`, with its shared libraries.
    ///
    /// # Errors
    /// When a file cannot be read, or `ldd` does not find a library.
    pub fn program(&mut self, source: &Path, path: &str) -> Result<()> {
        self.file(path, 0o755, &read(source)?)?;
        for (library, place) in libraries(source)? {
            self.file(&place, 0o755, &read(&library)?)?;
        }
        Ok(())
    }

    /// Returns the finished archive.
    ///
    /// # Errors
    /// Never in practice: it is in memory.
    pub fn finish(self) -> Result<Vec<u8>> {
        self.archive.into_inner().context("cannot finish a layer")
    }

    fn parents(&mut self, path: &Path) -> Result<()> {
        let above: Vec<_> = path.ancestors().skip(1).filter(|dir| dir.parent().is_some()).collect();
        for dir in above.into_iter().rev() {
            let dir = dir.to_string_lossy();
            if self.present.insert(relative(&dir)) {
                self.append(&dir, header(EntryType::Directory, 0o755, 0), &[])?;
            }
        }
        Ok(())
    }

    fn append(&mut self, path: &str, mut header: Header, content: &[u8]) -> Result<()> {
        header.set_size(content.len() as u64);
        self.archive
            .append_data(&mut header, relative(path), content)
            .with_context(|| format!("cannot add {path} to a layer"))
    }
}

fn header(kind: EntryType, mode: u32, owner: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(0);
    header.set_uid(owner.into());
    header.set_gid(owner.into());
    header.set_mtime(1);
    header
}

fn relative(path: &str) -> PathBuf {
    PathBuf::from(path.trim_start_matches('/'))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Returns the libraries of a program that `ldd` finds, with their paths in the image. The dynamic linker keeps its
/// path, which the program names; the others go to `/lib`, which every linker searches.
fn libraries(program: &Path) -> Result<Vec<(PathBuf, String)>> {
    let mut ldd = tools::command("ldd")?;
    let output = process::text(ldd.arg(program).env("LC_ALL", "C"));
    let Ok(output) = output else {
        // `ldd` fails for a static program.
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for line in output.lines().map(str::trim) {
        let word = |text: &str| text.split_whitespace().next().unwrap_or_default().to_owned();
        match line.split_once("=>") {
            Some((name, path)) if path.trim().starts_with("not found") => {
                bail!("{} needs {}, which is not on this machine", program.display(), name.trim())
            }
            Some((name, path)) => found.push((PathBuf::from(word(path)), format!("/lib/{}", word(name)))),
            None if line.starts_with('/') => found.push((PathBuf::from(word(line)), word(line))),
            None => {}
        }
    }
    Ok(found)
}

/// Returns the architecture's name in image configurations.
#[must_use]
pub fn architecture() -> &'static str {
    match env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
