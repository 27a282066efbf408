//! State of the AI participant in a room: an agent, and the member it listens to. No clock, no network.
//!
//! Source: protocol section 6.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::agent::{AgentChange, AgentStage, RoomAgent};
use super::io::{AgentOutcome, AgentTask};
use crate::agent::job::{AgentJob, AgentSession};
use crate::id::{MeetingId, SessionId, UserId};
use crate::protocol::ai::{AiMessage, AiWish, TrackReference, encode_ai_user};
use crate::protocol::error_code::error_code;
use crate::protocol::server::AiState;

/// Window of the limit on invitations.
const MINUTE: Duration = Duration::from_secs(60);

/// The AI of a room.
#[derive(Debug)]
pub struct Ai {
    agent: RoomAgent<Presence>,
    /// Maximum number of invitations per minute; 0 is no limit.
    most_invitations: u32,
    /// Times of the invitations in the last minute.
    invitations: VecDeque<Instant>,
}

#[derive(Debug)]
struct Presence {
    /// The user object as JSON.
    user: Arc<str>,
    /// The member it listens to.
    holder: Option<UserId>,
    /// The pending request for control: its job, and the member.
    request: Option<(AgentJob, UserId)>,
}

/// Consequences of an input to the AI's state.
#[derive(Debug, Default, PartialEq)]
pub struct AiTurn {
    /// Tasks to run, in order.
    pub tasks: Vec<AgentTask>,
    /// True if everyone is to be sent the new state.
    pub is_news: bool,
    /// The member whose request was refused, and the reason.
    pub refused: Option<(UserId, &'static str)>,
}

/// Persistent form of the AI: the public state, and the session needed to close it.
#[derive(Serialize, Deserialize)]
struct SavedAi {
    #[serde(flatten)]
    state: AiState,
    /// Missing in records of older versions.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    session: Option<SavedSession>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SavedSession {
    session_id: String,
    track_name: Arc<str>,
    mid: Arc<str>,
}

impl AiTurn {
    fn news(tasks: Vec<AgentTask>) -> Self {
        Self { tasks, is_news: true, refused: None }
    }

    fn task(task: AgentTask) -> Self {
        Self { tasks: vec![task], ..Self::default() }
    }

    fn refused(user: &UserId, why: &'static str) -> Self {
        debug_assert!(error_code(why).is_some(), "pages have no text for {why:?}");
        Self { refused: Some((user.clone(), why)), ..Self::default() }
    }
}

impl Ai {
    /// An absent AI with a limit of invitations per minute; 0 is no limit.
    pub fn new(most_invitations: u32) -> Self {
        let agent = RoomAgent::new(AgentStage::Away);
        Self { agent, most_invitations, invitations: VecDeque::new() }
    }

    /// Restores the AI from the output of [`Self::to_saved`]; one that was connecting has failed.
    ///
    /// It listens to the same member as before only if `is_member` still knows it.
    pub fn restore(
        most_invitations: u32,
        meeting: MeetingId,
        saved: &str,
        is_member: impl Fn(&UserId) -> bool,
    ) -> Self {
        let stage = match serde_json::from_str::<SavedAi>(saved) {
            Err(_) => AgentStage::Away,
            Ok(SavedAi { state, session }) => match session.and_then(|session| session.read(meeting)) {
                Some(session) => {
                    let holder = state.controlling_user.and_then(|user| UserId::parse(&user).ok());
                    let presence = Presence::new(&session, holder.filter(is_member));
                    AgentStage::Present(session, presence)
                }
                None if state == AiState::default() => AgentStage::Away,
                None => AgentStage::Failed,
            },
        };
        Self { agent: RoomAgent::new(stage), ..Self::new(most_invitations) }
    }

    /// Encodes the persistent form as JSON.
    #[expect(clippy::expect_used, reason = "texts and booleans always serialize")]
    pub fn to_saved(&self) -> String {
        let session = self.session().map(|session| SavedSession {
            session_id: session.session.to_string(),
            track_name: session.track_name.clone(),
            mid: session.mid.clone(),
        });
        serde_json::to_string(&SavedAi { state: self.state(), session }).expect("the AI is plain data")
    }

    /// Rewrites the output of [`Self::to_saved`] for a process that has lost the AI's session: a
    /// present AI has failed.
    pub fn without_session(saved: &str) -> String {
        match serde_json::from_str::<SavedAi>(saved) {
            Ok(SavedAi { session: Some(_), .. }) => {
                Self { agent: RoomAgent::new(AgentStage::Failed), ..Self::new(0) }.to_saved()
            }
            _ => saved.to_owned(),
        }
    }

