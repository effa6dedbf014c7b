//! Limits on input from others, each with its reason. `docs/limits.md` lists them all.

use stanchion_pod::MAX_MANIFEST;
use stanchion_untrusted::Limit;

// Files.

/// Maximum size of a file for `validate`, or of standard input: the agent's limit for a manifest. A larger one is
/// refused.
pub(crate) const MANIFEST: Limit = Limit::new("manifest file", MAX_MANIFEST as u64 - 1);

/// Maximum size of the configuration and of each file in `conf.d`, bytes. A larger one is refused: the program does not
/// start.
pub(crate) const SETTINGS_FILE: Limit = Limit::new("file of settings", 4 << 20);

// Tables and terminals.

/// Maximum size of a file of the node that `stanchion doctor` reads, such as the routes, bytes: enough for its checks.
/// The rest is ignored.
pub(crate) const NODE_FILE: Limit = Limit::new("file that doctor reads", 1 << 20);

/// Maximum length of a text in a table, letters: events and messages are at most as long. Longer ones are cut, because
/// one of them would move all columns behind it.
pub(crate) const CELL: Limit = Limit::new("text in a table", 1024);

/// Maximum length of a text in a description, bytes. Longer ones are cut.
pub(crate) const DETAIL: Limit = Limit::new("text in a description", 16 << 10);
