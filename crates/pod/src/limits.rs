//! Bounds on what others can make large, each with its reason. `docs/limits.md` lists them all.

// Documents.

/// The most that a manifest may have, bytes; at this size and above it is refused (R-FILE-12).
pub(crate) const MANIFEST: usize = 10 << 20;

/// The most text that a file's documents may have with every alias written out, bytes: twice the largest manifest. A file of
/// 100 KiB can stand for gigabytes otherwise. What is above it is refused while it is read.
pub(crate) const EXPANDED: usize = 2 * MANIFEST;

/// The most values that a file may have: an honest manifest has one in ten bytes or more. A value takes a hundred times the
/// memory of its two bytes in the file; a file with more is refused while it is read.
pub(crate) const VALUES: usize = 5 << 19;

/// The most values that a file's aliases may stand for, all together; beyond it the file is refused.
pub(crate) const ALIASED: usize = 100_000;

/// How deep a document may nest; a deeper one is refused. A Pod nests 20 deep.
pub(crate) const DEPTH: usize = 100;

/// The longest prefix that a `%TAG` directive may have, bytes; a longer one is refused. The parser copies it for every tag.
pub(crate) const TAG_PREFIX: usize = 256;

/// The most pods and objects that a file may have; with more it is refused. A node runs some hundreds.
pub(crate) const DOCUMENTS: usize = 10_000;

// Pods and objects.

/// The most that a pod or object may have as JSON, bytes; a larger one is refused as by an API server, whose
/// `MaxRequestBodyBytes` this is (k8s.io/apiserver/pkg/server/config.go).
pub(crate) const REQUEST: usize = 3 << 20;

/// The most that a pod or object may have in etcd's form, bytes; a larger one is refused as by an API server, whose etcd takes
/// requests of this size (`DefaultMaxRequestBytes`, etcd's server/embed/config.go). It is estimated from below.
pub(crate) const STORED: usize = 3 << 19;

/// The most memory that the pods and objects of a file may take with the items of their lists and maps, all together, bytes; the
/// first pod that goes over it is refused. `{}` in the manifest is a container of a kilobyte, and one list of containers can stand
/// in many pods. Of pods of three containers and three volumes a file may have more than a thousand.
pub(crate) const ITEMS: usize = 32 << 20;

/// The most that the values of a ConfigMap or Secret may have together, bytes; a larger one is refused, as by an API server.
pub(crate) const DATA: usize = 1 << 20;

/// The most text that the references of a file's pods to their own fields and variables may stand for, and that containers
/// inherit from their pods, all together, bytes; the first pod that goes over it is refused. The kernel takes 6 MiB for one program
/// (execve(2)).
pub(crate) const REFERRED: usize = 16 << 20;

/// The longest label value that `matchLabelKeys` copies into a selector, bytes. A longer one is no label: it is refused itself.
pub(crate) const COPIED_LABEL: usize = 1 << 10;

/// The most memory that the copies of `matchLabelKeys` may take in a pod, bytes. A pod that repeats a key of two bytes can ask for
/// hundreds of thousands. No more than these are made and validated; a node reads none of them.
pub(crate) const COPIED_LABELS: usize = 8 << 20;

// Problems.

/// The most problems of a file that are told, and the most warnings; those after them are counted.
pub(crate) const PROBLEMS: usize = 100;

/// The longest message of a problem, bytes; more is cut. Values that it quotes can be as large as the file.
pub(crate) const MESSAGE: usize = 4 << 10;

/// The longest path of a problem's field, bytes; more is cut. Keys in it can be as large as the file.
pub(crate) const FIELD: usize = 1 << 10;
