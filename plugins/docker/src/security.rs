//! User and privileges of a container, in Docker's form.

use std::io;

use bollard::models::ImageInspect;
use stanchion_sdk::{
    blocking,
    confinement::{app_armor_profiles, has_app_armor, has_se_linux},
    layers::tables,
    privileges, proc,
    runtime::{ContainerConfig, Error, ErrorKind, Profile, Result, Security},
    users::{Ids, Tables, in_force},
};
use stanchion_untrusted::{Links, read_text};

use crate::{Docker, image, limits, volumes::layers};

/// Confinement of a container.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Confinement {
    /// `--privileged`
    pub privileged: bool,
    /// `--cap-add`
    pub add: Vec<String>,
    /// `--cap-drop`
    pub drop: Vec<String>,
    /// `--security-opt`
    pub options: Vec<String>,
    /// Paths that are hidden from it.
    pub masked: Vec<String>,
    /// Paths that it cannot write to.
    pub read_only: Vec<String>,
}

/// Capabilities that Docker 20.10 does not know by name.
const LATER: [&str; 3] = ["PERFMON", "BPF", "CHECKPOINT_RESTORE"];

impl Confinement {
    pub fn of(security: &Security) -> Result<Self> {
        let mut options = Vec::new();
        if security.no_new_privileges {
            options.push("no-new-privileges".to_owned());
        }
        match &security.seccomp {
            // Docker uses its own profile.
            Profile::RuntimeDefault => {}
            Profile::Unconfined => options.push("seccomp=unconfined".to_owned()),
            Profile::Localhost { profile } => options.push(format!("seccomp={}", seccomp(profile)?)),
        }
        if has_app_armor() {
            match &security.app_armor {
                Profile::RuntimeDefault => {}
                Profile::Unconfined => options.push("apparmor=unconfined".to_owned()),
                Profile::Localhost { profile } => {
                    if !app_armor_profiles().contains(profile) {
                        let message = format!("AppArmor profile {profile:?} is not loaded in the kernel of this node");
                        return Err(Error::new(ErrorKind::Invalid, message));
                    }
                    options.push(format!("apparmor={profile}"));
                }
            }
        }
        if let Some(label) = security.se_linux.as_ref().filter(|_| has_se_linux()) {
            let parts = [("user", &label.user), ("role", &label.role), ("type", &label.kind), ("level", &label.level)];
            let given = parts.into_iter().filter(|(_, value)| !value.is_empty());
            options.extend(given.map(|(part, value)| format!("label={part}:{value}")));
        }
        let is_masked = !security.privileged && !security.unmasked_proc;
        let list = |of: fn() -> Vec<String>| if is_masked { of() } else { Vec::new() };
        let (masked, read_only) = (list(proc::masked), list(proc::read_only));
        let mut confinement =
            Self { privileged: security.privileged, add: Vec::new(), drop: Vec::new(), options, masked, read_only };
        confinement.allow(security, privileges::lacks_capabilities());
        Ok(confinement)
    }

    /// Sets the capabilities. Docker's own `ALL` is all that the kernel knows: a node that has less could not start
    /// such a container at all.
    fn allow(&mut self, security: &Security, lacks: bool) {
        let has_all = |names: &[String]| names.iter().any(|name| name == "ALL");
        let is_half = security.privileged && lacks;
        if is_half {
            tracing::warn!(
                "this node does not have all capabilities: a privileged container gets those that it has, and no devices"
            );
            self.privileged = false;
            self.options.retain(|option| !option.starts_with("seccomp=") && !option.starts_with("apparmor="));
            self.options.push("seccomp=unconfined".to_owned());
            if has_app_armor() {
                self.options.push("apparmor=unconfined".to_owned());
            }
        }
        self.drop = security.drop_capabilities.clone();
        self.add = match is_half || has_all(&security.add_capabilities) {
            true => {
                privileges::capabilities().into_iter().filter(|it| !LATER.contains(it)).map(str::to_owned).collect()
            }
            false => security.add_capabilities.clone(),
        };
        if is_half || has_all(&security.add_capabilities) {
            self.drop.retain(|name| name != "ALL" && !is_half);
        }
        // If a name is in both lists, the drop holds.
        self.add.retain(|name| !self.drop.contains(name));
    }
}

/// Returns a profile's text: Docker does not take its path.
fn seccomp(path: &str) -> Result<String> {
    let failed = |error: io::Error| {
        Error::new(ErrorKind::Invalid, format!("cannot load seccomp profile {path:?}")).caused_by(&error)
    };
    let text = read_text(path, Links::Follow, limits::PROFILE).map_err(failed)?;
    let profile: serde_json::Value = serde_json::from_str(&text).map_err(|error| failed(error.into()))?;
    Ok(profile.to_string())
}

