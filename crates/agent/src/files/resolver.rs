//! Makes `/etc/resolv.conf` of pods (R-DNS).

use std::{
    io::{self, ErrorKind},
    net::IpAddr,
    path::Path,
};

use stanchion_pod::Dns;
use stanchion_untrusted::{Links, read};

use crate::limits;

/// Limits of resolvers: servers, search domains and bytes of the search line (R-DNS-5).
const SERVERS: usize = 3;
const SEARCHES: usize = 32;
const SEARCH_LINE: usize = 2048;

/// Path of the node's file without a setting.
const DEFAULT_PATH: &str = "/etc/resolv.conf";
/// File with the servers that systemd-resolved itself asks (systemd-resolved.service(8)).
const UPSTREAM: &str = "/run/systemd/resolve/resolv.conf";

/// Reads the node's file (R-DNS-2). Without a setting that is [`DEFAULT_PATH`], or [`UPSTREAM`] if [`DEFAULT_PATH`] has only
/// resolvers on the node's loopback, which a pod with a network of its own cannot reach.
pub(super) fn of_node(setting: Option<&Path>, host_network: bool) -> io::Result<Vec<u8>> {
    match setting {
        Some(path) if path.as_os_str().is_empty() => Ok(b"search .\nnameserver 127.0.0.1\n".to_vec()),
        Some(path) => read(path, Links::Follow, limits::NODE_FILE)
            .map_err(|error| io::Error::new(error.kind(), format!("agent.resolv_conf {}: {error}", path.display()))),
        None => choose(host_network, |path| node_file(Path::new(path))),
    }
}

/// Reads a file of the node; empty if there is none.
pub(super) fn node_file(path: &Path) -> io::Result<Vec<u8>> {
    match read(path, Links::Follow, limits::NODE_FILE) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(io::Error::new(error.kind(), format!("the node's {}: {error}", path.display()))),
        content => content,
    }
}

fn choose(host_network: bool, read: impl Fn(&str) -> io::Result<Vec<u8>>) -> io::Result<Vec<u8>> {
    let usual = read(DEFAULT_PATH)?;
    let servers = parse(&usual).servers;
    let is_own = |server: &Vec<u8>| {
        let server = std::str::from_utf8(server).unwrap_or_default();
        server.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    };
    match !host_network && !servers.is_empty() && servers.iter().all(is_own) {
        true => read(UPSTREAM).map(|upstream| if upstream.is_empty() { usual } else { upstream }),
        false => Ok(usual),
    }
}

