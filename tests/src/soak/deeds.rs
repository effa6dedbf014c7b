//! Actions of a round on the node.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    time::Duration,
};

use anyhow::{Context as _, Result};

use super::{
    Archive, Deed, Soak, Wanted, is_absent,
    subjects::{self, BYSTANDER, Hostile, NAMES},
};
use crate::{process, tools, wait::pause};

/// Farthest that the agent's clock is from the machine's: 8 hours, in seconds.
const FARTHEST: u64 = 8 * 3600;

/// Time limit of `nft`.
const NFT: Duration = Duration::from_secs(20);

impl Soak {
    pub(super) fn perform(&mut self, deed: Deed) -> Result<()> {
        match deed {
            Deed::Add => self.add_one(),
            Deed::Change => self.change_one(),
            Deed::Break => self.break_one(),
            Deed::Remove => self.remove_one(),
            Deed::Away => self.rename_away(),
            Deed::KillAgent => self.kill_agent(),
            Deed::KillRuntime => self.kill_runtime(),
            Deed::KillShim => self.kill_shim(),
            Deed::KillLogger => self.kill_logger(),
            Deed::KillContainer => self.kill_container(),
            Deed::Clock => self.set_clock(),
            Deed::Disk => self.fill_disk(),
            Deed::Firewall => self.flush_tables(),
            Deed::Hostile => self.add_hostile(),
            Deed::Archive => self.add_archive(),
        }
    }

