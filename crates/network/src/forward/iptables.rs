//! Finds the positions for the agent's two rules in iptables' rules, from the output of `iptables -S`, so that pods'
//! packets pass.

/// Chain for users' own rules, which Docker's rules call before their own.
const DOCKER_USER: &str = "DOCKER-USER";
/// Depth to which chains that refer to each other are followed.
const DEPTH: usize = 16;

/// Rules of the table `filter`.
struct Rules<'a> {
    saved: &'a str,
    mark: String,
}

/// Returns the batch for `iptables-restore` that lets pods' packets pass; `None` if they do, or nothing drops them. The
/// agent's rules come last before the rule that drops everything, so that the administrator's rules about some packets
/// hold.
pub(super) fn passage(saved: &str, bridge: &str) -> Option<String> {
    let rules = Rules { saved, mark: mark(bridge) };
    let end = rules.end("FORWARD", 0);
    let is_dropped = match end {
        Some(End { drops, .. }) => drops,
        None => saved.lines().any(|line| line == "-P FORWARD DROP"),
    };
    if !is_dropped {
        return None;
    }
    let mut others = rules.foreign("FORWARD");
    let docker = others.position(|rule| target(rule) == Some(DOCKER_USER));
    let (chain, most) = match docker {
        Some(docker) if end.is_none_or(|end| docker <= end.at) => {
            let stop = rules.foreign(DOCKER_USER).position(|rule| target(rule).is_some());
            (DOCKER_USER, stop.unwrap_or_else(|| rules.foreign(DOCKER_USER).count()))
        }
        _ => ("FORWARD", end.map_or_else(|| rules.foreign("FORWARD").count(), |end| end.at)),
    };
    let ours: Vec<_> = rules.of(chain).take_while_before(most, &rules.mark);
    if ours.len() == 2 && rules.ours().count() == 2 {
        return None;
    }
    let mut batch = String::from("*filter\n");
    rules.ours().for_each(|rule| batch += &format!("-D {rule}\n"));
    let mark = &rules.mark;
    batch += &format!("-I {chain} {} -i {bridge} -m comment --comment {mark} -j ACCEPT\n", most + 1);
    batch += &format!(
        "-I {chain} {} -o {bridge} -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -m comment --comment {mark} -j ACCEPT\n",
        most + 2
    );
    batch += "COMMIT\n";
    Some(batch)
}

/// Returns the batch for `iptables-restore` that removes the agent's rules; `None` if there are none.
pub(super) fn withdrawal(saved: &str, bridge: &str) -> Option<String> {
    let rules = Rules { saved, mark: mark(bridge) };
    let ours: String = rules.ours().map(|rule| format!("-D {rule}\n")).collect();
    (!ours.is_empty()).then(|| format!("*filter\n{ours}COMMIT\n"))
}

/// Position at which a chain decides about every packet.
#[derive(Clone, Copy)]
struct End {
    at: usize,
    drops: bool,
}

impl<'a> Rules<'a> {
    /// Returns the rules of a chain, without its name.
    fn of(&self, chain: &str) -> Chain<'a> {
        let begins = format!("-A {chain} ");
        Chain(self.saved.lines().filter_map(|line| line.strip_prefix(&begins)).collect())
    }

    /// Returns the rules of a chain that are not the agent's.
    fn foreign(&self, chain: &str) -> impl Iterator<Item = &'a str> {
        self.of(chain).0.into_iter().filter(|rule| !rule.contains(&self.mark))
    }

    /// Returns the agent's rules of all chains, with the chain's name.
    fn ours(&self) -> impl Iterator<Item = &'a str> {
        let rules = self.saved.lines().filter_map(|line| line.strip_prefix("-A "));
        rules.filter(|rule| rule.contains(&self.mark))
    }

    /// Returns the first rule, of those that are not the agent's, that decides about every packet.
    fn end(&self, chain: &str, depth: usize) -> Option<End> {
        for (at, rule) in self.foreign(chain).enumerate() {
            match target(rule) {
                Some("DROP" | "REJECT") => return Some(End { at, drops: true }),
                Some("ACCEPT") => return Some(End { at, drops: false }),
                Some("RETURN") => return None,
                Some(other) if depth < DEPTH => {
                    if let Some(End { drops, .. }) = self.end(other, depth + 1) {
                        return Some(End { at, drops });
                    }
                }
                _ => {}
            }
        }
        None
    }
}

/// Rules of one chain, the agent's among them.
struct Chain<'a>(Vec<&'a str>);

impl<'a> Chain<'a> {
    /// Returns the agent's rules that have at most `most` other rules before them.
    fn take_while_before(&self, most: usize, mark: &str) -> Vec<&'a str> {
        let mut others = 0;
        let mut ours = Vec::new();
        for rule in &self.0 {
            match rule.contains(mark) {
                true if others <= most => ours.push(*rule),
                true => {}
                false => others += 1,
            }
        }
        ours
    }
}

/// Returns the mark of the agent's rules: with quotes, so that no bridge's name begins another's.
fn mark(bridge: &str) -> String {
    format!("\"stanchion: pods of {bridge}\"")
}

