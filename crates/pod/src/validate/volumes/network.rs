//! Validates volumes of storage that is reached over a network, as the API server does.

use k8s_openapi::api::core::v1::{
    CephFSVolumeSource, FCVolumeSource, GlusterfsVolumeSource, ISCSIVolumeSource, NFSVolumeSource, QuobyteVolumeSource,
    RBDVolumeSource,
};

use crate::validate::{path::Path, problems::Problems};

pub(super) fn nfs(source: &NFSVolumeSource, path: &Path<'_>, problems: &mut Problems) {
    let path = path.field("nfs");
    if source.server.is_empty() {
        problems.required(&path.field("server"), "");
    }
    if source.path.is_empty() {
        problems.required(&path.field("path"), "");
    }
    if !source.path.starts_with('/') {
        problems.invalid(&path.field("path"), &source.path, "must be an absolute path");
    }
}

pub(super) fn iscsi(source: &ISCSIVolumeSource, path: &Path<'_>, problems: &mut Problems) {
    let path = path.field("iscsi");
    if source.target_portal.is_empty() {
        problems.required(&path.field("targetPortal"), "");
    }
    match source.iqn.as_str() {
        "" => problems.required(&path.field("iqn"), ""),
        name => iscsi_name(name, &path.field("iqn"), problems),
    }
    problems.within(&path.field("lun"), source.lun.into(), 0, 255);
    let authenticates = source.chap_auth_discovery == Some(true) || source.chap_auth_session == Some(true);
    if authenticates && source.secret_ref.is_none() {
        problems.required(&path.field("secretRef"), "");
    }
    if let Some(name) = &source.initiator_name {
        iscsi_name(name, &path.field("initiatorname"), problems);
    }
}

/// Checks an iSCSI name: `iqn.2001-04.com.example:disk`, `eui.` and 16 characters, `naa.` and 32 characters.
fn iscsi_name(name: &str, path: &Path<'_>, problems: &mut Problems) {
    let is_hash = |rest: &str, length: usize| {
        // Any one character may stand between the type and the rest.
        let rest = rest.char_indices().nth(1).map(|(at, _)| &rest[at..]);
        rest.is_some_and(|rest| rest.len() == length && rest.bytes().all(|byte| byte.is_ascii_alphanumeric()))
    };
    let is_well_formed = match name.get(..3) {
        Some("iqn") => is_iqn(name),
        Some("eui") => is_hash(&name[3..], 16),
        Some("naa") => is_hash(&name[3..], 32),
        _ => return problems.invalid(path, name, "must be valid format starting with iqn, eui, or naa"),
    };
    if !is_well_formed {
        problems.invalid(path, name, "must be valid format");
    }
}

fn is_iqn(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("iqn.") else { return false };
    let (Some(date), Some(rest)) = (rest.get(..7), rest.get(7..)) else { return false };
    let is_date = date.bytes().enumerate().all(|(at, byte)| if at == 4 { byte == b'-' } else { byte.is_ascii_digit() });
    let Some(rest) = rest.strip_prefix('.').filter(|_| is_date) else { return false };
    let Some((domain, own)) = rest.split_once(':') else { return false };
    let is_domain =
        !domain.is_empty() && domain.bytes().all(|it| it.is_ascii_alphanumeric() || matches!(it, b'-' | b'.'));
    let is_own = |char: char| !matches!(char, ',' | ';' | '*' | '&' | '$' | '|') && !char.is_ascii_whitespace();
    is_domain && !own.is_empty() && own.chars().all(is_own)
}

pub(super) fn glusterfs(source: &GlusterfsVolumeSource, path: &Path<'_>, problems: &mut Problems) {
    let path = path.field("glusterfs");
    if source.endpoints.is_empty() {
        problems.required(&path.field("endpoints"), "");
    }
    if source.path.is_empty() {
        problems.required(&path.field("path"), "");
    }
}

pub(super) fn rbd(source: &RBDVolumeSource, path: &Path<'_>, problems: &mut Problems) {
    let path = path.field("rbd");
    if source.monitors.is_empty() {
        problems.required(&path.field("monitors"), "");
    }
    if source.image.is_empty() {
        problems.required(&path.field("image"), "");
    }
}

pub(super) fn cephfs(source: &CephFSVolumeSource, path: &Path<'_>, problems: &mut Problems) {
    if source.monitors.is_empty() {
        problems.required(&path.field("cephfs").field("monitors"), "");
    }
}

pub(super) fn quobyte(source: &QuobyteVolumeSource, path: &Path<'_>, problems: &mut Problems) {
    const PAIRS: &str = "must be a host:port pair or multiple pairs separated by commas";
    let path = path.field("quobyte");
    if source.registry.is_empty() {
        problems.required(&path.field("registry"), PAIRS);
    } else if source.tenant.as_ref().is_some_and(|tenant| tenant.len() >= 65) {
        let detail = "must be a UUID and may not exceed a length of 64 characters";
        problems.required(&path.field("tenant"), detail);
    } else {
        for _ in source.registry.split(',').filter(|pair| !is_host_port(pair)) {
            problems.invalid(&path.field("registry"), &source.registry, PAIRS);
        }
    }
    if source.volume.is_empty() {
        problems.required(&path.field("volume"), "");
    }
}

/// Returns whether a text is `host:port` or `[address]:port`; either part may be empty.
fn is_host_port(pair: &str) -> bool {
    let Some((host, port)) = pair.rsplit_once(':') else { return false };
    let inside = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host = inside.unwrap_or(host);
    !host.contains(['[', ']']) && !port.contains(['[', ']']) && (inside.is_some() || !host.contains(':'))
}

pub(super) fn fc(source: &FCVolumeSource, path: &Path<'_>, problems: &mut Problems) {
    let path = path.field("fc");
    let names = source.target_wwns.as_deref().unwrap_or_default();
    let ids = source.wwids.as_deref().unwrap_or_default();
    let field = path.field("targetWWNs");
    if names.is_empty() && ids.is_empty() {
        problems.required(&field, "must specify either targetWWNs or wwids, but not both");
    }
    if !names.is_empty() && !ids.is_empty() {
        problems.invalid(&field, names, "targetWWNs and wwids can not be specified simultaneously");
    }
    if names.is_empty() {
        return;
    }
    match source.lun {
        None => problems.required(&path.field("lun"), "lun is required if targetWWNs is specified"),
        Some(lun) => problems.within(&path.field("lun"), lun.into(), 0, 255),
    }
}
