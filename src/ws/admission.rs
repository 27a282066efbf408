//! Limits of sockets: in total, and per client network.
//!
//! At a limit, a member's new socket can still replace its own older one. Otherwise a network at
//! its limit whose sockets all died could not reconnect until each of them timed out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::id::{RoomName, UserId};
use crate::limit::{ConcurrencyLimit, ConcurrencyPermit, Exceeded};
use crate::metrics::{Counted, Metrics};
use crate::network::ClientNetwork;

/// Time for a replaced socket to send its close frame.
const CLOSE_TIME: Duration = Duration::from_millis(500);

/// Timeout of the wait for a replaced socket to end.
const HANDOVER: Duration = Duration::from_secs(2);

/// The member of a socket.
type MemberKey = (RoomName, UserId);

/// The limits of sockets, and the slot of each member.
#[derive(Clone, Debug)]
pub struct SocketLimit {
    connections: ConcurrencyLimit,
    /// The slot of each member's newest socket.
    newest: Arc<DashMap<MemberKey, Arc<Slot>>>,
    metrics: Arc<Metrics>,
}

/// A claim to a slot, before the room has admitted the socket.
#[derive(Debug)]
pub struct SocketClaim {
    limit: SocketLimit,
    member: MemberKey,
    network: Option<ClientNetwork>,
    entitlement: Entitlement,
}

/// A socket's slot, released on drop.
#[derive(Debug)]
pub struct SocketPermit {
    admission: SocketLimit,
    member: MemberKey,
    slot: Arc<Slot>,
}

#[derive(Debug)]
enum Entitlement {
    Permits(Arc<Permits>),
    Successor(Claim),
}

/// The exclusive claim to the slot of a socket that is to be replaced.
#[derive(Debug)]
struct Claim {
    slot: Arc<Slot>,
    is_redeemed: bool,
}

#[derive(Debug)]
struct Slot {
    permits: Arc<Permits>,
    network: Option<ClientNetwork>,
    is_claimed: AtomicBool,
    /// Tells the socket to end.
    gives_way: CancellationToken,
    /// Tells its successor that it has ended.
    has_ended: CancellationToken,
}

/// The place of a socket that is no member's, released on drop.
#[derive(Debug)]
pub struct PlainPermit {
    _permits: Permits,
}

#[derive(Debug)]
struct Permits {
    _permit: ConcurrencyPermit,
    _counted: Counted,
}

impl SocketLimit {
    /// Limits of `connections` sockets in total and `per_network` for each network; 0 is no limit
    /// for networks.
    pub fn new(connections: usize, per_network: usize, metrics: Arc<Metrics>) -> Self {
        let connections = ConcurrencyLimit::new(connections, per_network);
        Self { connections, newest: Arc::default(), metrics }
    }

    /// Requests a slot; for a client of unknown network only the total limit applies. At a limit,
    /// the slot is that of the member's newest socket, if that came from the same network.
    ///
    /// # Errors
    /// [`Exceeded`] if there is none.
    pub fn ask(
        &self,
        network: Option<ClientNetwork>,
        room: &RoomName,
        user: &UserId,
    ) -> Result<SocketClaim, Exceeded> {
        let member = (room.clone(), user.clone());
        let entitlement = match self.acquire(network) {
            Ok(permits) => Entitlement::Permits(Arc::new(permits)),
            Err(none) => Entitlement::Successor(self.claim(network, &member).ok_or(none)?),
        };
        Ok(SocketClaim { limit: self.clone(), member, network, entitlement })
    }

    /// Takes a place for a socket that is no member's.
    ///
    /// # Errors
    /// [`Exceeded`] if there is none.
    pub fn acquire_plain(&self, network: Option<ClientNetwork>) -> Result<PlainPermit, Exceeded> {
        Ok(PlainPermit { _permits: self.acquire(network)? })
    }

    fn acquire(&self, network: Option<ClientNetwork>) -> Result<Permits, Exceeded> {
        let permit = self.connections.try_acquire(network)?;
        Ok(Permits { _permit: permit, _counted: Counted::new(&self.metrics.connections, 1) })
    }

    fn claim(&self, network: Option<ClientNetwork>, member: &MemberKey) -> Option<Claim> {
        let slot = self.newest.get(member).map(|slot| slot.clone())?;
        let is_ours = slot.network == network && !slot.is_claimed.swap(true, Ordering::AcqRel);
        is_ours.then(|| Claim { slot, is_redeemed: false })
    }
}

