use std::path::Path;

use jiff::Timestamp;
use stanchion_plan::time::Stamp;
use stanchion_runtime::{Image, ImageStore};

use super::{OwnedImage, OwnedImages, Survey, candidates, is_below, names, usage};

fn at(second: i64) -> Stamp {
    Timestamp::from_second(second).expect("a time").into()
}

fn owned(digest: &str, second: i64) -> OwnedImage {
    OwnedImage { digest: digest.into(), at: at(second), unused_since: None, archive: None }
}

/// Returns a survey, at second 100, at these references with their digests.
fn survey(images: &[(&str, &str)]) -> Survey {
    let image = |(reference, digest): &(&str, &str)| Image {
        reference: (*reference).into(),
        digest: (*digest).into(),
        size: 1,
    };
    Survey { at: at(100), images: images.iter().map(image).collect(), in_use: Vec::new(), named: [].into() }
}

fn known(images: &[(&str, &str, i64)]) -> OwnedImages {
    images.iter().map(|(reference, digest, second)| ((*reference).to_owned(), owned(digest, *second))).collect()
}

/// Returns the names of the images that may be removed, in order.
fn chosen(known: &mut OwnedImages, survey: &Survey) -> Vec<Vec<String>> {
    candidates(known, survey, |archive| archive == Path::new("/there")).into_iter().map(|it| it.names).collect()
}

const BOTH: &[(&str, &str)] = &[("a:1", "A"), ("b:1", "B")];

// R-IMG-11, here and below.
#[test]
fn what_was_not_brought_stays() {
    assert_eq!(chosen(&mut known(&[("b:1", "B", 1)]), &survey(BOTH)), [["b:1"]], "R-IMG-11");
    assert!(chosen(&mut known(&[]), &survey(BOTH)).is_empty());
}

#[test]
fn what_is_used_or_named_stays_by_each_of_its_names() {
    let images = [("a:1", "A"), ("a:2", "A")];
    let record = || known(&[("a:1", "A", 1), ("a:2", "A", 2)]);
    assert_eq!(chosen(&mut record(), &survey(&images)), [["a:1", "a:2"]], "R-IMG-11");
    for used in ["a:1", "a:2", "A"] {
        let survey = Survey { in_use: vec![used.to_owned()], ..survey(&images) };
        assert!(chosen(&mut record(), &survey).is_empty(), "{used}");
    }
    let named = Survey { named: ["a:2".to_owned()].into(), ..survey(&images) };
    assert!(chosen(&mut record(), &named).is_empty());
    // Another user gave the image its second name.
    assert!(chosen(&mut known(&[("a:1", "A", 1)]), &survey(&images)).is_empty());
}

#[test]
fn a_name_that_is_another_image_by_now_is_not_ours_any_more() {
    let mut record = known(&[("a:1", "OLD", 1), ("gone:1", "G", 1), ("b:1", "B", 1)]);
    assert_eq!(chosen(&mut record, &survey(BOTH)), [["b:1"]], "R-IMG-11");
    assert_eq!(record.keys().collect::<Vec<_>>(), ["b:1"]);
    // The survey says nothing about an image that came after it had begun.
    let mut record = known(&[("a:1", "NEW", 101), ("new:1", "N", 102)]);
    assert!(chosen(&mut record, &survey(BOTH)).is_empty());
    assert_eq!(record.len(), 2);
}

#[test]
fn what_has_not_been_used_for_longest_goes_first() {
    let mut record = known(&[("a:1", "A", 1), ("b:1", "B", 2)]);
    let first = Survey { in_use: vec!["a:1".to_owned()], ..survey(BOTH) };
    assert_eq!(chosen(&mut record, &first), [["b:1"]]);
    let second = Survey { at: at(200), ..survey(BOTH) };
    assert_eq!(chosen(&mut record, &second), [["b:1"], ["a:1"]], "R-IMG-11: though a:1 was brought before");
    // An image's time begins anew after a use.
    let third = Survey { at: at(300), in_use: vec!["b:1".to_owned()], ..survey(BOTH) };
    assert_eq!(chosen(&mut record, &third), [["a:1"]]);
    assert_eq!(chosen(&mut record, &Survey { at: at(400), ..survey(BOTH) }), [["a:1"], ["b:1"]], "R-IMG-11");
}

#[test]
fn what_an_archive_has_stays_as_long_as_it_is_there() {
    let mut record = known(&[("a:1", "A", 1), ("b:1", "B", 1)]);
    for (name, archive) in [("a:1", "/there"), ("b:1", "/gone")] {
        record.get_mut(name).expect("it is known").archive = Some(archive.into());
    }
    assert_eq!(chosen(&mut record, &survey(BOTH)), [["b:1"]], "R-IMG-11");
}

#[test]
fn names_of_manifests_are_those_of_runtimes() {
    assert_eq!(names("redis").collect::<Vec<_>>(), ["docker.io/library/redis:latest"]);
    let both: Vec<_> = names("a.b:5000/c:1@sha256:2").collect();
    assert_eq!(both, ["a.b:5000/c@sha256:2", "a.b:5000/c:1@sha256:2"], "R-IMG-11");
}

#[test]
fn percentages_are_kubelets() {
    let store = |capacity, available| ImageStore { capacity, available, ..ImageStore::default() };
    for (capacity, available, percent) in
        [(1000, 150, 85), (1000, 151, 85), (1000, 160, 84), (1000, 0, 100), (1000, 1000, 0)]
    {
        assert_eq!(usage(&store(capacity, available)), percent, "{available}");
    }
    assert!(is_below(&store(1000, 200), 80) && !is_below(&store(1000, 199), 80));
    assert!(is_below(&store(u64::MAX, u64::MAX), 0) && usage(&store(0, 0)) == 100);
}
