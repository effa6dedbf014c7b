//! Limits on input from others, each with its reason. `docs/limits.md` lists them all.

use stanchion_untrusted::Limit;

// Images.

/// Maximum size of an image manifest or index, bytes: registries must accept at least this size (distribution
/// specification, "Pushing Manifests"), and containerd accepts at most this. A larger one is refused, before the
/// download if its size is known.
pub const MANIFEST: Limit = Limit::new("image manifest", 4 << 20);
/// Maximum size of an image configuration, bytes, as in Podman and CRI-O (`containers/image`, `MaxConfigBodySize`);
/// real ones have some kilobytes. A larger one is refused before the download.
pub const CONFIG: Limit = Limit::new("image configuration", 4 << 20);
/// Maximum number of layers in a manifest. overlayfs stacks 500, Docker 127. A manifest with more is refused.
pub const LAYERS: Limit = Limit::new("layers of an image", 1024);
/// Maximum number of entries in an index. Real ones have one or two per platform. An index with more is refused.
pub const ENTRIES: Limit = Limit::new("entries of an image index", 4096);
/// Maximum number of manifests and indexes read between an image's name and its manifest. One or two are common; a
/// longer chain is refused.
pub const DOCUMENTS: Limit = Limit::new("manifests and indexes of an image", 32);
/// Maximum length of texts from registries and archives in messages, bytes. The rest is cut.
pub const SHOWN: Limit = Limit::new("text of a registry", 300);

// Files of images.

/// Maximum size of `/etc/passwd` and `/etc/group` of an image, which have a line per user and group. Only the beginning
/// of a longer one is read, with a log record.
pub(crate) const TABLE: Limit = Limit::new("table of users of an image", 1 << 20);

// Archives.

/// Maximum size of an entry's header in an archive, with long names and extensions, bytes. The tar reader keeps them in
/// memory; an archive with a larger one is refused.
pub const HEADER: Limit = Limit::new("header in an archive", 1 << 20);
/// Maximum length of an entry's name in an archive, bytes; names in image archives have some 100. An archive with a
/// longer one is refused.
pub const NAME: Limit = Limit::new("name in an archive", 1024);
/// Maximum total size of the manifests, indexes and configurations read from an archive, bytes; repeated reads count
/// again. Those of a thousand images have some 20 MiB; an archive with more is refused.
pub const ARCHIVE_DOCUMENTS: Limit = Limit::new("documents of an archive", 64 << 20);
/// Maximum number of entries in an archive. An image has one or two per layer. An archive with more is refused.
pub const ARCHIVE_ENTRIES: Limit = Limit::new("entries of an archive", 65_536);

// The node's own files.

/// Maximum size of one file of `/proc` about one process, bytes; the kernel keeps it within a page or two. A longer one
/// is not read.
pub(crate) const PROCESS: Limit = Limit::new("state of a process", 64 << 10);
/// Maximum size of a process's environment, bytes; a process can enlarge it at will. The rest is ignored.
pub(crate) const ENVIRONMENT: Limit = Limit::new("environment of a process", 1 << 20);
