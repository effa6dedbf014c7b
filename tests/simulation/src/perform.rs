//! Performs the steps of a schedule.

use std::{collections::BTreeSet, fs, io, time::Duration};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use stanchion_agent::handle::Request;
use stanchion_pod::PodKey;
use stanchion_runtime::{
    ContainerId, SandboxId,
    testing::{Fault, Hold, Method, When},
};
use tokio::{task::yield_now, time::timeout};

use crate::{
    ledger::Ledger,
    node::{Node, source},
    pod::{Pod, Role},
    schedule::{BACKENDS, End, Fate, HowAgentEnds, PODS, SOURCES, Step},
    world::{Cause, Trouble, World},
};

/// Longest wait for the call in which the agent is to be killed.
const UNTIL_CALL: Duration = Duration::from_secs(60);

/// A node and its books, while a schedule is performed.
#[derive(Debug)]
pub struct Stage {
    /// The node.
    pub node: Node,
    /// What the schedule wants of it.
    pub world: World,
    /// What its runtimes did.
    pub ledger: Ledger,
    /// Panics of agents.
    pub panics: Vec<String>,
    /// Runtimes whose events are lost.
    pub muted: BTreeSet<usize>,
    /// UIDs of the pods that procfs shows processes of.
    pub processes: BTreeSet<String>,
}

impl Stage {
    /// Performs a step. One that cannot be done now is left out.
    ///
    /// # Errors
    /// The test's own files cannot be written.
    pub async fn perform(&mut self, step: &Step) -> io::Result<()> {
        match step {
            Step::Write(pod) => self.write(pod.clone())?,
            Step::Touch(pod) => self.touch(*pod)?,
            Step::Typo(pod) => self.typo(*pod)?,
            Step::Remove(pod) => self.remove(*pod)?,
            Step::LoseSource(of) => self.lose_source(*of)?,
            Step::FindSource(of) => self.find_source(*of)?,
            Step::Exit(which, end) => self.exit(*which, *end),
            Step::LoseSandbox(which) => self.lose_sandbox(*which),
            Step::GoAway(backend, fate) => self.go_away(*backend, *fate),
            Step::ComeBack(backend) => self.come_back(*backend),
            Step::Fail { backend, method, nth, kind, is_done } => {
                let fault = if *is_done { Fault::lose_answer(*kind) } else { Fault::fail(*kind) };
                self.fault(*backend, *method, *nth, fault);
            }
            Step::Hang { backend, method, nth, is_done } => {
                let hold = self.hold(*backend);
                let fault = if *is_done { Fault::HangAfter(hold) } else { Fault::Hang(hold) };
                self.fault(*backend, *method, *nth, fault);
            }
            Step::HangAll(backend) => self.hang_all(*backend),
            Step::Slow(backend, seconds) => self.slow(*backend, *seconds),
            Step::Heal(backend) => self.heal(*backend),
            Step::Mute(backend) => {
                self.node.fakes[*backend].mute_events(true);
                self.muted.insert(*backend);
                self.world.begin(Trouble::Faulty(*backend));
            }
            Step::Unpublish(pod) => self.unpublish(*pod),
            Step::Publish => self.publish(),
            Step::Answer { pod, command, is_good } => self.answer(*pod, command, *is_good),
            Step::Restart(pod) => self.restart(*pod).await,
            Step::End(how) => self.end(*how).await,
            Step::Start => self.start()?,
            Step::SetClock(hours) => {
                self.node.set_clock(*hours);
                self.world.set_clock();
            }
            Step::FillDisk => self.set_disk(true),
            Step::FreeDisk => self.set_disk(false),
        }
        Ok(())
    }

    /// Shows the agent the processes of running containers.
    ///
    /// # Errors
    /// Their files cannot be written.
    pub fn show_processes(&mut self) -> io::Result<()> {
        let running = self.ledger.containers.values().filter(|it| it.runs());
        let running: BTreeSet<_> = running.map(|it| it.uid.clone()).collect();
        if running != self.processes {
            with_disk(|| self.node.show_processes(running.iter().map(String::as_str)))?;
            self.processes = running;
        }
        Ok(())
    }

