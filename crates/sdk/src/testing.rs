//! FakeRuntime as a backend, for tests of the boundary (feature `testing`).

use serde::Deserialize;
use stanchion_runtime::{Health, NodePaths, Result, testing::FakeRuntime};

use crate::Backend;

/// `[backend.fake]`: images in the fake's registry, and the fake's health.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FakeConfig {
    /// References of images that can be pulled.
    pub publish: Vec<String>,
    /// Answer of `health`.
    pub health: Health,
}

impl Backend for FakeRuntime {
    type Config = FakeConfig;

    async fn open(config: FakeConfig, _: NodePaths) -> Result<Self> {
        let fake = Self::new();
        fake.set_health(config.health);
        for image in config.publish {
            fake.publish(&image, 2_000_000);
        }
        Ok(fake)
    }
}
