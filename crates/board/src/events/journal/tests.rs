//! Files of events.

use jiff::Timestamp;
use tempfile::TempDir;

use super::{
    super::{EventLog, Subject},
    *,
};

/// Returns a journal in a directory that goes with the first value.
fn journal() -> (TempDir, Journal) {
    let state = TempDir::new().expect("a directory");
    let journal = Journal::new(state.path().to_owned());
    (state, journal)
}

fn log() -> EventLog {
    EventLog::new(|| Timestamp::UNIX_EPOCH)
}

#[test]
fn an_interrupted_write_costs_its_line_only() {
    let (state, journal) = journal();
    let log = log();
    let backend = Subject::backend("b");
    log.normal(&backend, "Seen", "one");
    journal.append(&log.all(), || log.all()).expect("it is written");
    let current = state.path().join("log");
    let mut torn = fs::read(&current).expect("it is there");
    torn.truncate(torn.len() - 5);
    torn.extend(b"\nnot an event\n{\"id\":");
    fs::write(&current, torn).expect("it is written");
    log.normal(&backend, "Seen", "two");
    journal.append(&log.since(1), || log.all()).expect("it is written");
    let messages: Vec<_> = journal.read().into_iter().map(|event| event.message).collect();
    assert_eq!(messages, ["two"]);
}

#[test]
fn files_of_events_are_bounded_and_the_latest_are_kept() {
    let (state, journal) = journal();
    let log = log();
    let backend = Subject::backend("b");
    let mut written = 0;
    for round in 0..40 {
        for number in 0..100 {
            log.normal(&backend, "Seen", format!("{round}-{number} {}", "\u{7}".repeat(900)));
        }
        journal.append(&log.since(written), || log.all()).expect("it is written");
        written = log.all().last().expect("there are events").id;
    }
    let (current, previous) = journal.files();
    for path in [current, previous] {
        assert!(EVENT_FILE.check(fs::metadata(path).expect("it is there").len()).is_ok());
    }
    assert_eq!(fs::read_dir(state.path()).expect("it is there").count(), 2);
    let kept = journal.read();
    assert!(kept.len() > 50, "{}", kept.len());
    assert_eq!(kept.last().expect("there are events").id, written);
}

#[test]
fn an_event_that_repeats_pushes_no_other_off_the_disk() {
    let (_state, journal) = journal();
    let log = log();
    let backend = Subject::backend("b");
    log.warning(&backend, "Lost", "once, last night");
    let mut written = 0;
    for _ in 0..20_000 {
        log.warning(&backend, "Unhealthy", "again and again");
        journal.append(&log.since(written), || log.all()).expect("it is written");
        written = log.all().last().expect("there are events").id;
    }
    let counts: Vec<_> = journal.read().into_iter().map(|event| (event.reason, event.count)).collect();
    assert_eq!(counts, [("Lost".to_owned(), 1), ("Unhealthy".to_owned(), 20_000)]);
}

#[test]
fn a_spoilt_id_hides_no_later_event() {
    let (_state, journal) = journal();
    let log = log();
    log.normal(&Subject::backend("b"), "Seen", "one");
    let mut spoilt = log.all();
    spoilt[0].id = u64::MAX;
    spoilt[0].message = "spoilt".to_owned();
    journal.append(&spoilt, || log.all()).expect("it is written");
    journal.append(&log.all(), || log.all()).expect("it is written");
    let messages: Vec<_> = journal.read().into_iter().map(|event| event.message).collect();
    assert_eq!(messages, ["one"]);
}
