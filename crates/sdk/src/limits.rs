//! Bounds on what others can make large, each with its reason. `docs/limits.md` lists them all.

use stanchion_untrusted::Limit;

// Images.

/// An image manifest or an index, bytes: registries have to take at least this size (distribution specification, "Pushing
/// Manifests"), and containerd takes at most this. A larger one is refused before it is fetched where its size is known.
pub const MANIFEST: Limit = Limit::new("image manifest", 4 << 20);
/// An image configuration, bytes: Podman and CRI-O take as much (`containers/image`, `MaxConfigBodySize`); real ones have some
/// kilobytes. A larger one is refused before it is fetched.
pub const CONFIG: Limit = Limit::new("image configuration", 4 << 20);
/// Layers of a manifest. overlayfs lays 500 over each other, Docker 127. A manifest with more is refused.
pub const LAYERS: Limit = Limit::new("layers of an image", 1024);
/// Entries of an index. Real ones have one or two for each platform. An index with more is refused.
pub const ENTRIES: Limit = Limit::new("entries of an image index", 4096);
/// Manifests and indexes that are read on the way from an image's name to its manifest. One or two are common; an index that
/// leads further is refused.
pub const DOCUMENTS: Limit = Limit::new("manifests and indexes of an image", 32);
/// Texts of registries and archives that messages show, bytes. The rest is cut.
pub const SHOWN: Limit = Limit::new("text of a registry", 300);

// Files of images.

/// `/etc/passwd` and `/etc/group` of an image, which have a line for each user and group. Of a longer one only the beginning
/// is read, and that is logged.
pub(crate) const TABLE: Limit = Limit::new("table of users of an image", 1 << 20);

// Archives.

/// An entry's header in an archive, with its long names and extensions, bytes. The tar reader keeps them in memory; an
/// archive with a larger one is refused.
pub const HEADER: Limit = Limit::new("header in an archive", 1 << 20);
/// An entry's name in an archive, bytes; the names in image archives have some 100. An archive with a longer one is refused.
pub const NAME: Limit = Limit::new("name in an archive", 1024);
/// The manifests, indexes and configurations of an archive together, bytes, as often as they are read. Those of a thousand images
/// have some 20 MiB; an archive with more is refused.
pub const ARCHIVE_DOCUMENTS: Limit = Limit::new("documents of an archive", 64 << 20);
/// Entries of an archive. An image has one or two for each layer. An archive with more is refused.
pub const ARCHIVE_ENTRIES: Limit = Limit::new("entries of an archive", 65_536);

// The node's own files.

/// One file of `/proc` about one process, which the kernel keeps within a page or two. A longer one is not read.
pub(crate) const PROCESS: Limit = Limit::new("state of a process", 64 << 10);
/// The environment of a process, which it can enlarge at will. The rest is not looked at.
pub(crate) const ENVIRONMENT: Limit = Limit::new("environment of a process", 1 << 20);
