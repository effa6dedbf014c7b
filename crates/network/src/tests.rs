//! Tests the bridge in network namespaces: one stands for the node, one for the world, others for pods.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, netdevice, sendto, socket, sockopt};
use stanchion_runtime::{PortMapping, Protocol};

use super::{
    NetworkConfig,
    bridge::{Bridge, link},
    commands::{nft, run},
    leases::Leases,
    links::links,
    netfilter, parameters,
    watch::watch,
};
use crate::namespaces::{Namespaces, Own, inside};

/// Longest wait for something that must happen, and the wait for something that must not.
const PATIENCE: Duration = Duration::from_secs(5);
const SILENCE: Duration = Duration::from_millis(300);

const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 9, 8, 1);
const LOOPBACK: Ipv4Addr = Ipv4Addr::LOCALHOST;
const WORLD: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

/// Namespace that stands for the node; the test's thread is in it.
struct Node {
    directory: PathBuf,
    bridge: Bridge,
}

/// Pod of the node, or the world.
struct Pod {
    id: &'static str,
    namespace: PathBuf,
    address: Ipv4Addr,
}

/// Runs a test inside a node, and removes its namespaces at the end.
fn on_a_node(test: impl FnOnce(&Node) + Send) {
    let directory = tempfile::tempdir().expect("a directory");
    let node = Namespaces::at(directory.path().join("ns/node"));
    node.pin(Own::default(), "node", Path::new("")).expect("a namespace");
    let result = inside(&node.path("net"), || {
        links(async |links| links.bring_up("lo").await).expect("a loopback");
        let test = std::panic::AssertUnwindSafe(|| test(&Node::at(directory.path())));
        Ok(std::panic::catch_unwind(test))
    });
    for entry in std::fs::read_dir(directory.path().join("ns")).expect("its namespaces") {
        Namespaces::at(entry.expect("an entry").path()).unpin().expect("unpinned");
    }
    if let Err(panic) = result.expect("entered") {
        std::panic::resume_unwind(panic);
    }
}

impl Node {
    /// Returns the node as a newly started agent finds it.
    fn at(directory: &Path) -> Self {
        let config = NetworkConfig { bridge: "b0".to_owned(), subnet: "10.9.8.0/24".to_owned(), ..Default::default() };
        Self { directory: directory.to_owned(), bridge: Bridge::new(&config, directory).expect("a bridge") }
    }

    fn namespace(&self, id: &str) -> PathBuf {
        let namespaces = Namespaces::at(self.directory.join("ns").join(id));
        namespaces.pin(Own::default(), id, Path::new("")).expect("a namespace");
        namespaces.path("net")
    }

    /// Connects a pod, with ports of the node that lead to its port 80.
    fn pod(&self, id: &'static str, ports: &[u16]) -> Pod {
        let namespace = self.namespace(id);
        let port = |host_port: &u16| PortMapping {
            protocol: Protocol::Tcp,
            host_port: *host_port,
            container_port: 80,
            host_ip: None,
        };
        let ports: Vec<_> = ports.iter().map(port).collect();
        let addresses = self.bridge.attach(id, &namespace, &ports).unwrap_or_else(|error| panic!("{}", error.chain()));
        let [IpAddr::V4(address)] = addresses[..] else { panic!("one address of IPv4: {addresses:?}") };
        Pod { id, namespace, address }
    }

    /// Makes a host beyond the node.
    fn world(&self) -> Pod {
        let namespace = self.namespace("world");
        let file = std::fs::File::open(&namespace).expect("a namespace");
        links(async |links| {
            links.bridge("w0", Ipv4Addr::new(192, 0, 2, 1), 24).await?;
            links.pair("w1", "w0", "eth0", [0x0a, 0x73, 192, 0, 2, 2], std::os::fd::AsFd::as_fd(&file)).await
        })
        .expect("linked");
        let world = Pod { id: "world", namespace, address: WORLD };
        world.inside(|| {
            links(async |links| links.address("eth0", WORLD, 24, Ipv4Addr::new(192, 0, 2, 1)).await)
                .expect("an address");
        });
        world
    }
}

impl Pod {
    fn inside<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        inside(&self.namespace, || Ok(act())).expect("entered")
    }

    /// Answers on a port until the end; each caller gets its own address.
    fn serve(&self, port: u16) {
        serve(self.inside(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).expect("a port")));
    }

    /// Calls a server from the pod, and returns the answer.
    fn call(&self, to: Ipv4Addr, port: u16, patience: Duration) -> io::Result<String> {
        self.inside(|| call(to, port, patience))
    }

    fn run(&self, line: &str) {
        self.inside(|| command(line));
    }
}