    /// The public state.
    pub fn state(&self) -> AiState {
        match self.agent.stage() {
            AgentStage::Away => AiState::default(),
            AgentStage::Failed => AiState::failed(),
            AgentStage::Starting(_) => AiState { connection_pending: Some(true), ..AiState::default() },
            AgentStage::Present(_, presence) => AiState {
                enabled: true,
                controlling_user: presence.holder.as_ref().map(UserId::to_string),
                error: None,
                connection_pending: Some(false),
            },
        }
    }

    /// The AI's user object as JSON, while it is present.
    pub fn user_json(&self) -> Option<&Arc<str>> {
        self.agent.present().map(|(_, presence)| &presence.user)
    }

    /// The session that the room's owner has to close if the room cannot.
    pub fn session(&self) -> Option<&AgentSession> {
        self.agent.present().map(|(session, _)| session)
    }

    /// Handles a member's request.
    pub fn message(&mut self, now: Instant, meeting: MeetingId, from: &UserId, message: AiMessage) -> AiTurn {
        match message {
            AiMessage::Enable(wish) => self.invite(now, meeting, from, wish),
            AiMessage::Disable => AiTurn::news(self.end()),
            AiMessage::RequestControl(track) => self.request_control(from, track),
            AiMessage::RelinquishControl => {
                let tasks = self.withdraw(from);
                if let Some((_, presence)) = self.agent.present_mut() {
                    presence.holder = None;
                }
                AiTurn::news(tasks)
            }
        }
    }

    /// Handles a job's result. A stale result does not change the state, but its session is closed.
    pub fn done(&mut self, job: AgentJob, outcome: AgentOutcome) -> AiTurn {
        let outcome = match self.agent.done(job, outcome, |session| Presence::new(session, None)) {
            AgentChange::Arrived | AgentChange::Failed => return AiTurn::news(Vec::new()),
            AgentChange::Unwanted(task) => return AiTurn::task(task),
            AgentChange::Other(outcome) => outcome,
        };
        let Some((_, presence)) = self.agent.present_mut() else { return AiTurn::default() };
        match presence.request.take_if(|(awaited, _)| *awaited == job) {
            None => AiTurn::default(),
            Some((_, user)) if outcome == AgentOutcome::Done => {
                presence.holder = Some(user);
                AiTurn::news(Vec::new())
            }
            Some((_, user)) => AiTurn::refused(&user, "the AI cannot hear you at this time"),
        }
    }

    /// Handles a member's departure.
    pub fn left(&mut self, user: &UserId) -> AiTurn {
        let tasks = self.withdraw(user);
        let presence = self.agent.present_mut().map(|(_, presence)| presence);
        let held = presence.and_then(|presence| presence.holder.take_if(|holder| holder == user));
        AiTurn { tasks, is_news: held.is_some(), refused: None }
    }

    /// Removes the AI, and returns the tasks for that.
    pub fn end(&mut self) -> Vec<AgentTask> {
        let (end, presence) = self.agent.end();
        let request = presence.and_then(|presence| presence.request);
        request.map(|(job, _)| AgentTask::Cancel(job)).into_iter().chain(end).collect()
    }

    fn invite(&mut self, now: Instant, meeting: MeetingId, from: &UserId, wish: AiWish) -> AiTurn {
        match self.agent.stage() {
            AgentStage::Starting(_) => return AiTurn::refused(from, "the AI is already on its way"),
            AgentStage::Present(..) => return AiTurn::refused(from, "the AI is already here"),
            AgentStage::Away | AgentStage::Failed => {}
        }
        if self.most_invitations > 0 {
            self.invitations.retain(|at| now.saturating_duration_since(*at) < MINUTE);
            if self.invitations.len() >= self.most_invitations as usize {
                return AiTurn::refused(from, "the AI was called too often; try again in a minute");
            }
            self.invitations.push_back(now);
        }
        let job = self.agent.start();
        AiTurn::news(vec![AgentTask::InviteAi { job, meeting, wish }])
    }

    fn request_control(&mut self, from: &UserId, track: TrackReference) -> AiTurn {
        let job = self.agent.next_job();
        let Some((session, presence)) = self.agent.present_mut() else {
            return AiTurn::refused(from, "the AI is not in this room");
        };
        if presence.request.is_some() {
            return AiTurn::refused(from, "somebody else's request to the AI is under way");
        }
        presence.request = Some((job, from.clone()));
        AiTurn::task(AgentTask::HearTrack { job, session: session.clone(), track })
    }

