//! Choice of the next deed.

use std::str::FromStr;

use anyhow::bail;

use crate::random::Random;

/// Action of a round on the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    /// Writes the manifest of a pod that has none; if all have one, changes one.
    Add,
    /// Writes another revision of a pod.
    Change,
    /// Puts a typo into a manifest whose pod runs.
    Break,
    /// Removes a manifest.
    Remove,
    /// Renames the manifest directory away and back.
    Away,
    /// Kills the agent.
    KillAgent,
    /// Kills the runtime's daemon.
    KillRuntime,
    /// Kills the shim of a pod's container.
    KillShim,
    /// Kills the program that writes a container's log.
    KillLogger,
    /// Kills the first process of a container.
    KillContainer,
    /// Sets the agent's clock.
    Clock,
    /// Fills the file system of the agent's state until the round ends.
    Disk,
    /// Removes the agent's tables from the packet filter.
    Firewall,
    /// Runs a hostile pod for one round.
    Hostile,
    /// Puts a hostile archive into `preload` for one round.
    Archive,
}

/// Deeds that can be left out together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Changes of manifests and of their directory.
    Edits,
    /// Kills of every kind.
    Kills,
    /// Changes of the agent's clock.
    Clock,
    /// Full disk.
    Disk,
    /// Removal of the agent's packet filter tables.
    Firewall,
    /// Hostile pods.
    Hostile,
    /// Hostile archives.
    Archives,
}

impl Group {
    /// Every group, with its name.
    pub const ALL: [(&str, Self); 7] = [
        ("edits", Self::Edits),
        ("kills", Self::Kills),
        ("clock", Self::Clock),
        ("disk", Self::Disk),
        ("firewall", Self::Firewall),
        ("hostile", Self::Hostile),
        ("archives", Self::Archives),
    ];
}

impl FromStr for Group {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let Some((_, group)) = Self::ALL.iter().find(|(name, _)| *name == text) else {
            bail!("no deeds {text:?}: there are {}", Self::ALL.map(|(name, _)| name).join(", "))
        };
        Ok(*group)
    }
}

/// Number of cards of each deed in a deck, and its group.
const CARDS: [(Deed, Group, usize); 15] = [
    (Deed::Add, Group::Edits, 4),
    (Deed::Change, Group::Edits, 4),
    (Deed::Break, Group::Edits, 2),
    (Deed::Remove, Group::Edits, 2),
    (Deed::Away, Group::Edits, 1),
    (Deed::KillAgent, Group::Kills, 4),
    (Deed::KillRuntime, Group::Kills, 2),
    (Deed::KillShim, Group::Kills, 2),
    (Deed::KillLogger, Group::Kills, 1),
    (Deed::KillContainer, Group::Kills, 2),
    (Deed::Clock, Group::Clock, 2),
    (Deed::Disk, Group::Disk, 1),
    (Deed::Firewall, Group::Firewall, 1),
    (Deed::Hostile, Group::Hostile, 3),
    (Deed::Archive, Group::Archives, 1),
];

/// Deeds in random order, each as often as [`CARDS`] says; then a new deck begins. So even a short run does everything.
#[derive(Debug)]
pub(super) struct Deck {
    cards: Vec<Deed>,
    left: Vec<Deed>,
    /// Number of decks begun.
    begun: u64,
}

impl Deck {
    pub(super) fn new(without: &[Group], has_loggers: bool) -> Self {
        let wanted = CARDS.iter().filter(|(deed, group, _)| {
            !without.contains(group) && (has_loggers || !matches!(deed, Deed::KillLogger | Deed::Firewall))
        });
        let cards = wanted.flat_map(|(deed, _, count)| std::iter::repeat_n(*deed, *count)).collect();
        Self { cards, left: Vec::new(), begun: 0 }
    }

    /// Draws the next deed. Every second deck does not kill the agent, so that its leaks add up.
    pub(super) fn draw(&mut self, random: &mut Random) -> Deed {
        if self.left.is_empty() {
            self.left = self.cards.clone();
            self.begun += 1;
            if self.begun.is_multiple_of(2) {
                self.left.retain(|deed| *deed != Deed::KillAgent);
            }
        }
        if self.left.is_empty() {
            return Deed::Change;
        }
        self.left.swap_remove(random.index(self.left.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::{CARDS, Deck, Deed, Group};
    use crate::random::Random;

    #[test]
    fn a_deck_has_every_deed_and_a_seed_its_order() {
        let total: usize = CARDS.iter().map(|(_, _, count)| count).sum();
        let draw = |seed| {
            let (mut deck, mut random) = (Deck::new(&[], true), Random::new(seed));
            (0..total).map(|_| deck.draw(&mut random)).collect::<Vec<_>>()
        };
        let first = draw(1);
        assert_eq!(first, draw(1));
        assert_ne!(first, draw(2));
        for (deed, _, count) in CARDS {
            assert_eq!(first.iter().filter(|it| **it == deed).count(), count, "{deed:?}");
        }
    }

    #[test]
    fn groups_are_left_out() {
        let (mut deck, mut random) = (Deck::new(&[Group::Kills, Group::Clock], true), Random::new(1));
        let drawn: Vec<_> = (0..100).map(|_| deck.draw(&mut random)).collect();
        assert!(!drawn.iter().any(|deed| matches!(deed, Deed::KillAgent | Deed::KillShim | Deed::Clock)));
        assert!(drawn.contains(&Deed::Firewall));
    }
}
