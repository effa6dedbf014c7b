//! Environment variables of a container, made when it starts (R-ENV).

mod file;

use std::{collections::HashMap, net::IpAddr, path::Path};

use stanchion_pod::{Capacity, Container, ObjectKey, Objects, StatusField, Value, expand::expand_within};
use stanchion_runtime::EnvVar;

use crate::limits::{ARGUMENT, ARGUMENTS};

/// Inputs of values besides the manifest.
pub(crate) struct Inputs<'a> {
    pub objects: &'a Objects,
    pub pod_addresses: &'a [IpAddr],
    pub node_addresses: &'a [IpAddr],
    pub capacity: Capacity,
    /// Returns the directory of a volume, for variables in files.
    pub volume: &'a dyn Fn(&str) -> Option<&'a Path>,
}

/// Failure to make an environment, in a kubelet's words where it has some.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EnvError {
    #[error("{0} not found")]
    Missing(ObjectKey),
    #[error("couldn't find key {key} in {} {}/{}", object.kind.name(), object.namespace, object.name)]
    MissingKey { object: ObjectKey, key: String },
    #[error("environment variable {name}: key {key} of {object} is not UTF-8 text without NUL bytes")]
    NotText { name: String, object: ObjectKey, key: String },
    #[error("environment variable {name} has {length} bytes with its name; the kernel takes at most {}", ARGUMENT.most - 1)]
    TooLong { name: String, length: usize },
    #[error("environment variable {name} has more than {} bytes with its references written out; the kernel takes no more", ARGUMENT.most)]
    ExpandsTooLong { name: String },
    #[error("a word of its command or args has more than {} bytes with its references written out; the kernel takes no more", ARGUMENT.most)]
    WordTooLong,
    #[error("its environment, command and args have more than {} bytes together; the kernel takes no more", ARGUMENTS.most)]
    TooMuch,
    #[error(transparent)]
    File(#[from] file::FileError),
}

/// Environment of a container. Its names keep the order of their first occurrence in the manifest (R-ENV-8).
#[derive(Debug, Default)]
pub(crate) struct Environment {
    variables: Vec<EnvVar>,
    indices: HashMap<String, usize>,
    /// Length of all values that were set, including replaced ones, bytes.
    length: usize,
}

impl Environment {
    /// Makes a container's environment from `envFrom` and then `env`. The last value of a name wins (R-ENV-1).
    pub fn of(container: &Container, inputs: &Inputs<'_>) -> Result<Self, EnvError> {
        let mut environment = Self::default();
        for from in &container.env_from {
            let Some(object) = inputs.objects.get(&from.object) else {
                if from.optional {
                    continue;
                }
                return Err(EnvError::Missing(from.object.clone()));
            };
            for (key, value) in object.texts() {
                let name = format!("{}{key}", from.prefix);
                let value = text(&name, value, &from.object, key)?;
                environment.set(&name, value)?;
            }
        }
        for variable in &container.env {
            if let Some(value) = environment.value(&variable.name, &variable.value, inputs)? {
                environment.set(&variable.name, value)?;
            }
        }
        Ok(environment)
    }

    /// Returns the value of a variable.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.indices.get(name).map(|index| self.variables[*index].value.as_str())
    }

    /// Expands references in `command` or `args`. The results count against the limit of the environment.
    pub fn expanded(&mut self, words: Option<&[String]>) -> Result<Option<Vec<String>>, EnvError> {
        let Some(words) = words else { return Ok(None) };
        let mut expanded = Vec::with_capacity(words.len());
        for word in words {
            let word = expand_within(word, ARGUMENT.size(), |name| self.get(name)).ok_or(EnvError::WordTooLong)?;
            self.reserve(word.len())?;
            expanded.push(word);
        }
        Ok(Some(expanded))
    }

    fn reserve(&mut self, length: usize) -> Result<(), EnvError> {
        self.length = self.length.saturating_add(length);
        if self.length > ARGUMENTS.size() { Err(EnvError::TooMuch) } else { Ok(()) }
    }

    pub fn into_variables(self) -> Vec<EnvVar> {
        self.variables
    }

    fn set(&mut self, name: &str, value: String) -> Result<(), EnvError> {
        let length = name.len() + "=".len() + value.len();
        if length >= ARGUMENT.size() {
            return Err(EnvError::TooLong { name: name.to_owned(), length });
        }
        self.reserve(length)?;
        match self.indices.get(name) {
            Some(index) => self.variables[*index].value = value,
            None => {
                self.indices.insert(name.to_owned(), self.variables.len());
                self.variables.push(EnvVar { name: name.to_owned(), value });
            }
        }
        Ok(())
    }

    /// Returns a variable's value; `None` if it is left unset.
    fn value(&self, name: &str, value: &Value, inputs: &Inputs<'_>) -> Result<Option<String>, EnvError> {
        Ok(Some(match value {
            Value::Text(text) => {
                let expanded = expand_within(text, ARGUMENT.size(), |name| self.get(name));
                expanded.ok_or_else(|| EnvError::ExpandsTooLong { name: name.to_owned() })?
            }
            Value::Literal(text) => text.clone(),
            Value::Status(field) => status(*field, inputs),
            Value::NodeLimit(limit) => limit.on(&inputs.capacity),
            Value::Key { object, key, optional } => {
                let Some(found) = inputs.objects.get(object) else {
                    return if *optional { Ok(None) } else { Err(EnvError::Missing(object.clone())) };
                };
                match found.texts().find(|(known, _)| known == key) {
                    Some((_, bytes)) => text(name, bytes, object, key)?,
                    None if *optional => return Ok(None),
                    None => return Err(EnvError::MissingKey { object: object.clone(), key: key.clone() }),
                }
            }
            Value::File { volume, path, key, optional } => {
                // Validation has checked that the pod has the volume.
                let root = (inputs.volume)(volume).unwrap_or(Path::new("/nonexistent"));
                match file::read(root, path, key)? {
                    Some(value) => value,
                    None if *optional => return Ok(None),
                    None => return Err(file::FileError::missing(root, path, key).into()),
                }
            }
        }))
    }
}

fn text(name: &str, bytes: &[u8], object: &ObjectKey, key: &str) -> Result<String, EnvError> {
    let text = std::str::from_utf8(bytes).ok().filter(|text| !text.contains('\0'));
    text.map(str::to_owned).ok_or_else(|| EnvError::NotText {
        name: name.to_owned(),
        object: object.clone(),
        key: key.to_owned(),
    })
}

fn status(field: StatusField, inputs: &Inputs<'_>) -> String {
    let first = |addresses: &[IpAddr]| addresses.first().map(ToString::to_string).unwrap_or_default();
    let all = |addresses: &[IpAddr]| addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    match field {
        StatusField::HostIp => first(inputs.node_addresses),
        StatusField::HostIps => all(inputs.node_addresses),
        StatusField::PodIp => first(inputs.pod_addresses),
        StatusField::PodIps => all(inputs.pod_addresses),
    }
}

#[cfg(test)]
mod tests;
