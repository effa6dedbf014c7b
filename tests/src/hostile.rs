//! A registry on a loopback port that serves malformed and oversized images: those that real registries were seen to
//! have, and those that somebody could think of.

use std::{
    collections::HashMap,
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::{
    image::sha256,
    layer::{Layer, architecture},
    wait::lock,
};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Peculiarity of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// No peculiarity: a valid image.
    Right,
    /// Its layer has no end, and there is no `Content-Length`.
    EndlessLayer,
    /// Its layer has more bytes than its manifest says, and `Content-Length` says so.
    LongLayer,
    /// Its layer has fewer bytes than its manifest says, and `Content-Length` says so.
    ShortLayer,
    /// Its layer comes byte by byte.
    Dribble,
    /// Its layer has more bytes than any disk, and its manifest says so.
    Boundless,
    /// Its manifest says that its configuration has 300 MiB.
    LargeConfig,
    /// Its configuration has no end, although its manifest gives a small size.
    EndlessConfig,
    /// Its manifest has no end.
    EndlessManifest,
    /// Its index says that its manifest has 300 MiB.
    LargeManifest,
    /// The body of an error response has no end.
    EndlessRefusal,
    /// The first entry of its index is an artifact without a platform.
    ArtifactFirst,
    /// The first entry of its index is for a CPU variant that not every machine has.
    VariantFirst,
    /// The entry of its index has no operating system.
    NoOs,
    /// The other entries of its index are no descriptors.
    OddEntries,
    /// Its index names an index.
    Nested,
    /// Its index names itself, as far as a digest can: by a digest that is not its own.
    Itself,
    /// Its index names an index, and so on, a hundred times.
    Chain,
    /// Its lists of layers are `null`.
    NullLayers,
    /// Its configuration has no architecture and no operating system.
    BareConfig,
    /// Its configuration has `null` where others have maps and lists.
    NullConfig,
}

/// Body of an answer.
#[derive(Clone, Debug)]
enum Body {
    Bytes(Arc<Vec<u8>>),
    /// Endless zeros, with this `Content-Length` if there is one.
    Endless(Option<u64>),
    /// One byte every 50 ms.
    Dribble,
}

#[derive(Clone, Debug)]
struct Answer {
    status: &'static str,
    kind: &'static str,
    body: Body,
}

#[derive(Debug, Default)]
struct State {
    address: String,
    answers: Mutex<HashMap<String, Answer>>,
    seen: Mutex<Vec<String>>,
    /// Paths whose answers are being sent.
    sending: Mutex<Vec<String>>,
    is_over: AtomicBool,
}

/// Registry, which ends when it is dropped.
#[derive(Debug)]
pub struct Hostile {
    state: Arc<State>,
    /// Dropped with the registry, which ends the threads that send byte by byte.
    _ends: mpsc::Sender<()>,
}

impl Hostile {
    /// Starts the registry on a free port, without images.
    ///
    /// # Errors
    /// When it cannot listen on any port.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("cannot listen")?;
        let address = listener.local_addr().context("the registry has no address")?.to_string();
        let state = Arc::new(State { address, ..State::default() });
        let (ends, ended) = mpsc::channel();
        let (shared, ended) = (Arc::clone(&state), Arc::new(Mutex::new(ended)));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if shared.is_over.load(Ordering::SeqCst) {
                    return;
                }
                let (shared, ended) = (Arc::clone(&shared), Arc::clone(&ended));
                // A client that has read enough disconnects: the tests are about that.
                thread::spawn(move || serve(&shared, &ended, client).ok());
            }
        });
        Ok(Self { state, _ends: ends })
    }

    /// Returns its address, `127.0.0.1:port`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.state.address
    }

    /// Returns whether the answer for a path that contains `path` is being sent.
    #[must_use]
    pub fn is_sending(&self, path: &str) -> bool {
        lock(&self.state.sending).iter().any(|sending| sending.contains(path))
    }

    /// Returns how often a path that contains `path` was requested.
    #[must_use]
    pub fn asked(&self, path: &str) -> usize {
        lock(&self.state.seen).iter().filter(|seen| seen.contains(path)).count()
    }

    /// Adds an image and returns its reference. Images with the same `content` have the same layer.
    ///
    /// # Errors
    /// Never in practice: it is in memory.
    pub fn image(&self, manner: Manner, content: &str) -> Result<String> {
        let mut draft = Draft { registry: self, name: format!("hostile/{manner:?}").to_lowercase() };
        draft.put(manner, content)?;
        Ok(format!("{}/{}:1", self.address(), draft.name))
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.state.is_over.store(true, Ordering::SeqCst);
        // Wakes the listener.
        TcpStream::connect(&self.state.address).ok();
    }
}

