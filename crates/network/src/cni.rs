//! Pod network by CNI plugins and a configuration list (CNI specification 0.3.1, 0.4.0, 1.0.0).
//!
//! # Layout
//! - [`Cni`]: ADD and DEL through the list. [`conflist`]: the list. [`plugins`]: the programs. [`attachments`]: data for DEL.

mod attachments;
mod conflist;
mod plugins;
#[cfg(test)]
mod tests;

use std::{
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::Value;
use stanchion_runtime::{Error, ErrorKind, NodePaths, Result, SandboxConfig};

use super::{NetworkConfig, leases::Leases, links::links};
use crate::namespaces;
use attachments::{Attachment, Attachments};
use conflist::Conflist;
use plugins::{Call, Plugins};

/// Name of the link in the pod.
const INTERFACE: &str = "eth0";

/// CNI network of one agent.
#[derive(Clone, Debug)]
pub(super) struct Cni {
    /// Configuration list; `None` if CNI plugins do not attach pods.
    config: Option<Arc<Path>>,
    plugins: Plugins,
    attachments: Attachments,
    /// Leases of the node's ports only: the plugins assign the addresses.
    leases: Leases,
}

impl Cni {
    pub fn new(config: &NetworkConfig, node: &NodePaths) -> Result<Self> {
        let wrong = |path: &PathBuf| !path.is_absolute() || path.to_string_lossy().contains(':');
        let paths = config.cni_config.iter().map(|it| ("cni_config", it));
        let mut paths = paths.chain(config.cni_bin_dirs.iter().map(|it| ("cni_bin_dirs", it)));
        if let Some((key, path)) = paths.find(|(_, path)| wrong(path)) {
            let message = format!("network.{key} {path:?}: expected an absolute path without a colon");
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        Ok(Self {
            config: config.cni_config.as_deref().map(Arc::from),
            plugins: Plugins::at(config.cni_bin_dirs.clone()),
            attachments: Attachments::at(node.state_dir.join("cni")),
            leases: Leases::at(node.run_dir.join("cni")),
        })
    }

    /// Returns an error if pods cannot be attached, as far as that is known without a pod.
    pub fn check(&self) -> Result<()> {
        self.config().map_or(Ok(()), |path| self.list(path).map(drop))
    }

    /// Returns the list for new sandboxes, if there is one.
    pub fn config(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    /// Runs ADD for a network namespace. Nothing may be left of an earlier try. The list is read each time, so an edit
    /// applies to later sandboxes.
    pub fn attach(&self, config: &Path, id: &str, namespace: &Path, pod: &SandboxConfig) -> Result<Vec<IpAddr>> {
        let list = self.list(config).map_err(|error| {
            // An administrator may correct the list at any moment.
            Error::new(ErrorKind::Unavailable, format!("network is not ready: {}", error.chain()))
        })?;
        let ports = pod.port_mappings.clone();
        if let Some(port) = ports.first().filter(|_| !list.publishes_ports()) {
            let message = format!(
                "port {} of the node cannot be published: no plugin of {} does that; add \
                 {{\"type\": \"portmap\", \"capabilities\": {{\"portMappings\": true}}}} to it",
                port.host_port,
                config.display()
            );
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        // The plugin `loopback` would do this.
        namespaces::inside(namespace, || links(async |links| links.bring_up("lo").await)).map_err(|error| {
            Error::new(ErrorKind::Other, format!("entering the network of sandbox {id}")).caused_by(&error)
        })?;
        let mut attachment = Attachment { list, arguments: arguments(id, pod), ports, result: None };
        let added = self.add(id, namespace, &mut attachment);
        added.map_err(|error| {
            if let Err(left) = self.detach(id, namespace) {
                tracing::warn!(sandbox = id, error = left.chain(), "a half connected network is left to the next try");
            }
            error.context(format!("connecting sandbox {id} to network {}", attachment.list.name))
        })
    }

    fn add(&self, id: &str, namespace: &Path, attachment: &mut Attachment) -> Result<Vec<IpAddr>> {
        for port in &attachment.ports {
            self.leases.claim(id, port)?;
        }
        // Written before the first plugin runs: from here on there is something to undo.
        self.attachments.write(id, attachment).map_err(|error| keeping(id, &error))?;
        let call = Call { command: "ADD", sandbox: id, namespace: Some(namespace), arguments: &attachment.arguments };
        let mut result = None;
        for plugin in &attachment.list.plugins {
            let input = attachment.list.input(plugin, &attachment.ports, result.as_ref());
            let printed = self.plugins.run(&plugin.kind, call, &input)?;
            result = Some(serde_json::from_slice(&printed).map_err(|error| {
                let message = format!("CNI plugin {} on ADD for sandbox {id}: its answer is no JSON", plugin.kind);
                Error::new(ErrorKind::Other, message).caused_by(&error)
            })?);
        }
        let addresses = result.as_ref().map(addresses).unwrap_or_default();
        if addresses.is_empty() {
            let message = format!("the CNI plugins gave sandbox {id} no address");
            return Err(Error::new(ErrorKind::Other, message));
        }
        attachment.result = result;
        self.attachments.write(id, attachment).map_err(|error| keeping(id, &error))?;
        Ok(addresses)
    }

    /// Runs DEL for a sandbox, with the list that its ADD used. Does nothing for a sandbox without an ADD.
    pub fn detach(&self, id: &str, namespace: &Path) -> Result<()> {
        let attachment = match self.attachments.read(id) {
            // A power cut may have cut off the record: the present list is better than nothing.
            Err(error)
                if error.kind() == io::ErrorKind::InvalidData || error.kind() == io::ErrorKind::UnexpectedEof =>
            {
                tracing::warn!(sandbox = id, %error, "what is kept of its network cannot be read");
                let list = self.config().map(|path| self.list(path)).transpose()?;
                list.map(|list| Attachment { list, arguments: String::new(), ports: Vec::new(), result: None })
            }
            attachment => attachment.map_err(|error| keeping(id, &error))?,
        };
        let deleted = attachment.map_or(Ok(()), |attachment| self.delete(id, namespace, &attachment));
        deleted?;
        self.attachments.remove(id).map_err(|error| keeping(id, &error))?;
        self.leases.release(id).map(drop).map_err(|error| {
            Error::new(ErrorKind::Other, format!("freeing the ports of sandbox {id}")).caused_by(&error)
        })
    }

    /// Runs DEL of every plugin, whatever another one answers.
    fn delete(&self, id: &str, namespace: &Path, attachment: &Attachment) -> Result<()> {
        let list = &attachment.list;
        let namespace = Some(namespace).filter(|namespace| namespaces::is_pinned(namespace));
        let call = Call { command: "DEL", sandbox: id, namespace, arguments: &attachment.arguments };
        let result = attachment.result.as_ref().filter(|_| list.del_has_result());
        let mut first = Ok(());
        for plugin in list.plugins.iter().rev() {
            let input = list.input(plugin, &attachment.ports, result);
            if let Err(error) = self.plugins.run(&plugin.kind, call, &input) {
                tracing::debug!(sandbox = id, error = error.chain(), "a CNI plugin did not undo what it did");
                first = first.and(Err(error));
            }
        }
        first.map_err(|error: Error| error.context(format!("disconnecting sandbox {id} from network {}", list.name)))
    }

    /// Returns every sandbox that has an attachment or a port.
    pub fn holders(&self) -> io::Result<Vec<String>> {
        let mut holders = self.attachments.holders()?;
        holders.extend(self.leases.holders()?);
        Ok(holders)
    }

    /// Reads the present list, and checks that all its programs exist.
    fn list(&self, path: &Path) -> Result<Conflist> {
        let list = Conflist::read(path)?;
        for program in list.plugins.iter().flat_map(conflist::Plugin::programs) {
            let found = self.plugins.find(program);
            found.map_err(|error| error.context(format!("network.cni_config {}", path.display())))?;
        }
        Ok(list)
    }
}

fn keeping(id: &str, error: &io::Error) -> Error {
    Error::new(ErrorKind::Other, format!("keeping what disconnects the network of sandbox {id}")).caused_by(error)
}

/// Returns the `CNI_ARGS` that plugins know from kubelets. It leaves out a value that a plugin could read as another
/// argument.
fn arguments(id: &str, pod: &SandboxConfig) -> String {
    let all = [
        ("IgnoreUnknown", "1"),
        ("K8S_POD_NAMESPACE", &pod.namespace),
        ("K8S_POD_NAME", &pod.name),
        ("K8S_POD_INFRA_CONTAINER_ID", id),
        ("K8S_POD_UID", &pod.uid),
    ];
    let plain = all.iter().filter(|(_, value)| !value.contains([';', '=', '\0']));
    plain.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(";")
}

/// Returns the addresses inside the sandbox, in the plugins' order, IPv6 included.
fn addresses(result: &Value) -> Vec<IpAddr> {
    let is_inside = |ip: &Value| {
        // An address without an interface is the sandbox's.
        let Some(link) = ip["interface"].as_u64().and_then(|it| usize::try_from(it).ok()) else { return true };
        result["interfaces"][link]["sandbox"].as_str().is_some_and(|sandbox| !sandbox.is_empty())
    };
    let all = result["ips"].as_array().map(Vec::as_slice).unwrap_or_default();
    let inside = all.iter().filter(|ip| is_inside(ip)).filter_map(|ip| ip["address"].as_str());
    inside.filter_map(|address| address.split('/').next()?.parse().ok()).collect()
}