    /// Ends the troubles of runtimes whose faults have all struck.
    pub fn lapse(&mut self) {
        let fakes = &self.node.fakes;
        let may_hang = |of: usize, hold: &Hold| fakes[of].has_faults() || !hold.is_reached() || hold.hanging() > 0;
        self.node.holds.retain(|(of, hold)| may_hang(*of, hold));
        for backend in 0..self.node.fakes.len() {
            let is_held = self.node.holds.iter().any(|(of, _)| *of == backend);
            if !is_held && !self.muted.contains(&backend) && !self.node.fakes[backend].has_faults() {
                self.world.end(Trouble::Faulty(backend));
            }
        }
    }

    fn has_source(&self, pod: usize) -> bool {
        !self.world.troubles.contains(&Trouble::NoSource(World::source_of(pod)))
    }

    /// Writes a manifest, by rename.
    pub fn write(&mut self, manifest: Pod) -> io::Result<()> {
        let pod = PODS.iter().position(|name| *name == manifest.name).unwrap_or_default();
        if !self.has_source(pod) {
            return Ok(());
        }
        for fake in &self.node.fakes {
            fake.publish(&manifest.image(), 1000);
        }
        self.world.end(Trouble::NoImage(pod));
        put(pod, &manifest.to_string())?;
        self.world.want(pod, Some(manifest));
        Ok(())
    }

    fn touch(&mut self, pod: usize) -> io::Result<()> {
        let is_there = self.has_source(pod) && !self.world.troubles.contains(&Trouble::Typo(pod));
        match self.world.latest(pod) {
            Some(manifest) if is_there => put(pod, &format!("{manifest}# a comment\n")),
            _ => Ok(()),
        }
    }

    fn typo(&mut self, pod: usize) -> io::Result<()> {
        let Some(manifest) = self.world.latest(pod).filter(|_| self.has_source(pod)) else { return Ok(()) };
        put(pod, &manifest.to_string().replace("spec:", "sepc:"))?;
        self.world.begin(Trouble::Typo(pod));
        Ok(())
    }

    /// Removes a manifest.
    pub fn remove(&mut self, pod: usize) -> io::Result<()> {
        if self.world.latest(pod).is_none() || !self.has_source(pod) {
            return Ok(());
        }
        fs::remove_file(source(World::source_of(pod)).join(format!("{}.yaml", PODS[pod])))?;
        self.world.want(pod, None);
        Ok(())
    }

    fn lose_source(&mut self, of: usize) -> io::Result<()> {
        if self.world.troubles.contains(&Trouble::NoSource(of)) {
            return Ok(());
        }
        fs::rename(source(of), away(of))?;
        self.world.begin(Trouble::NoSource(of));
        Ok(())
    }

    fn find_source(&mut self, of: usize) -> io::Result<()> {
        if self.world.end(Trouble::NoSource(of)) { fs::rename(away(of), source(of)) } else { Ok(()) }
    }

    fn exit(&mut self, which: u64, end: End) {
        let running: Vec<_> = self.ledger.containers.iter().filter(|(_, it)| it.runs()).collect();
        let Some((key, it)) = nth(&running, which) else { return };
        let Some(fake) = self.node.fakes.get(backend_of(&key.0)) else { return };
        let (id, pod): (&ContainerId, usize) = (&key.1, it.pod);
        match end {
            End::Code(code) => fake.exit(id, code),
            End::OutOfMemory => fake.oom(id),
            End::Lost => fake.lose_container(id),
        }
        self.world.disturb(pod);
    }

    fn lose_sandbox(&mut self, which: u64) {
        let ready: Vec<_> = self.ledger.sandboxes.iter().filter(|(_, it)| it.is_ready).collect();
        let Some((key, it)) = nth(&ready, which) else { return };
        let Some(fake) = self.node.fakes.get(backend_of(&key.0)) else { return };
        let (id, pod): (&SandboxId, usize) = (&key.1, it.pod);
        fake.lose_sandbox(id, "lost by the schedule");
        self.world.cause(pod, Cause::Sandbox);
    }

