//! Compares environments with those of a kubelet's containers.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use stanchion_pod::{Capacity, Objects, decode};

use super::{EnvError, Environment, Inputs};

/// Makes the environment of the first container of a manifest.
fn environment(manifest: &str) -> (Result<Environment, EnvError>, stanchion_pod::Pod) {
    let mut manifest = decode(manifest.as_bytes(), "knode").unwrap_or_else(|problems| panic!("{problems:#?}"));
    let objects: Objects = manifest.objects.drain(..).map(|(key, object)| (key, Arc::new(object))).collect();
    let pod = manifest.pods.remove(0);
    let address = |text: &str| text.parse().expect("an address");
    let inputs = Inputs {
        objects: &objects,
        pod_addresses: &[address("10.1.0.2"), address("fd00::2")],
        node_addresses: &[address("192.0.2.7")],
        capacity: Capacity { cpu: 4000, memory: 8 << 30, ephemeral_storage: 100 << 30 },
        volume: &|_| Some(Path::new("/nonexistent")),
    };
    (Environment::of(&pod.containers[0], &inputs), pod)
}

fn pairs(environment: Environment) -> BTreeMap<String, String> {
    environment.into_variables().into_iter().map(|it| (it.name, it.value)).collect()
}

const HEAD: &str = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: web\n  namespace: team\n  labels: {app: refs}\n  \
                    annotations: {example.com/x: anno value}\nspec:\n  containers:\n  - name: main\n    image: x\n";

#[test]
fn references_are_expanded_as_recorded() {
    // env/expansion of the recordings.
    let env = "    args: [$(A)-$(B), $$(A), $(MISSING), $(BOTH), $, a$b, $(A, $(), $(C)]\n    env:\n    - {name: A, value: one}\n    \
               - {name: B, value: $(A)/two}\n    - {name: C, value: $(LATER) $$(A) $(FROM_IMAGE)}\n    - {name: LATER, value: \
               late}\n    - {name: BOTH, value: pod $(BOTH)}\n    - {name: EMPTY, value: ''}\n    - {name: NOVALUE}\n    - {name: \
               A2, value: $$$(A) $$$$(A)}\n    - {name: dotted.name-x, value: kept}\n    - {name: A, value: again}\n    - {name: \
               LAST, value: $(A)}\n";
    let (environment, pod) = environment(&format!("{HEAD}{env}"));
    let mut environment = environment.expect("it can be made");
    let args = environment.expanded(pod.containers[0].args.as_deref()).expect("they fit").expect("it has arguments");
    let seen = "again-one/two|$(A)|$(MISSING)|pod $(BOTH)|$|a$b|$(A|$()|$(LATER) $(A) $(FROM_IMAGE)";
    assert_eq!(args.join("|"), seen, "R-ENV-2");
    let found = pairs(environment);
    for (name, value) in [
        ("A2", "$one $$(A)"),
        ("A", "again"),
        ("B", "one/two"),
        ("BOTH", "pod $(BOTH)"),
        ("C", "$(LATER) $(A) $(FROM_IMAGE)"),
        ("EMPTY", ""),
        ("NOVALUE", ""),
        ("LAST", "again"),
        ("dotted.name-x", "kept"),
    ] {
        assert_eq!(found.get(name).map(String::as_str), Some(value), "{name}: R-ENV-1, R-ENV-2");
    }
}

#[test]
fn fields_of_the_pod_are_values() {
    let fields = [
        ("metadata.name", "web-knode"),
        ("metadata.namespace", "team"),
        ("metadata.labels['app']", "refs"),
        ("metadata.labels['absent']", ""),
        ("metadata.annotations['example.com/x']", "anno value"),
        ("spec.nodeName", "knode"),
        ("spec.serviceAccountName", ""),
        ("status.hostIP", "192.0.2.7"),
        ("status.hostIPs", "192.0.2.7"),
        ("status.podIP", "10.1.0.2"),
        ("status.podIPs", "10.1.0.2,fd00::2"),
    ];
    let item = |(index, (path, _)): (usize, &(&str, &str))| {
        format!("    - {{name: F{index}, valueFrom: {{fieldRef: {{fieldPath: \"{path}\"}}}}}}\n")
    };
    let env: String = fields.iter().enumerate().map(item).collect();
    let (environment, _) = environment(&format!("{HEAD}    env:\n{env}"));
    let found = pairs(environment.expect("it can be made"));
    for (index, (path, value)) in fields.iter().enumerate() {
        assert_eq!(found[&format!("F{index}")], *value, "{path}: R-ENV-4");
    }
}

#[test]
fn resources_are_values_in_units_of_their_divisor() {
    // env/resource-field-refs of the recordings, and limits that only the node has.
    let wanted = [
        ("limits.cpu", "0", "2"),
        ("limits.cpu", "1m", "1500"),
        ("requests.cpu", "1", "1"),
        ("requests.cpu", "1m", "150"),
        ("limits.memory", "0", "67108864"),
        ("limits.memory", "1Mi", "64"),
        ("limits.memory", "1M", "68"),
        ("limits.memory", "1Gi", "1"),
        ("requests.memory", "1Ki", "33792"),
        ("limits.ephemeral-storage", "1Gi", "100"),
        ("requests.ephemeral-storage", "1Gi", "0"),
    ];
    let item = |(index, (resource, divisor, _)): (usize, &(&str, &str, &str))| {
        format!(
            "    - {{name: R{index}, valueFrom: {{resourceFieldRef: {{resource: {resource}, divisor: \"{divisor}\"}}}}}}\n"
        )
    };
    let env: String = wanted.iter().enumerate().map(item).collect();
    let resources = "    resources: {requests: {cpu: 150m, memory: 33Mi}, limits: {cpu: '1.5', memory: 64Mi}}\n";
    let (found, _) = environment(&format!("{HEAD}{resources}    env:\n{env}"));
    let found = pairs(found.expect("it can be made"));
    for (index, (resource, divisor, value)) in wanted.iter().enumerate() {
        assert_eq!(found[&format!("R{index}")], *value, "{resource} / {divisor}: R-ENV-5");
    }
    let env = "    env:\n    - {name: C, valueFrom: {resourceFieldRef: {resource: limits.cpu}}}\n    - {name: M, valueFrom: \
               {resourceFieldRef: {resource: limits.memory, divisor: 1Gi}}}\n";
    let (found, _) = environment(&format!("{HEAD}{env}"));
    let found = pairs(found.expect("it can be made"));
    assert_eq!((found["C"].as_str(), found["M"].as_str()), ("4", "8"), "the node's: R-ENV-5");
}

