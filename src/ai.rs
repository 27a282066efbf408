//! The AI participant's jobs: invite it, subscribe it to a member's track, end it. Rooms start jobs without
//! waiting for them.
//!
//! An AI bills as long as its track is open, and the media API cannot end a session. So an open track
//! always has an owner: the job, as an [`OpenTrack`] that closes the track when dropped, or the room that
//! took it over.

pub mod job;
mod services;
mod wire;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::runtime;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, error, info, warn};

use crate::calls::upstream::Upstream;
use crate::config::{AiConfig as AiSettings, Calls};
use crate::id::{MeetingId, RoomName, SessionId};
use crate::limit::{KeyedLimit, Rate};
use crate::metrics::{ByOutcome, Metrics};
use crate::network::ClientNetwork;
use crate::protocol::ai::{AiWish, TrackReference};
use job::{AiJob, AiSession};
use services::Services;
use wire::{Cause, JobStep, StepFailure};

/// Pauses before retrying to close a track.
const PAUSES: [Duration; 5] = [
    Duration::from_millis(250),
    Duration::from_secs(1),
    Duration::from_secs(4),
    Duration::from_secs(15),
    Duration::from_secs(30),
];

/// Pause between, and number of, further attempts to close a track: for a day.
const LATE_PAUSE: Duration = Duration::from_secs(60);
const LATE_TRIES: usize = 24 * 60;

/// A handle to the owner of the AI's jobs. Clones share the same owner.
#[derive(Clone, Debug)]
pub struct AiHandle {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    services: Services,
    /// Timeout of a whole job.
    timeout: Duration,
    /// Rate limit of invitations of rooms of one network, each of which costs money.
    starts: KeyedLimit<ClientNetwork>,
    tasks: TaskTracker,
    /// Spawns tasks; a track may be dropped outside of the runtime.
    runtime: runtime::Handle,
    /// Cancels jobs.
    stop: CancellationToken,
    /// Cancels the attempts to close tracks.
    give_up: CancellationToken,
    unclosed: AtomicUsize,
    metrics: Arc<Metrics>,
    /// Rate limit of warnings that network input can cause.
    warnings: DefaultDirectRateLimiter,
}

/// A job in progress. Dropping it cancels the job.
#[derive(Debug)]
pub struct Running {
    job: AiJob,
    report: oneshot::Receiver<JobReport>,
}

/// The outcome of a job.
#[derive(Debug)]
pub enum JobReport {
    /// The AI joined with this track.
    Came(OpenTrack),
    /// The AI is subscribed to the requested track.
    Hears,
    /// The job failed. The log has the cause.
    Failed,
}

/// An AI's open track; dropping it closes the track.
#[derive(Debug)]
#[must_use]
pub struct OpenTrack {
    session: AiSession,
    closer: Option<AiHandle>,
}

/// The kind of a job, as a label in metrics and logs.
type JobKind = &'static str;

impl OpenTrack {
    /// The track's session.
    pub fn session(&self) -> &AiSession {
        &self.session
    }

    /// Hands the duty to close the track over to the room.
    pub fn hand_over(mut self) {
        self.closer = None;
    }
}

impl Drop for OpenTrack {
    fn drop(&mut self) {
        if let Some(closer) = self.closer.take() {
            closer.close(self.session.clone());
        }
    }
}

impl Running {
    /// The job's number, assigned by the room.
    pub fn job(&self) -> AiJob {
        self.job
    }

    /// Waits for the job's outcome.
    pub async fn report(&mut self) -> JobReport {
        (&mut self.report).await.unwrap_or(JobReport::Failed)
    }
}

