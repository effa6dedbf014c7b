//! Images as on K3s: from its air-gap directory (`agent/images`), and from registries as `registries.yaml` configures.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use stanchion_tests::{
    Backend, Node,
    authority::Authority,
    fixtures::{self, PATH},
    image::{Image, PackedLayer, Run},
    layer::Layer,
    pods::{self, IDLE},
    process,
    registry::Registry,
    tools,
};

/// File extensions of archives that K3s accepts, each with the program that compresses it; "" for none.
const FORMATS: [(&str, &str); 8] = [
    ("tar", ""),
    ("tar.gz", "gzip"),
    ("tgz", "gzip"),
    ("tar.bz2", "bzip2"),
    ("tbz", "bzip2"),
    ("tar.lz4", "lz4"),
    ("tar.zst", "zstd"),
    ("tzst", "zstd"),
];

/// Writes an archive of the image `airgap/busybox:<tag>` to `directory` in this format; returns its reference.
fn archive(directory: &Path, shell: &PackedLayer, (ending, program): (&str, &str)) -> Result<String> {
    let tag = ending.replace('.', "-");
    // Each archive has a different image, so that a format that fails is not hidden by another.
    let run = Run { cmd: &["sh"], env: &[PATH, &format!("FORMAT={tag}")], ..Run::default() };
    let image = Image::new("airgap/busybox", &tag, &run, std::slice::from_ref(shell));
    let reference = format!("docker.io/airgap/busybox:{tag}");
    let plain = directory.join(format!("draft-{tag}"));
    image.docker_archive(&plain, &reference)?;
    let packed: PathBuf = match program {
        "" => plain,
        program => {
            let packed = directory.join(format!("draft-{tag}-packed"));
            let mut command = tools::command("sh")?;
            let script = format!("{program} -c < {} > {}", plain.display(), packed.display());
            process::text(command.args(["-c", &script]))?;
            fs::remove_file(&plain)?;
            packed
        }
    };
    // Renamed into place, as users should do it.
    fs::rename(&packed, directory.join(format!("images-{tag}.{ending}")))?;
    Ok(reference)
}

#[test]
fn archives_of_every_format_that_k3s_accepts_are_imported_and_lists_are_pulled() -> Result<()> {
    let mut node = Node::builder().on(Backend::K3s).without_agent()?;
    let directory = node.k3s.as_ref().context("a node with K3s")?.data().join("agent/images");
    let mut layer = Layer::default();
    fixtures::shell(&mut layer)?;
    let shell = PackedLayer::new(layer.finish()?)?;
    let mut pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: airgap}\nspec:\n  terminationGracePeriodSeconds: 5\n  \
                   containers:\n"
        .to_owned();
    for (index, format) in FORMATS.into_iter().enumerate() {
        let reference = archive(&directory, &shell, format)?;
        let command = serde_json::to_string(&["sh", "-c", IDLE])?;
        pod.push_str(&format!(
            "  - {{name: c{index}, image: \"{reference}\", imagePullPolicy: Never, command: {command}}}\n"
        ));
    }
    let listed = node.in_registry("redis:8")?;
    fs::write(directory.join("more.txt"), format!("# pulled\n{listed}\n"))?;
    node.agent.start()?;
    node.write("airgap.yaml", pod)?;
    let running = node.await_running("airgap")?;
    ensure!(running.len() == FORMATS.len(), "{running:?}");
    let images = node.ctr().images()?;
    ensure!(images.contains(&listed), "{listed} is not among {images:?}");
    node.remove("airgap.yaml")?;
    node.await_gone("airgap")
}

/// Registry with a private CA and a login, and the `registries.yaml` for it.
struct Secured {
    registry: Registry,
    ca: PathBuf,
}

impl Secured {
    fn start(node: &Node) -> Result<Self> {
        let directory = node.path("secured");
        let authority = Authority::new(&directory)?;
        let storage = node.fixtures.as_ref().context("a node with fixtures")?.registry();
        let registry = Registry::start_secured(&directory, &storage, &authority.issue("registry")?)?;
        Ok(Self { registry, ca: authority.certificate() })
    }