    fn go_away(&mut self, backend: usize, fate: Fate) {
        let fake = &self.node.fakes[backend];
        fake.set_available(false);
        match fate {
            Fate::RunOn => {}
            Fate::End => fake.reboot(),
            Fate::Wiped => fake.wipe(),
        }
        if fate != Fate::RunOn {
            let here = self.ledger.sandboxes.iter().filter(|(key, _)| backend_of(&key.0) == backend);
            here.for_each(|(_, it)| self.world.cause(it.pod, Cause::Sandbox));
        }
        self.world.may_move();
        self.world.begin(Trouble::Away(backend));
    }

    fn come_back(&mut self, backend: usize) {
        self.node.fakes[backend].set_available(true);
        self.world.end(Trouble::Away(backend));
        self.world.may_move();
    }

    fn fault(&mut self, backend: usize, method: Method, nth: u32, fault: Fault) {
        self.node.fakes[backend].fault(method, When::Nth(nth), fault);
        if method == Method::Exec {
            self.sicken();
        }
        if method == Method::List {
            self.world.may_move();
        }
        self.world.begin(Trouble::Faulty(backend));
    }

    /// Notes that probes and hooks may fail.
    fn sicken(&mut self) {
        self.world.pods().for_each(|pod| self.world.cause(pod, Cause::Sick));
    }

    fn hold(&mut self, backend: usize) -> Hold {
        let hold = Hold::new();
        self.node.holds.push((backend, hold.clone()));
        hold
    }

    fn hang_all(&mut self, backend: usize) {
        let hold = self.hold(backend);
        for method in Method::ALL {
            self.node.fakes[backend].fault(method, When::Always, Fault::Hang(hold.clone()));
        }
        self.sicken();
        self.world.may_move();
        self.world.begin(Trouble::Faulty(backend));
    }

    fn slow(&mut self, backend: usize, seconds: u64) {
        self.node.fakes[backend].slow_down(Duration::from_secs(seconds));
        self.sicken();
        self.world.may_move();
        self.world.begin(Trouble::Faulty(backend));
    }

    fn heal(&mut self, backend: usize) {
        self.node.heal(backend);
        self.muted.remove(&backend);
        self.world.end(Trouble::Faulty(backend));
    }

    fn unpublish(&mut self, pod: usize) {
        let Some(image) = self.world.latest(pod).map(Pod::image) else { return };
        for fake in &self.node.fakes {
            fake.unpublish(&image);
        }
        self.world.begin(Trouble::NoImage(pod));
    }

    fn publish(&mut self) {
        for pod in self.world.pods() {
            if let Some(image) = self.world.latest(pod).map(Pod::image)
                && self.world.end(Trouble::NoImage(pod))
            {
                self.node.fakes.iter().for_each(|fake| drop(fake.publish(&image, 1000)));
            }
        }
    }

    fn answer(&mut self, pod: usize, command: &'static str, is_good: bool) {
        for (fake, role) in self.node.fakes.iter().flat_map(|fake| Role::ALL.map(|role| (fake, role))) {
            fake.exec_answer(&crate::pod::container(role, PODS[pod]), &[command], i32::from(!is_good), "");
        }
        let trouble = Trouble::Answer(pod, command);
        if is_good {
            self.world.end(trouble);
        } else {
            self.world.begin(trouble);
        }
        self.world.answer(pod, command, is_good);
    }

    async fn restart(&mut self, pod: usize) {
        let Some(handle) = self.node.handle() else { return };
        let key = PodKey { namespace: "default".to_owned(), name: format!("{}-node", PODS[pod]) };
        handle.request(Request::Restart { pod: key, container: None }).await;
        self.world.cause(pod, Cause::Asked);
    }