impl SocketClaim {
    /// Takes the slot, once the room has admitted the socket and so superseded the member's older one.
    ///
    /// # Errors
    /// [`Exceeded`] if the older one does not end in time.
    pub async fn redeem(self) -> Result<SocketPermit, Exceeded> {
        let Self { limit: admission, member, network, entitlement } = self;
        let permits = match entitlement {
            Entitlement::Permits(permits) => permits,
            Entitlement::Successor(claim) => {
                claim.slot.gives_way.cancel();
                timeout(HANDOVER, claim.slot.has_ended.cancelled()).await.map_err(|_| Exceeded::Total)?;
                claim.redeem()
            }
        };
        let slot = Arc::new(Slot {
            permits,
            network,
            is_claimed: AtomicBool::new(false),
            gives_way: CancellationToken::new(),
            has_ended: CancellationToken::new(),
        });
        admission.newest.insert(member.clone(), slot.clone());
        Ok(SocketPermit { admission, member, slot })
    }
}

impl SocketPermit {
    /// Waits until the socket has to end because another one claimed its slot.
    pub async fn given_away(&self) {
        self.slot.gives_way.cancelled().await;
        sleep(CLOSE_TIME).await;
    }
}

impl Claim {
    fn redeem(mut self) -> Arc<Permits> {
        self.is_redeemed = true;
        self.slot.permits.clone()
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.is_redeemed {
            self.slot.is_claimed.store(false, Ordering::Release);
        }
    }
}

impl Drop for SocketPermit {
    fn drop(&mut self) {
        self.admission.newest.remove_if(&self.member, |_, slot| Arc::ptr_eq(slot, &self.slot));
        self.slot.has_ended.cancel();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::network::client_network;

    fn network(address: &str) -> Option<ClientNetwork> {
        Some(client_network(address.parse().unwrap()))
    }

    fn ask(admission: &SocketLimit, address: &str, user: &str) -> Result<SocketClaim, Exceeded> {
        let (room, user) = (RoomName::parse("r").unwrap(), UserId::parse(user).unwrap());
        admission.ask(network(address), &room, &user)
    }

    fn enter(admission: &SocketLimit, address: &str, user: &str) -> Result<SocketPermit, Exceeded> {
        ask(admission, address, user)?.redeem().now_or_never().expect("it waits for nobody")
    }

    #[test]
    fn slots_are_released() {
        let metrics = Metrics::new();
        let admission = SocketLimit::new(2, 1, metrics.clone());
        let first = enter(&admission, "2001:db8::1", "a").unwrap();
        assert_eq!(enter(&admission, "2001:db8::2", "b").unwrap_err(), Exceeded::Network);
        let _second = enter(&admission, "2001:db8:0:1::1", "c").unwrap();
        assert_eq!(enter(&admission, "192.0.2.3", "d").unwrap_err(), Exceeded::Total);
        drop(first);
        let _third = enter(&admission, "192.0.2.3", "d").unwrap();
        assert_eq!(metrics.connections.get(), 2);
        assert_eq!(admission.newest.len(), 2, "and so is a member");
    }

    #[test]
    fn an_unknown_network_has_no_limit_of_its_own() {
        let admission = SocketLimit::new(10, 1, Metrics::new());
        let room = RoomName::parse("r").unwrap();
        let ask = |_| admission.ask(None, &room, &UserId::random()).unwrap();
        let tickets: Vec<_> = (0..10).map(ask).collect();
        assert_eq!(tickets.len(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn newer_socket_takes_the_slot_of_the_older() {
        let metrics = Metrics::new();
        let admission = SocketLimit::new(10, 1, metrics.clone());
        let older = enter(&admission, "192.0.2.1", "a").unwrap();
        assert!(ask(&admission, "192.0.2.1", "b").is_err(), "it is not b's");
        let refused = ask(&admission, "192.0.2.1", "a").expect("it is a's");
        assert!(ask(&admission, "192.0.2.1", "a").is_err(), "one place is for one");
        assert!(older.given_away().now_or_never().is_none());
        drop(refused);
        assert!(older.given_away().now_or_never().is_none(), "the room refused it");

        let ticket = ask(&admission, "192.0.2.1", "a").unwrap();
        let gives_way = async {
            older.given_away().await;
            drop(older);
        };
        let (newer, ()) = tokio::join!(ticket.redeem(), gives_way);
        let newer = newer.unwrap();
        assert!(enter(&admission, "192.0.2.1", "b").is_err(), "there is still one place");
        assert_eq!(metrics.connections.get(), 1);
        let stuck = ask(&admission, "192.0.2.1", "a").unwrap().redeem().await;
        assert_eq!(stuck.unwrap_err(), Exceeded::Total, "never two in one place");
        drop(newer);
        assert_eq!((metrics.connections.get(), admission.newest.len()), (0, 0));
        enter(&admission, "192.0.2.1", "b").unwrap();
    }
}
