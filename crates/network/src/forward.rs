//! Finds other packet filters of the node that may drop pods' packets, and adds rules in iptables that let these pass.
//!
//! A packet must pass every chain of its hook, so no table of the agent's can help: where iptables drops forwarded
//! packets, as Docker and ufw set it up, two rules of the agent go into its chain. Other programs' chains are only
//! reported.
//!
//! # Layout
//! - [`Forward`]: search and repair. [`iptables`]: the changes to iptables' rules.

mod iptables;

use std::{io, sync::Arc};

use serde_json::Value;

use super::{
    commands::{nft_output, run},
    leases::Subnet,
};
use crate::limits::IPTABLES_TABLES;
use stanchion_untrusted::Links;

/// File with the tables of the kernel's old packet filter; it exists once a program has used that.
const LEGACY_TABLES: &str = "/proc/thread-self/net/ip_tables_names";

/// Search for obstacles to the traffic of one bridge's pods.
#[derive(Clone, Debug)]
pub(super) struct Forward {
    bridge: Arc<str>,
    /// Subnet of the pods, as rules write it.
    subnet: Arc<str>,
}

/// Chain that the kernel asks about forwarded packets.
#[derive(Debug, PartialEq, Eq)]
struct Chain {
    family: String,
    table: String,
    name: String,
    drops: bool,
}

/// Variant of iptables.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Nft,
    Legacy,
}

impl Kind {
    /// Returns its programs' names, the most specific first.
    fn programs(self) -> [(&'static str, &'static str); 2] {
        let plain = ("iptables", "iptables-restore");
        match self {
            Self::Nft => [("iptables-nft", "iptables-nft-restore"), plain],
            Self::Legacy => [("iptables-legacy", "iptables-legacy-restore"), plain],
        }
    }

    /// Returns the word for this kind in the output of `iptables -V`.
    fn mark(self) -> &'static str {
        match self {
            Self::Nft => "nf_tables",
            Self::Legacy => "legacy",
        }
    }

    /// Returns its programs `iptables` and `iptables-restore`, if they are installed.
    fn installed(self) -> Option<(&'static str, &'static str)> {
        let is_it = |program: &str| run(program, &["-V"], "").is_ok_and(|said| said.contains(self.mark()));
        self.programs().into_iter().find(|(program, _)| is_it(program))
    }
}

impl Forward {
    pub fn new(bridge: &Arc<str>, subnet: &Subnet) -> Self {
        Self { bridge: Arc::clone(bridge), subnet: subnet.to_string().into() }
    }

    /// Returns whether the old packet filter can drop pods' packets. The generation of the rules does not count its
    /// changes.
    pub fn has_legacy() -> bool {
        // A file of /proc has no size. Without the old packet filter the file does not exist.
        let names = stanchion_untrusted::read_text(LEGACY_TABLES, Links::Follow, IPTABLES_TABLES);
        names.is_ok_and(|names| names.lines().any(|it| it == "filter"))
    }

    /// Returns the obstacles to pods' traffic, each a sentence with the command that removes it. With `repairs`, it lets
    /// pods pass where the obstacle is iptables.
    pub fn obstacles(&self, repairs: bool) -> io::Result<Vec<String>> {
        let chains = chains(&nft_output(&["-j", "list", "chains"])?);
        let is_iptables = |chain: &Chain| (&*chain.family, &*chain.table, &*chain.name) == ("ip", "filter", "FORWARD");
        let mut found = Vec::new();
        if let Some(chain) = chains.iter().find(|chain| is_iptables(chain)) {
            found.extend(self.let_pass(Kind::Nft, repairs, chain.drops));
        }
        if Self::has_legacy() {
            found.extend(self.let_pass(Kind::Legacy, repairs, true));
        }
        for Chain { family, table, name, drops } in chains.iter().filter(|chain| !is_iptables(chain)) {
            let rules = nft_output(&["list", "table", family, table]).unwrap_or_default();
            let stop = if *drops { Some("policy drop") } else { final_drop(&rules, name) };
            // Rules about the pods let them pass, or drop their packets on purpose.
            let is_of_pods = rules.contains(&format!("\"{}\"", self.bridge)) || rules.contains(&*self.subnet);
            if let Some(stop) = stop.filter(|_| !is_of_pods) {
                found.push(self.obstacle(family, table, name, stop));
            }
        }
        Ok(found)
    }

    /// Removes the agent's rules from iptables.
    pub fn withdraw(&self) {
        let kinds = [Some(Kind::Nft), Self::has_legacy().then_some(Kind::Legacy)];
        for (iptables, restore) in kinds.into_iter().flatten().filter_map(Kind::installed) {
            let batch = run(iptables, &["-w", "5", "-S"], "").map(|saved| iptables::withdrawal(&saved, &self.bridge));
            let withdrawn = batch.and_then(|batch| batch.map_or(Ok(()), |batch| restored(restore, &batch)));
            if let Err(error) = withdrawn {
                tracing::warn!(bridge = &*self.bridge, %error, "rules that let pods pass stay in iptables");
            }
        }
    }

