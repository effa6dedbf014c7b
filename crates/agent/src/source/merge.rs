//! Merges several sources into one set of pods, and reports their problems.

use std::{
    collections::{BTreeMap, HashMap, btree_map::Entry},
    sync::Arc,
};

use stanchion_board::{
    Board, EventLog, Subject,
    view::{ManifestView, SourceView},
};
use stanchion_pod::{Object, ObjectKey, Objects, Pod, PodKey, PodUid, Problem};

use super::{any::Source, reader::ManifestFile};
use crate::desired::{Desired, DesiredPod};

/// Merger of sources; it remembers which problems it has reported as events.
#[derive(Debug)]
pub(super) struct Merge {
    board: Arc<Board>,
    events: Arc<EventLog>,
    reports: HashMap<ReportSubject, Report>,
    /// The objects that pods can refer to, as last merged; the same `Arc` while none of them changes.
    objects: Arc<Objects>,
}

impl Merge {
    pub fn new(board: Arc<Board>, events: Arc<EventLog>) -> Self {
        Self { board, events, reports: HashMap::new(), objects: Arc::default() }
    }

    /// Merges the sources. If two manifests define one pod, the first one counts: by source, then by path (R-MRG-2).
    /// The other is reported as a conflict. `watch_error` says why the kernel does not report changes of files.
    pub fn merge(&mut self, sources: &[Source], watch_error: Option<&str>) -> Desired {
        let mut merged = Merged::default();
        let mut reports = HashMap::new();
        let views = sources.iter().map(|source| {
            let location = source.location();
            if let Some(error) = source.error() {
                let message = format!("{error}; its pods keep running unchanged");
                reports
                    .insert(ReportSubject::Source(location.clone()), Report { message, is_quiet: source.is_quiet() });
            }
            let manifests = source.manifests().into_iter().map(|(path, file)| {
                let view = merged.manifest(&path, file, source);
                if !view.problems.is_empty() {
                    let message = sentence(&view.problems);
                    reports.insert(ReportSubject::Manifest(path), Report { message, is_quiet: false });
                }
                view
            });
            let manifests = manifests.collect();
            let notice = watch_error.filter(|_| source.files().is_some()).map(|watch_error| {
                let message = format!("manifests are read every two seconds: {watch_error}");
                reports.insert(
                    ReportSubject::Watch(location.clone()),
                    Report { message: message.clone(), is_quiet: false },
                );
                message
            });
            let error = source.error().map(str::to_owned);
            SourceView { location, error, notice, since: Some(source.since()), manifests }
        });
        let views = views.collect();
        self.board.set_sources(views);
        self.announce(reports);
        let Merged { mut pods, objects, .. } = merged;
        if *self.objects != objects {
            self.objects = Arc::new(objects);
        }
        for pod in pods.values_mut() {
            pod.objects = Arc::clone(&self.objects);
        }
        Desired { pods, complete: sources.iter().all(Source::is_known) }
    }

    fn announce(&mut self, now: HashMap<ReportSubject, Report>) {
        for (subject, Report { message, is_quiet }) in &now {
            let last = self.reports.get(subject);
            if last.is_none_or(|last| last.message != *message && !is_quiet) {
                self.events.warning(&subject.subject(), subject.reason(), message.clone());
            }
        }
        let is_wrong = |path: &str| now.keys().any(|it| it.path() == path && !matches!(it, ReportSubject::Watch(_)));
        let is_manifest = |subject: &&ReportSubject| !matches!(subject, ReportSubject::Watch(_));
        for subject in self.reports.keys().filter(is_manifest).filter(|subject| !is_wrong(subject.path())) {
            self.events.normal(&subject.subject(), "ManifestValid", "The manifest is valid again, or was removed");
        }
        self.reports = now;
    }
}

/// Subject of a report, by path or URL. A source of one file, and a URL, are source and manifest at once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum ReportSubject {
    Source(String),
    Manifest(String),
    /// The kernel does not report the source's changes.
    Watch(String),
}

impl ReportSubject {
    fn path(&self) -> &str {
        let (Self::Source(path) | Self::Manifest(path) | Self::Watch(path)) = self;
        path
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Source(_) | Self::Manifest(_) => "ManifestInvalid",
            Self::Watch(_) => "WatchFailed",
        }
    }

    fn subject(&self) -> Subject {
        Subject::manifest(self.path())
    }
}

