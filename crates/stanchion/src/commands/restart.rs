//! `stanchion restart`

use std::process::ExitCode;

use anyhow::Result;
use hyper::Method;

use crate::client::{Client, encoded, pod_path};

/// Options of `restart`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Name of the pod
    pod: String,
    /// Only this container
    #[arg(short, long)]
    container: Option<String>,
    /// The pod's namespace
    #[arg(short, long)]
    namespace: Option<String>,
}

/// Restarts a pod or one of its containers.
pub fn run(client: &Client, options: &Options) -> Result<ExitCode> {
    client.block_on(async {
        let pod = client.find(&options.pod, options.namespace.as_deref()).await?;
        let query = options.container.as_ref().map(|name| format!("?container={}", encoded(name))).unwrap_or_default();
        client.send(Method::POST, &pod_path(&pod, &format!("/restart{query}")), &[]).await?;
        println!("pod/{} restarting", pod.pod.metadata.name.unwrap_or_default());
        Ok(ExitCode::SUCCESS)
    })
}