    /// Writes `registries.yaml`, with these fields of `auth` and, if `trusts`, with the CA file.
    fn describe(&self, node: &Node, auth: &str, trusts: bool) -> Result<()> {
        let address = self.registry.address();
        let tls = if trusts { format!("ca_file: {}", self.ca.display()) } else { String::new() };
        let text = format!(
            "mirrors:\n  registry.example:\n    endpoint:\n    - https://{address}/v2\n    rewrite:\n      \
             \"^elsewhere/(.*)\": \"library/$1\"\nconfigs:\n  \"{address}\":\n    auth: {{{auth}}}\n    tls: {{{tls}}}\n"
        );
        fs::write(node.path("registries.yaml"), text).context("cannot write registries.yaml")
    }
}

#[test]
fn registries_yaml_says_mirror_names_login_and_whom_to_trust() -> Result<()> {
    let mut node = Node::builder().on(Backend::K3s).without_agent()?;
    let config = node.path("stanchion.toml");
    let text = fs::read_to_string(&config)?;
    let line = format!("[backend.k3s]\nregistries = {:?}\n", node.path("registries.yaml"));
    fs::write(&config, text.replace("[backend.k3s]\n", &line))?;
    let secured = Secured::start(&node)?;
    let pod = pods::idle("pod", "1").replace("image: busybox", "image: registry.example/elsewhere/busybox:1");

    println!("without its authority");
    secured.describe(&node, "username: user, password: secret", false)?;
    node.agent.start()?;
    node.write("pod.yaml", pod)?;
    node.await_said(&["describe", "pod", "pod"], &["ErrImagePull", "certificate"])?;
    node.agent.stop()?;

    println!("without the login");
    secured.describe(&node, "", true)?;
    node.agent.start()?;
    node.await_said(&["describe", "pod", "pod"], &["username and password", secured.registry.address()])?;
    node.agent.stop()?;

    println!("with all that is needed");
    secured.describe(&node, "username: user, password: secret", true)?;
    node.agent.start()?;
    node.await_running("pod")?;
    let said =
        [node.agent.log_text()?, node.said(&["describe", "pod", "pod"])?, node.said(&["backends", "-o", "json"])?];
    ensure!(said.iter().all(|text| !text.contains("secret")), "the password is shown (I10)");
    node.remove("pod.yaml")?;
    node.await_gone("pod")
}

#[test]
fn registries_yaml_says_which_certificate_to_show() -> Result<()> {
    let mut node = Node::builder().on(Backend::K3s).without_agent()?;
    let config = node.path("stanchion.toml");
    let text = fs::read_to_string(&config)?;
    let file = node.path("registries.yaml");
    fs::write(&config, text.replace("[backend.k3s]\n", &format!("[backend.k3s]\nregistries = {file:?}\n")))?;
    let directory = node.path("known");
    let authority = Authority::new(&directory)?;
    let storage = node.fixtures.as_ref().context("a node with fixtures")?.registry();
    let registry = Registry::start_for_known(&directory, &storage, &authority)?;
    let (address, client) = (registry.address(), authority.issue("client")?);
    let describe = |more: &str| {
        let ca = authority.certificate();
        let tls = format!("ca_file: {}{more}", ca.display());
        fs::write(&file, format!("configs:\n  \"{address}\":\n    tls: {{{tls}}}\n")).context("writing registries.yaml")
    };
    let image = format!("image: {address}/library/busybox:latest");
    node.write("pod.yaml", pods::idle("pod", "1").replace("image: busybox", &image))?;

    println!("without one");
    describe("")?;
    node.agent.start()?;
    let wanted = format!("set cert_file and key_file in configs.{address:?} of {}", file.display());
    node.await_said(&["describe", "pod", "pod"], &["ErrImagePull", "wants a client certificate", &wanted])?;
    node.agent.stop()?;

    println!("with it");
    describe(&format!(", cert_file: {}, key_file: {}", client.certificate.display(), client.key.display()))?;
    node.agent.start()?;
    node.await_running("pod")?;
    node.remove("pod.yaml")?;
    node.await_gone("pod")
}
