//! Bounds of memory: small files that expand to much, and large files with many problems.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    fmt::Write as _,
};

use stanchion_pod::{Problem, decode};

/// Allocator that counts the memory of each thread, so that parallel tests do not count for one another.
struct Counting;

thread_local! {
    static HELD: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

#[allow(unsafe_code, reason = "an allocator is unsafe by its trait")]
// SAFETY: every call goes to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (held, most) = HELD.get();
        HELD.set((held + layout.size(), most.max(held + layout.size())));
        // SAFETY: the caller keeps the contract of `GlobalAlloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        let (held, most) = HELD.get();
        HELD.set((held.saturating_sub(layout.size()), most));
        // SAFETY: the caller keeps the contract of `GlobalAlloc`.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Returns the problems of a manifest, and the most memory that was held while it was decoded, MiB.
fn refused(text: &str) -> (Vec<Problem>, usize) {
    HELD.set((0, 0));
    let problems = decode(text.as_bytes(), "node-1").map(|manifest| manifest.pods.len()).expect_err("it is refused");
    (problems, HELD.get().1 >> 20)
}

/// Checks that a small manifest is refused with `words` in a problem, and in little memory.
fn is_refused_cheaply(what: &str, text: &str, words: &str) {
    assert!(text.len() < 3 << 20, "{what}: the manifest is small");
    let (problems, mib) = refused(text);
    assert!(problems.iter().any(|problem| problem.message.contains(words)), "{what}: {:.300}", format!("{problems:?}"));
    assert!(mib < 150, "{what}: {mib} MiB were held");
    let longest = problems.iter().map(|problem| problem.to_string().len()).max().unwrap_or_default();
    assert!(longest < 6000, "{what}: a problem has {longest} bytes");
}

const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n";

#[test]
fn aliases_are_weighed_by_what_they_stand_for() {
    let long = "x".repeat(100_000);
    let aliases = "*a, ".repeat(3000);
    let containers = format!("{POD}  containers: [{{name: c, image: i, args: [");
    let keys: String = (0..3000).fold(String::new(), |keys, key| keys + &format!("{{*a : {key}}}, "));
    let words = "with its aliases (*name) written out it has more than 20 MiB";
    is_refused_cheaply("values", &format!("{containers}&a {long}, {aliases}]}}]"), words);
    is_refused_cheaply("quoted", &format!("{containers}&a '{long}', {aliases}]}}]"), words);
    is_refused_cheaply("keys", &format!("x: &a {long}\n{POD}  y: [{keys}]"), words);
    let merged = "{<<: *a}, ".repeat(3000);
    is_refused_cheaply("merge keys", &format!("x: &a {{? {long} : 1}}\n{POD}  y: [{merged}]"), words);
    let lists = "{<<: [*a, *a, *a]}, ".repeat(1000);
    is_refused_cheaply("lists of merge keys", &format!("x: &a {{? {long} : 1}}\n{POD}  y: [{lists}]"), words);
    let nested = (1..12).fold(format!("a0: &a0 [{long}]\n"), |text, level| {
        let before = level - 1;
        text + &format!("a{level}: &a{level} [*a{before}, *a{before}]\n")
    });
    is_refused_cheaply("nested", &format!("{nested}{POD}"), words);
    let items = format!("&a {}, {}", "x".repeat(10_000), "*a, ".repeat(50));
    let documents = format!("{POD}  containers: [{{name: c, image: i, args: [{items}]}}]\n---\n").repeat(60);
    is_refused_cheaply("many documents", &documents, words);
    let folded = format!("x: &a |\n  {long}\n{POD}  y: [{aliases}]");
    is_refused_cheaply("blocks", &folded, words);
    // No alias names these anchors, but each value is kept for one.
    let anchors: String = (0..90).fold(String::new(), |text, level| text + &format!("&a{level} ["));
    is_refused_cheaply("anchors", &format!("x: {anchors}{}{}\n{POD}", "x".repeat(1_000_000), "]".repeat(90)), words);
    let tags = format!("%TAG !e! {}\n---\nx: [{}]", "t".repeat(1_000_000), "!e!a b, ".repeat(100_000));
    is_refused_cheaply("tags", &tags, "%TAG");
}

#[test]
fn what_stands_once_and_is_said_often_is_bounded() {
    let large = "x".repeat(200_000);
    let words = "its references to its own fields and variables stand for more than 16 MiB";
    let env = "{name: E, valueFrom: {fieldRef: {fieldPath: 'metadata.annotations[''x'']'}}}, ".repeat(1000);
    let head = format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: a, annotations: {{x: {large}}}}}\nspec:\n");
    is_refused_cheaply("env", &format!("{head}  containers: [{{name: c, image: i, env: [{env}]}}]"), words);
    let items: String = (0..1000).fold(String::new(), |items, file| {
        items + &format!("{{path: f{file}, fieldRef: {{fieldPath: 'metadata.annotations[''x'']'}}}}, ")
    });
    let volumes = format!(
        "{head}  containers: [{{name: c, image: i}}]\n  volumes: [{{name: v, downwardAPI: {{items: [{items}]}}}}]"
    );
    is_refused_cheaply("files", &volumes, words);
    let command = "$(A), ".repeat(1000);
    let probe = format!(
        "{POD}  containers: [{{name: c, image: i, env: [{{name: A, value: {large}}}], livenessProbe: {{exec: {{command: [{command}]}}}}}}]"
    );
    is_refused_cheaply("probes", &probe, words);
    let containers: String =
        (0..2000).fold(String::new(), |all, number| all + &format!("{{name: c{number}, image: i}}, "));
    let context =
        format!("{POD}  securityContext: {{seLinuxOptions: {{level: {large}}}}}\n  containers: [{containers}]");
    is_refused_cheaply("inherited", &context, words);
    let keys = "l, ".repeat(100_000);
    let spread = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: a, labels: {{l: {large}}}}}\nspec:\n  containers: [{{name: c, image: i}}]\n  \
         topologySpreadConstraints: [{{maxSkew: 1, topologyKey: a, whenUnsatisfiable: DoNotSchedule, labelSelector: {{}}, matchLabelKeys: [{keys}]}}]"
    );
    is_refused_cheaply("label keys", &spread, "must be no more than 63");
    let keys = "l, ".repeat(400_000);
    for length in [63, 1000] {
        let label = "x".repeat(length);
        let spread = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: a, labels: {{l: {label}}}}}\nspec:\n  containers: [{{name: c, image: i}}]\n  \
             topologySpreadConstraints: [{{maxSkew: 1, topologyKey: a, whenUnsatisfiable: DoNotSchedule, labelSelector: {{}}, matchLabelKeys: [{keys}]}}]"
        );
        is_refused_cheaply("copied labels", &spread, "exists in both matchLabelKeys and labelSelector");
    }
}

