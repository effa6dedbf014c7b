//! Capabilities of a container's processes.

use oci_spec::{
    OciSpecError,
    runtime::{Capabilities, Capability, LinuxCapabilities, LinuxCapabilitiesBuilder},
};
use stanchion_sdk::{privileges, runtime::Security};

/// Set that containerd and Docker give by default.
const USUAL: [Capability; 14] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fsetid,
    Capability::Fowner,
    Capability::Mknod,
    Capability::NetRaw,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setfcap,
    Capability::Setpcap,
    Capability::NetBindService,
    Capability::SysChroot,
    Capability::Kill,
    Capability::AuditWrite,
];

/// Capability that no kernel knows.
#[derive(Debug, thiserror::Error)]
#[error("there is no capability {0:?}")]
pub(crate) struct UnknownCapability(String);

/// Returns the capabilities that a container may have (R-SEC-5, R-SEC-6): `ALL` and privileged mean all that the node
/// has. If a name is both added and dropped, the drop holds.
pub(crate) fn set(security: &Security) -> Result<Capabilities, UnknownCapability> {
    let has_all = |list: &[String]| list.iter().any(|name| name == "ALL");
    if security.privileged {
        return Ok(of_node());
    }
    let mut set = match (has_all(&security.add_capabilities), has_all(&security.drop_capabilities)) {
        (true, _) => of_node(),
        (false, true) => Capabilities::new(),
        (false, false) => USUAL.into_iter().collect(),
    };
    let read = |name: &String| name.parse::<Capability>().map_err(|_| UnknownCapability(name.clone()));
    for name in security.add_capabilities.iter().filter(|name| *name != "ALL") {
        set.insert(read(name)?);
    }
    for name in security.drop_capabilities.iter().filter(|name| *name != "ALL") {
        set.remove(&read(name)?);
    }
    Ok(set)
}

/// Returns the sets of root, or of another user, who gets capabilities only through programs that carry them.
pub(super) fn capabilities(all: Capabilities, is_root: bool) -> Result<LinuxCapabilities, OciSpecError> {
    let none = Capabilities::new();
    let own = if is_root { all.clone() } else { none.clone() };
    LinuxCapabilitiesBuilder::default()
        .bounding(all)
        .effective(own.clone())
        .permitted(own)
        .inheritable(none.clone())
        .ambient(none)
        .build()
}

/// Returns the capabilities that any process of this node can have.
fn of_node() -> Capabilities {
    privileges::capabilities().into_iter().filter_map(|name| name.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(add: &[&str], drop: &[&str]) -> Vec<String> {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let security = Security { add_capabilities: list(add), drop_capabilities: list(drop), ..Security::default() };
        set(&security).expect("known names").into_iter().map(|it| it.to_string()).collect()
    }

    #[test]
    fn capabilities_are_added_and_dropped() {
        let has = |add: &[&str], drop: &[&str], name: &str| names(add, drop).iter().any(|it| it == name);
        assert_eq!(names(&[], &[]).len(), USUAL.len());
        assert_eq!(names(&["NET_BIND_SERVICE"], &["ALL"]), ["NET_BIND_SERVICE"], "R-SEC-6");
        assert_eq!(names(&[], &["ALL"]), Vec::<String>::new());
        assert!(!has(&["NET_ADMIN"], &["KILL"], "KILL") && has(&["NET_ADMIN"], &["KILL"], "NET_ADMIN"));
        assert!(!has(&["ALL"], &["CHOWN"], "CHOWN"), "R-SEC-6");
        let unknown = Security { add_capabilities: vec!["FLY".to_owned()], ..Security::default() };
        assert_eq!(set(&unknown).expect_err("unknown").to_string(), "there is no capability \"FLY\"");
    }
}
