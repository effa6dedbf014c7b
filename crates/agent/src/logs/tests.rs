use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use tempfile::TempDir;

use super::*;

const TIME: &str = "2026-01-01T00:00:00.000000001Z";

/// A logger that rotates its log on request.
struct Logger {
    directory: TempDir,
    rotations: u32,
}

impl Logger {
    fn new() -> Self {
        let logger = Self { directory: tempfile::tempdir().expect("a directory"), rotations: 0 };
        logger.write(b"");
        logger
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("0.log")
    }

    fn rotated(&self, number: u32) -> PathBuf {
        self.directory.path().join(format!("0.log.20260101-{number:06}"))
    }

    fn write(&self, bytes: &[u8]) {
        let mut file = File::options().append(true).create(true).open(self.path()).expect("it is ours");
        file.write_all(bytes).expect("written");
    }

    fn lines(&self, numbers: std::ops::Range<u32>) {
        numbers.for_each(|number| self.write(format!("{TIME} stdout F line {number}\n").as_bytes()));
    }

    fn rotate(&mut self) {
        fs::rename(self.path(), self.rotated(self.rotations)).expect("renamed");
        self.rotations += 1;
        self.write(b"");
    }

    fn open(&self, options: LogOptions, is_followed: bool) -> Log {
        Log::open(&self.path(), options, is_followed).expect("it is there")
    }
}

fn lines(numbers: std::ops::Range<u32>) -> String {
    numbers.map(|number| format!("line {number}\n")).collect()
}

/// Reads everything that is there now.
fn read(log: &mut Log) -> String {
    let mut all = Vec::new();
    while let Some(piece) = log.read().expect("it is readable") {
        all.extend(piece);
    }
    String::from_utf8(all).expect("text")
}

fn whole(path: &Path, options: LogOptions) -> Vec<u8> {
    let mut log = Log::open(path, options, false).expect("it is there");
    let mut all = Vec::new();
    while let Some(piece) = log.read().expect("it is readable") {
        all.extend(piece);
    }
    all.extend(log.release());
    all
}

// R-LOG-8, R-LOG-9.
#[test]
fn each_line_is_followed_once_across_rotations() {
    let mut logger = Logger::new();
    logger.lines(0..2);
    let mut log = logger.open(LogOptions::default(), true);
    assert_eq!(read(&mut log), lines(0..2));
    assert_eq!(read(&mut log), "");
    for number in 2..5 {
        logger.lines(number..number + 1);
        assert_eq!(read(&mut log), lines(number..number + 1));
    }
    // Written between the last read and the rotation.
    logger.lines(5..6);
    logger.rotate();
    assert_eq!(read(&mut log), lines(5..6));
    // Several rotations between two reads.
    for number in 6..10 {
        logger.lines(number..number + 1);
        logger.rotate();
    }
    logger.lines(10..11);
    assert_eq!(read(&mut log), lines(6..11));
    // The current file is not there yet.
    logger.lines(11..12);
    fs::rename(logger.path(), logger.rotated(50)).expect("renamed");
    assert_eq!(read(&mut log), lines(11..12));
    logger.lines(12..13);
    assert_eq!(read(&mut log), lines(12..13));
}

#[test]
fn a_file_that_is_gone_before_it_was_read_is_said_and_passed_over() {
    let gap = "stanchion: lines may be missing here: the log was rotated faster than it was read\n";
    let mut logger = Logger::new();
    logger.lines(0..1);
    let mut log = logger.open(LogOptions::default(), true);
    assert_eq!(read(&mut log), lines(0..1));
    // A file that is held open is read to its end, even after it was rotated and removed.
    logger.lines(1..2);
    for number in 2..5 {
        logger.rotate();
        logger.lines(number..number + 1);
    }
    fs::remove_file(logger.rotated(0)).expect("it is there");
    fs::remove_file(logger.rotated(1)).expect("it is there");
    assert_eq!(read(&mut log), format!("{}{gap}{}", lines(1..2), lines(3..5)));
    // A file is found, and gone before it is read.
    let mut log = logger.open(LogOptions::default(), true);
    logger.rotate();
    fs::remove_file(logger.rotated(2)).expect("it is there");
    assert_eq!(read(&mut log), lines(4..5), "what is gone before the first line is not missed");
    // Another program truncates the log.
    logger.lines(5..9);
    assert_eq!(read(&mut log), lines(5..9));
    File::options().write(true).open(logger.path()).and_then(|file| file.set_len(0)).expect("cut");
    logger.lines(9..10);
    assert_eq!(read(&mut log), lines(9..10));
}

// R-LOG-3, R-LOG-7, R-LOG-9.
#[test]
fn partial_lines_rotated_files_and_tails_are_read() {
    let mut logger = Logger::new();
    logger.write(format!("{TIME} stdout F one\n{TIME} stdout P t").as_bytes());
    logger.write(b"\n");
    logger.rotate();
    logger.write(
        format!("{TIME} stdout P w\n{TIME} stdout F o\n{TIME} stderr F three\n{TIME} stdout F unfin").as_bytes(),
    );
    let text = |options: LogOptions| String::from_utf8(whole(&logger.path(), options)).expect("text");
    assert_eq!(text(LogOptions::default()), "one\ntwo\nthree\n");
    let tail = |tail: usize| LogOptions { tail: Some(tail), ..LogOptions::default() };
    for (lines, expected) in
        [(0, ""), (1, "three\n"), (2, "two\nthree\n"), (3, "one\ntwo\nthree\n"), (usize::MAX, "one\ntwo\nthree\n")]
    {
        assert_eq!(text(tail(lines)), expected, "R-LOG-7: {lines}");
    }
    assert_eq!(text(LogOptions { timestamps: true, ..tail(1) }), format!("{TIME} three\n"));
    let since = "2026-01-02T00:00:00Z".parse().ok();
    assert_eq!(text(LogOptions { since, ..LogOptions::default() }), "");
    // A followed tail goes on with new lines.
    let mut log = logger.open(tail(1), true);
    assert_eq!(read(&mut log), "three\n");
    logger.write(b"ished\n");
    assert_eq!(read(&mut log), "unfinished\n");
    logger.rotate();
    logger.lines(0..1);
    assert_eq!(read(&mut log), lines(0..1));
}

