//! Runs the logger as the shim does: with the container's output on descriptors 3 and 4, and 5 to say "ready".

mod shim;

use std::{
    fs,
    io::Write,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    process::{Command, Stdio},
};

use shim::{Line, Logger, SmallDisk, logs_in, read};

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn texts(lines: &[Line], stream: &str) -> Vec<String> {
    lines.iter().filter(|line| line.stream == stream).map(|line| line.text.clone()).collect()
}

// R-LOG-3.
#[test]
fn lines_come_with_time_stream_and_tag() {
    let dir = dir();
    let path = dir.path().join("0.log");
    let mut logger = Logger::start(&path, &[]);
    logger.out("one\n\ntwo\n");
    logger.err("three\n");
    logger.end();
    let lines = read(&path);
    assert_eq!(texts(&lines, "stdout"), ["one", "", "two"]);
    assert_eq!(texts(&lines, "stderr"), ["three"]);
    for line in lines {
        assert_eq!(line.tag, "F");
        // RFC 3339 in UTC with nanoseconds: 2026-11-23T21:15:30.123456789Z
        let form: String = line.time.chars().map(|char| if char.is_ascii_digit() { '0' } else { char }).collect();
        assert_eq!(form, "0000-00-00T00:00:00.000000000Z");
    }
}

#[test]
fn bytes_that_are_no_text_pass_unchanged() {
    let dir = dir();
    let path = dir.path().join("0.log");
    let logger = Logger::start(&path, &[]);
    logger.stdout.as_ref().expect("open").write_all(b"\xff\x00\r\n").expect("written");
    logger.end();
    assert!(fs::read(&path).expect("the log").ends_with(b" stdout F \xff\x00\r\n"));
}

// R-LOG-3.
#[test]
fn long_lines_come_in_parts_of_16_kib() {
    const PART: usize = 16 * 1024;
    for (length, parts) in [
        (PART - 1, vec![("F", PART - 1)]),
        (PART, vec![("F", PART)]),
        (PART + 1, vec![("P", PART), ("F", 1)]),
        (2 * PART, vec![("P", PART), ("F", PART)]),
        (5 * PART + 7, vec![("P", PART), ("P", PART), ("P", PART), ("P", PART), ("P", PART), ("F", 7)]),
    ] {
        let dir = dir();
        let path = dir.path().join("0.log");
        let mut logger = Logger::start(&path, &[]);
        let long: String = "0123456789".chars().cycle().take(length).collect();
        logger.out(&format!("{long}\nnext\n"));
        logger.end();
        let mut lines = read(&path);
        assert_eq!(lines.pop().map(|line| (line.tag, line.text)), Some(("F".to_owned(), "next".to_owned())));
        let found: Vec<_> = lines.iter().map(|line| (line.tag.as_str(), line.text.len())).collect();
        assert_eq!(found, parts, "a line of {length} bytes");
        assert_eq!(texts(&lines, "stdout").concat(), long);
    }
}

#[test]
fn a_line_may_come_in_many_writes_and_end_with_the_stream() {
    let dir = dir();
    let path = dir.path().join("0.log");
    let mut logger = Logger::start(&path, &[]);
    for byte in ["h", "e", "l", "l", "o", "\n", "no ", "end"] {
        logger.out(byte);
    }
    logger.end();
    let lines = read(&path);
    assert_eq!(texts(&lines, "stdout"), ["hello", "no end"]);
    assert!(lines.iter().all(|line| line.tag == "F"));
}

#[test]
fn streams_never_mix_within_a_line() {
    let dir = dir();
    let path = dir.path().join("0.log");
    let logger = Logger::start(&path, &[]);
    let (out, err) = (logger.stdout.as_ref().expect("open"), logger.stderr.as_ref().expect("open"));
    let write = |mut to: &std::io::PipeWriter, word: &str| {
        for number in 0..20_000 {
            writeln!(to, "{word} {number} {}", word.repeat(number % 40)).expect("the logger reads");
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| write(out, "out"));
        write(err, "err");
    });
    logger.end();
    let lines = read(&path);
    for (stream, word) in [("stdout", "out"), ("stderr", "err")] {
        let expected = (0..20_000).map(|number| format!("{word} {number} {}", word.repeat(number % 40)));
        assert!(texts(&lines, stream).into_iter().eq(expected), "{stream} came back whole and in order");
    }
}

