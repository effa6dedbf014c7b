//! Paths of K3s and RKE2 that the backend uses.
//!
//! ```text
//!                        K3s                                     RKE2
//! data directory         /var/lib/rancher/k3s                    /var/lib/rancher/rke2
//! programs               <data>/data/current/bin                 <data>/bin
//! CNI plugins            <data>/data/cni, else the above         <data>/bin, /opt/cni/bin
//! socket                 /run/k3s/containerd/containerd.sock     the same
//! containerd's state     the socket's directory                  the same
//! ```

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use stanchion_sdk::runtime::{Error, ErrorKind, Result};
use stanchion_untrusted::{KERNEL_FILE, Links, read};

/// Socket of K3s's and RKE2's containerd, whatever the data directory.
pub const SOCKET: &str = "/run/k3s/containerd/containerd.sock";
/// Data directories, if none is configured.
const DATA: [&str; 2] = ["/var/lib/rancher/k3s", "/var/lib/rancher/rke2"];

/// Paths of K3s on this node.
#[derive(Clone, Debug)]
pub struct Layout {
    data: PathBuf,
    socket: PathBuf,
}

impl Layout {
    /// Returns the paths for the configured data directory, or for the one that exists.
    #[must_use]
    pub fn find(data: Option<&Path>, socket: &Path) -> Self {
        let found = || DATA.into_iter().map(Path::new).find(|path| path.is_dir()).unwrap_or(Path::new(DATA[0]));
        Self { data: data.unwrap_or_else(found).to_owned(), socket: socket.to_owned() }
    }

    /// Returns the data directory.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Returns containerd's socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Returns containerd's state directory, which has the bundles of running containers.
    #[must_use]
    pub fn state(&self) -> &Path {
        self.socket.parent().unwrap_or(Path::new("/"))
    }

    /// Returns whether K3s has ever run here: its first start unpacks its programs.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.programs().is_some()
    }

    /// Returns the directory of its programs.
    fn programs(&self) -> Option<PathBuf> {
        [self.data.join("data/current/bin"), self.data.join("bin")].into_iter().find(|path| path.is_dir())
    }

    /// Returns the containerd that it ships, and the directory of that one's shim and runc.
    ///
    /// # Errors
    /// K3s has not unpacked a containerd below its data directory.
    pub fn containerd(&self) -> Result<(PathBuf, PathBuf)> {
        let missing = || {
            let message = format!("there is no containerd of K3s below {}", self.data.display());
            let way_out = "K3s unpacks it when it is first run, e.g. by `k3s check-config`; or set data_dir";
            Error::new(ErrorKind::Unavailable, message).because(way_out)
        };
        let programs = self.programs().ok_or_else(missing)?;
        let containerd = programs.join("containerd");
        if containerd.is_file() { Ok((containerd, programs)) } else { Err(missing()) }
    }

    /// Returns the directories that may have CNI plugins, the best first.
    #[must_use]
    pub fn cni_directories(&self) -> Vec<PathBuf> {
        ["data/cni", "data/current/bin", "bin"].map(|sub| self.data.join(sub)).into_iter().collect()
    }

    /// Returns whether K3s itself runs: `k3s server`, `k3s agent` or RKE2's, not its containerd, nor `k3s kubectl`.
    #[must_use]
    pub fn has_process(&self) -> bool {
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        processes.into_iter().any(|process| {
            let is_number = process.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit());
            is_number && self.is_k3s(&process.path())
        })
    }

    fn is_k3s(&self, process: &Path) -> bool {
        // The process may have ended meanwhile.
        let Ok(command) = read(process.join("cmdline"), Links::Refuse, KERNEL_FILE) else { return false };
        let Ok(program) = fs::read_link(process.join("exe")) else { return false };
        match service(&command) {
            // K3s runs the program that it has unpacked; RKE2 is one file, wherever it was put.
            Some(Service::K3s) => self.has(&program),
            Some(Service::Rke2) => self.has(&program) || self.data.file_name() == Some(OsStr::new("rke2")),
            None => false,
        }
    }

    fn has(&self, program: &Path) -> bool {
        program.starts_with(&self.data) || fs::canonicalize(&self.data).is_ok_and(|data| program.starts_with(data))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Service {
    K3s,
    Rke2,
}

/// Returns the service whose server or agent has a command line (`proc_pid_cmdline(5)`): `k3s-agent …`, or, as they
/// rename themselves, `/usr/local/bin/k3s agent`.
fn service(command: &[u8]) -> Option<Service> {
    let mut words = command.split(|byte| *byte == 0 || *byte == b' ').map(String::from_utf8_lossy);
    let first = words.next()?;
    let name = first.rsplit('/').next()?;
    let is_service = |word: &str| matches!(word, "server" | "agent");
    match name.split_once('-') {
        Some(("k3s", role)) if is_service(role) => Some(Service::K3s),
        None if matches!(name, "k3s" | "rke2") && is_service(&words.next()?) => {
            Some(if name == "k3s" { Service::K3s } else { Service::Rke2 })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::{Layout, SOCKET, Service, service};

    #[test]
    fn servers_and_agents_are_known_by_their_command_lines() {
        for (line, wanted) in [
            ("k3s-agent\0--server\0https://a:6443\0", Some(Service::K3s)),
            ("/var/lib/rancher/k3s/data/1/bin/k3s-server\0", Some(Service::K3s)),
            ("/usr/local/bin/k3s server\0\0\0", Some(Service::K3s)),
            ("/usr/local/bin/k3s\0agent\0", Some(Service::K3s)),
            ("/usr/local/bin/rke2 agent\0", Some(Service::Rke2)),
            ("k3s\0kubectl\0get\0pods\0", None),
            ("k3s-etcd-snapshot\0", None),
            ("containerd\0-c\0config.toml\0", None),
            ("grep\0k3s agent\0", None),
            ("", None),
        ] {
            assert_eq!(service(line.as_bytes()), wanted, "{line:?}");
        }
    }

    #[test]
    fn programs_are_found_where_k3s_and_rke2_unpack_them() {
        for programs in ["data/0123/bin", "bin"] {
            let root = tempfile::tempdir().expect("a directory");
            let layout = Layout::find(Some(root.path()), Path::new(SOCKET));
            assert!(!layout.is_there());
            let error = layout.containerd().expect_err("nothing was unpacked");
            assert!(error.chain().contains("k3s check-config"), "{}", error.chain());
            let directory = root.path().join(programs);
            fs::create_dir_all(&directory).expect("made");
            fs::write(directory.join("containerd"), "").expect("written");
            if programs.starts_with("data/") {
                std::os::unix::fs::symlink("0123", root.path().join("data/current")).expect("linked");
            }
            assert!(layout.is_there());
            assert!(layout.containerd().expect("found").0.ends_with("bin/containerd"));
        }
        let layout = Layout::find(None, Path::new(SOCKET));
        assert_eq!(layout.state(), Path::new("/run/k3s/containerd"));
        assert!(layout.data().starts_with("/var/lib/rancher"));
    }
}
