//! `/etc/resolv.conf` (R-DNS).

use std::{fs, io, net::IpAddr, path::Path};

use stanchion_pod::Dns;

/// What resolvers take (R-DNS-5).
const SERVERS: usize = 3;
const SEARCHES: usize = 32;
const SEARCH_LINE: usize = 2048;

/// Where the node's file is, if no other is configured.
const USUAL: &str = "/etc/resolv.conf";
/// The servers that systemd-resolved asks itself (systemd-resolved.service(8)).
const UPSTREAM: &str = "/run/systemd/resolve/resolv.conf";

/// The node's file (R-DNS-2). Without a setting it is the usual one, unless that names only resolvers on the node's loopback, which
/// a pod with a network of its own cannot reach, and systemd-resolved says where it asks itself.
pub(super) fn of_node(setting: Option<&Path>, host_network: bool) -> io::Result<String> {
    match setting {
        Some(path) if path.as_os_str().is_empty() => Ok("search .\nnameserver 127.0.0.1\n".to_owned()),
        Some(path) => fs::read_to_string(path)
            .map_err(|error| io::Error::new(error.kind(), format!("agent.resolv_conf {}: {error}", path.display()))),
        None => Ok(choose(host_network, |path| fs::read_to_string(path).ok())),
    }
}

fn choose(host_network: bool, read: impl Fn(&str) -> Option<String>) -> String {
    let usual = read(USUAL).unwrap_or_default();
    let servers = parse(&usual).servers;
    let is_own = |server: &String| server.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    match !host_network && !servers.is_empty() && servers.iter().all(is_own) {
        true => read(UPSTREAM).unwrap_or(usual),
        false => usual,
    }
}

/// The file for a pod, with the node's own as it was read, and what had to be left out.
pub(super) fn of(dns: &Dns, node: &str) -> (String, Vec<String>) {
    let Dns { mut servers, mut searches, mut options, .. } = if dns.is_nodes { parse(node) } else { Dns::default() };
    for (all, more) in [(&mut servers, &dns.servers), (&mut searches, &dns.searches)] {
        for one in more {
            if !all.contains(one) {
                all.push(one.clone());
            }
        }
    }
    for (name, value) in &dns.options {
        match options.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => known.clone_from(value),
            None => options.push((name.clone(), value.clone())),
        }
    }
    let mut warnings = Vec::new();
    if servers.len() > SERVERS {
        servers.truncate(SERVERS);
        warnings.push(format!(
            "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: {}",
            servers.join(" ")
        ));
    }
    let wanted = searches.len();
    searches.truncate(SEARCHES);
    while searches.join(" ").len() > SEARCH_LINE {
        searches.pop();
    }
    if searches.len() < wanted {
        warnings.push(format!(
            "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: {}",
            searches.join(" ")
        ));
    }
    let mut text = String::new();
    let mut line = |keyword: &str, words: &[String]| {
        if !words.is_empty() {
            text.push_str(&format!("{keyword} {}\n", words.join(" ")));
        }
    };
    line("search", &searches);
    servers.iter().for_each(|server| line("nameserver", std::slice::from_ref(server)));
    let option = |(name, value): &(String, Option<String>)| match value.as_deref().filter(|value| !value.is_empty()) {
        Some(value) => format!("{name}:{value}"),
        None => name.clone(),
    };
    line("options", &options.iter().map(option).collect::<Vec<_>>());
    (text, warnings)
}

