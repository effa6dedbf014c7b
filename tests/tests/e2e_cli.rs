//! The command line against a running node.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::MetadataExt as _,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use stanchion_tests::{
    Backend, Node,
    pods::{self, IDLE, shell},
    process::Process,
};

stanchion_tests::on_each_runtime! {
    logs_are_shown_cut_and_followed,
    logs_are_the_bytes_that_the_program_wrote,
    logs_of_the_previous_container_are_kept,
    logs_are_written_on_while_the_agent_is_dead,
    exec_passes_input_output_and_exit_code,
    restart_replaces_the_containers_without_back_off,
    tables_and_descriptions_say_what_is,
    doctor_finds_nothing_wrong_with_a_healthy_node,
    logs_that_are_not_there_are_said_so,
}

const POD: &str = "pod-node-1";

fn counting(node: &Node) -> Result<()> {
    let script = "for i in 1 2 3; do echo line $i; done; echo wrong >&2; trap 'exit 0' TERM; while [ ! -e /go ]; do \
                  sleep 0.1; done; echo went; while :; do sleep 3600 & wait $!; done";
    node.write("pod.yaml", shell("pod", script, ""))?;
    node.await_running("pod").map(drop)
}

// R-LOG-4, R-LOG-7, R-LOG-8, R-GAP-15.
fn logs_are_shown_cut_and_followed(on: Backend) -> Result<()> {
    Node::builder().on(on).run(|node| {
        counting(node)?;
        node.await_said(&["logs", POD], &["line 1\n", "line 2\n", "line 3\n", "wrong\n"])?;
        let tail = node.agent.text(&["logs", "--tail", "1", POD])?;
        ensure!(tail.lines().count() == 1, "--tail 1 prints {tail:?}");
        let since = node.agent.text(&["logs", "--since", "1h", POD])?;
        ensure!(since.contains("line 1"), "--since 1h prints {since:?}");

        let followed = node.path("followed");
        let mut command = node.agent.command(&["logs", "-f", POD])?;
        let mut following = Process::start("stanchion logs -f", &mut command, &followed)?;
        let awaited = |word: &str| {
            node.until(&format!("logs -f to print {word:?}"), || {
                let text = fs::read_to_string(&followed)?;
                ensure!(text.contains(word), "it printed {text:?}");
                Ok(())
            })
        };
        awaited("line 3")?;
        node.agent.text(&["exec", POD, "--", "touch", "/go"])?;
        awaited("went")?;
        node.remove("pod.yaml")?;
        // `logs -f` must end with its container and print each line once.
        following.wait(Duration::from_secs(60))?;
        let text = fs::read_to_string(&followed)?;
        let mut lines: Vec<_> = text.lines().collect();
        lines.sort_unstable();
        ensure!(lines == ["line 1", "line 2", "line 3", "went", "wrong"], "it printed {text:?}");
        Ok(())
    })
}

/// Checks lines longer than a logger's buffer, multi-byte characters at the cuts, and bytes that are not UTF-8
/// (R-LOG-3, R-LOG-4).
fn logs_are_the_bytes_that_the_program_wrote(on: Backend) -> Result<()> {
    Node::builder().on(on).run(|node| {
        let script = format!(
            "e=$(printf '\\342\\202\\254'); printf 'caf\\351\\377\\200\\000\\r\\n'; printf x; \
             head -c 60000 /dev/zero | tr '\\0' a | sed \"s/a/$e/g\"; echo; head -c 250011 /dev/zero | tr '\\0' b; echo; \
             echo end; {IDLE}"
        );
        let expected = [
            &b"caf\xe9\xff\x80\0\r\nx"[..],
            "€".repeat(60_000).as_bytes(),
            b"\n",
            "b".repeat(250_011).as_bytes(),
            b"\nend\n",
        ]
        .concat();
        node.write("pod.yaml", shell("pod", &script, ""))?;
        node.await_running("pod")?;
        let followed = node.path("followed");
        let mut command = node.agent.command(&["logs", "-f", POD])?;
        let _following = Process::start("stanchion logs -f", &mut command, &followed)?;
        node.until("the bytes of the program", || {
            let whole = node.agent.command(&["logs", POD])?.output()?.stdout;
            for (how, bytes) in [("logs", whole), ("logs -f", fs::read(&followed)?)] {
                let same = bytes.iter().zip(&expected).take_while(|(one, other)| one == other).count();
                let (length, all) = (bytes.len(), expected.len());
                ensure!(bytes == expected, "{how}: {length} bytes of {all}, the first {same} of them are the same");
            }
            Ok(())
        })
    })
}

