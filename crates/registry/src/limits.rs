//! Bounds on input from others, each with its reason. `docs/limits.md` lists them all.

use stanchion_untrusted::Limit;

/// Minimum bytes of a blob per minute of waiting for the registry: a kilobyte a second, less than the slowest lines
/// give each of three transfers. A slower pull fails and is tried again later.
pub(crate) const SLOWEST: Limit = Limit::new("bytes of a blob in a minute", 64 << 10);
/// Answer of a token server, bytes; the limit of Podman and CRI-O (`containers/image`, `MaxAuthTokenBodySize`). A
/// larger one is refused.
pub(crate) const TOKEN: Limit = Limit::new("answer of a token server", 1 << 20);
/// Registry's answer to `GET /v2/` without credentials, bytes. The rest is not read.
pub(crate) const GREETING: Limit = Limit::new("greeting of a registry", 64 << 10);
/// Text of a registry's error answer, bytes, as containerd reads it. The rest is not read.
pub(crate) const REFUSAL: Limit = Limit::new("refusal of a registry", 64 << 10);
/// Certificate or key that the settings name, bytes; the bundle of all public authorities has some 300 KiB. A larger
/// one is refused.
pub(crate) const CERTIFICATES: Limit = Limit::new("certificates of a registry", 16 << 20);
