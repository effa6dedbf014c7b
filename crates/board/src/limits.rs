//! Limits on texts of others and on what is kept to be shown, each with its reason. `docs/limits.md` lists them all.

use stanchion_untrusted::Limit;

/// Maximum length of an event's message, bytes, as in the API server. Longer ones are cut.
pub(crate) const EVENT_MESSAGE: Limit = Limit::new("message of an event", 1024);

/// Maximum length of an event's reason, bytes, as in the API server. Longer ones are cut.
pub(crate) const EVENT_REASON: Limit = Limit::new("reason of an event", 128);

/// Maximum number of events. Beyond it the oldest are forgotten.
pub(crate) const EVENTS: Limit = Limit::new("events", 2000);

/// Maximum size of a file of events, bytes. Then all events that are in memory are put into the file before it, each once, and the
/// file is begun anew; if they do not fit, the oldest are left out.
pub(crate) const EVENT_FILE: Limit = Limit::new("file of events", 1 << 20);

/// Maximum length of a message in the status of a pod, a source or a backend, bytes: as much as a kubelet takes of a
/// termination message. Longer ones are cut.
pub(crate) const STATUS_MESSAGE: Limit = Limit::new("message of a status", 4096);

/// Maximum number of deleted objects of a kind that are remembered, for clients that come back. A client that missed more
/// lists everything again.
pub(crate) const DELETIONS: Limit = Limit::new("deleted objects", 256);
