//! All users of a run: joins, departures and replacements.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};
use uuid::Uuid;

use super::endpoint::Refusal;
use super::member::{Leave, PendingUser, Role, Watch, WatchedRoom};
use super::options::Options;
use super::protocol::{Protocol, Protocols};
use super::world::{RunContext, chance, now};

/// Concurrent logins and handshakes; more would measure the server's accept queue.
const COMING: usize = 64;

/// Ratio of the leave rate to the join rate.
const HURRY: f64 = 4.0;

/// Timeout for the last users to leave.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(10);

/// All users of a run.
#[derive(Debug)]
pub struct Crowd {
    world: Rc<RunContext>,
    rooms: Vec<Rc<WatchedRoom>>,
    users: u32,
    protocols: Protocols,
    period: Option<Duration>,
    join_rate: f64,
    churn: f64,
    /// Watchers stay until the end; otherwise nobody would measure their room.
    watchers: Vec<ActiveUser>,
    others: Vec<ActiveUser>,
    numbers: std::ops::RangeFrom<u32>,
    coming: Arc<Semaphore>,
    tasks: JoinSet<()>,
}

/// A user that has joined or is joining.
#[derive(Debug)]
struct ActiveUser {
    room: Rc<WatchedRoom>,
    server: usize,
    protocol: Protocol,
    leave: oneshot::Sender<Leave>,
}

/// The result of a join.
type Came = Result<(), Refusal>;

impl Crowd {
    /// An empty crowd.
    pub fn new(world: Rc<RunContext>, options: &Options) -> Self {
        // Rooms of an earlier run may still have members.
        let run = Uuid::new_v4().simple().to_string();
        let room = |number| WatchedRoom {
            name: format!("load-{}-{number}", &run[..8]),
            watch: Cell::new(Watch::Off),
            presences: RefCell::default(),
        };
        Self {
            world,
            rooms: (1..=options.rooms).map(|number| Rc::new(room(number))).collect(),
            users: options.users,
            protocols: options.protocol,
            period: options.period(),
            join_rate: options.join_rate,
            churn: options.churn,
            watchers: Vec::new(),
            others: Vec::new(),
            numbers: 0..,
            coming: Arc::new(Semaphore::new(COMING)),
            tasks: JoinSet::new(),
        }
    }

    /// Has everybody come, to all rooms in turns; ends when each is in or was refused.
    ///
    /// # Errors
    /// The [`Refusal`] of the very first, with whom all the others would share it.
    pub async fn gather(&mut self) -> Result<(), Refusal> {
        let (came, mut arrivals) = unbounded_channel();
        let rooms = self.rooms.clone();
        let begin = now();
        let everybody = (0..self.users).flat_map(|_| &rooms);
        for (place, room) in everybody.enumerate() {
            sleep_until(after(begin, place, self.join_rate).into()).await;
            let role = if place < rooms.len() { Role::Watcher } else { Role::Other };
            let (turn, number) = (place / rooms.len(), place % rooms.len());
            // The first of each room, at whose server it begins, are spread as well.
            let server = (turn + number) % self.world.doors.len();
            let protocol = self.protocols.of(turn);
            self.admit(room.clone(), server, role, protocol, came.clone()).await;
            if place == 0 {
                // Nothing at all arrives only from a task that panicked.
                arrivals.recv().await.transpose()?;
            }
        }
        drop(came);
        while arrivals.recv().await.is_some() {}
        Ok(())
    }

    /// Replaces users by new ones until it is dropped; it never ends by itself.
    pub async fn churn(&mut self) {
        if self.churn <= 0.0 {
            return std::future::pending().await;
        }
        let (came, _arrivals) = unbounded_channel();
        let begin = now();
        for place in 1.. {
            sleep_until(after(begin, place, self.churn).into()).await;
            // Finished tasks are removed; otherwise they would accumulate.
            while self.tasks.try_join_next().is_some() {}
            self.others.retain(|user| !user.leave.is_closed());
            if self.others.is_empty() {
                continue;
            }
            let one = ((chance() * self.others.len() as f64) as usize).min(self.others.len() - 1);
            let ActiveUser { room, server, protocol, leave } = self.others.swap_remove(one);
            // Fails if the server has just sent it away.
            let _ = leave.send(if place % 2 == 0 { Leave::Abruptly } else { Leave::Properly });
            self.admit(room, server, Role::Other, protocol, came.clone()).await;
        }
    }

    /// Number of rooms whose watcher has seen presences that are not the members of its last snapshot.
    pub fn differing_rooms(&self) -> u64 {
        let differs = |room: &&Rc<WatchedRoom>| {
            room.presences.borrow().as_ref().is_some_and(|presences| !presences.agree())
        };
        self.rooms.iter().filter(differs).count() as u64
    }

    /// Makes all users leave properly, and waits for it.
    pub async fn leave(mut self) {
        let begin = now();
        for (place, user) in self.others.into_iter().chain(self.watchers).enumerate() {
            sleep_until(after(begin, place, self.join_rate * HURRY).into()).await;
            let _ = user.leave.send(Leave::Properly);
        }
        let _ = timeout(LEAVE_TIMEOUT, async { while self.tasks.join_next().await.is_some() {} }).await;
    }

    /// Starts the join of a new user, once there is a permit.
    async fn admit(
        &mut self,
        room: Rc<WatchedRoom>,
        server: usize,
        role: Role,
        protocol: Protocol,
        came: UnboundedSender<Came>,
    ) {
        // The semaphore is never closed.
        let Ok(place) = self.coming.clone().acquire_owned().await else { return };
        let Some(number) = self.numbers.next() else { return };
        let (leave, told) = oneshot::channel();
        let (world, period) = (self.world.clone(), self.period);
        // Its place is its number: both count everybody who was let through here.
        world.servers.borrow_mut().push(server);
        let member =
            PendingUser { world: world.clone(), room: room.clone(), number, server, role, protocol, period };
        self.tasks.spawn_local(async move {
            let session = match member.come().await {
                Ok(session) => session,
                Err(refusal) => {
                    world.counts.borrow_mut().refuse(refusal.clone());
                    // The join of a replacement is not awaited.
                    let _ = came.send(Err(refusal));
                    return;
                }
            };
            let _ = came.send(Ok(()));
            drop((place, came));
            session.stay(told).await;
        });
        match role {
            Role::Watcher => self.watchers.push(ActiveUser { room, server, protocol, leave }),
            Role::Other => self.others.push(ActiveUser { room, server, protocol, leave }),
        }
    }
}

/// Time at which event number `number` is due at this rate per second.
fn after(begin: Instant, number: usize, rate: f64) -> Instant {
    begin + Duration::from_secs_f64(number as f64 / rate)
}
