//! Several sources, one set of pods; shown with what is wrong.

use std::{
    collections::{BTreeMap, HashMap, btree_map::Entry},
    sync::Arc,
};

use stanchion_pod::{PodKey, Problem};

use super::reader::{ManifestFile, Reader};
use crate::{
    board::Board,
    desired::{Desired, DesiredPod},
    events::{EventLog, Subject},
    view::{ManifestView, SourceView},
};

/// Merges readers; remembers what it has told.
#[derive(Debug)]
pub(super) struct Merge {
    board: Arc<Board>,
    events: Arc<EventLog>,
    told: HashMap<String, String>,
}

impl Merge {
    pub fn new(board: Arc<Board>, events: Arc<EventLog>) -> Self {
        Self { board, events, told: HashMap::new() }
    }

    /// What the sources want together. Of two manifests that name one pod, the first wins: by source, then by path
    /// (R-MRG-2). The other is shown as a conflict.
    pub fn merge(&mut self, readers: &[Reader]) -> Desired {
        let mut pods: BTreeMap<PodKey, DesiredPod> = BTreeMap::new();
        let mut told = HashMap::new();
        let sources = readers.iter().map(|reader| {
            let location = reader.location().display().to_string();
            if let Some(error) = reader.error() {
                told.insert(location.clone(), format!("{error}; its pods run on as they are"));
            }
            let manifests = reader.files().map(|(path, file)| {
                let path = path.display().to_string();
                let view = manifest(&path, file, reader.error(), &mut pods);
                if !view.problems.is_empty() {
                    told.insert(path, sentence(&view.problems));
                }
                view
            });
            let manifests = manifests.collect();
            SourceView { location, error: reader.error().map(str::to_owned), since: Some(reader.since()), manifests }
        });
        let sources = sources.collect();
        self.board.set_sources(sources);
        self.tell(told);
        Desired { pods, complete: readers.iter().all(Reader::is_known) }
    }

    fn tell(&mut self, now: HashMap<String, String>) {
        for (place, message) in &now {
            if self.told.get(place) != Some(message) {
                self.events.warning(&Subject::manifest(place), "ManifestInvalid", message.clone());
            }
        }
        for place in self.told.keys().filter(|place| !now.contains_key(*place)) {
            self.events.normal(&Subject::manifest(place), "ManifestValid", "The manifest is in force again, or gone");
        }
        self.told = now;
    }
}

fn manifest(
    path: &str,
    file: &ManifestFile,
    unreadable: Option<&str>,
    pods: &mut BTreeMap<PodKey, DesiredPod>,
) -> ManifestView {
    let stale = match unreadable {
        Some(error) => Some(error.to_owned()),
        None => (!file.problems.is_empty()).then(|| format!("{path}: {}", sentence(&file.problems))),
    };
    let stale: Option<Arc<str>> = stale.map(Into::into);
    let mut view = ManifestView {
        path: path.to_owned(),
        pods: Vec::new(),
        problems: file.problems.clone(),
        warnings: file.warnings.clone(),
    };
    for pod in &file.pods {
        match pods.entry(pod.key.clone()) {
            Entry::Vacant(place) => {
                view.pods.push(pod.key.to_string());
                place.insert(DesiredPod {
                    pod: Arc::clone(pod),
                    manifest: path.into(),
                    content: Arc::clone(&file.content),
                    stale: stale.clone(),
                });
            }
            Entry::Occupied(winner) => {
                let message = format!(
                    "duplicate pod {}: it is already defined in {}, which comes first and wins; remove or rename one",
                    pod.key,
                    winner.get().manifest
                );
                view.problems.push(Problem { field: "metadata.name".to_owned(), message, ..Problem::default() });
            }
        }
    }
    view
}

/// Problems as one line.
fn sentence(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
