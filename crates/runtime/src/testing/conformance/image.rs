//! Image built from this node's own programs, so that the suite needs no registry.

use std::{
    collections::BTreeSet,
    env,
    fs::{self, File},
    io::{self, Cursor, ErrorKind},
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::json;
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

/// Reference of the image, which is in no registry.
pub(super) const REFERENCE: &str = "localhost/stanchion/conformance:latest";
/// Programs that the cases call, besides the shell's built-ins.
const PROGRAMS: [&str; 7] = ["sh", "cat", "hostname", "pwd", "readlink", "sleep", "true"];

/// Writes the image in the format of `docker save`.
pub(super) fn archive(path: &Path) -> io::Result<()> {
    let layer = layer()?;
    let diff_id = hex::encode(Sha256::digest(&layer));
    let architecture = match env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let config = json!({
        "architecture": architecture, "os": "linux", "config": { "Cmd": ["sh"], "Env": ["PATH=/bin"] },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{diff_id}")] },
    });
    let manifest = json!([{ "Config": "config.json", "RepoTags": [REFERENCE], "Layers": ["layer.tar"] }]);
    let mut archive = Builder::new(File::create(path)?);
    for (name, content) in [("layer.tar", layer), ("config.json", bytes(&config)), ("manifest.json", bytes(&manifest))]
    {
        add(&mut archive, name, EntryType::Regular, 0o644, &content)?;
    }
    archive.finish()
}

/// Builds the layer: the programs in `/bin`, and their libraries at the same paths as on this node.
fn layer() -> io::Result<Vec<u8>> {
    let mut files = Vec::new();
    let mut libraries = BTreeSet::new();
    for name in PROGRAMS {
        let program = find(name)?;
        libraries.extend(libraries_of(&program)?);
        files.push((PathBuf::from("bin").join(name), program));
    }
    files.extend(libraries.into_iter().map(|path| (path.strip_prefix("/").unwrap_or(&path).to_owned(), path)));
    let mut layer = Builder::new(Vec::new());
    let mut dirs = BTreeSet::from([PathBuf::new()]);
    for (place, source) in files {
        let above: Vec<_> = place.ancestors().skip(1).collect();
        for dir in above.into_iter().rev().filter(|dir| dirs.insert(dir.to_path_buf())) {
            add(&mut layer, dir, EntryType::Directory, 0o755, &[])?;
        }
        add(&mut layer, &place, EntryType::Regular, 0o755, &fs::read(source)?)?;
    }
    layer.into_inner()
}

fn find(program: &str) -> io::Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).map(|dir| dir.join(program)).find(|path| path.is_file());
    let missing = || io::Error::new(ErrorKind::NotFound, format!("{program} is not on this node's PATH"));
    found.ok_or_else(missing)
}

/// Returns the dynamic linker and the libraries of a program; none for a static program, on which `ldd` fails.
fn libraries_of(program: &Path) -> io::Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).env("LC_ALL", "C").output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let paths = said.split_whitespace().filter(|word| word.starts_with('/') && !word.ends_with(':'));
    Ok(if output.status.success() { paths.map(PathBuf::from).collect() } else { Vec::new() })
}

fn add<W: io::Write>(
    to: &mut Builder<W>,
    path: impl AsRef<Path>,
    kind: EntryType,
    mode: u32,
    content: &[u8],
) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(content.len() as u64);
    // Fixed time, so that the same programs make the same image.
    header.set_mtime(1);
    to.append_data(&mut header, path, Cursor::new(content))
}

fn bytes(value: &serde_json::Value) -> Vec<u8> {
    value.to_string().into_bytes()
}
