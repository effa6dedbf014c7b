//! Registries that send wrong answers, and images that are written carelessly.

#![allow(missing_docs, reason = "a test")]
#![allow(clippy::disallowed_methods, reason = "tests read and remove what they have made")]

mod support;

use std::{pin::pin, time::Duration};

use anyhow::{Context as _, Result, ensure};
use futures_util::future::{Either, select};
use stanchion_runtime::{Progress, PullImage, Runtime as _};
use stanchion_tests::hostile::{Hostile, Manner};
use support::{Bed, eventually, said};

fn of(reference: &str) -> PullImage {
    PullImage { reference: reference.to_owned(), ..PullImage::default() }
}

/// Lists containerd's unfinished writes of blobs.
fn unfinished(bed: &Bed) -> Result<Vec<String>> {
    let listed = bed.ctr().run(&["content", "active"])?;
    Ok(listed.lines().filter(|line| line.contains("stanchion-")).map(str::to_owned).collect())
}

/// Returns the peak memory of this process, KiB.
fn peak() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("the kernel tells it")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_is_wrong_is_refused_by_name_and_what_is_careless_runs() -> Result<()> {
    let bed = Bed::new()?;
    let registry = Hostile::start()?;
    let before = peak()?;
    for (manner, refused) in [
        (Manner::EndlessLayer, Some("sends more than the")),
        (Manner::LongLayer, Some("sends 1099511627776 bytes, not the")),
        (Manner::ShortLayer, Some("sends 7 bytes, not the")),
        (Manner::Boundless, Some("no space left on device")),
        (Manner::LargeConfig, Some("limit \"image configuration\"")),
        (Manner::EndlessConfig, Some("sends more than the")),
        (Manner::EndlessManifest, Some("limit \"image manifest\"")),
        (Manner::LargeManifest, Some("limit \"image manifest\"")),
        (Manner::EndlessRefusal, Some("answers 418")),
        (Manner::Itself, Some("is sha256:")),
        (Manner::Chain, Some("limit \"manifests and indexes of an image\"")),
        (Manner::Right, None),
        (Manner::ArtifactFirst, None),
        (Manner::VariantFirst, None),
        (Manner::NoOs, None),
        (Manner::OddEntries, None),
        (Manner::Nested, None),
        (Manner::NullLayers, None),
        (Manner::BareConfig, None),
        (Manner::NullConfig, None),
    ] {
        // Each has a layer of its own, so none is there already.
        let reference = registry.image(manner, &format!("{manner:?}"))?;
        let pulled = bed.backend.pull_image(of(&reference), Progress::ignored()).await;
        match (pulled, refused) {
            (Ok(_), None) => {
                bed.backend.inspect_image(reference).await.map_err(said).with_context(|| format!("{manner:?}"))?;
            }
            (Err(error), Some(words)) => {
                let text = error.chain();
                ensure!(text.contains(words) && text.len() < 2000, "{manner:?}: {text}");
            }
            (pulled, refused) => {
                let pulled = pulled.map_err(|error| error.chain());
                anyhow::bail!("{manner:?}: {pulled:?}, not {refused:?}");
            }
        }
        // The server notices a closed connection only with its next write.
        eventually("the registry to be left", async || {
            ensure!(!registry.is_sending("hostile"), "{manner:?}: it still sends");
            ensure!(unfinished(&bed)?.is_empty(), "{manner:?}: {:?}", unfinished(&bed)?);
            Ok(())
        })
        .await?;
    }
    let grown = peak()? - before;
    ensure!(grown < 100 << 10, "{grown} KiB were held");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_layer_that_does_not_come_holds_nobody_up_and_leaves_nothing() -> Result<()> {
    let bed = Bed::new()?;
    let (hostile, honest) = (Hostile::start()?, Hostile::start()?);
    let come = async || {
        eventually("the layer to come", async || {
            ensure!(hostile.is_sending("/blobs/"), "it is not asked for");
            ensure!(!unfinished(&bed)?.is_empty(), "containerd has nothing of it");
            Ok(())
        })
        .await
    };
    let slow = hostile.image(Manner::Dribble, "the same")?;
    let other = async {
        come().await?;
        let reference = honest.image(Manner::Right, "the same")?;
        let pulled = bed.backend.pull_image(of(&reference), Progress::ignored());
        tokio::time::timeout(Duration::from_secs(20), pulled).await.context("it waits")?.map_err(said)
    };
    let pull = bed.backend.pull_image(of(&slow), Progress::ignored());
    match select(pin!(pull), pin!(other)).await {
        // Once the layer is there, nobody needs the slow transfer.
        Either::Left((pulled, other)) => {
            pulled.map_err(said)?;
            drop(other.await?);
        }
        Either::Right((pulled, _)) => drop(pulled?),
    }

    println!("nobody wants it any more");
    let reference = hostile.image(Manner::Dribble, "another")?;
    tokio::select! {
        pulled = bed.backend.pull_image(of(&reference), Progress::ignored()) => {
            anyhow::bail!("a layer without end came: {pulled:?}")
        }
        come = come() => come?,
    }
    eventually("the registry to be left", async || {
        ensure!(!hostile.is_sending("/blobs/"), "it still sends");
        ensure!(unfinished(&bed)?.is_empty(), "{:?}", unfinished(&bed)?);
        Ok(())
    })
    .await?;
    Ok(())
}