fn serve(listener: TcpListener) {
    // The thread ends with the process: its socket belongs to a namespace that nobody sees any more.
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let caller = stream.peer_addr().map(|it| it.ip().to_string()).unwrap_or_default();
            stream.write_all(caller.as_bytes()).ok();
        }
    });
}

fn call(to: Ipv4Addr, port: u16, patience: Duration) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from((to, port)), patience)?;
    stream.set_read_timeout(Some(patience))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn command(line: &str) -> String {
    let words: Vec<_> = line.split(' ').collect();
    run(words[0], &words[1..], "").unwrap_or_else(|error| panic!("{line}: {error}"))
}

fn set(name: &str, value: &str) {
    parameters::set(&[(name, value)]).expect("a parameter");
}

#[test]
fn nothing_from_a_pod_reaches_the_nodes_loopback() {
    on_a_node(|node| {
        let localnet = || std::fs::read_to_string("/proc/sys/net/ipv4/conf/b0/route_localnet").expect("a parameter");
        node.pod("plain", &[]);
        assert_eq!(localnet(), "0\n", "no port of the node needs it");
        let pod = node.pod("pod", &[8080]);
        assert_eq!(localnet(), "1\n");
        serve(TcpListener::bind((LOOPBACK, 7000)).expect("a port"));
        let datagrams = UdpSocket::bind((LOOPBACK, 7000)).expect("a port");
        let marked = UdpSocket::bind((GATEWAY, 7001)).expect("a port");
        pod.serve(80);
        println!("the node reaches the pod by its loopback address, and with that has a connection there");
        assert_eq!(call(LOOPBACK, 8080, PATIENCE).expect("an answer"), GATEWAY.to_string());

        // Packets for the loopback leave the pod by its link, to the gateway.
        pod.run("ip address del 127.0.0.1/8 dev lo");
        pod.inside(|| set("ipv4/conf/eth0/route_localnet", "1"));
        pod.run("ip route add 127.0.0.0/8 via 10.9.8.1");
        for to in [LOOPBACK, Ipv4Addr::new(127, 1, 2, 3)] {
            let answer = pod.call(to, 7000, SILENCE);
            assert!(answer.is_err(), "{to} answers {answer:?}");
            let answer = pod.call(to, 8080, SILENCE);
            assert!(answer.is_err(), "by a port of the node {to} answers {answer:?}");
        }
        pod.inside(|| {
            let socket = UdpSocket::bind((pod.address, 0)).expect("a socket");
            socket.send_to(b"to the loopback", (LOOPBACK, 7000)).expect("sent");
            socket.send_to(b"to the gateway", (GATEWAY, 7001)).expect("sent");
        });
        assert_eq!(heard(&marked).as_deref(), Some("to the gateway"));
        datagrams.set_nonblocking(true).expect("set");
        assert!(datagrams.recv(&mut [0; 64]).is_err(), "what was sent before reached the loopback");
    });
}

/// Returns the next datagram.
fn heard(socket: &UdpSocket) -> Option<String> {
    socket.set_read_timeout(Some(PATIENCE)).expect("set");
    let mut bytes = [0; 64];
    let length = socket.recv(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes[..length]).into_owned())
}

