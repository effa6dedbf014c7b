//! Profiles that confine a container: seccomp, AppArmor, SELinux (R-SEC-8, R-SEC-9, R-SEC-15).

use std::io;

use oci_spec::{OciSpecError, runtime::LinuxSeccomp};
use stanchion_sdk::{
    confinement::{app_armor_profiles, has_app_armor, has_se_linux},
    runtime::{Profile, SeLinux, Security},
};
use stanchion_untrusted::{Links, read};

use super::capabilities::{self, UnknownCapability};
use crate::{limits, seccomp};

/// Reason why a container cannot be confined as configured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfinementError {
    #[error("its seccomp profile")]
    Seccomp(#[from] OciSpecError),
    #[error("cannot load seccomp profile {path:?}")]
    Load { path: String, source: io::Error },
    #[error("AppArmor profile {0:?} is not loaded in the kernel of this node")]
    NoAppArmorProfile(String),
    #[error(transparent)]
    Capability(#[from] UnknownCapability),
}

/// AppArmor profiles that other container programs load.
const KNOWN: [&str; 2] = ["cri-containerd.apparmor.d", "docker-default"];

pub(super) fn seccomp(security: &Security) -> Result<Option<LinuxSeccomp>, ConfinementError> {
    match &security.seccomp {
        _ if security.privileged => Ok(None),
        Profile::Unconfined => Ok(None),
        Profile::RuntimeDefault => Ok(Some(seccomp::profile(&capabilities::set(security)?)?)),
        Profile::Localhost { profile } => {
            let load = |source| ConfinementError::Load { path: profile.clone(), source };
            let text = read(profile, Links::Follow, limits::SETTINGS_FILE).map_err(load)?;
            serde_json::from_slice(&text).map(Some).map_err(|error| load(io::Error::other(error)))
        }
    }
}

/// Returns the name of the AppArmor profile; `None` for a container without one, as on a node without AppArmor.
pub(super) fn app_armor(security: &Security) -> Result<Option<String>, ConfinementError> {
    if security.privileged || security.app_armor == Profile::Unconfined || !has_app_armor() {
        return Ok(None);
    }
    let loaded = app_armor_profiles();
    match &security.app_armor {
        Profile::Localhost { profile } if loaded.contains(profile) => Ok(Some(profile.clone())),
        Profile::Localhost { profile } => Err(ConfinementError::NoAppArmorProfile(profile.clone())),
        _ => Ok(KNOWN.into_iter().map(str::to_owned).find(|profile| loaded.contains(profile))),
    }
}

/// Returns the SELinux context; `None` if none is asked for, for a privileged container, and on a node without SELinux.
pub(super) fn se_linux(security: &Security) -> Option<&SeLinux> {
    security.se_linux.as_ref().filter(|_| has_se_linux() && !security.privileged)
}