/// Returns a PodList of `count` pods: `first` is the first one, `other` each of the others, with its number for `#`.
fn pods(count: usize, first: &str, other: &str) -> String {
    let others = (1..count)
        .fold(String::new(), |text, number| text + &format!("- {}\n", other.replace('#', &number.to_string())));
    format!("kind: PodList\nitems:\n- {}\n{others}", first.replace('#', "0"))
}

/// Returns `count` containers, in flow style.
fn containers(count: usize) -> String {
    (0..count).fold(String::new(), |all, number| all + &format!("{{name: c{number}, image: i}}, "))
}

#[test]
fn the_pods_of_a_file_are_bounded_together() {
    let large = "x".repeat(200_000);
    let referred = "its references to its own fields and variables, with those of the pods before it in the file, stand for \
                    more than 16 MiB; split the file";
    let taken = "the items of its lists, with the pods and objects before it in the file, take more than 32 MiB of memory; \
                 split the file";
    let env: String = (0..80).fold(String::new(), |env, number| {
        env + &format!("{{name: E{number}, valueFrom: {{fieldRef: {{fieldPath: 'metadata.annotations[''x'']'}}}}}}, ")
    });
    let same = "{metadata: {name: p#, annotations: *a}, spec: {containers: *c}}";
    let annotated = pods(
        95,
        &format!(
            "{{metadata: {{name: p#, annotations: &a {{x: {large}}}}}, spec: {{containers: &c [{{name: c, image: i, env: [{env}]}}]}}}}"
        ),
        same,
    );
    let listed = pods(
        330,
        &format!("{{metadata: {{name: p#}}, spec: {{containers: &c [{}]}}}}", containers(100)),
        "{metadata: {name: p#}, spec: {containers: *c}}",
    );
    let inherited = pods(
        60,
        &format!(
            "{{metadata: {{name: p#}}, spec: {{securityContext: &s {{seLinuxOptions: {{level: {large}}}}}, containers: &c [{}]}}}}",
            containers(75)
        ),
        "{metadata: {name: p#}, spec: {securityContext: *s, containers: *c}}",
    );
    let documents: String = (0..150).fold(String::new(), |text, number| {
        text + &format!(
            "kind: Pod\napiVersion: v1\nmetadata: {{name: p{number}}}\nspec: {{containers: [{}]}}\n---\n",
            containers(200)
        )
    });
    for (what, text, words) in [
        ("references", annotated, referred),
        ("lists", listed, taken),
        ("inherited", inherited, referred),
        ("documents", documents, taken),
    ] {
        is_refused_cheaply(what, &text, words);
        let (problems, _) = refused(&text);
        assert_eq!(problems.len(), 1, "{what}: only the first pod that goes over is reported: {problems:.300?}");
        assert!(problems[0].line > Some(3), "{what}: the place is not the first pod's: {}", problems[0]);
    }
    let full = pods(
        400,
        &"{metadata: {name: p#}, spec: {containers: [@]}}".replace('@', &containers(1000)),
        &"{metadata: {name: p#}, spec: {containers: [@]}}".replace('@', &containers(1000)),
    );
    let (problems, mib) = refused(&full);
    assert!(problems[0].message.contains(taken), "{problems:.300?}");
    assert!(mib < 200, "{mib} MiB were held");
}

