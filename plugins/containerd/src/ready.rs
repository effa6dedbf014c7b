//! Set-up before the first call that needs it: the containerd namespace, and clean-up after an earlier run.

use std::{collections::HashMap, collections::HashSet, io};

use containerd_client::{
    services::v1::{CreateNamespaceRequest, Namespace},
    tonic::Code,
};
use stanchion_sdk::{
    layers::{self, children},
    runtime::{Error, ErrorKind, Result},
};

use crate::{Containerd, client::failed, exec, inventory::of_ours};

impl Containerd {
    /// Sets the backend up once; after a failure, every call tries again.
    pub(crate) async fn ready(&self) -> Result<()> {
        self.ready.get_or_try_init(|| self.prepare()).await.map(drop)
    }

    async fn prepare(&self) -> Result<()> {
        let namespace = Namespace { name: self.client.namespace().to_owned(), labels: HashMap::new() };
        // containerd 1.6 needs the header too, for the event: the name in the message is not enough.
        let request = self.client.request(CreateNamespaceRequest { namespace: Some(namespace) });
        match self.client.namespaces().create(request).await {
            Err(status) if status.code() != Code::AlreadyExists => {
                let tried = format!("making namespace {} in containerd", self.client.namespace());
                return Err(failed(tried, &status));
            }
            _ => {}
        }
        let sandboxes: HashSet<_> = self.records(vec![of_ours()]).await?.into_iter().map(|record| record.id).collect();
        self.blocking(move |backend| backend.sweep(sandboxes)).await
    }

    /// Frees what belongs to no sandbox. None is being created meanwhile: that waits for this.
    fn sweep(&self, mut sandboxes: HashSet<String>) -> Result<()> {
        let failed = |error: io::Error| {
            let message = format!("clearing {} of what an earlier run left", self.run_dir.display());
            Error::new(ErrorKind::Other, message).caused_by(&error)
        };
        // Read before the pinned namespaces, so that it lists nothing that another backend attaches later.
        let attached = self.network.holders()?;
        let volumes = self.volumes_on_node().map_err(failed)?;
        let pinned = children(&self.run_dir.join("ns")).map_err(failed)?;
        let is_others = |sandbox: &str| !sandboxes.contains(sandbox) && pinned.iter().any(|other| other == sandbox);
        for home in volumes.into_iter().filter_map(|(sandbox, home)| (!is_others(&sandbox)).then_some(home)) {
            if let Err(error) = layers::unmount(&home) {
                tracing::warn!(home = %home.display(), %error, "an image that an earlier run mounted stays mounted");
            }
        }
        // A pinned namespace without a record of ours may belong to another backend: several share this directory.
        sandboxes.extend(pinned);
        for id in attached.difference(&sandboxes) {
            // No reason to make existing pods wait; the next start tries again.
            if let Err(error) = self.network.detach(id, &self.namespaces(id).path("net")) {
                tracing::warn!(sandbox = id, error = error.chain(), "the network of an old sandbox is not freed");
            }
        }
        exec::sweep(&self.run_dir).map_err(failed)
    }
}
