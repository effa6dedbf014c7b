//! A source that belongs to a kubelet: its static pods are run here only while it is away.

use std::{
    fs,
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, timeout},
};

use super::kubelets;
use crate::config::Kubelet;

/// How often the kubelet is asked whether it is there.
const PERIOD: Duration = Duration::from_secs(2);
/// The same while its pods are run here: one that comes back starts them at once.
const EAGER: Duration = Duration::from_millis(200);
/// How long it may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Who runs the pods of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// We do.
    Ours,
    /// The kubelet does.
    StandBy(String),
    /// Nobody knows yet: what runs of them here runs on, nothing is started.
    Undecided(String),
}

/// Follows one kubelet.
#[derive(Debug)]
pub(super) struct Standby {
    kubelet: Kubelet,
    /// Since when it has not answered, as far as was asked.
    silent: Option<Instant>,
    /// Whether it was heard since this agent started.
    heard: bool,
    asked: bool,
    /// When a container was last added to or taken from where containerds note what runs, in each of these places.
    noted: Vec<Option<SystemTime>>,
}

impl Standby {
    pub fn new(kubelet: Kubelet) -> Self {
        Self { kubelet, silent: None, heard: false, asked: false, noted: Vec::new() }
    }

    pub fn kubelet(&self) -> &Kubelet {
        &self.kubelet
    }

    /// How soon it is to be asked again.
    pub fn period(&self) -> Duration {
        if self.role() == Role::Ours { EAGER } else { PERIOD }
    }

    /// Asks it. Whether the role has changed, or what runs of the kubelet's may have.
    pub async fn ask(&mut self) -> bool {
        let before = self.role();
        let noted = kubelets::bundles(&self.kubelet.runtime_state);
        let noted = noted.map(|bundles| fs::metadata(bundles).and_then(|it| it.modified()).ok()).collect();
        let is_news = self.asked && self.noted != noted;
        self.noted = noted;
        self.asked = true;
        match timeout(PATIENCE, answers(self.kubelet.address)).await {
            Ok(true) => {
                self.heard = true;
                self.silent = None;
            }
            Ok(false) | Err(_) => drop(self.silent.get_or_insert_with(Instant::now)),
        }
        before != self.role() || (is_news && before == Role::Ours)
    }

    /// Who runs the pods now.
    pub fn role(&self) -> Role {
        let (address, seconds) = (self.kubelet.address, self.kubelet.absent_for.as_secs());
        match self.silent {
            Some(since) if since.elapsed() >= self.kubelet.absent_for => Role::Ours,
            // An agent that was restarted while it ran the pods goes on running them.
            _ if !self.heard => Role::Undecided(match self.asked {
                true => {
                    format!("no kubelet answers at {address}; after {seconds} s without it the pods are taken over")
                }
                false => format!("it is asked whether a kubelet answers at {address}"),
            }),
            Some(_) => Role::StandBy(format!(
                "the kubelet at {address} has stopped answering; after {seconds} s without it the pods are taken over"
            )),
            None => Role::StandBy(format!("a kubelet answers at {address}: these pods are its own")),
        }
    }
}

/// Whether something speaks HTTP there: also a kubelet that calls itself unhealthy runs its pods.
async fn answers(address: SocketAddr) -> bool {
    let asked = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET /healthz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut begin = [0; 5];
        stream.read_exact(&mut begin).await?;
        Ok::<_, std::io::Error>(&begin == b"HTTP/")
    };
    asked.await.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{io::AsyncWriteExt as _, net::TcpListener};

    use super::{Role, Standby};
    use crate::config::Kubelet;

    /// Answers one question.
    async fn answer(listener: &TcpListener) {
        let (mut stream, _) = listener.accept().await.expect("a question");
        stream.write_all(b"HTTP/1.1 500 Internal Server Error\r\n\r\n").await.expect("answered");
    }

    #[tokio::test]
    async fn a_kubelet_is_heard_and_missed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it has an address");
        let absent_for = Duration::from_millis(50);
        let mut standby = Standby::new(Kubelet { address, absent_for, runtime_state: Vec::new() });
        assert!(matches!(standby.role(), Role::Undecided(_)));
        let (changed, ()) = tokio::join!(standby.ask(), answer(&listener));
        assert!(changed && matches!(standby.role(), Role::StandBy(_)), "unhealthy, and there");
        drop(listener);
        assert!(standby.ask().await && matches!(standby.role(), Role::StandBy(_)), "it may be restarting");
        let patient = standby.period();
        tokio::time::sleep(absent_for).await;
        assert_eq!(standby.role(), Role::Ours);
        assert!(standby.period() < patient, "when it comes back it must be noticed soon");
        let listener = TcpListener::bind(address).await.expect("the port again");
        let (changed, ()) = tokio::join!(standby.ask(), answer(&listener));
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
        let mut standby = Standby::new(Kubelet { address, absent_for, runtime_state });
        assert!(standby.ask().await && standby.role() == Role::Ours);
        assert!(!standby.ask().await, "nothing happened");
        std::fs::create_dir(bundles.join("new")).expect("made");
        assert!(standby.ask().await, "the kubelet may have started one of the pods");
        assert!(!standby.ask().await, "once");
    }

    #[tokio::test]
    async fn without_a_kubelet_nothing_is_decided_before_its_time() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it has an address");
        drop(listener);
        let absent_for = Duration::from_millis(50);
        let mut standby = Standby::new(Kubelet { address, absent_for, runtime_state: Vec::new() });
        standby.ask().await;
        assert!(matches!(standby.role(), Role::Undecided(_)), "what this agent's predecessor ran runs on");
        tokio::time::sleep(absent_for).await;
        assert_eq!(standby.role(), Role::Ours);
    }
}
