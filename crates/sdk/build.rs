//! Builds the pause program for backends that need one (feature `pause`). It is static, so that its image is one file,
//! made without a registry (ADR 7).

use std::{env, error::Error, path::PathBuf, process::Command};

fn main() -> Result<(), Box<dyn Error>> {
    let source = "pause/pause.rs";
    println!("cargo::rerun-if-changed={source}");
    if env::var_os("CARGO_FEATURE_PAUSE").is_none() {
        return Ok(());
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?).join("pause");
    let mut rustc = Command::new(env::var_os("RUSTC").ok_or("cargo sets RUSTC")?);
    rustc.args(["--edition=2024", "--crate-name=pause", "--crate-type=bin", "--target", &env::var("TARGET")?]);
    for option in ["target-feature=+crt-static", "relocation-model=static", "opt-level=s", "panic=abort", "lto=fat"] {
        rustc.args(["-C", option]);
    }
    rustc.args(["-C", "strip=symbols", "-C", "codegen-units=1"]);
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        let mut option = std::ffi::OsString::from("linker=");
        option.push(linker);
        rustc.arg("-C").arg(option);
    }
    let status = rustc.arg("-o").arg(&out).arg(source).status()?;
    if !status.success() {
        return Err(format!("building {source} failed ({status})").into());
    }
    Ok(())
}