/// Image under construction.
struct Draft<'a> {
    registry: &'a Hostile,
    name: String,
}

impl Draft<'_> {
    fn answer(&self, path: &str, kind: &'static str, body: Body) {
        let answer = Answer { status: "200 OK", kind, body };
        lock(&self.registry.state.answers).insert(format!("/v2/{}/{path}", self.name), answer);
    }

    /// Serves a blob and returns its descriptor.
    fn blob(&self, kind: &str, bytes: Vec<u8>) -> Value {
        let descriptor = descriptor(kind, &bytes);
        self.answer(&blob_path(&descriptor), "application/octet-stream", Body::Bytes(Arc::new(bytes)));
        descriptor
    }

    /// Serves a manifest or an index by its digest, and returns its descriptor.
    fn document(&self, document: &Value) -> Value {
        let kind = if document.get("manifests").is_some() { INDEX } else { MANIFEST };
        let bytes = document.to_string().into_bytes();
        let descriptor = descriptor(kind, &bytes);
        let path = format!("manifests/{}", descriptor["digest"].as_str().unwrap_or_default());
        self.answer(&path, kind, Body::Bytes(Arc::new(bytes)));
        descriptor
    }

    /// Serves a document under the image's tag.
    fn tag(&self, document: &Value) {
        let kind = if document.get("manifests").is_some() { INDEX } else { MANIFEST };
        self.answer("manifests/1", kind, Body::Bytes(Arc::new(document.to_string().into_bytes())));
    }

    fn put(&mut self, manner: Manner, content: &str) -> Result<()> {
        let mut layer = Layer::default();
        layer.file("/content", 0o644, content.as_bytes())?;
        let mut layer = self.blob("application/vnd.oci.image.layer.v1.tar", layer.finish()?);
        let layer_path = blob_path(&layer);
        let mut config = json!({
            "architecture": architecture(), "os": "linux", "config": {"Cmd": ["/content"]},
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
        });
        match manner {
            Manner::BareConfig => drop(config.as_object_mut().map(|it| (it.remove("architecture"), it.remove("os")))),
            Manner::NullConfig => {
                config["config"] = json!({
                    "Cmd": ["/content"], "Entrypoint": null, "Env": null, "Volumes": {"/data": null}, "Labels": null,
                    "ExposedPorts": null, "OnBuild": null, "User": null, "WorkingDir": null,
                });
                config["history"] = Value::Null;
            }
            Manner::NullLayers => config["rootfs"]["diff_ids"] = Value::Null,
            _ => {}
        }
        let octets = "application/octet-stream";
        let bytes = config.to_string().into_bytes();
        let mut config = self.blob("application/vnd.oci.image.config.v1+json", bytes);
        match manner {
            Manner::EndlessLayer => self.answer(&layer_path, octets, Body::Endless(None)),
            Manner::LongLayer => self.answer(&layer_path, octets, Body::Endless(Some(1 << 40))),
            Manner::ShortLayer => self.answer(&layer_path, octets, Body::Bytes(Arc::new(vec![0; 7]))),
            Manner::Dribble => self.answer(&layer_path, octets, Body::Dribble),
            Manner::Boundless => {
                layer["size"] = json!(1_u64 << 60);
                self.answer(&layer_path, octets, Body::Endless(Some(1 << 60)));
            }
            Manner::LargeConfig => config["size"] = json!(300 << 20),
            Manner::EndlessConfig => self.answer(&blob_path(&config), octets, Body::Endless(None)),
            _ => {}
        }
        let layers = if manner == Manner::NullLayers { Value::Null } else { json!([layer]) };
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
        let own = |variant: &str| json!({"os": "linux", "architecture": architecture(), "variant": variant});
        let for_platform = |document: &Value, platform: Value| {
            let mut entry = self.document(document);
            entry["platform"] = platform;
            entry
        };
        let index = |entries: &[Value]| json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries});
        let other = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": self.blob("text/plain", b"{}".into()), "layers": []});
        match manner {
            Manner::ArtifactFirst => self.tag(&index(&[self.document(&other), for_platform(&manifest, own(""))])),
            Manner::VariantFirst => {
                self.tag(&index(&[for_platform(&other, own("v3")), for_platform(&manifest, own(""))]));
            }
            Manner::NoOs => self.tag(&index(&[for_platform(&manifest, json!({"architecture": architecture()}))])),
            Manner::OddEntries => {
                let odd = [json!(null), json!({"digest": 7}), json!({"digest": "x", "platform": own("")})];
                self.tag(&index(&[&odd[..], &[for_platform(&manifest, own(""))]].concat()));
            }
            Manner::Nested => {
                let inner = index(&[for_platform(&manifest, own(""))]);
                self.tag(&index(&[for_platform(&inner, own(""))]));
            }
            Manner::Itself => {
                let digest = format!("sha256:{}", "5".repeat(64));
                let itself = index(&[json!({"mediaType": INDEX, "digest": digest, "size": 300, "platform": own("")})]);
                self.answer(
                    &format!("manifests/{digest}"),
                    INDEX,
                    Body::Bytes(Arc::new(itself.to_string().into_bytes())),
                );
                self.tag(&itself);
            }
            Manner::Chain => {
                let mut chain = manifest;
                for _ in 0..100 {
                    chain = index(&[for_platform(&chain, own(""))]);
                }
                self.tag(&chain);
            }
            Manner::EndlessManifest => self.answer("manifests/1", MANIFEST, Body::Endless(None)),
            Manner::LargeManifest => {
                let mut large = for_platform(&manifest, own(""));
                large["size"] = json!(300 << 20);
                self.tag(&index(&[large]));
            }
            Manner::EndlessRefusal => {
                let path = format!("/v2/{}/manifests/1", self.name);
                let answer = Answer { status: "418 I'm a teapot", kind: "text/plain", body: Body::Endless(None) };
                lock(&self.registry.state.answers).insert(path, answer);
            }
            _ => self.tag(&manifest),
        }
        Ok(())
    }
}

