//! `stanchion doctor`
//!
//! # Layout
//! - [`run`]: all checks. [`network`]: obstacles for pods' packets.

mod network;

use std::{
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::unix::fs::MetadataExt,
    path::Path,
    process::ExitCode,
    time::Duration,
};

use anyhow::Result;
use stanchion_agent::config::{FileSource, SourceConfig};
use stanchion_board::view::{BackendView, SourceView};
use stanchion_loader::load;
use stanchion_runtime::{Health, Runtime};

use crate::{
    backends,
    client::Client,
    config::{BackendSettings, Settings},
};

/// Port of a kubelet's health endpoint (`healthzPort`), unless it is configured.
const KUBELET: u16 = 10248;

/// Result of a check, with the remedy if there is a problem.
enum Verdict {
    Fine(String),
    Doubtful(String, String),
    Bad(String, String),
}

use Verdict::{Bad, Doubtful, Fine};
use stanchion_untrusted::{read_kernel, text::escaped};

/// Checks the node; fails if something is wrong.
pub fn run(config: &Path, client: &Client) -> Result<ExitCode> {
    let settings = match Settings::load(config) {
        Ok(settings) => settings,
        Err(error) => {
            tell(&Bad(
                format!("{error:#}"),
                format!("write {}; config/stanchion.toml is an example", config.display()),
            ));
            return Ok(ExitCode::FAILURE);
        }
    };
    let mut found = vec![Fine(format!("configuration {} is valid", config.display()))];
    found.push(match rustix::process::geteuid().is_root() {
        true => Fine("running as root".to_owned()),
        false => Bad("not running as root".to_owned(), "use sudo".to_owned()),
    });
    found.extend(settings.agent.sources.iter().map(source));
    if settings.agent.sources.is_empty() {
        found.push(Bad(
            "no source of manifests".to_owned(),
            "add [[source]] with path = \"/etc/stanchion/manifests\"".to_owned(),
        ));
    }
    found.extend(programs(&settings.backends));
    found.extend(kernel());
    found.extend(network::checks(&settings.backends));
    found.extend(kubelets(&settings.agent.sources, (Ipv4Addr::LOCALHOST, KUBELET).into()));
    found.extend(client.block_on(async { Ok(agent_and_backends(&settings, client).await) })?);
    found.iter().for_each(tell);
    let is_bad = found.iter().any(|verdict| matches!(verdict, Bad(..)));
    Ok(if is_bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn source(source: &SourceConfig) -> Verdict {
    match source {
        SourceConfig::Files(FileSource { path, .. }) if std::fs::read_dir(path).is_ok() || path.is_file() => {
            owner(path)
        }
        SourceConfig::Files(FileSource { path, .. }) => {
            Bad(format!("{} cannot be read", path.display()), format!("mkdir -p {}", path.display()))
        }
        // The agent fetches from the URL; its result follows below.
        SourceConfig::Url(source) => Fine(format!("manifests of {}", source.url)),
    }
}

/// Warns about manifest paths that others than root can write: whoever writes a manifest is root on this node
/// (R-REJ-12).
fn owner(path: &Path) -> Verdict {
    let found = std::fs::metadata(path).map(|found| (found.uid(), found.mode() & 0o022));
    match found {
        Ok((0, 0)) => Fine(format!("manifests in {}", path.display())),
        Err(error) => Doubtful(
            format!("whose {} is cannot be seen: {error}", path.display()),
            format!("check it with ls -ld {}: who can write to it is root on this node by that", path.display()),
        ),
        Ok(_) => Doubtful(
            format!("{} can be written to by others than root, who are root on this node by that", path.display()),
            format!("chown root: {0} && chmod go-w {0}, or set [policy]", path.display()),
        ),
    }
}

fn tell(verdict: &Verdict) {
    // Backends, runtimes, sources and registries contribute to these texts, so escape them.
    match verdict {
        Fine(what) => println!("ok    {}", escaped(what)),
        Doubtful(what, way_out) => println!("warn  {}\n      -> {}", escaped(what), escaped(way_out)),
        Bad(what, way_out) => println!("FAIL  {}\n      -> {}", escaped(what), escaped(way_out)),
    }
}

fn programs(backends: &[BackendSettings]) -> Vec<Verdict> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let has = |program: &str| std::env::split_paths(&paths).any(|directory| directory.join(program).is_file());
    let need = |program: &str, package: &str, what: &str| match has(program) {
        true => Fine(format!("{program} is installed")),
        false => Bad(format!("{program} is missing ({what})"), format!("install the package {package}")),
    };
    let logger = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.join("stanchion-logger")));
    let logger = match logger {
        Some(path) if path.is_file() => Fine(format!("{} is there", path.display())),
        _ => Bad(
            "stanchion-logger is not beside this program".to_owned(),
            "install it there, or set `logger`".to_owned(),
        ),
    };
    let nft = || need("nft", "nftables", "pods need it for masquerade and host ports");
    backends.iter().any(has_own_bridge).then(nft).into_iter().chain([logger]).collect()
}

