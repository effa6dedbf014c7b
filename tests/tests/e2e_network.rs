//! Pods on the network: addresses, host ports, the node's own network.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Result, ensure};
use stanchion_tests::{
    Node,
    pods::{self, IDLE},
    redis,
};

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

/// Asks from inside another pod, as a packet that comes from outside the node.
fn answers_to_pod(node: &Node, from: &str, address: &str, port: u16) -> Result<()> {
    let ask = format!("printf 'PING\\r\\n' | nc -w 2 {address} {port}");
    node.await_said(&["exec", &pods::on_node(from), "--", "sh", "-c", &ask], &["+PONG"])
}

#[test]
fn pods_reach_each_other_and_the_node_reaches_them() -> Result<()> {
    Node::builder().run(|node| {
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

#[test]
fn a_host_port_leads_into_the_pod_and_ends_with_it() -> Result<()> {
    Node::builder().run(|node| {
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

#[test]
fn a_host_port_that_another_pod_has_is_named() -> Result<()> {
    Node::builder().run(|node| {
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

#[test]
fn a_pod_on_the_hosts_network_is_the_node() -> Result<()> {
    Node::builder().run(|node| {
        let port = node.names().port(2);
        node.write("redis.yaml", redis_pod("redis", &format!(", --port, '{port}'"), "  hostNetwork: true\n"))?;
        let running = node.await_running("redis")?;
        answers(node, IpAddr::V4(Ipv4Addr::LOCALHOST), port)?;
        let of = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net"));
        ensure!(of(&running[0].pid.to_string())? == of("self")?, "it has a network of its own");
        ensure!(stanchion_tests::remains::links(node.names(), false)?.is_empty(), "it has a link on the bridge");
        node.remove("redis.yaml")?;
        node.await_nothing_left()
    })
}

#[test]
fn a_pod_knows_its_own_name_and_address() -> Result<()> {
    Node::builder().run(|node| {
        node.write("pod.yaml", pods::shell("pod", IDLE, "  hostname: chosen\n"))?;
        node.await_running("pod")?;
        let address = node.address("pod")?.to_string();
        let exec = ["exec", "pod-node-1", "--", "sh", "-c", "hostname; cat /etc/hosts; cat /etc/resolv.conf"];
        node.await_said(&exec, &["chosen", &format!("{address}\tchosen"), "127.0.0.1\tlocalhost", "nameserver"])
    })
}
