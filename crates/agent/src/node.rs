//! Where pods can live on this node, and what the node has.

use std::{
    net::{IpAddr, UdpSocket},
    sync::Arc,
};

use stanchion_pod::Capacity;
use stanchion_untrusted::read_kernel;
use tokio::sync::Semaphore;

use crate::{backends::Backend, config::Failover, images::Images, observe::Observer};

/// One place for pods: a backend, its latest look and its images.
#[derive(Debug)]
pub(crate) struct Home<R> {
    pub backend: Backend<R>,
    pub observer: Observer,
    pub images: Arc<Images>,
    /// Bounds how many pods make sandboxes and containers there at once.
    pub permits: Semaphore,
}

impl<R> Home<R> {
    /// What is to become of its pods while it is away: as configured, else as the backend says.
    pub fn failover(&self) -> Option<Failover> {
        let said = || self.observer.latest().health.failover.clone();
        self.backend.failover.or_else(|| Some(Failover { on_return: said()?.on_return, ..Failover::default() }))
    }
}

/// What the node has for pods, but for the disk, which can grow.
pub(crate) fn capacity() -> Capacity {
    Capacity { cpu: cores() * 1000, memory: memory(), ephemeral_storage: 0 }
}

/// Memory of the node in bytes, from `/proc/meminfo`; 0 where that cannot be read.
fn memory() -> u64 {
    let meminfo = read_kernel("/proc/meminfo").unwrap_or_default();
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Processors that are online, whoever may use them (cputopology.rst); at least one.
fn cores() -> u64 {
    let list = read_kernel("/sys/devices/system/cpu/online").unwrap_or_default();
    let count = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(last.parse::<u64>().ok()?.checked_sub(first.parse().ok()?)? + 1)
    };
    list.trim().split(',').filter_map(count).sum::<u64>().max(1)
}

/// The node's addresses, the one it reaches the world from first. Empty on a node with no route.
pub(crate) fn addresses() -> Vec<IpAddr> {
    // Connecting a UDP socket sends nothing; it makes the kernel choose the source address of a route.
    let route = |any: &str, target: &str| {
        let socket = UdpSocket::bind(any)?;
        socket.connect(target)?;
        socket.local_addr()
    };
    let tried = [route("0.0.0.0:0", "192.0.2.1:9"), route("[::]:0", "[2001:db8::1]:9")];
    tried.into_iter().flatten().map(|address| address.ip()).collect()
}
