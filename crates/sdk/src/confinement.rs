//! AppArmor and SELinux on this node.

use std::{collections::BTreeSet, path::Path};

use stanchion_untrusted::read_kernel;

/// Returns whether AppArmor is in force (R-SEC-9).
#[must_use]
pub fn has_app_armor() -> bool {
    read_kernel("/sys/module/apparmor/parameters/enabled").is_ok_and(|it| it.starts_with('Y'))
}

/// Returns the names of the loaded AppArmor profiles.
#[must_use]
pub fn app_armor_profiles() -> BTreeSet<String> {
    let loaded = read_kernel("/sys/kernel/security/apparmor/profiles").unwrap_or_default();
    // `name (mode)`
    loaded.lines().filter_map(|line| line.rsplit_once(" (")).map(|(name, _)| name.to_owned()).collect()
}

/// Returns whether SELinux is in force (R-SEC-15).
#[must_use]
pub fn has_se_linux() -> bool {
    Path::new("/sys/fs/selinux/enforce").exists()
}
