//! Opaque ids that a backend hands out and the agent hands back.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl $name {
            /// Returns the id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(id: &str) -> Self {
                Self(id.to_owned())
            }
        }
    };
}

id! {
    /// Id of a sandbox in its backend.
    SandboxId
}
id! {
    /// Id of a container in its backend, as the runtime's own tools show it.
    ContainerId
}
id! {
    /// Id of a running exec, chosen by the agent, unique per backend.
    ExecId
}
id! {
    /// Content address of an image: `sha256:…` of its manifest or configuration, whichever the runtime uses. For a
    /// container's image, the repository and an `@` precede it if the repository is known (R-CS-9).
    ImageDigest
}
