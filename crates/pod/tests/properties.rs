//! Properties that hold for any input.

use std::{fs, path::Path};

use stanchion_pod::{
    decode,
    kubernetes::{Answer, Gates, judge},
    to_yaml,
};

/// Returns the recorded manifests, valid and invalid.
fn manifests() -> Vec<Vec<u8>> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/apiserver-1.36");
    let mut manifests = Vec::new();
    for folder in ["valid", "invalid", "decode", "gated"] {
        let mut paths: Vec<_> = fs::read_dir(golden.join(folder))
            .expect("the folder can be read")
            .map(|entry| entry.expect("the folder can be read").path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
            .collect();
        paths.sort();
        manifests.extend(paths.iter().map(|path| fs::read(path).expect("the manifest can be read")));
    }
    assert!(manifests.len() > 400, "{} manifests are recorded", manifests.len());
    manifests
}

/// Pseudo-random numbers that are the same every time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("31 bits are a usize") % most.max(1)
    }
}

#[test]
fn what_is_accepted_and_written_out_is_read_back_the_same() {
    let mut pods = 0;
    for gates in [Gates::default(), Gates::open()] {
        for manifest in manifests() {
            for answer in judge(&manifest, &gates).unwrap_or_default() {
                let Answer::Accepted(pod) = answer else { continue };
                let yaml = to_yaml(&pod).expect("a pod is YAML");
                // The server would merge label keys into the selectors again.
                if yaml.contains("atchLabelKeys") {
                    continue;
                }
                let json = serde_json::to_vec(&pod).expect("a pod is JSON");
                for text in [yaml.as_bytes(), &json] {
                    let again = judge(text, &gates).unwrap_or_else(|problems| panic!("{problems:?}\n{yaml}"));
                    assert!(again == [Answer::Accepted(pod.clone())], "{yaml}\n{again:#?}");
                }
                pods += 1;
            }
        }
    }
    assert!(pods > 300, "{pods} pods were written out");
}

#[test]
fn texts_that_look_like_something_else_survive() {
    let texts = [
        "y",
        "N",
        "yes",
        "Off",
        "true",
        "0644",
        "0o644",
        "0x1F",
        "0b1",
        "1_000",
        "1e3",
        "1.",
        ".5",
        "+1",
        "12:30:45",
        "~",
        "null",
        "",
        " before",
        "after ",
        "<<",
        "=",
        "2024-01-02",
        "- a",
        "a: b",
        "# c",
        "[d",
        "{e",
        "*f",
        "&g",
        "!h",
        "|",
        ">",
        "%i",
        "@j",
        "`k",
        "'",
        "\"",
        "\\",
        "l\nm\n",
        "\tn",
        "é\u{a0}日😀",
        "\u{7f}",
        "\u{1b}",
        ".inf",
        "-.NaN",
        "0648",
        "---",
        "n\n",
        "\n",
        "...",
        "1__0",
        "0.0",
        "-0",
        "1e400",
        "\u{85}",
        "\u{feff}",
    ];
    let container = serde_json::json!({ "name": "a", "image": "b", "args": &texts[..] });
    let pod = serde_json::json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "a" }, "spec": { "containers": [container] }
    });
    let manifest = decode(pod.to_string().as_bytes(), "node").expect("JSON leaves no doubt");
    let yaml = to_yaml(&*manifest.pods[0].wire).expect("a pod is YAML");
    let read = judge(yaml.as_bytes(), &Gates::default()).unwrap_or_else(|problems| panic!("{problems:?}\n{yaml}"));
    let [Answer::Accepted(read)] = &read[..] else { panic!("{read:?}\n{yaml}") };
    let read = read.spec.as_ref().expect("a pod has a spec").containers[0].args.as_deref().unwrap_or_default();
    for (text, read) in texts.iter().zip(read) {
        assert_eq!(text, read, "{yaml}");
    }
}

/// Checks that any bytes get an answer, in a time bounded by their size: otherwise the test would not end.
#[test]
fn any_bytes_are_answered() {
    let manifests = manifests();
    let mut numbers = Numbers(7);
    for _ in 0..20_000 {
        let mut bytes = manifests[numbers.below(manifests.len())].clone();
        bytes.truncate(4000);
        for _ in 0..=numbers.below(4) {
            let at = numbers.below(bytes.len());
            match numbers.below(5) {
                0 => bytes.insert(at, b"{}[]:,-&*!|>'\"%@`#?\n\t \\<~0\xff\x00"[numbers.below(28)]),
                1 => bytes.truncate(at),
                2 if !bytes.is_empty() => drop(bytes.remove(at)),
                // Inserts a piece of another manifest.
                3 => {
                    let other = &manifests[numbers.below(manifests.len())];
                    let from = numbers.below(other.len());
                    let piece = &other[from..(from + numbers.below(80)).min(other.len())];
                    drop(bytes.splice(at..at, piece.iter().copied()));
                }
                _ if !bytes.is_empty() => bytes[at] = u8::try_from(numbers.below(256)).expect("a byte"),
                _ => {}
            }
        }
        drop(decode(&bytes, "node-1"));
    }
    // On these texts the parser gives up.
    for text in
        ["[!a, b]", "!%ED%A0%80 x", "a: \"\\", "a: >\n\n\n b", "a: |", "a: |+\n", "a: '", "%TAG ! x", "- !<", "? ", "&"]
    {
        assert!(decode(text.as_bytes(), "node-1").is_err(), "{text:?} is no pod");
    }
}

#[test]
fn bombs_are_refused() {
    let refused = |text: &str| decode(text.as_bytes(), "node-1").expect_err("it is no pod")[0].message.clone();
    for open in ["[", "{", "{a: ", "- ", "? ", "&a [", "!a [", "{\"a\":["] {
        let message = refused(&open.repeat(50_000));
        assert!(["nest", "not valid", "a key must be"].iter().any(|word| message.contains(word)), "{open}: {message}");
    }
    // Each value names the one before it twice: 2^64 values.
    let mut aliases = "a0: &a0 [x, x]\n".to_owned();
    let mut merges = "a0: &a0 {x: y, z: w}\n".to_owned();
    for level in 1..64 {
        let before = level - 1;
        aliases += &format!("a{level}: &a{level} [*a{before}, *a{before}]\n");
        merges += &format!("a{level}: &a{level} {{b: *a{before}, c: *a{before}, <<: *a{before}}}\n");
    }
    for bomb in [aliases, merges] {
        let message = refused(&bomb);
        assert!(message.contains("aliases"), "{message}");
    }
    // One large value, named often.
    let mut many = format!("a: &a [{}]\nb:\n", "x,".repeat(100_000));
    many += &"- *a\n".repeat(100_000);
    assert!(refused(&many).contains("aliases"));
}