/// The node's file, read leniently (R-DNS-6).
fn parse(text: &str) -> Dns {
    let mut dns = Dns::default();
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => dns.servers.extend(words.next().map(str::to_owned)),
            Some("search") => {
                let plain =
                    |word: &str| if word == "." { word.to_owned() } else { word.trim_end_matches('.').to_owned() };
                dns.searches = words.map(plain).collect();
            }
            Some("options") => {
                for word in words {
                    let (name, value) = word.split_once(':').map_or((word, None), |(name, value)| (name, Some(value)));
                    dns.options.retain(|(known, _)| known != name);
                    dns.options.push((name.to_owned(), value.map(str::to_owned)));
                }
            }
            _ => {}
        }
    }
    dns
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    const NODE: &str = "# written by hand\nnameserver 192.0.2.1\nsearch old.example\nsearch example.com. .\noptions ndots:1 \
                        rotate\nnameserver 192.0.2.2\n";

    // R-DNS-3.
    #[test]
    fn a_resolver_on_the_nodes_loopback_is_not_a_pods() {
        let stub = "nameserver 127.0.0.53\nsearch lan\n";
        let read = |path: &str| Some(if path == USUAL { stub } else { "nameserver 192.0.2.1\n" }.to_owned());
        assert_eq!(choose(false, read), "nameserver 192.0.2.1\n", "R-DNS-2");
        assert_eq!(choose(true, read), stub, "R-DNS-2: the node's network reaches it");
        assert_eq!(choose(false, |path| (path == USUAL).then(|| stub.to_owned())), stub, "there is no other");
        let mixed = "nameserver 127.0.0.53\nnameserver 192.0.2.2\n";
        assert_eq!(choose(false, |_| Some(mixed.to_owned())), mixed);
        let own = of_node(Some(Path::new("")), false).expect("nothing is read");
        assert_eq!(parse(&own).servers, ["127.0.0.1"], "R-DNS-2");
        let missing = of_node(Some(Path::new("/nowhere/resolv.conf")), false).expect_err("it is not there").to_string();
        assert!(missing.starts_with("agent.resolv_conf /nowhere/resolv.conf: "), "R-DNS-2: {missing}");
    }

    #[test]
    fn the_nodes_resolver_is_the_pods() {
        let dns = Dns { is_nodes: true, ..Dns::default() };
        let expected = "search example.com .\nnameserver 192.0.2.1\nnameserver 192.0.2.2\noptions ndots:1 rotate\n";
        assert_eq!(of(&dns, NODE), (expected.to_owned(), Vec::new()), "R-DNS-1, R-DNS-6, R-DNS-7");
    }

    #[test]
    fn a_pods_own_resolver_is_as_recorded() {
        // network/dns-none of the recordings.
        let dns = Dns {
            is_nodes: false,
            servers: list(&["198.51.100.10", "198.51.100.11"]),
            searches: list(&["svc.example", "example"]),
            options: vec![("ndots".to_owned(), Some("3".to_owned())), ("edns0".to_owned(), None)],
        };
        let expected =
            "search svc.example example\nnameserver 198.51.100.10\nnameserver 198.51.100.11\noptions ndots:3 edns0\n";
        assert_eq!(of(&dns, NODE).0, expected, "R-DNS-1, R-DNS-8");
    }

    #[test]
    fn what_a_pod_adds_comes_after_and_its_options_win() {
        let dns = Dns {
            is_nodes: true,
            servers: list(&["192.0.2.2", "192.0.2.3", "192.0.2.4"]),
            searches: list(&["example.com", "more"]),
            options: vec![("ndots".to_owned(), Some("5".to_owned()))],
        };
        let (text, warnings) = of(&dns, NODE);
        let servers = "nameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\n";
        assert_eq!(text, format!("search example.com . more\n{servers}options ndots:5 rotate\n"), "R-DNS-4");
        let said = "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: \
                    192.0.2.1 192.0.2.2 192.0.2.3";
        assert_eq!(warnings, [said], "R-DNS-5");
        let many: Vec<_> = (0..40).map(|index| format!("{index}.{}", "x".repeat(60))).collect();
        let (text, warnings) = of(&Dns { searches: many, ..Dns::default() }, "");
        let line = text.lines().next().unwrap_or_default();
        assert!(line.len() <= SEARCH_LINE + "search ".len() && line.split(' ').count() <= SEARCHES + 1, "R-DNS-5");
        assert!(warnings[0].starts_with("Search Line limits were exceeded"), "{warnings:?}");
    }
}
