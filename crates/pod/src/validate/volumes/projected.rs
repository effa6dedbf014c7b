//! Validates projected volumes, which put several sources into one directory, as the API server does.

use std::collections::BTreeSet;

use k8s_openapi::{
    api::core::v1::{
        ClusterTrustBundleProjection, KeyToPath, PodCertificateProjection, ProjectedVolumeSource,
        ServiceAccountTokenProjection, VolumeProjection,
    },
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use serde_json::json;

use super::{downward, file, item, mode};
use crate::{
    kubernetes::Gates,
    validate::{
        format::{dns_label, dns_subdomain, qualified_name, unreserved_path},
        path::Path,
        problems::{Problems, Shown},
        quoted, selector,
    },
};

/// Key types of a pod's certificate.
const KEY_TYPES: [&str; 6] = ["RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"];

/// Projected volume, and the paths of files that are taken.
struct Volume<'a> {
    path: &'a Path<'a>,
    files: BTreeSet<String>,
}

impl Volume<'_> {
    /// Claims the path of a file: two sources cannot write one file. `named` is the value that the server names in the
    /// conflict.
    fn claim(&mut self, file: &str, named: &str, problems: &mut Problems) {
        if !self.files.insert(file.to_owned()) {
            problems.invalid(self.path, named, "conflicting duplicate paths");
        }
    }

    fn items(&mut self, items: Option<&[KeyToPath]>, named: &str, path: &Path<'_>, problems: &mut Problems) {
        let path = path.field("items");
        for (index, item) in items.unwrap_or_default().iter().enumerate() {
            self::item(item, &path.index(index), problems);
            if !item.path.is_empty() {
                self.claim(&item.path, named, problems);
            }
        }
    }
}

pub(super) fn projected(source: &ProjectedVolumeSource, _: &Gates, path: &Path<'_>, problems: &mut Problems) {
    let path = path.field("projected");
    mode(source.default_mode, &path.field("defaultMode"), problems);
    let mut volume = Volume { path: &path, files: BTreeSet::new() };
    let sources = path.field("sources");
    for (index, source) in source.sources.iter().flatten().enumerate() {
        projection(source, &mut volume, &sources.index(index), problems);
    }
}

fn projection(source: &VolumeProjection, volume: &mut Volume<'_>, path: &Path<'_>, problems: &mut Problems) {
    let mut sources = 0;
    if let Some(secret) = &source.secret {
        sources += 1;
        let path = path.field("secret");
        if secret.name.is_empty() {
            problems.required(&path.field("name"), "");
        }
        volume.items(secret.items.as_deref(), &secret.name, &path, problems);
    }
    if let Some(map) = &source.config_map {
        sources += 1;
        let path = path.field("configMap");
        if map.name.is_empty() {
            problems.required(&path.field("name"), "");
        }
        volume.items(map.items.as_deref(), &map.name, &path, problems);
    }
    if let Some(downward) = &source.downward_api {
        sources += 1;
        for item in downward.items.iter().flatten() {
            downward::item(item, &path.field("downwardAPI"), problems);
            if !item.path.is_empty() {
                volume.claim(&item.path, &item.path, problems);
            }
        }
    }
    if let Some(token) = &source.service_account_token {
        sources += 1;
        self::token(token, volume, &path.field("serviceAccountToken"), problems);
    }
    if let Some(bundle) = &source.cluster_trust_bundle {
        sources += 1;
        self::bundle(bundle, &path.field("clusterTrustBundle"), problems);
        volume.claim(&bundle.path, &bundle.path, problems);
    }
    if let Some(certificate) = &source.pod_certificate {
        sources += 1;
        self::certificate(certificate, volume, &path.field("podCertificate"), problems);
    }
    if sources > 1 {
        problems.forbidden(path, "may not specify more than 1 volume type per source");
    }
}

fn token(token: &ServiceAccountTokenProjection, volume: &Volume<'_>, path: &Path<'_>, problems: &mut Problems) {
    let seconds = token.expiration_seconds.unwrap_or_default();
    let expiration = path.field("expirationSeconds");
    if seconds < 600 {
        problems.invalid(&expiration, seconds, "may not specify a duration less than 10 minutes");
    }
    if seconds > 1 << 32 {
        problems.invalid(&expiration, seconds, "may not specify a duration larger than 2^32 seconds");
    }
    // The server gives the volume's path here, not the source's.
    let path = volume.path.field("path");
    match token.path.as_str() {
        "" => problems.required(&path, ""),
        file => problems.format(&path, file, unreserved_path(file)),
    }
}

/// Trust bundle as the server shows it: its own structure, with Go's names.
struct InGo<'a>(&'a ClusterTrustBundleProjection);

