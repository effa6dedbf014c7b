//! A flag that Ctrl-C, SIGTERM and SIGHUP set, so that tasks can end what they started.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use anyhow::{Context as _, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// Flag of a request to stop.
#[derive(Clone, Debug)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Handles the signals from now on.
    pub fn watch() -> Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&flag))
                .with_context(|| format!("cannot handle signal {signal}"))?;
        }
        Ok(Self(flag))
    }

    /// Returns whether a signal has come.
    pub fn happened(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
