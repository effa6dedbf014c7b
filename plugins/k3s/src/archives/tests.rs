//! Tests that import files into a runtime in memory, by a clock that the tests have.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use stanchion_runtime::testing::{FakeRuntime, Fault, Method, When};
use stanchion_sdk::{clock, runtime::ErrorKind};

use super::{Archives, PATIENCE, is_archive};
use crate::limits;

const PLACE: &str = "a containerd";

/// K3s's directory of images, and a containerd.
struct Bench {
    data: tempfile::TempDir,
    archives: Archives,
    fake: FakeRuntime,
}

impl Bench {
    fn new() -> Self {
        let data = tempfile::tempdir().expect("a directory");
        fs::create_dir_all(data.path().join("agent/images")).expect("made");
        Self { archives: Archives::of(data.path()), fake: FakeRuntime::new(), data }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.data.path().join("agent/images").join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).expect("written");
    }

    /// Writes an archive of one image.
    fn archive(&self, name: &str, image: &str) {
        self.write(name, "");
        self.fake.add_archive(self.path(name), &[image]);
    }

    /// Imports what is due as `list_images` does, and returns how long that held it up.
    async fn bring(&self) -> Duration {
        let begun = clock::instant();
        self.archives.bring(PLACE, &self.fake).await;
        begun.elapsed()
    }

    /// Does the same, and waits for the run's end.
    async fn bring_all(&self) {
        self.bring().await;
        let is_over = || self.archives.runs.lock().expect("nobody panicked").values().all(|run| run.task.is_finished());
        while !is_over() {
            tokio::task::yield_now().await;
        }
    }

    /// Returns the number of pulls and imports so far.
    fn tries(&self) -> (usize, usize) {
        (self.fake.count(Method::PullImage), self.fake.count(Method::ImportImages))
    }
}

