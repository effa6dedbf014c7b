//! Runs a container's lifecycle hooks (R-HOOK).

use std::{net::IpAddr, time::Duration};

use stanchion_board::{EventLog, Subject};
use stanchion_pod::{Endpoint, Hook, HttpGet, PodKey, TargetPort};
use stanchion_runtime::{ContainerId, Descendants, Runtime};

use crate::contact::{error::ContactError, exec, http, user_agent};

/// Time limit of a request. Kubernetes has none for hooks, but then a server that never answers would block the
/// container.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(120);

/// Container of a hook, with everything that the hook needs.
pub(crate) struct HookContext<'a, R> {
    pub runtime: &'a R,
    pub key: &'a PodKey,
    pub uid: &'a str,
    /// Name of the container.
    pub name: &'a str,
    pub container: &'a ContainerId,
    pub address: IpAddr,
    pub subject: &'a Subject,
    pub events: &'a EventLog,
}

impl<R: Runtime> HookContext<'_, R> {
    /// Runs a hook to its end. The error is in a kubelet's words.
    pub async fn run(&self, hook: &Hook) -> Result<(), String> {
        match hook {
            Hook::Exec(command) => self.exec(command).await,
            Hook::Http(get) => self.http(get).await,
            Hook::Sleep(time) => {
                tokio::time::sleep(*time).await;
                Ok(())
            }
            Hook::Tcp(to) => Err(invalid_handler(to)),
        }
    }

    async fn exec(&self, command: &[String]) -> Result<(), String> {
        let words = command.join(" ");
        let what = format!("Exec lifecycle hook ([{words}]) {}", self.for_container());
        match exec::run(self.runtime, self.container, command, Descendants::EndIfGivenUp).await {
            Ok(ran) if ran.code == 0 => Ok(()),
            Ok(ran) => Err(format!(
                "{what} - error: command '{words}' exited with {}: {}, message: {:?}",
                ran.code,
                ran.stderr,
                ran.output()
            )),
            Err(error) => Err(format!("{what} - error: {}", error.chain())),
        }
    }

    /// Sends a request. Any answer counts as success (R-HOOK-5).
    async fn http(&self, get: &HttpGet) -> Result<(), String> {
        let mut asked = http::get(get, self.address, &user_agent("lifecycle"), REQUEST_TIMEOUT).await;
        // If the server speaks plain HTTP where TLS was expected, the request is repeated without TLS, as a kubelet
        // does.
        if get.is_https && asked.as_ref().is_err_and(ContactError::is_plain_http) {
            let plain = HttpGet { is_https: false, ..get.clone() };
            asked = http::get(&plain, self.address, &user_agent("lifecycle"), REQUEST_TIMEOUT).await;
            if asked.is_ok() {
                let message = "request to HTTPS lifecycle hook got HTTP response, retry with HTTP succeeded";
                self.events.warning(self.subject, "LifecycleHTTPFallback", message);
            }
        }
        let whose = self.for_container();
        asked.map(drop).map_err(|error| format!("HTTP lifecycle hook ({}) {whose} - error: {error}", get.path))
    }

    /// Returns the part of an error's message that names the container.
    fn for_container(&self) -> String {
        let Self { key, name, uid, .. } = self;
        format!("for Container \"{name}\" in Pod \"{}_{}({uid})\" failed", key.name, key.namespace)
    }
}

/// Returns the error of a `tcpSocket` hook, which Kubernetes accepts and never runs (R-HOOK-7).
fn invalid_handler(to: &Endpoint) -> String {
    let port = match &to.port {
        TargetPort::Number(number) => format!("{{0 {number} }}"),
        TargetPort::Unknown(name) => format!("{{1 0 {name}}}"),
    };
    let host = to.host.as_deref().unwrap_or_default();
    let socket = format!("&TCPSocketAction{{Port:{port},Host:{host},}}");
    let handler = format!("&LifecycleHandler{{Exec:nil,HTTPGet:nil,TCPSocket:{socket},Sleep:nil,}}");
    format!("Cannot run handler: invalid handler: {handler}")
}
