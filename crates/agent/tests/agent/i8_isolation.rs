//! I8: a backend that hangs or panics delays only its own pods.

use std::{fs, time::Duration};

use stanchion_agent::handle::Request;
use stanchion_runtime::{
    ErrorKind,
    testing::{Fault, Hold, Method, When},
};
use tokio::time::{Instant, sleep};

use crate::{
    manifest::{pod, raw},
    node::{Node, key},
};

fn on_second(name: &str, image: &str) -> crate::manifest::Manifest {
    pod(name, image).spec("runtimeClassName: second")
}

// R-LOOP-1.
#[tokio::test(start_paused = true)]
async fn a_backend_that_hangs_on_everything_delays_only_its_own_pods() {
    for hangs_from_start in [true, false] {
        let mut node = Node::with_runtimes(&["first", "second"]);
        let hold = Hold::new();
        let second = node.fakes[1].1.clone();
        node.write("theirs.yaml", &on_second("theirs", "app:1"));
        if !hangs_from_start {
            node.start();
            node.runs(&[("theirs", &[("app", "app:1")])]).await;
        }
        Method::ALL.into_iter().for_each(|method| second.fault(method, When::Always, Fault::Hang(hold.clone())));
        if hangs_from_start {
            node.start();
        }
        // More pods than the backend has permits for calls.
        for index in 0..12 {
            node.write(&format!("theirs{index}.yaml"), &on_second(&format!("theirs{index}"), "app:1"));
        }
        node.write("ours.yaml", &pod("ours", "app:1"));
        let ours =
            |image: &'static str| move |node: &Node| node.app("ours").is_some_and(|app| app.image.ends_with(image));
        node.shows("ours to run", ours(":1")).await;
        let app = node.app("ours").expect("it runs");
        node.fake().exit(&app.id, 1);
        node.shows("ours to run again", |node| node.app("ours").is_some_and(|app| app.attempt == 1)).await;
        node.write("ours.yaml", &pod("ours", "app:2"));
        node.shows("ours to run anew", ours(":2")).await;
        node.remove("ours.yaml");
        node.patiently("ours to be gone", node.fake().until(|now| now.sandboxes.is_empty())).await;
        second.heal_all();
        hold.release();
        node.shows("theirs", |node| node.status("theirs11").phase.as_deref() == Some("Running")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_hangs_in_its_calls_takes_no_others_permits() {
    let mut node = Node::with_runtimes(&["first", "second"]);
    let hold = Hold::new();
    let second = node.fakes[1].1.clone();
    for method in [Method::CreateSandbox, Method::CreateContainer, Method::StopContainer] {
        second.fault(method, When::Always, Fault::Hang(hold.clone()));
    }
    node.start();
    for index in 0..40 {
        node.write(&format!("theirs{index}.yaml"), &on_second(&format!("theirs{index}"), "app:1"));
    }
    node.patiently("a call that hangs", hold.reached()).await;
    node.settle().await;
    node.write("ours.yaml", &pod("ours", "app:1"));
    node.shows("ours to run", |node| node.app("ours").is_some()).await;
    hold.release();
    node.shows("theirs", |node| node.status("theirs39").phase.as_deref() == Some("Running")).await;
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_panics_in_everything_delays_only_its_own_pods() {
    let mut node = Node::with_runtimes(&["first", "second"]);
    let second = node.fakes[1].1.clone();
    for method in Method::ALL {
        second.fault(method, When::Always, Fault::fail(ErrorKind::Crashed));
    }
    node.write("theirs.yaml", &on_second("theirs", "app:1"));
    node.write("ours.yaml", &pod("ours", "app:1"));
    node.start();
    node.runs(&[("ours", &[("app", "app:1")])]).await;
    node.shows("theirs to wait", |node| node.reason("theirs", "app") == "BackendUnavailable").await;
    second.heal_all();
    node.runs(&[("ours", &[("app", "app:1")]), ("theirs", &[("app", "app:1")])]).await;
    assert_eq!(node.app("ours").map(|app| app.attempt), Some(0));
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_stopped_answering_holds_up_the_removal_of_its_own_pods_only() {
    let mut node = Node::with_runtimes(&["first", "second"]);
    node.write("theirs.yaml", &on_second("theirs", "app:1"));
    node.write("ours.yaml", &pod("ours", "app:1"));
    node.start();
    node.runs(&[("ours", &[("app", "app:1")]), ("theirs", &[("app", "app:1")])]).await;
    let second = node.fakes[1].1.clone();
    Method::ALL.into_iter().for_each(|it| second.fault(it, When::Always, Fault::fail(ErrorKind::Timeout)));
    node.write("late.yaml", &on_second("late", "app:1"));
    node.settle().await;
    for file in ["theirs.yaml", "ours.yaml", "late.yaml"] {
        node.remove(file);
    }
    node.shows("ours gone", |node| node.pod("ours").is_none()).await;
    node.settle().await;
    assert!(node.pod("theirs").is_some(), "I7: it runs where it cannot be seen");
    assert!(node.pod("late").is_some(), "I7: it may have been made");
    second.heal_all();
    node.is_empty().await;
}

#[tokio::test(start_paused = true)]
async fn wishes_for_a_pod_that_is_slow_to_stop_delay_no_other_pod() {
    for container in [None, Some("app".to_owned())] {
        let mut node = Node::new();
        let stubborn = "terminationGracePeriodSeconds: 40\ncontainers:\n- {name: app, image: 'app:1', command: [sh, -c, \"trap '' \
                        TERM; sleep 100000\"]}";
        node.write("slow.yaml", &raw("slow", stubborn));
        node.start();
        node.runs(&[("slow", &[("app", "app:1")])]).await;
        let (begun, first) = (Instant::now(), node.app("slow").expect("it runs"));
        for _ in 0..200 {
            node.handle().request(Request::Restart { pod: key("slow"), container: container.clone() }).await;
        }
        node.write("other.yaml", &pod("other", "app:1"));
        node.shows("the other to run", |node| node.app("other").is_some()).await;
        assert!(begun.elapsed() < Duration::from_secs(30), "I8: {:?}", begun.elapsed());
        assert_eq!(node.app("slow").map(|app| app.id), Some(first.id.clone()), "it has not ended yet");
        let is_new = |node: &Node| node.app("slow").is_some_and(|app| app.id != first.id);
        node.shows("the slow one to be restarted", is_new).await;
        let second = node.app("slow").expect("it runs");
        node.settle().await;
        assert_eq!(
            node.app("slow").map(|app| app.id),
            Some(second.id),
            "one restart for all that was asked for meanwhile"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_hangs_in_an_import_delays_no_other_backends_import() {
    let mut node = Node::with_runtimes(&["first", "second"]);
    let hold = node.fakes[0].1.hang(Method::ImportImages, When::Always);
    let directory = node.manifests().with_file_name("preload");
    fs::create_dir(&directory).expect("a directory");
    node.config.preload = Some(directory.clone());
    node.start();
    for name in ["one.tar", "two.tar"] {
        fs::write(directory.join(name), "an archive").expect("an archive");
        let (second, before) = (node.fakes[1].1.clone(), node.fakes[1].1.count(Method::ImportImages));
        let imported = async {
            while second.count(Method::ImportImages) == before {
                sleep(Duration::from_millis(100)).await;
            }
        };
        node.patiently("the second backend to import", imported).await;
    }
    assert!(hold.is_reached(), "the first was asked too");
    hold.release();
}

#[tokio::test(start_paused = true)]
async fn a_look_that_hung_for_an_hour_is_followed_by_the_next_one_soon() {
    let mut node = Node::new();
    node.write("ours.yaml", &pod("ours", "app:1"));
    node.start();
    node.runs(&[("ours", &[("app", "app:1")])]).await;
    let hold = node.fake().hang(Method::List, When::Nth(1));
    sleep(Duration::from_secs(3600)).await;
    hold.release();
    node.settle().await;
    let lists = node.fake().count(Method::List);
    sleep(Duration::from_secs(60)).await;
    assert!(node.fake().count(Method::List) > lists, "R-LOOP-1: the backend answers again");
}
