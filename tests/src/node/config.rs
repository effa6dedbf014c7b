//! The configuration of a test node's agent.

use std::path::Path;

use super::{NODE_NAME, NodeBuilder};
use crate::{slot::Names, view::Backend};

impl NodeBuilder {
    /// `socket` is the runtime's, `mirror` what stands for Docker Hub.
    pub(super) fn config(&self, names: &Names, programs: &Path, socket: &Path, mirror: Option<&str>) -> String {
        let dir = &names.dir;
        let runtime = self.runtime.name();
        // Docker's mirrors are its own configuration's.
        let mirrors = mirror.filter(|_| self.runtime != Backend::Docker).map_or_else(String::new, |address| {
            format!("[backend.{runtime}.registry.\"docker.io\"]\nmirrors = [\"http://{address}\"]\n")
        });
        let credentials = mirror.zip(self.credentials.as_ref());
        let credentials = credentials.map_or_else(String::new, |(address, (username, password))| {
            format!("[backend.{runtime}.registry.{address:?}]\nusername = {username:?}\npassword = {password:?}\n")
        });
        let network = match self.runtime {
            Backend::Containerd | Backend::K3s => {
                format!("[backend.{runtime}.network]\nbridge = \"{}\"\nsubnet = \"{}\"\n", names.bridge, names.subnet())
            }
            Backend::Docker => String::new(),
        };
        let layout = match self.runtime {
            Backend::K3s => format!("data_dir = {:?}\nown_after = \"1s\"\n", dir.join("k3s/data")),
            Backend::Containerd | Backend::Docker => String::new(),
        };
        format!(
            "[agent]\nnode_name = \"{NODE_NAME}\"\nstate_dir = {state:?}\nrun_dir = {run:?}\nlog_dir = {log:?}\n\
             plugin_dir = {programs:?}\ndefault_backend = \"{runtime}\"\n{agent}\n\
             [[source]]\npath = {manifests:?}\n\n[images]\npreload = {preload:?}\n\n\
             [backend.{runtime}]\nsocket = {socket:?}\nnamespace = \"{namespace}\"\ncgroup_root = \"{cgroup}\"\n{layout}{backend}\n\
             {network}\n{mirrors}{credentials}\n{rest}",
            state = dir.join("state"),
            run = dir.join("run"),
            log = dir.join("logs"),
            manifests = dir.join("manifests"),
            preload = dir.join("preload"),
            namespace = names.namespace,
            cgroup = names.cgroup,
            agent = self.agent,
            backend = self.backend,
            rest = self.rest,
        )
    }
}
