//! `[images]`: imports, credential providers, and removal of unused images.

use std::{path::PathBuf, time::Duration};

use serde::Deserialize;
use stanchion_agent::config::{CredentialProviders, ImageGc};

use super::time_or;

/// Minimum of `gc_period`.
const SHORTEST_PERIOD: Duration = Duration::from_secs(1);

/// The table as written. Keys that a kubelet has too are named after the kubelet's (`imageGCHighThresholdPercent`).
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawImages {
    pub preload: Option<PathBuf>,
    credential_provider_config: Option<PathBuf>,
    credential_provider_bin_dir: Option<PathBuf>,
    gc_high_threshold_percent: Option<u8>,
    gc_low_threshold_percent: Option<u8>,
    minimum_gc_age: Option<String>,
    maximum_gc_age: Option<String>,
    gc_period: Option<String>,
}

impl RawImages {
    /// Returns the paths with their keys.
    pub fn paths(&self) -> impl Iterator<Item = (&'static str, &PathBuf)> {
        let all = [
            ("images.preload", &self.preload),
            ("images.credential_provider_config", &self.credential_provider_config),
            ("images.credential_provider_bin_dir", &self.credential_provider_bin_dir),
        ];
        all.into_iter().filter_map(|(key, path)| Some((key, path.as_ref()?)))
    }

    /// Returns the credential providers for registries.
    pub fn providers(&self) -> Result<Option<CredentialProviders>, String> {
        match (self.credential_provider_config.clone(), self.credential_provider_bin_dir.clone()) {
            (Some(config), Some(bin_dir)) => Ok(Some(CredentialProviders { config, bin_dir })),
            (None, None) => Ok(None),
            _ => Err("images.credential_provider_config and images.credential_provider_bin_dir must be set together: one is missing"
                .to_owned()),
        }
    }

    /// Returns the settings for the removal of unused images.
    pub fn gc(&self) -> Result<ImageGc, String> {
        let usual = ImageGc::default();
        let (usual_high, usual_low) = usual.thresholds.unwrap_or_default();
        let high = self.gc_high_threshold_percent.unwrap_or(usual_high);
        let low = self.gc_low_threshold_percent.unwrap_or(usual_low.min(high.saturating_sub(1)));
        let thresholds = match high {
            0 | 100 => None,
            1..100 if low < high => Some((high, low)),
            1..100 => {
                return Err(format!(
                    "images.gc_low_threshold_percent {low} must be less than images.gc_high_threshold_percent, which is {high}"
                ));
            }
            _ => {
                return Err(format!(
                    "images.gc_high_threshold_percent {high} must be from 1 to 99; 0 or 100 disables the removal when the disk fills up"
                ));
            }
        };
        let minimum_age = time_or("images.minimum_gc_age", self.minimum_gc_age.as_deref(), usual.minimum_age)?;
        let maximum_age = time_or("images.maximum_gc_age", self.maximum_gc_age.as_deref(), Duration::ZERO)?;
        let period = time_or("images.gc_period", self.gc_period.as_deref(), usual.period)?;
        if period < SHORTEST_PERIOD {
            return Err(format!("images.gc_period must be at least {} s", SHORTEST_PERIOD.as_secs()));
        }
        let maximum_age = Some(maximum_age).filter(|age| !age.is_zero());
        if let Some(maximum_age) = maximum_age.filter(|age| *age <= minimum_age) {
            return Err(format!(
                "images.maximum_gc_age {maximum_age:?} must be more than images.minimum_gc_age {minimum_age:?}"
            ));
        }
        Ok(ImageGc { thresholds, minimum_age, maximum_age, period })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use config::{Config, File, FileFormat};
    use stanchion_agent::config::ImageGc;

    use super::RawImages;

    fn check(toml: &str) -> Result<ImageGc, String> {
        let built = Config::builder().add_source(File::from_str(toml, FileFormat::Toml)).build();
        built.and_then(Config::try_deserialize::<RawImages>).map_err(|error| error.to_string())?.gc()
    }

    // R-IMG-11
    #[test]
    fn what_is_not_set_is_a_kubelets() {
        let gc = check("").expect("it is good");
        assert_eq!((gc.thresholds, gc.maximum_age), (Some((85, 80)), None));
        assert_eq!((gc.minimum_age, gc.period), (Duration::from_secs(120), Duration::from_secs(300)), "R-LOOP-8");
        assert_eq!(check("gc_high_threshold_percent = 70").expect("it is good").thresholds, Some((70, 69)));
        let set = "gc_high_threshold_percent = 60\ngc_low_threshold_percent = 0\nminimum_gc_age = \"0s\"\n";
        let gc = check(&format!("{set}maximum_gc_age = \"48h\"\ngc_period = \"1s\"")).expect("it is good");
        assert_eq!((gc.thresholds, gc.minimum_age), (Some((60, 0)), Duration::ZERO));
        assert_eq!(gc.maximum_age, Some(Duration::from_secs(48 * 3600)));
    }

    // R-IMG-11
    #[test]
    fn it_is_switched_off_by_what_switches_a_kubelets_off() {
        for high in [0, 100] {
            assert_eq!(check(&format!("gc_high_threshold_percent = {high}")).expect("it is good").thresholds, None);
        }
        assert_eq!(check("maximum_gc_age = \"0s\"").expect("it is good").maximum_age, None);
    }

    // R-IMG-10
    #[test]
    fn credential_providers_have_settings_and_programs() {
        let raw = |toml: &str| {
            let built = Config::builder().add_source(File::from_str(toml, FileFormat::Toml)).build();
            built.and_then(Config::try_deserialize::<RawImages>).expect("it can be read").providers()
        };
        let both = "credential_provider_config = \"/a.yaml\"\ncredential_provider_bin_dir = \"/b\"";
        let found = raw(both).expect("it is good").expect("they are set");
        assert_eq!((found.config, found.bin_dir), ("/a.yaml".into(), "/b".into()));
        assert_eq!(raw(""), Ok(None));
        assert!(raw("credential_provider_bin_dir = \"/b\"").expect_err("no settings").contains("one is missing"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (toml, said) in [
            ("gc_high_threshold_percent = 101", "gc_high_threshold_percent 101 must be from 1 to 99"),
            ("gc_low_threshold_percent = 90", "gc_low_threshold_percent 90 must be less than"),
            ("minimum_gc_age = \"often\"", "minimum_gc_age must be a time"),
            ("minimum_gc_age = \"-1s\"", "minimum_gc_age must be a time"),
            ("maximum_gc_age = \"1m\"", "maximum_gc_age 60s must be more than"),
            ("gc_period = \"10ms\"", "gc_period must be at least 1 s"),
        ] {
            let error = check(toml).expect_err(toml);
            assert!(error.contains(said), "{toml}: {error}");
        }
    }
}