    async fn end(&mut self, how: HowAgentEnds) {
        if self.node.handle().is_none() {
            return;
        }
        let is_killed = how != HowAgentEnds::Orderly;
        match how {
            HowAgentEnds::Orderly => {}
            HowAgentEnds::Killed(turns) => {
                for _ in 0..turns {
                    yield_now().await;
                }
            }
            HowAgentEnds::InCall { backend, method, is_done } => {
                let fake = &self.node.fakes[backend];
                let hold =
                    if is_done { fake.hang_after(method, When::Nth(1)) } else { fake.hang(method, When::Nth(1)) };
                timeout(UNTIL_CALL, hold.reached()).await.ok();
                let panic = self.node.end(is_killed).await;
                self.panics.extend(panic);
                // A hold that no call has reached must not strike the next agent.
                hold.release();
            }
        }
        let panic = self.node.end(is_killed).await;
        self.panics.extend(panic);
        self.world.begin(Trouble::NoAgent);
    }

    /// Starts an agent, if none runs.
    ///
    /// # Errors
    /// See [`Node::start`].
    pub fn start(&mut self) -> io::Result<()> {
        self.node.start()?;
        self.world.end(Trouble::NoAgent);
        Ok(())
    }

    fn set_disk(&mut self, is_full: bool) {
        limit_files(is_full);
        if is_full {
            self.world.begin(Trouble::FullDisk);
        } else {
            self.world.end(Trouble::FullDisk);
        }
    }

    /// Says in each source without a manifest that it is meant to be empty: an agent that could not keep which directory had the manifests takes an
    /// empty one for a file system that is not mounted.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn mean_it(&self) -> io::Result<()> {
        let is_used =
            |of: usize| self.world.pods().any(|pod| World::source_of(pod) == of && self.world.latest(pod).is_some());
        (0..SOURCES).filter(|of| !is_used(*of)).try_for_each(|of| fs::write(source(of).join(".empty"), ""))
    }

    /// Ends all troubles.
    ///
    /// # Errors
    /// The test's own files cannot be written.
    pub fn end_troubles(&mut self, version: &mut u64) -> io::Result<()> {
        self.set_disk(false);
        (0..SOURCES).try_for_each(|of| self.find_source(of))?;
        for backend in 0..self.node.fakes.len() {
            self.come_back(backend);
            self.heal(backend);
        }
        self.publish();
        for pod in self.world.pods() {
            crate::node::COMMANDS.into_iter().for_each(|command| self.answer(pod, command, true));
            if self.world.troubles.contains(&Trouble::Typo(pod))
                && let Some(manifest) = self.world.latest(pod).cloned()
            {
                *version += 1;
                self.write(Pod { version: *version, ..manifest })?;
            }
        }
        if self.world.was_full {
            self.mean_it()?;
        }
        self.start()
    }
}

/// Writes the file of a pod.
fn put(pod: usize, content: &str) -> io::Result<()> {
    let directory = source(World::source_of(pod));
    let (draft, file) = (directory.join(".draft"), directory.join(format!("{}.yaml", PODS[pod])));
    with_disk(|| {
        fs::write(&draft, content)?;
        fs::rename(&draft, &file)
    })
}

/// Makes every write to a file fail, as on a full disk, or ends that.
fn limit_files(is_full: bool) {
    let maximum = getrlimit(Resource::Fsize).maximum;
    let current = if is_full { Some(0) } else { maximum };
    setrlimit(Resource::Fsize, Rlimit { current, maximum }).expect("a process may lower its own limit");
}

/// Does the test's own work on files, which has space on a full disk.
fn with_disk<T>(work: impl FnOnce() -> T) -> T {
    let is_full = getrlimit(Resource::Fsize).current == Some(0);
    limit_files(false);
    let done = work();
    limit_files(is_full);
    done
}

fn away(of: usize) -> std::path::PathBuf {
    std::path::Path::new("away").join(source(of))
}

fn nth<T: Copy>(of: &[T], which: u64) -> Option<T> {
    let length = u64::try_from(of.len()).unwrap_or(1).max(1);
    of.get(usize::try_from(which % length).unwrap_or_default()).copied()
}

/// Returns the index of a runtime.
fn backend_of(runtime: &str) -> usize {
    BACKENDS.iter().position(|name| *name == runtime).expect("every fake has the name of a backend")
}
