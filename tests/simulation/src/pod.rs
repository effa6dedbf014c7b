//! Pods of a schedule, and their manifests.

use std::fmt;

use crate::random::Random;

/// Behaviour of a container. The container's name tells a fake which one to play.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Runs until its stop signal, and ends at once.
    Server,
    /// Ends 7 s after its stop signal.
    Slow,
    /// Runs until it is killed.
    Stubborn,
    /// Ends after 40 s with success.
    Job,
    /// Ends after 5 s with a failure.
    Fails,
    /// An init container.
    Init,
    /// A sidecar.
    Side,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 7] =
        [Self::Server, Self::Slow, Self::Stubborn, Self::Job, Self::Fails, Self::Init, Self::Side];
    /// Roles of containers that run for ever.
    const SERVERS: [Self; 3] = [Self::Server, Self::Slow, Self::Stubborn];

    /// Returns the role of the container of this name.
    #[must_use]
    pub fn of(container: &str) -> Self {
        let found = Self::ALL.into_iter().find(|role| container.starts_with(role.word()));
        found.expect("the schedule names containers after their roles")
    }

    /// Returns whether a container ends by itself.
    #[must_use]
    pub const fn ends(self) -> bool {
        matches!(self, Self::Job | Self::Fails | Self::Init)
    }

    /// Returns whether it is one of the pod's main containers.
    #[must_use]
    pub const fn is_main(self) -> bool {
        !matches!(self, Self::Init | Self::Side)
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Slow => "slow",
            Self::Stubborn => "stubborn",
            Self::Job => "job",
            Self::Fails => "fails",
            Self::Init => "init",
            Self::Side => "side",
        }
    }
}

/// `restartPolicy` of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "Kubernetes' own names")]
pub enum Policy {
    Always,
    OnFailure,
    Never,
}

/// Hooks and probes of a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extras {
    /// Whether it has a `preStop` hook.
    pub pre_stop: bool,
    /// Whether it has a `postStart` hook.
    pub post_start: bool,
    /// Whether it has a liveness probe.
    pub liveness: bool,
    /// Whether it has a readiness probe.
    pub readiness: bool,
}

/// A version of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its name without that of the node.
    pub name: &'static str,
    /// Counter of the pod's versions, and the tag of its images.
    pub version: u64,
    /// Index of the backend that its `runtimeClassName` names.
    pub class: Option<usize>,
    /// Its restart policy.
    pub policy: Policy,
    /// `terminationGracePeriodSeconds`.
    pub grace: u64,
    /// Whether its images are pulled for each container.
    pub pulls_always: bool,
    /// Its containers, init containers and sidecars among them.
    pub containers: Vec<(Role, Extras)>,
}

impl Pod {
    /// Makes up the next version of a pod: most edits change only the image.
    #[must_use]
    pub fn next(random: &mut Random, name: &'static str, version: u64, backends: usize, last: Option<&Self>) -> Self {
        if let Some(last) = last.filter(|_| random.chance(60)) {
            return Self { version, ..last.clone() };
        }
        let policy = random.weighed(&[(8, Policy::Always), (1, Policy::OnFailure), (1, Policy::Never)]);
        let class = random.chance(30).then(|| random.index(backends));
        let mut containers = Vec::new();
        for (percent, role) in [(25, Role::Init), (25, Role::Side)] {
            if random.chance(percent) {
                containers.push((role, Extras::default()));
            }
        }
        for _ in 0..random.weighed(&[(6, 1), (3, 2), (1, 3)]) {
            let role = match random.chance(75) {
                true => random.pick(&Role::SERVERS),
                false => random.pick(&[Role::Job, Role::Fails]),
            };
            if containers.iter().all(|(other, _)| *other != role) {
                containers.push((role, Extras::next(random, role)));
            }
        }
        let grace = random.weighed(&[(2, 0), (4, 5), (4, 30)]);
        Self { name, version, class, policy, grace, pulls_always: random.chance(30), containers }
    }

    /// Returns the name of the container with this role.
    #[must_use]
    pub fn container(&self, role: Role) -> String {
        container(role, self.name)
    }

    /// Returns the pod's name on the node.
    #[must_use]
    pub fn full_name(&self) -> String {
        format!("{}-node", self.name)
    }

    /// Returns the image of its containers, in full.
    #[must_use]
    pub fn image(&self) -> String {
        format!("docker.io/library/app:{}", self.version)
    }

    /// Returns hooks and probes of the container of this name.
    #[must_use]
    pub fn extras(&self, container: &str) -> Extras {
        let found = self.containers.iter().find(|(role, _)| self.container(*role) == container);
        found.map(|(_, extras)| *extras).unwrap_or_default()
    }

    fn write_container(&self, f: &mut fmt::Formatter<'_>, role: Role, extras: Extras) -> fmt::Result {
        let pull = if self.pulls_always { "Always" } else { "IfNotPresent" };
        writeln!(f, "  - {{name: {}, image: 'app:{}', imagePullPolicy: {pull}", self.container(role), self.version)?;
        if role == Role::Side {
            writeln!(f, "    , restartPolicy: Always")?;
        }
        let Extras { pre_stop, post_start, liveness, readiness } = extras;
        if pre_stop || post_start {
            let hook = |name: &str, is: bool| {
                if is { format!("{name}: {{exec: {{command: [{name}]}}}},") } else { String::new() }
            };
            writeln!(f, "    , lifecycle: {{{}{}}}", hook("preStop", pre_stop), hook("postStart", post_start))?;
        }
        for (name, _) in [("liveness", liveness), ("readiness", readiness)].into_iter().filter(|(_, is)| *is) {
            writeln!(f, "    , {name}Probe: {{exec: {{command: [{name}]}}, periodSeconds: 10, failureThreshold: 2}}")?;
        }
        writeln!(f, "    }}")
    }
}

/// Returns the name of the container with this role in the pod of this name.
#[must_use]
pub fn container(role: Role, pod: &str) -> String {
    format!("{}-{pod}", role.word())
}

impl Extras {
    fn next(random: &mut Random, role: Role) -> Self {
        if role.ends() || random.chance(50) {
            return Self::default();
        }
        let mut is = || random.chance(35);
        Self { pre_stop: is(), post_start: is(), liveness: is(), readiness: is() }
    }
}

impl fmt::Display for Pod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "apiVersion: v1\nkind: Pod\nmetadata: {{name: {}}}\nspec:", self.name)?;
        writeln!(f, "  restartPolicy: {:?}\n  terminationGracePeriodSeconds: {}", self.policy, self.grace)?;
        if let Some(class) = self.class {
            writeln!(f, "  runtimeClassName: {}", crate::schedule::BACKENDS[class])?;
        }
        let is_init = |role: Role| !role.is_main();
        for (head, inits) in [("initContainers", true), ("containers", false)] {
            let mut of = self.containers.iter().filter(|(role, _)| is_init(*role) == inits).peekable();
            if of.peek().is_some() {
                writeln!(f, "  {head}:")?;
            }
            for (role, extras) in of {
                self.write_container(f, *role, *extras)?;
            }
        }
        Ok(())
    }
}
