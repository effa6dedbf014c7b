//! Events of Docker, as hints for the agent.

use std::collections::HashMap;

use bollard::{models::EventMessage, query_parameters::EventsOptions};
use futures_util::{Stream, StreamExt, stream};
use jiff::Timestamp;
use stanchion_sdk::runtime::{ContainerId, Error, ErrorKind, Event, EventKind, Result, SandboxId};

use crate::{Docker, client::failed, names};

/// Returns events from now on; the first is `Resync`.
pub(crate) fn events(backend: Docker) -> impl Stream<Item = Result<Event>> + Send + 'static {
    let subscribed = async move {
        // Docker answers before it listens, but sends the events since a given time.
        let since = stanchion_sdk::clock::now();
        backend.ready().await.map(|_| (backend, since))
    };
    stream::once(subscribed).flat_map(|subscribed| match subscribed {
        Ok((backend, since)) => follow(backend, since).left_stream(),
        Err(error) => stream::iter([Err(error)]).right_stream(),
    })
}

fn follow(backend: Docker, since: Timestamp) -> impl Stream<Item = Result<Event>> + Send + 'static {
    let filter = |values: &[&str]| values.iter().map(|&value| value.to_owned()).collect::<Vec<_>>();
    let filters = HashMap::from([
        ("type".to_owned(), filter(&["container"])),
        ("event".to_owned(), filter(&["start", "die", "oom", "destroy"])),
        ("label".to_owned(), vec![backend.client.of_ours()]),
    ]);
    let since = format!("{}.{:09}", since.as_second(), since.subsec_nanosecond());
    let options = EventsOptions { since: Some(since), filters: Some(filters), ..EventsOptions::default() };
    let heard = backend.client.api().events(Some(options));
    let told = backend.clone();
    let heard = heard.filter_map(move |heard| {
        std::future::ready(match heard {
            Ok(message) => translate(&told, message).map(|kind| Ok(kind.into())),
            Err(error) => Some(Err(failed("receiving events", &error))),
        })
    });
    let ended = stream::once(async move {
        // Another Docker may take its place: its set-up is read again.
        backend.forget().await;
        Err(Error::new(ErrorKind::Unavailable, "Docker ended the event stream"))
    });
    stream::iter([Ok(EventKind::Resync.into())]).chain(heard).chain(ended)
}

fn translate(backend: &Docker, message: EventMessage) -> Option<EventKind> {
    let actor = message.actor?;
    let (id, about) = (actor.id?, actor.attributes.unwrap_or_default());
    backend.seen.forget(&id);
    let action = message.action?;
    if about.get(names::KIND).is_some_and(|kind| kind == "sandbox") {
        return Some(EventKind::SandboxChanged { sandbox: SandboxId(id) });
    }
    let container = ContainerId(id);
    match action.as_str() {
        "start" => Some(EventKind::Started { container }),
        "die" => Some(EventKind::Exited { container }),
        "oom" => Some(EventKind::OutOfMemory { container }),
        // There is no event kind for a removed container: its sandbox has changed.
        "destroy" => Some(EventKind::SandboxChanged { sandbox: SandboxId(about.get(names::SANDBOX)?.clone()) }),
        _ => None,
    }
}