/// Returns the target of a rule for every packet; `None` if it matches only some.
fn target(rule: &str) -> Option<&str> {
    let rule = match rule.strip_prefix("-m comment --comment ") {
        Some(rest) => match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once("\" ")?.1,
            None => rest.split_once(' ')?.1,
        },
        None => rule,
    };
    let target = rule.strip_prefix("-j ").or_else(|| rule.strip_prefix("-g "))?;
    target.split(' ').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the batch without its constant parts, for rules below `-P FORWARD` with that policy.
    fn done(policy: &str, rules: &[&str]) -> Option<Vec<String>> {
        let saved = format!("-P INPUT ACCEPT\n-P FORWARD {policy}\n-N DOCKER-USER\n{}\n", rules.join("\n"));
        let batch = passage(&saved, "b0")?;
        let lines = batch.lines().filter(|line| line.starts_with('-'));
        Some(lines.map(|line| line.split(' ').take(4).collect::<Vec<_>>().join(" ")).collect())
    }

    fn put(chain: &str, at: usize) -> Option<Vec<String>> {
        Some(vec![format!("-I {chain} {at} -i"), format!("-I {chain} {} -o", at + 1)])
    }

    const IN: &str = "-A FORWARD -i b0 -m comment --comment \"stanchion: pods of b0\" -j ACCEPT";
    const OUT: &str =
        "-A FORWARD -o b0 -m conntrack --ctstate DNAT -m comment --comment \"stanchion: pods of b0\" -j ACCEPT";

    #[test]
    fn rules_are_where_everything_is_dropped_and_after_what_drops_some() {
        assert_eq!(done("ACCEPT", &[]), None);
        assert_eq!(done("ACCEPT", &["-A FORWARD -s 10.0.0.1/32 -j DROP"]), None);
        assert_eq!(done("DROP", &["-A FORWARD -j ACCEPT"]), None);
        assert_eq!(done("DROP", &[]), put("FORWARD", 1));
        assert_eq!(done("DROP", &["-A FORWARD -s 10.0.0.1/32 -j DROP"]), put("FORWARD", 2));
        let rejects = "-A FORWARD -j REJECT --reject-with icmp-host-prohibited";
        assert_eq!(done("ACCEPT", &["-A FORWARD -i lo -j ACCEPT", rejects]), put("FORWARD", 2));
        let said = "-A FORWARD -m comment --comment \"the rest\" -j DROP";
        assert_eq!(done("ACCEPT", &[said]), put("FORWARD", 1));
        println!("in a chain that every packet comes to");
        let rules = ["-A FORWARD -s 1.1.1.1/32 -j DROP", "-A FORWARD -j mine", "-A mine -j DROP"];
        assert_eq!(done("ACCEPT", &rules), put("FORWARD", 2));
        assert_eq!(done("ACCEPT", &["-A FORWARD -i eth0 -j mine", "-A mine -j DROP"]), None);
        assert_eq!(done("ACCEPT", &["-A FORWARD -j mine", "-A mine -j RETURN", "-A mine -j DROP"]), None);
        assert_eq!(done("ACCEPT", &["-A FORWARD -j mine", "-A mine -j mine"]), None);
    }

    #[test]
    fn docker_has_a_chain_for_it() {
        let asks = "-A FORWARD -j DOCKER-USER";
        assert_eq!(done("DROP", &[asks, "-A FORWARD -i docker0 -j ACCEPT"]), put("DOCKER-USER", 1));
        assert_eq!(done("DROP", &[asks, "-A DOCKER-USER -j RETURN"]), put("DOCKER-USER", 1));
        let some = "-A DOCKER-USER -s 10.0.0.1/32 -j DROP";
        assert_eq!(done("DROP", &[asks, some, "-A DOCKER-USER -j RETURN"]), put("DOCKER-USER", 2));
        assert_eq!(done("ACCEPT", &[asks, "-A DOCKER-USER -j DROP"]), put("DOCKER-USER", 1));
        println!("one that is not asked, or too late");
        assert_eq!(done("DROP", &["-A DOCKER-USER -j RETURN"]), put("FORWARD", 1));
        assert_eq!(done("ACCEPT", &["-A FORWARD -j DROP", asks]), put("FORWARD", 1));
    }

    #[test]
    fn rules_are_put_once_and_again_when_something_came_before_them() {
        assert_eq!(done("DROP", &[IN, OUT]), None);
        assert_eq!(done("DROP", &[IN, OUT, "-A FORWARD -j DROP"]), None);
        let again = |at| {
            let mut all = vec!["-D FORWARD -i b0".to_owned(), "-D FORWARD -o b0".to_owned()];
            all.extend(put("FORWARD", at).into_iter().flatten());
            Some(all)
        };
        assert_eq!(done("DROP", &["-A FORWARD -j DROP", IN, OUT]), again(1));
        let half = ["-D FORWARD -i b0", "-I FORWARD 1 -i", "-I FORWARD 2 -o"].map(str::to_owned);
        assert_eq!(done("DROP", &[IN]), Some(half.to_vec()));
        println!("those of another bridge are none of ours");
        assert_eq!(
            done("DROP", &[IN, OUT].map(|it| it.replace("b0", "b01")).each_ref().map(|it| &**it)),
            put("FORWARD", 3)
        );
    }

    #[test]
    fn rules_are_taken_out_by_what_they_are() {
        assert_eq!(withdrawal("-P FORWARD DROP\n-A FORWARD -j DROP", "b0"), None);
        let saved = format!("-P FORWARD DROP\n-A FORWARD -j DROP\n{IN}");
        assert_eq!(
            withdrawal(&saved, "b0").as_deref(),
            Some(&*format!("*filter\n{}\nCOMMIT\n", IN.replace("-A", "-D")))
        );
    }
}
