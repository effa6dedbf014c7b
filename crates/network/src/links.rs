//! Changes links, addresses and routes, by netlink.

use std::{
    io,
    net::Ipv4Addr,
    os::fd::{AsRawFd, BorrowedFd},
};

use futures_util::StreamExt;
use nix::errno::Errno;
use rtnetlink::{
    Handle, LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
    packet_route::link::{InfoData, InfoKind, InfoVeth},
};
use thiserror::Error;

use super::{netfilter::HardwareAddress, parameters};

/// Request that the kernel refused.
#[derive(Debug, Error)]
#[error("{tried}")]
struct Refused {
    tried: String,
    source: io::Error,
}

/// Links of one network namespace.
pub(super) struct Links {
    netlink: Handle,
}

/// Runs `act` on the links of the calling thread's network namespace. Blocks, so it must not run on a thread that
/// drives tasks.
pub(super) fn links<T>(act: impl AsyncFnOnce(&Links) -> io::Result<T>) -> io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        // The socket belongs to the namespace of the thread that makes it, so it is made here and not kept.
        let (connection, netlink, _) = rtnetlink::new_connection()?;
        let links = Links { netlink };
        tokio::select! {
            done = act(&links) => done,
            () = connection => Err(io::Error::other("the kernel closed the netlink socket")),
        }
    })
}

impl Links {
    /// Returns the index of a link, if there is one of that name.
    pub async fn find(&self, name: &str) -> io::Result<Option<u32>> {
        let mut found = self.netlink.link().get().match_name(name.to_owned()).execute();
        match found.next().await {
            Some(Ok(link)) => Ok(Some(link.header.index)),
            None => Ok(None),
            Some(Err(error)) => match cause(error) {
                error if is(&error, Errno::ENODEV) => Ok(None),
                source => Err(refused(format!("looking for link {name}"), source)),
            },
        }
    }

    async fn index(&self, name: &str) -> io::Result<u32> {
        self.find(name).await?.ok_or_else(|| io::Error::other(format!("there is no link {name}")))
    }

    /// Makes a bridge with an address and without IPv6, and brings it up, or finds it made.
    pub async fn bridge(&self, name: &str, address: Ipv4Addr, length: u8) -> io::Result<()> {
        if self.find(name).await?.is_none() {
            let added = self.netlink.link().add(LinkBridge::new(name).build()).execute().await;
            added.map_err(|error| refused(format!("adding bridge {name}"), cause(error)))?;
        }
        parameters::refuse_ipv6(name).map_err(|error| refused(format!("turning IPv6 off on bridge {name}"), error))?;
        let index = self.index(name).await?;
        let added = self.netlink.address().add(index, address.into(), length).replace().execute().await;
        added.map_err(|error| refused(format!("giving bridge {name} the address {address}/{length}"), cause(error)))?;
        self.bring_up(name).await
    }

    /// Makes a veth pair: `name` as a port of `bridge`, and `peer` with a hardware address in another namespace. The
    /// peer stays down.
    pub async fn pair(
        &self,
        name: &str,
        bridge: &str,
        peer: &str,
        hardware: HardwareAddress,
        namespace: BorrowedFd<'_>,
    ) -> io::Result<()> {
        self.index(bridge).await?;
        let add = || {
            let other = LinkMessageBuilder::<LinkUnspec>::new().name(peer).address(hardware.to_vec());
            let other = other.setns_by_fd(namespace.as_raw_fd());
            let pair = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth).name(name);
            let pair = pair.set_info_data(InfoData::Veth(InfoVeth::Peer(other.build())));
            self.netlink.link().add(pair.build()).execute()
        };
        let added = match add().await.map_err(cause) {
            // An earlier attempt left it, on either side: both ends go together.
            Err(error) if is(&error, Errno::EEXIST) => {
                self.remove(name).await?;
                add().await.map_err(cause)
            }
            added => added,
        };
        added.map_err(|source| refused(format!("adding link {name}, and its peer {peer}"), source))?;
        self.port(name, bridge).await
    }

    /// Makes a link a port of a bridge and brings it up: without IPv6, and with hairpin mode, so that a pod that calls
    /// itself through a port of the node gets its packets back.
    pub async fn port(&self, name: &str, bridge: &str) -> io::Result<()> {
        parameters::refuse_ipv6(name).map_err(|error| refused(format!("turning IPv6 off on link {name}"), error))?;
        let (link, bridge_index) = (self.index(name).await?, self.index(bridge).await?);
        // Two messages: the kernel takes a port's settings only for a link that is a port already.
        let port = LinkUnspec::new_with_index(link).controller(bridge_index).up();
        let put = self.netlink.link().change(port.build()).execute().await;
        put.map_err(|error| refused(format!("making link {name} a port of bridge {bridge}"), cause(error)))?;
        let set = self.netlink.link().set_port(LinkBridgePort::new(link).hairpin(true).build()).execute().await;
        set.map_err(|error| refused(format!("setting up link {name} as a port of bridge {bridge}"), cause(error)))
    }

    /// Brings a link up.
    pub async fn bring_up(&self, name: &str) -> io::Result<()> {
        let changed = self.netlink.link().change(LinkUnspec::new_with_name(name).up().build()).execute().await;
        changed.map_err(|error| refused(format!("bringing up link {name}"), cause(error)))
    }

    /// Gives a link an address, brings it up, and adds a default route over it.
    pub async fn address(&self, name: &str, address: Ipv4Addr, length: u8, gateway: Ipv4Addr) -> io::Result<()> {
        let index = self.index(name).await?;
        let added = self.netlink.address().add(index, address.into(), length).execute().await;
        added.map_err(|error| refused(format!("giving link {name} the address {address}/{length}"), cause(error)))?;
        self.bring_up(name).await?;
        let route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).output_interface(index).build();
        let added = self.netlink.route().add(route).execute().await;
        added.map_err(|error| refused(format!("adding the default route via {gateway} over link {name}"), cause(error)))
    }

    /// Removes a link; succeeds if it is gone.
    pub async fn remove(&self, name: &str) -> io::Result<()> {
        let removed = self.netlink.link().del_with_message(LinkUnspec::new_with_name(name).build()).execute().await;
        match removed.map_err(cause) {
            Err(error) if is(&error, Errno::ENODEV) => Ok(()),
            Err(source) => Err(refused(format!("removing link {name}"), source)),
            Ok(()) => Ok(()),
        }
    }
}

