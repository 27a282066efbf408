//! Agents: programs in a room with a session at the media API. The AI participant ([`crate::ai`]) is the first kind.
//!
//! Rooms start an agent's jobs without waiting for them. An agent may bill as long as its track is open, and the
//! media API cannot end a session. So an open track always has an owner: the job, as an [`OpenSession`] that closes
//! the track when dropped, or the room that took it over. It is closed once.

pub mod failure;
pub mod job;
mod media;
mod wire;

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use tokio::runtime;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, error, info, warn};

use crate::id::{MeetingId, RoomName, SessionId};
use crate::media_api::upstream::Upstream;
use crate::metrics::ByOutcome;
use failure::{Cause, JobStep, StepFailure};
use job::{AgentJob, AgentSession};
pub use media::ANSWER_BYTES;
use media::Media;
pub use wire::is_sdp;

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

/// The properties of a kind of agent.
#[derive(Debug)]
pub struct AgentKind {
    /// Timeout of a whole job.
    pub timeout: Duration,
    /// The setting of that timeout.
    pub timeout_setting: &'static str,
    /// Counter of jobs.
    pub jobs: Family<ByOutcome, Counter>,
    /// Names of log events.
    pub events: AgentEvents,
}

/// The names of a kind's log events.
#[derive(Debug)]
pub struct AgentEvents {
    /// A job has succeeded.
    pub job_done: &'static str,
    /// A job has failed or timed out.
    pub job_failed: &'static str,
    /// A job was cancelled.
    pub job_cancelled: &'static str,
    /// A track is closed.
    pub track_closed: &'static str,
    /// A track could not be closed, which is tried again.
    pub track_still_open: &'static str,
    /// A track could not be closed.
    pub track_not_closed: &'static str,
}

/// A handle to the owner of the jobs and open sessions of one kind of agent. Clones share the same owner.
#[derive(Clone)]
pub struct Agents {
    inner: Arc<Inner>,
}

struct Inner {
    kind: AgentKind,
    media: Media,
    tasks: TaskTracker,
    /// Spawns tasks; a session may be dropped outside of the runtime.
    runtime: runtime::Handle,
    /// Cancels jobs.
    stop: CancellationToken,
    /// Cancels the attempts to close tracks.
    give_up: CancellationToken,
    unclosed: AtomicUsize,
    /// Rate limit of warnings that network input can cause.
    warnings: DefaultDirectRateLimiter,
}

/// A job in progress. Dropping it cancels the job.
#[derive(Debug)]
pub struct RunningJob {
    job: AgentJob,
    report: oneshot::Receiver<JobReport>,
}

/// The outcome of a job.
#[derive(Debug)]
pub enum JobReport {
    /// The agent joined with this session.
    Opened(OpenSession),
    /// The job is done.
    Done,
    /// The job failed. The log has the cause.
    Failed,
}

/// An agent's session with an open track; dropping it closes the track.
#[derive(Debug)]
#[must_use]
pub struct OpenSession {
    session: AgentSession,
    closer: Option<Agents>,
}

/// The kind of a job, as a label in metrics and logs.
type JobKind = &'static str;

impl OpenSession {
    /// The session.
    pub fn session(&self) -> &AgentSession {
        &self.session
    }

    /// Hands the duty to close the track over to the room.
    pub fn hand_over(mut self) {
        self.closer = None;
    }
}

impl Drop for OpenSession {
    fn drop(&mut self) {
        if let Some(closer) = self.closer.take() {
            closer.close(self.session.clone());
        }
    }
}

impl RunningJob {
    /// The job's number, assigned by the room.
    pub fn job(&self) -> AgentJob {
        self.job
    }

    /// Waits for the job's outcome.
    pub async fn report(&mut self) -> JobReport {
        (&mut self.report).await.unwrap_or(JobReport::Failed)
    }
}

