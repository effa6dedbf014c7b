//! Volumes of every kind: their mounts, updates of their content, and pods that wait for them.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::PathBuf,
};

use stanchion_agent::handle::Request;
use stanchion_runtime::{Mount, MountPropagation};

use crate::{
    manifest::pod,
    node::{Node, key, mounts_below},
    objects::{config_map, made, secret, write_secretly},
};

/// Returns a pod `web` with one volume `v`, mounted at `/v` with `more`.
fn with(volume: &str, more: &str) -> String {
    let pod = pod("web", "app:1").spec(&format!("volumes: [{{name: v, {volume}}}]"));
    format!("{pod}    volumeMounts: [{{name: v, mountPath: /v{more}}}]\n")
}

/// Returns the mount at `/v` in the pod `web`.
fn mounted(node: &Node) -> Mount {
    let mounts = made(node, "web").mounts;
    mounts.into_iter().find(|mount| mount.destination.as_os_str() == "/v").expect("it has the volume")
}

fn read(node: &Node, path: &str) -> String {
    fs::read_to_string(mounted(node).source.join(path)).unwrap_or_default()
}

/// Returns whether a tmpfs is mounted at a path.
fn is_memory(path: &std::path::Path) -> bool {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("the kernel has it");
    table.lines().any(|line| line.contains(&format!(" {} ", path.display())) && line.contains(" - tmpfs "))
}

