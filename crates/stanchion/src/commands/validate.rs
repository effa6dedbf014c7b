//! `stanchion validate`

use std::{
    fs,
    io::ErrorKind,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, anyhow};
use stanchion_pod::{MAX_MANIFEST, Manifest, ObjectKey, Problem, decode};
use stanchion_untrusted::{
    Links, read as read_file, read_from,
    text::{escaped, escaped_json},
};

use crate::config::{DEFAULT, Settings, host_name};
use crate::limits;

/// Options of `validate`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Files, directories, or - for standard input
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Warnings are errors
    #[arg(long)]
    strict: bool,
    /// Output format
    #[arg(short, long, value_parser = ["text", "json"], default_value = "text")]
    output: String,
}

/// Checks manifests.
pub fn run(config: &Path, options: &Options) -> Result<ExitCode> {
    let node = node_name(config);
    let mut good = true;
    let mut report = Vec::new();
    for path in files(&options.files)? {
        let name = path.display().to_string();
        let (manifest, problems) = match decode(&read(&path)?, &node) {
            Ok(manifest) => (manifest, Vec::new()),
            Err(problems) => (Manifest::default(), problems),
        };
        let pods: Vec<_> = manifest.pods.iter().map(|pod| pod.key.to_string()).collect();
        let object = |key: &ObjectKey| format!("{} {}/{}", key.kind.name(), key.namespace, key.name);
        let objects: Vec<_> = manifest.objects.iter().map(|(key, _)| object(key)).collect();
        let warnings = manifest.warnings;
        let ok = problems.is_empty() && (warnings.is_empty() || !options.strict);
        good &= ok;
        match options.output.as_str() {
            "json" => report.push(serde_json::json!({
                "file": name, "valid": ok, "pods": pods, "objects": objects, "problems": problems,
                "warnings": warnings,
            })),
            _ => tell(&name, &problems, &warnings, options.strict, &[pods, objects].concat()),
        }
    }
    if options.output == "json" {
        println!("{}", escaped_json(&serde_json::to_string_pretty(&report)?));
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Returns the node's name, which is part of the pods' names. Without a configuration it is the host's name.
fn node_name(config: &Path) -> String {
    match Settings::load(config) {
        Ok(settings) => settings.agent.node_name,
        Err(error) => {
            let name = host_name().to_lowercase();
            if config != Path::new(DEFAULT) || config.exists() {
                eprintln!("warning: {}; pods are named after this host, {name}", escaped(&format!("{error:#}")));
            }
            name
        }
    }
}

fn tell(name: &str, problems: &[Problem], warnings: &[Problem], is_strict: bool, names: &[String]) {
    let name = escaped(name);
    for problem in problems {
        println!("{name}: error: {}", escaped(&problem.to_string()));
    }
    for warning in warnings {
        println!("{name}: warning: {}", escaped(&warning.to_string()));
    }
    let names = names.join(", ");
    match (problems.is_empty(), warnings.is_empty() || !is_strict) {
        (true, true) => println!("{name}: valid: {names}"),
        (true, false) => println!("{name}: invalid, since warnings are errors with --strict: {names}"),
        (false, _) => {}
    }
}

fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            let entries = fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))?;
            let mut found: Vec<_> = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
            found.retain(|path| !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')));
            found.sort();
            files.extend(found);
        } else {
            files.push(path.clone());
        }
    }
    Ok(files)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    if path == Path::new("-") {
        return read_from(std::io::stdin().lock(), limits::MANIFEST).context("cannot read standard input");
    }
    let is_pipe = fs::metadata(path).is_ok_and(|found| found.file_type().is_fifo());
    // A named pipe, as in `validate <(helm template .)`, may block until its writer has finished.
    #[expect(clippy::disallowed_methods, reason = "the user's own pipe")]
    let read = match is_pipe {
        true => fs::File::open(path).and_then(|pipe| read_from(pipe, limits::MANIFEST)),
        false => read_file(path, Links::Follow, limits::MANIFEST),
    };
    read.map_err(|error| match error.kind() {
        ErrorKind::FileTooLarge => {
            anyhow!("{}: a manifest must be smaller than {} MiB ({error})", path.display(), MAX_MANIFEST >> 20)
        }
        _ => anyhow::Error::new(error).context(format!("cannot read {}", path.display())),
    })
}
