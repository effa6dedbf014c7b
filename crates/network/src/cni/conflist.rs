//! Reads a network configuration list, as in `/etc/cni/net.d/*.conflist` (CNI specification, section 1).

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use stanchion_runtime::{Error, ErrorKind, PortMapping, Result};
use stanchion_untrusted::{Links, read};

use crate::limits;

/// Versions of the specification whose ADD and DEL are supported.
const VERSIONS: [&str; 3] = ["0.3.1", "0.4.0", "1.0.0"];

/// Capability of a plugin that publishes ports of the node.
const PORT_MAPPINGS: &str = "portMappings";

/// A network configuration list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Conflist {
    pub cni_version: String,
    pub name: String,
    pub plugins: Vec<Plugin>,
}

/// One plugin's part of the list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Plugin {
    /// File name of its program.
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    capabilities: Map<String, Value>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl Conflist {
    /// Reads and checks a file.
    pub fn read(path: &Path) -> Result<Self> {
        let shown = path.display();
        let invalid = |message: String| Error::new(ErrorKind::Invalid, message);
        let bytes = read(path, Links::Follow, limits::SETTINGS_FILE).map_err(|error| {
            invalid(format!("network.cni_config {shown}: cannot be read; put the conflist there, or remove the key"))
                .caused_by(&error)
        })?;
        let value: Value = serde_json::from_slice(&bytes)
            .map_err(|error| invalid(format!("network.cni_config {shown}: this is not JSON")).caused_by(&error))?;
        if value.get("plugins").is_none() && value.get("type").is_some() {
            return Err(invalid(format!(
                "network.cni_config {shown}: this is one plugin's configuration, not a list; write \
                 {{\"cniVersion\": …, \"name\": …, \"plugins\": [ … ]}} around it"
            )));
        }
        let list: Self = serde_json::from_value(value).map_err(|error| {
            invalid(format!("network.cni_config {shown}: this is not a CNI configuration list")).caused_by(&error)
        })?;
        match list.fault() {
            Some(fault) => Err(invalid(format!("network.cni_config {shown}: {fault}"))),
            None => Ok(list),
        }
    }

    fn fault(&self) -> Option<String> {
        if !VERSIONS.contains(&self.cni_version.as_str()) {
            return Some(format!("cniVersion {:?} is not supported; write one of {VERSIONS:?}", self.cni_version));
        }
        if !is_name(&self.name) {
            return Some(format!("name {:?}: expected letters, digits, and . _ - after the first", self.name));
        }
        if self.plugins.is_empty() {
            return Some("plugins is empty; name at least one".to_owned());
        }
        let mut programs = self.plugins.iter().flat_map(Plugin::programs);
        let wrong = programs.find(|program| !is_name(program))?;
        Some(format!("plugin type {wrong:?}: expected the name of a program, without a directory"))
    }

    /// Returns whether one of the plugins publishes ports of the node.
    pub fn publishes_ports(&self) -> bool {
        self.plugins.iter().any(Plugin::publishes_ports)
    }

    /// Returns the input of a plugin.
    pub fn input(&self, plugin: &Plugin, ports: &[PortMapping], previous: Option<&Value>) -> Value {
        let mut input = plugin.rest.clone();
        input.insert("cniVersion".to_owned(), json!(self.cni_version));
        input.insert("name".to_owned(), json!(self.name));
        input.insert("type".to_owned(), json!(plugin.kind));
        if plugin.publishes_ports() && !ports.is_empty() {
            let ports: Vec<_> = ports.iter().map(mapping).collect();
            input.insert("runtimeConfig".to_owned(), json!({ PORT_MAPPINGS: ports }));
        }
        if let Some(previous) = previous {
            input.insert("prevResult".to_owned(), previous.clone());
        }
        Value::Object(input)
    }

    /// Returns whether DEL gets the result of ADD, as it does since version 0.4.0.
    pub fn del_has_result(&self) -> bool {
        self.cni_version != "0.3.1"
    }
}

impl Plugin {
    /// Returns the programs that it needs: each plugin's own, and its IPAM plugin's, which the plugin runs itself.
    pub fn programs(&self) -> impl Iterator<Item = &str> {
        let addresses = self.rest.get("ipam").and_then(|it| it.get("type")).and_then(Value::as_str);
        std::iter::once(self.kind.as_str()).chain(addresses.filter(|kind| !kind.is_empty()))
    }

    fn publishes_ports(&self) -> bool {
        self.capabilities.get(PORT_MAPPINGS) == Some(&Value::Bool(true))
    }
}

fn mapping(port: &PortMapping) -> Value {
    let mut mapping = json!({
        "hostPort": port.host_port,
        "containerPort": port.container_port,
        "protocol": json!(port.protocol).as_str().unwrap_or_default().to_lowercase(),
    });
    if let Some(address) = port.host_ip {
        mapping["hostIP"] = json!(address);
    }
    mapping
}

/// Returns whether the specification allows a name. No such name leads out of a directory.
fn is_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.chars().all(|char| char.is_ascii_alphanumeric() || "._-".contains(char))
}