/// User and groups of a container, in Docker's form.
pub(crate) struct Who {
    /// `--user`; `None` for the image's.
    pub user: Option<String>,
    /// `--group-add`
    pub groups: Vec<u32>,
}

impl Docker {
    /// Returns the user and groups of a container. A group without a user goes with the image's user (R-SEC-2).
    pub(crate) async fn who(&self, config: &ContainerConfig, image: &ImageInspect) -> Result<Who> {
        let security = &config.security;
        if security.strict_groups {
            return self.strictly(config, image).await;
        }
        let Some(group) = security.group else {
            return Ok(Who { user: security.user.map(|user| user.to_string()), groups: security.groups.clone() });
        };
        let of_image = image::user(image);
        let named = || of_image.split(':').next().filter(|user| !user.is_empty()).unwrap_or("0").to_owned();
        let user = security.user.map_or_else(named, |user| user.to_string());
        Ok(Who { user: Some(format!("{user}:{group}")), groups: self.groups(config, image, &of_image).await })
    }

    /// Returns user and groups with `supplementalGroupsPolicy: Strict`: given a user and a group, Docker adds none of
    /// the image's (R-SEC-10).
    async fn strictly(&self, config: &ContainerConfig, image: &ImageInspect) -> Result<Who> {
        let tried = || format!("telling the user and the group of container {}", config.name);
        let layers = layers(&config.image, image).map_err(|error| error.context(tried()))?;
        let failed =
            |error: &(dyn std::error::Error + 'static)| Error::new(ErrorKind::Invalid, tried()).caused_by(error);
        let found = blocking(move || layers.look(tables)).await;
        let tables = found.map_err(|error| failed(&error))?;
        let Ids { user, group, groups } =
            in_force(&image::user(image), &config.security, &tables).map_err(|error| failed(&error))?;
        Ok(Who { user: Some(format!("{user}:{group}")), groups })
    }

    /// Returns the supplementary groups, with the user's groups in the image: given a group, Docker leaves those out
    /// (R-SEC-10).
    async fn groups(&self, config: &ContainerConfig, image: &ImageInspect, of_image: &str) -> Vec<u32> {
        let found = match layers(&config.image, image) {
            Ok(layers) => {
                let look =
                    move || layers.look(tables).map_err(|error| Error::new(ErrorKind::Other, "").caused_by(&error));
                blocking(look).await
            }
            Err(error) => Err(error),
        };
        let tables = found.unwrap_or_else(|error| {
            let (container, image, error) = (&config.name, &config.image, error.chain());
            tracing::warn!(container, image, error, "whether the image gives its user further groups cannot be told");
            Tables::default()
        });
        // Docker reports a user that the image does not know.
        in_force(of_image, &config.security, &tables).map_or_else(|_| config.security.groups.clone(), |ids| ids.groups)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_confines_a_container_is_told_docker() {
        let usual = Confinement::of(&Security::default()).expect("nothing to read");
        assert_eq!(usual.options, Vec::<String>::new());
        assert!(usual.masked.iter().any(|it| it == "/proc/interrupts"), "R-SEC-7");
        assert!(usual.read_only.iter().any(|it| it == "/proc/sys"), "R-SEC-7");
        let free = Security {
            seccomp: Profile::Unconfined,
            no_new_privileges: true,
            unmasked_proc: true,
            ..Security::default()
        };
        let free = Confinement::of(&free).expect("nothing to read");
        assert_eq!(free.options, ["no-new-privileges", "seccomp=unconfined"], "R-SEC-4, R-SEC-8");
        assert_eq!((free.masked, free.read_only), (Vec::new(), Vec::new()), "R-SEC-7");
        let all = Security {
            add_capabilities: vec!["ALL".to_owned()],
            drop_capabilities: vec!["CHOWN".to_owned()],
            ..Security::default()
        };
        let all = Confinement::of(&all).expect("nothing to read");
        assert!(all.add.iter().any(|it| it == "KILL") && !all.add.iter().any(|it| it == "CHOWN"), "R-SEC-6");
        let mut half = Confinement { privileged: true, ..usual };
        half.allow(&Security { privileged: true, ..Security::default() }, true);
        assert!(
            !half.privileged && half.options.contains(&"seccomp=unconfined".to_owned()),
            "R-SEC-5: as near as can be"
        );
        let absent = Profile::Localhost { profile: "/nonexistent/profile.json".to_owned() };
        let error = Confinement::of(&Security { seccomp: absent, ..Security::default() }).expect_err("absent");
        assert_eq!(error.kind(), ErrorKind::Invalid, "R-SEC-8");
        assert!(error.chain().contains("cannot load seccomp profile \"/nonexistent/profile.json\": No such file"));
    }
}
