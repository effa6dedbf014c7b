//! Images in Docker: pulled, imported, listed, removed.
//!
//! # Layout
//! - This module: names and look-ups. [`pull`]: from a registry. [`import`]: from an archive on the node.

mod import;
mod pull;

use bollard::{
    models::ImageInspect,
    query_parameters::{ListContainersOptions, ListImagesOptions, RemoveImageOptions},
};
use oci_spec::distribution::Reference;
use stanchion_sdk::runtime::{Error, ErrorKind, Image, ImageDigest, Result, UnusedImage};

use crate::{
    Docker,
    client::{failed, is_gone},
    pause,
};

impl Docker {
    /// Lists images by name, without the pause image, which we make ourselves.
    pub(crate) async fn images(&self) -> Result<Vec<Image>> {
        let listed = self.client.api().list_images(Some(ListImagesOptions::default())).await;
        let listed = listed.map_err(|error| failed("listing the images", &error))?;
        let mut images = Vec::new();
        for summary in listed {
            let names = summary.repo_tags.iter().chain(&summary.repo_digests);
            for name in names.filter(|name| !name.contains("<none>") && !name.starts_with(pause::REPOSITORY)) {
                let size = u64::try_from(summary.size).unwrap_or(0);
                images.push(Image { reference: full(name), digest: ImageDigest(summary.id.clone()), size });
            }
        }
        Ok(images)
    }

    /// Returns Docker's data about an image that is present.
    pub(crate) async fn look_up_image(&self, reference: &str) -> Result<ImageInspect> {
        let found = self.client.api().inspect_image(reference).await;
        found.map_err(|error| failed(format!("looking up image {reference}"), &error))
    }

    /// Removes an image's name; Docker removes what nothing else uses.
    pub(crate) async fn forget_image(&self, reference: &str) -> Result<()> {
        // Ended containers keep what they need, without the name.
        let options = RemoveImageOptions { force: true, ..RemoveImageOptions::default() };
        match self.client.api().remove_image(reference, Some(options), None).await {
            Err(error) if !is_gone(&error) => Err(failed(format!("removing image {reference}"), &error)),
            _ => Ok(()),
        }
    }

    /// Removes an image's name, if no container, ours or others', is made of it. If one is made meanwhile, Docker
    /// refuses to remove the image's last name.
    pub(crate) async fn forget_unused_image(&self, image: &UnusedImage) -> Result<()> {
        let UnusedImage { reference, digest } = image;
        let tried = || format!("removing image {reference}");
        let found = match self.client.api().inspect_image(reference).await {
            Err(error) if is_gone(&error) => return Ok(()),
            found => found.map_err(|error| failed(tried(), &error))?,
        };
        if found.id.as_deref() != Some(digest.as_str()) {
            return Err(Error::new(ErrorKind::Conflict, tried()).because("its name stands for another image by now"));
        }
        if self.images_in_use().await?.iter().any(|used| used == digest.as_str()) {
            return Err(Error::new(ErrorKind::Conflict, tried()).because("a container is made of it"));
        }
        match self.client.api().remove_image(reference, None::<RemoveImageOptions>, None).await {
            Err(error) if !is_gone(&error) => Err(failed(tried(), &error)),
            _ => Ok(()),
        }
    }

    /// Returns the ids of the images that containers, ours and others', are made of.
    pub(crate) async fn images_in_use(&self) -> Result<Vec<String>> {
        let options = ListContainersOptions { all: true, ..ListContainersOptions::default() };
        let listed = self.client.api().list_containers(Some(options)).await;
        let listed = listed.map_err(|error| failed("listing everybody's containers", &error))?;
        Ok(listed.into_iter().filter_map(|container| container.image_id).collect())
    }

    /// Returns an image that has just arrived, under one of its names. If Docker's answer about it is too large,
    /// removes it again: every look-up of images would fail.
    async fn arrived(&self, reference: &str) -> Result<Image> {
        let found = self.present(reference).await;
        if found.as_ref().is_err_and(|error| error.kind() == ErrorKind::Invalid)
            && let Err(error) = self.forget_image(reference).await
        {
            tracing::warn!(image = reference, error = error.chain(), "an image that cannot be used stays");
        }
        found
    }

    /// Returns an image that is present, under one of its names.
    async fn present(&self, reference: &str) -> Result<Image> {
        let found = self.look_up_image(reference).await?;
        let digest = ImageDigest(found.id.unwrap_or_default());
        let size = found.size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0);
        Ok(Image { reference: reference.to_owned(), digest, size })
    }
}

/// Returns an image's user.
pub(crate) fn user(found: &ImageInspect) -> String {
    found.config.as_ref().and_then(|config| config.user.clone()).unwrap_or_default()
}

/// Returns an image's stop signal.
pub(crate) fn stop_signal(found: &ImageInspect) -> Option<String> {
    found.config.as_ref()?.stop_signal.clone().filter(|name| !name.is_empty())
}

fn parse(name: &str) -> Result<Reference> {
    name.parse::<Reference>().map_err(|error| {
        Error::new(ErrorKind::Invalid, format!("image reference {name:?} is not valid")).caused_by(&error)
    })
}

/// Completes a name: Docker leaves out what it adds itself.
fn full(name: &str) -> String {
    name.parse::<Reference>().map_or_else(|_| name.to_owned(), |reference| reference.whole())
}

#[cfg(test)]
mod tests {
    use super::full;

    #[test]
    fn dockers_names_have_a_full_form() {
        let digest = format!("sha256:{}", "0".repeat(64));
        for (short, long) in [
            ("redis:7", "docker.io/library/redis:7".to_owned()),
            ("me/app:1", "docker.io/me/app:1".to_owned()),
            ("127.0.0.1:5000/a/b:c", "127.0.0.1:5000/a/b:c".to_owned()),
            (&format!("redis@{digest}"), format!("docker.io/library/redis@{digest}")),
        ] {
            assert_eq!(full(short), long);
        }
    }
}
