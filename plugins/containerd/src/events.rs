//! Events of containerd, as hints for the agent.

use containerd_client::{
    events::{TaskExit, TaskOom, TaskStart},
    services::v1::{PublishRequest, SubscribeRequest},
    types::Envelope,
};
use futures_util::{Stream, StreamExt, stream};
use prost::Message;
use prost_types::Any;
use stanchion_sdk::runtime::{ContainerId, Error, ErrorKind, Event, EventKind, Result};
use tokio::sync::mpsc;

use crate::{Containerd, client::failed, names};

/// Topic of Stanchion's own event, which shows that a subscription is in force.
const SYNC: &str = "/stanchion/sync";

/// Returns events from now on; the first is `Resync`.
pub(crate) fn events(backend: Containerd) -> impl Stream<Item = Result<Event>> + Send + 'static {
    let (send, receive) = mpsc::channel(64);
    // The watch lasts as long as somebody listens.
    let watching = backend.clone();
    let watched = stanchion_network::watch(move || watching.clone().look_at_network(false));
    let subscribe = async move {
        if let Err(error) = forward(&backend, &send).await {
            // The send fails when nobody listens any more.
            drop(send.send(Err(error)).await);
        }
    };
    // The subscription ends with the stream: both are one future.
    let received = stream::unfold(receive, |mut receive| async move { Some((receive.recv().await?, receive)) });
    let driven = stream::once(subscribe).filter_map(|()| std::future::ready(None));
    let watched = stream::once(watched).filter_map(|()| std::future::ready(None));
    stream::select(stream::select(received, driven), watched)
}

async fn forward(backend: &Containerd, send: &mpsc::Sender<Result<Event>>) -> Result<()> {
    backend.ready().await?;
    let namespace = backend.client.namespace();
    let of = |topic: &str| format!("topic==\"{topic}\",namespace=={namespace}");
    let filters = ["/tasks/exit", "/tasks/oom", "/tasks/start", SYNC].map(of).to_vec();
    let mut client = backend.client.events();
    let subscribing = client.subscribe(backend.client.request(SubscribeRequest { filters }));
    // containerd answers a subscription only with its first event: ours is published until it arrives.
    let mut stream = {
        tokio::pin!(subscribing);
        loop {
            publish(backend).await?;
            match tokio::time::timeout(std::time::Duration::from_millis(50), &mut subscribing).await {
                Ok(stream) => break stream.map_err(|status| failed("subscribing to events", &status))?.into_inner(),
                Err(_) => continue,
            }
        }
    };
    while let Some(envelope) = stream.message().await.map_err(|status| failed("receiving events", &status))? {
        if let Some(kind) = translate(backend, &envelope).await
            && send.send(Ok(kind.into())).await.is_err()
        {
            return Ok(());
        }
    }
    Err(Error::new(ErrorKind::Unavailable, "containerd ended the event stream"))
}

async fn publish(backend: &Containerd) -> Result<()> {
    let event = Some(Any { type_url: "stanchion.dev/sync".to_owned(), value: Vec::new() });
    let request = backend.client.request(PublishRequest { topic: SYNC.to_owned(), event });
    let published = backend.client.events().publish(request).await;
    published.map(drop).map_err(|status| failed("publishing an event", &status))
}

async fn translate(backend: &Containerd, envelope: &Envelope) -> Option<EventKind> {
    let body = envelope.event.as_ref().map(|event| event.value.as_slice()).unwrap_or_default();
    match envelope.topic.as_str() {
        SYNC => Some(EventKind::Resync),
        "/tasks/start" => {
            let start = TaskStart::decode(body).ok()?;
            Some(EventKind::Started { container: ContainerId(start.container_id) })
        }
        "/tasks/exit" => {
            let exit = TaskExit::decode(body).ok()?;
            // The exit of an exec process has another id.
            (exit.id == exit.container_id).then_some(EventKind::Exited { container: ContainerId(exit.container_id) })
        }
        "/tasks/oom" => {
            let id = TaskOom::decode(body).ok()?.container_id;
            // containerd does not keep it, so a label does: labels outlive the agent.
            if let Err(error) = backend.label(&id, &[(names::OUT_OF_MEMORY, "true".to_owned())]).await {
                tracing::debug!(container = id, error = error.chain(), "noting an out-of-memory kill failed");
            }
            Some(EventKind::OutOfMemory { container: ContainerId(id) })
        }
        _ => None,
    }
}
