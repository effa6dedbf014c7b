//! Pod networking: addresses, host ports, `hostNetwork`, CNI plugins.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use stanchion_tests::{
    Backend, Node,
    pods::{self, IDLE},
    process, redis, tools,
};

stanchion_tests::on_each_runtime! {
    pods_reach_each_other_and_the_node_reaches_them,
    a_host_port_leads_into_the_pod_and_ends_with_it,
    a_host_port_that_another_pod_has_is_named,
    a_pod_on_the_hosts_network_is_the_node,
    a_pod_knows_its_own_name_and_address,
}

fn redis_pod(name: &str, arguments: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\nspec:\n{more}  containers:\n  - name: main\n    image: \
         redis\n    args: [redis-server{arguments}]\n"
    )
}

fn answers(node: &Node, address: IpAddr, port: u16) -> Result<()> {
    node.until(&format!("redis to answer at {address}:{port}"), || {
        let answer = redis::ask(SocketAddr::new(address, port), "PING")?;
        ensure!(answer == "+PONG", "it answers {answer:?}");
        Ok(())
    })
}

/// Waits until redis answers a pod. To host-port rules, a pod's packets look like those from outside the node.
fn answers_to_pod(node: &Node, from: &str, address: &str, port: u16) -> Result<()> {
    let ask = format!("printf 'PING\\r\\n' | nc -w 2 {address} {port}");
    node.await_said(&["exec", &pods::on_node(from), "--", "sh", "-c", &ask], &["+PONG"])
}

fn pods_reach_each_other_and_the_node_reaches_them(on: Backend) -> Result<()> {
    Node::builder().on(on).run(|node| {
        node.write("redis.yaml", redis_pod("redis", "", ""))?;
        node.write("client.yaml", pods::idle("client", "1"))?;
        node.await_running("redis")?;
        node.await_running("client")?;
        let (server, client) = (node.address("redis")?, node.address("client")?);
        ensure!(server != client, "two pods have the address {server}");
        for address in [server, client] {
            ensure!(address.to_string().starts_with(&node.names().prefix), "{address} is not in the pods' network");
        }
        answers(node, server, 6379)?;
        answers_to_pod(node, "client", &server.to_string(), 6379)
    })
}

// R-SYNC-9.
fn a_host_port_leads_into_the_pod_and_ends_with_it(on: Backend) -> Result<()> {
    Node::builder().on(on).run(|node| {
        let port = node.names().port(0);
        let ports = format!("    ports:\n    - {{containerPort: 6379, hostPort: {port}}}\n");
        node.write("redis.yaml", redis_pod("redis", "", "") + &ports)?;
        node.write("client.yaml", pods::idle("client", "1"))?;
        node.await_running("redis")?;
        node.await_running("client")?;
        let gateway: Ipv4Addr = format!("{}.1", node.names().prefix).parse()?;
        answers(node, IpAddr::V4(gateway), port)?;
        answers(node, IpAddr::V4(Ipv4Addr::LOCALHOST), port)?;
        answers_to_pod(node, "client", &gateway.to_string(), port)?;

        println!("the port follows a changed pod");
        node.write("redis.yaml", redis_pod("redis", "", "").replace("image: redis", "image: redis:8") + &ports)?;
        node.until("the changed pod to run", || {
            let image = node.container("redis")?.record.image;
            ensure!(image == "docker.io/library/redis:8", "{image} runs");
            Ok(())
        })?;
        answers(node, IpAddr::V4(gateway), port)?;
        node.remove("redis.yaml")?;
        node.remove("client.yaml")?;
        node.await_nothing_left()?;
        let gone = redis::ask(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port), "PING");
        ensure!(gone.is_err(), "somebody still answers: {gone:?}");
        Ok(())
    })
}

// R-ADM-1, R-ADM-5.
fn a_host_port_that_another_pod_has_is_named(on: Backend) -> Result<()> {
    Node::builder().on(on).run(|node| {
        let port = node.names().port(1);
        let ports = format!("    ports:\n    - {{containerPort: 6379, hostPort: {port}}}\n");
        node.write("first.yaml", redis_pod("first", "", "") + &ports)?;
        node.await_running("first")?;
        node.write("second.yaml", redis_pod("second", "", "") + &ports)?;
        node.await_said(&["describe", "pod", "second-node-1"], &[&port.to_string(), "first"])?;
        println!("the port becomes free: the second pod gets it");
        node.remove("first.yaml")?;
        node.await_running("second")?;
        answers(node, IpAddr::V4(Ipv4Addr::LOCALHOST), port)
    })
}

