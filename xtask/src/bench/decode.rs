//! Decoding benchmark: `stanchion validate` on a directory of manifests, which runs the agent's code.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use stanchion_tests::process;

use crate::say;

/// Number of manifests.
const FILES: usize = 1000;
/// Lines per manifest.
const LINES: usize = 100;
/// Number of runs; the median counts.
const ROUNDS: usize = 7;
/// Budget for all manifests.
const LIMIT: Duration = Duration::from_millis(250);

/// Measures how long `stanchion validate` takes and prints the result.
pub fn measure(programs: &Path) -> Result<()> {
    let directory = empty_directory(programs)?;
    for index in 0..FILES {
        let text = manifest(index);
        ensure!(text.lines().count() == LINES, "a manifest has {} lines", text.lines().count());
        fs::write(directory.join(format!("pod-{index}.yaml")), text)?;
    }
    let single = directory.with_extension("one");
    fs::create_dir_all(&single)?;
    fs::write(single.join("pod.yaml"), manifest(0))?;
    say(format!("reading {FILES} manifests of {LINES} lines"));
    let all = median(programs, &directory);
    // Start of the program and its first manifest, to be subtracted.
    let one = median(programs, &single);
    fs::remove_dir_all(&directory)?;
    fs::remove_dir_all(&single)?;
    let took = all?.saturating_sub(one?);
    println!(
        "{FILES} manifests of {LINES} lines decoded, defaulted and validated: {} ms (at most {})\n",
        took.as_millis(),
        LIMIT.as_millis()
    );
    Ok(())
}

fn empty_directory(programs: &Path) -> Result<PathBuf> {
    let directory = programs.join("bench-manifests");
    if directory.exists() {
        fs::remove_dir_all(&directory)?;
    }
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    Ok(directory)
}

/// Returns the median time of `stanchion validate` on a directory.
fn median(programs: &Path, directory: &Path) -> Result<Duration> {
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let mut command = std::process::Command::new(programs.join("stanchion"));
        command.arg("validate").arg(directory);
        let begun = Instant::now();
        process::text(&mut command)?;
        times.push(begun.elapsed());
    }
    times.sort();
    Ok(times[ROUNDS / 2])
}

/// Returns a typical pod that uses many fields.
fn manifest(index: usize) -> String {
    let mut text = format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: pod-{index}\n  namespace: team-{}\n  labels:\n    app: web\n    \
         tier: front\n  annotations:\n    example.com/owner: somebody\nspec:\n  restartPolicy: Always\n  \
         terminationGracePeriodSeconds: 30\n  securityContext:\n    runAsUser: 1000\n    fsGroup: 2000\n  containers:\n",
        index % 7
    );
    for container in ["main", "side"] {
        text += &format!(
            "  - name: {container}\n    image: registry.example/team/{container}:1.{index}\n    command: [\"/bin/{container}\", \
             \"--config\", \"/etc/{container}/config.yaml\"]\n    ports:\n    - name: {container}\n      containerPort: {}\n      \
             protocol: TCP\n    env:\n    - name: MODE\n      value: \"production\"\n    - name: NAME\n      valueFrom:\n        \
             fieldRef:\n          fieldPath: metadata.name\n    resources:\n      requests:\n        cpu: 100m\n        memory: \
             64Mi\n      limits:\n        cpu: 500m\n        memory: 128Mi\n    livenessProbe:\n      httpGet:\n        path: \
             /healthz\n        port: {container}\n      periodSeconds: 10\n      failureThreshold: 3\n    readinessProbe:\n      \
             tcpSocket:\n        port: {container}\n      periodSeconds: 5\n    volumeMounts:\n    - name: data\n      \
             mountPath: /data\n    - name: logs\n      mountPath: /var/log/{container}\n      subPath: {container}\n",
            if container == "main" { 8080 } else { 9090 }
        );
    }
    text += "  volumes:\n  - name: data\n    emptyDir:\n      sizeLimit: 1Gi\n  - name: logs\n    hostPath:\n      path: \
             /var/log/pods-of-mine\n      type: DirectoryOrCreate\n";
    for line in text.lines().count()..LINES {
        text += &format!("# a comment, line {line}\n");
    }
    text
}