/// A report of a problem.
#[derive(Debug)]
struct Report {
    message: String,
    /// `true`: a changed message causes no new event.
    is_quiet: bool,
}

/// Pods and objects of the manifests that were merged so far.
#[derive(Default)]
struct Merged {
    pods: BTreeMap<PodKey, DesiredPod>,
    /// The pod of each UID, which must be unique: files and cgroups are named after it.
    uids: HashMap<PodUid, PodKey>,
    objects: Objects,
    /// Path or URL of each object's manifest.
    manifests: BTreeMap<ObjectKey, String>,
}

impl Merged {
    fn manifest(&mut self, path: &str, file: &ManifestFile, source: &Source) -> ManifestView {
        let stale = match source.error() {
            Some(error) => Some(error.to_owned()),
            None => (!file.problems.is_empty()).then(|| format!("{path}: {}", sentence(&file.problems))),
        };
        let stale: Option<Arc<str>> = stale.map(Into::into);
        let mut view = ManifestView {
            path: path.to_owned(),
            pods: Vec::new(),
            objects: Vec::new(),
            problems: file.problems.clone(),
            warnings: file.warnings.clone(),
        };
        for pod in &file.pods {
            match source.withheld(&pod.key) {
                Some(reason) => {
                    let message = format!("pod {} is not run here: {reason}", pod.key);
                    view.warnings.push(Problem { message, ..Problem::default() });
                }
                None => self.pod(pod, file.is_recalled, stale.as_ref(), &mut view),
            }
        }
        for (key, object) in &file.objects {
            self.object(key, object, &mut view);
        }
        view
    }

    /// Adds a pod of a manifest, unless an earlier one has its name or its UID.
    fn pod(&mut self, pod: &Arc<Pod>, is_recalled: bool, stale: Option<&Arc<str>>, view: &mut ManifestView) {
        if let Some(other) = self.uids.get(&pod.uid).filter(|other| **other != pod.key)
            && let Some(winner) = self.pods.get(other)
        {
            view.problems.push(same_uid(&pod.uid, other, &winner.manifest));
            return;
        }
        match self.pods.entry(pod.key.clone()) {
            Entry::Vacant(place) => {
                view.pods.push(pod.key.to_string());
                self.uids.insert(pod.uid.clone(), pod.key.clone());
                place.insert(DesiredPod {
                    pod: Arc::clone(pod),
                    manifest: view.path.as_str().into(),
                    is_recalled,
                    objects: Arc::default(),
                    stale: stale.cloned(),
                    no_capacity: None,
                });
            }
            Entry::Occupied(winner) => {
                view.problems.push(duplicate(&format!("pod {}", pod.key), &winner.get().manifest));
            }
        }
    }

    /// Adds an object of a manifest, unless an earlier one has its name.
    fn object(&mut self, key: &ObjectKey, object: &Arc<Object>, view: &mut ManifestView) {
        let name = format!("{} {}/{}", key.kind.name(), key.namespace, key.name);
        match self.manifests.entry(key.clone()) {
            Entry::Vacant(place) => {
                place.insert(view.path.clone());
                self.objects.insert(key.clone(), Arc::clone(object));
                view.objects.push(name);
            }
            Entry::Occupied(winner) => view.problems.push(duplicate(&name, winner.get())),
        }
    }
}

/// Returns the problem of the second of two pods or objects with one name.
fn duplicate(what: &str, first: &str) -> Problem {
    let message =
        format!("duplicate {what}: it is already defined in {first}, which comes first and wins; remove or rename one");
    Problem { field: "metadata.name".to_owned(), message, ..Problem::default() }
}

/// Returns the problem of the second of two pods with one UID.
fn same_uid(uid: &PodUid, other: &PodKey, first: &str) -> Problem {
    let message = format!(
        "duplicate UID {uid}: pod {other} in {first} has it, which comes first and wins; give this pod another, or none"
    );
    Problem { field: "metadata.uid".to_owned(), message, ..Problem::default() }
}

/// Joins problems into one line.
fn sentence(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