#[test]
fn many_honest_pods_fit_into_a_file() {
    let small = "{metadata: {name: p#}, spec: {containers: [{name: c, image: i}]}}";
    let usual = "{metadata: {name: p#, labels: {app: web, tier: front}}, spec: {volumes: [{name: a, hostPath: {path: /srv}}, {name: b, \
                 emptyDir: {}}, {name: c, configMap: {name: m}}], containers: [@, @, @]}}";
    let container = "{name: c%, image: 'registry.example/team/app:1', args: [--listen, --verbose], env: [{name: A, value: b}, {name: P, \
                     valueFrom: {fieldRef: {fieldPath: metadata.name}}}], ports: [{containerPort: 80}], volumeMounts: [{name: a, \
                     mountPath: /a}, {name: b, mountPath: /b}], resources: {limits: {cpu: 500m, memory: 128Mi}}, livenessProbe: \
                     {httpGet: {path: /, port: 80}}}";
    let usual = (0..3)
        .fold(usual.to_owned(), |text, number| text.replacen('@', &container.replace('%', &number.to_string()), 1));
    for (count, pod) in [(3000, small), (1000, &usual)] {
        HELD.set((0, 0));
        let text = pods(count, pod, pod);
        let manifest = decode(text.as_bytes(), "node-1").unwrap_or_else(|problems| panic!("{}", problems[0]));
        assert_eq!(manifest.pods.len(), count);
        let mib = HELD.get().1 >> 20;
        assert!(mib < 150, "{count}: {mib} MiB were held");
    }
}

