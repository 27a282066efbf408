//! Threads on which scripts run: a bounded number, with a bounded wait for one.
//!
//! The engine stops a script at its time almost everywhere, but not inside of every built-in function. A thread that
//! such a function holds is abandoned: its caller gets an error, and another thread takes its place. At most
//! [`MAX_ABANDONED`] are replaced; beyond that, an abandoned thread keeps its place in the count.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, setpriority_process};
use rustix::thread::gettid;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::{error, warn};

use super::ScriptLimits;
use super::console::Console;
use super::instance::Instance;
use super::places::{Place, Places};
use super::program::Program;
use crate::durable::method::{MethodCall, MethodError, MethodOutcome};

/// Stack of a thread: four times that of a script, for what the engine does without a check.
const THREAD_STACK_BYTES: usize = 4 * super::instance::MAX_STACK_BYTES;

/// Time beyond its limit after which a call is abandoned.
const GRACE: Duration = Duration::from_secs(1);

/// The priority of an abandoned thread: rooms and media go before it.
const LOWEST_PRIORITY: i32 = 19;

/// Maximum abandoned threads that are replaced.
const MAX_ABANDONED: usize = 4;

type CallResult = Result<MethodOutcome, MethodError>;

/// The threads of a script.
#[derive(Debug)]
pub(super) struct Pool {
    shared: Arc<Shared>,
    places: Places,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    /// Signals a job, or the end.
    more: Condvar,
    limits: ScriptLimits,
    console: Arc<Console>,
}

#[derive(Debug)]
struct Queue {
    jobs: VecDeque<Job>,
    /// The script of the next calls.
    program: Arc<Program>,
    /// Threads that were abandoned and replaced, and have not ended.
    abandoned: usize,
    is_closed: bool,
}

#[derive(Debug)]
struct Job {
    call: MethodCall,
    reply: oneshot::Sender<CallResult>,
    flight: Arc<Flight>,
}

/// The state of a call, shared by its caller and its thread.
#[derive(Debug)]
struct Flight {
    phase: Mutex<Phase>,
    thread: OnceLock<Pid>,
}

#[derive(Debug)]
enum Phase {
    /// Waits for its thread, or runs.
    Running(Place),
    /// Given up by its caller; its thread was replaced.
    Replaced,
    /// Given up by its caller; its thread keeps its place.
    Abandoned(#[expect(dead_code, reason = "held until the thread ends the call")] Place),
    Finished,
}

impl Pool {
    /// Starts the threads.
    ///
    /// # Errors
    /// The system's, if it has no more threads.
    pub(super) fn start(program: Arc<Program>, threads: usize, limits: ScriptLimits) -> Result<Self, String> {
        let queue = Queue { jobs: VecDeque::new(), program, abandoned: 0, is_closed: false };
        let (queue, console) = (Mutex::new(queue), Arc::new(Console::new()));
        let shared = Arc::new(Shared { queue, more: Condvar::new(), limits, console });
        let pool = Self { shared, places: Places::new(threads, limits.time + GRACE) };
        for _ in 0..threads {
            spawn(&pool.shared).map_err(|error| format!("its thread cannot be started: {error}"))?;
        }
        Ok(pool)
    }

    /// Replaces the script for all calls from now on.
    pub(super) fn replace(&self, program: Arc<Program>) {
        self.shared.lock().program = program;
    }

    /// Returns the script of the next calls.
    pub(super) fn program(&self) -> Arc<Program> {
        self.shared.lock().program.clone()
    }