#[test]
fn frames_with_a_false_source_are_dropped_at_the_pods_link() {
    on_a_node(|node| {
        let (pod, other) = (node.pod("pod", &[]), node.pod("other", &[]));
        let at_node = UdpSocket::bind((GATEWAY, 7000)).expect("a port");
        let at_other = other.inside(|| UdpSocket::bind((other.address, 7000)).expect("a port"));
        let send = |from: Ipv4Addr, text: &str| {
            pod.inside(|| {
                let socket = UdpSocket::bind((from, 0)).expect("a socket");
                socket.send_to(text.as_bytes(), (GATEWAY, 7000)).expect("sent");
                socket.send_to(text.as_bytes(), (other.address, 7000)).expect("sent");
            });
        };
        let both = |text: &str| {
            assert_eq!(heard(&at_node).as_deref(), Some(text));
            assert_eq!(heard(&at_other).as_deref(), Some(text));
        };
        send(pod.address, "true");
        both("true");
        println!("an address of the subnet, one of elsewhere, and the node's");
        for address in ["10.9.8.77", "192.0.2.9", "10.9.8.1"] {
            pod.run(&format!("ip address add {address}/32 dev eth0"));
            // The pod knows the gateway by now, so nothing has to answer such an address first.
            if address != "10.9.8.1" {
                send(address.parse().expect("an address"), "false");
            }
            pod.run(&format!("ip address del {address}/32 dev eth0"));
        }
        send(pod.address, "true again");
        both("true again");
        println!("another pod's hardware address");
        let own = pod.inside(|| command("cat /proc/self/net/arp"));
        assert!(own.contains("10.9.8.1"), "{own}");
        pod.run("ip link set eth0 address 0a:73:0a:09:08:03");
        pod.run("ip neighbour replace 10.9.8.1 lladdr 02:00:00:00:00:01 dev eth0 nud permanent");
        let gateway = command("ip -o link show b0");
        let gateway = gateway.split("link/ether ").nth(1).and_then(|it| it.split(' ').next()).expect("its address");
        pod.run(&format!("ip neighbour replace 10.9.8.1 lladdr {gateway} dev eth0 nud permanent"));
        pod.inside(|| {
            UdpSocket::bind((pod.address, 0)).and_then(|it| it.send_to(b"false", (GATEWAY, 7000))).expect("sent")
        });
        pod.run("ip link set eth0 address 0a:73:0a:09:08:02");
        pod.inside(|| {
            UdpSocket::bind((pod.address, 0)).and_then(|it| it.send_to(b"at last", (GATEWAY, 7000))).expect("sent")
        });
        assert_eq!(heard(&at_node).as_deref(), Some("at last"));
    });
}

#[test]
fn a_router_in_a_pod_is_none_to_the_node_nor_to_other_pods() {
    on_a_node(|node| {
        let (pod, other) = (node.pod("pod", &[]), node.pod("other", &[]));
        for link in ["b0", &link(pod.id)] {
            for (name, value) in [("accept_ra", "0"), ("autoconf", "0"), ("disable_ipv6", "1")] {
                let path = format!("/proc/sys/net/ipv6/conf/{link}/{name}");
                assert_eq!(std::fs::read_to_string(&path).expect("a parameter").trim(), value, "{path}");
            }
        }
        let marked = UdpSocket::bind((GATEWAY, 7000)).expect("a port");
        pod.run("ip address add fe80::1/64 dev eth0 nodad");
        pod.inside(|| {
            advertise("eth0");
            UdpSocket::bind((pod.address, 0)).and_then(|it| it.send_to(b"after", (GATEWAY, 7000))).expect("sent");
        });
        assert_eq!(heard(&marked).as_deref(), Some("after"));
        for shown in [command("ip -6 address"), command("ip -6 route"), other.inside(|| command("ip -6 address"))] {
            assert!(!shown.contains("2001:db8:"), "{shown}");
        }
        assert!(!other.inside(|| command("ip -6 route")).contains("default"), "the other pod has a router");
    });
}

/// Sends a router advertisement with a prefix to all nodes of a link (RFC 4861).
fn advertise(link: &str) {
    let mut message = vec![134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
    message.extend([3, 4, 64, 0xc0, 0, 0, 7, 8, 0, 0, 7, 8, 0, 0, 0, 0]);
    message.extend("2001:db8::".parse::<Ipv6Addr>().expect("a prefix").octets());
    let socket = socket(AddressFamily::INET6, SocketType::RAW, Some(ipproto::ICMPV6)).expect("a socket");
    let index = netdevice::name_to_index(&socket, link).expect("a link");
    sockopt::set_ipv6_multicast_hops(&socket, 255).expect("set");
    let to = SocketAddrV6::new("ff02::1".parse().expect("all nodes"), 0, 0, index);
    sendto(&socket, &message, SendFlags::empty(), &to).expect("sent");
}

#[test]
fn rules_that_somebody_flushed_come_back() {
    on_a_node(|node| {
        let pod = node.pod("pod", &[8080]);
        pod.serve(80);
        let answers = || assert_eq!(call(GATEWAY, 8080, PATIENCE).expect("an answer"), GATEWAY.to_string());
        answers();
        let changes: [&dyn Fn(); 5] = [
            &|| nft("flush ruleset").expect("flushed"),
            &|| nft("delete table ip stanchion_b0").expect("deleted"),
            &|| nft("flush chain ip stanchion_b0 output").expect("flushed"),
            &|| nft("delete element ip stanchion_b0 ports { tcp . 8080 }").expect("deleted"),
            &|| nft("flush table bridge stanchion_b0").expect("flushed"),
        ];
        let listed = || command("nft list ruleset").replace(char::is_whitespace, "");
        let whole = listed();
        println!("at the next look");
        for change in changes {
            change();
            assert_ne!(listed(), whole);
            node.bridge.repair(false);
            assert_eq!(listed(), whole);
            answers();
        }
        println!("before the next use");
        nft("flush ruleset").expect("flushed");
        let next = node.pod("next", &[8081]);
        next.serve(80);
        assert_eq!(call(GATEWAY, 8081, PATIENCE).expect("an answer"), GATEWAY.to_string());
        answers();
        println!("at the start of an agent");
        nft("flush ruleset").expect("flushed");
        Node::at(&node.directory).bridge.repair(true);
        answers();
        println!("what a pod had is gone with it, and not made again");
        node.bridge.detach("next").expect("detached");
        nft("flush ruleset").expect("flushed");
        node.bridge.repair(true);
        assert!(!listed().contains("8081"), "{}", listed());
        answers();
    });
}

#[test]
fn a_flush_is_noticed_by_what_the_kernel_says() {
    on_a_node(|node| {
        let pod = node.pod("pod", &[8080]);
        pod.serve(80);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let (send, mut changes) = tokio::sync::mpsc::unbounded_channel();
            let watched = watch(|| {
                node.bridge.repair(false);
                send.send(()).ok();
                std::future::ready(())
            });
            let flushed = async {
                nft("flush ruleset").expect("flushed");
                changes.recv().await.expect("a look");
            };
            tokio::select! {
                // The watch listens before anything is flushed.
                biased;
                () = watched => panic!("nobody listens"),
                () = flushed => {}
            }
        });
        assert_eq!(call(GATEWAY, 8080, PATIENCE).expect("an answer"), GATEWAY.to_string());
    });
}

