//! Cases: version and images.

use std::sync::{Arc, Mutex, PoisonError};

use super::{
    ImageSource,
    kit::{Kit, SERVER, ensure, refused},
    transcript::{Outcome, Stop},
};
use crate::{
    ContainerConfig, ErrorKind, Image, ImageStore, ImportImages, Progress, PullImage, PullProgress, Runtime,
    UnusedImage,
};

/// Returns whether an image is listed.
pub(super) async fn is_there(runtime: &impl Runtime, reference: &str) -> bool {
    runtime.list_images().await.is_ok_and(|images| images.iter().any(|image| image.reference == reference))
}

/// Pulls or imports the image unless it is present.
pub(super) async fn provide<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let present = is_there(kit.runtime, &kit.options.image).await;
    match kit.options.source {
        ImageSource::Pull { .. } if !present => {
            kit.runtime.pull_image(request(kit, &kit.options.image), Progress::ignored()).await?;
        }
        ImageSource::Import { .. } if !present => {
            imported(kit).await?;
        }
        ImageSource::Present | ImageSource::Pull { .. } | ImageSource::Import { .. } => {}
    }
    Ok(())
}

/// Checks that the runtime has a name and a version.
pub(super) async fn version<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let version = kit.runtime.version().await?;
    ensure!(!version.runtime.is_empty(), "the runtime has no name: {version:?}");
    ensure!(!version.runtime_version.is_empty(), "the runtime has no version: {version:?}");
    Ok(())
}

/// Checks that a pulled image is listed as answered, and that the last progress report is complete.
pub(super) async fn pull<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let reports = Arc::new(Mutex::new(Vec::<PullProgress>::new()));
    let listener = Arc::clone(&reports);
    let progress = Progress::new(move |report| listener.lock().unwrap_or_else(PoisonError::into_inner).push(report));
    let image = kit.runtime.pull_image(request(kit, &kit.options.image), progress).await?;
    ensure!(image.reference == kit.options.image, "{} was pulled as {}", kit.options.image, image.reference);
    ensure!(!image.digest.as_str().is_empty(), "the image has no digest: {image:?}");
    listed(kit, &image).await?;
    let reports = reports.lock().unwrap_or_else(PoisonError::into_inner);
    let last = reports.last().ok_or_else(|| Stop::Failed("a pull reports no progress".to_owned()))?;
    ensure!(last.received == last.total, "the last report of a pull that succeeded is {last:?}");
    Ok(())
}

/// Checks that pulling a present image works, and gives the same image.
pub(super) async fn pull_again<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let one = kit.runtime.pull_image(request(kit, &kit.options.image), Progress::ignored()).await?;
    let two = kit.runtime.pull_image(request(kit, &kit.options.image), Progress::ignored()).await?;
    ensure!(one.digest == two.digest, "two pulls gave {} and {}", one.digest, two.digest);
    listed(kit, &two).await
}

/// Checks that the image's user is root or empty, and that an absent image is not found.
pub(super) async fn inspect<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let details = kit.runtime.inspect_image(kit.options.image.clone()).await?;
    ensure!(["", "0", "root"].contains(&&*details.user), "the image's user is {:?}", details.user);
    let absent = kit.runtime.inspect_image("registry.invalid/no-such-image:none".to_owned()).await;
    refused(absent, &[ErrorKind::NotFound], "inspecting an image that is absent")
}

/// Checks that pulling a tag that the registry does not have fails.
pub(super) async fn pull_absent<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let image = &kit.options.image;
    let name = image.rsplit_once('/').map_or("", |(host, _)| host);
    let absent = format!("{name}/stanchion-conformance-no-such-image:none");
    let answer = kit.runtime.pull_image(request(kit, &absent), Progress::ignored()).await;
    refused(answer, &[ErrorKind::NotFound], "pulling an image that does not exist")
}

/// Checks that pulling a malformed reference fails.
pub(super) async fn pull_malformed<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let answer = kit.runtime.pull_image(request(kit, "No Reference!"), Progress::ignored()).await;
    refused(answer, &[ErrorKind::Invalid], "pulling \"No Reference!\"")
}

/// Checks that the images of an archive are listed as answered.
pub(super) async fn import<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let images = imported(kit).await?;
    let wanted = images.iter().find(|image| image.reference == kit.options.image);
    let found = wanted.ok_or_else(|| Stop::Failed(format!("{} is not among {images:?}", kit.options.image)))?;
    listed(kit, found).await
}

/// Checks that importing present images works, and gives the same images.
pub(super) async fn import_again<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let (one, two) = (imported(kit).await?, imported(kit).await?);
    ensure!(one == two, "two imports gave {one:?} and {two:?}");
    Ok(())
}

/// Checks that importing an absent archive fails.
pub(super) async fn import_absent<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let path = kit.options.dir.join("no-such-archive.tar");
    let answer = kit.runtime.import_images(ImportImages { path }).await;
    refused(answer, &[ErrorKind::NotFound, ErrorKind::Invalid], "importing an archive that does not exist")
}