    /// Picks one of the edited pods for which `fits` returns true.
    pub(super) fn pick(&mut self, fits: impl Fn(&Self, &str) -> bool) -> Option<&'static str> {
        let fitting: Vec<_> = NAMES.into_iter().filter(|name| fits(self, name)).collect();
        (!fitting.is_empty()).then(|| self.random.pick(&fitting))
    }

    fn revision(&mut self) -> u64 {
        self.next_revision += 1;
        self.next_revision
    }

    /// Writes a new revision of a well-behaved pod.
    pub(super) fn add(&mut self, pod: &str) -> Result<()> {
        let revision = self.revision();
        let kind = if self.wanted.contains_key(pod) { "changed" } else { "added" };
        self.journal.note(kind, &format!("{pod}, revision {revision}"))?;
        let port = subjects::port(self.node.names(), self.options.runtime, pod);
        self.node.write(&file(pod), subjects::good(self.node.names(), port, pod, revision))?;
        self.wanted.insert(pod.to_owned(), Wanted::new(subjects::Expected::Runs(revision), port));
        Ok(())
    }

    fn add_one(&mut self) -> Result<()> {
        match self.pick(|soak, name| !soak.wanted.contains_key(name)) {
            Some(pod) => self.add(pod),
            None => self.change_one(),
        }
    }

    fn change_one(&mut self) -> Result<()> {
        match self.pick(|soak, name| soak.wanted.contains_key(name)) {
            Some(pod) => self.add(pod),
            None => self.add_one_of_none(),
        }
    }

    fn add_one_of_none(&mut self) -> Result<()> {
        self.add(NAMES[0])
    }

    /// Breaks the manifest of a pod whose good manifest has been executed: with others it is chance whether the agent
    /// has seen the good one.
    fn break_one(&mut self) -> Result<()> {
        let Some(pod) = self.pick(|soak, name| soak.wanted.get(name).is_some_and(|wanted| wanted.is_settled)) else {
            return self.add_one();
        };
        let path = self.node.manifest(&file(pod));
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        self.journal.note("broken", pod)?;
        self.node.write(&file(pod), text.replacen("\"image\"", "\"imge\"", 1))
    }

    fn remove_one(&mut self) -> Result<()> {
        let Some(pod) = self.pick(|soak, name| soak.wanted.contains_key(name)) else { return self.add_one() };
        self.remove(pod)
    }

    fn remove(&mut self, pod: &str) -> Result<()> {
        self.journal.note("removed", pod)?;
        self.node.remove(&file(pod))?;
        self.wanted.remove(pod);
        Ok(())
    }

    /// Removes the pods and archives that were meant for one round only.
    pub(super) fn dismiss(&mut self) -> Result<()> {
        let guests = self.wanted.iter().filter(|(_, wanted)| wanted.is_guest).map(|(pod, _)| pod.clone());
        for pod in guests.collect::<Vec<_>>() {
            self.remove(&pod)?;
        }
        for archive in std::mem::take(&mut self.archives) {
            let path = self.node.path("preload").join(&archive);
            self.journal.say("archive removed", &archive)?;
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
        Ok(())
    }

    /// Removes every pod's manifest.
    pub(super) fn remove_all(&mut self) -> Result<()> {
        self.dismiss()?;
        for pod in NAMES.into_iter().chain([BYSTANDER]) {
            if self.wanted.contains_key(pod) {
                self.remove(pod)?;
            }
        }
        Ok(())
    }

    fn rename_away(&mut self) -> Result<()> {
        let (home, away) = (self.node.path("manifests"), self.node.path("manifests-away"));
        let moment = self.random.moment(10..2500);
        self.journal.note("directory renamed away", &format!("for {moment:?}"))?;
        fs::rename(&home, &away).context("cannot rename the manifest directory")?;
        pause(moment);
        fs::rename(&away, &home).context("cannot rename the manifest directory back")
    }

    fn set_clock(&mut self) -> Result<()> {
        let seconds = i64::try_from(self.random.below(2 * FARTHEST))? - i64::try_from(FARTHEST)?;
        self.journal.note("clock set", &format!("{seconds:+} s from the machine's"))?;
        self.clock.set(seconds)
    }

    fn fill_disk(&mut self) -> Result<()> {
        self.journal.note("disk filled", "")?;
        self.is_full = true;
        let mut filler = File::create(self.filler()).context("cannot create the file that fills the disk")?;
        for size in [1 << 20, 4096, 1] {
            let chunk = vec![0; size];
            // The file system has 64 MiB, so this loop ends with a full disk.
            for _ in 0..65_536 {
                match filler.write_all(&chunk) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
                    Err(error) => return Err(error).context("cannot fill the disk"),
                }
            }
        }
        Ok(())
    }

    fn filler(&self) -> std::path::PathBuf {
        self.node.path("state/filler")
    }

    pub(super) fn free_disk(&mut self) -> Result<()> {
        if self.is_full {
            self.journal.say("disk freed", "")?;
            fs::remove_file(self.filler()).context("cannot free the disk")?;
            self.is_full = false;
        }
        Ok(())
    }

    /// Removes the agent's packet filter tables, as `nft flush ruleset` would; the machine's other tables stay.
    fn flush_tables(&mut self) -> Result<()> {
        let bridge = self.node.names().bridge.clone();
        let tables = process::text(tools::command("nft")?.args(["list", "tables"]))?;
        for line in tables.lines().filter(|line| line.ends_with(&format!("_{bridge}"))) {
            self.journal.note("firewall flushed", line)?;
            let words: Vec<_> = line.split_whitespace().collect();
            // The agent may change the table at this moment.
            process::output(tools::command("nft")?.arg("delete").args(words), NFT)?;
        }
        Ok(())
    }

    fn add_hostile(&mut self) -> Result<()> {
        let hostile = Hostile::pick(&mut self.random);
        let revision = self.revision();
        let pod = hostile.name();
        self.journal.note("hostile pod", pod)?;
        self.node.write(&file(pod), hostile.manifest(revision))?;
        let mut wanted = Wanted::new(hostile.expected(revision), None);
        wanted.is_guest = true;
        self.wanted.insert(pod.to_owned(), wanted);
        Ok(())
    }

    fn add_archive(&mut self) -> Result<()> {
        let kind = self.random.pick(&Archive::ALL);
        let name = format!("hostile-{}.tar", self.revision());
        self.journal.note("hostile archive", &format!("{name}, {kind:?}"))?;
        let fixtures = self.node.fixtures.as_ref().context("a node with fixtures")?;
        let draft = self.node.path(&name);
        kind.write(fixtures, &draft)?;
        let path = self.node.path("preload").join(&name);
        fs::rename(&draft, &path).with_context(|| format!("cannot write {}", path.display()))?;
        self.archives.push(name);
        Ok(())
    }

    /// Restarts an agent that has ended by itself, as a service manager does, and records a fault; starts one if none
    /// runs.
    pub(super) fn look_after_the_agent(&mut self) -> Result<()> {
        if let Some(status) = self.node.agent.ended()? {
            self.fault(format!("the agent ended by itself ({status})"));
            self.node.agent.forget();
        }
        if self.node.agent.id().is_none() {
            self.node.agent.launch()?;
        }
        Ok(())
    }

    /// Returns whether the manifest directory is in its place and the disk is free, as every round must leave them.
    pub(super) fn is_home(&self) -> bool {
        is_absent(&self.node.path("manifests-away")) && !self.is_full
    }
}

pub(super) fn file(pod: &str) -> String {
    format!("{pod}.yaml")
}
