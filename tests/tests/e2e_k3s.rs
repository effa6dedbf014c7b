//! Pods on the containerd of K3s, whose socket disappears and returns. Containers of K3s itself are never touched.

use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use rustix::{
    mount::{UnmountFlags, unmount},
    process::Signal,
};
use stanchion_tests::{
    Backend, Node,
    ctr::{Ctr, Running},
    k3s::{follows, is_as_it_was, k3s, runs_not_on, runs_on},
    pods, proc,
    process::Process,
    wait::throughout,
};

/// containerd namespace of K3s's kubelet.
const KUBELETS: &str = "k8s.io";

/// Runs a test on a node whose containerd of K3s is up, beside a container of K3s that must stay untouched.
fn on_k3s(backend: &str, test: impl FnOnce(&mut Node) -> Result<()>) -> Result<()> {
    alone_on_k3s(backend, |node| {
        let bystander = Bystander::start(node)?;
        test(node)?;
        bystander.check(node)
    })
}

/// Like [`on_k3s`], but without that container: for tests that end K3s's containers too.
fn alone_on_k3s(backend: &str, test: impl FnOnce(&mut Node) -> Result<()>) -> Result<()> {
    let mut node = Node::builder().on(Backend::K3s).backend(backend).without_agent()?;
    let tested = test(&mut node);
    if tested.is_err() {
        eprintln!("{}", node.dump());
    }
    tested
}

/// Container as K3s's kubelet could have started it.
struct Bystander {
    id: String,
    pid: u32,
    started: u64,
}

impl Bystander {
    fn start(node: &Node) -> Result<Self> {
        let ctr = node.containerd.ctr(KUBELETS);
        let archive = node.fixtures.as_ref().context("a node with fixtures")?.docker_archive();
        ctr.run(&["images", "import", &archive.display().to_string()])?;
        let id = format!("{}-bystander", node.names().namespace);
        let cgroup = format!("{}/bystander", node.names().cgroup);
        let image = "docker.io/preloaded/busybox:docker";
        ctr.run(&["run", "-d", "--cgroup", &cgroup, image, &id, "sleep", "100000"])?;
        let running = Self::find(&ctr, &id)?.context("the bystander does not run")?;
        Ok(Self { id, pid: running.0, started: running.1 })
    }

    fn find(ctr: &Ctr, id: &str) -> Result<Option<(u32, u64)>> {
        let tasks = ctr.run(&["tasks", "ls"])?;
        let row = tasks.lines().find(|line| line.starts_with(id));
        let pid = row.and_then(|row| row.split_whitespace().nth(1)?.parse().ok());
        pid.map(|pid| Ok((pid, proc::started(pid)?))).transpose()
    }

    /// Checks that the container was not restarted and is the only one in K3s's namespace.
    fn check(&self, node: &Node) -> Result<()> {
        ensure!(proc::started(self.pid).ok() == Some(self.started), "the bystander was ended");
        if node.containerd.id().is_some() {
            let containers = node.containerd.ctr(KUBELETS).containers()?;
            ensure!(containers == [self.id.as_str()], "namespace {KUBELETS} has {containers:?}");
        }
        Ok(())
    }
}

/// Returns a client of the containerd that the agent runs itself (`when_socket_absent = "own"`).
fn own(node: &Node) -> Ctr {
    Ctr::new(&node.path("run/k3s/containerd.sock"), &node.names().namespace)
}

fn write(node: &Node, pod: &str) -> Result<()> {
    node.write(&format!("{pod}.yaml"), pods::idle(pod, "1"))
}

#[test]
fn the_four_states_are_told_apart_and_pods_wait() -> Result<()> {
    on_k3s("when_socket_absent = \"wait\"\n", |node| {
        // A killed containerd leaves its socket file behind.
        node.containerd.end(Signal::KILL)?;
        node.agent.start()?;
        write(node, "pod")?;
        node.await_said(&["backends"], &["Unavailable", "k3s-stopped", "systemctl start k3s-agent"])?;
        k3s(node)?.start_process()?;
        node.await_said(&["backends"], &["Unavailable", "k3s-process-no-server", "journalctl"])?;
        node.await_said(&["get", "pods"], &["pod-node-1"])?;
        ensure!(node.pod("pod")?.phase() == "Pending", "a pod runs without its runtime");
        node.containerd.resume()?;
        let ctr = node.ctr();
        let first = runs_on(node, &ctr, "pod")?;
        node.await_said(&["backends"], &["Ready", "k3s-up"])?;

        println!("K3s goes, with its containerd; the pod runs on, also through a restart of the agent");
        node.containerd.end(Signal::KILL)?;
        k3s(node)?.end_process()?;
        node.await_said(&["backends"], &["Unavailable", "k3s-stopped"])?;
        node.agent.stop()?;
        node.agent.start()?;
        throughout(Duration::from_secs(3), || is_as_it_was(&first))?;
        node.containerd.resume()?;
        node.await_said(&["backends"], &["Ready", "k3s-up"])?;
        throughout(Duration::from_secs(2), || is_as_it_was(&first))?;
        node.remove("pod.yaml")?;
        node.await_gone("pod")?;

        println!("where K3s never was");
        node.containerd.end(Signal::KILL)?;
        let data = k3s(node)?.data();
        std::fs::rename(data.join("data"), data.join("unpacked"))?;
        node.await_said(&["backends"], &["Unavailable", "k3s-absent"])
    })
}

