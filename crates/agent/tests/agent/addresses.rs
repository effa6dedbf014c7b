//! Node addresses that appear after the agent has started, or change (static-pods.md, 3).

use std::net::IpAddr;

use stanchion_runtime::testing::{Call, Method};
use tokio::net::TcpListener;

use crate::{manifest::raw, node::Node};

const ENV: &str = "env:
  - {name: HOST, valueFrom: {fieldRef: {fieldPath: status.hostIP}}}
  - {name: POD, valueFrom: {fieldRef: {fieldPath: status.podIP}}}";

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Returns `hostIP` and `podIP` of a pod with `hostNetwork: true`.
fn shown(node: &Node, pod: &str) -> (Option<String>, Option<String>) {
    let status = node.status(pod);
    (status.host_ip, status.pod_ip)
}

fn both(address: &str) -> (Option<String>, Option<String>) {
    (Some(address.to_owned()), Some(address.to_owned()))
}

/// Returns `HOST` and `POD` from the environment of the container that was created last.
fn environment(node: &Node) -> Vec<(String, String)> {
    let calls = node.fake().calls().into_iter().rev();
    let mut made = calls.filter_map(|call| if let Call::CreateContainer(config) = call { Some(config) } else { None });
    let env = made.next().expect("one was made").env;
    let asked = env.into_iter().filter(|it| ["HOST", "POD"].contains(&it.name.as_str()));
    asked.map(|it| (it.name, it.value)).collect()
}

// R-CS-11, I3.
#[tokio::test(flavor = "local")]
async fn addresses_are_followed_and_a_change_restarts_nothing() {
    let mut node = Node::new();
    node.addresses.send_replace(Vec::new());
    let first = TcpListener::bind("127.0.0.2:0").await.expect("a port");
    let port = first.local_addr().expect("its address").port();
    let second = TcpListener::bind(("127.0.0.3", port)).await.expect("the same port of another address");
    let web = |more: &str| {
        let probe =
            format!("{{tcpSocket: {{port: {port}}}, periodSeconds: 1, failureThreshold: 1, initialDelaySeconds: 1}}");
        raw("web", &format!("hostNetwork: true\ncontainers:\n- name: app\n  image: app:1\n  {more}: {probe}\n  {ENV}"))
    };
    node.write("web.yaml", &web("livenessProbe"));
    node.start();
    node.shows("web Running", |node| node.state("web", "app") == "Running").await;
    assert_eq!(shown(&node, "web"), (None, None), "the node has no address yet");

    println!("an address comes");
    node.addresses.send_replace(vec![address("127.0.0.2")]);
    node.shows("its address", |node| shown(node, "web") == both("127.0.0.2")).await;
    first.accept().await.expect("a probe comes to it");

    println!("the address changes, and the old one answers no more");
    node.addresses.send_replace(vec![address("127.0.0.3")]);
    node.shows("the other address", |node| shown(node, "web") == both("127.0.0.3")).await;
    second.accept().await.expect("a probe comes to it");
    drop(first);
    for _ in 0..2 {
        second.accept().await.expect("a probe comes to it");
    }
    assert_eq!(node.fake().count(Method::StopContainer), 0, "I3");
    assert_eq!(node.fake().count(Method::CreateSandbox), 1, "I3");

    println!("what is started from now on is told the present one");
    let env = |address: &str| ["HOST", "POD"].map(|name| (name.to_owned(), address.to_owned())).to_vec();
    assert_eq!(environment(&node), env(""));
    node.write("late.yaml", &web("readinessProbe").replace("web", "late"));
    node.shows("late Running", |node| node.state("late", "app") == "Running").await;
    assert_eq!(environment(&node), env("127.0.0.3"));
}
