//! Keeps the packet filter rules of a bridge in force: it makes them from the leases, and again after another program
//! has flushed or changed them.

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddrV4},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde_json::Value;
use stanchion_runtime::clock;
use tokio::time::Instant;

use super::{
    bridge::link,
    commands::{nft, nft_output},
    leases::{self, Leases, Subnet},
    netfilter::{self, Change, Element},
    rules::{self, Pod, Port, State, hardware},
};

/// Number of attempts to write the rules at once while another program changes rules at the same time.
const TRIES: usize = 3;
/// Time after which a kernel that could not filter frames is tried again.
const FRAMES_RETRY: Duration = Duration::from_secs(300);

/// Rules of one bridge.
#[derive(Clone, Debug)]
pub(super) struct Filter {
    table: Arc<str>,
    bridge: Arc<str>,
    subnet: Subnet,
    leases: Leases,
    known: Arc<Mutex<Known>>,
}

/// Knowledge of this process about the rules.
#[derive(Debug, Default)]
struct Known {
    applied: Option<Applied>,
    /// Number of times that other programs have changed any rules.
    changes: u64,
}

/// Rules as this process left them.
#[derive(Debug)]
struct Applied {
    /// Generation of all rules then: while it stays, no program has changed any.
    generation: u32,
    /// Our rules as `nft` printed them then; `None` after a change of elements.
    listing: Option<String>,
    /// Reason why frames are not filtered; `None` if they are.
    frameless: Option<Frameless>,
}

impl Applied {
    fn has_frames(&self) -> bool {
        self.frameless.is_none()
    }
}

/// Reason why the bridge's frames are not filtered, and the time of the next attempt: loading a module changes no rule,
/// so nothing reports it.
#[derive(Debug)]
struct Frameless {
    why: String,
    again: Instant,
}

impl Filter {
    pub fn new(bridge: &Arc<str>, subnet: Subnet, leases: Leases) -> Self {
        let table = format!("stanchion_{bridge}").replace(['-', '.'], "_").into();
        Self { table, bridge: Arc::clone(bridge), subnet, leases, known: Arc::default() }
    }

    /// Makes the rules, or finds them in order. Asks the kernel one question if no rule has changed. Returns a number
    /// that differs from the last call's if other programs have changed any rules since.
    pub fn ensure(&self) -> io::Result<u64> {
        let mut known = self.known();
        let Known { applied, changes } = &mut *known;
        let generation = netfilter::generation()?;
        let frameless = applied.as_ref().and_then(|it| it.frameless.as_ref());
        if frameless.is_some_and(|it| it.again <= clock::instant()) {
            let _lock = self.leases.lock()?;
            self.write(applied)?;
            return Ok(*changes);
        }
        if applied.as_ref().is_some_and(|it| it.generation == generation) {
            return Ok(*changes);
        }
        *changes += 1;
        let _lock = self.leases.lock()?;
        if let Some(known) = applied.as_mut()
            && let Some(listing) = &known.listing
            && self.listing(known.has_frames()).is_ok_and(|found| found == *listing)
        {
            known.generation = generation;
            return Ok(*changes);
        }
        if applied.as_ref().is_some_and(|it| it.listing.is_some()) {
            tracing::warn!(
                bridge = &*self.bridge,
                "somebody changed or flushed the packet filter's rules: they are made anew"
            );
        }
        self.write(applied)?;
        Ok(*changes)
    }

    /// Adds elements that the leases have now, or removes those that they no longer have.
    pub fn change(&self, change: Change, elements: &[Element]) -> io::Result<()> {
        let mut known = self.known();
        let Known { applied, changes } = &mut *known;
        let _lock = self.leases.lock()?;
        if let Some(known) = applied.as_mut() {
            let has_frames = known.has_frames();
            let all = || elements.iter().filter(|it| has_frames || it.family == netfilter::Family::Ip).cloned();
            match netfilter::change(&self.table, change, &all().collect::<Vec<_>>(), known.generation) {
                Ok(generation) => {
                    (known.generation, known.listing) = (generation, None);
                    return Ok(());
                }
                Err(error) => tracing::debug!(bridge = &*self.bridge, %error, "the rules are made anew"),
            }
        }
        *changes += 1;
        self.write(applied)
    }

    /// Returns the gap in the rules that this node makes, if there is one.
    pub fn gap(&self) -> Option<String> {
        let known = self.known();
        let frameless = known.applied.as_ref()?.frameless.as_ref()?;
        Some(format!(
            "the kernel cannot filter frames of a bridge, so pods can send each other packets with false addresses ({}); \
             to mend it: modprobe nf_tables_bridge, or a kernel with CONFIG_NF_TABLES_BRIDGE",
            frameless.why
        ))
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, applied: &mut Option<Applied>) -> io::Result<()> {
        *applied = None;
        for _ in 0..TRIES {
            let before = netfilter::generation()?;
            let (mut state, mut frameless) = (self.state()?, None);
            if let Err(error) = nft(&rules::batch(&state)) {
                // The kernel may lack only the filter for frames.
                state.has_frames = false;
                if error.kind() == io::ErrorKind::NotFound || nft(&rules::batch(&state)).is_err() {
                    return Err(error);
                }
                frameless = Some(Frameless { why: error.to_string(), again: clock::instant() + FRAMES_RETRY });
            }
            let generation = netfilter::generation()?;
            let listing = self.listing(state.has_frames)?;
            let is_ours_alone = generation == before.wrapping_add(1).max(1) && netfilter::generation()? == generation;
            if is_ours_alone {
                *applied = Some(Applied { generation, listing: Some(listing), frameless });
                return Ok(());
            }
        }
        // Other programs have changed rules in between: the next repair makes the bridge's anew.
        Ok(())
    }

