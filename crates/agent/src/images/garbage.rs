//! Chooses the images that nobody needs, and the order of their removal (R-IMG-11). Its functions are pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use stanchion_plan::time::Stamp;
use stanchion_runtime::{Image, ImageDigest, ImageStore};

use super::owned::{OwnedImage, OwnedImages};
use crate::reference;

/// The images of a runtime, and the names of those that are needed.
#[derive(Debug)]
pub(crate) struct Survey {
    /// Time when the survey began.
    pub at: Stamp,
    pub images: Vec<Image>,
    /// References or digests of the images in use.
    pub in_use: Vec<String>,
    /// References that manifests name.
    pub named: BTreeSet<String>,
}

/// An image that may be removed, with all of its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub digest: ImageDigest,
    pub names: Vec<String>,
    pub unused_since: Stamp,
    /// The time for which it has been unused.
    pub unused_for: Duration,
    /// Time since the agent got the last of its names.
    pub age: Duration,
}

/// Updates the record by a survey, and returns the images that may be removed, the longest unused first. `is_there`
/// returns whether the archive that an image was imported from is still in its place: then the image is needed.
/// whether the archive that an image was imported from is still in its place: then the image is needed.
pub(crate) fn candidates(known: &mut OwnedImages, survey: &Survey, is_there: impl Fn(&Path) -> bool) -> Vec<Candidate> {
    let listed: BTreeMap<_, _> = survey.images.iter().map(|image| (&image.reference, &image.digest)).collect();
    // The survey may miss a name that came after it began, or may have found another image by that name.
    known.retain(|reference, it| !it.at.since(survey.at).is_zero() || listed.get(reference) == Some(&&it.digest));
    // A stamp of an earlier boot, or one of a time of day alone, keeps its present age from here on.
    for it in known.values_mut() {
        it.at = it.at.anchored(survey.at);
        it.unused_since = it.unused_since.map(|since| since.anchored(survey.at));
    }
    let mut images: BTreeMap<&ImageDigest, Vec<&String>> = BTreeMap::new();
    for (reference, digest) in listed {
        images.entry(digest).or_default().push(reference);
    }
    let mut found: Vec<_> = images
        .into_iter()
        .filter_map(|(digest, names)| {
            let is_used = |name: &&String| survey.in_use.contains(name) || survey.named.contains(*name);
            let is_used = survey.in_use.iter().any(|used| used == digest.as_str()) || names.iter().any(is_used);
            let is_wanted = |it: &OwnedImage| it.archive.as_deref().is_some_and(&is_there);
            let is_needed = is_used || names.iter().filter_map(|name| known.get(*name)).any(is_wanted);
            for name in &names {
                if let Some(it) = known.get_mut(*name) {
                    it.unused_since = (!is_needed).then(|| it.unused_since.unwrap_or(survey.at));
                }
            }
            // An image is also another user's if the agent did not bring one of its names.
            let ours: Option<Vec<_>> =
                names.iter().map(|name| known.get(*name).filter(|it| it.digest == *digest)).collect();
            let ours = ours?;
            let age = |moment: &Stamp| survey.at.since(*moment);
            let unused_since = ours.iter().filter_map(|it| it.unused_since).min_by_key(age)?;
            Some(Candidate {
                unused_since,
                unused_for: age(&unused_since),
                age: ours.iter().map(|it| age(&it.at)).min()?,
                digest: digest.clone(),
                names: names.into_iter().cloned().collect(),
            })
        })
        .collect();
    found.sort_by(|a, b| (b.unused_for, b.age, &a.digest).cmp(&(a.unused_for, a.age, &b.digest)));
    found
}

/// Returns the names that runtimes may have for an image that a manifest names.
pub(crate) fn names(image: &str) -> impl Iterator<Item = String> {
    let full = reference::full(image);
    let digest = full.split_once('@').map(|(_, digest)| format!("{}@{digest}", reference::repository(&full)));
    digest.into_iter().chain([full])
}

/// Returns the used part of a file system, percent, as a kubelet rounds it.
pub(crate) fn usage(store: &ImageStore) -> u8 {
    let free = u128::from(store.available) * 100 / u128::from(store.capacity).max(1);
    100 - u8::try_from(free.min(100)).unwrap_or(100)
}

/// Returns whether at most `low` percent of a file system are used.
pub(crate) fn is_below(store: &ImageStore, low: u8) -> bool {
    u128::from(store.available) * 100 >= u128::from(store.capacity) * (100 - u128::from(low.min(100)))
}

#[cfg(test)]
mod tests;
