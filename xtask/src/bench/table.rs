//! Samples, and the tables made of them.

use std::{collections::BTreeMap, fmt};

use stanchion_tests::Backend;

/// Time that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Figure {
    /// Manifest written to process started.
    Add,
    /// Process killed to process started.
    Crash,
    /// Manifest changed to new process started.
    Update,
    /// Manifest removed to process ended.
    Delete,
    /// All manifests written to last process started.
    AllUp,
    /// All manifests removed and as many others written to last process started.
    Exchange,
}

impl Figure {
    const fn label(self) -> &'static str {
        match self {
            Self::Add => "file written → process started",
            Self::Crash => "crash → started again",
            Self::Update => "manifest changed → new process started",
            Self::Delete => "file removed → process ended",
            Self::AllUp => "all pods at once → last process started",
            Self::Exchange => "all pods removed, as many others written at once → last process started",
        }
    }

    const fn yardstick(self, on: Backend) -> &'static str {
        match (on, self) {
            (Backend::Containerd | Backend::K3s, Self::Add | Self::Crash | Self::Update) => "`ctr run -d`",
            (Backend::Containerd | Backend::K3s, Self::Delete) => "`ctr tasks kill`",
            (_, Self::Exchange) => "all pods at once, of this agent",
            (Backend::Containerd | Backend::K3s, Self::AllUp) => "`ctr run -d`, all at once",
            // A pod is a sandbox and a container; only the container crashes.
            (Backend::Docker, Self::Add | Self::Update) => "two `docker run -d`, added up",
            (Backend::Docker, Self::Crash) => "`docker run -d`",
            (Backend::Docker, Self::Delete) => "`docker kill`",
            (Backend::Docker, Self::AllUp) => "two `docker run -d` a pod, all at once",
        }
    }
}

/// Measurements on one runtime.
#[derive(Debug)]
pub struct Report {
    on: Backend,
    times: BTreeMap<(usize, Figure), (Samples, Samples)>,
    usage: Vec<(usize, &'static str, String)>,
}

impl Report {
    pub fn new(on: Backend) -> Self {
        Self { on, times: BTreeMap::new(), usage: Vec::new() }
    }

    /// Adds a time of the agent and the yardstick's of the same round, in milliseconds.
    pub fn time(&mut self, n: usize, figure: Figure, ours: f64, yardstick: f64) {
        let (own, other) = self.times.entry((n, figure)).or_default();
        own.add(ours);
        other.add(yardstick);
    }

    /// Adds an amount, such as CPU or memory, as text.
    pub fn usage(&mut self, n: usize, what: &'static str, amount: String) {
        self.usage.push((n, what, amount));
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "### {}\n", self.on.name())?;
        writeln!(f, "| pods | what | p50 | p95 | beside | p50 | p95 | ratio of p50 | ratio of p95 | samples |")?;
        writeln!(f, "|---:|---|---:|---:|---|---:|---:|---:|---:|---:|")?;
        for ((n, figure), (own, other)) in &self.times {
            let (p50, p95, q50, q95) = (own.at(0.5), own.at(0.95), other.at(0.5), other.at(0.95));
            writeln!(
                f,
                "| {n} | {} | {p50:.0} ms | {p95:.0} ms | {} | {q50:.0} ms | {q95:.0} ms | {:.2} | {:.2} | {} |",
                figure.label(),
                figure.yardstick(self.on),
                p50 / q50,
                p95 / q95,
                own.len(),
            )?;
        }
        writeln!(f, "\n| pods | what | amount |\n|---:|---|---:|")?;
        self.usage.iter().try_for_each(|(n, what, amount)| writeln!(f, "| {n} | {what} | {amount} |"))
    }
}

/// Values of one figure.
#[derive(Debug, Default)]
pub struct Samples(Vec<f64>);

impl Samples {
    pub fn add(&mut self, value: f64) {
        self.0.push(value);
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns the percentile at `share`, from 0 to 1 (nearest rank); NaN without values.
    pub fn at(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let below = sorted.iter().enumerate().find(|(i, _)| (i + 1) as f64 >= share * sorted.len() as f64);
        below.map_or(f64::NAN, |(_, value)| *value)
    }
}

#[cfg(test)]
mod tests {
    use super::Samples;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let samples = Samples((1..=20).rev().map(f64::from).collect());
        assert_eq!((samples.at(0.5), samples.at(0.95), samples.at(1.0)), (10.0, 19.0, 20.0));
        assert_eq!(Samples(vec![7.0]).at(0.95), 7.0);
    }
}