// R-LOG-7, R-GC-1.
fn logs_of_the_previous_container_are_kept(on: Backend) -> Result<()> {
    Node::builder().on(on).run(|node| {
        let script = format!("echo started by $$ at $(cat /proc/uptime); {IDLE}");
        node.write("pod.yaml", shell("pod", &script, ""))?;
        node.await_running("pod")?;
        node.await_said(&["logs", POD], &["started by"])?;
        let first = node.agent.text(&["logs", POD])?;
        node.container("pod")?.kill()?;
        node.until("the next container's log", || {
            let now = node.agent.text(&["logs", POD])?;
            ensure!(now != first && now.contains("started by"), "{now:?}");
            Ok(())
        })?;
        let previous = node.agent.text(&["logs", "--previous", POD])?;
        ensure!(previous == first, "--previous prints {previous:?}, not {first:?}");
        Ok(())
    })
}

fn logs_are_written_on_while_the_agent_is_dead(on: Backend) -> Result<()> {
    Node::builder().on(on).run(|node| {
        counting(node)?;
        node.agent.kill()?;
        fs::write(format!("/proc/{}/root/go", node.container("pod")?.pid), "")?;
        node.agent.start()?;
        node.await_said(&["logs", POD], &["line 1", "went"])
    })
}

// R-LOG-2. Not on Docker, which keeps its own log files.
#[test]
fn logs_are_linked_for_those_who_ship_them() -> Result<()> {
    let links = tempfile::tempdir().context("a directory")?;
    let setting = format!("log_links = {:?}\n", links.path());
    let names = || -> Result<Vec<_>> { Ok(fs::read_dir(links.path())?.collect::<Result<Vec<_>, _>>()?) };
    Node::builder().on(Backend::Containerd).agent(&setting).run(|node| {
        counting(node)?;
        node.until("the log to be linked", || {
            let found = names()?;
            ensure!(found.len() == 1, "there are {found:?}");
            let name = found[0].file_name().to_string_lossy().into_owned();
            ensure!(name.starts_with("pod-node-1_default_main-") && name.ends_with(".log"), "it is called {name}");
            let text = fs::read_to_string(found[0].path())?;
            ensure!(text.contains(" stdout F line 3\n"), "it leads to {text:?}");
            Ok(())
        })?;
        node.remove("pod.yaml")?;
        node.await_gone("pod")?;
        node.until("the link to be gone", || {
            let left = names()?;
            ensure!(left.is_empty(), "left: {left:?}");
            Ok(())
        })
    })
}

fn exec_passes_input_output_and_exit_code(on: Backend) -> Result<()> {
    Node::builder().on(on).run(|node| {
        node.write("pod.yaml", pods::idle("pod", "1"))?;
        node.await_running("pod")?;
        let output = node.agent.cli(&["exec", POD, "--", "sh", "-c", "echo out; echo err >&2; exit 7"])?;
        ensure!(output.status.code() == Some(7), "{output:?}");
        ensure!(output.stdout == b"out\n" && output.stderr.starts_with(b"err\n"), "{output:?}");

        let mut command: Command = node.agent.command(&["exec", "-i", POD, "--", "sh", "-c", "wc -c; echo end"])?;
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("exec -i")?;
        child.stdin.take().context("stdin was piped")?.write_all(&vec![b'x'; 300_000])?;
        let output = child.wait_with_output()?;
        ensure!(output.status.success(), "{output:?}");
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(said.trim() == "300000\nend", "exec -i printed {said:?}");

        let missing = node.agent.cli(&["exec", POD, "--", "no-such-program"])?;
        let said = String::from_utf8_lossy(&missing.stderr);
        ensure!(!missing.status.success() && said.contains("no-such-program"), "{missing:?}");
        Ok(())
    })
}

fn restart_replaces_the_containers_without_back_off(on: Backend) -> Result<()> {
    Node::builder().on(on).run(|node| {
        node.write("pod.yaml", pods::idle("pod", "1"))?;
        node.await_running("pod")?;
        for _ in 0..3 {
            let before = node.container("pod")?;
            node.agent.text(&["restart", POD])?;
            node.until("another container", || {
                let now = node.container("pod")?;
                ensure!(now.identity() != before.identity(), "still the same");
                Ok(())
            })?;
            node.await_running("pod")?;
        }
        Ok(())
    })
}

