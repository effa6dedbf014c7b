//! The configuration of a test node's agent.

use std::path::Path;

use super::{NODE_NAME, NodeBuilder};
use crate::{cgroups, slot::Names, view::Backend};

impl NodeBuilder {
    /// Returns the configuration. `socket` is the runtime's, `mirror` the registry that stands in for Docker Hub.
    pub(super) fn config(&self, names: &Names, programs: &Path, socket: &Path, mirror: Option<&str>) -> String {
        let dir = &names.dir;
        let runtime = self.runtime.name();
        // The backend whose table configures the pods' network and registries.
        let owner = match self.runtime {
            Backend::Containerd | Backend::K3s => Some(runtime),
            Backend::Docker => self.beside.is_some().then_some("containerd"),
        };
        // Docker's mirrors are in dockerd's own configuration.
        let mirrors = mirror.filter(|_| owner.is_some()).map_or_else(String::new, |address| {
            format!(
                "[backend.{}.registry.\"docker.io\"]\nmirrors = [\"http://{address}\"]\n",
                owner.unwrap_or_default()
            )
        });
        let credentials = mirror.zip(self.credentials.as_ref());
        let credentials = credentials.map_or_else(String::new, |(address, (username, password))| {
            format!("[backend.{runtime}.registry.{address:?}]\nusername = {username:?}\npassword = {password:?}\n")
        });
        let network = owner.map_or_else(String::new, |owner| {
            format!("[backend.{owner}.network]\nbridge = \"{}\"\nsubnet = \"{}\"\n", names.bridge, names.subnet())
        });
        let layout = match self.runtime {
            Backend::K3s => format!("data_dir = {:?}\nown_after = \"1s\"\n", dir.join("k3s/data")),
            Backend::Containerd | Backend::Docker => String::new(),
        };
        let driver = match self.runtime {
            Backend::Containerd | Backend::K3s => cgroups::Driver::chosen().of_containerd(),
            Backend::Docker => "",
        };
        let beside = self.beside.as_ref().map_or_else(String::new, |socket| {
            let (namespace, cgroup) = (&names.namespace, &names.cgroup_root);
            let driver = cgroups::Driver::chosen().of_containerd();
            let table =
                format!("socket = {socket:?}\nnamespace = \"{namespace}\"\ncgroup_root = \"{cgroup}\"\n{driver}");
            format!(
                "[backend.containerd]\n{table}\n[runtime_classes]\ncontainerd = \"containerd\"\ndocker = \"docker\"\n"
            )
        });
        format!(
            "[agent]\nnode_name = \"{NODE_NAME}\"\nstate_dir = {state:?}\nrun_dir = {run:?}\nlog_dir = {log:?}\n\
             plugin_dir = {programs:?}\ndefault_backend = \"{runtime}\"\n{agent}\n\
             [[source]]\npath = {manifests:?}\n\n[images]\npreload = {preload:?}\n{images}\n\
             [backend.{runtime}]\nsocket = {socket:?}\nnamespace = \"{namespace}\"\ncgroup_root = \"{cgroup}\"\n{layout}{driver}{backend}\n\
             {beside}\n{network}\n{mirrors}{credentials}\n{rest}",
            state = dir.join("state"),
            run = dir.join("run"),
            log = dir.join("logs"),
            manifests = dir.join("manifests"),
            preload = dir.join("preload"),
            namespace = names.namespace,
            cgroup = names.cgroup_root,
            agent = self.agent,
            backend = self.backend,
            images = self.images,
            rest = self.rest,
        )
    }
}