// R-GAP-14.
#[tokio::test(start_paused = true)]
async fn a_config_map_volume_follows_its_file_and_keeps_what_is_removed() {
    let mut node = Node::new();
    node.write("settings.yaml", &config_map("settings", "{a: one, b: two}"));
    node.write("web.yaml", &with("configMap: {name: settings, defaultMode: 0640}", ""));
    node.start();
    node.runs(&[("web", &[("app", "app:1")])]).await;
    let (before, mount) = (node.app("web").expect("it runs"), mounted(&node));
    assert!(mount.read_only, "R-VOL-8");
    assert_eq!((read(&node, "a"), read(&node, "b")), ("one".to_owned(), "two".to_owned()));
    assert_eq!(fs::metadata(mount.source.join("a")).expect("there").mode() & 0o777, 0o640, "R-VOL-8");
    node.write("settings.yaml", &config_map("settings", "{a: three}"));
    node.patiently("the new content", async {
        while read(&node, "a") != "three" {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await;
    assert!(!mount.source.join("b").exists(), "what is not in it any more is gone");
    node.remove("settings.yaml");
    node.patiently("what is missing", async {
        while node.events("FailedMount").is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await;
    node.settle().await;
    let failed = node.events("FailedMount");
    assert!(failed[0].message.ends_with("configmap \"settings\" not found") && failed[0].count == 1, "{failed:?}");
    assert_eq!(read(&node, "a"), "three");
    assert_eq!(node.app("web").map(|app| app.id), Some(before.id), "nothing was restarted: design 4.1");
    node.remove("web.yaml");
    node.is_empty().await;
}

#[tokio::test(start_paused = true)]
async fn a_volume_follows_what_changed_while_no_agent_was_there() {
    let mut node = Node::new();
    node.write("settings.yaml", &config_map("settings", "{a: one}"));
    node.write(
        "web.yaml",
        &with("projected: {sources: [{configMap: {name: settings, items: [{key: a, path: x/y, mode: 0400}]}}]}", ""),
    );
    node.start();
    node.runs(&[("web", &[("app", "app:1")])]).await;
    assert_eq!(read(&node, "x/y"), "one");
    node.stop().await;
    node.write("settings.yaml", &config_map("settings", "{a: two}"));
    node.start();
    node.patiently("the new content", async {
        while read(&node, "x/y") != "two" {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await;
    node.check();
}

// R-SYNC-1, R-SYNC-3.
#[tokio::test(start_paused = true)]
async fn a_missing_object_keeps_its_pod_from_being_made_until_it_appears() {
    for (kind, missing, file, content) in [
        ("configMap: {name: lost}", "configmap \"lost\" not found", "lost.yaml", config_map("lost", "{a: one}")),
        ("secret: {secretName: lost}", "secret \"lost\" not found", "lost.yaml", secret("lost", "{a: one}")),
        (
            "configMap: {name: lost, items: [{key: b, path: b}]}",
            "configmap \"lost\" not found",
            "lost.yaml",
            config_map("lost", "{b: one}"),
        ),
        (
            "persistentVolumeClaim: {claimName: lost}",
            "persistentvolumeclaim \"lost\" not found",
            "lost.yaml",
            "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: lost}\nspec: {accessModes: [ReadWriteOnce]}\n"
                .to_owned(),
        ),
    ] {
        let mut node = Node::new();
        node.write("web.yaml", &with(kind, ""));
        node.write("other.yaml", &pod("other", "app:1"));
        node.start();
        let expected = format!("MountVolume.SetUp failed for volume \"v\" : {missing}");
        node.shows(&expected, |node| node.events("FailedMount").iter().any(|event| event.message == expected)).await;
        assert_eq!(node.reason("web", "app"), "ContainerCreating", "R-VOL-1");
        node.shows("the other", |node| node.app("other").is_some()).await;
        assert!(node.fake().sandboxes_of("web-node").is_empty(), "no sandbox without volumes");
        write_secretly(&node, file, &content);
        node.runs(&[("web", &[("app", "app:1")]), ("other", &[("app", "app:1")])]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_optional_may_be_missing_and_comes_later() {
    let mut node = Node::new();
    let sources = "{sources: [{configMap: {name: lost, optional: true}}, {downwardAPI: {items: [{path: name, fieldRef: \
                   {fieldPath: metadata.name}}]}}]}";
    node.write("web.yaml", &with(&format!("projected: {sources}"), ""));
    node.start();
    node.runs(&[("web", &[("app", "app:1")])]).await;
    assert_eq!(read(&node, "name"), "web-node");
    node.write("lost.yaml", &config_map("lost", "{a: one}"));
    node.patiently("the content", async {
        while read(&node, "a") != "one" {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await;
}

// R-DIR-2.
#[tokio::test(start_paused = true)]
async fn secrets_are_in_memory_only_and_go_with_the_pod() {
    let mut node = Node::new();
    write_secretly(&node, "keys.yaml", &secret("keys", "{token: hunter2}"));
    node.write("web.yaml", &with("secret: {secretName: keys, defaultMode: 0400}", ""));
    node.start();
    node.runs(&[("web", &[("app", "app:1")])]).await;
    let source = mounted(&node).source;
    assert!(is_memory(&source), "{} is on a disk: I10", source.display());
    assert_eq!(read(&node, "token"), "hunter2");
    node.remove("web.yaml");
    node.is_empty().await;
    assert_eq!(mounts_below(&node.config.state_dir), Vec::<PathBuf>::new(), "I6");
}

#[tokio::test(start_paused = true)]
async fn the_downward_api_says_what_was_recorded_and_follows_edits_of_a_pod_that_keeps_its_uid() {
    let mut node = Node::new();
    let manifest = |label: &str| {
        let items = "{path: labels, fieldRef: {fieldPath: metadata.labels}}, {path: annotations, fieldRef: {fieldPath: \
                     metadata.annotations}, mode: 0644}, {path: deep/name, fieldRef: {fieldPath: metadata.name}}, {path: cpu, \
                     resourceFieldRef: {containerName: app, resource: requests.cpu, divisor: 1m}}, {path: mem, mode: 256, \
                     resourceFieldRef: {containerName: app, resource: limits.memory, divisor: 1Mi}}";
        let resources = "    resources: {requests: {cpu: 250m, memory: 16Mi}, limits: {memory: 48Mi}}\n";
        let text = with(&format!("downwardAPI: {{defaultMode: 0440, items: [{items}]}}"), "") + resources;
        let metadata = format!(
            "  name: web\n  uid: fixed\n  labels: {{b: \"2\", a: {label}}}\n  annotations: {{multi: \"line one\\nline two\", \
             quote: 'say \"hi\"'}}\n"
        );
        text.replacen("  name: web\n", &metadata, 1)
    };
    node.write("web.yaml", &manifest("one"));
    node.start();
    node.runs(&[("web", &[("app", "app:1")])]).await;
    // As in the recording `volumes/downward-api`.
    assert_eq!(read(&node, "labels"), "a=\"one\"\nb=\"2\"", "R-VOL-9");
    let annotations = read(&node, "annotations");
    assert!(annotations.contains("multi=\"line one\\nline two\"\nquote=\"say \\\"hi\\\"\""), "R-VOL-9: {annotations}");
    assert_eq!(
        (read(&node, "deep/name"), read(&node, "cpu"), read(&node, "mem")),
        ("web-node".into(), "250".into(), "48".into())
    );
    let mode = |path: &str| fs::metadata(mounted(&node).source.join(path)).expect("there").mode() & 0o777;
    assert_eq!(
        (mode("labels"), mode("annotations"), mode("mem"), mode("deep")),
        (0o440, 0o644, 0o400, 0o755),
        "R-VOL-8"
    );
    let before = node.app("web").expect("it runs");
    node.write("web.yaml", &manifest("three"));
    node.patiently("the new label", async {
        while read(&node, "labels") != "a=\"three\"\nb=\"2\"" {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await;
    node.settle().await;
    assert_eq!(node.app("web").map(|app| app.id), Some(before.id), "R-CHG-2");
    let shown = node.pod("web").and_then(|view| view.pod.metadata.labels.clone()).unwrap_or_default();
    assert_eq!(shown.get("a").map(String::as_str), Some("three"));
}

#[tokio::test(start_paused = true)]
async fn parts_of_volumes_are_mounted_and_no_link_leads_out() {
    let mut node = Node::new();
    let host = node.config.run_dir.join("host");
    fs::create_dir_all(host.join("inside")).expect("made");
    symlink("/etc", host.join("way-out")).expect("linked");
    let volume = format!("hostPath: {{path: {}}}", host.display());
    let env = "    env: [{name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]\n";
    node.write("web.yaml", &(with(&volume, ", subPathExpr: logs/$(POD)") + env));
    node.write("bad.yaml", &with(&volume, ", subPath: way-out").replace("web", "bad"));
    node.write("lost.yaml", &with(&volume, ", subPathExpr: logs/$(LOST)").replace("web", "lost"));
    node.start();
    node.shows("why they wait", |node| {
        ["bad", "lost"].iter().all(|pod| node.reason(pod, "app") == "CreateContainerConfigError")
    })
    .await;
    node.shows("the good one", |node| node.app("web").is_some()).await;
    let source = mounted(&node).source;
    assert!(source.ends_with("volume-subpaths/v/app/0"), "R-MNT-4: {}", source.display());
    fs::write(source.join("file"), "x").expect("it can be written");
    assert!(host.join("logs/web-node/file").exists(), "R-MNT-5");
    let failed: Vec<_> = node.events("Failed").into_iter().map(|event| event.message).collect();
    let has = |text: &str| failed.iter().any(|message| message.starts_with(text));
    assert!(has("Error: failed to prepare subPath for volumeMount \"v\" of container \"app\""), "R-MNT-4: {failed:?}");
    assert!(has("Error: missing value for \"LOST\""), "R-MNT-5: {failed:?}");
    // A restarted container gets the same subPath again.
    node.fake().exit(&node.app("web").expect("it runs").id, 1);
    node.patiently("the restart", async {
        while node.app("web").is_none_or(|app| app.attempt == 0) {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await;
    assert!(mounted(&node).source.join("file").exists());
    for file in ["web.yaml", "bad.yaml", "lost.yaml"] {
        node.remove(file);
    }
    node.is_empty().await;
    assert!(host.join("logs/web-node/file").exists(), "nothing is deleted through a mount: R-GC-4");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_shared_on_the_node_is_not_shared_with_a_container() {
    let mut node = Node::new();
    let host = node.config.run_dir.join("host");
    fs::create_dir_all(&host).expect("made");
    let volume = format!("hostPath: {{path: {}}}", host.display());
    node.write("web.yaml", &with(&volume, ", mountPropagation: HostToContainer"));
    let private = rustix::mount::MountPropagationFlags::PRIVATE;
    rustix::mount::mount_bind(&host, &host).expect("mounted");
    rustix::mount::mount_change(&host, private).expect("private");
    node.start();
    node.shows("why it waits", |node| node.reason("web", "app") == "CreateContainerError").await;
    let failed = &node.events("Failed")[0].message;
    assert!(failed.ends_with("but it is not a shared or slave mount"), "R-MNT-1: {failed}");
    rustix::mount::mount_change(&host, rustix::mount::MountPropagationFlags::SHARED).expect("shared");
    node.runs(&[("web", &[("app", "app:1")])]).await;
    assert_eq!(mounted(&node).propagation, MountPropagation::HostToContainer, "R-MNT-1");
}

#[tokio::test(start_paused = true)]
async fn a_scratch_volume_is_shared_on_a_node_that_shares_nothing() {
    let mut node = Node::new();
    let state = node.config.state_dir.clone();
    fs::create_dir_all(&state).expect("made");
    rustix::mount::mount_bind(&state, &state).expect("mounted");
    rustix::mount::mount_change(&state, rustix::mount::MountPropagationFlags::PRIVATE).expect("private");
    let volumes = "volumes: [{name: disk, emptyDir: {}}, {name: memory, emptyDir: {medium: Memory}}]";
    let mounts = "    volumeMounts: [{name: disk, mountPath: /v, mountPropagation: Bidirectional}, {name: memory, mountPath: \
                  /m, mountPropagation: HostToContainer}]\n    securityContext: {privileged: true}\n";
    node.write("web.yaml", &format!("{}{mounts}", pod("web", "app:1").spec(volumes)));
    node.start();
    node.runs(&[("web", &[("app", "app:1")])]).await;
    for path in ["/v", "/m"] {
        let mounts = made(&node, "web").mounts;
        let source = &mounts.iter().find(|mount| mount.destination.as_os_str() == path).expect("mounted").source;
        let table = fs::read_to_string("/proc/self/mountinfo").expect("the kernel has it");
        let mut own = table.lines().filter(|line| line.contains(&format!(" {} ", source.display())));
        assert!(own.any(|line| line.contains(" shared:")), "R-DIR-3: {path}");
    }
    node.remove("web.yaml");
    node.is_empty().await;
}

#[tokio::test(start_paused = true)]
async fn a_claim_outlives_its_pod() {
    let mut node = Node::new();
    let claim =
        "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: data}\nspec: {accessModes: [ReadWriteOnce]}\n";
    node.write("claim.yaml", &claim);
    node.write("web.yaml", &with("persistentVolumeClaim: {claimName: data}", ""));
    node.start();
    node.runs(&[("web", &[("app", "app:1")])]).await;
    fs::write(mounted(&node).source.join("file"), "kept").expect("it can be written");
    node.remove("web.yaml");
    node.is_empty().await;
    node.write("web.yaml", &with("persistentVolumeClaim: {claimName: data, readOnly: true}", ""));
    node.runs(&[("web", &[("app", "app:1")])]).await;
    assert_eq!(read(&node, "file"), "kept");
    assert!(mounted(&node).read_only);
}

#[tokio::test(start_paused = true)]
async fn memory_is_as_large_as_the_least_of_its_limits() {
    let mut node = Node::new();
    let resources = "    resources: {limits: {memory: 48Mi}}\n";
    node.write("web.yaml", &(with("emptyDir: {medium: Memory, sizeLimit: 8Mi}", "") + resources));
    node.start();
    node.runs(&[("web", &[("app", "app:1")])]).await;
    let found = rustix::fs::statvfs(mounted(&node).source.as_path()).expect("it is mounted");
    assert_eq!(found.f_blocks * found.f_frsize, 8 << 20, "R-VOL-3");
    let mode = fs::metadata(mounted(&node).source).expect("it is there").permissions().mode() & 0o7777;
    assert_eq!(mode, 0o1777, "as recorded");
    let (source, pods) = (mounted(&node).source, node.config.state_dir.join("pods"));
    let pod = source.ancestors().find(|path| path.parent() == Some(&*pods)).expect("R-DIR-1");
    assert_eq!(fs::metadata(pod).expect("it is there").permissions().mode() & 0o777, 0o700, "R-DIR-1");
}

// R-EVI-1, R-VOL-5, R-WRK-2.
#[tokio::test(start_paused = true)]
async fn a_pod_that_fills_its_volume_is_evicted_until_it_is_told_to_begin_anew() {
    let mut node = Node::new();
    node.write("web.yaml", &with("emptyDir: {sizeLimit: 1Mi}", ""));
    node.write("other.yaml", &pod("other", "app:1"));
    node.start();
    node.runs(&[("web", &[("app", "app:1")]), ("other", &[("app", "app:1")])]).await;
    let source = mounted(&node).source;
    fs::write(source.join("file"), vec![1; 100 << 10]).expect("it can be written");
    node.settle().await;
    assert!(node.app("web").is_some(), "it may have that much");
    fs::write(source.join("file"), vec![1; 2 << 20]).expect("it can be written");
    node.shows("the eviction", |node| node.status("web").reason.as_deref() == Some("Evicted")).await;
    let status = node.status("web");
    let message = "Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". ";
    assert_eq!((status.phase.as_deref(), status.message.as_deref()), (Some("Failed"), Some(message)), "R-GAP-16");
    node.patiently("the end", async {
        while node.app("web").is_some() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await;
    node.restart().await;
    node.settle().await;
    assert!(node.app("web").is_none(), "also for an agent that did not see it");
    assert!(node.app("other").is_some(), "the other runs on");
    node.shows("the eviction", |node| node.status("web").reason.as_deref() == Some("Evicted")).await;
    node.handle().request(Request::Restart { pod: key("web"), container: None }).await;
    node.runs(&[("web", &[("app", "app:1")]), ("other", &[("app", "app:1")])]).await;
    assert!(!mounted(&node).source.join("file").exists(), "with empty volumes");
    node.shows("no reason any more", |node| node.status("web").reason.is_none()).await;
    assert_eq!(node.status("web").message, None, "R-PH-7");
}

#[tokio::test(start_paused = true)]
async fn mounts_come_parents_first() {
    let mut node = Node::new();
    let spec = "
containers:
- {name: app, image: app:1, volumeMounts: [{name: v, mountPath: /a/b/c}, {name: v, mountPath: /a/b}, {name: v, mountPath: /a}]}
volumes: [{name: v, emptyDir: {}}]
";
    node.write("web.yaml", &crate::manifest::raw("web", spec));
    node.start();
    node.runs(&[("web", &[("app", "app:1")])]).await;
    let mounts = made(&node, "web").mounts.into_iter().map(|mount| mount.destination);
    let ours: Vec<_> = mounts.filter(|path| path.starts_with("/a")).collect();
    assert_eq!(ours, ["/a", "/a/b", "/a/b/c"].map(PathBuf::from), "R-MNT-2");
    let uid = node.pod("web").and_then(|view| view.pod.metadata.uid.clone()).expect("it has one");
    let log = node.config.log_dir.join(format!("default_web-node_{uid}/app/0.log"));
    assert_eq!(made(&node, "web").log_path, log, "R-LOG-1");
}
