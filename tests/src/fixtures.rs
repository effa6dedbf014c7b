//! Images that pods run in tests, made from Debian packages of this machine.
//!
//! | reference | what |
//! |---|---|
//! | `redis:latest`, `redis:7`, `redis:8` | redis-server and redis-cli, started as the official image starts them |
//! | `busybox:latest`, `busybox:1` | a shell with all applets |
//! | `flock:latest` | the same with flock |
//! | `endless-users:latest` | a shell run by a user, with an endless `/etc/passwd` in which the user is looked up |
//!
//! Tags of one repository differ in the environment variable `FIXTURE`, so each has a digest of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process,
    time::UNIX_EPOCH,
};

use anyhow::{Context as _, Result};

use crate::{
    image::{Image, PackedLayer, Run, sha256},
    layer::Layer,
    process::text,
    tools,
};

/// Part of the cache key: increase it when this file makes other images from the same programs.
const FORMAT: u32 = 2;

/// `PATH` of the images.
pub const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Entry point like the official image's: a plain `redis-server` listens on all addresses; any other command is run as
/// it is.
const ENTRYPOINT: &[u8] = br#"#!/bin/sh
set -e
if [ "$1" = redis-server ]; then
    shift
    set -- redis-server --protected-mode no --save '' "$@"
fi
exec "$@"
"#;

/// Images on disk, made once for each set of programs.
#[derive(Clone, Debug)]
pub struct Fixtures {
    root: PathBuf,
}

impl Fixtures {
    /// Returns the images, from the target directory or newly made.
    ///
    /// # Errors
    /// When a program is not installed or a file cannot be written.
    pub fn prepare() -> Result<Self> {
        let programs = Programs::find()?;
        let parent = tools::target_dir()?.join("xtask");
        let root = parent.join(format!("images-{}", programs.key()?));
        if !root.is_dir() {
            let draft = parent.join(format!("images-draft-{}", process::id()));
            make(&programs, &draft).with_context(|| format!("cannot make test images in {}", draft.display()))?;
            // Test programs may do this at the same time: the first wins, the others discard their images.
            if let Err(error) = fs::rename(&draft, &root) {
                fs::remove_dir_all(&draft).with_context(|| format!("cannot remove {}", draft.display()))?;
                if !root.is_dir() {
                    return Err(error).with_context(|| format!("cannot create {}", root.display()));
                }
            }
        }
        Ok(Self { root })
    }

    /// Returns the storage directory for `docker-registry`.
    #[must_use]
    pub fn registry(&self) -> PathBuf {
        self.root.join("registry")
    }

    /// Returns an archive with `preloaded/busybox:docker`, as `docker save` writes it. No registry has this image.
    #[must_use]
    pub fn docker_archive(&self) -> PathBuf {
        self.root.join("busybox-docker.tar")
    }

    /// Returns an OCI layout with `docker.io/preloaded/busybox:oci`. No registry has this image.
    #[must_use]
    pub fn oci_archive(&self) -> PathBuf {
        self.root.join("busybox-oci.tar")
    }
}

struct Programs {
    busybox: PathBuf,
    redis_server: PathBuf,
    redis_cli: PathBuf,
}

impl Programs {
    fn find() -> Result<Self> {
        let [busybox, redis_server, redis_cli] = ["busybox", "redis-server", "redis-cli"].map(program);
        Ok(Self { busybox: busybox?, redis_server: redis_server?, redis_cli: redis_cli? })
    }

    fn key(&self) -> Result<String> {
        let mut key = format!("{FORMAT}");
        for program in [&self.busybox, &self.redis_server, &self.redis_cli] {
            let about = fs::metadata(program).with_context(|| format!("cannot read {}", program.display()))?;
            let changed = about.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
            key.push_str(&format!("\n{} {} {changed}", program.display(), about.len()));
        }
        Ok(sha256(key.as_bytes())[..16].to_owned())
    }
}

