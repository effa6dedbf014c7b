//! Repairs the network when the kernel reports a change, so that nothing has to poll.

use std::{future::Future, io, time::Duration};

use futures_util::{FutureExt as _, future::pending};
use netlink_sys::{
    AsyncSocket as _, AsyncSocketExt as _, SocketAddr, TokioSocket,
    protocols::{NETLINK_NETFILTER, NETLINK_ROUTE},
};

/// Groups of `NETLINK_NETFILTER` and `NETLINK_ROUTE`: rules; links and addresses (nfnetlink.h, rtnetlink.h).
const NFNLGRP_NFTABLES: u32 = 7;
const RTNLGRP_LINK: u32 = 1;
const RTNLGRP_IPV4_IFADDR: u32 = 5;

/// Time for which changes are gathered: a firewall that starts makes many, and each pod some.
const GATHER_TIME: Duration = Duration::from_secs(1);

/// Calls `on_change` after each change, until it is dropped. If the kernel reports no changes, only full lists check
/// the network.
pub async fn watch<F: Future<Output = ()>>(on_change: impl Fn() -> F) {
    let opened = open(NETLINK_NETFILTER, &[NFNLGRP_NFTABLES])
        .and_then(|rules| Ok((rules, open(NETLINK_ROUTE, &[RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR])?)));
    let (mut rules, mut links) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            tracing::warn!(%error, "the kernel does not say when rules and links change: they are looked at now and then");
            return pending().await;
        }
    };
    loop {
        let heard = tokio::select! {
            // *Cancel-safe:* messages that were not read stay in the socket.
            heard = rules.recv_from_full() => heard,
            heard = links.recv_from_full() => heard,
        };
        if let Err(error) = heard.map(drop).or_else(ignore_overflow) {
            tracing::warn!(%error, "the kernel says no longer when rules and links change: they are looked at now and then");
            return pending().await;
        }
        tokio::time::sleep(GATHER_TIME).await;
        // Drained before the call, so that a change during it leads to another call.
        drain(&mut rules);
        drain(&mut links);
        on_change().await;
    }
}

fn open(protocol: isize, groups: &[u32]) -> io::Result<TokioSocket> {
    let mut socket = TokioSocket::new(protocol)?;
    socket.socket_mut().bind(&SocketAddr::new(0, 0))?;
    for group in groups {
        socket.socket_mut().add_membership(*group)?;
    }
    Ok(socket)
}

/// Reads and discards all messages that have arrived: only their arrival counts.
fn drain(socket: &mut TokioSocket) {
    while let Some(Ok(())) =
        socket.recv_from_full().now_or_never().map(|heard| heard.map(drop).or_else(ignore_overflow))
    {}
}

/// Ignores the error of a socket that has lost messages: it reports a change too, and the next read goes on after it.
fn ignore_overflow(error: io::Error) -> io::Result<()> {
    if error.raw_os_error() == Some(nix::errno::Errno::ENOBUFS as i32) { Ok(()) } else { Err(error) }
}