/// Pseudo-random numbers, the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }
}

/// Writes as the logger does, in parts of 16 KiB at most, and as a program does: both streams at once, any bytes.
#[test]
fn what_is_read_is_what_was_written_however_it_is_rotated() {
    const PART: usize = 16 << 10;
    for seed in 0..12 {
        let (mut logger, mut numbers) = (Logger::new(), Numbers(seed));
        let mut followed = logger.open(LogOptions::default(), true);
        let (mut seen, mut by_stream) = (Vec::new(), [Vec::new(), Vec::new()]);
        // The rest of each stream's line, which is not written yet.
        let mut pending: [Vec<u8>; 2] = [Vec::new(), Vec::new()];
        for round in 0.. {
            let mut stream = usize::from(numbers.below(3) == 0);
            if round >= 400 {
                // Ends the lines that were begun.
                match pending.iter().position(|line| !line.is_empty()) {
                    Some(begun) => stream = begun,
                    None => break,
                }
            }
            if pending[stream].is_empty() {
                let length = match numbers.below(20) {
                    0 => 250_011,
                    1..4 => PART * usize::try_from(numbers.below(4)).expect("small"),
                    _ => usize::try_from(numbers.below(300)).expect("small"),
                };
                let first = [0x00, 0xff, b'a'][stream];
                pending[stream] = (0..length).map(|at| if at % 7 == 0 { first } else { 0xe2 }).collect();
                pending[stream].push(b'\n');
            }
            let line = &mut pending[stream];
            let (tag, part) = match line.len() - 1 {
                length if length > PART => ("P", line.drain(..PART).collect::<Vec<_>>()),
                _ => ("F", std::mem::take(line)),
            };
            by_stream[stream].extend_from_slice(&part);
            let name = ["stdout", "stderr"][stream];
            let text = part.strip_suffix(b"\n").unwrap_or(&part);
            logger.write(&[format!("{TIME} {name} {tag} ").as_bytes(), text, b"\n"].concat());
            if numbers.below(8) == 0 {
                logger.rotate();
            }
            if numbers.below(5) == 0 {
                while let Some(piece) = followed.read().expect("it is readable") {
                    seen.extend(piece);
                }
            }
        }
        while let Some(piece) = followed.read().expect("it is readable") {
            seen.extend(piece);
        }
        seen.extend(followed.release());
        let all = whole(&logger.path(), LogOptions::default());
        assert!(seen == all, "seed {seed}: followed, it is another text");
        assert_eq!(all.len(), by_stream[0].len() + by_stream[1].len(), "seed {seed}");
        // A line's first byte shows its stream; empty lines have none.
        let of = |first: u8| {
            let lines = all.split_inclusive(|byte| *byte == b'\n').filter(|line| line[0] == first);
            lines.flatten().copied().collect::<Vec<_>>()
        };
        for (stream, first) in [0x00, 0xff].into_iter().enumerate() {
            let lines = by_stream[stream].split_inclusive(|byte| *byte == b'\n').filter(|line| line[0] == first);
            let expected: Vec<u8> = lines.flatten().copied().collect();
            assert!(of(first) == expected, "seed {seed}: stream {stream} is not what was written");
        }
        // Which lines are last depends on how the streams interleave: they are only counted.
        let last = whole(&logger.path(), LogOptions { tail: Some(5), ..LogOptions::default() });
        assert_eq!(last.split_inclusive(|byte| *byte == b'\n').count(), 5, "seed {seed}");
    }
}

// R-LOG-8.
#[tokio::test]
async fn a_followed_log_ends_after_all_that_its_container_left() {
    let logger = Logger::new();
    logger.lines(0..3);
    let ended = AtomicBool::new(false);
    let (to, mut pieces) = mpsc::channel(1);
    let log = logger.open(LogOptions::default(), true);
    let mut got = Vec::new();
    let copied = async {
        copy(log, || ended.load(Ordering::Relaxed), &to).await;
        drop(to);
    };
    let received = async {
        while let Some(piece) = pieces.recv().await {
            got.extend(piece.expect("it is readable"));
            if got == lines(0..3).as_bytes() {
                // The container has ended; its logger writes the rest.
                ended.store(true, Ordering::Relaxed);
                logger.lines(3..5);
            }
        }
    };
    tokio::join!(copied, received);
    assert_eq!(String::from_utf8_lossy(&got), lines(0..5));
}

#[test]
fn the_end_of_a_text_is_its_last_lines_and_bytes() {
    for (text, lines, bytes, expected) in [
        ("a\nb\nc\n", 2, 100, "b\nc\n"),
        ("a\nb\nc", 1, 100, "c"),
        ("a\nb\nc\n", 9, 4, "b\nc\n"),
        ("a\nb\nc\n", 9, 3, "\nc\n"),
        ("", 9, 3, ""),
        ("a\n", 0, 3, ""),
    ] {
        let mut end = LastLines::new(lines, bytes);
        text.bytes().for_each(|byte| end.add(&[byte]));
        assert_eq!(end.finish(), expected.as_bytes(), "{text:?}, {lines} lines, {bytes} bytes");
    }
}