// R-GAP-15, R-SYNC-14, R-EVT-2.
fn tables_and_descriptions_say_what_is(on: Backend) -> Result<()> {
    Node::builder().on(on).run(|node| {
        node.write("pod.yaml", pods::idle("pod", "1"))?;
        node.await_running("pod")?;
        let address = node.address("pod")?.to_string();
        let pods = node.agent.text(&["get", "pods", "-o", "wide"])?;
        let header = pods.lines().next().unwrap_or_default();
        for column in ["NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP"] {
            ensure!(header.split_whitespace().any(|word| word == column), "no column {column}:\n{pods}");
        }
        ensure!(pods.contains(&address), "{pods}");
        let file = node.manifest("pod.yaml").display().to_string();
        node.await_said(&["describe", "pod", POD], &["Running", "busybox", &address, &file, "Started", "Events"])?;
        node.await_said(&["get", "nodes"], &["node-1", "Ready"])?;
        let capacity = &node.agent.json(&["get", "nodes"])?["items"][0]["capacity"];
        ensure!(
            capacity["pods"] == "110" && capacity["memory"].as_str().is_some_and(|it| it.ends_with("Ki")),
            "{capacity}"
        );
        node.await_said(&["get", "events"], &["Started", "pod-node-1"])?;
        let version = match on {
            Backend::Containerd | Backend::K3s => "1.6",
            Backend::Docker => "20.10",
        };
        node.await_said(&["backends"], &[on.name(), version])?;
        let library = format!("libstanchion_{}.so", on.name());
        let wide = ["LIBRARY ", "CAPABILITIES", &library, "import", "shared_pid_namespace", version, "1.0", "Ready"];
        node.await_said(&["backends", "-o", "wide"], &wide)?;
        let backends = node.agent.json(&["backends"])?;
        let backend = &backends["items"][0];
        ensure!(backend["pods"] == 1 && backend["capabilities"]["import"] == true, "{backend}");
        let yaml = node.agent.text(&["get", "pods", POD, "-o", "yaml"])?;
        ensure!(yaml.contains("phase: Running") && yaml.contains("kind: Pod"), "{yaml}");
        // R-CS-9: Docker lists containers with the image's ID, not with a repository digest.
        let repository = if on == Backend::Docker { "" } else { "docker.io/library/busybox@" };
        ensure!(yaml.contains(&format!("imageID: {repository}sha256:")), "{yaml}");
        let unknown = node.agent.cli(&["describe", "pod", "nobody"])?;
        let said = String::from_utf8_lossy(&unknown.stderr);
        ensure!(!unknown.status.success() && said.contains("nobody"), "{unknown:?}");
        Ok(())
    })
}

fn doctor_finds_nothing_wrong_with_a_healthy_node(on: Backend) -> Result<()> {
    Node::builder().on(on).run(|node| {
        node.await_said(&["backends"], &["Ready"])?;
        let output = node.agent.cli(&["doctor"])?;
        ensure!(output.status.success(), "{output:?}");
        node.end_runtime(rustix::process::Signal::TERM)?;
        node.until("doctor to name the socket", || {
            let output = node.agent.cli(&["doctor"])?;
            let said =
                format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            ensure!(!output.status.success() && said.contains(&format!("{}.sock", on.name())), "{said}");
            Ok(())
        })
    })
}

// R-LOG-10.
fn logs_that_are_not_there_are_said_so(on: Backend) -> Result<()> {
    Node::builder().on(on).run(|node| {
        let waiting = |why: &str| format!("container \"main\" in pod \"{POD}\" is waiting to start: {why}");
        let of = |image: &str, policy: &str| {
            pods::idle("pod", "1")
                .replace("image: busybox\n", &format!("image: {image}\n    imagePullPolicy: {policy}\n"))
        };
        node.write("pod.yaml", of("never/there", "Never"))?;
        node.await_said(&["logs", POD], &[&waiting("ErrImageNeverPull")])?;
        node.remove("pod.yaml")?;
        node.await_gone("pod")?;
        node.write("pod.yaml", of(&node.in_registry("no-such-image")?, "Always"))?;
        node.await_said(&["logs", POD], &[&waiting("trying and failing to pull image")])?;
        node.write("pod.yaml", pods::idle("pod", "1"))?;
        node.await_running("pod")?;
        let none = format!("previous terminated container \"main\" in pod \"{POD}\" not found");
        node.await_said(&["logs", "--previous", POD], &[&none])
    })
}

/// R-API-3, R-COEX-8: the API is a socket that only root can open; the agent listens on no port.
#[test]
fn nothing_listens_but_a_socket_of_root() -> Result<()> {
    Node::builder().run(|node| {
        node.await_said(&["backends"], &["Ready"])?;
        let agent = node.agent.id().context("it runs")?;
        let mut own = Vec::new();
        for entry in fs::read_dir(format!("/proc/{agent}/fd"))? {
            // The agent may have closed the descriptor.
            let Ok(target) = fs::read_link(entry?.path()) else { continue };
            let target = target.to_string_lossy().into_owned();
            own.extend(target.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']')).map(str::to_owned));
        }
        ensure!(!own.is_empty(), "it has not even a socket");
        for table in ["tcp", "tcp6", "udp", "udp6"] {
            let text = fs::read_to_string(format!("/proc/{agent}/net/{table}"))?;
            // Columns: 1 local address, 3 state, 9 inode (proc_pid_net(5)). 0A is LISTEN; 07 is a UDP socket without a
            // peer, which accepts packets from everyone.
            for line in text.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>()) {
                let is_open = line[3] == "0A" || (table.starts_with("udp") && line[3] == "07");
                ensure!(!(is_open && own.iter().any(|inode| inode == line[9])), "{table} {} is open", line[1]);
            }
        }
        let socket = fs::metadata(node.path("run/stanchion.sock"))?;
        ensure!(socket.uid() == 0 && socket.mode() & 0o077 == 0, "mode {:o} of {}", socket.mode(), socket.uid());
        Ok(())
    })
}
