//! The start of a node: it listens before it takes part, so that one with another secret never does.

use satsuma_cluster::membership::HEARTBEAT;
use satsuma_cluster::message::Pulse;
use tokio::sync::mpsc;
use tokio::time::timeout_at;

use super::engine::EngineEvent;
use crate::clock::now;

/// Events that are kept for the node while it listens.
const MAX_KEPT: usize = 1024;

/// A node that has listened.
#[derive(Debug)]
pub struct Introduced {
    /// The events so far.
    pub(super) heard: Vec<EngineEvent>,
    /// Those to come.
    pub(super) events: mpsc::Receiver<EngineEvent>,
}

/// The nodes that there are share another secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "cluster.secret: {node} and all other nodes of this cluster.prefix share another secret; give this node theirs, or \
     a prefix of its own"
)]
pub struct OtherSecret {
    /// One of them.
    node: String,
}

/// Listens for as long as every living node needs to be heard.
///
/// # Errors
/// [`OtherSecret`] if there are nodes, and none of them has this fingerprint.
pub async fn listen(
    mut events: mpsc::Receiver<EngineEvent>,
    fingerprint: &str,
) -> Result<Introduced, OtherSecret> {
    let (until, mut heard) = (now() + 2 * HEARTBEAT, Vec::new());
    while heard.len() < MAX_KEPT
        && let Ok(Some(event)) = timeout_at(until, events.recv()).await
    {
        heard.push(event);
    }
    let pulses = heard.iter().filter_map(|event| match event {
        EngineEvent::ToAll(bytes) => Pulse::decode(bytes).ok().filter(|pulse| !pulse.is_last),
        _ => None,
    });
    let (own, others): (Vec<Pulse>, Vec<Pulse>) = pulses.partition(|pulse| pulse.fingerprint == fingerprint);
    match others.first() {
        Some(pulse) if own.is_empty() => {
            let Pulse { heartbeat, name, .. } = pulse;
            Err(OtherSecret { node: format!("the node {} ({name})", heartbeat.node) })
        }
        _ => Ok(Introduced { heard, events }),
    }
}

#[cfg(test)]
mod tests {
    use satsuma_cluster::membership::Heartbeat;

    use super::*;
    use crate::id::NodeId;

    fn pulse(node: u32, fingerprint: &str) -> EngineEvent {
        let heartbeat = Heartbeat { node: NodeId::new(node), number: 1, version: 1, is_draining: false };
        let pulse = Pulse {
            heartbeat,
            is_last: false,
            name: "n".to_owned(),
            release: String::new(),
            owned: 0,
            relayed: 0,
            clients: 0,
            wants_events: false,
            fingerprint: fingerprint.to_owned(),
        };
        EngineEvent::ToAll(pulse.encode().into())
    }

    async fn heard(events: Vec<EngineEvent>) -> Result<usize, OtherSecret> {
        let (sender, receiver) = mpsc::channel(8);
        for event in events {
            sender.send(event).await.unwrap();
        }
        Ok(listen(receiver, "ours").await?.heard.len())
    }

    #[tokio::test(start_paused = true)]
    async fn newcomer_with_another_secret_is_refused() {
        assert_eq!(heard(vec![EngineEvent::Connected]).await, Ok(1), "the first node");
        assert_eq!(heard(vec![pulse(1, "ours")]).await, Ok(1));
        let error = heard(vec![pulse(7, "theirs")]).await.unwrap_err().to_string();
        assert!(error.contains("cluster.secret") && error.contains("00000007 (n)"), "{error}");
        assert!(heard(vec![pulse(7, "")]).await.is_err(), "one that tells none has another");
        assert_eq!(
            heard(vec![pulse(7, "theirs"), pulse(1, "ours")]).await,
            Ok(2),
            "the foreign node is the other"
        );
    }
}
