//! Images that nothing uses are removed when the disk fills, when they are old, or on demand.

use std::{fs, time::Duration};

use stanchion_agent::config::ImageGc;
use stanchion_board::view::PruneView;
use stanchion_runtime::{
    ErrorKind, Runtime,
    testing::{Call, Fault, Hold, Method, When},
};

use crate::{
    manifest::{pod, raw},
    node::Node,
};

/// Interval between the image checks of a test's agent.
const PERIOD: Duration = Duration::from_secs(10);

fn image(tag: u32) -> String {
    format!("docker.io/library/app:{tag}")
}

/// Makes a node that checks every ten seconds, with a disk of 10 000 bytes of which others use 5 500: three images of
/// 1000 bytes fill it to 85 %.
fn node() -> Node {
    let mut node = Node::new();
    node.config.image_gc =
        ImageGc { thresholds: Some((85, 80)), minimum_age: Duration::ZERO, maximum_age: None, period: PERIOD };
    node.fake().set_disk(10_000, 5_500);
    node
}

/// Runs pods of these images, each named after its tag.
async fn run(node: &Node, tags: &[u32]) {
    for tag in tags {
        let name = format!("p{tag}");
        node.write(&format!("{name}.yaml"), &pod(&name, &format!("app:{tag}")));
        node.shows(&name, |node| node.app(&name).is_some()).await;
    }
}

/// Removes the pod of an image.
async fn end(node: &Node, tag: u32) {
    let name = format!("p{tag}");
    node.remove(&format!("{name}.yaml"));
    node.shows(&name, |node| node.pod(&name).is_none()).await;
}

/// Waits for several checks.
async fn collections() {
    tokio::time::sleep(5 * PERIOD).await;
}

/// Returns which of the tags 1 to 9 are present.
fn here(node: &Node) -> Vec<u32> {
    let images = node.fake().images();
    (1..10).filter(|tag| images.contains(&image(*tag))).collect()
}

fn said(node: &Node, reason: &str) -> Vec<String> {
    node.events(reason).into_iter().map(|event| event.message).collect()
}

