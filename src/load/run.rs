//! A run from its beginning to its report.

use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use tokio::select;
use tokio::task::LocalSet;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::bus::{BusTraffic, NatsMonitors};
use super::crowd::Crowd;
use super::endpoint::{CompressionOffer, Endpoint};
use super::options::{Options, OptionsDisagree};
use super::process::{ProcessUsage, allow_sockets, own_cpu, usage_of_all};
use super::report::{Measured, RunReport, Used};
use super::world::{RunContext, RunStage, now};

/// The time between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(1);

/// Timeout of the last updates, and of an interval in which none is seen.
const LONGEST_DRAIN: Duration = Duration::from_secs(10);
const SILENCE: Duration = Duration::from_secs(1);

pub use super::bus::NoMonitor;
pub use super::endpoint::{Refusal, Unreachable};
pub use super::process::{NoProcess, TooFewFiles};

/// An error that prevents a measurement.
#[derive(Debug, thiserror::Error)]
pub enum CannotRun {
    /// The options do not fit together.
    #[error(transparent)]
    Options(#[from] OptionsDisagree),
    /// The system allows too few sockets.
    #[error(transparent)]
    Files(#[from] TooFewFiles),
    /// The server's process cannot be looked at.
    #[error(transparent)]
    Process(#[from] NoProcess),
    /// The monitoring of a NATS server cannot be read.
    #[error(transparent)]
    Monitor(#[from] NoMonitor),
    /// Nothing listens there.
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
    /// The very first user could not join.
    #[error("the server lets nobody in: {0}")]
    Refused(#[from] Refusal),
}

/// The progress of a run.
#[derive(Clone, Copy, Debug)]
pub struct RunProgress {
    /// The current phase.
    pub step: RunStep,
    /// Number of requested users.
    pub asked: u64,
    /// Number of joined users.
    pub present: u64,
    /// Number of sent updates.
    pub updates: u64,
    /// The 99th percentile of the latencies, in microseconds.
    pub p99: Option<u64>,
    /// Number of users that were refused, closed or broken.
    pub trouble: u64,
}

/// A step of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunStep {
    /// Users join.
    Joining,
    /// The load is on, and is not measured yet.
    WarmingUp,
    /// Events are counted.
    Measuring,
    /// The last updates are waited for.
    Draining,
    /// Users leave.
    Leaving,
}

impl fmt::Display for RunProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { step, asked, present, updates, p99, trouble } = self;
        let step = match step {
            RunStep::Joining => "joining",
            RunStep::WarmingUp => "warming up",
            RunStep::Measuring => "measuring",
            RunStep::Draining => "waiting for the last updates",
            RunStep::Leaving => "leaving",
        };
        write!(f, "{step}: {present} of {asked} users in, {updates} updates")?;
        if let Some(p99) = p99 {
            write!(f, ", p99 {:.1} ms", *p99 as f64 / 1000.0)?;
        }
        if *trouble > 0 { write!(f, ", {trouble} refused or closed") } else { Ok(()) }
    }
}

/// Loads a server as the options say, until the end or until `stop`; tells about it once a second.
///
/// # Errors
/// [`CannotRun`] if there is nothing to report.
pub async fn run(
    options: &Options,
    stop: CancellationToken,
    tell: impl Fn(RunProgress),
) -> Result<RunReport, CannotRun> {
    options.check()?;
    allow_sockets(options.members())?;
    let offer = if options.deflate { CompressionOffer::Deflate } else { CompressionOffer::Nothing };
    let mut doors = Vec::with_capacity(options.urls.len());
    for url in &options.urls {
        doors.push(Endpoint::find(url.clone(), offer).await?);
    }
    let world = Rc::new(RunContext::new(doors));
    let monitors = NatsMonitors::new(&options.nats)?;
    let run = Run { options, world: world.clone(), monitors: &monitors, stop, tell: &tell };
    LocalSet::new().run_until(run.all(Crowd::new(world, options))).await
}

struct Run<'a, T> {
    options: &'a Options,
    world: Rc<RunContext>,
    monitors: &'a NatsMonitors,
    stop: CancellationToken,
    tell: &'a T,
}

/// The run was stopped.
struct Stopped;

impl<T: Fn(RunProgress)> Run<'_, T> {
    async fn all(self, mut crowd: Crowd) -> Result<RunReport, CannotRun> {
        let before = self.look()?;
        let begin = now();
        let mut measured = Measured { before, ..Measured::default() };
        if let Ok(gathered) = self.meanwhile(RunStep::Joining, crowd.gather()).await {
            gathered?;
            measured.joining = begin.elapsed();
            // Figures of part of the crowd would be of another test.
            if self.meanwhile(RunStep::WarmingUp, sleep(self.options.warm_up)).await.is_ok() {
                self.measure(&mut crowd, &mut measured).await?;
            }
        }
        let is_whole = !self.stop.is_cancelled();
        // After a stop all users still leave properly; only a second Ctrl-C skips that.
        let leaving = Run { stop: CancellationToken::new(), world: self.world.clone(), ..self };
        let _ = leaving.meanwhile(RunStep::Leaving, crowd.leave()).await;
        let counts = std::mem::take(&mut *self.world.counts.borrow_mut());
        Ok(RunReport::new(self.options, is_whole, counts, measured))
    }