// R-LOG-5.
#[test]
fn the_file_is_rotated_before_it_is_too_long_and_the_oldest_goes() {
    let dir = dir();
    let path = dir.path().join("0.log");
    let other = dir.path().join("0.log.bak");
    fs::write(&other, "nobody's business").expect("written");
    let mut logger = Logger::start(&path, &["max-size", "1000", "max-files", "3"]);
    let expected: Vec<_> = (0..200).map(|number| format!("line {number:03}")).collect();
    logger.out(&format!("{}\n", expected.join("\n")));
    logger.end();
    let files = logs_in(dir.path());
    assert_eq!(files.len(), 3, "{files:?}");
    assert_eq!(files.last(), Some(&path));
    let mut lines = Vec::new();
    for file in &files {
        let size = file.metadata().expect("it is there").size();
        assert!(size <= 1000, "{} has {size} bytes", file.display());
        lines.extend(texts(&read(file), "stdout"));
    }
    // Rotated in the same second: names still sort by age, and no file was overwritten.
    assert!(expected.ends_with(&lines) && lines.len() > 40, "{lines:?}");
    assert!(other.exists());
}

// R-LOG-6.
#[test]
fn rotated_files_are_named_as_kubelet_does() {
    let dir = dir();
    let path = dir.path().join("3.log");
    let mut logger = Logger::start(&path, &["max-size", "100"]);
    logger.out(&"some words\n".repeat(3));
    logger.end();
    let files = logs_in(dir.path());
    let rotated = files[0].file_name().expect("a name").to_str().expect("text");
    let form: String = rotated.chars().map(|char| if char.is_ascii_digit() { '0' } else { char }).collect();
    assert_eq!(form, "0.log.00000000-000000");
}

#[test]
fn a_line_longer_than_a_file_gets_a_file_of_its_own() {
    let dir = dir();
    let path = dir.path().join("0.log");
    let mut logger = Logger::start(&path, &["max-size", "100"]);
    let long = "x".repeat(500);
    logger.out(&format!("a\n{long}\nb\n"));
    logger.end();
    let files = logs_in(dir.path());
    let lines: Vec<_> = files.iter().map(|file| texts(&read(file), "stdout")).collect();
    assert_eq!(lines, [vec!["a".to_owned()], vec![long], vec!["b".to_owned()]]);
}

#[test]
fn an_existing_file_is_continued() {
    let dir = dir();
    let path = dir.path().join("0.log");
    for text in ["first\n", "second\n"] {
        let mut logger = Logger::start(&path, &["max-size", "100"]);
        logger.out(text);
        logger.end();
    }
    assert_eq!(texts(&read(&path), "stdout"), ["first", "second"]);
    let mut logger = Logger::start(&path, &["max-size", "100"]);
    logger.out("third\n");
    logger.end();
    assert_eq!(logs_in(dir.path()).len(), 2, "what was there counts towards the limit");
}

#[test]
fn ready_means_that_the_file_is_there_for_its_group_only() {
    let dir = dir();
    let path = dir.path().join("missing/too/0.log");
    let logger = Logger::start(&path, &[]);
    // `start` has waited until descriptor 5 was closed, and nothing has been written yet.
    assert_eq!(path.metadata().expect("the log file").permissions().mode() & 0o777, 0o640);
    let parent = path.parent().expect("a directory").metadata().expect("the directory");
    assert_eq!(parent.permissions().mode() & 0o777, 0o755);
    logger.end();
}

#[test]
fn it_ends_only_when_both_streams_have_ended() {
    let dir = dir();
    let path = dir.path().join("0.log");
    let mut logger = Logger::start(&path, &[]);
    logger.stdout = None;
    logger.signal("TERM");
    logger.signal("HUP");
    logger.signal("INT");
    // Far more than a pipe holds: the logger must read it.
    logger.err(&"still here\n".repeat(30_000));
    logger.end();
    assert_eq!(texts(&read(&path), "stderr").len(), 30_000);
}