#[test]
fn rules_stay_as_they_are_while_others_change_theirs() {
    on_a_node(|node| {
        let pod = node.pod("pod", &[8080]);
        // Rules that were changed in part are made anew once.
        nft("add table ip first").expect("added");
        node.bridge.repair(true);
        let handles = || command("nft -a list table ip stanchion_b0");
        let first = handles();
        nft("add table ip others").expect("added");
        node.bridge.repair(true);
        nft("delete table ip others").expect("deleted");
        node.bridge.repair(true);
        // The kernel gives a handle only once: equal handles mean that no rule was replaced.
        assert_eq!(handles(), first);
        let quiet = netfilter::generation().expect("asked");
        node.bridge.repair(true);
        assert_eq!(netfilter::generation().expect("asked"), quiet);
        node.bridge.detach(pod.id).expect("detached");
        assert!(!handles().contains("8080"));
    });
}

#[test]
fn what_traffic_needs_is_put_right_too() {
    on_a_node(|node| {
        let (pod, world) = (node.pod("pod", &[]), node.world());
        world.serve(80);
        set("ipv4/ip_forward", "0");
        node.bridge.repair(true);
        assert_eq!(pod.call(WORLD, 80, PATIENCE).expect("an answer"), "192.0.2.1", "masqueraded");
        println!("the bridge is removed");
        command("ip link del b0");
        node.bridge.repair(false);
        assert_eq!(pod.call(WORLD, 80, PATIENCE).expect("an answer"), "192.0.2.1");
        println!("its address is removed");
        command("ip address flush dev b0");
        node.bridge.repair(false);
        assert_eq!(pod.call(WORLD, 80, PATIENCE).expect("an answer"), "192.0.2.1");
    });
}

#[test]
fn a_pod_reaches_itself_by_a_port_of_the_node() {
    on_a_node(|node| {
        let pod = node.pod("pod", &[8080]);
        pod.serve(80);
        for filters_bridges in ["0", "1"] {
            set("bridge/bridge-nf-call-iptables", filters_bridges);
            let answer = pod.call(GATEWAY, 8080, PATIENCE);
            assert_eq!(answer.expect("an answer"), GATEWAY.to_string(), "bridge-nf-call-iptables = {filters_bridges}");
        }
    });
}