// R-SEC-13, R-HOST-4.
fn a_pod_on_the_hosts_network_is_the_node(on: Backend) -> Result<()> {
    Node::builder().on(on).run(|node| {
        let port = node.names().port(2);
        node.write("redis.yaml", redis_pod("redis", &format!(", --port, '{port}'"), "  hostNetwork: true\n"))?;
        let running = node.await_running("redis")?;
        answers(node, IpAddr::V4(Ipv4Addr::LOCALHOST), port)?;
        let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net"));
        ensure!(of(&running[0].pid.to_string())? == of("self")?, "it has a network of its own");
        ensure!(stanchion_tests::remains::links(node.names(), false)?.is_empty(), "it has a link on the bridge");
        node.write("name.yaml", pods::shell("name", IDLE, "  hostNetwork: true\n"))?;
        node.await_running("name")?;
        let host = fs::read_to_string("/proc/sys/kernel/hostname")?;
        let name = node.agent.text(&["exec", "name-node-1", "--", "cat", "/proc/sys/kernel/hostname"])?;
        ensure!(name == host, "it is called {name:?}");
        node.remove("name.yaml")?;
        node.remove("redis.yaml")?;
        node.await_nothing_left()
    })
}

// R-HOST-1, R-HOST-5, R-HOST-6, R-DNS-7.
fn a_pod_knows_its_own_name_and_address(on: Backend) -> Result<()> {
    Node::builder().on(on).run(|node| {
        node.write("pod.yaml", pods::shell("pod", IDLE, "  hostname: chosen\n"))?;
        node.await_running("pod")?;
        let address = node.address("pod")?.to_string();
        let exec = ["exec", "pod-node-1", "--", "sh", "-c", "hostname; cat /etc/hosts; cat /etc/resolv.conf"];
        node.await_said(&exec, &["chosen", &format!("{address}\tchosen"), "127.0.0.1\tlocalhost", "nameserver"])
    })
}

#[test]
fn a_host_port_comes_back_when_somebody_removes_the_rules() -> Result<()> {
    Node::builder().on(Backend::Containerd).run(|node| {
        let port = node.names().port(5);
        let ports = format!("    ports:\n    - {{containerPort: 6379, hostPort: {port}}}\n");
        node.write("redis.yaml", redis_pod("redis", "", "") + &ports)?;
        node.await_running("redis")?;
        answers(node, IpAddr::V4(Ipv4Addr::LOCALHOST), port)?;
        let table = format!("stanchion_{}", node.names().bridge).replace(['-', '.'], "_");
        for family in ["ip", "bridge"] {
            process::text(tools::command("nft")?.args(["delete", "table", family, &table]))?;
        }
        answers(node, IpAddr::V4(Ipv4Addr::LOCALHOST), port)?;
        println!("while no agent runs");
        node.agent.kill()?;
        process::text(tools::command("nft")?.args(["delete", "table", "ip", &table]))?;
        node.agent.start()?;
        answers(node, IpAddr::V4(Ipv4Addr::LOCALHOST), port)?;
        node.remove("redis.yaml")?;
        node.await_nothing_left()
    })
}

/// Runs a test on a node whose pods are attached by CNI plugins, with the bridge and subnet of the test node.
fn on_a_cni_node(test: impl FnOnce(&mut Node) -> Result<()>) -> Result<()> {
    let mut node = Node::builder().on(Backend::Containerd).without_agent()?;
    write_conflist(&node, "pods", true)?;
    fs::create_dir(node.path("conf.d"))?;
    let (config, dirs) = (node.path("pods.conflist"), tools::cni_dirs()?);
    let table = format!("[backend.containerd.network]\ncni_config = {config:?}\ncni_bin_dirs = {dirs:?}\n");
    fs::write(node.path("conf.d/cni.toml"), table)?;
    node.agent.start()?;
    let result = test(&mut node);
    if result.is_err() {
        eprintln!("{}", node.dump());
    }
    result
}

fn write_conflist(node: &Node, name: &str, publish: bool) -> Result<()> {
    let mut plugins = vec![json!({
        "type": "bridge", "bridge": node.names().bridge, "isGateway": true, "ipMasq": true, "hairpinMode": true,
        "ipam": {
            "type": "host-local", "dataDir": node.path("cni-data"), "routes": [{ "dst": "0.0.0.0/0" }],
            "ranges": [[{ "subnet": node.names().subnet() }]],
        },
    })];
    if publish {
        plugins.push(json!({ "type": "portmap", "capabilities": { "portMappings": true } }));
    }
    let list = json!({ "cniVersion": "1.0.0", "name": name, "plugins": plugins });
    fs::write(node.path("pods.conflist"), list.to_string()).context("cannot write the conflist")
}

/// Lists what is held for pods: addresses and iptables rules of the plugins, and the agent's records for `DEL`.
fn held_by_plugins(node: &Node) -> Result<Vec<String>> {
    let mut held = Vec::new();
    for dir in [node.path("cni-data/pods"), node.path("state/cni")] {
        let names = fs::read_dir(&dir).with_context(|| format!("cannot list {}", dir.display()))?;
        let names = names.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        let names = names.collect::<Result<Vec<_>>>()?;
        held.extend(names.into_iter().filter(|name| name.parse::<IpAddr>().is_ok() || name.ends_with(".json")));
    }
    let rules = process::text(&mut tools::command("iptables-save")?)?;
    let of_a_pod = |rule: &&str| rule.contains("-A CNI-") && rule.contains(&format!("{}.", node.names().prefix));
    held.extend(rules.lines().filter(of_a_pod).map(str::to_owned));
    Ok(held)
}

