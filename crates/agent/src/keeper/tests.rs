//! Events that outlive the agent.

use std::{fs, path::Path};

use jiff::Timestamp;
use stanchion_board::{Subject, view::EventView};
use tempfile::TempDir;

use super::*;

fn log() -> Arc<EventLog> {
    Arc::new(EventLog::new(|| Timestamp::UNIX_EPOCH))
}

fn kept(directory: &Path) -> Vec<EventView> {
    Journal::new(directory.to_owned()).read()
}

/// Runs the keeper of a log in `directory` while `during` runs, as one run of an agent.
async fn run(log: &Arc<EventLog>, directory: &Path, during: impl AsyncFnOnce()) {
    let shutdown = CancellationToken::new();
    let keeper = Keeper::open(Arc::clone(log), Journal::new(directory.to_owned())).await.run(shutdown.clone());
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
    run(&first, &directory, async || {
        first.normal(&backend, "Seen", "one");
        first.warning(&backend, "Lost", "two");
        sleep(PAUSE * 3).await;
        first.normal(&backend, "Seen", "one");
    })
    .await;
    run(&second, &directory, async || {
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
    run(&first, state.path(), async || first.normal(&backend, "Seen", "one")).await;
    second.normal(&backend, "Seen", "early");
    run(&second, state.path(), async || sleep(PAUSE).await).await;
    assert_eq!(messages(&second), [(1, "one".to_owned(), 1), (2, "early".to_owned(), 1)]);
    assert_eq!(kept(state.path()).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_cannot_be_written_costs_no_event_once_it_can() {
    let state = TempDir::new().expect("a directory");
    let directory = state.path().join("events");
    fs::write(&directory, "a file").expect("it is written");
    let (log, backend) = (log(), Subject::backend("b"));
    run(&log, &directory, async || {
        log.normal(&backend, "Seen", "one");
        sleep(PAUSE * 3).await;
        fs::remove_file(&directory).expect("it is removed");
        sleep(RETRY * 2).await;
        assert_eq!(kept(&directory).len(), 1);
    })
    .await;
}