    /// Runs a call.
    ///
    /// # Errors
    /// [`MethodError::Busy`] if too many calls of the payer wait for a thread, or this one waited too long.
    pub(super) async fn call(&self, call: MethodCall) -> CallResult {
        let busy = || MethodError::Busy("too many calls wait for the script; the call was not made");
        let place = self.places.take(call.payer).await.ok_or_else(busy)?;
        let flight = Arc::new(Flight { phase: Mutex::new(Phase::Running(place)), thread: OnceLock::new() });
        let (reply, answer) = oneshot::channel();
        self.shared.lock().jobs.push_back(Job { call, reply, flight: flight.clone() });
        self.shared.more.notify_one();
        // A caller that goes away abandons its call as well.
        let watch = Watch { flight, shared: &self.shared };
        let limits = self.shared.limits;
        let answer = timeout(limits.time + GRACE, answer).await;
        drop(watch);
        match answer {
            Ok(Ok(result)) => result,
            // The sender is dropped by a thread that panicked.
            Ok(Err(_)) => Err(MethodError::Failed("the method failed".to_owned())),
            Err(_) => {
                warn!(event = "scriptThreadAbandoned", "a built-in function of a script does not end");
                let time = humantime::format_duration(limits.time);
                Err(MethodError::Limit(format!("the method took more than {time}")))
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.lock().is_closed = true;
        self.shared.more.notify_all();
    }
}

/// The caller's side of a call: abandons it if it has not ended.
struct Watch<'s> {
    flight: Arc<Flight>,
    shared: &'s Arc<Shared>,
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        let mut phase = self.flight.lock();
        let Phase::Running(place) = std::mem::replace(&mut *phase, Phase::Finished) else { return };
        let mut queue = self.shared.lock();
        let may_replace = queue.abandoned < MAX_ABANDONED;
        queue.abandoned += usize::from(may_replace);
        drop(queue);
        *phase = match may_replace {
            true if spawn(self.shared).is_ok() => {
                self.flight.yield_thread();
                Phase::Replaced
            }
            true => {
                self.shared.lock().abandoned -= 1;
                Phase::Abandoned(place)
            }
            false => Phase::Abandoned(place),
        };
    }
}

impl Flight {
    fn lock(&self) -> MutexGuard<'_, Phase> {
        // A thread that panicked with the lock leaves no inconsistent state.
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets everything else on this machine go before the call's thread, from here to its end.
    fn yield_thread(&self) {
        if let Some(thread) = self.thread.get() {
            // Only Linux has priorities of threads; elsewhere the thread competes with the others.
            let _ = setpriority_process(Some(*thread), LOWEST_PRIORITY);
        }
    }

    /// Ends the call and gives its place free. False if its thread was replaced.
    fn finish(&self) -> bool {
        !matches!(std::mem::replace(&mut *self.lock(), Phase::Finished), Phase::Replaced)
    }

    fn is_running(&self) -> bool {
        matches!(*self.lock(), Phase::Running(_))
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts the end of an abandoned thread that was replaced.
    fn replaced(&self) {
        self.lock().abandoned -= 1;
    }

    /// Waits for a call, and returns it with its script; `None` at the end.
    fn next(&self) -> Option<(Job, Arc<Program>)> {
        let waits = |queue: &mut Queue| queue.jobs.is_empty() && !queue.is_closed;
        let mut queue = self.more.wait_while(self.lock(), waits).unwrap_or_else(PoisonError::into_inner);
        let job = queue.jobs.pop_front()?;
        Some((job, queue.program.clone()))
    }
}

fn spawn(shared: &Arc<Shared>) -> std::io::Result<()> {
    let shared = shared.clone();
    let builder = thread::Builder::new().name("script".to_owned()).stack_size(THREAD_STACK_BYTES);
    // Not joined: at the end of the server a call would be waited for that nothing stops.
    builder.spawn(move || work(&shared)).map(drop)
}

/// Runs calls, one after the other.
fn work(shared: &Shared) {
    let mut ready = None;
    loop {
        let program = shared.lock().program.clone();
        // Before a call comes, so that it need not wait for it.
        ready = ready.filter(|(_, of)| Arc::ptr_eq(of, &program)).or_else(|| prepare(shared, program).ok());
        let Some((Job { call, reply, flight }, program)) = shared.next() else { return };
        if !flight.is_running() {
            if flight.finish() {
                continue;
            }
            return shared.replaced();
        }
        // At most once for each call.
        let _ = flight.thread.set(gettid());
        let instance = match ready.take() {
            Some((instance, of)) if Arc::ptr_eq(&of, &program) => Ok((instance, of)),
            _ => prepare(shared, program),
        };
        // The engine hands a panic of ours on; what it was doing is dropped with its runtime.
        let result = catch_unwind(AssertUnwindSafe(|| match &instance {
            Ok((instance, _)) => instance.call(&call),
            Err(problem) => Err(MethodError::Failed(format!("the script {problem}"))),
        }));
        let stays = flight.finish();
        match result {
            Ok(result) => drop(reply.send(result)),
            Err(_) => {
                error!(event = "scriptPanicked", "a method of a script ended in a panic");
                drop(reply);
            }
        }
        drop(catch_unwind(AssertUnwindSafe(|| drop(instance))));
        if !stays {
            return shared.replaced();
        }
    }
}

fn prepare(shared: &Shared, program: Arc<Program>) -> Result<(Instance, Arc<Program>), String> {
    let instance = Instance::prepare(&program, &shared.limits, Some(shared.console.clone()))?;
    Ok((instance, program))
}