#[test]
fn what_an_api_server_finds_too_large_is_refused() {
    let pod = |args: &str| format!("{POD}  containers: [{{name: c, image: i, args: [{args}]}}]");
    let (problems, _) = refused(&pod(&"x".repeat(3 << 20)));
    assert!(problems[0].message.starts_with("Request entity too large: limit is 3145728"), "{problems:.300?}");
    for args in ["x".repeat(1_600_000), "1234567890, ".repeat(140_000).replace("1234567890", "a123456789")] {
        let (problems, mib) = refused(&pod(&args));
        assert!(problems[0].message.starts_with("etcdserver: request is too large"), "{problems:.300?}");
        assert!(mib < 150, "{mib} MiB were held");
    }
    for (text, words) in [
        (
            format!(
                "{{\"apiVersion\": \"v1\", \"kind\": \"Pod\", \"spec\": {{\"nodeName\": \"{}\"}}}}",
                "x".repeat(2 << 20)
            ),
            "etcdserver",
        ),
        (
            format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: a}}\ndata: {{a: {}}}", "x".repeat(4 << 20)),
            "Request entity",
        ),
        (format!("{POD}  containers: [{}]", "{}, ".repeat(100_000)), "the items of its lists take more than 32 MiB"),
        (format!("x: [{}]", "a,".repeat(4 << 20)), "it has more than 2621440 values"),
        (format!("{{\"x\": [{}1]}}", "1,".repeat(4 << 20)), "it has more than 2621440 values"),
    ] {
        let (problems, mib) = refused(&text);
        assert!(problems[0].message.contains(words), "{words}: {problems:.300?}");
        assert!(mib < 400, "{words}: {mib} MiB were held");
    }
    let fits = decode(pod(&"x".repeat(1_500_000)).as_bytes(), "node-1").expect("an API server takes it");
    assert_eq!(fits.pods.len(), 1);
}

/// Returns a list of `item`s that together have about `bytes` bytes, and their number.
fn list(head: &str, item: &str, bytes: usize, tail: &str) -> (String, usize) {
    let count = bytes / item.len();
    (format!("{head}{}{tail}", item.repeat(count)), count)
}

#[test]
fn a_hundred_problems_of_a_file_are_told_and_the_others_counted() {
    const LARGE: usize = 8 << 20;
    const SMALL: usize = 1 << 20;
    let containers = format!("{POD}  containers:\n");
    for (what, (text, count)) in [
        (
            "unknown fields of pods",
            list(
                "kind: PodList\nitems:\n",
                "- {metadata: {name: a}, spec: {containers: [{name: c, image: i, imge: x}]}}\n",
                LARGE,
                "",
            ),
        ),
        ("pods that lack all", list("kind: PodList\nitems:\n", "- {x: y}\n", LARGE, "")),
        (
            "values of pods",
            list(
                "kind: PodList\nitems:\n",
                "- {metadata: {name: A_}, spec: {containers: [{name: c, image: i}]}}\n",
                SMALL,
                "",
            ),
        ),
        ("unknown fields of containers", list(&containers, "  - {name: c, image: i, imge: x}\n", SMALL, "")),
        ("types in containers", list(&containers, "  - 1\n", SMALL, "")),
        ("unknown fields of a pod", list(POD, "  containerz: []\n", SMALL, "")),
        (
            "containers in JSON",
            list("{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"spec\":{\"containers\":[", "{\"imge\":1},", SMALL, "{}]}}"),
        ),
        (
            "Secrets",
            list("kind: List\napiVersion: v1\nitems:\n", "- {apiVersion: v1, kind: Secret, data: {a: 1}}\n", SMALL, ""),
        ),
        ("versions", list("", "kind: Pod\n---\n", SMALL, "")),
        ("names", list(&containers, "  - {name: A_, image: i}\n", 300_000, "")),
    ] {
        let (problems, mib) = refused(&text);
        assert_eq!(problems.len(), 101, "{what}: {:.300}", format!("{problems:?}"));
        let last = &problems[100].message;
        let more: usize = last.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or_default();
        assert!(last.starts_with("and ") && last.contains("more problems") && more + 100 >= count, "{what}: {last}");
        assert!(mib < 400, "{what}: {mib} MiB were held");
    }
    let mut warned = String::new();
    for number in 0..500 {
        write!(warned, "{POD}  schedulerName: s{number}\n  containers: [{{name: c, image: i}}]\n---\n").expect("text");
    }
    let warnings = decode(warned.as_bytes(), "node-1").unwrap_or_else(|problems| panic!("{:?}", problems[0])).warnings;
    assert!(
        warnings.len() == 101 && warnings[100].message == "and 400 more warnings; the first 100 of a file are shown",
        "{warnings:.300?}"
    );
}