fn await_nothing_held(node: &Node) -> Result<()> {
    node.await_nothing_left()?;
    let held = held_by_plugins(node)?;
    ensure!(held.is_empty(), "the plugins still have {held:#?}");
    Ok(())
}

#[test]
fn cni_plugins_connect_pods_publish_ports_and_are_told_to_stop() -> Result<()> {
    on_a_cni_node(|node| {
        let port = node.names().port(3);
        let ports = format!("    ports:\n    - {{containerPort: 6379, hostPort: {port}}}\n");
        node.write("redis.yaml", redis_pod("redis", "", "") + &ports)?;
        node.write("client.yaml", pods::idle("client", "1"))?;
        node.await_running("redis")?;
        node.await_running("client")?;
        let (server, client) = (node.address("redis")?, node.address("client")?);
        ensure!(server != client, "two pods have the address {server}");
        for address in [server, client] {
            ensure!(address.to_string().starts_with(&node.names().prefix), "{address} is not of the plugins' network");
        }
        answers(node, server, 6379)?;
        answers_to_pod(node, "client", &server.to_string(), 6379)?;
        let ping = ["exec", "client-node-1", "--", "ping", "-c", "1", &server.to_string()];
        node.await_said(&ping, &["1 packets received"])?;

        println!("a port of the node");
        answers(node, IpAddr::V4(Ipv4Addr::LOCALHOST), port)?;
        answers_to_pod(node, "client", &format!("{}.1", node.names().prefix), port)?;
        let held = held_by_plugins(node)?;
        let forward = format!("--to-destination {server}:6379");
        ensure!(held.iter().any(|it| it.contains(&forward)), "no rule leads to the pod: {held:#?}");

        println!("another pod wants the port");
        node.write("second.yaml", redis_pod("second", "", "") + &ports)?;
        node.await_said(&["describe", "pod", "second-node-1"], &[&port.to_string(), "in use by", "redis"])?;
        node.remove("second.yaml")?;
        node.remove("redis.yaml")?;
        node.remove("client.yaml")?;
        await_nothing_held(node)
    })
}

#[test]
fn cni_plugins_undo_what_they_did_before_the_agent_died_and_the_list_was_edited() -> Result<()> {
    on_a_cni_node(|node| {
        let port = node.names().port(4);
        let ports = format!("    ports:\n    - {{containerPort: 6379, hostPort: {port}}}\n");
        node.write("redis.yaml", redis_pod("redis", "", "") + &ports)?;
        node.write("staying.yaml", pods::idle("staying", "1"))?;
        node.await_running("redis")?;
        let staying = (node.await_running("staying")?[0].pid, node.address("staying")?);
        node.agent.kill()?;
        node.remove("redis.yaml")?;
        // The new list has another name and no portmap plugin, which would remove the port's rules.
        write_conflist(node, "others", false)?;
        node.agent.start()?;
        node.await_gone("redis")?;
        node.until("the plugins to free what the pod had", || {
            let held = held_by_plugins(node)?;
            let of_the_other = |it: &&String| it.contains(&staying.1.to_string()) || it.contains("staying");
            let left: Vec<_> = held.iter().filter(|it| !of_the_other(it)).collect();
            ensure!(left.is_empty(), "the plugins still have {left:#?}");
            Ok(())
        })?;
        let found = (node.await_running("staying")?[0].pid, node.address("staying")?);
        ensure!(found == staying, "{staying:?} became {found:?}");

        println!("killed while the pod is removed");
        node.remove("staying.yaml")?;
        node.agent.kill()?;
        node.agent.start()?;
        await_nothing_held(node)
    })
}

// R-SYNC-2.
#[test]
fn a_conflist_whose_plugin_is_missing_is_named_until_it_is_there() -> Result<()> {
    on_a_cni_node(|node| {
        node.agent.stop()?;
        let text = fs::read_to_string(node.path("pods.conflist"))?;
        fs::write(node.path("pods.conflist"), text.replace("portmap", "portmop"))?;
        node.write("pod.yaml", pods::idle("pod", "1"))?;
        node.write("host.yaml", pods::shell("host", IDLE, "  hostNetwork: true\n"))?;
        node.agent.start()?;
        let words = ["pods.conflist", "portmop", "cni_bin_dirs"];
        node.await_said(&["backends", "-o", "wide"], &[&["network-not-ready"], &words[..]].concat())?;
        node.await_said(&["describe", "pod", "pod-node-1"], &[&["network is not ready"], &words[..]].concat())?;
        println!("a pod on the host's network needs none");
        node.await_running("host")?;
        println!("corrected: no restart is needed");
        fs::write(node.path("pods.conflist"), text)?;
        node.await_running("pod")?;
        node.remove("host.yaml")?;
        node.remove("pod.yaml")?;
        await_nothing_held(node)
    })
}