impl From<InGo<'_>> for Shown {
    fn from(InGo(bundle): InGo<'_>) -> Self {
        let selector = bundle.label_selector.as_ref().map_or_else(|| "null".to_owned(), written);
        let fields = [
            ("Name", json!(bundle.name).to_string()),
            ("SignerName", json!(bundle.signer_name).to_string()),
            ("LabelSelector", selector),
            ("Optional", json!(bundle.optional).to_string()),
            ("Path", json!(bundle.path).to_string()),
        ];
        let fields: Vec<_> = fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        Self::json(format!("{{{}}}", fields.join(",")))
    }
}

/// Writes a selector as JSON, with the fields in Go's order.
fn written(selector: &LabelSelector) -> String {
    let labels = selector.match_labels.as_ref().map(|it| format!("\"matchLabels\":{}", json!(it)));
    let expressions = selector.match_expressions.as_ref().map(|it| format!("\"matchExpressions\":{}", json!(it)));
    let fields: Vec<_> = labels.into_iter().chain(expressions).collect();
    format!("{{{}}}", fields.join(","))
}

fn bundle(bundle: &ClusterTrustBundleProjection, path: &Path<'_>, problems: &mut Problems) {
    match (bundle.name.as_deref(), bundle.signer_name.as_deref()) {
        (Some(_), Some(_)) => {
            problems.invalid(path, InGo(bundle), "only one of name and signerName may be used");
        }
        (Some(name), None) => {
            if name.is_empty() {
                problems.required(&path.field("name"), "must be a valid object name");
            }
            for objection in bundle_name(name) {
                let detail = format_args!("not a valid clustertrustbundlename: {objection}");
                problems.invalid(&path.field("name"), name, detail);
            }
            if let Some(selector) = &bundle.label_selector {
                let detail = "labelSelector must be unset if name is specified";
                problems.invalid(&path.field("labelSelector"), Shown::json(written(selector)), detail);
            }
        }
        (None, Some(signer)) => {
            let field = path.field("signerName");
            if signer.is_empty() {
                problems.required(&field, "must be a valid signer name");
            }
            signer_name(signer, &field, problems);
            selector::labels(bundle.label_selector.as_ref(), &path.field("labelSelector"), problems);
        }
        (None, None) => problems.required(path, "either name or signerName must be specified"),
    }
    file(&bundle.path, &path.field("path"), problems);
}

/// Checks the name of a trust bundle: `signer.example.com:signer:name`, or a name of its own.
fn bundle_name(name: &str) -> Vec<String> {
    match name.rsplit_once(':') {
        Some((_, own)) => dns_subdomain(own),
        None => dns_subdomain(name),
    }
}

/// Checks the name of a signer: `example.com/signer`.
fn signer_name(name: &str, path: &Path<'_>, problems: &mut Problems) {
    if name.is_empty() {
        return problems.required(path, "");
    }
    let Some((domain, rest)) = name.split_once('/').filter(|(_, rest)| !rest.contains('/')) else {
        let detail = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        return problems.invalid(path, name, detail);
    };
    for objection in dns_subdomain(domain) {
        problems.invalid(path, domain, format_args!("validating label {}: {objection}", quoted(domain)));
    }
    if !domain.contains('.') {
        problems.invalid(path, domain, "should be a domain with at least two segments separated by dots");
    }
    for label in domain.split('.') {
        for objection in dns_label(label) {
            problems.invalid(path, domain, format_args!("validating label {}: {objection}", quoted(label)));
        }
    }
    problems.format(path, rest, dns_subdomain(rest));
}

fn certificate(
    certificate: &PodCertificateProjection,
    volume: &mut Volume<'_>,
    path: &Path<'_>,
    problems: &mut Problems,
) {
    signer_name(&certificate.signer_name, &path.field("signerName"), problems);
    // `keyType` is any text in Go, unlike others of its kind.
    if !KEY_TYPES.contains(&certificate.key_type.as_str()) {
        problems.not_among(&path.field("keyType"), &certificate.key_type, &KEY_TYPES);
    }
    if let Some(seconds) = certificate.max_expiration_seconds {
        let path = path.field("maxExpirationSeconds");
        if seconds < 3600 {
            problems.invalid(&path, seconds, "if provided, maxExpirationSeconds must be >= 3600");
        }
        if seconds > 91 * 24 * 3600 {
            problems.invalid(&path, seconds, "if provided, maxExpirationSeconds must be <= 7862400");
        }
    }
    let files = [
        ("credentialBundlePath", &certificate.credential_bundle_path),
        ("keyPath", &certificate.key_path),
        ("certificateChainPath", &certificate.certificate_chain_path),
    ];
    if files.iter().all(|(_, file)| file.is_none()) {
        let detail = "specify at least one of credentialBundlePath, keyPath, and certificateChainPath";
        problems.required(path, detail);
    }
    for (field, file) in files {
        if let Some(file) = file {
            problems.format(&path.field(field), file, unreserved_path(file));
            volume.claim(file, file, problems);
        }
    }
    for (key, _) in certificate.user_annotations.iter().flatten() {
        problems.format(&path.field("userAnnotations"), key, qualified_name(&key.to_lowercase()));
    }
}
