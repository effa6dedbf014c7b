//! Bounds on what others can make large, each with its reason. `docs/limits.md` lists them all.

use stanchion_pod::MAX_MANIFEST;
use stanchion_untrusted::Limit;

// Files.

/// A file that `validate` is given, or standard input: as the agent's for a manifest. A larger one is refused.
pub(crate) const MANIFEST: Limit = Limit::new("manifest file", MAX_MANIFEST as u64 - 1);

/// The configuration, and each file in `conf.d`. A larger one is refused: the program does not start.
pub(crate) const SETTINGS_FILE: Limit = Limit::new("file of settings", 4 << 20);

// Tables and terminals.

/// A file of the node that `stanchion doctor` looks at, such as its routes: enough for what it looks for, and the rest is
/// left unread.
pub(crate) const NODE_FILE: Limit = Limit::new("file that doctor reads", 1 << 20);

/// A text in a table, letters: events and messages are at most as long. Longer ones are cut, since one of them would move
/// all columns behind it.
pub(crate) const CELL: Limit = Limit::new("text in a table", 1024);

/// A text in a description, bytes. Longer ones are cut.
pub(crate) const DETAIL: Limit = Limit::new("text in a description", 16 << 10);
