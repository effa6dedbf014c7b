//! Images that the recordings' manifests name, as the recorder made them.

use std::path::Path;

use anyhow::{Context as _, Result};

use crate::{
    fixtures::{self, PATH},
    image::{Image, PackedLayer, Run},
    layer::Layer,
};

const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\nu:x:1000:1000:u:/home/u:/bin/sh\n";
const GROUP: &[u8] = b"root:x:0:\nu:x:1000:\nextra:x:2000:u\n";

const SAY: &[u8] =
    b"#!/bin/sh\necho \"args: $*\"\necho \"count: $#\"\necho \"pwd: $(pwd)\"\nenv | sort\nexec sleep 1000000\n";
const STOP: &[u8] = b"#!/bin/sh\ntrap 'echo got USR1; exit 3' USR1\ntrap 'echo got TERM; exit 4' TERM\necho ready\n\
while :; do sleep 0.1; done\n";

/// Writes the images' archives to `dir`; returns the images' names.
///
/// # Errors
/// When there is no busybox, or a file cannot be written.
pub fn write(dir: &Path) -> Result<Vec<String>> {
    let base = PackedLayer::new(base()?)?;
    let mut names = Vec::new();
    let mut write = |name: &str, run: Run<'_>, extra: Option<Layer>| -> Result<()> {
        let mut layers = vec![base.clone()];
        layers.extend(extra.map(|layer| PackedLayer::new(layer.finish()?)).transpose()?);
        let env = if run.env.is_empty() { &[PATH] } else { run.env };
        let (repository, tag) = name.split_once(':').context("a name and a tag")?;
        let reference = format!("docker.io/golden/{name}");
        let path = dir.join(format!("{repository}-{tag}.tar"));
        Image::new(&format!("golden/{repository}"), tag, &Run { env, ..run }, &layers)
            .docker_archive(&path, &reference)?;
        names.push(reference);
        Ok(())
    };
    let shell = Run { cmd: &["sh"], ..Run::default() };
    write("box:1", shell.clone(), None)?;
    write("box:2", Run { env: &[PATH, "BOX=2"], ..shell.clone() }, None)?;
    write("user:1", Run { user: "1000", ..shell.clone() }, None)?;
    write("username:1", Run { user: "u", ..shell.clone() }, None)?;
    write("nocmd:1", Run::default(), None)?;
    let mut entry = Layer::default();
    entry.file("/entry.sh", 0o755, SAY)?;
    entry.dir("/work", 0o755)?;
    let env = &[PATH, "FROM_IMAGE=image", "BOTH=image"];
    let run = Run { entrypoint: &["/entry.sh"], cmd: &["one", "two"], working_dir: "/work", env, ..Run::default() };
    write("entry:1", run, Some(entry))?;
    let mut stop = Layer::default();
    stop.file("/entry.sh", 0o755, STOP)?;
    write("stop:1", Run { entrypoint: &["/entry.sh"], stop_signal: "SIGUSR1", ..Run::default() }, Some(stop))?;
    let mut data = Layer::default();
    data.file("/model/weights", 0o644, b"weights\n")?;
    data.owned_file("/model/sub/note", 0o600, 1000, b"note\n")?;
    write("data:1", shell.clone(), Some(data))?;
    let mut volume = Layer::default();
    volume.owned_dir("/data", 0o750, 1000)?;
    volume.owned_file("/data/seed", 0o640, 1000, b"seed\n")?;
    write("vol:1", Run { volumes: &["/data"], ..shell }, Some(volume))?;
    let mut etcd = Layer::default();
    etcd.program(&fixtures::program("etcd")?, "/usr/bin/etcd")?;
    write("etcd:1", Run { entrypoint: &["/usr/bin/etcd"], ..Run::default() }, Some(etcd))?;
    Ok(names)
}

fn base() -> Result<Vec<u8>> {
    let mut layer = Layer::default();
    layer.dir("/root", 0o700)?;
    layer.dir("/tmp", 0o1777)?;
    layer.owned_dir("/home/u", 0o755, 1000)?;
    layer.file("/etc/passwd", 0o644, PASSWD)?;
    layer.file("/etc/group", 0o644, GROUP)?;
    fixtures::shell(&mut layer)?;
    layer.finish()
}