fn make(programs: &Programs, root: &Path) -> Result<()> {
    let registry = root.join("registry");
    fs::create_dir_all(&registry)?;
    let shell = PackedLayer::new(busybox()?)?;
    let redis = PackedLayer::new(redis(programs)?)?;
    for tag in ["latest", "1"] {
        busybox_image("library/busybox", tag, &shell).store(&registry)?;
    }
    let run = Run { cmd: &["sh"], env: &[PATH], ..Run::default() };
    Image::new("library/flock", "latest", &run, &[shell.clone(), PackedLayer::new(flock()?)?]).store(&registry)?;
    let run = Run { user: "nobody", ..run };
    Image::new("library/endless-users", "latest", &run, &[shell.clone(), PackedLayer::new(endless_users()?)?])
        .store(&registry)?;
    for tag in ["latest", "7", "8"] {
        let fixture = format!("FIXTURE=redis:{tag}");
        let run = Run {
            entrypoint: &["docker-entrypoint.sh"],
            cmd: &["redis-server"],
            env: &[PATH, &fixture],
            working_dir: "/data",
            ..Run::default()
        };
        Image::new("library/redis", tag, &run, &[shell.clone(), redis.clone()]).store(&registry)?;
    }
    busybox_image("preloaded/busybox", "docker", &shell)
        .docker_archive(&root.join("busybox-docker.tar"), "preloaded/busybox:docker")?;
    busybox_image("preloaded/busybox", "oci", &shell)
        .oci_archive(&root.join("busybox-oci.tar"), "docker.io/preloaded/busybox:oci")
}

fn busybox_image(repository: &str, tag: &str, shell: &PackedLayer) -> Image {
    let fixture = format!("FIXTURE={repository}:{tag}");
    let run = Run { cmd: &["sh"], env: &[PATH, &fixture], ..Run::default() };
    Image::new(repository, tag, &run, std::slice::from_ref(shell))
}

fn busybox() -> Result<Vec<u8>> {
    let mut layer = Layer::default();
    layer.dir("/tmp", 0o1777)?;
    layer.dir("/root", 0o700)?;
    layer.file("/etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")?;
    layer.file("/etc/group", 0o644, b"root:x:0:\nnogroup:x:65534:\n")?;
    shell(&mut layer)?;
    layer.finish()
}

fn flock() -> Result<Vec<u8>> {
    let mut layer = Layer::default();
    layer.program(&program("flock")?, "/usr/local/bin/flock")?;
    layer.finish()
}

fn endless_users() -> Result<Vec<u8>> {
    let mut layer = Layer::default();
    layer.link("/etc/passwd", "/dev/zero")?;
    layer.finish()
}

/// Adds busybox, with a link for each of its applets.
///
/// # Errors
/// When it is not installed.
pub fn shell(layer: &mut Layer) -> Result<()> {
    layer.program(&program("busybox")?, "/bin/busybox")?;
    let mut list = tools::command("busybox")?;
    for applet in text(list.arg("--list"))?.lines().filter(|applet| *applet != "busybox") {
        layer.link(&format!("/bin/{applet}"), "busybox")?;
    }
    Ok(())
}

/// Returns the path of a program of a Debian package.
///
/// # Errors
/// When it is not installed.
pub fn program(name: &str) -> Result<PathBuf> {
    tools::find(name)?.with_context(|| format!("{name} is not installed; `cargo xtask test` fetches it"))
}

fn redis(programs: &Programs) -> Result<Vec<u8>> {
    let mut layer = Layer::default();
    layer.dir("/data", 0o755)?;
    layer.program(&programs.redis_server, "/usr/local/bin/redis-server")?;
    layer.program(&programs.redis_cli, "/usr/local/bin/redis-cli")?;
    layer.file("/usr/local/bin/docker-entrypoint.sh", 0o755, ENTRYPOINT)?;
    layer.finish()
}