/// Settings of a `resolv.conf`, byte for byte.
#[derive(Debug, Default)]
struct Settings {
    servers: Vec<Vec<u8>>,
    searches: Vec<Vec<u8>>,
    options: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

/// Returns the file for a pod, made from the pod's DNS settings and the node's file, and warnings about omitted
/// entries.
pub(super) fn of(dns: &Dns, node: &[u8]) -> (Vec<u8>, Vec<String>) {
    let Settings { mut servers, mut searches, mut options } =
        if dns.is_nodes { parse(node) } else { Settings::default() };
    for (all, more) in [(&mut servers, &dns.servers), (&mut searches, &dns.searches)] {
        for one in more.iter().map(String::as_bytes) {
            if all.iter().all(|known| known != one) {
                all.push(one.to_owned());
            }
        }
    }
    for (name, value) in &dns.options {
        let value = value.clone().map(String::into_bytes);
        match options.iter_mut().find(|(known, _)| known == name.as_bytes()) {
            Some((_, known)) => *known = value,
            None => options.push((name.clone().into_bytes(), value)),
        }
    }
    let mut warnings = Vec::new();
    let shown = |words: &[Vec<u8>]| String::from_utf8_lossy(&words.join(&b' ')).into_owned();
    if servers.len() > SERVERS {
        servers.truncate(SERVERS);
        warnings.push(format!(
            "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: {}",
            shown(&servers)
        ));
    }
    let wanted = searches.len();
    searches.truncate(SEARCHES);
    while searches.join(&b' ').len() > SEARCH_LINE {
        searches.pop();
    }
    if searches.len() < wanted {
        warnings.push(format!(
            "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: {}",
            shown(&searches)
        ));
    }
    let mut text = Vec::new();
    let mut line = |keyword: &str, words: &[Vec<u8>]| {
        if !words.is_empty() {
            text.extend([keyword.as_bytes(), b" ", &words.join(&b' '), b"\n"].concat());
        }
    };
    line("search", &searches);
    servers.iter().for_each(|server| line("nameserver", std::slice::from_ref(server)));
    let option = |(name, value): &(Vec<u8>, Option<Vec<u8>>)| match value.as_ref().filter(|value| !value.is_empty()) {
        Some(value) => [name.as_slice(), b":", value].concat(),
        None => name.clone(),
    };
    line("options", &options.iter().map(option).collect::<Vec<_>>());
    (text, warnings)
}

/// Parses a `resolv.conf`, leniently (R-DNS-6).
fn parse(text: &[u8]) -> Settings {
    let mut settings = Settings::default();
    let lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    for line in lines.filter(|line| !line.starts_with(b"#") && !line.starts_with(b";")) {
        let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        match words.next() {
            Some(b"nameserver") => settings.servers.extend(words.next().map(<[u8]>::to_owned)),
            Some(b"search") => settings.searches = words.map(|word| plain(word).to_owned()).collect(),
            Some(b"options") => {
                for word in words {
                    let mut parts = word.splitn(2, |byte| *byte == b':').map(<[u8]>::to_owned);
                    let (name, value) = (parts.next().unwrap_or_default(), parts.next());
                    settings.options.retain(|(known, _)| *known != name);
                    settings.options.push((name, value));
                }
            }
            _ => {}
        }
    }
    settings
}

/// Returns a domain without the dots at its end; the root keeps one dot.
fn plain(domain: &[u8]) -> &[u8] {
    let length = domain.iter().rposition(|byte| *byte != b'.').map_or(0, |last| last + 1);
    if domain == b"." { domain } else { &domain[..length] }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    const NODE: &[u8] = b"# written by hand, na\xefvely\nnameserver 192.0.2.1\nsearch old.example\nsearch example.com. .\noptions ndots:1 \
                          rotate\nnameserver 192.0.2.2\n";

    // R-DNS-3.
    #[test]
    fn a_resolver_on_the_nodes_loopback_is_not_a_pods() {
        let stub = "nameserver 127.0.0.53\nsearch lan\n";
        let chosen = |host_network, usual: &str, other: &str| {
            let read = |path: &str| Ok(if path == DEFAULT_PATH { usual } else { other }.into());
            String::from_utf8(choose(host_network, read).expect("they can be read")).expect("text")
        };
        assert_eq!(chosen(false, stub, "nameserver 192.0.2.1\n"), "nameserver 192.0.2.1\n", "R-DNS-2");
        assert_eq!(chosen(true, stub, "nameserver 192.0.2.1\n"), stub, "R-DNS-2: the node's network reaches it");
        assert_eq!(chosen(false, stub, ""), stub, "there is no other");
        let mixed = "nameserver 127.0.0.53\nnameserver 192.0.2.2\n";
        assert_eq!(chosen(false, mixed, "nameserver 192.0.2.1\n"), mixed);
        let own = of_node(Some(Path::new("")), false).expect("nothing is read");
        assert_eq!(parse(&own).servers, [b"127.0.0.1"], "R-DNS-2");
        let missing = of_node(Some(Path::new("/nowhere/resolv.conf")), false).expect_err("it is not there").to_string();
        assert!(missing.starts_with("agent.resolv_conf /nowhere/resolv.conf: "), "R-DNS-2: {missing}");
    }

    #[test]
    fn the_nodes_resolver_is_the_pods() {
        let dns = Dns { is_nodes: true, ..Dns::default() };
        let expected = "search example.com .\nnameserver 192.0.2.1\nnameserver 192.0.2.2\noptions ndots:1 rotate\n";
        assert_eq!(of(&dns, NODE), (expected.into(), Vec::new()), "R-DNS-1, R-DNS-6, R-DNS-7");
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
        assert_eq!(of(&dns, NODE).0, expected.as_bytes(), "R-DNS-1, R-DNS-8");
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
        let expected = format!("search example.com . more\n{servers}options ndots:5 rotate\n");
        assert_eq!(text, expected.as_bytes(), "R-DNS-4");
        let said = "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: \
                    192.0.2.1 192.0.2.2 192.0.2.3";
        assert_eq!(warnings, [said], "R-DNS-5");
        let many: Vec<_> = (0..40).map(|index| format!("{index}.{}", "x".repeat(60))).collect();
        let (text, warnings) = of(&Dns { searches: many, ..Dns::default() }, b"");
        let text = String::from_utf8(text).expect("text");
        let line = text.lines().next().unwrap_or_default();
        assert!(line.len() <= SEARCH_LINE + "search ".len() && line.split(' ').count() <= SEARCHES + 1, "R-DNS-5");
        assert!(warnings[0].starts_with("Search Line limits were exceeded"), "{warnings:?}");
    }
}