fn refused(tried: String, source: io::Error) -> io::Error {
    io::Error::other(Refused { tried, source })
}

/// Returns the kernel's error.
fn cause(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        error => io::Error::other(error),
    }
}

fn is(error: &io::Error, number: Errno) -> bool {
    error.raw_os_error() == Some(number as i32)
}

#[cfg(test)]
mod tests {
    use std::{fs::File, net::Ipv4Addr, os::fd::AsFd as _};

    use super::{HardwareAddress, links};
    use crate::namespaces::{Namespaces, Own, inside};

    const HARDWARE: HardwareAddress = [0x0a, 0x73, 10, 1, 2, 3];

    /// Makes a namespace that stands for the node and one that stands for a pod; removes both at the end.
    fn in_a_node(act: impl FnOnce(&File) -> std::io::Result<()> + Send) {
        let directory = tempfile::tempdir().expect("a directory");
        let (node, pod) = (Namespaces::at(directory.path().join("node")), Namespaces::at(directory.path().join("pod")));
        let result = node
            .pin(Own::default(), "node", std::path::Path::new(""))
            .and_then(|()| pod.pin(Own::default(), "pod", std::path::Path::new("")))
            .and_then(|()| {
                let pod = File::open(pod.path("net"))?;
                inside(&node.path("net"), || act(&pod))
            });
        node.unpin().and_then(|()| pod.unpin()).expect("unpinned");
        result.expect("the kernel does it");
    }

    #[test]
    fn a_pair_is_made_again_over_what_an_earlier_try_left() {
        in_a_node(|pod| {
            links(async |links| {
                links.bridge("br0", Ipv4Addr::new(10, 1, 2, 1), 24).await?;
                links.bridge("br0", Ipv4Addr::new(10, 1, 2, 1), 24).await?;
                links.pair("st0", "br0", "eth0", HARDWARE, pod.as_fd()).await?;
                let first = links.find("st0").await?;
                links.pair("st0", "br0", "eth0", HARDWARE, pod.as_fd()).await?;
                assert!(first.is_some() && links.find("st0").await? != first, "it is the old one");
                links.remove("st0").await?;
                links.remove("st0").await?;
                assert_eq!(links.find("st0").await?, None);
                Ok(())
            })
        });
    }

    #[test]
    fn a_refusal_names_the_link_and_what_was_tried() {
        in_a_node(|pod| {
            links(async |links| {
                let chain = |error: std::io::Error| {
                    let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                    format!("{error}: {cause}")
                };
                let wrong =
                    links.pair("st0", "br0", "eth0", HARDWARE, pod.as_fd()).await.expect_err("there is no bridge");
                assert_eq!(chain(wrong), "there is no link br0: ");
                let wrong = links.bring_up("st0").await.expect_err("there is no link");
                assert_eq!(chain(wrong), "bringing up link st0: No such device (os error 19)");
                let wrong = links.address("lo", Ipv4Addr::new(10, 1, 2, 3), 24, Ipv4Addr::new(10, 9, 9, 9)).await;
                let wrong = chain(wrong.expect_err("the gateway is nowhere"));
                assert!(wrong.starts_with("adding the default route via 10.9.9.9 over link lo: "), "{wrong}");
                Ok(())
            })
        });
    }
}