fn descriptor(kind: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": kind, "digest": format!("sha256:{}", sha256(bytes)), "size": bytes.len()})
}

fn blob_path(descriptor: &Value) -> String {
    format!("blobs/{}", descriptor["digest"].as_str().unwrap_or_default())
}

/// Answers one request and closes the connection.
fn serve(state: &State, ended: &Mutex<mpsc::Receiver<()>>, mut client: TcpStream) -> std::io::Result<()> {
    let mut head = String::new();
    let mut reader = BufReader::new(client.try_clone()?);
    while reader.read_line(&mut head)? > 2 {}
    let mut words = head.split_whitespace();
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default().to_owned());
    lock(&state.seen).push(path.clone());
    let found = lock(&state.answers).get(&path).cloned();
    let nothing = |status| Answer { status, kind: "application/json", body: Body::Bytes(Arc::default()) };
    let answer = found.unwrap_or_else(|| nothing(if path == "/v2/" { "200 OK" } else { "404 Not Found" }));
    let Answer { status, kind, body } = answer;
    let length = match &body {
        Body::Bytes(bytes) => Some(bytes.len() as u64),
        Body::Endless(length) => *length,
        Body::Dribble => None,
    };
    let length = length.map_or_else(String::new, |length| format!("Content-Length: {length}\r\n"));
    write!(client, "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n{length}Connection: close\r\n\r\n")?;
    if method == "HEAD" {
        return Ok(());
    }
    lock(&state.sending).push(path.clone());
    let sent = send(ended, &mut client, &body);
    let mut sending = lock(&state.sending);
    if let Some(place) = sending.iter().position(|it| *it == path) {
        sending.swap_remove(place);
    }
    sent
}

fn send(ended: &Mutex<mpsc::Receiver<()>>, client: &mut TcpStream, body: &Body) -> std::io::Result<()> {
    match body {
        Body::Bytes(bytes) => client.write_all(bytes),
        Body::Endless(_) => {
            let zeros = vec![0; 64 << 10];
            loop {
                client.write_all(&zeros)?;
            }
        }
        Body::Dribble => loop {
            client.write_all(b"0")?;
            match lock(ended).recv_timeout(Duration::from_millis(50)) {
                Err(RecvTimeoutError::Timeout) => {}
                _ => return Ok(()),
            }
        },
    }
}