    fn state(&self) -> io::Result<State<'_>> {
        let leased = self.leases.leased()?;
        let owners: HashMap<_, _> = leased.iter().map(|(address, owner, _)| (owner.as_str(), *address)).collect();
        let claimed = self.leases.claimed()?;
        let mut earlier = None;
        let mut ports = Vec::new();
        for (name, owner, target) in &claimed {
            let (Some((host, protocol, number)), Some(address)) =
                (leases::parse_port_name(name), owners.get(owner.as_str()))
            else {
                continue;
            };
            let target = match target {
                Some(target) => *target,
                // An earlier version claimed the port, and recorded the target only in the rules.
                None => match earlier.get_or_insert_with(|| self.targets()).get(name) {
                    Some(target) => {
                        self.leases.write_target_of(name, *target)?;
                        *target
                    }
                    None => {
                        tracing::warn!(
                            port = name,
                            sandbox = owner,
                            "nobody knows where a port of the node led: restart its pod"
                        );
                        continue;
                    }
                },
            };
            ports.push(Port { host, protocol, number, target: SocketAddrV4::new(*address, target) });
        }
        let pods = leased.iter().map(|(address, owner, is_determined)| Pod {
            link: link(owner),
            address: *address,
            hardware: is_determined.then(|| hardware(*address)),
        });
        Ok(State {
            table: &self.table,
            bridge: &self.bridge,
            subnet: self.subnet,
            pods: pods.collect(),
            ports,
            has_frames: true,
        })
    }

    /// Returns the targets of ports in the present rules, by the name of the claimed port.
    fn targets(&self) -> HashMap<String, u16> {
        let map = |map: &str| {
            let listed = nft_output(&["-j", "list", "map", "ip", &self.table, map]).unwrap_or_default();
            targets_in(map, &listed)
        };
        map("ports").into_iter().chain(map("addressed")).collect()
    }

    /// Returns the bridge's rules as `nft` prints them, with elements in order.
    fn listing(&self, has_frames: bool) -> io::Result<String> {
        let list = |family: &str| nft_output(&["list", "table", family, &self.table]).map(|text| in_order(&text));
        Ok(list("ip")? + &if has_frames { list("bridge")? } else { String::new() })
    }
}

/// Sorts the elements of each set: `nft` prints them in the order of the kernel's hashes.
fn in_order(text: &str) -> String {
    let mut pieces = text.split("elements = {");
    let mut ordered = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (elements, rest) = piece.split_once('}').unwrap_or((piece, ""));
        let mut elements: Vec<_> = elements.split(',').map(str::trim).collect();
        elements.sort_unstable();
        ordered += &elements.join(",");
        ordered += rest;
    }
    ordered
}

/// Reads the targets of ports from a map that `nft -j` printed: elements are pairs of a key and a value, each of
/// several parts.
fn targets_in(map: &str, listed: &str) -> HashMap<String, u16> {
    let listed: Value = serde_json::from_str(listed).unwrap_or_default();
    let all = listed["nftables"].as_array().into_iter().flatten();
    let elements = all.filter_map(|it| it["map"]["elem"].as_array()).flatten();
    let target = |element: &Value| {
        let part = |part: &Value| part.as_str().map_or_else(|| part.to_string(), str::to_owned);
        let key: Vec<_> = element[0]["concat"].as_array()?.iter().map(part).collect();
        let target = element[1]["concat"][1].as_u64()?.try_into().ok()?;
        Some((format!("{map} {{ {} }}", key.join(" . ")), target))
    };
    elements.filter_map(target).collect()
}

/// Returns a pod as the rules know it.
pub(super) fn pod(id: &str, address: Ipv4Addr) -> Pod {
    Pod { link: link(id), address, hardware: Some(hardware(address)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_port_led_is_read_from_the_rules() {
        let listed = r#"{"nftables": [{"metainfo": {}}, {"map": {"family": "ip", "elem": [
            [{"concat": ["tcp", 80]}, {"concat": ["10.213.0.2", 6379]}], [{"concat": [1]}, {}]]}}]}"#;
        assert_eq!(targets_in("ports", listed), [("ports { tcp . 80 }".to_owned(), 6379)].into());
        assert_eq!(targets_in("ports", "nonsense"), HashMap::new());
    }

    #[test]
    fn the_order_of_elements_is_no_difference_and_that_of_rules_is() {
        let text =
            |elements: &str, rules: &str| in_order(&format!("set s {{\n\telements = {{ {elements} }}\n}}\n{rules}"));
        assert_eq!(text("a . 1,\n\t\tb . 2", "x\ny"), text("b . 2, a . 1", "x\ny"));
        assert_ne!(text("a . 1", "x\ny"), text("a . 1", "y\nx"));
        assert_ne!(text("a . 1", "x"), text("a . 2", "x"));
    }
}
