//! Tests of ADD and DEL by the specification. The plugins are shell scripts that record how they were called.

#![allow(clippy::disallowed_methods, reason = "a test measures")]

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use stanchion_runtime::{Error, ErrorKind, NodePaths, PortMapping, Protocol, SandboxConfig};
use tempfile::TempDir;

use super::super::{Network, NetworkConfig};
use crate::namespaces::{Namespaces, Own};

const ID: &str = "web-0-abc";

/// Directories of a node, and the namespaces of one sandbox.
struct Bed {
    directory: TempDir,
    namespaces: Namespaces,
}

impl Bed {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        fs::create_dir(directory.path().join("bin")).expect("made");
        for plugin in ["first", "second", "addresses"] {
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cni/fixtures/plugin.sh");
            std::os::unix::fs::symlink(script, directory.path().join("bin").join(plugin)).expect("linked");
        }
        let namespaces = Namespaces::at(directory.path().join("run/ns").join(ID));
        namespaces.pin(Own::default(), "web", Path::new("")).expect("pinned");
        Self { directory, namespaces }
    }

    fn path(&self, sub: &str) -> PathBuf {
        self.directory.path().join(sub)
    }

    /// Writes a list of two plugins, with a fault that `change` makes.
    fn write(&self, change: impl FnOnce(&mut Value)) {
        let mut list = json!({
            "cniVersion": "1.0.0",
            "name": "pods",
            "disableCheck": true,
            "plugins": [
                { "type": "first", "mtu": 1400, "ipam": { "type": "addresses" } },
                { "type": "second", "capabilities": { "portMappings": true, "bandwidth": true } },
            ],
        });
        change(&mut list);
        fs::write(self.path("pods.conflist"), list.to_string()).expect("written");
    }

    fn open(&self) -> Network {
        let config = NetworkConfig {
            cni_config: Some(self.path("pods.conflist")),
            cni_bin_dirs: vec![self.path("nowhere"), self.path("bin")],
            ..NetworkConfig::default()
        };
        let paths = |sub: &str| self.path(sub);
        let node = NodePaths {
            node_name: "node".to_owned(),
            state_dir: paths("state"),
            run_dir: paths("run"),
            log_dir: paths("logs"),
            libexec_dir: paths("libexec"),
        };
        Network::new(&config, &node).expect("its settings are right")
    }

    /// Returns the fault of the list.
    fn wrong(&self) -> String {
        self.open().cni.check().expect_err("it is wrong").chain()
    }

    fn namespace(&self) -> PathBuf {
        self.namespaces.path("net")
    }

    fn attach(&self, network: &Network, pod: &SandboxConfig) -> Result<Vec<String>, Error> {
        let addresses = network.attach(ID, &self.namespace(), pod)?;
        Ok(addresses.iter().map(ToString::to_string).collect())
    }

    fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.path("bin/calls")).unwrap_or_default();
        calls.lines().map(str::to_owned).collect()
    }

    fn input(&self, call: &str) -> Value {
        let bytes = fs::read(self.path("bin").join(format!("{call}.json"))).expect("it was called");
        serde_json::from_slice(&bytes).expect("it got JSON")
    }

    fn nothing_is_kept(&self) {
        let kept = |sub: &str| fs::read_dir(self.path(sub)).map_or(0, Iterator::count);
        assert_eq!((kept("state/cni"), kept("run/cni/ports")), (0, 0));
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.namespaces.unpin().expect("unpinned");
    }
}

fn pod(ports: &[u16]) -> SandboxConfig {
    let port = |host_port: &u16| PortMapping {
        protocol: Protocol::Udp,
        host_port: *host_port,
        container_port: 53,
        host_ip: None,
    };
    SandboxConfig {
        name: "web-node".to_owned(),
        namespace: "default".to_owned(),
        uid: "1234".to_owned(),
        hostname: "web".to_owned(),
        port_mappings: ports.iter().map(port).collect(),
        ..SandboxConfig::default()
    }
}

