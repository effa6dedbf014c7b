//! Task of one probe of one container: runs the probe, counts successes and failures, and reports a changed result.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use stanchion_board::{EventLog, Subject};
use stanchion_plan::{
    lifecycle::ProbeKind,
    mutant::{self, Mutant},
};
use stanchion_pod::{Check, Probe};
use stanchion_runtime::{ContainerId, Descendants, Runtime};
use tokio::{sync::mpsc, time::timeout};

use crate::{
    clock::sleep_until,
    contact::{error::ContactError, exec, grpc, http, tcp, user_agent},
    node::ContactAddress,
};

/// Number of attempts, one right after another, of a probe that could not be run (R-PRB-11).
const TRIES: usize = 3;
/// Length of a slot. Probes run at the beginning of a slot, so that the agent wakes once for all that are due, which is
/// much cheaper.
const SLOT: Duration = Duration::from_millis(200);

/// Result of a hook or a probe of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LifecycleUpdate {
    pub container: ContainerId,
    pub outcome: Outcome,
}

/// Outcome of a hook or a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// End of the `postStart` hook, with an error message if it failed.
    Hook(Result<(), String>),
    /// New result of a probe; `true` means success.
    Probe(ProbeKind, bool),
}

/// A probe and everything that it needs.
pub(crate) struct Prober<R> {
    pub runtime: Arc<R>,
    pub container: ContainerId,
    pub address: ContactAddress,
    pub kind: ProbeKind,
    pub probe: Probe,
    pub subject: Subject,
    pub events: Arc<EventLog>,
    pub sender: mpsc::Sender<LifecycleUpdate>,
    /// Time of the first run.
    pub first: Instant,
    /// Result that is known before the first run (R-PRB-2, R-RST-4).
    pub known: Option<bool>,
}

/// Result of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
enum AttemptResult {
    Good,
    /// Success, with a warning.
    Doubtful(String),
    Bad(String),
    /// The probe could not be run.
    Broken(String),
}

impl AttemptResult {
    /// Returns the result of a failed request. If the request could not be sent, it says nothing about the container.
    fn of(error: &ContactError) -> Self {
        match error {
            ContactError::UnknownPort(_) => Self::Broken(error.to_string()),
            _ => Self::Bad(error.to_string()),
        }
    }
}

impl<R: Runtime> Prober<R> {
    /// Runs the probe until it is dropped, or its result is final.
    pub async fn run(self) {
        let mut known = self.known;
        let mut run = (None, 0);
        let mut due = self.first;
        loop {
            sleep_until(due).await;
            let answer = self.run_with_retries().await;
            due = self.after(due);
            let Some(good) = answer else { continue };
            run = if run.0 == Some(good) { (run.0, run.1 + 1) } else { (Some(good), 1) };
            let threshold = if good { self.probe.success_threshold } else { self.probe.failure_threshold };
            if run.1 < threshold || known == Some(good) {
                continue;
            }
            known = Some(good);
            let update =
                LifecycleUpdate { container: self.container.clone(), outcome: Outcome::Probe(self.kind, good) };
            let is_last = self.kind == ProbeKind::Startup || (self.kind == ProbeKind::Liveness && !good);
            // The worker has ended, as the container is gone.
            if self.sender.send(update).await.is_err() || is_last {
                return;
            }
        }
    }

    /// Returns the time of the next run. Runs are skipped if the last one took too long for them.
    fn after(&self, last: Instant) -> Instant {
        let mut next = next_slot(last + self.probe.period);
        while next < crate::clock::instant() {
            next += self.probe.period;
        }
        next
    }

    /// Runs the probe. Returns whether it succeeded; `None` if it could not be run.
    async fn run_with_retries(&self) -> Option<bool> {
        let mut tries = 1;
        let answer = loop {
            match self.attempt().await {
                AttemptResult::Broken(_) if tries < TRIES => tries += 1,
                answer => break answer,
            }
        };
        let name = self.kind.name();
        let unknown = mutant::is_on(Mutant::DoubtsProbes).then_some(false);
        let (reason, message, good) = match answer {
            AttemptResult::Good => return Some(true),
            AttemptResult::Doubtful(why) => ("ProbeWarning", format!("{name} probe warning: {why}"), Some(true)),
            AttemptResult::Bad(why) => ("Unhealthy", format!("{name} probe failed: {why}"), Some(false)),
            AttemptResult::Broken(why) => {
                ("Unhealthy", format!("{name} probe errored and resulted in unknown state: {why}"), unknown)
            }
        };
        self.events.warning(&self.subject, reason, message);
        good
    }

    async fn attempt(&self) -> AttemptResult {
        let limit = self.probe.timeout;
        match &self.probe.check {
            Check::Exec(command) => self.exec(command, limit).await,
            Check::Http(get) => match http::get(get, self.address.current(), &user_agent("probe"), limit).await {
                Ok(answer) if answer.status.is_redirection() => {
                    AttemptResult::Doubtful(format!("Probe terminated redirects, Response body: {}", answer.body))
                }
                Ok(answer) if (200..400).contains(&answer.status.as_u16()) => AttemptResult::Good,
                Ok(answer) => {
                    AttemptResult::Bad(format!("HTTP probe failed with statuscode: {}", answer.status.as_u16()))
                }
                Err(error) => AttemptResult::of(&error),
            },
            Check::Tcp(to) => match tcp::connect(to, self.address.current(), limit).await {
                Ok(()) => AttemptResult::Good,
                Err(error) => AttemptResult::of(&error),
            },
            Check::Grpc { port, service } => grpc::check(self.address.current(), *port, service, limit)
                .await
                .map_or_else(AttemptResult::Bad, |()| AttemptResult::Good),
        }
    }

    async fn exec(&self, command: &[String], limit: Duration) -> AttemptResult {
        let ran = exec::run(&*self.runtime, &self.container, command, Descendants::End);
        match timeout(limit, ran).await {
            Ok(Ok(ran)) if ran.code == 0 => AttemptResult::Good,
            Ok(Ok(ran)) => AttemptResult::Bad(ran.output()),
            Ok(Err(error)) => AttemptResult::Broken(error.chain()),
            Err(_) => {
                let command = command.join(" ");
                AttemptResult::Bad(format!("command timed out: \"{command}\" timed out after {limit:?}"))
            }
        }
    }
}

/// Returns the beginning of the next slot at or after an instant.
fn next_slot(at: Instant) -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    let since = at.saturating_duration_since(*ORIGIN.get_or_init(crate::clock::instant)).as_nanos();
    let late = since % SLOT.as_nanos();
    let early = u64::try_from((SLOT.as_nanos() - late) % SLOT.as_nanos()).expect("less than a second");
    at + Duration::from_nanos(early)
}