    /// Cancels a member's pending request for control.
    fn withdraw(&mut self, user: &UserId) -> Vec<AgentTask> {
        let Some((_, presence)) = self.agent.present_mut() else { return Vec::new() };
        let request = presence.request.take_if(|(_, from)| from == user);
        request.into_iter().map(|(job, _)| AgentTask::Cancel(job)).collect()
    }
}

impl Presence {
    fn new(session: &AgentSession, holder: Option<UserId>) -> Self {
        let user = encode_ai_user(&session.session, &session.track_name);
        Self { user: user.into(), holder, request: None }
    }
}

impl SavedSession {
    fn read(self, meeting: MeetingId) -> Option<AgentSession> {
        let Self { session_id, track_name, mid } = self;
        let session = SessionId::parse(&session_id).ok()?;
        Some(AgentSession { meeting, session, track_name, mid })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use proptest::prelude::*;

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "an instant can only be had from the clock")]
    fn start() -> Instant {
        Instant::now()
    }

    fn user(id: &str) -> UserId {
        UserId::parse(id).unwrap()
    }

    fn meeting() -> MeetingId {
        MeetingId::parse("6b1f4a2e-6c5c-4a0e-9d0e-3f1f6c1d2e3f").unwrap()
    }

    fn session(id: &str) -> AgentSession {
        AgentSession {
            meeting: meeting(),
            session: SessionId::parse(id).unwrap(),
            track_name: "ai-generated-voice".into(),
            mid: "7".into(),
        }
    }

    fn track() -> TrackReference {
        TrackReference { session: SessionId::parse("s").unwrap(), track_name: "mic".into() }
    }

    fn ask(ai: &mut Ai, from: &str, message: AiMessage) -> AiTurn {
        ai.message(start(), meeting(), &user(from), message)
    }

    fn enable() -> AiMessage {
        AiMessage::Enable(AiWish::default())
    }

    fn request() -> AiMessage {
        AiMessage::RequestControl(track())
    }

    /// A present AI; its invitation was job 1.
    fn here() -> Ai {
        let mut ai = Ai::new(0);
        ask(&mut ai, "a", enable());
        assert_eq!(ai.done(AgentJob(1), AgentOutcome::Opened(session("s1"))), AiTurn::news(Vec::new()));
        ai
    }

    fn refusal(turn: AiTurn) -> (String, &'static str) {
        assert!(turn.tasks.is_empty() && !turn.is_news, "{turn:?}");
        let (user, why) = turn.refused.unwrap();
        (user.to_string(), why)
    }