// R-COEX-2, R-COEX-3.
#[test]
fn what_killall_does_is_healed() -> Result<()> {
    alone_on_k3s("", |node| {
        node.agent.start()?;
        write(node, "pod")?;
        let before = runs_on(node, &node.ctr(), "pod")?;
        node.containerd.end(Signal::KILL)?;
        k3s(node)?.kill_all()?;
        node.until("the pod's process to end", || {
            ensure!(!proc::alive(before.pid), "killall left it");
            Ok(())
        })?;
        node.containerd.resume()?;
        let after = runs_on(node, &node.ctr(), "pod")?;
        ensure!(after.identity() != before.identity(), "it is the old one");
        node.remove("pod.yaml")?;
        node.await_gone("pod")
    })
}

#[test]
fn the_containerd_that_k3s_ships_runs_pods_until_k3s_is_back_and_they_stay() -> Result<()> {
    on_k3s("when_socket_absent = \"own\"\non_return = \"stay\"\n", |node| {
        node.containerd.end(Signal::KILL)?;
        node.agent.start()?;
        write(node, "pod")?;
        let (own, ctr) = (own(node), node.ctr());
        let first = runs_on(node, &own, "pod")?;
        node.await_said(&["backends"], &["Ready", "k3s-stopped", "A containerd of our own runs the pods"])?;

        println!("the agent restarts; then our containerd is killed, and started again");
        node.agent.stop()?;
        node.agent.start()?;
        runs_on(node, &own, "pod")?;
        is_as_it_was(&first)?;
        let daemons = proc::processes()?;
        let config = node.path("state/k3s/config.toml").display().to_string();
        let daemon = daemons.iter().find(|seen| seen.command.contains(&config)).context("our containerd runs")?;
        stanchion_tests::process::kill(daemon.pid)?;
        write(node, "second")?;
        let second = runs_on(node, &own, "second")?;
        is_as_it_was(&first)?;

        println!("K3s is back: pods stay, new ones are K3s's");
        node.containerd.resume()?;
        node.await_said(&["backends"], &["Ready", "k3s-up"])?;
        write(node, "third")?;
        let third = runs_on(node, &ctr, "third")?;
        throughout(Duration::from_secs(3), || {
            is_as_it_was(&first)?;
            is_as_it_was(&second)?;
            runs_not_on(&ctr, "pod")
        })?;

        println!("a change moves a pod; without pods, our containerd is ended");
        node.write("pod.yaml", pods::idle("pod", "2"))?;
        runs_on(node, &ctr, "pod")?;
        ensure!(!proc::alive(first.pid), "the old one still runs (I1)");
        node.remove("second.yaml")?;
        node.until("our containerd to end", || {
            let running = proc::processes()?.into_iter().any(|seen| seen.command.contains(&config));
            ensure!(!running, "it runs");
            Ok(())
        })?;
        is_as_it_was(&third)
    })
}

#[test]
fn pods_migrate_when_k3s_is_back_and_never_run_twice() -> Result<()> {
    on_k3s("when_socket_absent = \"own\"\non_return = \"migrate\"\n", |node| {
        node.containerd.end(Signal::KILL)?;
        k3s(node)?.start_process()?;
        node.agent.start()?;
        write(node, "pod")?;
        let (own, ctr) = (own(node), node.ctr());
        let first = runs_on(node, &own, "pod")?;
        node.containerd.resume()?;
        let moved = follows(node, &first, &ctr, "pod")?;
        runs_on(node, &ctr, "pod")?;
        is_as_it_was(&moved)
    })
}

