use std::time::Duration;

use tokio::{io::AsyncWriteExt as _, net::TcpListener};

use super::{Role, Standby};
use crate::config::Kubelet;

/// Answers one poll.
async fn answer(listener: &TcpListener) {
    let (mut stream, _) = listener.accept().await.expect("a question");
    stream.write_all(b"HTTP/1.1 500 Internal Server Error\r\n\r\n").await.expect("answered");
}

#[tokio::test]
async fn a_kubelet_is_heard_and_missed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("it has an address");
    let absent_for = Duration::from_millis(50);
    let mut standby = Standby::new(Kubelet { address, absent_for, runtime_state: Vec::new(), lock_file: None });
    assert!(matches!(standby.role(), Role::Undecided(_)));
    let (changed, ()) = tokio::join!(standby.poll(), answer(&listener));
    assert!(changed && matches!(standby.role(), Role::StandBy(_)), "unhealthy, and there");
    drop(listener);
    assert!(standby.poll().await && matches!(standby.role(), Role::StandBy(_)), "it may be restarting");
    let patient = standby.period();
    tokio::time::sleep(absent_for).await;
    assert_eq!(standby.role(), Role::Ours);
    assert!(standby.period() < patient, "when it comes back it must be noticed soon");
    let listener = TcpListener::bind(address).await.expect("the port again");
    let (changed, ()) = tokio::join!(standby.poll(), answer(&listener));
    assert!(changed && matches!(standby.role(), Role::StandBy(_)), "it is back");
}

#[tokio::test]
async fn a_container_that_appears_is_news_while_the_pods_are_ours() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("it has an address");
    drop(listener);
    let state = tempfile::tempdir().expect("a directory");
    let bundles = state.path().join("io.containerd.runtime.v2.task/k8s.io");
    std::fs::create_dir_all(&bundles).expect("made");
    let (absent_for, runtime_state) = (Duration::ZERO, vec![state.path().to_owned()]);
    let mut standby = Standby::new(Kubelet { address, absent_for, runtime_state, lock_file: None });
    assert!(standby.poll().await && standby.role() == Role::Ours);
    assert!(!standby.poll().await, "nothing happened");
    std::fs::create_dir(bundles.join("new")).expect("made");
    assert!(standby.poll().await, "the kubelet may have started one of the pods");
    assert!(!standby.poll().await, "once");
}

#[tokio::test]
async fn its_lock_is_held_while_its_pods_are_run_here() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("it has an address");
    drop(listener);
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("kubelet.lock");
    let kubelets = std::fs::File::create(&path).expect("made");
    kubelets.lock().expect("locked");
    let kubelet =
        Kubelet { address, absent_for: Duration::ZERO, runtime_state: Vec::new(), lock_file: Some(path.clone()) };
    let mut standby = Standby::new(kubelet);
    standby.poll().await;
    assert!(matches!(standby.role(), Role::StandBy(reason) if reason.contains("holds its lock")), "it is starting");
    kubelets.unlock().expect("unlocked");
    assert!(standby.poll().await && standby.role() == Role::Ours && !standby.is_to_be_released());
    let waiting = std::thread::spawn(move || kubelets.lock().map(|()| kubelets));
    for _ in 0..1000 {
        if standby.poll().await {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(matches!(standby.role(), Role::StandBy(reason) if reason.contains("waits for its lock")));
    assert!(standby.is_to_be_released());
    standby.release();
    let _held = waiting.join().expect("it ends").expect("it has it");
    assert!(!standby.is_to_be_released() && matches!(standby.role(), Role::StandBy(_)), "it starts now");
    standby.poll().await;
    assert!(matches!(standby.role(), Role::StandBy(_)), "silent, but it has the lock");
}

#[tokio::test]
async fn without_a_kubelet_nothing_is_decided_before_its_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("it has an address");
    drop(listener);
    let absent_for = Duration::from_millis(50);
    let mut standby = Standby::new(Kubelet { address, absent_for, runtime_state: Vec::new(), lock_file: None });
    standby.poll().await;
    assert!(matches!(standby.role(), Role::Undecided(_)), "what this agent's predecessor ran runs on");
    tokio::time::sleep(absent_for).await;
    assert_eq!(standby.role(), Role::Ours);
}
