//! Fuzzes the decoding of manifests: any bytes get an answer, and an accepted pod that is written out is read back the
//! same.

#![no_main]

use std::panic;

use libfuzzer_sys::fuzz_target;
use stanchion_pod::{
    decode,
    kubernetes::{Answer, Gates, judge},
    to_yaml,
};

/// Aborts on every panic except the YAML parser's own, which the decoder catches and reports.
fn spare_the_parsers_panics() {
    let abort = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if !info.location().is_some_and(|at| at.file().contains("libyaml-safer")) {
            abort(info);
        }
    }));
}

fuzz_target!(init: spare_the_parsers_panics(), |bytes: &[u8]| {
    drop(decode(bytes, "node-1"));
    for answer in judge(bytes, &Gates::default()).unwrap_or_default() {
        let Answer::Accepted(pod) = answer else { continue };
        let yaml = to_yaml(&pod).expect("a pod is YAML");
        // Reading it again would merge the label keys into the selectors again.
        if yaml.contains("atchLabelKeys") {
            continue;
        }
        let again = judge(yaml.as_bytes(), &Gates::default()).unwrap_or_else(|problems| panic!("{problems:?}\n{yaml}"));
        assert!(again == [Answer::Accepted(pod)], "{yaml}\n{again:#?}");
    }
});