    /// Lets pods pass iptables. Returns the obstacle if that fails.
    fn let_pass(&self, kind: Kind, repairs: bool, drops: bool) -> Option<String> {
        let bridge = &self.bridge;
        let stopped = |why: &str| {
            format!(
                "chain FORWARD of iptables drops what pods send and get ({why}); to mend it: iptables -A FORWARD -i \
                 {bridge} -j ACCEPT && iptables -A FORWARD -o {bridge} -m conntrack --ctstate RELATED,ESTABLISHED,DNAT \
                 -j ACCEPT"
            )
        };
        let Some((iptables, restore)) = kind.installed() else {
            return drops.then(|| stopped("the program iptables, which could let them pass, is not installed"));
        };
        let saved = match run(iptables, &["-w", "5", "-S"], "") {
            Ok(saved) => saved,
            Err(error) => return drops.then(|| stopped(&error.to_string())),
        };
        // A caller that changes nothing needs no report of an obstacle that the first pod removes.
        let batch = iptables::passage(&saved, bridge).filter(|_| repairs)?;
        match restored(restore, &batch) {
            Ok(()) => {
                tracing::info!(bridge = &**bridge, iptables, "iptables drops what is forwarded: rules let pods pass");
                None
            }
            Err(error) => Some(stopped(&error.to_string())),
        }
    }

    fn obstacle(&self, family: &str, table: &str, chain: &str, stop: &str) -> String {
        let bridge = &self.bridge;
        let line = match table {
            "firewalld" => {
                format!("firewall-cmd --permanent --zone=trusted --add-interface={bridge} && firewall-cmd --reload")
            }
            _ => format!(
                "nft insert rule {family} {table} {chain} iifname {bridge} accept && nft insert rule {family} {table} \
                 {chain} oifname {bridge} ct state established,related accept && nft insert rule {family} {table} \
                 {chain} oifname {bridge} ct status dnat accept"
            ),
        };
        format!(
            "chain {chain} of nftables' table {family} {table} drops what pods send and get ({stop}); to mend it: {line}"
        )
    }
}

fn restored(restore: &str, batch: &str) -> io::Result<()> {
    run(restore, &["--noflush", "-w", "5"], batch).map(drop)
}

/// Returns the chains of `nft -j list chains` that see forwarded packets, except the agent's own.
fn chains(listed: &str) -> Vec<Chain> {
    let listed: Value = serde_json::from_str(listed).unwrap_or_default();
    let all = listed["nftables"].as_array().into_iter().flatten().map(|it| &it["chain"]);
    let text = |chain: &Value, key: &str| chain[key].as_str().unwrap_or_default().to_owned();
    let is_asked =
        |chain: &&Value| chain["hook"] == "forward" && ["ip", "inet"].iter().any(|family| chain["family"] == *family);
    all.filter(is_asked)
        .map(|chain| Chain {
            family: text(chain, "family"),
            table: text(chain, "table"),
            name: text(chain, "name"),
            drops: chain["policy"] == "drop",
        })
        .filter(|chain| !chain.table.starts_with("stanchion_"))
        .collect()
}

/// Returns the rule of a chain that drops every packet, in a table that `nft` listed.
fn final_drop<'a>(table: &'a str, chain: &str) -> Option<&'a str> {
    let begins = format!("chain {chain} {{");
    let rules = table.lines().map(str::trim).skip_while(|line| *line != begins).skip(1).take_while(|line| *line != "}");
    rules.map(uncounted).find(|rule| *rule == "drop" || *rule == "reject" || rule.starts_with("reject with"))
}

/// Returns a rule without its counter, which counts every packet.
fn uncounted(rule: &str) -> &str {
    let Some(rest) = rule.strip_prefix("counter packets ") else { return rule };
    rest.splitn(4, ' ').nth(3).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chains_that_are_asked_are_found() {
        let listed = r#"{"nftables": [{"metainfo": {}},
            {"chain": {"family": "inet", "table": "f", "name": "fwd", "hook": "forward", "policy": "drop"}},
            {"chain": {"family": "ip", "table": "filter", "name": "FORWARD", "hook": "forward", "policy": "accept"}},
            {"chain": {"family": "ip", "table": "filter", "name": "INPUT", "hook": "input", "policy": "drop"}},
            {"chain": {"family": "ip6", "table": "filter", "name": "FORWARD", "hook": "forward", "policy": "drop"}},
            {"chain": {"family": "ip", "table": "stanchion_b", "name": "x", "hook": "forward", "policy": "drop"}},
            {"chain": {"family": "inet", "table": "f", "name": "other"}}]}"#;
        let found: Vec<_> = chains(listed).into_iter().map(|it| (it.table, it.name, it.drops)).collect();
        let text = str::to_owned;
        assert_eq!(found, [(text("f"), text("fwd"), true), (text("filter"), text("FORWARD"), false)]);
    }

    #[test]
    fn a_rule_that_drops_everything_is_found() {
        let table = |rule: &str| {
            format!("table inet f {{\n\tchain fwd {{\n\t\ttype x\n\t\t{rule}\n\t}}\n\tchain b {{\n\t\tdrop\n\t}}\n}}\n")
        };
        for rule in ["drop", "reject with icmpx admin-prohibited", "counter packets 1 bytes 2 drop"] {
            assert!(final_drop(&table(rule), "fwd").is_some_and(|it| rule.ends_with(it)), "{rule}");
        }
        for rule in ["ip saddr 10.0.0.1 drop", "accept", "counter packets 1 bytes 2 ip saddr 10.0.0.1 drop"] {
            assert_eq!(final_drop(&table(rule), "fwd"), None, "{rule}");
        }
    }
}