impl Agents {
    /// The owner of a kind's jobs. `extra_params` are added to every call of the media API.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn new(kind: AgentKind, upstream: Arc<Upstream>, extra_params: Option<&str>) -> Self {
        let quota = Quota::per_second(NonZeroU32::MIN).allow_burst(const { NonZeroU32::new(10).unwrap() });
        let inner = Inner {
            kind,
            media: Media::new(upstream, extra_params),
            tasks: TaskTracker::new(),
            runtime: runtime::Handle::current(),
            stop: CancellationToken::new(),
            give_up: CancellationToken::new(),
            unclosed: AtomicUsize::new(0),
            warnings: RateLimiter::direct(quota),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The settings without which no session can be opened.
    pub fn missing(&self) -> Option<&str> {
        self.inner.media.missing()
    }

    /// Starts a job.
    pub fn start(
        &self,
        label: JobKind,
        job: AgentJob,
        room: &RoomName,
        meeting: MeetingId,
        work: impl Future<Output = Result<JobReport, StepFailure>> + Send + 'static,
    ) -> RunningJob {
        let (reported, report) = oneshot::channel();
        let run = self.inner.clone().run(label, room.clone(), meeting, reported, work);
        self.inner.tasks.spawn_on(run, &self.inner.runtime);
        RunningJob { job, report }
    }

    /// Returns a job that failed at once.
    pub fn fail(
        &self,
        label: JobKind,
        outcome: &'static str,
        job: AgentJob,
        (room, meeting): (&RoomName, MeetingId),
        why: &str,
    ) -> RunningJob {
        self.inner.count(label, outcome);
        self.inner.warn(room, meeting, label, why);
        let (reported, report) = oneshot::channel();
        let _ = reported.send(JobReport::Failed);
        RunningJob { job, report }
    }

    /// Opens a session in a room with a track of this name, which `body` publishes, and returns it with the media API's
    /// SDP offer. If the job ends early, dropping the session closes the track.
    pub async fn open(
        &self,
        (room, meeting): (&RoomName, MeetingId),
        track_name: &'static str,
        body: &'static str,
    ) -> Result<(OpenSession, String), StepFailure> {
        let session = self.inner.media.new_session(room, meeting).await?;
        // In a separate task: a cancelled call could otherwise leave an open track without an owner.
        let (opened, answer) = oneshot::channel();
        let agents = self.clone();
        let open = async move {
            let result = tokio::select! {
                result = agents.open_track(meeting, session, track_name, body) => result,
                () = agents.inner.give_up.cancelled() => return,
            };
            // Without a receiver the session is dropped here, and so its track is closed.
            let _ = opened.send(result);
        };
        self.inner.tasks.spawn_on(open, &self.inner.runtime);
        answer.await.unwrap_or(Err(StepFailure { step: JobStep::NewTracks, cause: Cause::Stopping }))
    }

    async fn open_track(
        &self,
        meeting: MeetingId,
        session: SessionId,
        track_name: &'static str,
        body: &'static str,
    ) -> Result<(OpenSession, String), StepFailure> {
        let failed = |cause| StepFailure { step: JobStep::NewTracks, cause };
        // After an ambiguous failure the track may be open, so it is closed.
        let or_close = |failure: StepFailure| {
            if failure.cause.is_ambiguous() {
                // The API's name of a track whose `mid` is unknown.
                let mid = format!("#{track_name}").into();
                let (session, track_name) = (session.clone(), track_name.into());
                self.close(AgentSession { meeting, session, track_name, mid });
            }
            failure
        };
        let new_tracks = self.inner.media.new_tracks(meeting, &session, body.to_owned());
        let answered = new_tracks.await.map_err(or_close)?;
        let (mid, track_name) = answered.track(track_name).map_err(failed).map_err(or_close)?;
        let session = AgentSession { meeting, session, track_name: track_name.into(), mid: mid.into() };
        let opened = OpenSession { session, closer: Some(self.clone()) };
        let offer = answered.offer().map_err(failed)?;
        Ok((opened, offer))
    }

    /// Answers the offer of a session's track.
    pub async fn renegotiate(&self, on: &AgentSession, answer: &str) -> Result<(), StepFailure> {
        self.inner.media.renegotiate(on, answer).await
    }

    /// Subscribes a session to tracks of others, as `body` says.
    pub async fn subscribe(&self, on: &AgentSession, body: String) -> Result<(), StepFailure> {
        self.inner.media.new_tracks(on.meeting, &on.session, body).await.map(drop)
    }

    /// Closes an agent's track, retrying if necessary.
    pub fn close(&self, session: AgentSession) {
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
}

impl fmt::Debug for Agents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agents").field("kind", &self.inner.kind).finish_non_exhaustive()
    }
}