#[test]
fn add_goes_down_the_list_and_del_up_again() {
    let bed = Bed::new();
    bed.write(|_| {});
    let network = bed.open();
    let addresses = bed.attach(&network, &pod(&[5353])).expect("attached");
    assert_eq!(addresses, ["10.9.8.7", "fd00::7"], "those inside the sandbox, of both families");
    let first = json!({ "cniVersion": "1.0.0", "name": "pods", "type": "first", "mtu": 1400,
        "ipam": { "type": "addresses" } });
    assert_eq!(bed.input("first.ADD"), first, "its part of the list, and nothing of the others'");
    let second = bed.input("second.ADD");
    let ports = json!({ "portMappings": [{ "hostPort": 5353, "containerPort": 53, "protocol": "udp" }] });
    assert_eq!(second["runtimeConfig"], ports, "what it says it can do, of what there is");
    assert_eq!(second["prevResult"]["from"], "first");
    assert_eq!(second.get("capabilities"), None);

    let environment = fs::read_to_string(bed.path("bin/first.ADD.env")).expect("it was called");
    let value = |name: &str| environment.lines().find_map(|line| line.strip_prefix(&format!("{name}=")));
    assert_eq!(value("CNI_CONTAINERID"), Some(ID));
    assert_eq!(value("CNI_IFNAME"), Some("eth0"));
    assert_eq!(value("CNI_NETNS"), bed.namespace().to_str());
    let path = format!("{}:{}", bed.path("nowhere").display(), bed.path("bin").display());
    assert_eq!(value("CNI_PATH"), Some(path.as_str()));
    let arguments = "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-node;\
                     K8S_POD_INFRA_CONTAINER_ID=web-0-abc;K8S_POD_UID=1234";
    assert_eq!(value("CNI_ARGS"), Some(arguments));
    assert_eq!(value("CARGO_MANIFEST_DIR"), None, "nothing of the agent's own environment");

    network.detach(ID, &bed.namespace()).expect("detached");
    network.detach(ID, &bed.namespace()).expect("and nothing the second time");
    assert_eq!(bed.calls(), ["ADD first", "ADD second", "DEL second", "DEL first"]);
    for call in ["first.DEL", "second.DEL"] {
        assert_eq!(bed.input(call)["prevResult"]["from"], "second", "the result of the whole");
    }
    assert_eq!(bed.input("second.DEL")["runtimeConfig"], ports);
    bed.nothing_is_kept();
}

#[test]
fn del_goes_by_the_list_that_add_went_by() {
    let bed = Bed::new();
    bed.write(|list| list["cniVersion"] = json!("0.3.1"));
    bed.attach(&bed.open(), &pod(&[])).expect("attached");
    bed.write(|list| {
        list["name"] = json!("others");
        list["plugins"] = json!([{ "type": "second" }]);
    });
    // A new agent.
    let network = bed.open();
    assert_eq!(network.holders().expect("listed"), [ID.to_owned()].into());
    network.detach(ID, &bed.namespace()).expect("detached");
    assert_eq!(bed.calls()[2..], ["DEL second", "DEL first"]);
    let input = bed.input("first.DEL");
    assert_eq!((&input["name"], &input["mtu"]), (&json!("pods"), &json!(1400)));
    assert_eq!(input.get("prevResult"), None, "0.3.1 does not have it");

    println!("what is attached from now on goes by the new list, and also if it is edited while the agent runs");
    bed.attach(&network, &pod(&[])).expect("attached");
    bed.write(|list| list["name"] = json!("third"));
    bed.attach(&network, &pod(&[])).expect("attached");
    assert_eq!(bed.calls()[4..], ["ADD second", "DEL second", "ADD first", "ADD second"]);
    assert_eq!(bed.input("first.ADD")["name"], "third");
}

#[test]
fn a_failure_undoes_everything_and_says_what_the_plugin_said() {
    let bed = Bed::new();
    for (test, why) in [
        ("fail", "no luck: in the test (code 999)"),
        ("crash", "exit status: 2: panic: oh no"),
        ("babble", "its answer is no JSON"),
    ] {
        fs::remove_file(bed.path("bin/calls")).ok();
        bed.write(|list| list["plugins"][1]["test"] = json!(test));
        let network = bed.open();
        let error = bed.attach(&network, &pod(&[])).expect_err("it fails").chain();
        assert!(error.contains("connecting sandbox web-0-abc to network pods"), "{error}");
        assert!(error.contains("CNI plugin second on ADD") && error.contains(why), "{error}");
        assert_eq!(bed.calls(), ["ADD first", "ADD second", "DEL second", "DEL first"], "{test}");
    }
    bed.nothing_is_kept();
}

#[test]
fn a_del_that_fails_is_tried_again_and_add_comes_after_it() {
    let bed = Bed::new();
    bed.write(|list| list["plugins"][1]["test"] = json!("stay"));
    let network = bed.open();
    bed.attach(&network, &pod(&[])).expect("attached");
    let error = network.detach(ID, &bed.namespace()).expect_err("it stays").chain();
    assert!(error.contains("CNI plugin second on DEL") && error.contains("try again later"), "{error}");
    assert_eq!(bed.calls()[2..], ["DEL second", "DEL first"], "the other one frees what it has");
    bed.attach(&network, &pod(&[])).expect_err("what is there is not added again");
    assert_eq!(bed.calls()[4..], ["DEL second", "DEL first"]);
    assert_eq!(network.holders().expect("listed"), [ID.to_owned()].into());
}

#[test]
fn del_works_without_the_namespace_and_with_half_a_file() {
    let bed = Bed::new();
    bed.write(|_| {});
    let network = bed.open();
    bed.attach(&network, &pod(&[])).expect("attached");
    bed.namespaces.unpin().expect("unpinned");
    network.detach(ID, &bed.namespace()).expect("detached");
    let environment = fs::read_to_string(bed.path("bin/first.DEL.env")).expect("it was called");
    assert!(environment.contains("CNI_NETNS=\n"), "{environment}");

    bed.namespaces.pin(Own::default(), "web", Path::new("")).expect("pinned");
    bed.attach(&network, &pod(&[])).expect("attached");
    fs::write(bed.path("state/cni").join(format!("{ID}.json")), "{\"list\": {").expect("written");
    network.detach(ID, &bed.namespace()).expect("detached");
    assert_eq!(bed.calls()[6..], ["DEL second", "DEL first"], "by the list as it is now");
    bed.nothing_is_kept();
}

