//! Limits on what others can make large, each with its reason. `docs/limits.md` lists them all.

// Documents.

/// Size limit of a manifest, bytes: one of this size or more is refused (R-FILE-12).
pub(crate) const MANIFEST: usize = 10 << 20;

/// Largest text of a file's documents with every alias expanded, bytes: twice the largest manifest. Otherwise a file of
/// 100 KiB could expand to gigabytes. A file beyond it is refused while it is read.
pub(crate) const EXPANDED: usize = 2 * MANIFEST;

/// Largest number of values in a file: an honest manifest has at most one in ten bytes. A value takes a hundred times
/// the memory of its two bytes in the file. A file with more is refused while it is read.
pub(crate) const VALUES: usize = 5 << 19;

/// Largest number of values that a file's aliases expand to, all together; a file with more is refused.
pub(crate) const ALIASED: usize = 100_000;

/// Deepest nesting of a document; a deeper one is refused. A Pod nests 20 deep.
pub(crate) const DEPTH: usize = 100;

/// Longest prefix of a `%TAG` directive, bytes; a longer one is refused. The parser copies it for every tag.
pub(crate) const TAG_PREFIX: usize = 256;

/// Largest number of pods and objects in a file; a file with more is refused. A node runs some hundreds.
pub(crate) const DOCUMENTS: usize = 10_000;

// Pods and objects.

/// Largest size of a pod or object as JSON, bytes: the API server's `MaxRequestBodyBytes`
/// (k8s.io/apiserver/pkg/server/config.go). A larger one is refused, as by an API server.
pub(crate) const REQUEST: usize = 3 << 20;

/// Largest size of a pod or object in etcd's form, bytes: etcd's largest request (`DefaultMaxRequestBytes`, etcd's
/// server/embed/config.go). A larger one is refused, as by an API server. The size is estimated from below.
pub(crate) const STORED: usize = 3 << 19;

/// Largest memory of the pods and objects of a file with the items of their lists and maps, all together, bytes; the
/// first pod beyond it is refused. `{}` in the manifest becomes a container of a kilobyte, and one list of containers
/// can stand in many pods. A file can have more than a thousand pods of three containers and three volumes.
pub(crate) const ITEMS: usize = 32 << 20;

/// Largest size of the values of a ConfigMap or Secret together, bytes; a larger one is refused, as by an API server.
pub(crate) const DATA: usize = 1 << 20;

/// Largest text that references of a file's pods to their own fields and variables expand to, and that containers
/// inherit from their pods, all together, bytes; the first pod beyond it is refused. The kernel takes 6 MiB for one
/// program (execve(2)).
pub(crate) const REFERRED: usize = 16 << 20;

/// Longest label value that `matchLabelKeys` copies into a selector, bytes. A longer one is not a valid label, and is
/// refused itself.
pub(crate) const COPIED_LABEL: usize = 1 << 10;

/// Largest memory of the copies that `matchLabelKeys` makes in a pod, bytes. A pod that repeats a key of two bytes can
/// ask for hundreds of thousands of copies. Further copies are neither made nor validated; a node reads none of them.
pub(crate) const COPIED_LABELS: usize = 8 << 20;

// Problems.

/// Largest number of problems of a file that are reported, and of warnings; further ones are counted.
pub(crate) const PROBLEMS: usize = 100;

/// Longest message of a problem, bytes; a longer one is cut. Values that it quotes can be as large as the file.
pub(crate) const MESSAGE: usize = 4 << 10;

/// Longest path of a problem's field, bytes; a longer one is cut. Keys in it can be as large as the file.
pub(crate) const FIELD: usize = 1 << 10;
