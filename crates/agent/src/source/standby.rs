//! A source that belongs to a kubelet: its static pods run here only while the kubelet is away.

#[cfg(test)]
mod tests;

use std::{
    fs,
    net::SocketAddr,
    time::Instant,
    time::{Duration, SystemTime},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::{kubelets, lock::Lock};
use crate::{clock::elapsed, config::Kubelet};

/// Period of polling the kubelet.
const PERIOD: Duration = Duration::from_secs(2);
/// The period while its pods run here or its lock is held: a kubelet that comes back starts the pods at once.
const SHORT_PERIOD: Duration = Duration::from_millis(200);
/// Time that the kubelet has to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Decision on who runs the pods of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// This agent runs them.
    Ours,
    /// The kubelet runs them, or may: the pods do not run here, for this reason.
    StandBy(String),
    /// It is not known yet, for this reason: pods that run here run on, and none is started.
    Undecided(String),
}

/// Presence of one kubelet, found by polling.
#[derive(Debug)]
pub(super) struct Standby {
    kubelet: Kubelet,
    /// Time of the first poll without an answer since the last answer.
    silent: Option<Instant>,
    /// `true` once the kubelet has answered this agent, or got its lock back from it.
    has_answered: bool,
    asked: bool,
    /// Modification times of the directories in which containerds keep running containers: they change with each
    /// container that comes or goes.
    modified: Vec<Option<SystemTime>>,
    /// Lock file of the kubelet, if it has one: it keeps the pods from running twice.
    lock: Option<Lock>,
}

impl Standby {
    pub fn new(kubelet: Kubelet) -> Self {
        let lock = kubelet.lock_file.clone().map(Lock::new);
        Self { kubelet, silent: None, has_answered: false, asked: false, modified: Vec::new(), lock }
    }

    pub fn kubelet(&self) -> &Kubelet {
        &self.kubelet
    }

    /// Returns the time until the next poll.
    pub fn period(&self) -> Duration {
        if self.role() == Role::Ours || self.lock.as_ref().is_some_and(Lock::is_held) { SHORT_PERIOD } else { PERIOD }
    }

    /// Polls the kubelet. Returns whether the role has changed or, while the pods run here, the kubelet's containers
    /// may have.
    pub async fn poll(&mut self) -> bool {
        let before = self.role();
        let modified = kubelets::bundles(&self.kubelet.runtime_state);
        let modified = modified.map(|bundles| fs::metadata(bundles).and_then(|it| it.modified()).ok()).collect();
        let has_changed = self.asked && self.modified != modified;
        self.modified = modified;
        self.asked = true;
        match timeout(ANSWER_TIMEOUT, answers(self.kubelet.address)).await {
            Ok(true) => {
                self.has_answered = true;
                self.silent = None;
            }
            Ok(false) | Err(_) => drop(self.silent.get_or_insert_with(crate::clock::instant)),
        }
        self.claim();
        before != self.role() || (has_changed && before == Role::Ours)
    }

    /// Acquires the lock before the kubelet's pods run here. When this agent has just started, pods of its predecessor
    /// may run already.
    fn claim(&mut self) {
        let is_wanted = self.is_away() || (self.silent.is_some() && !self.has_answered);
        if let Some(lock) = &mut self.lock {
            lock.check();
            if is_wanted {
                lock.acquire();
            }
        }
    }

    /// Returns whether the kubelet has not answered for `absent_for`.
    fn is_away(&self) -> bool {
        self.silent.is_some_and(|since| elapsed(since) >= self.kubelet.absent_for)
    }

    /// Returns whether the kubelet is back while this agent still holds its lock.
    pub fn is_to_be_released(&self) -> bool {
        self.lock.as_ref().is_some_and(Lock::is_held) && matches!(self.role(), Role::StandBy(_))
    }

    /// Releases the lock to the kubelet, once none of its pods is left here. The kubelet then counts as present: it
    /// answers when it is up.
    pub fn release(&mut self) {
        if let Some(lock) = &mut self.lock {
            tracing::info!(lock = %lock.path().display(), "the pods of a kubelet are handed back to it");
            lock.release();
        }
        self.has_answered = true;
        self.silent = None;
    }

    /// Returns who runs the pods now.
    pub fn role(&self) -> Role {
        match &self.lock {
            Some(lock) if lock.is_awaited() => Role::StandBy(format!(
                "a kubelet waits for its lock {}, which it gets when nothing of its pods is left here",
                lock.path().display()
            )),
            Some(lock) if lock.is_anothers() => {
                Role::StandBy(format!("a kubelet holds its lock {}: these pods are its own", lock.path().display()))
            }
            Some(lock) if self.is_away() && !lock.is_held() => Role::StandBy(format!(
                "its kubelet is away, but its lock {} cannot be had: {}",
                lock.path().display(),
                lock.error().unwrap_or("somebody has just taken it")
            )),
            _ => self.role_by_answers(),
        }
    }

    /// Returns who runs the pods by the kubelet's answers alone.
    fn role_by_answers(&self) -> Role {
        let (address, seconds) = (self.kubelet.address, self.kubelet.absent_for.as_secs());
        match self.silent {
            Some(_) if self.is_away() => Role::Ours,
            // An agent that was restarted while it ran the pods goes on running them.
            _ if !self.has_answered => Role::Undecided(match self.asked {
                true => {
                    format!("no kubelet answers at {address}; after {seconds} s without it the pods are taken over")
                }
                false => format!("checking whether a kubelet answers at {address}"),
            }),
            Some(_) => Role::StandBy(format!(
                "the kubelet at {address} has stopped answering; after {seconds} s without it the pods are taken over"
            )),
            None => Role::StandBy(format!("a kubelet answers at {address}: these pods are its own")),
        }
    }
}

/// Returns whether an HTTP server answers at an address: a kubelet that calls itself unhealthy runs its pods, too.
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
