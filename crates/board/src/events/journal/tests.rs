//! Events that outlive the agent.

use jiff::Timestamp;
use tempfile::TempDir;

use super::{super::Subject, *};

fn log() -> Arc<EventLog> {
    Arc::new(EventLog::new(|| Timestamp::UNIX_EPOCH))
}

/// Runs the keeper of a log in `directory` while `during` runs, as one life of an agent.
async fn life(log: &Arc<EventLog>, directory: &Path, during: impl AsyncFnOnce()) {
    let shutdown = CancellationToken::new();
    let journal = Journal::open(Arc::clone(log), directory.to_owned()).await;
    let keeper = journal.keep(shutdown.clone());
    let during = async {
        during().await;
        shutdown.cancel();
    };
    tokio::join!(keeper, during);
}

fn messages(log: &EventLog) -> Vec<(u64, String, u32)> {
    log.all().iter().map(|event| (event.id, event.message.clone(), event.count)).collect()
}

#[tokio::test(start_paused = true)]
async fn the_next_agent_has_the_events_of_the_one_before() {
    let state = TempDir::new().expect("a directory");
    let directory = state.path().join("events");
    let (first, second, backend) = (log(), log(), Subject::backend("b"));
    life(&first, &directory, async || {
        first.normal(&backend, "Seen", "one");
        first.warning(&backend, "Lost", "two");
        sleep(PAUSE * 3).await;
        first.normal(&backend, "Seen", "one");
    })
    .await;
    life(&second, &directory, async || {
        sleep(PAUSE).await;
        let expected = [(2, "two".to_owned(), 1), (3, "one".to_owned(), 2)];
        assert_eq!(messages(&second), expected);
        second.warning(&backend, "Lost", "two");
        second.normal(&backend, "Seen", "three");
        let expected = [(3, "one".to_owned(), 2), (4, "two".to_owned(), 2), (5, "three".to_owned(), 1)];
        assert_eq!(messages(&second), expected);
        assert_eq!(second.since(4).len(), 1);
    })
    .await;
    let third = kept(&directory);
    assert_eq!(third.iter().map(|event| event.id).collect::<Vec<_>>(), [3, 4, 5]);
}

#[tokio::test(start_paused = true)]
async fn what_happened_before_earlier_events_are_read_comes_after_them() {
    let state = TempDir::new().expect("a directory");
    let (first, second, backend) = (log(), log(), Subject::backend("b"));
    life(&first, state.path(), async || first.normal(&backend, "Seen", "one")).await;
    second.normal(&backend, "Seen", "early");
    life(&second, state.path(), async || sleep(PAUSE).await).await;
    assert_eq!(messages(&second), [(1, "one".to_owned(), 1), (2, "early".to_owned(), 1)]);
    assert_eq!(kept(state.path()).len(), 2);
}

#[test]
fn an_interrupted_write_costs_its_line_only() {
    let state = TempDir::new().expect("a directory");
    let log = log();
    let backend = Subject::backend("b");
    log.normal(&backend, "Seen", "one");
    append(state.path(), &log.all(), || log.all()).expect("it is written");
    let current = state.path().join("log");
    let mut torn = fs::read(&current).expect("it is there");
    torn.truncate(torn.len() - 5);
    torn.extend(b"\nnot an event\n{\"id\":");
    fs::write(&current, torn).expect("it is written");
    log.normal(&backend, "Seen", "two");
    append(state.path(), &log.since(1), || log.all()).expect("it is written");
    let messages: Vec<_> = kept(state.path()).into_iter().map(|event| event.message).collect();
    assert_eq!(messages, ["two"]);
}

#[test]
fn files_of_events_are_bounded_and_the_latest_are_kept() {
    let state = TempDir::new().expect("a directory");
    let log = log();
    let backend = Subject::backend("b");
    let mut written = 0;
    for round in 0..40 {
        for number in 0..100 {
            log.normal(&backend, "Seen", format!("{round}-{number} {}", "\u{7}".repeat(900)));
        }
        append(state.path(), &log.since(written), || log.all()).expect("it is written");
        written = log.all().last().expect("there are events").id;
    }
    let (current, previous) = files(state.path());
    for path in [current, previous] {
        assert!(EVENT_FILE.check(fs::metadata(path).expect("it is there").len()).is_ok());
    }
    assert_eq!(fs::read_dir(state.path()).expect("it is there").count(), 2);
    let kept = kept(state.path());
    assert!(kept.len() > 50, "{}", kept.len());
    assert_eq!(kept.last().expect("there are events").id, written);
}

#[test]
fn an_event_that_repeats_pushes_no_other_off_the_disk() {
    let state = TempDir::new().expect("a directory");
    let log = log();
    let backend = Subject::backend("b");
    log.warning(&backend, "Lost", "once, last night");
    let mut written = 0;
    for _ in 0..20_000 {
        log.warning(&backend, "Unhealthy", "again and again");
        append(state.path(), &log.since(written), || log.all()).expect("it is written");
        written = log.all().last().expect("there are events").id;
    }
    let counts: Vec<_> = kept(state.path()).into_iter().map(|event| (event.reason, event.count)).collect();
    assert_eq!(counts, [("Lost".to_owned(), 1), ("Unhealthy".to_owned(), 20_000)]);
}

#[test]
fn a_spoilt_id_hides_no_later_event() {
    let state = TempDir::new().expect("a directory");
    let log = log();
    log.normal(&Subject::backend("b"), "Seen", "one");
    let mut spoilt = log.all();
    spoilt[0].id = u64::MAX;
    spoilt[0].message = "spoilt".to_owned();
    append(state.path(), &spoilt, || log.all()).expect("it is written");
    append(state.path(), &log.all(), || log.all()).expect("it is written");
    let messages: Vec<_> = kept(state.path()).into_iter().map(|event| event.message).collect();
    assert_eq!(messages, ["one"]);
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_cannot_be_written_costs_no_event_once_it_can() {
    let state = TempDir::new().expect("a directory");
    let directory = state.path().join("events");
    fs::write(&directory, "a file").expect("it is written");
    let (log, backend) = (log(), Subject::backend("b"));
    life(&log, &directory, async || {
        log.normal(&backend, "Seen", "one");
        sleep(PAUSE * 3).await;
        fs::remove_file(&directory).expect("it is removed");
        sleep(RETRY * 2).await;
        assert_eq!(kept(&directory).len(), 1);
    })
    .await;
}