/// Returns whether a backend connects pods to Stanchion's own bridge: not with CNI plugins, which have programs of
/// their own, and not on Docker.
fn has_own_bridge(backend: &BackendSettings) -> bool {
    let library = backend.library.file_stem().unwrap_or_default();
    let is_containerd = ["libstanchion_containerd", "libstanchion_k3s"].iter().any(|own| library == *own);
    is_containerd && backend.table.pointer("/network/cni_config").is_none()
}

fn kernel() -> Vec<Verdict> {
    let filesystems = read_kernel("/proc/filesystems").unwrap_or_default();
    let has = |name: &str| filesystems.lines().any(|line| line.split_whitespace().last() == Some(name));
    let overlay = match has("overlay") {
        true => Fine("the kernel has overlayfs".to_owned()),
        false => Doubtful("the kernel does not show overlayfs yet".to_owned(), "modprobe overlay".to_owned()),
    };
    let cgroups = match (has("cgroup"), has("cgroup2")) {
        (false, false) => Bad("the kernel has no cgroups".to_owned(), "boot a kernel with cgroups".to_owned()),
        _ => Fine("the kernel has cgroups".to_owned()),
    };
    vec![overlay, cgroups]
}

/// Looks for the kubelets that sources belong to, and for one at its usual address that no source names.
fn kubelets(sources: &[SourceConfig], usual: SocketAddr) -> Vec<Verdict> {
    let answers = |address| TcpStream::connect_timeout(&address, Duration::from_millis(300)).is_ok();
    let named = sources.iter().filter_map(|source| match source {
        SourceConfig::Files(FileSource { path, kubelet: Some(kubelet) }) => Some((path.display(), kubelet.address)),
        _ => None,
    });
    let verdict = |(path, address)| match answers(address) {
        true => Fine(format!("a kubelet answers at {address}: it runs the pods of {path}")),
        false => Fine(format!("no kubelet answers at {address}: Stanchion runs the pods of {path}")),
    };
    let mut found: Vec<_> = named.clone().map(verdict).collect();
    if named.clone().all(|(_, address)| address != usual) {
        match answers(usual) {
            true => found.push(Doubtful(
                format!("a kubelet answers at {usual}"),
                "do not give it and Stanchion the same manifest directory, or set kubelet in its [[source]]".to_owned(),
            )),
            false if found.is_empty() => found.push(Fine("no kubelet on this node".to_owned())),
            false => {}
        }
    }
    found
}

/// Returns the agent's problems with a source.
fn seen_source(source: SourceView) -> Vec<Verdict> {
    // The check without the agent has reported a missing path already.
    let is_told = source.location.starts_with('/') && !Path::new(&source.location).exists();
    let error = source.error.filter(|_| !is_told);
    let error = error.map(|error| Bad(format!("source {error}"), "its pods keep running unchanged".to_owned()));
    let notice = source.notice.map(|notice| {
        let (what, way_out) = notice.split_once("; ").unwrap_or((&notice, "see the agent's log"));
        Doubtful(format!("source {}: {what}", source.location), way_out.to_owned())
    });
    error.into_iter().chain(notice).collect()
}

