use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use serde_json::json;

use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000_000 + seconds).expect("in range")
}

fn view(status: serde_json::Value) -> PodView {
    let pod = json!({
        "metadata": {
            "name": "web-node", "namespace": "default", "uid": "0123", "labels": {"app": "web"},
            "annotations": {"token": "hush"},
        },
        "spec": {
            "containers": [{
                "name": "app", "image": "app:1", "args": ["--password=hush"],
                "env": [{"name": "PASSWORD", "value": "hush"}],
            }],
            "volumes": [{"name": "v", "hostPath": {"path": "/hush"}}],
        },
        "status": status,
    });
    let pod = serde_json::from_value(pod).expect("a pod");
    PodView { pod, backend: "containerd".to_owned(), manifest: "/web.yaml".to_owned(), containers: Vec::new() }
}

fn ended_with(codes: &[i32]) -> serde_json::Value {
    let statuses: Vec<_> = codes
        .iter()
        .map(|code| {
            json!({
                "name": "app", "image": "app:1", "imageID": "", "ready": true, "restartCount": 0,
                "state": {"terminated": {"exitCode": code, "message": "out of memory"}},
            })
        })
        .collect();
    json!({ "phase": "Running", "containerStatuses": statuses })
}

fn store(most: usize) -> (tempfile::TempDir, Removed) {
    let dir = tempfile::tempdir().expect("a directory");
    let removed = Removed::new(dir.path(), Remembered { most, age: Duration::from_secs(100) });
    (dir, removed)
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory.join("removed")).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn status(of: serde_json::Value) -> wire::PodStatus {
    remembered(&view(of), at(0)).pod.status.expect("it has one")
}

// R-TERM-7.
#[test]
fn a_pod_that_was_not_over_ends_as_its_containers_did() {
    let phase = |of| {
        let status = status(of);
        (status.phase.unwrap_or_default(), status.reason.unwrap_or_default())
    };
    let because = |phase: &str| (phase.to_owned(), REASON.to_owned());
    assert_eq!(phase(ended_with(&[0])), because("Succeeded"), "R-TERM-7");
    assert_eq!(phase(ended_with(&[143])), because("Failed"), "R-TERM-7");
    assert_eq!(phase(json!({ "phase": "Pending" })), because("Failed"), "it never ran");
    let evicted = json!({ "phase": "Failed", "reason": "Evicted", "message": "too much" });
    assert_eq!(phase(evicted), ("Failed".to_owned(), "Evicted".to_owned()), "what is over stays so");
    let waiting = json!({ "phase": "Running", "containerStatuses": [{
        "name": "app", "image": "app:1", "imageID": "", "ready": false, "restartCount": 3,
        "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {"exitCode": 7}},
    }] });
    let container = status(waiting).container_statuses.expect("it has one").remove(0);
    let code = container.state.and_then(|state| Some(state.terminated?.exit_code));
    assert_eq!((code, container.restart_count), (Some(7), 3), "R-TERM-7: how it ended, not what it waited for");
}

// R-TERM-7.
#[test]
fn what_a_manifest_gave_its_containers_is_not_kept() {
    let (dir, removed) = store(10);
    removed.keep(&remembered(&view(ended_with(&[3])), at(0)), at(0).into()).expect("it can be kept");
    let path = dir.path().join("removed").join(names(dir.path()).remove(0));
    let text = fs::read_to_string(&path).expect("it is there");
    assert!(!text.contains("hush"), "I10: {text}");
    assert!(text.contains("out of memory") && text.contains("app:1"), "R-TERM-7: {text}");
    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(&dir.path().join("removed"))), (0o600, 0o700), "for root only");
    let kept = removed.list(at(1).into()).remove(0);
    assert_eq!((kept.removed_at, kept.manifest.as_str()), (at(0), "/web.yaml"));
}

// R-TERM-7.
#[test]
fn few_are_kept_and_not_for_ever() {
    let (dir, removed) = store(3);
    for second in 0..5 {
        removed.keep(&remembered(&view(ended_with(&[0])), at(second)), at(second).into()).expect("it can be kept");
    }
    let times = |now: Timestamp| removed.list(Stamp::from(now)).into_iter().map(|it| it.removed_at).collect::<Vec<_>>();
    assert_eq!(times(at(5)), [at(4), at(3), at(2)], "the latest first");
    assert_eq!(names(dir.path()).len(), 3);
    assert_eq!(times(at(103)), [at(4), at(3)]);
    removed.forget(at(200).into()).expect("they can be removed");
    assert!(names(dir.path()).is_empty());
    let (dir, none) = store(0);
    none.keep(&remembered(&view(ended_with(&[0])), at(0)), at(0).into()).expect("nothing is to be done");
    assert!(names(dir.path()).is_empty());
}

// R-TERM-7.
#[test]
fn what_a_power_cut_left_hinders_nothing() {
    let (dir, removed) = store(3);
    removed.keep(&remembered(&view(ended_with(&[0])), at(0)), at(0).into()).expect("it can be kept");
    let place = dir.path().join("removed");
    let half = place.join(format!("{:016}-4567.json", at(1).as_millisecond()));
    fs::write(&half, "{\"pod\":").expect("it can be written");
    for name in [".tmpAbC", "x.json", "-.json"] {
        fs::write(place.join(name), "").expect("it can be written");
    }
    assert_eq!(removed.list(at(2).into()).len(), 1);
    removed.forget(at(2).into()).expect("leftovers can be removed");
    assert_eq!(names(dir.path()).len(), 2, "what is dated goes with its time");
    removed.keep(&remembered(&view(ended_with(&[0])), at(3)), at(3).into()).expect("it can be kept");
    assert_eq!(removed.list(at(3).into()).len(), 2);
}