#[test]
fn iptables_that_drops_what_is_forwarded_lets_pods_pass() {
    for iptables in ["iptables-nft", "iptables-legacy"] {
        println!("{iptables}");
        on_a_node(|node| {
            let (pod, other, world) = (node.pod("pod", &[8080]), node.pod("other", &[]), node.world());
            for server in [&pod, &other, &world] {
                server.serve(80);
            }
            let pass = || {
                assert_eq!(pod.call(WORLD, 80, PATIENCE).expect("an answer"), "192.0.2.1");
                assert_eq!(pod.call(other.address, 80, PATIENCE).expect("an answer"), pod.address.to_string());
                let by_port = world.call(Ipv4Addr::new(192, 0, 2, 1), 8080, PATIENCE);
                assert_eq!(by_port.expect("an answer"), WORLD.to_string());
            };
            pass();
            command(&format!("{iptables} -P FORWARD DROP"));
            assert!(pod.call(WORLD, 80, SILENCE).is_err(), "nothing drops");
            node.bridge.repair(true);
            pass();
            println!("whoever is beyond the node reaches only what is published");
            world.run("ip route add 10.9.8.0/24 via 192.0.2.1");
            assert!(world.call(pod.address, 80, SILENCE).is_err(), "the world reaches the pod");
            println!("flushed, and refused at the end of the chain");
            command(&format!("{iptables} -F FORWARD"));
            command(&format!("{iptables} -A FORWARD -j REJECT"));
            assert!(pod.call(WORLD, 80, SILENCE).is_err(), "nothing drops");
            node.bridge.repair(true);
            pass();
            let saved = command(&format!("{iptables} -S"));
            node.bridge.repair(true);
            assert_eq!(command(&format!("{iptables} -S")), saved, "put again");
            println!("Docker's chain for users");
            command(&format!("{iptables} -F FORWARD"));
            command(&format!("{iptables} -N DOCKER-USER"));
            command(&format!("{iptables} -A FORWARD -j DOCKER-USER"));
            node.bridge.repair(true);
            pass();
            let saved = command(&format!("{iptables} -S"));
            assert!(saved.contains("-A DOCKER-USER -i b0"), "{saved}");
            assert_eq!(node.bridge.diagnose(), (None, Vec::new()));
            println!("the bridge goes, and with it the rules");
            for pod in [&pod, &other] {
                node.bridge.detach(pod.id).expect("detached");
            }
            command("ip link del b0");
            node.bridge.repair(true);
            let saved = command(&format!("{iptables} -S"));
            assert!(!saved.contains("b0"), "{saved}");
        });
    }
}

#[test]
fn a_drop_that_is_nobodys_of_ours_is_named_with_the_line_that_mends_it() {
    on_a_node(|node| {
        let (pod, world) = (node.pod("pod", &[]), node.world());
        world.serve(80);
        nft("table inet f { chain drops { type filter hook forward priority 0 ; policy drop ; }\n}").expect("made");
        assert!(pod.call(WORLD, 80, SILENCE).is_err(), "nothing drops");
        node.bridge.repair(false);
        let (failure, obstacles) = node.bridge.diagnose();
        let [obstacle] = &obstacles[..] else { panic!("one is in the way: {obstacles:?}") };
        assert!(obstacle.contains("chain drops of nftables' table inet f drops"), "{obstacle}");
        assert_eq!(failure, None);
        let (_, line) = obstacle.split_once("to mend it: ").expect("a line");
        run("sh", &["-c", line], "").expect("it is one");
        assert_eq!(pod.call(WORLD, 80, PATIENCE).expect("an answer"), "192.0.2.1");
        node.bridge.repair(false);
        assert_eq!(node.bridge.diagnose(), (None, Vec::new()));
    });
}

#[test]
fn a_pod_of_an_earlier_version_keeps_its_network() {
    on_a_node(|node| {
        let pod = node.pod("pod", &[8080]);
        pod.serve(80);
        println!("as it was: a hardware address of the kernel's choice, notes of nothing, and no table for frames");
        pod.run("ip link set eth0 address 02:00:00:00:00:07");
        let leases = Leases::at(node.directory.join("ipam/b0"));
        for notes in ["hardware", "targets"] {
            std::fs::remove_dir_all(node.directory.join("ipam/b0").join(notes)).expect("removed");
        }
        nft("delete table bridge stanchion_b0").expect("deleted");
        let agent = Node::at(&node.directory);
        agent.bridge.repair(true);
        assert_eq!(call(GATEWAY, 8080, PATIENCE).expect("an answer"), GATEWAY.to_string());
        assert_eq!(leases.claimed().expect("listed")[0].2, Some(80), "written for the next time");
        let next = agent.pod("next", &[]);
        next.serve(80);
        assert_eq!(pod.call(next.address, 80, PATIENCE).expect("an answer"), pod.address.to_string());
        nft("flush ruleset").expect("flushed");
        agent.bridge.repair(true);
        assert_eq!(call(GATEWAY, 8080, PATIENCE).expect("an answer"), GATEWAY.to_string());
    });
}
