//! Kills with SIGKILL, each of a process of this node, by its pid.

use anyhow::Result;
use rustix::process::Signal;

use super::{Soak, subjects::Expected};
use crate::{ctr::Running, pods, proc, process, remains, wait::pause};

/// Most kills of one revision of a pod: its second restart waits for 10 s, the third would wait for 20 s.
const MOST_KILLS: u32 = 2;

impl Soak {
    pub(super) fn kill_agent(&mut self) -> Result<()> {
        let away = self.random.moment(0..1500);
        self.journal.note("killed: agent", &format!("away for {away:?}"))?;
        self.node.agent.kill()?;
        pause(away);
        self.node.agent.launch()
    }

    pub(super) fn kill_runtime(&mut self) -> Result<()> {
        let away = self.random.moment(0..2000);
        self.journal.note("killed: runtime", &format!("away for {away:?}"))?;
        self.node.end_runtime(Signal::KILL)?;
        pause(away);
        self.node.resume_runtime()?;
        if self.keeps_containers() { Ok(()) } else { self.all_were_killed() }
    }

    /// Counts a kill for every pod, and edits the pods that would wait too long for their next start.
    fn all_were_killed(&mut self) -> Result<()> {
        let mut weary = Vec::new();
        for (pod, wanted) in &mut self.wanted {
            wanted.kills += 1;
            if wanted.kills > MOST_KILLS && !wanted.is_guest {
                weary.push(pod.clone());
            }
        }
        weary.iter().try_for_each(|pod| self.add(pod))
    }

    /// Picks a pod that may still be killed, counts the kill, and returns its running container.
    fn victim(&mut self) -> Result<Option<(String, Running)>> {
        let fits = |soak: &Self, name: &str| {
            soak.wanted
                .get(name)
                .is_some_and(|wanted| matches!(wanted.expected, Expected::Runs(_)) && wanted.kills < MOST_KILLS)
        };
        let Some(pod) = self.pick(fits) else { return Ok(None) };
        // The pod may still be starting.
        let Some(running) = self.running_of(pod)? else { return Ok(None) };
        if let Some(wanted) = self.wanted.get_mut(pod) {
            wanted.kills += 1;
        }
        Ok(Some((pod.to_owned(), running)))
    }

    /// Returns a running container of a pod; `None` also when the runtime cannot answer.
    pub(super) fn running_of(&self, pod: &str) -> Result<Option<Running>> {
        Ok(self.node.view().of_pod(&pods::on_node(pod)).unwrap_or_default().pop())
    }

    pub(super) fn kill_container(&mut self) -> Result<()> {
        let Some((pod, running)) = self.victim()? else { return Ok(()) };
        self.journal.note("killed: container", &format!("{pod}, pid {}", running.pid))?;
        // The container may have ended since.
        running.kill().ok();
        Ok(())
    }

    pub(super) fn kill_shim(&mut self) -> Result<()> {
        let Some((pod, running)) = self.victim()? else { return Ok(()) };
        let Some(shim) = proc::parent(running.pid)? else { return Ok(()) };
        let is_shim = |pid: u32| {
            let ours = remains::processes(self.node.names()).unwrap_or_default();
            ours.iter().any(|seen| seen.pid == pid && seen.command.contains("containerd-shim"))
        };
        if is_shim(shim) {
            self.journal.note("killed: shim", &format!("of {pod}, pid {shim}"))?;
            process::kill(shim).ok();
        }
        Ok(())
    }

    pub(super) fn kill_logger(&mut self) -> Result<()> {
        let ours = remains::processes(self.node.names())?;
        let loggers: Vec<_> = ours.iter().filter(|seen| seen.command.contains("stanchion-logger")).collect();
        if loggers.is_empty() {
            return Ok(());
        }
        let logger = self.random.pick(&loggers);
        self.journal.note("killed: logger", &format!("pid {}: {}", logger.pid, logger.command))?;
        process::kill(logger.pid).ok();
        Ok(())
    }
}
