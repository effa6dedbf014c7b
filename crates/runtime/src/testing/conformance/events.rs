//! Cases: events.

use std::pin::pin;

use futures_util::{Stream, StreamExt};

use super::{
    kit::{Kit, ensure},
    transcript::{Outcome, Stop},
};
use crate::{ContainerId, Event, EventKind, Result, Runtime};

/// Checks that the first item says that the subscription is in force.
pub(super) async fn resync_first<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let mut events = pin!(kit.runtime.events());
    subscribed(&mut events).await
}

/// Checks that a subscriber receives a later exit, or the notice that the stream may have missed something.
pub(super) async fn exit<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let mut events = pin!(kit.runtime.events());
    subscribed(&mut events).await?;
    let (_, id) = kit.running("exit 0").await?;
    wait_for_exit(&mut events, &id).await
}

/// Checks that two subscribers both receive an event.
pub(super) async fn two_subscribers<R: Runtime>(kit: &Kit<'_, R>) -> Outcome {
    let mut one = pin!(kit.runtime.events());
    let mut two = pin!(kit.runtime.events());
    subscribed(&mut one).await?;
    subscribed(&mut two).await?;
    let (_, id) = kit.running("exit 0").await?;
    wait_for_exit(&mut one, &id).await?;
    wait_for_exit(&mut two, &id).await
}

async fn subscribed(events: &mut (impl Stream<Item = Result<Event>> + Unpin)) -> Outcome {
    let first = next(events).await?;
    ensure!(first == EventKind::Resync, "the first event is {first:?} in place of Resync");
    Ok(())
}

async fn wait_for_exit(events: &mut (impl Stream<Item = Result<Event>> + Unpin), id: &ContainerId) -> Outcome {
    loop {
        match next(events).await? {
            EventKind::Exited { container } if container == *id => return Ok(()),
            EventKind::Resync => return Ok(()),
            _ => {}
        }
    }
}

async fn next(events: &mut (impl Stream<Item = Result<Event>> + Unpin)) -> Outcome<EventKind> {
    let item = events.next().await.ok_or_else(|| Stop::Failed("the event stream ended without an error".to_owned()))?;
    Ok(item?.kind)
}
