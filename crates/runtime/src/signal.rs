//! Parser for the signals in an image's `STOPSIGNAL`.

/// Names and numbers of Linux's signals, with `RTMIN` as the only realtime one (signal(7)).
const NAMES: [(&str, i32); 36] = [
    ("ABRT", 6),
    ("ALRM", 14),
    ("BUS", 7),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("FPE", 8),
    ("HUP", 1),
    ("ILL", 4),
    ("INT", 2),
    ("IO", 29),
    ("IOT", 6),
    ("KILL", 9),
    ("PIPE", 13),
    ("POLL", 29),
    ("PROF", 27),
    ("PWR", 30),
    ("QUIT", 3),
    ("SEGV", 11),
    ("STKFLT", 16),
    ("STOP", 19),
    ("SYS", 31),
    ("TERM", 15),
    ("TRAP", 5),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("UNUSED", 31),
    ("URG", 23),
    ("USR1", 10),
    ("USR2", 12),
    ("VTALRM", 26),
    ("WINCH", 28),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("RTMIN", REALTIME.0),
];

/// First and last realtime signal for programs: C libraries reserve two below.
const REALTIME: (i32, i32) = (34, 64);

/// Returns the number of a signal in the notation of `STOPSIGNAL`: a number, or a name in any case, with or without
/// `SIG`, e.g. `SIGQUIT`, `quit`, `RTMIN+3`, `SIGRTMAX-1`. `None` if there is no such signal.
///
/// ```
/// use stanchion_runtime::signal::number;
///
/// assert_eq!(number("SIGRTMIN+3"), Some(37));
/// assert_eq!(number("SIGNOTHING"), None);
/// ```
#[must_use]
pub fn number(name: &str) -> Option<i32> {
    let name = name.trim().to_ascii_uppercase();
    if let Ok(number) = name.parse() {
        return Some(number).filter(|number| (1..=REALTIME.1).contains(number));
    }
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let digits = |text: &str| text.parse::<u8>().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
    let found = match (name.strip_prefix("RTMIN+"), name.strip_prefix("RTMAX")) {
        (Some(above), _) => Some(REALTIME.0 + i32::from(digits(above)?)),
        (_, Some("")) => Some(REALTIME.1),
        (_, Some(below)) => Some(REALTIME.1 - i32::from(digits(below.strip_prefix('-')?)?)),
        (None, None) => NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number),
    };
    found.filter(|number| !name.starts_with("RT") || (REALTIME.0..=REALTIME.1).contains(number))
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn signals_are_names_or_numbers() {
        for (name, expected) in [
            ("15", 15),
            ("64", 64),
            ("SIGQUIT", 3),
            ("INT", 2),
            ("quit", 3),
            ("sigUsr1", 10),
            ("SIGRTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("rtmin+30", 64),
            ("RTMAX-1", 63),
            ("sigrtmax", 64),
            ("RTMAX-30", 34),
            ("SIGWINCH", 28),
            ("SIGPWR", 30),
        ] {
            assert_eq!(number(name), Some(expected), "{name}");
        }
        for name in [
            "",
            "0",
            "65",
            "-1",
            "SIGNOTHING",
            "SIG15",
            "RTMIN+31",
            "RTMAX-31",
            "RTMIN-1",
            "RTMAX+1",
            "RTMIN++3",
            "SIG",
        ] {
            assert_eq!(number(name), None, "{name}");
        }
    }
}
