//! Manifests for tests.

use std::fmt;

/// A pod's manifest.
#[derive(Clone, Debug)]
pub struct Manifest {
    name: String,
    containers: Vec<(String, String)>,
    lines: Vec<String>,
}

/// Returns a pod with one container `app` of this image.
pub fn pod(name: &str, image: &str) -> Manifest {
    Manifest { name: name.to_owned(), containers: Vec::new(), lines: Vec::new() }.with("app", image)
}

impl Manifest {
    /// Adds a container.
    pub fn with(mut self, container: &str, image: &str) -> Self {
        self.containers.push((container.to_owned(), image.to_owned()));
        self
    }

    /// Adds a line to the spec.
    pub fn spec(mut self, line: &str) -> Self {
        self.lines.push(line.to_owned());
        self
    }
}

impl fmt::Display for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {}\nspec:", self.name)?;
        for line in &self.lines {
            writeln!(f, "  {line}")?;
        }
        writeln!(f, "  containers:")?;
        for (name, image) in &self.containers {
            writeln!(f, "  - name: {name}\n    image: {image}")?;
        }
        Ok(())
    }
}

/// Returns a pod with this spec, in YAML.
pub fn raw(name: &str, spec: &str) -> String {
    let spec: String = spec.trim_matches('\n').lines().map(|line| format!("  {line}\n")).collect();
    format!("apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\nspec:\n{spec}")
}
