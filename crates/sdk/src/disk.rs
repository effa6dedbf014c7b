//! Free space of the file system with a runtime's images.

use std::path::PathBuf;

use nix::sys::statvfs::statvfs;
use stanchion_runtime::{Error, ErrorKind, ImageStore, Result};

/// Returns the image store in a directory on this node; `in_use` is [`ImageStore::in_use`]. Blocks as long as the file
/// system does.
///
/// # Errors
/// The directory does not exist, or statvfs(3) fails.
pub fn image_store(path: PathBuf, in_use: Vec<String>) -> Result<ImageStore> {
    let found = statvfs(&path).map_err(|error| {
        Error::new(ErrorKind::Other, format!("asking how full the file system of {} is", path.display()))
            .caused_by(&error)
    })?;
    let size = found.fragment_size();
    let (capacity, available) = (found.blocks() * size, found.blocks_available() * size);
    Ok(ImageStore { path, capacity, available, in_use })
}

#[cfg(test)]
mod tests {
    use super::image_store;

    #[test]
    fn a_file_system_has_a_size_and_a_directory_that_is_not_there_has_none() {
        let store = image_store("/".into(), vec!["a".to_owned()]).expect("there is one");
        assert!(store.capacity > 0 && store.available <= store.capacity, "{store:?}");
        let error = image_store("/no/such".into(), Vec::new()).expect_err("it is not there");
        assert!(error.message().contains("/no/such"), "{error}");
    }
}