#[test]
fn a_killed_writer_ends_its_stream() {
    let dir = dir();
    let path = dir.path().join("0.log");
    let mut logger = Logger::start(&path, &[]);
    let stdout = Stdio::from(logger.stdout.take().expect("open"));
    let mut container = Command::new("sh");
    container.args(["-c", "printf 'last words'; kill -9 $$"]).stdout(stdout);
    let status = container.status().expect("sh runs");
    assert!(!status.success());
    drop(container);
    logger.end();
    assert_eq!(texts(&read(&path), "stdout"), ["last words"]);
}

#[test]
fn a_full_disk_costs_lines_but_stops_nobody() {
    let Some(disk) = SmallDisk::mount(1 << 20) else { return };
    let path = disk.path().join("0.log");
    let mut logger = Logger::start(&path, &[]);
    logger.out("before\n");
    logger.end();
    let mut logger = Logger::start(&path, &[]);
    let filler = disk.fill();
    // More than the pipe and the buffers hold: once it is written, the logger has read lines that it could not write.
    logger.out(&"lost perhaps\n".repeat(40_000));
    fs::remove_file(filler).expect("the disk has room again");
    logger.out("after\n");
    logger.end();

    let lines = read(&path);
    let mut kept = 0;
    let mut lost = 0;
    for line in &lines {
        match line.text.strip_prefix("stanchion-logger: ").and_then(|notice| notice.split_once(" lines of output ")) {
            Some((count, rest)) => {
                lost += count.parse::<usize>().expect("a number of lines");
                assert!(rest.contains("No space left on device"), "{rest}");
            }
            None => kept += 1,
        }
    }
    assert_eq!(kept + lost, 40_002, "every line is in the log or accounted for");
    assert!(lost > 30_000);
    assert_eq!(lines.first().map(|line| line.text.as_str()), Some("before"));
    assert_eq!(lines.last().map(|line| line.text.as_str()), Some("after"));
}

#[test]
fn a_directory_that_cannot_be_made_delays_no_container() {
    let dir = dir();
    let file = dir.path().join("file");
    fs::write(&file, "in the way").expect("written");
    let mut logger = Logger::start(&file.join("0.log"), &[]);
    logger.out(&"nobody keeps this\n".repeat(20_000));
    logger.end();
    assert_eq!(fs::read_to_string(&file).expect("untouched"), "in the way");
}

#[test]
fn wrong_arguments_let_the_container_run() {
    let mut logger = Logger::start(Path::new("relative.log"), &[]);
    logger.out(&"nobody keeps this\n".repeat(20_000));
    assert_eq!(logger.end_code(), Some(2));
}

#[test]
fn without_its_descriptors_it_says_what_it_is() {
    let output = Command::new(env!("CARGO_BIN_EXE_stanchion-logger")).output().expect("it runs");
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).expect("text");
    assert!(text.contains("descriptor 3 (stdout) is not open"), "{text}");
}

#[test]
fn it_stays_small() {
    let dir = dir();
    // A second logger, as on a node with more than one container: all of them share the program's pages.
    let other = Logger::start(&dir.path().join("other.log"), &[]);
    let path = dir.path().join("0.log");
    let mut logger = Logger::start(&path, &["max-size", "100000"]);
    println!("private memory of an idle logger: {} KiB", private_kib(&logger));
    logger.out(&"a line like many others\n".repeat(100_000));
    logger.err(&"another line\n".repeat(100_000));
    let private = private_kib(&logger);
    println!("private memory of one logger: {private} KiB");
    assert!(private < 400, "private memory is {private} KiB");
    logger.end();
    other.end();
}

/// Returns the logger's memory that no other process shares, KiB.
fn private_kib(logger: &Logger) -> u64 {
    let smaps = fs::read_to_string(format!("/proc/{}/smaps_rollup", logger.pid())).expect("its memory map");
    let private = smaps.lines().filter(|line| line.starts_with("Private_"));
    private.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum()
}
