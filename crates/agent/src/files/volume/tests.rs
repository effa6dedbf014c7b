use rustix::fs::statfs;
use stanchion_pod::PodUid;

use super::*;

fn prepared(dir: &Path, medium: &str, limits: &str) -> Result<Option<PathBuf>, VolumeError> {
    let text = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nspec: {{containers: [{{name: c, image: a, resources: {{limits: \
         {{{limits}}}}}}}], volumes: [{{name: v, emptyDir: {{medium: {medium}, sizeLimit: 8Mi}}}}]}}\n"
    );
    let decoded = stanchion_pod::decode(text.as_bytes(), "n").unwrap_or_else(|problems| panic!("{problems:#?}"));
    let pod = &decoded.pods[0];
    let files = PodFiles::new(dir, &dir.join("logs"), &pod.key, &PodUid::new("u-1"));
    let (objects, capacity) = (Objects::default(), Capacity::default());
    let inputs = VolumeInputs {
        pod,
        files: &files,
        objects: &objects,
        capacity: &capacity,
        is_new: true,
        written: Cell::new(0),
    };
    // The second call finds the volume prepared.
    prepare("v", &pod.volumes["v"], &inputs).and_then(|_| prepare("v", &pod.volumes["v"], &inputs))
}

// R-VOL-4.
#[test]
fn volumes_of_huge_pages_have_pages_of_the_size_that_the_pod_asks_for() {
    const HUGETLBFS: u64 = 0x9584_58f6;
    let (small, both) = ("cpu: 1, hugepages-2Mi: 4Mi", "cpu: 1, hugepages-2Mi: 4Mi, hugepages-1Gi: 1Gi");
    for (medium, limits) in [("HugePages", small), ("HugePages-2Mi", both)] {
        let dir = tempfile::tempdir().expect("a directory");
        let path = prepared(dir.path(), medium, limits).expect("it is mounted").expect("it has a path");
        let found = statfs(&path).expect("it can be asked");
        let mode = fs::metadata(&path).expect("it is there").permissions().mode() & 0o7777;
        mounts::unmount_below(dir.path()).expect("it is unmounted");
        assert_eq!((found.f_type.cast_unsigned(), found.f_bsize, mode), (HUGETLBFS, 2 << 20, 0o777), "{medium}");
    }
    for (medium, limits, words) in [
        ("HugePages", "cpu: 1", "no resource request for huge pages"),
        ("HugePages-1Gi", small, "no resource request for huge pages of 1048576 KiB"),
        ("HugePages", both, "multiple huge page sizes"),
    ] {
        let dir = tempfile::tempdir().expect("a directory");
        let error = prepared(dir.path(), medium, limits).expect_err(words).to_string();
        assert!(error.contains(words), "{error}");
    }
}