const OBJECTS: &str = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings, namespace: team}\ndata: {COLOR: blue, \
                       SIZE: big}\nbinaryData: {RAW: AAE=}\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: keys, namespace: \
                       team}\ndata: {TOKEN: aHVudGVyMg==, RAW: /w==}\nstringData: {SIZE: secret}\n";

#[test]
fn objects_are_values_and_what_is_later_wins() {
    let env = "    envFrom:\n    - {configMapRef: {name: settings}}\n    - {prefix: S_, configMapRef: {name: settings}}\n    - \
               {configMapRef: {name: none, optional: true}}\n    env:\n    - {name: SIZE, value: <$(SIZE)>}\n    - {name: T, \
               valueFrom: {secretKeyRef: {name: keys, key: TOKEN}}}\n    - {name: O, valueFrom: {secretKeyRef: {name: keys, key: \
               none, optional: true}}}\n    - {name: P, valueFrom: {configMapKeyRef: {name: none, key: a, optional: true}}}\n";
    let (found, _) = environment(&format!("{HEAD}{env}{OBJECTS}"));
    let found = found.expect("it can be made");
    let names: Vec<_> = found.variables.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(
        names,
        ["COLOR", "SIZE", "S_COLOR", "S_SIZE", "T"],
        "R-ENV-8; binaryData and what is missing are no variables"
    );
    let found = pairs(found);
    assert_eq!(
        (found["SIZE"].as_str(), found["S_SIZE"].as_str(), found["T"].as_str()),
        ("<big>", "big", "hunter2"),
        "R-ENV-1"
    );
}

#[test]
fn what_cannot_be_had_is_named_without_its_value() {
    let reference = |kind: &str, name: &str, key: &str| {
        format!("    env:\n    - {{name: V, valueFrom: {{{kind}: {{name: {name}, key: {key}}}}}}}\n")
    };
    for (env, said) in [
        (reference("configMapKeyRef", "none", "a"), "configmap \"none\" not found"),
        (reference("configMapKeyRef", "settings", "a"), "couldn't find key a in ConfigMap team/settings"),
        (reference("configMapKeyRef", "settings", "RAW"), "couldn't find key RAW in ConfigMap team/settings"),
        (reference("secretKeyRef", "none", "a"), "secret \"none\" not found"),
        (reference("secretKeyRef", "keys", "a"), "couldn't find key a in Secret team/keys"),
        (
            reference("secretKeyRef", "keys", "RAW"),
            "environment variable V: key RAW of secret \"keys\" is not UTF-8 text",
        ),
        ("    envFrom: [{secretRef: {name: none}}]\n".to_owned(), "secret \"none\" not found"),
    ] {
        let (found, _) = environment(&format!("{HEAD}{env}{OBJECTS}"));
        let error = found.expect_err("it cannot be made").to_string();
        assert!(error.starts_with(said), "{said}: {error}: R-ENV-9");
    }
}

#[test]
fn a_variable_that_no_kernel_takes_is_named() {
    let with = |length: usize| {
        let env = format!("    env: [{{name: BIG, value: {}}}]\n", "x".repeat(length));
        environment(&format!("{HEAD}{env}")).0
    };
    assert!(with((128 << 10) - 5).is_ok());
    let error = with(128 << 10).expect_err("it is too long").to_string();
    assert_eq!(error, "environment variable BIG has 131076 bytes with its name; the kernel takes at most 131071");
}

/// Checks forty variables, each of which refers to the one before twice: the last would have a terabyte.
#[test]
fn what_references_multiply_is_refused_before_it_is_made() {
    let env = |count: usize, text: &str| {
        let variable = |number: usize| {
            format!("    - {{name: A{}, value: {}}}\n", number + 1, text.replace('#', &number.to_string()))
        };
        let all: String = (0..count).map(variable).collect();
        format!("{HEAD}    env:\n    - {{name: A0, value: {}}}\n{all}", "x".repeat(1000))
    };
    let refused = |manifest: &str| environment(manifest).0.expect_err("it is too long").to_string();
    let twice = refused(&env(40, "$(A#)$(A#)"));
    assert!(twice.contains("environment variable A8 has more than 131072 bytes"), "{twice}");
    let many = refused(&env(500, "$(A0)").replace(&"x".repeat(1000), &"x".repeat(100_000)));
    assert!(many.contains("6291456 bytes together"), "{many}");
    for (words, said) in
        [("$(A0)".repeat(200), "a word of its command"), ("$(A0)".repeat(100) + &", $(A0)".repeat(7000), "together")]
    {
        let (environment, pod) =
            environment(&env(0, "").replace("    env:", &format!("    args: [{words}]\n    env:")));
        let refused = environment.expect("it can be made").expanded(pod.containers[0].args.as_deref());
        assert!(refused.expect_err("they are too long").to_string().contains(said), "{said}");
    }
}