#[test]
fn pods_that_run_on_without_their_containerd_are_not_started_twice() -> Result<()> {
    on_k3s("when_socket_absent = \"own\"\n", |node| {
        node.agent.start()?;
        let (own, ctr) = (own(node), node.ctr());
        for pod in ["stays", "dies", "goes"] {
            write(node, pod)?;
        }
        let [stays, dies, goes] = ["stays", "dies", "goes"].map(|pod| runs_on(node, &ctr, pod));
        let (stays, dies, goes) = (stays?, dies?, goes?);
        node.containerd.end(Signal::KILL)?;
        write(node, "new")?;
        runs_on(node, &own, "new")?;
        dies.kill()?;
        runs_on(node, &own, "dies")?;
        node.remove("goes.yaml")?;
        node.until("a pod to be stopped without its containerd", || {
            ensure!(!proc::alive(goes.pid), "it runs");
            Ok(())
        })?;
        node.agent.kill()?;
        node.agent.start()?;
        node.await_said(&["get", "pods"], &["stays-node-1"])?;
        throughout(Duration::from_secs(3), || {
            is_as_it_was(&stays)?;
            runs_not_on(&own, "stays")
        })?;
        ensure!(node.pod("stays")?.phase() == "Running", "it is not shown as running");

        println!("K3s is back: nobody is doubled, nobody killed");
        node.containerd.resume()?;
        node.await_said(&["backends"], &["Ready", "k3s-up"])?;
        node.until("what ended meanwhile to be forgotten", || {
            let left = ctr.containers()?;
            ensure!(!left.iter().any(|id| id.contains("goes") || id.contains("dies")), "there is {left:?}");
            Ok(())
        })?;
        throughout(Duration::from_secs(2), || {
            is_as_it_was(&stays)?;
            runs_not_on(&own, "stays")?;
            runs_not_on(&ctr, "dies")
        })
    })
}

#[test]
fn after_a_reboot_without_a_server_the_pods_run_on_ours() -> Result<()> {
    alone_on_k3s("when_socket_absent = \"own\"\n", |node| {
        node.agent.start()?;
        write(node, "pod")?;
        let (own, ctr) = (own(node), node.ctr());
        let before = runs_on(node, &ctr, "pod")?;
        node.agent.stop()?;
        node.containerd.end(Signal::KILL)?;
        k3s(node)?.reboot()?;
        k3s(node)?.start_process()?;
        node.agent.start()?;
        let now = runs_on(node, &own, "pod")?;
        ensure!(!proc::alive(before.pid), "the old one runs");
        node.containerd.resume()?;
        node.await_said(&["backends"], &["Ready", "k3s-up"])?;
        throughout(Duration::from_secs(3), || {
            is_as_it_was(&now)?;
            runs_not_on(&ctr, "pod")
        })
    })
}

/// Deletes the bundle of a running container, as k3s-killall.sh does, but leaves its process.
fn lose_bundle(node: &mut Node, running: &Running) -> Result<()> {
    let namespace = node.names().namespace.clone();
    let tasks = k3s(node)?.state().join("io.containerd.runtime.v2.task");
    let bundle = tasks.join(namespace).join(&running.record.id);
    for point in proc::mounts_below(&bundle)?.into_iter().rev() {
        unmount(&point, UnmountFlags::DETACH).with_context(|| format!("cannot unmount {}", point.display()))?;
    }
    std::fs::remove_dir_all(&bundle).with_context(|| format!("cannot remove {}", bundle.display()))
}

#[test]
fn what_runs_on_without_its_bundle_is_not_doubled() -> Result<()> {
    on_k3s("when_socket_absent = \"own\"\n", |node| {
        node.agent.start()?;
        let (own, ctr) = (own(node), node.ctr());
        write(node, "pod")?;
        let lost = runs_on(node, &ctr, "pod")?;
        node.containerd.end(Signal::KILL)?;
        lose_bundle(node, &lost)?;
        node.await_said(&["describe", "pod", "pod"], &["no backend knows of it"])?;
        throughout(Duration::from_secs(3), || {
            is_as_it_was(&lost)?;
            runs_not_on(&own, "pod")
        })?;

        println!("its containerd is back, and has its record: it ends what it has lost before the next life");
        node.containerd.resume()?;
        let next = follows(node, &lost, &ctr, "pod")?;
        runs_on(node, &ctr, "pod")?;
        is_as_it_was(&next)?;

        println!("lost again, and ended: ours runs it");
        node.containerd.end(Signal::KILL)?;
        lose_bundle(node, &next)?;
        node.await_said(&["describe", "pod", "pod"], &["no backend knows of it"])?;
        next.kill()?;
        runs_on(node, &own, "pod").map(drop)
    })
}

