//! A random walk: edits, crashes, outages, restarts of the agent, images that come and go. In the end the runtimes run
//! exactly what the manifests want. `STANCHION_SEED=N` repeats a walk.

use std::{collections::BTreeMap, time::Duration};

use stanchion_runtime::{
    ContainerState, ErrorKind,
    testing::{Fault, Method, When},
};
use stanchion_tests::random::{self, Random};

use crate::{manifest::pod, node::Node};

const PODS: [&str; 4] = ["a", "b", "c", "d"];
const STEPS: usize = 150;

/// Image tag and runtime by pod.
type Wanted = BTreeMap<&'static str, (u64, &'static str)>;

async fn step(node: &mut Node, wanted: &mut Wanted, random: &mut Random) {
    let name = random.pick(&PODS);
    let runtime = random.index(2);
    let fake = node.fakes[runtime].1.clone();
    match random.below(13) {
        0..=2 => {
            let (tag, class) = (1 + random.below(9), random.pick(&["first", "second"]));
            node.write(
                &format!("{name}.yaml"),
                &pod(name, &format!("app:{tag}")).spec(&format!("runtimeClassName: {class}")),
            );
            wanted.insert(name, (tag, class));
        }
        3 if wanted.remove(name).is_some() => node.remove(&format!("{name}.yaml")),
        4 | 5 => {
            let runs = |state: &ContainerState| matches!(state, ContainerState::Running { .. });
            if let Some(found) = fake.inventory().containers.iter().find(|it| runs(&it.state)) {
                fake.exit(&found.id, 1);
            }
        }
        6 => fake.set_available(false),
        7 => fake.set_available(true),
        8 => node.restart().await,
        9 => fake.unpublish(&format!("docker.io/library/app:{}", 1 + random.below(9))),
        10 => {
            if let Some(sandbox) = fake.inventory().sandboxes.first() {
                fake.lose_sandbox(&sandbox.id, "lost on the walk");
            }
        }
        _ => {
            let kind = random.pick(&[ErrorKind::Other, ErrorKind::Timeout, ErrorKind::Crashed, ErrorKind::NotFound]);
            let fault = if random.below(2) == 0 { Fault::fail(kind) } else { Fault::lose_answer(kind) };
            let nth = u32::try_from(1 + random.below(3)).expect("it is small");
            fake.fault(random.pick(&Method::ALL), When::Nth(nth), fault);
        }
    }
    if random.below(3) > 0 {
        tokio::time::sleep(Duration::from_millis(random.below(20_000))).await;
    }
}

async fn walk(seed: u64) {
    println!("STANCHION_SEED={seed}");
    let mut random = Random::new(seed);
    let mut node = Node::with_runtimes(&["first", "second"]);
    let mut wanted = Wanted::new();
    node.start();
    for _ in 0..STEPS {
        step(&mut node, &mut wanted, &mut random).await;
        node.check();
    }
    for (_, fake) in &node.fakes {
        fake.heal_all();
        fake.set_available(true);
        (1..10).for_each(|tag| drop(fake.publish(&format!("docker.io/library/app:{tag}"), 1000)));
    }
    tokio::time::sleep(Duration::from_secs(1000)).await;
    let images: Vec<_> = wanted.iter().map(|(name, (tag, _))| (*name, format!("app:{tag}"))).collect();
    let containers: Vec<_> = images.iter().map(|(name, image)| (*name, [("app", image.as_str())])).collect();
    let exactly: Vec<_> = containers.iter().map(|(name, containers)| (*name, &containers[..])).collect();
    node.runs(&exactly).await;
    for (name, (_, class)) in &wanted {
        assert_eq!(node.pod(name).map(|view| view.backend.clone()).as_deref(), Some(*class), "{name}");
    }
    wanted.keys().for_each(|name| node.remove(&format!("{name}.yaml")));
    node.is_empty().await;
}

#[tokio::test(start_paused = true)]
async fn a_random_walk_ends_with_exactly_what_is_wanted() {
    match random::seed() {
        Some(seed) => walk(seed).await,
        None => {
            for seed in 1..=8 {
                walk(seed).await;
            }
        }
    }
}
