//! Measures how long it takes to decode, default and validate 1,000 manifests of 100 lines.
//! `cargo run --release -p stanchion-pod --example throughput`

#![allow(clippy::disallowed_methods, reason = "it measures")]

use std::{fmt::Write as _, time::Instant};

const MANIFESTS: u32 = 1000;

fn main() {
    let manifests: Vec<_> = (0..MANIFESTS).map(manifest).collect();
    println!("{} lines each", manifests[0].lines().count());
    // The first manifest pays for the schema.
    let decode = |text: &String| stanchion_pod::decode(text.as_bytes(), "node-1").map(|it| it.pods.len());
    for round in ["cold", "warm", "warm"] {
        let began = Instant::now();
        let pods: usize = manifests.iter().filter_map(|text| decode(text).ok()).sum();
        println!("{round}: {pods} pods in {:?}", began.elapsed());
    }
}

fn manifest(number: u32) -> String {
    let mut text = format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: pod-{number}\n  labels:\n    app: web\n    tier: front\nspec:\n  \
         volumes:\n  - name: data\n    hostPath:\n      path: /srv/data\n  - name: scratch\n    emptyDir: {{}}\n  containers:\n"
    );
    for container in 0..3 {
        let port = 8000 + container;
        let begin = format!("  - name: c{container}\n    image: registry.example/team/app:{number}\n    args:\n");
        let ports = format!("    ports:\n    - name: p{container}\n      containerPort: {port}\n      protocol: TCP\n");
        let end = "    resources:\n      limits:\n        cpu: 500m\n        memory: 128Mi\n    volumeMounts:\n    - name: data\n      \
                   mountPath: /data\n      readOnly: true\n    - name: scratch\n      mountPath: /tmp\n    env:\n";
        text += &begin;
        text += "    - --listen=0.0.0.0\n    - --verbose\n";
        text += &ports;
        text += end;
        for variable in 0..2 {
            writeln!(text, "    - name: VARIABLE_{variable}\n      value: \"{number}\"")
                .expect("text can be written to");
        }
        text += "    imagePullPolicy: IfNotPresent\n";
    }
    text += "  restartPolicy: Always\n  terminationGracePeriodSeconds: 30\n  hostname: web\n  # The end.\n";
    text
}