#[test]
fn a_plugin_that_hangs_is_killed_with_what_it_started_and_named() {
    let bed = Bed::new();
    bed.write(|list| list["plugins"][0]["test"] = json!("hang"));
    let mut network = bed.open();
    network.cni.plugins.limit = Duration::from_millis(500);
    let error = bed.attach(&network, &pod(&[])).expect_err("it hangs");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.chain().contains("CNI plugin first on ADD") && error.chain().contains("was killed"), "{error:?}");
    let pids = fs::read_to_string(bed.path("bin/first.pids")).expect("it was called");
    assert_eq!(pids.split_whitespace().count(), 2);
    let deadline = Instant::now() + Duration::from_secs(10);
    for pid in pids.split_whitespace() {
        // Killed, but the kernel may still be ending it.
        let lives = || fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
        while lives() {
            assert!(Instant::now() < deadline, "{pid} lives");
            std::thread::yield_now();
        }
    }
    bed.nothing_is_kept();
}

#[test]
fn ports_of_the_node_need_a_plugin_and_have_one_owner() {
    let bed = Bed::new();
    bed.write(|_| {});
    let network = bed.open();
    bed.attach(&network, &pod(&[53])).expect("attached");
    let other = network.attach("other-0-def", &bed.namespace(), &pod(&[53])).expect_err("the port is taken");
    assert_eq!(other.kind(), ErrorKind::Conflict);
    assert!(other.chain().contains("port 53/udp of the node is in use by sandbox web-0-abc"), "{other:?}");
    network.detach(ID, &bed.namespace()).expect("detached");
    network.attach("other-0-def", &bed.namespace(), &pod(&[53])).expect("the port is free");
    network.detach("other-0-def", &bed.namespace()).expect("detached");
    bed.nothing_is_kept();

    bed.write(|list| list["plugins"][1]["capabilities"] = json!({ "portMappings": false }));
    let error = bed.attach(&network, &pod(&[53])).expect_err("nobody can");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.message().contains("pods.conflist") && error.message().contains("portmap"), "{error:?}");
    bed.attach(&network, &pod(&[])).expect("without ports it works");
}

#[test]
fn mistakes_in_the_list_are_told_at_the_start() {
    let bed = Bed::new();
    let refused = |change: fn(&mut Value)| {
        bed.write(change);
        let error = bed.wrong();
        assert!(error.contains(&bed.path("pods.conflist").display().to_string()), "{error}");
        error
    };
    let told = |error: String, what: &[&str]| assert!(what.iter().all(|it| error.contains(it)), "{error}");
    let place = bed.path("nowhere").display().to_string();
    told(refused(|it| it["plugins"][1]["type"] = json!("third")), &["plugin third", &place, "cni_bin_dirs"]);
    told(refused(|it| it["plugins"][0]["ipam"]["type"] = json!("dns")), &["plugin dns", &place]);
    told(refused(|it| it["plugins"][0]["type"] = json!("../sh")), &["\"../sh\"", "without a directory"]);
    told(refused(|it| it["cniVersion"] = json!("0.2.0")), &["\"0.2.0\"", "0.3.1", "1.0.0"]);
    told(refused(|it| it["name"] = json!("a b")), &["\"a b\""]);
    told(refused(|it| it["plugins"] = json!([])), &["plugins is empty"]);
    told(refused(|it| drop(it["plugins"][0].as_object_mut().map(|it| it.remove("type")))), &["type"]);
    told(refused(|it| *it = json!({ "cniVersion": "1.0.0", "type": "first" })), &["not a list", "plugins"]);
    fs::write(bed.path("pods.conflist"), "{\n  \"name\": pods\n").expect("written");
    told(bed.wrong(), &["pods.conflist", "not JSON", "line 2"]);
    fs::remove_file(bed.path("pods.conflist")).expect("removed");
    told(bed.wrong(), &["pods.conflist", "cannot be read", "remove the key"]);
}

#[test]
fn relative_paths_are_refused_by_key() {
    let node = Bed::new();
    let mut config = NetworkConfig { cni_config: Some("x.conflist".into()), ..NetworkConfig::default() };
    let refused = |config: &NetworkConfig| {
        let paths = NodePaths {
            node_name: String::new(),
            state_dir: node.path("state"),
            run_dir: node.path("run"),
            log_dir: node.path("logs"),
            libexec_dir: node.path("libexec"),
        };
        Network::new(config, &paths).expect_err("it is relative").message().to_owned()
    };
    assert!(refused(&config).starts_with("network.cni_config"));
    config = NetworkConfig { cni_bin_dirs: vec!["/a:/b".into()], ..NetworkConfig::default() };
    assert!(refused(&config).starts_with("network.cni_bin_dirs"));
}