impl Inner {
    async fn run(
        self: Arc<Self>,
        kind: JobKind,
        room: RoomName,
        meeting: MeetingId,
        mut reported: oneshot::Sender<JobReport>,
        work: impl Future<Output = Result<JobReport, StepFailure>>,
    ) {
        let result = tokio::select! {
            biased;
            () = reported.closed() => None,
            () = self.stop.cancelled() => None,
            result = timeout(self.kind.timeout, work) => Some(result),
        };
        let report = match result {
            None => {
                self.count(kind, "cancelled");
                debug!(event = self.kind.events.job_cancelled, room = room.as_str(), meeting_id = %meeting, kind);
                JobReport::Failed
            }
            Some(Ok(Ok(report))) => {
                self.count(kind, "done");
                info!(event = self.kind.events.job_done, room = room.as_str(), meeting_id = %meeting, kind);
                report
            }
            Some(Ok(Err(failure))) => {
                self.count(kind, "failed");
                self.warn(&room, meeting, kind, &failure.to_string());
                JobReport::Failed
            }
            Some(Err(_)) => {
                self.count(kind, "timed_out");
                self.warn(
                    &room,
                    meeting,
                    kind,
                    &format!("the whole took longer than {}", self.kind.timeout_setting),
                );
                JobReport::Failed
            }
        };
        // Without a receiver an opened session is dropped here, and so its track is closed.
        let _ = reported.send(report);
    }

    async fn close(&self, session: AgentSession) {
        let AgentSession { meeting, session: id, .. } = &session;
        let first = tokio::select! {
            closed = close_persistently(self.kind.events.track_still_open, || self.media.close(&session)) => closed,
            () = self.give_up.cancelled() => Err(StepFailure { step: JobStep::CloseTracks, cause: Cause::Stopping }),
        };
        let Err(failure) = first else { return self.closed(*meeting, id) };
        self.count("close", "failed");
        self.unclosed.fetch_add(1, Ordering::Relaxed);
        // Not rate-limited: each of these lines is an agent that continues to bill.
        error!(event = self.kind.events.track_not_closed, meeting_id = %meeting, session = %id, cause = %failure);
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
                closed = self.media.close(&session) => closed.is_ok(),
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
        info!(event = self.kind.events.track_closed, meeting_id = %meeting, session = %session);
    }

    fn count(&self, job: JobKind, outcome: &'static str) {
        self.kind.jobs.get_or_create(&ByOutcome { kind: job, outcome }).inc();
    }

    fn warn(&self, room: &RoomName, meeting: MeetingId, kind: JobKind, cause: &str) {
        let room = room.as_str();
        match self.warnings.check() {
            Ok(()) => warn!(event = self.kind.events.job_failed, room, meeting_id = %meeting, kind, cause),
            Err(_) => debug!(event = self.kind.events.job_failed, room, meeting_id = %meeting, kind, cause),
        }
    }
}

/// Retries transient failures with increasing pauses.
async fn close_persistently<Try>(
    still_open: &'static str,
    mut attempt: impl FnMut() -> Try,
) -> Result<(), StepFailure>
where
    Try: Future<Output = Result<(), StepFailure>>,
{
    for pause in PAUSES {
        match attempt().await {
            Err(failure) if failure.cause.is_passing() => {
                debug!(event = still_open, cause = %failure, ?pause);
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
        let result = close_persistently("trackStillOpen", || {
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