    async fn measure(&self, crowd: &mut Crowd, measured: &mut Measured) -> Result<(), CannotRun> {
        let bus = self.monitors.read().await?;
        let (begin, own, server) = (now(), own_cpu(), self.look()?);
        measured.sockets = self.world.counts.borrow().present();
        self.world.stage.set(RunStage::Measured);
        let measuring = async {
            select! {
                () = sleep(self.options.duration) => {}
                () = crowd.churn() => {}
            }
        };
        let _ = self.meanwhile(RunStep::Measuring, measuring).await;
        self.world.stage.set(RunStage::Quiet);
        measured.time = begin.elapsed();
        measured.own_cpu = own_cpu().saturating_sub(own);
        // A server that did not survive the test is a result, too.
        let after = self.look().ok().flatten();
        measured.server = server.zip(after).map(|(joined, after)| Used {
            cpu: after.cpu.saturating_sub(joined.cpu),
            joined_bytes: joined.resident_bytes,
            after_bytes: after.resident_bytes,
        });
        let traffic = self.monitors.read().await.ok().flatten();
        measured.bus = bus.zip(traffic).map(|(before, after)| BusTraffic::between(before, after));
        // A stop is not delayed.
        let _ = self.meanwhile(RunStep::Draining, self.drain(crowd)).await;
        measured.differing_rooms = crowd.differing_rooms();
        Ok(())
    }

    /// Waits until all measured updates were seen, in presences too, or nothing is seen any more.
    async fn drain(&self, crowd: &Crowd) {
        let begin = now();
        let mut last = (0, begin);
        loop {
            let (settled, watched) = {
                let counts = self.world.counts.borrow();
                (counts.sightings.settled(), counts.watched)
            };
            if settled > last.0 {
                last = (settled, now());
            }
            let is_done = settled >= watched && crowd.differing_rooms() == 0;
            if is_done || last.1.elapsed() > SILENCE || begin.elapsed() > LONGEST_DRAIN {
                return;
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Looks at the servers' processes, if there are any to look at.
    fn look(&self) -> Result<Option<ProcessUsage>, NoProcess> {
        usage_of_all(&self.options.pids)
    }

    /// Does some work, unless it is stopped, and tells about it.
    async fn meanwhile<W>(&self, step: RunStep, work: impl Future<Output = W>) -> Result<W, Stopped> {
        let mut progress = interval(PROGRESS);
        progress.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tokio::pin!(work);
        loop {
            select! {
                biased;
                () = self.stop.cancelled() => return Err(Stopped),
                _ = progress.tick() => (self.tell)(self.progress(step)),
                done = &mut work => return Ok(done),
            }
        }
    }

    fn progress(&self, step: RunStep) -> RunProgress {
        let counts = self.world.counts.borrow();
        RunProgress {
            step,
            asked: self.options.members(),
            present: counts.present(),
            updates: counts.sent,
            p99: counts.sightings.latencies.quantile(0.99),
            trouble: counts.refused() + counts.lost(),
        }
    }
}
