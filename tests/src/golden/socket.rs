//! Requests to the agent's socket, without a client program: a pod is looked at twenty times a second.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::http;

/// Gets the resource at `path`; `None` for status 404.
///
/// # Errors
/// When the agent does not answer, or answers with another status or without JSON.
pub fn get(socket: &Path, path: &str) -> Result<Option<Value>> {
    match http::request(socket, "GET", path, b"")? {
        (200, body) => serde_json::from_slice(&body).map(Some).with_context(|| format!("{path} is no JSON")),
        (404, _) => Ok(None),
        (status, body) => bail!("{path}: status {status}: {}", String::from_utf8_lossy(&body)),
    }
}
