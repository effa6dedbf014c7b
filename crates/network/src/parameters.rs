//! Sets network parameters of the kernel, below `/proc/sys/net`, in the calling thread's network namespace.

use std::{fs, io, path::Path};

use stanchion_untrusted::Links;

use crate::limits::PARAMETER;

/// Sets the parameters that have another value. Returns their names.
pub(super) fn set<'a>(wanted: &[(&'a str, &str)]) -> io::Result<Vec<&'a str>> {
    let mut changed = Vec::new();
    for (name, value) in wanted {
        let path = Path::new("/proc/sys/net").join(name);
        let failed = |error: io::Error| io::Error::new(error.kind(), format!("{} = {value}: {error}", path.display()));
        let found = stanchion_untrusted::read_text(&path, Links::Follow, PARAMETER).map_err(failed)?;
        if found.trim() != *value {
            fs::write(&path, value).map_err(failed)?;
            changed.push(*name);
        }
    }
    Ok(changed)
}

/// Turns IPv6 off on a link, so that the node takes no address and no route from router advertisements over it. Must be
/// called before the link is up.
pub(super) fn refuse_ipv6(link: &str) -> io::Result<()> {
    // A kernel without IPv6 has no such parameters.
    if !Path::new("/proc/sys/net/ipv6").exists() {
        return Ok(());
    }
    for (name, value) in [("accept_ra", "0"), ("autoconf", "0"), ("disable_ipv6", "1")] {
        set(&[(&format!("ipv6/conf/{link}/{name}"), value)])?;
    }
    Ok(())
}