async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_does_not_answer_holds_up_nothing_else() {
    let bench = Bench::new();
    bench.write("list.txt", "# two\naway.example/a:1\n\nthere.example/b:1\nthere.example/b:1\n");
    bench.archive("images.tar", "there.example/c:1");
    bench.fake.publish_slow("away.example/a:1", 1, Duration::from_secs(600));
    bench.fake.publish("there.example/b:1", 1);
    assert!(bench.bring().await <= PATIENCE);
    assert_eq!(bench.fake.images(), ["there.example/b:1", "there.example/c:1"]);

    for _ in 0..3 {
        assert_eq!(bench.bring().await, Duration::ZERO, "a run that goes on is waited for once");
    }
    assert_eq!(bench.tries(), (2, 1), "what is under way or done is not done again");

    pass(Duration::from_secs(600)).await;
    assert!(bench.fake.images().contains(&"away.example/a:1".to_owned()), "{:?}", bench.fake.images());
    bench.bring().await;
    assert_eq!(bench.tries(), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn an_archive_that_takes_long_is_imported_once_however_often_somebody_asks() {
    let bench = Bench::new();
    bench.archive("large.tar", "there.example/large:1");
    bench.fake.fault(Method::ImportImages, When::Always, Fault::Slow(Duration::from_secs(60)));
    let given_up = tokio::time::timeout(PATIENCE / 2, bench.bring()).await;
    assert!(given_up.is_err(), "what is new is waited for");
    assert!(bench.bring().await <= PATIENCE / 2);
    for _ in 0..10 {
        assert_eq!(bench.bring().await, Duration::ZERO);
        pass(Duration::from_secs(6)).await;
    }
    assert_eq!(bench.fake.images(), ["there.example/large:1"]);
    bench.bring().await;
    assert_eq!(bench.tries(), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn what_fails_is_tried_again_later_and_later() {
    let bench = Bench::new();
    bench.write("list.txt", "away.example/a:1\nthere.example/b:1\n");
    bench.write("broken.tar", "");
    bench.archive("fine.tar", "there.example/c:1");
    bench.fake.publish("there.example/b:1", 1);
    bench.bring_all().await;
    assert_eq!(bench.fake.images(), ["there.example/b:1", "there.example/c:1"]);
    assert_eq!(bench.tries(), (2, 2));

    let (mut pulls, mut imports) = bench.tries();
    for wait in [10, 20, 40, 80, 160, 300, 300] {
        pass(Duration::from_secs(wait - 1)).await;
        bench.bring_all().await;
        assert_eq!(bench.tries(), (pulls, imports), "before {wait} s");
        pass(Duration::from_secs(1)).await;
        bench.bring_all().await;
        (pulls, imports) = (pulls + 1, imports + 1);
        assert_eq!(bench.tries(), (pulls, imports), "after {wait} s");
    }

    println!("a file that has changed is tried at once, and the rest of a list is not pulled again");
    bench.write("broken.tar", "mended");
    bench.fake.add_archive(bench.path("broken.tar"), &["there.example/d:1"]);
    bench.fake.publish("away.example/a:1", 1);
    bench.bring_all().await;
    assert!(bench.fake.images().contains(&"there.example/d:1".to_owned()));
    pass(Duration::from_secs(300)).await;
    bench.bring_all().await;
    assert_eq!(bench.fake.images().len(), 4);
    assert_eq!(bench.tries(), (pulls + 1, imports + 1));
    pass(Duration::from_secs(3600)).await;
    bench.bring_all().await;
    assert_eq!(bench.tries(), (pulls + 1, imports + 1), "all is done");
}

#[tokio::test(start_paused = true)]
async fn what_is_tried_again_is_not_waited_for() {
    let bench = Bench::new();
    bench.write("list.txt", "away.example/a:1\n");
    bench.bring_all().await;
    pass(Duration::from_secs(10)).await;
    let hold = bench.fake.hang(Method::PullImage, When::Always);
    assert_eq!(bench.bring().await, Duration::ZERO);
    hold.reached().await;
}

#[tokio::test(start_paused = true)]
async fn a_containerd_that_was_away_gets_everything_when_it_is_back() {
    let bench = Bench::new();
    bench.write("list.txt", "there.example/b:1\n");
    bench.archive("fine.tar", "there.example/c:1");
    bench.fake.publish("there.example/b:1", 1);
    bench.fake.set_available(false);
    bench.bring_all().await;
    bench.fake.set_available(true);
    bench.bring_all().await;
    assert_eq!(bench.fake.images(), ["there.example/b:1", "there.example/c:1"]);

    println!("another has nothing yet");
    let other = FakeRuntime::new();
    other.add_archive(bench.path("fine.tar"), &["there.example/c:1"]);
    other.fault(Method::PullImage, When::Always, Fault::fail(ErrorKind::Unavailable));
    bench.archives.bring("another", &other).await;
    assert_eq!(other.images(), ["there.example/c:1"]);
}

#[tokio::test(start_paused = true)]
async fn of_a_list_only_the_lines_that_are_not_utf8_are_left_out() {
    let bench = Bench::new();
    let first = b"\xef\xbb\xbfthere.example/a:1\r\n# K\xe4se\r\nthere.example/b\xe4:1\r\n";
    bench.write("list.txt", [&first[..], b"  there.example/c:1  \nthere.example/d:1"].concat());
    for image in ["a:1", "c:1", "d:1"] {
        bench.fake.publish(&format!("there.example/{image}"), 1);
    }
    bench.bring_all().await;
    assert_eq!(bench.fake.images(), ["there.example/a:1", "there.example/c:1", "there.example/d:1"]);
    assert_eq!(bench.tries(), (3, 0), "nobody is asked for what is no reference");
    bench.bring_all().await;
    pass(Duration::from_secs(600)).await;
    bench.bring_all().await;
    assert_eq!(bench.tries(), (3, 0));

    println!("a list that is too long is none");
    bench.write("long.txt", b"there.example/e:1\n".repeat(limits::LIST.size() / 17));
    bench.bring_all().await;
    assert_eq!(bench.tries(), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn a_run_ends_with_the_backend() {
    let bench = Bench::new();
    bench.write("list.txt", "away.example/a:1\n");
    let hold = bench.fake.hang(Method::PullImage, When::Always);
    let clone = bench.archives.clone();
    bench.bring().await;
    let Bench { archives, data: _data, fake: _fake } = bench;
    drop(archives);
    tokio::task::yield_now().await;
    assert_eq!(hold.hanging(), 1, "the backend is still there");
    drop(clone);
    tokio::task::yield_now().await;
    assert_eq!(hold.hanging(), 0);
}

#[test]
fn archives_are_known_by_their_endings_as_k3s_knows_them() {
    for name in ["a.tar", "a.tar.gz", "a.tgz", "a.tar.bz2", "a.tbz", "a.tar.lz4", "a.tar.zst", "a.tzst", "a.txt"] {
        assert!(is_archive(Path::new(name)), "{name}");
    }
    for name in ["a.zip", "a.tar.part", ".a.tar", "tar", "a.gz"] {
        assert!(!is_archive(Path::new(name)), "{name}");
    }
}
