//! Version and images.

use std::sync::{Arc, Mutex, PoisonError};

use super::{
    ImageSource,
    kit::{Kit, ensure, refused},
    transcript::{Outcome, Stop},
};
use crate::{ErrorKind, Image, ImportImages, Progress, PullImage, PullProgress, Runtime};

/// Whether an image is listed.
pub(super) async fn is_there(runtime: &impl Runtime, reference: &str) -> bool {
    runtime.list_images().await.is_ok_and(|images| images.iter().any(|image| image.reference == reference))
}

/// Brings the image, if it is not there.
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

/// The runtime has a name and a version.
pub(super) async fn version<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let version = kit.runtime.version().await?;
    ensure!(!version.runtime.is_empty(), "the runtime has no name: {version:?}");
    ensure!(!version.runtime_version.is_empty(), "the runtime has no version: {version:?}");
    Ok(())
}

/// A pulled image is listed as answered, and progress comes to its end.
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

/// Pulling what is present works, and gives the same image.
pub(super) async fn pull_again<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let one = kit.runtime.pull_image(request(kit, &kit.options.image), Progress::ignored()).await?;
    let two = kit.runtime.pull_image(request(kit, &kit.options.image), Progress::ignored()).await?;
    ensure!(one.digest == two.digest, "two pulls gave {} and {}", one.digest, two.digest);
    listed(kit, &two).await
}

/// What an image says of its user is told (it is root's or nobody's), and nothing of one that is not there.
pub(super) async fn inspect<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let details = kit.runtime.inspect_image(kit.options.image.clone()).await?;
    ensure!(["", "0", "root"].contains(&&*details.user), "the image's user is {:?}", details.user);
    let absent = kit.runtime.inspect_image("registry.invalid/no-such-image:none".to_owned()).await;
    refused(absent, &[ErrorKind::NotFound], "inspecting an image that is absent")
}

/// A tag that the registry does not have.
pub(super) async fn pull_absent<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let image = &kit.options.image;
    let name = image.rsplit_once('/').map_or("", |(host, _)| host);
    let absent = format!("{name}/stanchion-conformance-no-such-image:none");
    let answer = kit.runtime.pull_image(request(kit, &absent), Progress::ignored()).await;
    refused(answer, &[ErrorKind::NotFound], "pulling an image that does not exist")
}

/// What is no reference at all.
pub(super) async fn pull_malformed<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let answer = kit.runtime.pull_image(request(kit, "No Reference!"), Progress::ignored()).await;
    refused(answer, &[ErrorKind::Invalid], "pulling \"No Reference!\"")
}

/// The images of an archive are listed as answered.
pub(super) async fn import<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let images = imported(kit).await?;
    let wanted = images.iter().find(|image| image.reference == kit.options.image);
    let found = wanted.ok_or_else(|| Stop::Failed(format!("{} is not among {images:?}", kit.options.image)))?;
    listed(kit, found).await
}

/// Importing what is present works, and gives the same images.
pub(super) async fn import_again<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let (one, two) = (imported(kit).await?, imported(kit).await?);
    ensure!(one == two, "two imports gave {one:?} and {two:?}");
    Ok(())
}

/// An archive that is not there.
pub(super) async fn import_absent<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let path = kit.options.dir.join("no-such-archive.tar");
    let answer = kit.runtime.import_images(ImportImages { path }).await;
    refused(answer, &[ErrorKind::NotFound, ErrorKind::Invalid], "importing an archive that does not exist")
}

/// Removing what is gone succeeds.
pub(super) async fn remove_absent<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    kit.runtime.remove_image("registry.invalid/no-such-image:none".to_owned()).await?;
    Ok(())
}

/// A removed image is not listed; it can be had again.
pub(super) async fn remove<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let reference = &kit.options.image;
    kit.runtime.remove_image(reference.clone()).await?;
    let left = kit.runtime.list_images().await?;
    ensure!(left.iter().all(|image| image.reference != *reference), "{reference} is listed after its removal");
    kit.runtime.remove_image(reference.clone()).await?;
    let image = match kit.options.source {
        ImageSource::Present => return Ok(()),
        ImageSource::Pull { .. } => kit.runtime.pull_image(request(kit, reference), Progress::ignored()).await?,
        ImageSource::Import { .. } => {
            imported(kit).await?;
            return Ok(());
        }
    };
    listed(kit, &image).await
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
