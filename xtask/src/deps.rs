//! Finds or fetches the programs that building and testing need.
//!
//! Packages with a service (containerd, docker, docker-registry, redis), and packages that would replace another one
//! (busybox-static), are not installed but unpacked below the target directory: no service starts, and the machine
//! stays unchanged.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use anyhow::{Context as _, Result, bail, ensure};
use stanchion_tests::tools;

use crate::say;

/// How to get a package: installed, or unpacked below the target directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Install,
    Unpack,
}

/// Program, and the Debian package that contains it.
#[derive(Clone, Copy, Debug)]
struct Need {
    program: &'static str,
    package: &'static str,
    way: Way,
}

impl Need {
    fn is_met(&self) -> Result<bool> {
        Ok(match self.way {
            Way::Install => tools::installed(self.program).is_some(),
            Way::Unpack => tools::find(self.program)?.is_some(),
        })
    }
}

const fn install(program: &'static str, package: &'static str) -> Need {
    Need { program, package, way: Way::Install }
}

const fn unpack(program: &'static str, package: &'static str) -> Need {
    Need { program, package, way: Way::Unpack }
}

/// Programs for building.
const BUILD: &[Need] = &[install("cc", "gcc"), install("protoc", "protobuf-compiler")];

/// Programs for an emulated machine.
const EMULATOR: &[Need] = &[
    install("qemu-system-x86_64", "qemu-system-x86"),
    install("debootstrap", "debootstrap"),
    install("mke2fs", "e2fsprogs"),
];

/// Programs for running and inspecting a node.
const NODE: &[Need] = &[
    // Only tests use it, to list network links.
    install("ip", "iproute2"),
    // Installed, because a backend in a test's own process finds it by PATH. Debian does not enable its service.
    install("nft", "nftables"),
    // Installed, because CNI plugins run it with an environment that does not find unpacked libraries.
    install("iptables", "iptables"),
    // For compressed image archives, and (openssl) for registries' certificates.
    install("bzip2", "bzip2"),
    install("lz4", "lz4"),
    install("zstd", "zstd"),
    install("openssl", "openssl"),
    unpack("portmap", "containernetworking-plugins"),
    unpack("containerd", "containerd"),
    unpack("ctr", "containerd"),
    unpack("runc", "runc"),
    unpack("dockerd", "docker.io"),
    unpack("docker-registry", "docker-registry"),
    unpack("busybox", "busybox-static"),
    unpack("redis-server", "redis-server"),
    unpack("etcd", "etcd-server"),
    unpack("redis-cli", "redis-tools"),
];

/// Fetches missing programs that demo, tests and benchmarks need.
pub fn ensure_all() -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "containers need root: run this as root, e.g. `sudo -E env \"PATH=$PATH\" cargo xtask …`"
    );
    ensure_each(&[BUILD, NODE].concat())
}

fn ensure_each(needs: &[Need]) -> Result<()> {
    let mut missing = Vec::new();
    for need in needs {
        if !need.is_met()? {
            missing.push(*need);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    fetch(&missing)?;
    for need in &missing {
        ensure!(
            need.is_met()?,
            "{} is still missing although Debian's package {} was fetched",
            need.program,
            need.package
        );
    }
    Ok(())
}

/// Fetches missing programs that an emulated machine needs.
pub fn ensure_emulator() -> Result<()> {
    ensure_each(EMULATOR)
}

fn fetch(missing: &[Need]) -> Result<()> {
    let programs: Vec<_> = missing.iter().map(|need| need.program).collect();
    if tools::find("apt-get")?.is_none() {
        bail!(
            "missing programs: {}. This is not Debian (no apt-get), so install them yourself; on Debian they are in {}",
            programs.join(", "),
            packages(missing, |_| true).join(", ")
        );
    }
    say(format!("missing programs: {}", programs.join(", ")));
    apt(&["update"])?;
    let to_install = packages(missing, |need| need.way == Way::Install);
    if !to_install.is_empty() {
        say(format!("installing Debian packages: {}", to_install.join(" ")));
        apt(&[&["install", "-y", "--no-install-recommends"], to_install.as_slice()].concat())?;
    }
    let to_unpack = packages(missing, |need| need.way == Way::Unpack);
    if !to_unpack.is_empty() {
        unpack_all(&to_unpack)?;
    }
    Ok(())
}

/// Returns the packages' names, each once.
fn packages(needs: &[Need], wanted: impl Fn(&Need) -> bool) -> Vec<&'static str> {
    let names: BTreeSet<_> = needs.iter().filter(|need| wanted(need)).map(|need| need.package).collect();
    names.into_iter().collect()
}

fn unpack_all(packages: &[&str]) -> Result<()> {
    let root = tools::unpacked_dir()?;
    say(format!("unpacking Debian packages into {} (not installed): {}", root.display(), packages.join(" ")));
    let archives = tools::target_dir()?.join("xtask/debs");
    fs::create_dir_all(archives.join("partial")).with_context(|| format!("cannot create {}", archives.display()))?;
    let place = format!("Dir::Cache::archives={}", archives.display());
    let fixed = ["install", "-y", "--no-install-recommends", "--download-only", "-o", &place];
    apt(&[&fixed, packages].concat())?;
    fs::create_dir_all(&root).with_context(|| format!("cannot create {}", root.display()))?;
    for entry in fs::read_dir(&archives).with_context(|| format!("cannot read {}", archives.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            extract(&path, &root)?;
        }
    }
    Ok(())
}

fn extract(package: &Path, root: &Path) -> Result<()> {
    let status = Command::new("dpkg-deb").arg("--extract").arg(package).arg(root).status();
    let status = status.context("cannot start dpkg-deb")?;
    ensure!(status.success(), "dpkg-deb cannot unpack {} ({status})", package.display());
    Ok(())
}

fn apt(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("apt-get");
    let status = command.arg("-q").args(arguments).env("DEBIAN_FRONTEND", "noninteractive").status();
    let status = status.context("cannot start apt-get")?;
    ensure!(status.success(), "apt-get {} failed ({status})", arguments.join(" "));
    Ok(())
}