/// Stand-in for a kubelet's healthz server.
struct Kubelet {
    address: SocketAddr,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Kubelet {
    fn start(address: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
        let ended = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&ended);
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if told.load(Ordering::Relaxed) {
                    return;
                }
                // The client may close the connection before the answer.
                stream.and_then(|mut stream| stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")).ok();
            }
        });
        Ok(Self { address, ended, thread: Some(thread) })
    }

    fn end(mut self) -> Result<()> {
        self.ended.store(true, Ordering::Relaxed);
        // Wakes the thread from `accept`.
        TcpStream::connect(self.address).context("the kubelet is gone already")?;
        let thread = self.thread.take().context("it is ended once")?;
        thread.join().map_err(|_| anyhow!("the kubelet's thread panicked"))
    }
}

#[test]
fn a_kubelets_static_pods_are_run_only_while_it_is_away() -> Result<()> {
    on_k3s("", |node| {
        let address = SocketAddr::from(([127, 0, 0, 1], node.names().port(7)));
        let manifests = k3s(node)?.manifests();
        let state = k3s(node)?.state();
        let source = format!(
            "\n[[source]]\npath = {manifests:?}\nkubelet = \"{address}\"\nkubelet_absent_for = \"1s\"\n\
             kubelet_runtime_state = [{state:?}]\n"
        );
        OpenOptions::new().append(true).open(node.path("stanchion.toml"))?.write_all(source.as_bytes())?;
        std::fs::write(manifests.join("static.yaml"), pods::idle("static", "1"))?;
        let kubelet = Kubelet::start(address)?;
        node.agent.start()?;
        let ctr = node.ctr();
        node.await_said(&["get", "manifests"], &["static.yaml", "is not run here: a kubelet answers"])?;
        throughout(Duration::from_secs(3), || runs_not_on(&ctr, "static"))?;

        println!("the kubelet goes; what it has started runs on, and is still its own");
        let left = Static::start(node)?;
        kubelet.end()?;
        node.await_said(
            &["get", "manifests"],
            &["the kubelet does not answer, but containers that it started still run"],
        )?;
        throughout(Duration::from_secs(3), || runs_not_on(&ctr, "static"))?;
        left.end(node)?;
        let first = runs_on(node, &ctr, "static")?;

        println!("the agent restarts, and goes on running it");
        node.agent.stop()?;
        node.agent.start()?;
        throughout(Duration::from_secs(3), || is_as_it_was(&first))?;

        println!("the kubelet is back");
        let kubelet = Kubelet::start(address)?;
        node.await_gone("static")?;
        node.await_said(&["get", "manifests"], &["is not run here: a kubelet answers"])?;
        kubelet.end()?;
        runs_on(node, &ctr, "static")?;
        std::fs::remove_file(manifests.join("static.yaml"))?;
        node.await_gone("static")
    })
}

/// Stand-in for a kubelet with `--lock-file`, which takes the lock before it does anything.
struct LockedKubelet {
    lock: File,
    heard: Kubelet,
}

impl LockedKubelet {
    /// Waits for the lock, then checks that the container `ours` has ended.
    fn start(lock: &Path, address: SocketAddr, ours: &Running) -> Result<Self> {
        let lock = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(lock)?;
        lock.lock()?;
        ensure!(!proc::alive(ours.pid), "a container of the pod still runs");
        Ok(Self { lock, heard: Kubelet::start(address)? })
    }

    fn end(self) -> Result<()> {
        self.heard.end()?;
        self.lock.unlock().context("the lock")
    }
}