async fn agent_and_backends(settings: &Settings, client: &Client) -> Vec<Verdict> {
    if let Ok(backends) = client.get::<Vec<BackendView>>("/v1/backends").await {
        let backend = |backend: BackendView| match backend.error {
            None => Fine(format!("backend {}: {} {}", backend.name, backend.runtime, backend.runtime_version)),
            Some(error) if error.contains(backends::OPENING) => {
                Doubtful(format!("backend {}: {error}", backend.name), "ask again in a moment".to_owned())
            }
            Some(error) => {
                Bad(format!("backend {}: {error}", backend.name), "start the runtime, or correct its table".to_owned())
            }
        };
        let agent = Fine("the agent is running".to_owned());
        let sources = client.get::<Vec<SourceView>>("/v1/sources").await.unwrap_or_default();
        let sources = sources.into_iter().flat_map(seen_source);
        let obstructed: Vec<_> = backends.iter().flat_map(|it| obstructed(&it.name, &it.health)).collect();
        let backends = backends.into_iter().map(backend);
        return std::iter::once(agent).chain(sources).chain(backends).chain(obstructed).collect();
    }
    let mut found =
        vec![Doubtful("the agent is not running".to_owned(), "stanchion run, or systemctl start stanchion".to_owned())];
    if settings.backends.is_empty() {
        found.push(Bad("no backend is configured".to_owned(), "add [backend.containerd]".to_owned()));
    }
    for backend in &settings.backends {
        let opened = match load(backends::spec(backend, &settings.agent)).await {
            Ok(opened) => {
                // The backend knows what drops pods' packets, whether or not its runtime answers.
                found.extend(opened.health().await.iter().flat_map(|health| obstructed(&backend.name, health)));
                opened.version().await
            }
            Err(error) => Err(error),
        };
        found.push(match opened {
            Ok(version) => Fine(format!("backend {}: {} {}", backend.name, version.runtime, version.runtime_version)),
            Err(error) => {
                let way_out = "start the runtime, or correct its table in the configuration".to_owned();
                Bad(format!("backend {}: {}", backend.name, error.chain()), way_out)
            }
        });
    }
    found
}

/// Returns the obstacles that a backend reports for its pods.
fn obstructed(backend: &str, health: &Health) -> Vec<Verdict> {
    network::obstacles(health).map(|(what, line)| Bad(format!("backend {backend}: {what}"), line.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use std::{
        net::{Ipv4Addr, SocketAddr, TcpListener},
        path::Path,
        time::Duration,
    };

    use serde_json::json;
    use stanchion_agent::config::{FileSource, Kubelet, SourceConfig};

    use super::{Doubtful, Fine, has_own_bridge, kubelets, owner};
    use crate::config::BackendSettings;

    #[test]
    fn nft_is_needed_for_a_bridge_of_our_own_only() {
        let needs = |library: &str, table| {
            let (name, library) = ("any".to_owned(), library.into());
            has_own_bridge(&BackendSettings { name, library, sha256: None, failover: None, table })
        };
        assert!(needs("/lib/libstanchion_containerd.so", json!({})));
        assert!(needs("/lib/libstanchion_k3s.so", json!({"network": {"bridge": "pods0"}})));
        assert!(!needs("/lib/libstanchion_containerd.so", json!({"network": {"cni_config": "/etc/pods.conflist"}})));
        assert!(!needs("/lib/libstanchion_docker.so", json!({"network": "bridge"})));
        assert!(!needs("/lib/libacme.so", json!({})));
    }

    fn source(kubelet: Option<SocketAddr>) -> SourceConfig {
        let kubelet = kubelet.map(|address| Kubelet {
            address,
            absent_for: Duration::from_secs(60),
            runtime_state: Vec::new(),
            lock_file: None,
        });
        SourceConfig::Files(FileSource { path: "/manifests".into(), kubelet })
    }

    #[test]
    fn a_kubelet_that_a_source_names_is_as_it_should_be() {
        let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let (kubelet, other) = (listen(), listen());
        let address = |listener: &TcpListener| listener.local_addr().expect("it has one");
        let (here, other) = (address(&kubelet), address(&other));
        let gone = address(&listen());
        let told = |sources: &[Option<SocketAddr>], usual| {
            let sources: Vec<_> = sources.iter().map(|kubelet| source(*kubelet)).collect();
            let verdicts = kubelets(&sources, usual).into_iter();
            verdicts.map(|verdict| matches!(verdict, Fine(_))).collect::<Vec<_>>()
        };
        assert_eq!(told(&[None], gone), [true], "there is none");
        assert_eq!(told(&[None], here), [false], "no source names it");
        assert_eq!(told(&[None, Some(here)], here), [true]);
        assert_eq!(told(&[Some(other)], here), [true, false], "it is another one");
        assert_eq!(told(&[Some(gone)], gone), [true]);
        assert_eq!(told(&[Some(here)], gone), [true], "it is not at its usual address");
    }

    #[test]
    fn a_path_that_cannot_be_looked_at_is_not_in_order() {
        assert!(matches!(owner(Path::new("/nonexistent")), Doubtful(..)));
    }
}