impl AiHandle {
    /// Creates the AI. With incomplete settings every job fails at once.
    ///
    /// # Errors
    /// If the HTTP client cannot be created.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn new(
        upstream: Arc<Upstream>,
        calls: &Calls,
        ai: &AiSettings,
        starts_of_network: Rate,
        metrics: Arc<Metrics>,
    ) -> Result<Self, reqwest::Error> {
        let quota = Quota::per_second(NonZeroU32::MIN).allow_burst(const { NonZeroU32::new(10).unwrap() });
        let inner = Inner {
            services: Services::new(upstream, calls, ai)?,
            timeout: ai.timeout,
            starts: KeyedLimit::rate(starts_of_network),
            tasks: TaskTracker::new(),
            runtime: runtime::Handle::current(),
            stop: CancellationToken::new(),
            give_up: CancellationToken::new(),
            unclosed: AtomicUsize::new(0),
            metrics,
            warnings: RateLimiter::direct(quota),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Starts to invite an AI into a room that a client of `network` started. The limit is per network: clients
    /// can open any number of rooms, so a limit per room would be ineffective.
    pub fn invite(
        &self,
        job: AiJob,
        (room, network): (&RoomName, Option<ClientNetwork>),
        meeting: MeetingId,
        wish: AiWish,
    ) -> Running {
        if network.is_some_and(|network| self.inner.starts.check(&network).is_err()) {
            let why = "limits.ai_starts_per_minute_per_network is reached";
            return self.inner.fail("invite", "rate_limited", job, (room, meeting), why);
        }
        let ai = self.clone();
        let work = async move { ai.handshake(meeting, wish).await.map(JobReport::Came) };
        self.start("invite", job, room, meeting, work)
    }

    /// Starts to subscribe a room's AI to a track.
    pub fn hear(&self, job: AiJob, room: &RoomName, session: AiSession, track: TrackReference) -> Running {
        let (inner, meeting) = (self.inner.clone(), session.meeting);
        let work = async move { inner.services.hear(&session, &track).await.map(|()| JobReport::Hears) };
        self.start("hear", job, room, meeting, work)
    }

    /// Prunes rate limit entries of idle networks.
    pub fn prune(&self) {
        self.inner.starts.prune();
    }

    /// Closes an AI's track, retrying if necessary.
    pub fn close(&self, session: AiSession) {
        let inner = self.inner.clone();
        self.inner.tasks.spawn_on(async move { inner.close(session).await }, &self.inner.runtime);
    }

    /// Cancels all jobs; new ones fail from now on. Tracks that they opened are closed.
    pub fn stop_jobs(&self) {
        self.inner.stop.cancel();
    }

    /// Waits until all jobs have ended and all tracks to be closed are closed.
    ///
    /// Gives up at `deadline`; returns the number of tracks left open for good.
    pub async fn shutdown(&self, deadline: Instant) -> usize {
        self.stop_jobs();
        self.inner.tasks.close();
        if timeout_at(deadline, self.inner.tasks.wait()).await.is_err() {
            self.inner.give_up.cancel();
            self.inner.tasks.wait().await;
        }
        self.inner.unclosed.load(Ordering::Relaxed)
    }

    fn start(
        &self,
        kind: JobKind,
        job: AiJob,
        room: &RoomName,
        meeting: MeetingId,
        work: impl Future<Output = Result<JobReport, StepFailure>> + Send + 'static,
    ) -> Running {
        if let Some(missing) = self.inner.services.missing() {
            return self.inner.fail(kind, "not_configured", job, (room, meeting), &missing);
        }
        let (tell, report) = oneshot::channel();
        let run = self.inner.clone().run(kind, room.clone(), meeting, tell, work);
        self.inner.tasks.spawn_on(run, &self.inner.runtime);
        Running { job, report }
    }

    /// Steps 1 to 4 of protocol section 6. If it ends early, dropping [`OpenTrack`] closes an opened track.
    async fn handshake(&self, meeting: MeetingId, wish: AiWish) -> Result<OpenTrack, StepFailure> {
        let session = self.inner.services.new_session(meeting).await?;
        let (opened, offer) = self.open_track(meeting, session).await?;
        let answer = self.inner.services.ask_model(&wish, offer).await?;
        self.inner.services.renegotiate(opened.session(), &answer).await?;
        Ok(opened)
    }

    /// Opens the track in a separate task: a cancelled call could otherwise leave an open track without an owner.
    async fn open_track(
        &self,
        meeting: MeetingId,
        session: SessionId,
    ) -> Result<(OpenTrack, String), StepFailure> {
        let (tell, told) = oneshot::channel();
        let ai = self.clone();
        let open = async move {
            let opened = tokio::select! {
                opened = ai.try_open(meeting, session) => opened,
                () = ai.inner.give_up.cancelled() => return,
            };
            // Without a receiver the track is dropped here, and so closed.
            let _ = tell.send(opened);
        };
        self.inner.tasks.spawn_on(open, &self.inner.runtime);
        told.await.unwrap_or(Err(StepFailure { step: JobStep::NewTracks, cause: Cause::Stopping }))
    }

    async fn try_open(
        &self,
        meeting: MeetingId,
        session: SessionId,
    ) -> Result<(OpenTrack, String), StepFailure> {
        let failed = |cause| StepFailure { step: JobStep::NewTracks, cause };
        // After an ambiguous failure the track may be open, so it is closed.
        let or_close = |failure: StepFailure| {
            if failure.cause.is_ambiguous() {
                let (track_name, mid) = (wire::TRACK_NAME.into(), wire::OWN_MID.into());
                self.close(AiSession { meeting, session: session.clone(), track_name, mid });
            }
            failure
        };
        let answered = self.inner.services.new_track(meeting, &session).await.map_err(or_close)?;
        let (mid, track_name) = answered.track().map_err(failed).map_err(or_close)?;
        let session = AiSession { meeting, session, track_name: track_name.into(), mid: mid.into() };
        let opened = OpenTrack { session, closer: Some(self.clone()) };
        let offer = answered.offer().map_err(failed)?;
        Ok((opened, offer))
    }
}

impl Inner {
    /// Returns a job that failed at once.
    fn fail(
        &self,
        kind: JobKind,
        outcome: &'static str,
        job: AiJob,
        (room, meeting): (&RoomName, MeetingId),
        why: &str,
    ) -> Running {
        self.count(kind, outcome);
        self.warn(room, meeting, kind, why);
        let (tell, report) = oneshot::channel();
        let _ = tell.send(JobReport::Failed);
        Running { job, report }
    }

    async fn run(
        self: Arc<Self>,
        kind: JobKind,
        room: RoomName,
        meeting: MeetingId,
        mut tell: oneshot::Sender<JobReport>,
        work: impl Future<Output = Result<JobReport, StepFailure>>,
    ) {
        let result = tokio::select! {
            biased;
            () = tell.closed() => None,
            () = self.stop.cancelled() => None,
            result = timeout(self.timeout, work) => Some(result),
        };
        let report = match result {
            None => {
                self.count(kind, "cancelled");
                debug!(event = "aiJobCancelled", room = room.as_str(), meeting_id = %meeting, kind);
                JobReport::Failed
            }
            Some(Ok(Ok(report))) => {
                self.count(kind, "done");
                info!(event = "aiJobDone", room = room.as_str(), meeting_id = %meeting, kind);
                report
            }
            Some(Ok(Err(failure))) => {
                self.count(kind, "failed");
                self.warn(&room, meeting, kind, &failure.to_string());
                JobReport::Failed
            }
            Some(Err(_)) => {
                self.count(kind, "timed_out");
                self.warn(&room, meeting, kind, "the whole took longer than ai.timeout");
                JobReport::Failed
            }
        };
        // Without a receiver an opened track is dropped here, and so closed.
        let _ = tell.send(report);
    }

    async fn close(&self, session: AiSession) {
        let AiSession { meeting, session: id, .. } = &session;
        let first = tokio::select! {
            closed = persist(|| self.services.close(&session)) => closed,
            () = self.give_up.cancelled() => Err(StepFailure { step: JobStep::CloseTracks, cause: Cause::Stopping }),
        };
        let Err(failure) = first else { return self.closed(*meeting, id) };
        self.count("close", "failed");
        self.unclosed.fetch_add(1, Ordering::Relaxed);
        // Not rate-limited: each of these lines is an AI that continues to bill.
        error!(event = "aiTrackNotClosed", meeting_id = %meeting, session = %id, cause = %failure);
        if !failure.cause.is_passing() {
            return;
        }
        for _ in 0..LATE_TRIES {
            tokio::select! {
                () = sleep(LATE_PAUSE) => {}
                // A last attempt, for which a shutdown has time.
                () = self.stop.cancelled() => {}
            }
            let stopping = self.stop.is_cancelled();
            let closed = tokio::select! {
                closed = self.services.close(&session) => closed.is_ok(),
                () = self.give_up.cancelled() => false,
            };
            if closed {
                self.unclosed.fetch_sub(1, Ordering::Relaxed);
                return self.closed(*meeting, id);
            }
            if stopping {
                return;
            }
        }
    }

    fn closed(&self, meeting: MeetingId, session: &SessionId) {
        self.count("close", "done");
        info!(event = "aiTrackClosed", meeting_id = %meeting, session = %session);
    }

    fn count(&self, job: JobKind, outcome: &'static str) {
        self.metrics.ai_jobs.get_or_create(&ByOutcome { kind: job, outcome }).inc();
    }

    fn warn(&self, room: &RoomName, meeting: MeetingId, kind: JobKind, cause: &str) {
        let room = room.as_str();
        match self.warnings.check() {
            Ok(()) => warn!(event = "aiJobFailed", room, meeting_id = %meeting, kind, cause),
            Err(_) => debug!(event = "aiJobFailed", room, meeting_id = %meeting, kind, cause),
        }
    }
}

/// Retries transient failures with increasing pauses.
async fn persist<Try>(mut attempt: impl FnMut() -> Try) -> Result<(), StepFailure>
where
    Try: Future<Output = Result<(), StepFailure>>,
{
    for pause in PAUSES {
        match attempt().await {
            Err(failure) if failure.cause.is_passing() => {
                debug!(event = "aiTrackStillOpen", cause = %failure, ?pause);
                sleep(pause).await;
            }
            result => return result,
        }
    }
    attempt().await
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "a test of pauses looks at the paused clock")]
    fn now() -> Instant {
        Instant::now()
    }

    fn failure(status: u16) -> Result<(), StepFailure> {
        let status = StatusCode::from_u16(status).unwrap();
        Err(StepFailure { step: JobStep::CloseTracks, cause: Cause::Status { status, code: None } })
    }

    /// Returns the result, number and duration of attempts with these outcomes.
    async fn persisted(mut ends: Vec<Result<(), StepFailure>>) -> (Result<(), StepFailure>, usize, Duration) {
        let start = now();
        let mut tries = 0;
        let result = persist(|| {
            tries += 1;
            std::future::ready(ends.remove(0))
        });
        (result.await, tries, now() - start)
    }

    #[tokio::test(start_paused = true)]
    async fn transient_failures_are_retried_within_bounds() {
        let quarter = Duration::from_millis(250);
        assert_eq!(persisted(vec![Ok(())]).await, (Ok(()), 1, Duration::ZERO));
        assert_eq!(persisted(vec![failure(503), failure(406), Ok(())]).await, (Ok(()), 3, 5 * quarter));
        assert_eq!(persisted(vec![failure(403)]).await, (failure(403), 1, Duration::ZERO));
        let down = (0..6).map(|_| failure(502)).collect();
        assert_eq!(persisted(down).await, (failure(502), 6, PAUSES.iter().sum()));
    }
}
