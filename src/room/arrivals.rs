//! Memory limit of incomplete messages, over the whole server.
//!
//! A socket over its share is not read until others have completed their messages; none is refused.
//! Sockets that each have a part of a message could wait for each other forever, so one at a time
//! may exceed the limit to complete its message.

use std::sync::Arc;

use dashmap::DashMap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::network::ClientNetwork;

/// Limit for all sockets. A clone shares it with the original.
#[derive(Clone, Debug)]
pub struct Arrivals(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    all: Arc<Semaphore>,
    /// Maximum bytes of one network.
    network_bytes: usize,
    networks: DashMap<ClientNetwork, Arc<Semaphore>>,
    /// Permit to exceed the limit.
    overrun: Arc<Semaphore>,
}

/// One socket's access to the limit.
#[derive(Debug)]
pub struct ArrivalShare {
    network: Option<(ClientNetwork, Arc<Semaphore>)>,
    arrivals: Arrivals,
}

/// Bytes that are counted until this is dropped.
#[derive(Debug)]
pub struct ArrivalPermit {
    all: Option<OwnedSemaphorePermit>,
    network: Option<OwnedSemaphorePermit>,
    overrun: Option<OwnedSemaphorePermit>,
    /// Dropped last: the share removes a network without permits from the map.
    _share: Arc<ArrivalShare>,
}

impl Arrivals {
    /// A limit of `bytes`, half of which one network may use.
    pub fn new(bytes: usize) -> Self {
        let bytes = bytes.min(Semaphore::MAX_PERMITS);
        Self(Arc::new(Inner {
            all: Arc::new(Semaphore::new(bytes)),
            network_bytes: bytes / 2,
            networks: DashMap::new(),
            overrun: Arc::new(Semaphore::new(1)),
        }))
    }

    /// The share of a socket; without a known network, only the total limit applies.
    pub fn share(&self, network: Option<ClientNetwork>) -> Arc<ArrivalShare> {
        let of_network = |network| {
            let entry = self.0.networks.entry(network);
            let bytes = entry.or_insert_with(|| Arc::new(Semaphore::new(self.0.network_bytes)));
            (network, bytes.clone())
        };
        Arc::new(ArrivalShare { network: network.map(of_network), arrivals: self.clone() })
    }
}

impl ArrivalShare {
    /// Counts bytes, if that is within the limit.
    pub fn try_acquire(self: &Arc<Self>, bytes: u32) -> Option<ArrivalPermit> {
        let network = match &self.network {
            Some((_, of_network)) => Some(of_network.clone().try_acquire_many_owned(bytes).ok()?),
            None => None,
        };
        let all = Some(self.arrivals.0.all.clone().try_acquire_many_owned(bytes).ok()?);
        Some(ArrivalPermit { all, network, overrun: None, _share: self.clone() })
    }

    /// Counts bytes once that is within the limit, for a message whose size is known. No part of the message is
    /// there while it waits, so that it needs no permit to exceed the limit; more than a network's share counts as
    /// that share.
    pub async fn acquire_whole(self: Arc<Self>, bytes: usize) -> ArrivalPermit {
        let bytes = u32::try_from(bytes.min(self.arrivals.0.network_bytes)).unwrap_or(u32::MAX);
        let (network, all) = self.within(bytes).await;
        ArrivalPermit { all, network, overrun: None, _share: self }
    }

    async fn within(&self, bytes: u32) -> (Option<OwnedSemaphorePermit>, Option<OwnedSemaphorePermit>) {
        let network = match &self.network {
            Some((_, of_network)) => of_network.clone().acquire_many_owned(bytes).await.ok(),
            None => None,
        };
        (network, self.arrivals.0.all.clone().acquire_many_owned(bytes).await.ok())
    }

    /// Counts bytes once that is within the limit, or obtains the permit to exceed it.
    pub async fn acquire(self: Arc<Self>, bytes: u32) -> ArrivalPermit {
        let ((network, all), overrun) = tokio::select! {
            biased;
            within = self.within(bytes) => (within, None),
            overrun = self.arrivals.0.overrun.clone().acquire_owned() => ((None, None), overrun.ok()),
        };
        ArrivalPermit { all, network, overrun, _share: self }
    }
}

impl Drop for ArrivalShare {
    fn drop(&mut self) {
        let Some((network, bytes)) = self.network.take() else { return };
        drop(bytes);
        self.arrivals.0.networks.remove_if(&network, |_, bytes| Arc::strong_count(bytes) == 1);
    }
}

impl ArrivalPermit {
    /// True if this permit allows exceeding the limit.
    pub fn is_overrun(&self) -> bool {
        self.overrun.is_some()
    }

    /// Adds the bytes of another permit of the same share.
    pub fn merge(&mut self, other: Self) {
        let ArrivalPermit { all, network, overrun, .. } = other;
        for (own, other) in [(&mut self.all, all), (&mut self.network, network), (&mut self.overrun, overrun)]
        {
            match (own.as_mut(), other) {
                (Some(own), Some(other)) => own.merge(other),
                (None, Some(other)) => *own = Some(other),
                (_, None) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::network::client_network;

    fn networks() -> [Option<ClientNetwork>; 2] {
        [1, 2].map(|last| Some(client_network([192, 0, 2, last].into())))
    }

    #[test]
    fn network_is_limited_to_half_of_all_bytes() {
        let arrivals = Arrivals::new(1000);
        let [one, other] = networks().map(|network| arrivals.share(network));
        let mut held = one.try_acquire(500).expect("half");
        assert!(one.try_acquire(1).is_none(), "it is over its share");
        drop(other.try_acquire(500).expect("the other half"));
        drop(held);
        held = one.try_acquire(400).expect("given back");
        held.merge(one.try_acquire(100).expect("the rest"));
        let unknown = arrivals.share(None).try_acquire(500).expect("no network of its own");
        assert!(other.try_acquire(1).is_none(), "all is held");
        drop((held, unknown, one, other));
        assert_eq!(arrivals.0.networks.len(), 0, "networks are forgotten");
        assert_eq!(arrivals.0.all.available_permits(), 1000);
    }

    #[test]
    fn whole_message_waits_within_the_limit() {
        let arrivals = Arrivals::new(1000);
        let share = arrivals.share(networks()[0]);
        let held = share.clone().acquire_whole(400).now_or_never().expect("it is free");
        let mut next = Box::pin(share.clone().acquire_whole(5000));
        assert!(next.as_mut().now_or_never().is_none(), "no permit to exceed the limit");
        drop(held);
        let all = next.now_or_never().expect("its network's whole share");
        assert!(share.try_acquire(1).is_none() && !all.is_overrun());
        assert!(arrivals.share(networks()[1]).try_acquire(500).is_some());
    }

    #[test]
    fn one_socket_at_a_time_exceeds_the_limit() {
        let arrivals = Arrivals::new(1000);
        let share = arrivals.share(networks()[0]);
        let held = share.try_acquire(500);
        let first = share.clone().acquire(1).now_or_never().expect("the right to go over it");
        assert!(first.is_overrun());
        let mut next = Box::pin(share.clone().acquire(1));
        assert!(next.as_mut().now_or_never().is_none());
        drop(first);
        assert!(next.now_or_never().is_some_and(|next| next.is_overrun()));
        drop(held);
        assert!(share.acquire(1).now_or_never().is_some_and(|within| !within.is_overrun()));
    }
}
