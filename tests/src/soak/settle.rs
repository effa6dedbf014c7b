//! Wait until exactly the expected pods run.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use super::{
    SETTLE, Soak,
    subjects::{self, BYSTANDER, Expected},
};
use crate::{
    ctr::Running,
    pods::{self, Pod},
    wait::pause,
};

/// Pause between two looks: each look asks the agent and the runtime, on a busy machine.
const LOOK: Duration = Duration::from_millis(250);

/// State of the node at one look.
struct Look {
    /// Pods that the agent shows, by their name on the node.
    shown: BTreeMap<String, Pod>,
    /// Containers that the runtime runs, by their pod's name on the node.
    running: BTreeMap<String, Vec<Running>>,
}

impl Soak {
    /// Waits until the node has settled, and records how long that took. Records a fault if it takes longer than
    /// [`SETTLE`].
    pub(super) fn settle(&mut self) -> Result<()> {
        ensure!(self.is_home(), "after the round the manifest directory is renamed or the disk is full");
        let began = Instant::now();
        loop {
            self.look_after_the_agent()?;
            let Err(why) = self.is_settled() else { break };
            if began.elapsed() > SETTLE {
                self.fault(format!("round {} did not settle within {SETTLE:?}: {why:#}", self.rounds));
                return Ok(());
            }
            pause(LOOK);
        }
        let took = began.elapsed();
        self.longest = self.longest.max(took);
        self.journal.say("settled", &format!("after {:.1} s", took.as_secs_f64()))?;
        for wanted in self.wanted.values_mut() {
            wanted.is_settled = true;
        }
        for line in subjects::doubled(&self.node.names().dir) {
            self.fault(format!("a container was started while another of its pod ran (I1): {line}"));
        }
        self.untouched()?;
        self.agents.look(&self.node)
    }

    fn look(&self) -> Result<Look> {
        let list = self.node.agent.json(&["get", "pods"])?;
        let items = list["items"].as_array().context("get pods -o json has no items")?;
        let name = |pod: &serde_json::Value| pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let shown = items.iter().map(|pod| (name(pod), Pod::new(pod.clone()))).collect();
        let mut running: BTreeMap<String, Vec<Running>> = BTreeMap::new();
        for one in self.node.view().running()? {
            running.entry(one.record.pod().to_owned()).or_default().push(one);
        }
        Ok(Look { shown, running })
    }

    fn is_settled(&self) -> Result<()> {
        let look = self.look()?;
        for (pod, wanted) in &self.wanted {
            let name = pods::on_node(pod);
            let shown = look.shown.get(&name).with_context(|| format!("get pods does not show {pod}"))?;
            let running = look.running.get(&name).map_or(&[][..], Vec::as_slice);
            match wanted.expected {
                Expected::Runs(revision) => {
                    runs(pod, revision, shown, running)?;
                    if let Some(port) = wanted.port {
                        self.answers(port, revision).with_context(|| format!("{pod} by its host port {port}"))?;
                    }
                }
                Expected::Ends => {
                    ensure!(shown.phase() == "Succeeded" && running.is_empty(), "{pod}: {}", shown.summary());
                }
                Expected::Waits => ensure!(running.is_empty(), "{pod} runs: {}", shown.summary()),
            }
        }
        let is_wanted = |name: &str| self.wanted.keys().any(|pod| pods::on_node(pod) == *name);
        let others: Vec<_> = look.running.keys().chain(look.shown.keys()).filter(|name| !is_wanted(name)).collect();
        ensure!(others.is_empty(), "there are pods without a manifest: {others:?}");
        Ok(())
    }

    /// Asks a pod through its port of the node for its revision.
    fn answers(&self, port: u16, revision: u64) -> Result<()> {
        let gateway: Ipv4Addr = format!("{}.1", self.node.names().prefix).parse()?;
        let limit = Duration::from_secs(2);
        let mut stream = TcpStream::connect_timeout(&SocketAddr::new(gateway.into(), port), limit)?;
        stream.set_read_timeout(Some(limit))?;
        stream.set_write_timeout(Some(limit))?;
        stream.write_all(b"GET /index.html HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.take(4096).read_to_string(&mut answer)?;
        ensure!(answer.contains(&format!("revision {revision}\n")), "it answers {answer:?}");
        Ok(())
    }

    /// Checks that the bystander's container is the same as before (I3).
    fn untouched(&mut self) -> Result<()> {
        let Some(before) = &self.bystander else { return Ok(()) };
        let now = self.running_of(BYSTANDER)?;
        if now.as_ref().map(Running::identity) != Some(before.identity()) {
            let (before, now) = (before.identity(), now.as_ref().map(Running::identity));
            self.fault(format!("a pod that nobody touched was restarted (I3): {before:?} became {now:?}"));
            self.bystander = self.running_of(BYSTANDER)?;
        }
        Ok(())
    }
}

fn runs(pod: &str, revision: u64, shown: &Pod, running: &[Running]) -> Result<()> {
    ensure!(running.len() == 1, "the runtime runs {} containers of {pod}: {}", running.len(), shown.summary());
    let environment = running[0].record.spec["process"]["env"].as_array().map_or(&[][..], Vec::as_slice);
    let seen = environment.iter().filter_map(|pair| pair.as_str()?.strip_prefix("REVISION=")).next_back();
    ensure!(seen == Some(revision.to_string().as_str()), "{pod} runs revision {seen:?}, not {revision}");
    ensure!(shown.phase() == "Running" && shown.ready(), "{pod}: {}", shown.summary());
    Ok(())
}
