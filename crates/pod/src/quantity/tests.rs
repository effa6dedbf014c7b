use super::*;

fn shown(text: &str) -> String {
    Quantity::parse(text).map_or_else(|error| format!("{error:?}"), |it| it.round_up_to_milli().to_string())
}

#[test]
fn quantities_are_printed_as_the_api_server_prints_them() {
    for (text, expected) in [
        ("500m", "500m"),
        ("1000m", "1"),
        ("0.5", "500m"),
        ("1.5", "1500m"),
        ("1.5Gi", "1536Mi"),
        ("1024Ki", "1Mi"),
        ("1000k", "1M"),
        ("1048576", "1048576"),
        ("1000000", "1M"),
        ("1.", "1."),
        ("+.5", "500m"),
        ("0", "0"),
        ("0.100", "100m"),
        ("128E", "128E"),
        ("5e3", "5e3"),
        ("12e-1", "1200e-3"),
        ("2000000n", "2m"),
        ("1n", "1m"),
        ("0.1m", "1m"),
        ("100.2", "100200m"),
        ("-1", "-1"),
        ("6Ei", "6Ei"),
        ("16Ei", "9223372036854775807"),
        ("0.5Ki", "512"),
        ("0.1Ki", "102400m"),
        ("007", "007"),
        ("00", "0"),
        ("+5", "+5"),
        (".", "0"),
        ("8Ki", "8Ki"),
        ("", "Format"),
        ("one", "Format"),
        ("1GB", "Format"),
        ("1Xi", "Format"),
        ("1ki", "Suffix"),
        ("1e", "Suffix"),
        ("1mm", "Suffix"),
    ] {
        assert_eq!(shown(text), expected, "R-DEF-1: {text:?}");
    }
}

#[test]
fn quantities_are_compared_and_added() {
    let read = |text| Quantity::parse(text).expect("a quantity");
    assert!(read("1Mi") > read("1M") && read("1000m") == read("1") && read("1e30") > read("5"));
    assert_eq!(read("100Mi").plus(&read("28Mi")).to_string(), "128Mi");
    assert_eq!(read("10m").plus(&read("1")).to_string(), "1010m");
    assert_eq!((read("1.5").milli(), read("1u").milli(), read("-1").milli()), (Some(1500), Some(1), None));
    assert!(read("4Mi").is_multiple_of(&read("2Mi")) && !read("3Mi").is_multiple_of(&read("2Mi")));
    assert!(read("2k").is_whole() && read("1000m").is_whole() && !read("1.5").is_whole());
}