    #[test]
    fn one_invitation_at_a_time_is_pending() {
        let mut ai = Ai::new(0);
        let wish = AiWish { voice: Some("alloy".into()), instructions: None };
        let turn = ask(&mut ai, "a", AiMessage::Enable(wish.clone()));
        let invite = AgentTask::InviteAi { job: AgentJob(1), meeting: meeting(), wish };
        assert_eq!(turn, AiTurn::news(vec![invite]));
        assert_eq!(ai.state().to_json(), r#"{"enabled":false,"connectionPending":true}"#);
        assert_eq!(refusal(ask(&mut ai, "b", enable())), ("b".to_owned(), "the AI is already on its way"));
        assert_eq!(ai.user_json(), None);
        ai.done(AgentJob(1), AgentOutcome::Opened(session("s1")));
        assert_eq!(ai.state().to_json(), r#"{"enabled":true,"connectionPending":false}"#);
        assert!(ai.user_json().unwrap().contains(r#""audio":"s1/ai-generated-voice""#));
        assert_eq!(refusal(ask(&mut ai, "b", enable())), ("b".to_owned(), "the AI is already here"));
    }

    #[test]
    fn failed_ai_can_be_invited_again() {
        let mut ai = Ai::new(0);
        ask(&mut ai, "a", enable());
        assert_eq!(ai.done(AgentJob(1), AgentOutcome::Failed), AiTurn::news(Vec::new()));
        assert_eq!(ai.state(), AiState::failed());
        ask(&mut ai, "a", AiMessage::RelinquishControl);
        assert_eq!(ai.state(), AiState::failed(), "as recorded");
        assert!(ask(&mut ai, "a", enable()).is_news);
        assert_eq!(ai.state().error, None);
    }

    #[test]
    fn late_session_of_a_disabled_ai_is_closed() {
        let mut ai = Ai::new(0);
        ask(&mut ai, "a", enable());
        assert_eq!(ask(&mut ai, "b", AiMessage::Disable), AiTurn::news(vec![AgentTask::Cancel(AgentJob(1))]));
        assert_eq!(ai.state(), AiState::default());
        ask(&mut ai, "a", enable());
        let late = ai.done(AgentJob(1), AgentOutcome::Opened(session("late")));
        assert_eq!(late, AiTurn::task(AgentTask::Close(session("late"))));
        assert_eq!(ai.done(AgentJob(1), AgentOutcome::Failed), AiTurn::default(), "job 2 is still under way");
        assert_eq!(ai.state().connection_pending, Some(true));
    }

    #[test]
    fn disabling_closes_the_session_and_cancels_jobs() {
        let mut ai = here();
        ask(&mut ai, "a", request());
        let tasks = vec![AgentTask::Cancel(AgentJob(2)), AgentTask::Close(session("s1"))];
        assert_eq!(ask(&mut ai, "b", AiMessage::Disable), AiTurn::news(tasks));
        assert_eq!(ai.done(AgentJob(2), AgentOutcome::Done), AiTurn::default());
        assert_eq!(ai.end(), [], "it is closed once");
    }

    #[test]
    fn control_passes_on_success_only() {
        let mut ai = here();
        let hear = AgentTask::HearTrack { job: AgentJob(2), session: session("s1"), track: track() };
        assert_eq!(ask(&mut ai, "a", request()), AiTurn::task(hear));
        let (who, why) = refusal(ask(&mut ai, "b", request()));
        assert_eq!((&*who, why), ("b", "somebody else's request to the AI is under way"));
        assert_eq!(ai.done(AgentJob(2), AgentOutcome::Done), AiTurn::news(Vec::new()));
        assert_eq!(ai.state().controlling_user.as_deref(), Some("a"));

        let AgentTask::HearTrack { job, .. } = ask(&mut ai, "b", request()).tasks.remove(0) else { panic!() };
        assert_eq!(
            refusal(ai.done(job, AgentOutcome::Failed)),
            ("b".to_owned(), "the AI cannot hear you at this time")
        );
        assert_eq!(ai.state().controlling_user.as_deref(), Some("a"), "it still hears a");
        assert!(ai.left(&user("a")).is_news);
        assert_eq!(ai.state().controlling_user, None);
        assert!(!ai.left(&user("b")).is_news);
    }

    #[test]
    fn withdrawn_control_request_has_no_effect() {
        for leaves in [true, false] {
            let mut ai = here();
            ask(&mut ai, "a", request());
            let turn = match leaves {
                true => ai.left(&user("a")),
                false => ask(&mut ai, "a", AiMessage::RelinquishControl),
            };
            assert_eq!(turn.tasks, [AgentTask::Cancel(AgentJob(2))]);
            assert_eq!(ai.done(AgentJob(2), AgentOutcome::Done), AiTurn::default());
            assert_eq!(ai.state().controlling_user, None);
        }
    }

    #[test]
    fn control_of_an_absent_ai_is_refused() {
        let mut ai = Ai::new(0);
        let refused = ("a".to_owned(), "the AI is not in this room");
        assert_eq!(refusal(ask(&mut ai, "a", request())), refused);
        ask(&mut ai, "a", enable());
        assert_eq!(refusal(ask(&mut ai, "a", request())), refused);
    }

    #[test]
    fn invitations_are_limited() {
        let (mut ai, now) = (Ai::new(2), start());
        let mut invite = |now: Instant| {
            let turn = ai.message(now, meeting(), &user("a"), enable());
            ai.end();
            turn.refused.map(|(_, why)| why)
        };
        assert_eq!((invite(now), invite(now + MINUTE / 2)), (None, None));
        let refused = Some("the AI was called too often; try again in a minute");
        assert_eq!(invite(now + MINUTE / 2), refused);
        assert_eq!((invite(now + MINUTE), invite(now + MINUTE)), (None, refused));
    }

    #[test]
    fn persisted_ai_is_restored() {
        let restore = |saved: &str| Ai::restore(0, meeting(), saved, |user| user.as_str() == "a");
        let mut ai = here();
        ask(&mut ai, "a", request());
        ai.done(AgentJob(2), AgentOutcome::Done);
        let saved = ai.to_saved();
        assert_eq!(
            saved,
            r#"{"enabled":true,"controllingUser":"a","connectionPending":false,"session":{"sessionId":"s1","trackName":"ai-generated-voice","mid":"7"}}"#
        );
        let mut restored = restore(&saved);
        assert_eq!((restored.state(), restored.user_json()), (ai.state(), ai.user_json()));
        assert_eq!(restored.end(), [AgentTask::Close(session("s1"))]);
        let mut lost = restore(&Ai::without_session(&saved));
        assert_eq!((lost.state(), lost.end()), (AiState::failed(), vec![]));
        let gone = Ai::restore(0, meeting(), &saved, |_| false);
        assert_eq!(gone.state().controlling_user, None);

        for failed in [
            r#"{"enabled":false,"connectionPending":true}"#,
            r#"{"enabled":true,"connectionPending":false,"session":{"sessionId":"../x","trackName":"t","mid":"0"}}"#,
            &AiState::failed().to_json(),
        ] {
            assert_eq!(restore(failed).state(), AiState::failed(), "{failed}");
        }
        for away in [r#"{"enabled":false}"#, "7", ""] {
            assert_eq!(restore(away).state(), AiState::default(), "{away}");
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Ask {
            user: u8,
            what: u8,
        },
        Left {
            user: u8,
        },
        /// A started job, chosen by index, reports, even if it was cancelled.
        Done {
            job: usize,
            well: bool,
        },
        End,
        Restart,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0..3u8, 0..4u8).prop_map(|(user, what)| Step::Ask { user, what }),
            1 => (0..3u8).prop_map(|user| Step::Left { user }),
            6 => (0..6usize, any::<bool>()).prop_map(|(job, well)| Step::Done { job, well }),
            1 => Just(Step::End),
            1 => Just(Step::Restart),
        ]
    }

    proptest! {
        /// Every session that a job reported is either held or was closed once.
        #[test]
        fn no_session_is_left_open(steps in prop::collection::vec(step(), 1..80)) {
            let mut ai = Ai::new(0);
            // Jobs that may still report, newest last; true for invitations.
            let mut jobs: Vec<(AgentJob, bool)> = Vec::new();
            let mut closed: BTreeMap<SessionId, u32> = BTreeMap::new();
            let mut reported: Vec<SessionId> = Vec::new();
            let mut cancelled: HashMap<AgentJob, u32> = HashMap::new();
            for step in steps {
                let turn = match step {
                    Step::Ask { user: from, what } => {
                        let message = match what {
                            0 => enable(),
                            1 => AiMessage::Disable,
                            2 => request(),
                            _ => AiMessage::RelinquishControl,
                        };
                        ask(&mut ai, &format!("u{from}"), message)
                    }
                    Step::Left { user: gone } => ai.left(&user(&format!("u{gone}"))),
                    Step::Done { job, well } => {
                        if jobs.is_empty() {
                            continue;
                        }
                        let (job, is_invitation) = jobs.remove(job % jobs.len());
                        let outcome = match (well, is_invitation) {
                            (false, _) => AgentOutcome::Failed,
                            (true, false) => AgentOutcome::Done,
                            (true, true) => {
                                let new = session(&format!("s{}", reported.len()));
                                reported.push(new.session.clone());
                                AgentOutcome::Opened(new)
                            }
                        };
                        ai.done(job, outcome)
                    }
                    Step::End => AiTurn { tasks: ai.end(), ..AiTurn::default() },
                    Step::Restart => {
                        // Jobs end with the process, and the sessions that they opened are closed
                        // by their shell.
                        jobs.clear();
                        ai = Ai::restore(0, meeting(), &ai.to_saved(), |_| true);
                        AiTurn::default()
                    }
                };
                for task in turn.tasks {
                    match task {
                        AgentTask::InviteAi { job, .. } => jobs.push((job, true)),
                        AgentTask::HearTrack { job, session, .. } => {
                            prop_assert_eq!(Some(&session), ai.session());
                            jobs.push((job, false));
                        }
                        AgentTask::Cancel(job) => {
                            *cancelled.entry(job).or_default() += 1;
                        }
                        AgentTask::Close(session) => *closed.entry(session.session).or_default() += 1,
                        AgentTask::Answer { .. } | AgentTask::CancelAnswer(_) => unreachable!("the AI is no assistant"),
                    }
                }
                for session in &reported {
                    let is_held = ai.session().is_some_and(|saved| saved.session == *session);
                    let closings = closed.get(session).copied().unwrap_or(0);
                    prop_assert_eq!(u32::from(is_held) + closings, 1, "{} is saved {}", session, is_held);
                }
                prop_assert_eq!(ai.user_json().is_some(), ai.state().enabled);
                prop_assert_eq!(ai.session().is_some(), ai.state().enabled);
            }
        }
    }
}