#[test]
fn a_kubelet_with_a_lock_never_runs_a_pod_beside_us() -> Result<()> {
    on_k3s("", |node| {
        let address = SocketAddr::from(([127, 0, 0, 1], node.names().port(7)));
        let (manifests, lock) = (k3s(node)?.manifests(), node.path("kubelet.lock"));
        let source = format!(
            "\n[[source]]\npath = {manifests:?}\nkubelet = \"{address}\"\nkubelet_absent_for = \"1s\"\n\
             kubelet_runtime_state = []\nkubelet_lock_file = {lock:?}\n"
        );
        OpenOptions::new().append(true).open(node.path("stanchion.toml"))?.write_all(source.as_bytes())?;
        let slow = pods::shell("static", "trap 'sleep 2; exit 0' TERM; while :; do sleep 3600 & wait $!; done", "");
        std::fs::write(manifests.join("static.yaml"), slow)?;
        node.agent.start()?;
        let ctr = node.ctr();
        let ours = runs_on(node, &ctr, "static")?;

        println!("it comes, and waits until the pod has ended in its own time");
        let kubelet = LockedKubelet::start(&lock, address, &ours)?;
        runs_not_on(&ctr, "static")?;
        node.await_said(&["get", "manifests"], &["static.yaml", "a kubelet holds its lock"])?;
        println!("it restarts, and an agent that restarts meanwhile has no part in it");
        let LockedKubelet { lock: held, heard } = kubelet;
        heard.end()?;
        node.agent.stop()?;
        node.agent.start()?;
        node.await_said(&["get", "manifests"], &["static.yaml", "a kubelet holds its lock"])?;
        throughout(Duration::from_secs(3), || runs_not_on(&ctr, "static"))?;

        println!("it is gone");
        drop(held);
        let ours = runs_on(node, &ctr, "static")?;
        println!("it comes back just when the agent restarts");
        node.agent.stop()?;
        node.agent.start()?;
        node.until("the agent to have the lock again", || {
            let file = OpenOptions::new().read(true).open(&lock)?;
            ensure!(file.try_lock().is_err(), "nobody has it");
            Ok(())
        })?;
        LockedKubelet::start(&lock, address, &ours)?.end()?;
        std::fs::remove_file(manifests.join("static.yaml"))?;
        node.await_gone("static")
    })
}

/// Container of the static pod, as the kubelet would have started it.
struct Static {
    id: String,
}

impl Static {
    fn start(node: &Node) -> Result<Self> {
        let ctr = node.containerd.ctr(KUBELETS);
        let id = format!("{}-static", node.names().namespace);
        let notes = ["container-type=container", "sandbox-namespace=default", "sandbox-name=static-k3s-node"];
        let notes = notes.map(|note| format!("--annotation=io.kubernetes.cri.{note}"));
        // The last part of the cgroup's path is the container's ID, as with CRI.
        let cgroup = format!("{}/{id}", node.names().cgroup);
        let mut arguments = vec!["run", "-d", "--cgroup", &cgroup];
        arguments.extend(notes.iter().map(String::as_str));
        arguments.extend(["docker.io/preloaded/busybox:docker", &id, "sleep", "100000"]);
        ctr.run(&arguments)?;
        Ok(Self { id })
    }

    fn end(self, node: &Node) -> Result<()> {
        let ctr = node.containerd.ctr(KUBELETS);
        ctr.run(&["tasks", "kill", "-s", "SIGKILL", &self.id])?;
        node.until("the kubelet's container to be removed", || ctr.run(&["tasks", "rm", &self.id]))?;
        ctr.run(&["containers", "rm", &self.id]).map(drop)
    }
}

#[test]
fn the_example_configuration_starts_as_it_stands() -> Result<()> {
    on_k3s("", |node| {
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/k3s.toml").display().to_string();
        let mut command = node.agent.command(&["run", "--config", &example])?;
        let programs = std::env::current_exe()?;
        let programs = programs.ancestors().nth(2).context("the test is not in cargo's directory")?;
        let (layout, names) = (node.k3s.as_ref().context("a node with K3s")?, node.names());
        for (key, path) in [
            ("AGENT__STATE_DIR", node.path("example/state")),
            ("AGENT__RUN_DIR", node.path("example/run")),
            ("AGENT__LOG_DIR", node.path("example/logs")),
            ("AGENT__PLUGIN_DIR", programs.to_owned()),
            ("IMAGES__PRELOAD", node.path("preload")),
            ("BACKEND__K3S__DATA_DIR", layout.data()),
            ("BACKEND__K3S__SOCKET", layout.socket()),
            ("BACKEND__K3S__NAMESPACE", names.namespace.clone().into()),
            ("BACKEND__K3S__CGROUP_ROOT", names.cgroup_root.clone().into()),
            ("BACKEND__K3S__NETWORK__BRIDGE", names.bridge.clone().into()),
            ("BACKEND__K3S__NETWORK__SUBNET", names.subnet().into()),
        ] {
            command.env(format!("STANCHION_{key}"), path);
        }
        let _process = Process::start("stanchion run", &mut command, &node.path("example.log"))?;
        let socket = node.path("example/run/stanchion.sock").display().to_string();
        node.await_said(&["--socket", &socket, "backends"], &["k3s", "Ready", "k3s-up"])
    })
}
