//! The machine's disk, made once from Debian packages.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use stanchion_tests::tools;

use crate::say;

const SUITE: &str = "trixie";
const MIRROR: &str = "http://deb.debian.org/debian";
const PACKAGES: &str = "systemd-sysv,dbus,udev,kmod,iproute2,iptables,nftables,containerd,runc,docker.io,\
                        containernetworking-plugins,linux-image-amd64,initramfs-tools,busybox-static,procps,libseccomp2,\
                        ca-certificates,docker-registry,redis-server,redis-tools,bzip2,lz4,zstd,openssl";
/// Services that the tests start themselves or do not need.
const MASKED: [&str; 10] = [
    "containerd.service",
    "docker.service",
    "docker.socket",
    "docker-registry.service",
    "redis-server.service",
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "e2scrub_all.timer",
    "fstrim.timer",
    "systemd-networkd.service",
];
const MODULES: &str = "9p\n9pnet_virtio\nvirtio_pci\nvirtio_blk\next4\noverlay\n";
const UNIT: &str = "[Unit]\nDescription=What is asked of this machine\nAfter=multi-user.target\n[Service]\nType=simple\n\
                    Delegate=yes\nExecStart=/bin/sh /vm/run\n[Install]\nWantedBy=multi-user.target\n";

/// Disk image, with its kernel and initrd.
pub struct Image {
    dir: PathBuf,
}

impl Image {
    /// Returns the image; makes it if there is none or its recipe has changed.
    pub fn made() -> Result<Self> {
        let image = Self { dir: tools::target_dir()?.join("xtask/vm") };
        let recipe = format!("{}{SUITE}{PACKAGES}{MASKED:?}{MODULES}{UNIT}", tools::workspace_dir().display());
        let noted = image.dir.join("recipe");
        if fs::read_to_string(&noted).is_ok_and(|noted| noted == recipe) {
            return Ok(image);
        }
        say(format!("making an image of Debian {SUITE} in {}", image.dir.display()));
        let root = image.dir.join("root");
        clear(&image.dir)?;
        fs::create_dir_all(&image.dir).with_context(|| format!("cannot create {}", image.dir.display()))?;
        let include = format!("--include={PACKAGES}");
        must(Command::new("debootstrap").args(["--variant=minbase", &include, SUITE]).arg(&root).arg(MIRROR))?;
        prepare(&root)?;
        must(Command::new("chroot").arg(&root).args(["update-initramfs", "-u", "-k", "all"]))?;
        for (name, place) in [("vmlinuz", image.kernel()), ("initrd.img", image.initrd())] {
            let file = root.join(name);
            fs::copy(&file, place).with_context(|| format!("cannot copy {}", file.display()))?;
        }
        must(Command::new("truncate").args(["-s", "6G"]).arg(image.disk()))?;
        must(Command::new("mke2fs").args(["-q", "-t", "ext4", "-d"]).arg(&root).arg(image.disk()))?;
        clear(&root)?;
        fs::write(&noted, recipe).context("cannot note the recipe")?;
        Ok(image)
    }

    pub fn kernel(&self) -> PathBuf {
        self.dir.join("vmlinuz")
    }

    pub fn initrd(&self) -> PathBuf {
        self.dir.join("initrd")
    }

    /// Returns the directory that the machine mounts at `/vm`, and creates it if needed.
    pub fn share(&self) -> Result<PathBuf> {
        let share = self.dir.join("share");
        fs::create_dir_all(&share).with_context(|| format!("cannot create {}", share.display()))?;
        Ok(share)
    }

    /// Copies the disk, so that [`drive`](Self::drive) can keep writes.
    pub fn keep(&self) -> Result<()> {
        must(Command::new("cp").arg("--sparse=always").arg(self.disk()).arg(self.kept()))
    }

    /// Returns the emulator's `-drive` argument. Writes are discarded, or with `keeps` go to the copy.
    pub fn drive(&self, keeps: bool) -> String {
        let (file, snapshot) = if keeps { (self.kept(), "off") } else { (self.disk(), "on") };
        format!("file={},format=raw,if=virtio,snapshot={snapshot}", file.display())
    }

    fn disk(&self) -> PathBuf {
        self.dir.join("disk.img")
    }

    fn kept(&self) -> PathBuf {
        self.dir.join("kept.img")
    }
}

/// Configures the bare Debian: mounts, host name, initramfs modules, units.
fn prepare(root: &Path) -> Result<()> {
    let work = tools::workspace_dir();
    let work = work.to_str().context("the workspace's path is no UTF-8")?;
    let share = |tag: &str, place: &str| format!("{tag} {place} 9p trans=virtio,version=9p2000.L,msize=512000 0 0\n");
    let table = format!("/dev/vda / ext4 defaults 0 1\n{}{}", share("work", work), share("vm", "/vm"));
    for dir in [work, "/vm", "/var/log/journal", "/etc/systemd/system/multi-user.target.wants"] {
        let dir = root.join(dir.trim_start_matches('/'));
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    }
    for (path, content) in [
        ("etc/fstab", &*table),
        ("etc/hostname", "vm\n"),
        ("etc/hosts", "127.0.0.1 localhost vm\n"),
        ("etc/initramfs-tools/modules", MODULES),
        ("etc/systemd/system/vm-run.service", UNIT),
    ] {
        fs::write(root.join(path), content).with_context(|| format!("cannot write {path}"))?;
    }
    let units = root.join("etc/systemd/system");
    link("../vm-run.service", &units.join("multi-user.target.wants/vm-run.service"))?;
    MASKED.iter().try_for_each(|unit| link("/dev/null", &units.join(unit)))
}

fn link(target: &str, place: &Path) -> Result<()> {
    if fs::symlink_metadata(place).is_ok() {
        fs::remove_file(place).with_context(|| format!("cannot replace {}", place.display()))?;
    }
    std::os::unix::fs::symlink(target, place).with_context(|| format!("cannot link {}", place.display()))
}

fn clear(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}

fn must(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.env("DEBIAN_FRONTEND", "noninteractive").status();
    let status = status.with_context(|| format!("cannot start {program}"))?;
    ensure!(status.success(), "{program} failed ({status})");
    Ok(())
}
