//! Images that no container uses (R-IMG-11). Images of other containerd namespaces have names of their own: containerd
//! keeps for them what they share with ours.

use stanchion_sdk::runtime::{Error, ErrorKind, Result, UnusedImage};

use crate::{Containerd, names};

impl Containerd {
    /// Returns the images that the namespace's containers, ours and others', are made of or have mounted, by reference
    /// and digest.
    pub(crate) async fn images_in_use(&self) -> Result<Vec<String>> {
        let used = |label: &str| label == names::IMAGE_DIGEST || label.starts_with(names::MOUNTED_IMAGE);
        let of = |record: containerd_client::services::v1::Container| {
            let noted = record.labels.into_iter().filter(move |(label, _)| used(label)).map(|(_, image)| image);
            noted.chain([record.image])
        };
        let used = self.records(Vec::new()).await?.into_iter().flat_map(of);
        Ok(used.filter(|image| !image.is_empty()).collect())
    }

    /// Removes an image, and waits until its unshared content is off the disk.
    pub(crate) async fn erase_unused_image(&self, image: &UnusedImage) -> Result<()> {
        let UnusedImage { reference, digest } = image;
        let kept = |why: &str| Error::new(ErrorKind::Conflict, format!("removing image {reference}")).because(why);
        match self.images.digest(reference).await? {
            None => return Ok(()),
            Some(now) if now != *digest => return Err(kept("its name stands for another image by now")),
            Some(_) => {}
        }
        if self.images_in_use().await?.iter().any(|used| used == reference || used == digest.as_str()) {
            return Err(kept("a container is made of it or has it mounted"));
        }
        self.images.erase(reference).await
    }
}