fn removals(node: &Node) -> Vec<String> {
    let calls = node.fake().calls().into_iter();
    calls.filter_map(|call| if let Call::RemoveUnusedImage(it) = call { Some(it.reference) } else { None }).collect()
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_fills_is_relieved_of_what_has_been_unused_for_longest_and_of_no_more() {
    let mut node = node();
    node.start();
    run(&node, &[1, 2, 3]).await;
    collections().await;
    assert_eq!(here(&node), [1, 2, 3], "all are in use");
    assert_eq!(said(&node, "FreeDiskSpaceFailed").len(), 1, "R-IMG-11: it is full of something else");
    end(&node, 2).await;
    let count = node.events("FreeDiskSpaceFailed")[0].count;
    collections().await;
    assert_eq!(here(&node), [1, 3], "R-IMG-11");
    // The disk is below the threshold now: nothing more is removed.
    end(&node, 1).await;
    collections().await;
    assert_eq!(here(&node), [1, 3], "R-IMG-11: 75 % are no reason");
    run(&node, &[4]).await;
    collections().await;
    assert_eq!(here(&node), [3, 4], "R-IMG-11");
    assert_eq!(removals(&node), [image(2), image(1)]);
    let removed = said(&node, "ImageRemoved");
    assert!(
        removed[0].contains(&image(2)) && removed[0].contains("85 % of the file system of /fake/images"),
        "{removed:?}"
    );
    assert_eq!(node.events("FreeDiskSpaceFailed")[0].count, count, "there was something to remove since");
}

#[tokio::test(start_paused = true)]
async fn what_the_agent_did_not_bring_or_others_use_is_never_removed() {
    let mut node = node();
    node.fake().set_disk(10_000, 9_000);
    node.fake().add_image(&image(1), 100);
    node.fake().add_image("docker.io/somebody/else:1", 100);
    node.start();
    run(&node, &[1, 2, 3]).await;
    // `imagePullPolicy: Always` pulls the image again, but the agent does not own it: it was there before.
    let manifest = raw("p4", &format!("containers: [{{name: app, image: {}, imagePullPolicy: Always}}]", image(1)));
    node.write("p4.yaml", &manifest);
    node.shows("p4", |node| node.app("p4").is_some()).await;
    node.fake().set_used_by_others(&image(3), true);
    for tag in [1, 2, 3, 4] {
        end(&node, tag).await;
    }
    collections().await;
    assert_eq!(here(&node), [1, 3], "R-IMG-11");
    assert!(node.fake().images().contains(&"docker.io/somebody/else:1".to_owned()), "R-IMG-11");
    let failed = said(&node, "FreeDiskSpaceFailed");
    assert!(failed[0].contains("of the file system of /fake/images are used"), "R-IMG-11: {failed:?}");
    node.fake().set_used_by_others(&image(3), false);
    collections().await;
    assert_eq!(here(&node), [1], "R-IMG-11");
}

#[tokio::test(start_paused = true)]
async fn what_somebody_has_put_another_image_under_is_theirs() {
    let mut node = node();
    node.fake().set_disk(10_000, 9_000);
    node.start();
    run(&node, &[1]).await;
    end(&node, 1).await;
    node.fake().add_image(&image(1), 1000);
    collections().await;
    assert_eq!(here(&node), [1], "R-IMG-11");
    assert_eq!(removals(&node), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn the_next_agent_knows_what_was_brought_before_it() {
    let mut node = node();
    node.start();
    run(&node, &[1, 2, 3]).await;
    node.settle().await;
    node.stop().await;
    for tag in [1, 2] {
        node.remove(&format!("p{tag}.yaml"));
    }
    node.start();
    node.runs(&[("p3", &[("app", "app:3")])]).await;
    collections().await;
    assert_eq!(here(&node).len(), 2, "R-IMG-11: {:?}", here(&node));
    // Without its record, the agent treats no image as its own.
    node.stop().await;
    fs::remove_dir_all(node.config.state_dir.join("images")).expect("the record was there");
    node.fake().set_disk(10_000, 9_000);
    node.start();
    collections().await;
    assert_eq!(here(&node).len(), 2, "R-IMG-11: {:?}", here(&node));
    fs::create_dir_all(node.config.state_dir.join("images")).expect("made");
    fs::write(node.config.state_dir.join("images/first.json"), "{broken").expect("written");
    node.restart().await;
    collections().await;
    assert_eq!(here(&node).len(), 2, "R-IMG-11: what cannot be read names no image");
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_ends_between_asking_and_hearing_goes_on_where_it_was() {
    let mut node = node();
    node.start();
    run(&node, &[1, 2, 3]).await;
    node.fake().set_disk(10_000, 8_000);
    let hold = Hold::new();
    node.fake().fault(Method::RemoveUnusedImage, When::Nth(1), Fault::HangAfter(hold.clone()));
    for tag in [1, 2] {
        end(&node, tag).await;
    }
    collections().await;
    assert_eq!(here(&node).len(), 2, "one is removed, and nobody was told");
    node.restart().await;
    collections().await;
    assert_eq!(here(&node), [3], "R-IMG-11");
    // The images are pulled again when pods need them, also the one whose removal was not reported.
    run(&node, &[1, 2]).await;
    hold.release();
}

#[tokio::test(start_paused = true)]
async fn what_young_images_take_is_left_to_them() {
    let mut node = node();
    node.config.image_gc.minimum_age = Duration::from_secs(3600);
    node.fake().set_disk(10_000, 9_000);
    node.start();
    run(&node, &[1]).await;
    end(&node, 1).await;
    collections().await;
    assert_eq!(here(&node), [1], "R-IMG-11");
    tokio::time::sleep(Duration::from_secs(3600)).await;
    collections().await;
    assert_eq!(here(&node), Vec::<u32>::new(), "R-IMG-11");
}

#[tokio::test(start_paused = true)]
async fn what_nothing_has_used_for_long_goes_without_need() {
    let mut node = node();
    node.config.image_gc =
        ImageGc { thresholds: None, maximum_age: Some(Duration::from_secs(3600)), ..node.config.image_gc.clone() };
    node.start();
    run(&node, &[1, 2]).await;
    end(&node, 1).await;
    tokio::time::sleep(Duration::from_secs(3500)).await;
    assert_eq!(here(&node), [1, 2], "R-IMG-11");
    tokio::time::sleep(Duration::from_secs(200)).await;
    assert_eq!(here(&node), [2], "R-IMG-11: what runs is used");
}

#[tokio::test(start_paused = true)]
async fn what_is_switched_off_does_not_even_look() {
    let mut node = node();
    node.config.image_gc.thresholds = None;
    node.fake().set_disk(10_000, 9_500);
    node.start();
    run(&node, &[1]).await;
    end(&node, 1).await;
    let before = node.fake().count(Method::ImageStore);
    collections().await;
    assert_eq!((here(&node).len(), node.fake().count(Method::ImageStore)), (1, before), "R-IMG-11");
}

#[tokio::test(start_paused = true)]
async fn a_manifest_that_comes_while_its_image_is_being_removed_has_it_again() {
    let mut node = node();
    node.start();
    run(&node, &[1, 2, 3]).await;
    let hold = Hold::new();
    node.fake().fault(Method::RemoveUnusedImage, When::Nth(1), Fault::Hang(hold.clone()));
    end(&node, 1).await;
    node.patiently("the removal to begin", async {
        while removals(&node).is_empty() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    node.write("p1.yaml", &pod("p1", "app:1"));
    node.settle().await;
    assert!(node.app("p1").is_none(), "it waits for what is to be removed");
    hold.release();
    node.shows("p1", |node| node.app("p1").is_some()).await;
    collections().await;
    assert_eq!(here(&node), [1, 2, 3], "R-IMG-11");
}

#[tokio::test(start_paused = true)]
async fn what_a_revision_needs_that_waits_for_its_successor_stays() {
    let mut node = node();
    node.fake().set_disk(10_000, 9_500);
    node.start();
    run(&node, &[1]).await;
    node.write("p1.yaml", &pod("p1", "app:none"));
    node.shows("the failure", |node| !said(node, "BackOff").is_empty()).await;
    // Another program removes the pod's sandbox, and no new one can be created: no container shows that the image is
    // needed.
    node.fake().fault(Method::CreateSandbox, When::Always, Fault::fail(ErrorKind::Other));
    let sandbox = node.fake().sandboxes_of("p1-node").pop().expect("it has one");
    node.fake().remove_sandbox(sandbox.id).await.expect("removed");
    collections().await;
    assert_eq!(here(&node), [1], "R-IMG-11");
    assert_eq!(said(&node, "Swept"), Vec::<String>::new(), "its volumes stay too");
    node.fake().heal(Method::CreateSandbox);
    node.shows("the old one", |node| node.app("p1").is_some()).await;
}

#[tokio::test(start_paused = true)]
async fn a_runtime_that_is_away_or_refuses_loses_nothing() {
    let mut node = node();
    node.start();
    run(&node, &[1, 2, 3]).await;
    node.fake().set_disk(10_000, 8_000);
    for tag in [1, 2] {
        end(&node, tag).await;
    }
    node.fake().set_available(false);
    collections().await;
    assert!(said(&node, "ImageGCFailed").is_empty(), "that it is away is said once, and elsewhere");
    // The runtime says that the first image is in use: the agent tries the next one.
    node.fake().fault(Method::RemoveUnusedImage, When::Nth(1), Fault::fail(ErrorKind::Conflict));
    node.fake().set_available(true);
    collections().await;
    assert_eq!(here(&node), [3], "R-IMG-11");

    node.fake().fault(Method::ListImages, When::Always, Fault::fail(ErrorKind::Other));
    collections().await;
    assert!(!said(&node, "ImageGCFailed").is_empty(), "R-IMG-11");
}

#[tokio::test(start_paused = true)]
async fn what_an_archive_brought_stays_as_long_as_it_lies_there() {
    let mut node = node();
    let preload = node.config.state_dir.join("../preload");
    fs::create_dir_all(&preload).expect("made");
    node.config.preload = Some(preload.clone());
    fs::write(preload.join("a.tar"), "it is not looked at").expect("written");
    node.fake().add_archive(preload.join("a.tar"), &["docker.io/library/a:1"]);
    node.fake().set_disk(10_000, 9_500);
    node.start();
    node.patiently("the import", async {
        while node.fake().images().is_empty() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    collections().await;
    assert_eq!(node.fake().images(), ["docker.io/library/a:1"], "R-IMG-11");
    fs::remove_file(preload.join("a.tar")).expect("removed");
    collections().await;
    assert!(node.fake().images().is_empty(), "R-IMG-11: {:?}", node.fake().images());
}

fn names(pruned: &[PruneView]) -> Vec<&str> {
    pruned.iter().flat_map(|it| &it.images).flat_map(|it| &it.names).map(String::as_str).collect()
}

#[tokio::test(start_paused = true)]
async fn a_user_can_have_all_that_is_unused_removed() {
    let mut node = node();
    node.config.image_gc = ImageGc { thresholds: None, ..ImageGc::default() };
    node.fake().add_image("docker.io/somebody/else:1", 100);
    node.start();
    run(&node, &[1, 2, 3]).await;
    for tag in [1, 2] {
        end(&node, tag).await;
    }
    let would = node.handle().prune(true).await;
    assert_eq!(names(&would), [image(1), image(2)], "R-IMG-11");
    assert_eq!(here(&node), [1, 2, 3], "it was only asked");
    let pruned = node.handle().prune(false).await;
    assert_eq!((names(&pruned), pruned[0].freed), (vec![&*image(1), &*image(2)], 2000), "R-IMG-11");
    assert_eq!(here(&node), [3], "R-IMG-11");
    assert_eq!(names(&node.handle().prune(false).await), Vec::<&str>::new());
    node.fake().set_available(false);
    let away = node.handle().prune(false).await;
    assert!(away[0].error.as_deref().is_some_and(|why| why.contains("cannot be reached")), "{away:?}");
}