/// Checks that removing an absent image succeeds.
pub(super) async fn remove_absent<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    kit.runtime.remove_image("registry.invalid/no-such-image:none".to_owned()).await?;
    Ok(())
}

/// Checks that a removed image is not listed and can be provided again.
pub(super) async fn remove<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let reference = &kit.options.image;
    kit.runtime.remove_image(reference.clone()).await?;
    let left = kit.runtime.list_images().await?;
    ensure!(left.iter().all(|image| image.reference != *reference), "{reference} is listed after its removal");
    kit.runtime.remove_image(reference.clone()).await?;
    provide(kit).await?;
    present(kit).await.map(drop)
}

/// Checks that the image store is a directory on a file system of known size (R-IMG-11).
pub(super) async fn store<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let store = kit.runtime.image_store().await?;
    ensure!(store.path.is_absolute(), "images are said to be in {:?}", store.path);
    let ImageStore { capacity, available, .. } = store;
    ensure!(capacity > 0 && available <= capacity, "of {capacity} bytes {available} are said to be free");
    Ok(())
}

/// Checks that a container's image is in use and cannot be removed: before its start, while it runs and after its exit
/// (R-IMG-11).
pub(super) async fn in_use<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let sandbox = kit.sandbox().await?;
    let created = kit.runtime.create_container(kit.container(&sandbox, "exit 0")).await?;
    is_kept(kit, "created").await?;
    kit.runtime.start_container(created.clone()).await?;
    kit.exit_of(&created).await?;
    is_kept(kit, "dead").await?;
    let next = ContainerConfig { attempt: 1, ..kit.container(&sandbox, SERVER) };
    kit.started(next).await?;
    kit.runtime.remove_container(created).await?;
    is_kept(kit, "running").await
}

async fn is_kept<R: Runtime>(kit: &Kit<'_, R>, container: &str) -> Outcome {
    let image = present(kit).await?;
    let used = kit.runtime.image_store().await?.in_use;
    let is_it = |name: &String| *name == image.reference || name == image.digest.as_str();
    ensure!(used.iter().any(is_it), "the image of a {container} container is not among those in use: {used:?}");
    let removed = kit.runtime.remove_unused_image(unused(&image)).await;
    refused(removed, &[ErrorKind::Conflict], &format!("removing the image of a {container} container"))?;
    present(kit).await.map(drop)
}

/// Checks that an unused image is removed if its digest is the expected one, and that removing an absent one succeeds
/// (R-IMG-11).
pub(super) async fn remove_unused<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    provide(kit).await?;
    let image = present(kit).await?;
    let other = UnusedImage { digest: "sha256:0".into(), ..unused(&image) };
    refused(kit.runtime.remove_unused_image(other).await, &[ErrorKind::Conflict], "removing another image")?;
    present(kit).await?;
    kit.runtime.remove_unused_image(unused(&image)).await?;
    let left = kit.runtime.list_images().await?;
    ensure!(left.iter().all(|it| it.reference != image.reference), "{} is listed after its removal", image.reference);
    kit.runtime.remove_unused_image(unused(&image)).await?;
    provide(kit).await
}

fn unused(image: &Image) -> UnusedImage {
    UnusedImage { reference: image.reference.clone(), digest: image.digest.clone() }
}

/// Returns the suite's image, which must be listed.
async fn present<R: Runtime>(kit: &Kit<'_, R>) -> Outcome<Image> {
    let reference = &kit.options.image;
    let mut images = kit.runtime.list_images().await?.into_iter();
    let found = images.find(|image| image.reference == *reference);
    found.ok_or_else(|| Stop::Failed(format!("{reference} is not listed")))
}

fn request<R: Runtime>(kit: &Kit<'_, R>, reference: &str) -> PullImage {
    let auth = match &kit.options.source {
        ImageSource::Pull { auth } => auth.clone(),
        ImageSource::Present | ImageSource::Import { .. } => None,
    };
    PullImage { reference: reference.to_owned(), auth }
}

async fn imported<R: Runtime>(kit: &Kit<'_, R>) -> Outcome<Vec<Image>> {
    let ImageSource::Import { archive } = &kit.options.source else {
        return Err(Stop::Failed("the suite was given no archive".to_owned()));
    };
    Ok(kit.runtime.import_images(ImportImages { path: archive.clone() }).await?)
}

async fn listed<R: Runtime>(kit: &Kit<'_, R>, image: &Image) -> Outcome {
    let images = kit.runtime.list_images().await?;
    let same = images.iter().filter(|other| other.reference == image.reference).collect::<Vec<_>>();
    ensure!(same.len() == 1, "{} is listed {} times", image.reference, same.len());
    ensure!(same[0].digest == image.digest, "{} has digest {} in the list", image.reference, same[0].digest);
    Ok(())
}
