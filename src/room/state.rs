//! A room as a value: inputs go in, effects come out. No clock, no socket.
//!
//! Source: protocol sections 2 to 5.

mod activity;
mod assistant;
mod chat;
mod departures;
mod files;
mod media;
mod messages;
mod moderation;
mod posts;
mod settings;
mod snapshot;
mod watch;

pub use files::CannotShareFile;
pub use moderation::{Denied, Moderator};

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ai::{Ai, AiTurn};
use super::assistant::{AnswerStop, Assistant, AssistantSettings};
use super::chat::{ChatHistory, HistoryLimits};
use super::io::{AgentTask, Effect, Input, Join, JoinRefusal, Liveness, Reason, Recipients, RoomEvent};
use super::member::{Member, MemberView};
use super::members::Members;
use super::moderation::Moderation;
use super::reactions::Reactions;
use super::rules::RoomRules;
use super::snapshot_throttle::SHORTEST_WINDOW;
use super::watch::{Watch, WatchSettings};
use crate::assistant::AnswerEnd;
use crate::config::ModeratorDefault;
use crate::id::{ConnectionId, MeetingId, UserId};
use crate::protocol::close::Close;
use crate::protocol::moderation::KnockView;
use crate::protocol::server::Event;
use crate::store::saved::{Persist, SavedRoom};

/// A room's settings, fixed at creation.
#[derive(Clone, Debug)]
pub struct RoomSettings {
    /// Time between two ticks.
    pub tick: Duration,
    /// Maximum age of a member's heartbeat, checked at ticks and joins.
    pub heartbeat_timeout: Duration,
    /// Time for the members of a restored room to return.
    pub restore_grace: Duration,
    /// Maximum number of members.
    pub members: usize,
    /// Maximum number of members of one identity; 0 is no limit.
    pub members_per_identity: usize,
    /// Maximum number of members from one network; 0 is no limit.
    pub members_per_network: usize,
    /// Maximum size in bytes of a user object as stored.
    pub user_bytes: usize,
    /// Maximum number of AI invitations per minute; 0 is no limit.
    pub ai_starts_per_minute: u32,
    /// Those who moderate without a right of their own.
    pub moderators: ModeratorDefault,
    /// The settings with which a meeting begins.
    pub rules: RoomRules,
    /// The history of the chat.
    pub chat: HistoryLimits,
    /// The assistant, if there is one.
    pub assistant: Option<AssistantSettings>,
    /// Watching together.
    pub watch: WatchSettings,
    /// True if everyone may share files, unless the room has it otherwise.
    pub files: bool,
}

/// A room.
#[derive(Debug)]
pub struct Room {
    settings: RoomSettings,
    meeting: Option<MeetingId>,
    /// Maximum number of simultaneous members in this meeting.
    peak: usize,
    members: Members,
    /// True until a member sends a message.
    is_silent: bool,
    ai: Ai,
    moderation: Moderation,
    chat: ChatHistory,
    /// Id of the last chat message.
    last_chat: u64,
    reactions: Reactions,
    assistant: Assistant,
    watch: Watch,
    /// Names of programs that are shown as observers.
    observers: Vec<Arc<str>>,
    next_tick: Instant,
    /// True if the last snapshot is outdated.
    changed: bool,
    /// Earliest time of the next snapshot, except that of a tick.
    quiet_until: Instant,
    stopping: bool,
}

impl Room {
    /// An empty room. If nobody joins until its first tick, it retires.
    pub fn new(settings: RoomSettings, now: Instant) -> Self {
        let next_tick = now + settings.tick;
        let ai = Ai::new(settings.ai_starts_per_minute);
        let moderation = Moderation::new(settings.moderators, settings.rules.clone());
        let chat = ChatHistory::new(history_limits(&settings, &settings.rules));
        Self {
            settings,
            meeting: None,
            peak: 0,
            members: Members::default(),
            is_silent: true,
            ai,
            moderation,
            chat,
            last_chat: 0,
            reactions: Reactions::new(now),
            assistant: Assistant::default(),
            watch: Watch::default(),
            observers: Vec::new(),
            next_tick,
            changed: false,
            quiet_until: now,
            stopping: false,
        }
    }

    /// A room from before a restart. Its members are disconnected, and have `restore_grace` to return.
    pub fn restore(settings: RoomSettings, now: Instant, saved: &SavedRoom) -> Self {
        let mut room = Self::new(settings, now);
        let heartbeat = now + room.settings.restore_grace.saturating_sub(room.settings.heartbeat_timeout);
        room.meeting = Some(saved.meeting);
        room.is_silent = false;
        room.next_tick = now + share_of(room.settings.tick, saved.meeting);
        for (user, identity) in &saved.departed {
            room.members.restore_departed(user.clone(), identity.clone());
        }
        for member in &saved.members {
            if let Some(restored) = Member::restored(member, heartbeat) {
                room.members.restore(member.user.clone(), restored);
            }
        }
        if let Some(json) = &saved.moderation {
            room.moderation = Moderation::restore(room.settings.moderators, now, json);
        }
        if let Some(json) = &saved.watch {
            room.watch = Watch::restore(&room.settings.watch, json);
        }
        room.peak = room.members.len();
        if let Some(ai) = &saved.ai {
            let is_member = |user: &UserId| room.members.contains(user);
            room.ai = Ai::restore(room.settings.ai_starts_per_minute, saved.meeting, ai, is_member);
        }
        room
    }

    /// Handles an input and returns its effects, in order.
    pub fn handle(&mut self, now: Instant, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        match input {
            Input::Join(join) => self.join(now, join, &mut effects),
            Input::Message { connection, at, message } => {
                if let Some(user) = self.members.user_at(connection) {
                    self.is_silent = false;
                    self.message(now, at, &user, message, &mut effects);
                }
            }
            Input::Rejected { connection, why } => {
                if let Some(user) = self.members.user_at(connection) {
                    self.refuse_message(&user, why, &mut effects);
                }
            }
            Input::Disconnected(gone) => self.disconnected(now, gone, &mut effects),
            Input::TooSlow { user } => {
                if self.members.contains(&user) {
                    effects.push(self.publish(RoomEvent::ErrorBroadcastingToUser { user: user.clone() }));
                    self.remove_and_notify(&user, Close::TooSlow, &mut effects);
                }
            }
            Input::Moderate { by, action } => {
                let result = self.moderate(now, &by, action, &mut effects);
                effects.push(Effect::Moderated(result));
            }
            Input::SetRules { by, change } => {
                let result = self.set_rules(&by, &change, &mut effects);
                effects.push(Effect::Moderated(result));
            }
            Input::LastingRules { change } => {
                self.set_lasting_rules(&change, &mut effects);
                effects.push(Effect::Moderated(Ok(())));
            }
            Input::AgentDone { job, outcome } => {
                let turn = self.ai.done(job, outcome);
                self.follow(turn, &mut effects);
            }
            Input::Answer(report) => self.answered(now, report, &mut effects),
            Input::Post(post) => self.post(now, post, &mut effects),
            Input::ShareFile(file) => self.share_file(now, file, &mut effects),
            Input::Wake => {}
            Input::Shutdown => self.shutdown(now, &mut effects),
        }
        self.give_up(now, &mut effects);
        if self.is_tick_due(now) {
            self.tick(now, &mut effects);
        }
        self.send_reactions(now, &mut effects);
        if self.changed && now >= self.quiet_until {
            self.send_snapshot(now, &mut effects);
        }
        effects
    }

    /// The latest time to wake the room, and the reason.
    pub fn deadline(&self) -> Option<(Instant, Reason)> {
        let snapshot = self.changed.then_some((self.quiet_until, Reason::Snapshot));
        let tick = (!self.stopping).then_some((self.next_tick, Reason::Tick));
        let given_up = self.members.next_given_up().filter(|_| !self.stopping);
        let given_up = given_up.map(|at| (at, Reason::GiveUp));
        let reactions = self.reactions.due().map(|at| (at, Reason::Reactions));
        snapshot.into_iter().chain(given_up).chain(reactions).chain(tick).min_by_key(|(at, _)| *at)
    }

    /// Records that `user` is alive, although its heartbeats may be unread in a throttled socket.
    pub fn keep_alive(&mut self, now: Instant, user: &UserId) {
        if let Some(member) = self.members.get_mut(user) {
            member.heartbeat = now;
        }
    }

    /// True if timed-out members are removed at the next input.
    pub fn is_tick_due(&self, now: Instant) -> bool {
        now >= self.next_tick && !self.stopping
    }

    /// Delays the next snapshot, except that of a tick, for `window` after the one that was sent at `now`.
    pub fn throttle_snapshots(&mut self, now: Instant, window: Duration) {
        self.quiet_until = now + window;
    }

    /// The AI, which the owner closes if the room no longer can.
    pub fn ai(&self) -> &Ai {
        &self.ai
    }

    /// The settings of the room.
    pub fn rules(&self) -> &RoomRules {
        self.moderation.rules()
    }

    /// Those who wait to be admitted, in the order in which they came.
    pub fn waiting(&self) -> Vec<KnockView> {
        self.moderation.knocks()
    }

    /// The meeting, if one runs.
    pub fn meeting(&self) -> Option<MeetingId> {
        self.meeting
    }

    /// The member of a socket.
    pub fn user_at(&self, connection: ConnectionId) -> Option<UserId> {
        self.members.user_at(connection)
    }

    /// All members, in snapshot order.
    pub fn members(&self) -> impl ExactSizeIterator<Item = MemberView> {
        self.members.iter().map(|(user, member)| MemberView {
            user: user.clone(),
            name: member.name.clone(),
            connection: member.connection,
            heartbeat: member.last_heartbeat(),
            json: member.json().clone(),
            is_hidden: member.grants.hidden,
        })
    }

    /// True if no socket is left.
    pub fn is_deserted(&self) -> bool {
        self.members.is_deserted()
    }

    fn join(&mut self, now: Instant, mut join: Join, effects: &mut Vec<Effect>) {
        let connection = join.connection;
        if let Some(name) = self.moderation.name_of(&join.identity) {
            join.name = name.clone();
        }
        if self.stopping {
            effects.push(Effect::Refuse { connection, refusal: JoinRefusal::ShuttingDown });
            return;
        }
        if self.meeting.is_none() && !join.grants.create {
            effects.push(Effect::Refuse { connection, refusal: JoinRefusal::NotStarted });
            return;
        }
        if let Some(own) = self.members.get_mut(&join.user).filter(|member| member.identity == join.identity)
        {
            own.heartbeat = now;
        }
        self.remove_silent(now, effects);
        if let Err(refusal) = self.check_entry(now, &join, effects) {
            effects.push(Effect::Refuse { connection, refusal });
            return;
        }
        match self.members.admits(&self.settings, &join) {
            Ok(None) => {}
            Ok(Some(gives_way)) => self.remove_gone(gives_way, effects),
            Err(refusal) => {
                effects.push(Effect::Refuse { connection, refusal });
                return;
            }
        }
        let before = self.shown_json(&join.user);
        let was_departed = self.members.admit(now, &join);
        let Join { user, new_meeting, liveness, .. } = join;
        self.is_silent &= liveness == Liveness::Heartbeat;
        if self.meeting.is_none() {
            self.meeting = Some(new_meeting);
            effects.push(self.publish(RoomEvent::StartingMeeting));
            effects.extend(self.persist(Persist::MeetingStarted));
        }
        if was_departed {
            effects.extend(self.persist(Persist::DepartedForgotten { user: user.clone() }));
        }
        effects.extend(self.place_media(&user));
        effects.push(Effect::Admit { connection, user: user.clone() });
        effects.push(self.publish(RoomEvent::OnConnect { user: user.clone(), connection }));
        effects.extend(self.publish_member(&user, before, None));
        effects.extend(self.persist_member(&user));
        self.choose_host(effects);
        if self.moderation.waiting() > 0 && self.is_moderator(&user) {
            self.tell_knocks_to(&user, effects);
        }
        if self.members.len() > self.peak {
            self.peak = self.members.len();
            effects.extend(self.persist(Persist::Peak { members: self.peak }));
        }
        self.changed = true;
    }

    /// Carries out the consequences of an input to the AI.
    fn follow(&mut self, turn: AiTurn, effects: &mut Vec<Effect>) {
        effects.extend(turn.tasks.into_iter().map(Effect::Agent));
        if turn.is_news {
            self.changed = true;
            effects.extend(self.persist(Persist::Ai { json: self.ai.to_saved().into() }));
        }
        if let Some((user, why)) = turn.refused {
            self.refuse_message(&user, why.to_owned(), effects);
        }
    }

    fn tick(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        self.next_tick = now + self.settings.tick;
        effects.push(self.publish(RoomEvent::Alarm));
        self.remove_silent(now, effects);
        self.forget_knocks(now, effects);
        self.forget_old_chat(now, effects);
        self.watch.forget_idle(now);
        if !self.members.is_empty() {
            // A client that lost a snapshot recovers by this one, even if nothing changed.
            self.send_snapshot(now, effects);
            return;
        }
        self.end(effects);
    }

    /// Ends the meeting and the room.
    pub(super) fn end(&mut self, effects: &mut Vec<Effect>) {
        effects.extend(self.ai.end().into_iter().map(Effect::Agent));
        let answer = self.assistant.end().map(|answer| AgentTask::CancelAnswer(answer.job));
        effects.extend(answer.map(Effect::Agent));
        if self.meeting.is_some() {
            effects.push(self.publish(RoomEvent::EndingMeeting));
            effects.extend(self.persist(Persist::MeetingEnded));
        }
        self.changed = false;
        self.meeting = None;
        self.is_silent = true;
        self.begin_rules();
        self.reactions.clear();
        self.watch = Watch::default();
        self.members.clear();
        effects.push(Effect::Retire);
    }

    /// Returns to the settings with which a meeting begins.
    fn begin_rules(&mut self) {
        self.moderation = Moderation::new(self.settings.moderators, self.settings.rules.clone());
        self.chat = ChatHistory::new(history_limits(&self.settings, &self.settings.rules));
    }

    fn shutdown(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let answer = self.assistant.answer().map(|answer| AgentTask::CancelAnswer(answer.job));
        effects.extend(answer.map(Effect::Agent));
        self.end_answer(now, AnswerStop::Ended(AnswerEnd::Failed), effects);
        self.stopping = true;
        self.changed = false;
        self.reactions.clear();
        let connected = self.members.iter().filter(|(_, member)| member.connection.is_some());
        effects.extend(
            connected.map(|(user, _)| Effect::SendAway { user: user.clone(), close: Close::ServiceRestart }),
        );
    }

    fn send_snapshot(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        self.changed = false;
        // The owner replaces this by a time in proportion to the cost of the snapshot.
        self.throttle_snapshots(now, SHORTEST_WINDOW);
        effects.push(Effect::Snapshot);
    }

    fn refuse_message(&self, user: &UserId, why: String, effects: &mut Vec<Effect>) {
        effects.push(self.publish(RoomEvent::ErrorHandlingMessage { user: user.clone(), why: why.clone() }));
        effects.push(Effect::Send { to: Recipients::One(user.clone()), event: Event::Error { error: why } });
    }

    fn publish(&self, event: RoomEvent) -> Effect {
        Effect::Publish { meeting: self.meeting, event }
    }

    fn persist(&self, change: Persist) -> Option<Effect> {
        self.meeting.map(|meeting| Effect::Persist { meeting, change })
    }

    fn persist_member(&self, user: &UserId) -> Option<Effect> {
        // A hidden one would be shown after a restart, until it is back and its grants are known.
        let member = self.members.get(user).filter(|member| !member.grants.hidden)?;
        self.persist(Persist::Member(member.saved(user)))
    }
}

/// The limits of the chat's history, which the room's rules may switch on or off.
fn history_limits(settings: &RoomSettings, rules: &RoomRules) -> HistoryLimits {
    HistoryLimits { is_on: rules.chat_history.unwrap_or(settings.chat.is_on), ..settings.chat }
}

/// Offset of a room's first tick, different for each meeting. After a restart all rooms are
/// restored at once, and would otherwise tick together from then on.
fn share_of(tick: Duration, meeting: MeetingId) -> Duration {
    let nanos = u64::try_from(tick.as_nanos()).unwrap_or(u64::MAX).max(1);
    Duration::from_nanos(meeting.random_bits() % nanos)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap, HashSet};

    use proptest::prelude::*;

    use super::*;
    use crate::agent::job::{AgentJob, AgentSession};
    use crate::id::{Grants, IdentityId, NodeId, RoomName, SessionId};
    use crate::network::client_network;
    use crate::protocol::client::{ClientMessage, MessageLimits};
    use crate::protocol::server::AiState;
    use crate::protocol::user::User;
    use crate::room::io::Disconnection;
    use crate::room::io::{AgentOutcome, AgentTask};
    use crate::room::members::SHORT_GRACE;
    use crate::room::snapshot_throttle::LONGEST_WINDOW;
    use crate::store::saved::SavedMember;

    pub(super) const TICK: Duration = Duration::from_secs(15);

    const NODE: NodeId = NodeId::new(0);

    pub(super) fn settings() -> RoomSettings {
        RoomSettings {
            tick: TICK,
            heartbeat_timeout: TICK,
            restore_grace: Duration::from_secs(30),
            members: 4,
            members_per_identity: 3,
            members_per_network: 2,
            user_bytes: 400,
            ai_starts_per_minute: 0,
            moderators: ModeratorDefault::Everyone,
            rules: RoomRules::default(),
            chat: HistoryLimits { is_on: true, messages: 3, age: 4 * TICK, bytes: 1000, all_bytes: 0 },
            assistant: None,
            watch: WatchSettings::default(),
            files: false,
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "an instant can only be had from the clock; tests add to it"
    )]
    pub(super) fn start() -> Instant {
        Instant::now()
    }

    pub(super) fn user(id: &str) -> UserId {
        UserId::parse(id).unwrap()
    }

    pub(super) fn join(connection: u64, id: &str, identity: &str) -> Input {
        Input::Join(Join {
            connection: ConnectionId::new(NODE, connection),
            user: user(id),
            identity: IdentityId::new(identity),
            name: format!("name of {identity}").into(),
            grants: Grants::everyone(),
            network: None,
            new_meeting: MeetingId::random(),
            presence: false,
            liveness: Liveness::Heartbeat,
            password: None,
        })
    }

    pub(super) fn says(connection: u64, text: &str) -> Input {
        says_at(connection, 0, text)
    }

    pub(super) fn says_at(connection: u64, at: u64, text: &str) -> Input {
        let message = ClientMessage::parse(text, MessageLimits::default()).unwrap();
        Input::Message { connection: ConnectionId::new(NODE, connection), at, message }
    }

    /// A room with a (connection 1) and b (connection 2), and a time at which it is quiet.
    pub(super) fn room_of_two() -> (Room, Instant) {
        let now = start();
        let mut room = Room::new(settings(), now);
        room.handle(now, join(1, "a", "A"));
        room.handle(now, join(2, "b", "B"));
        let quiet = now + Duration::from_secs(1);
        room.handle(quiet, Input::Wake);
        (room, quiet + Duration::from_secs(1))
    }

    /// The visible effects, as text.
    pub(super) fn seen(effects: &[Effect]) -> Vec<String> {
        let words = effects.iter().filter_map(|effect| match effect {
            Effect::Admit { connection, user, .. } => {
                Some(format!("admit {} as {user}", connection.number()))
            }
            Effect::Refuse { connection, refusal } => {
                Some(format!("refuse {}: {refusal:?}", connection.number()))
            }
            Effect::Detach { connection, user } => {
                Some(format!("detach {} from {user}", connection.number()))
            }
            Effect::Send { to: Recipients::One(to), event } => Some(format!("to {to}: {}", event.encode())),
            Effect::Send { to: Recipients::AllBut(to), event } => {
                Some(format!("to all but {to}: {}", event.encode()))
            }
            Effect::Send { to: Recipients::All, event } => Some(format!("to all: {}", event.encode())),
            Effect::SendTransient(event) => Some(format!("transient: {}", event.encode())),
            Effect::Snapshot => Some("snapshot".to_owned()),
            Effect::Remove { user, close } => Some(format!("remove {user}: {close:?}")),
            Effect::SendAway { user, close } => Some(format!("send away {user}: {close:?}")),
            Effect::Agent(task) => Some(format!("{task:?}")),
            Effect::Moderated(result) => Some(format!("moderated: {result:?}")),
            Effect::RememberEnded(_, users) => Some(format!("ended: {users:?}")),
            Effect::Retire => Some("retire".to_owned()),
            Effect::Persist { .. } | Effect::Publish { .. } | Effect::PlaceMedia { .. } => None,
        });
        words.collect()
    }

    pub(super) fn persisted(effects: &[Effect]) -> Vec<Persist> {
        effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::Persist { change, .. } => Some(change.clone()),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn network_at_its_member_limit_is_refused() {
        let (mut room, now) = (Room::new(settings(), start()), start());
        let mut from = |connection: u64, id: &str, address: [u8; 4]| {
            let Input::Join(ask) = join(connection, id, id) else { unreachable!() };
            let network = Some(client_network(address.into()));
            seen(&room.handle(now, Input::Join(Join { network, ..ask }))).join(", ")
        };
        let [office, other] = [[192, 0, 2, 1], [192, 0, 2, 2]];
        from(1, "a", office);
        from(2, "b", office);
        assert_eq!(from(3, "c", office), "refuse 3: NetworkFull");
        from(4, "d", other);
        // A member may reconnect from another network.
        assert!(!from(5, "a", other).contains("refuse"));
        assert!(!from(6, "c", office).contains("refuse"), "the one who moved made room");
        assert_eq!(from(7, "e", [192, 0, 2, 3]), "refuse 7: RoomFull");
    }

    #[test]
    fn meeting_is_started_by_the_grant_alone() {
        let (mut room, now) = (Room::new(settings(), start()), start());
        let mut joins = |connection, id: &str, create| {
            let Input::Join(join) = join(connection, id, id) else { unreachable!() };
            let grants = Grants { create, ..Grants::everyone() };
            seen(&room.handle(now, Input::Join(Join { grants, ..join })))[0].clone()
        };
        assert_eq!(joins(1, "a", false), "refuse 1: NotStarted");
        assert_eq!(joins(2, "b", true), "admit 2 as b");
        assert_eq!(joins(3, "a", false), "admit 3 as a");
    }

    #[test]
    fn hidden_member_is_not_shown_to_anybody() {
        let (mut room, now) = room_of_two();
        let Input::Join(ask) = join(3, "h", "H") else { unreachable!() };
        let grants = Grants { hidden: true, ..Grants::everyone() };
        let effects = room.handle(now, Input::Join(Join { grants, ..ask }));
        assert_eq!(seen(&effects), ["admit 3 as h", "snapshot"]);
        assert!(persisted(&effects).iter().all(|change| !matches!(change, Persist::Member(_))));
        assert!(!room.encode_snapshot().contains("name of H") && room.users().all(|(id, _)| id != "h"));
        room.handle(now, says(3, r#"{"type":"userUpdate","user":{"joined":true}}"#));
        assert!(!room.encode_snapshot().contains("name of H"));
        let direct = room.handle(now, says(1, r#"{"type":"directMessage","to":"h","message":"x"}"#));
        assert_eq!(seen(&direct), [""; 0], "as to nobody");
        let left = seen(&room.handle(now, says(3, r#"{"type":"userLeft"}"#)));
        assert_eq!(left[0], "remove h: UserLeft");
        assert!(left.iter().all(|effect| !effect.contains("userLeftNotification")), "{left:?}");
    }

    #[test]
    fn member_without_the_grant_writes_no_chat() {
        let (mut room, now) = room_of_two();
        let Input::Join(ask) = join(3, "c", "C") else { unreachable!() };
        let grants = Grants { chat: false, ..Grants::everyone() };
        room.handle(now, Input::Join(Join { grants, ..ask }));
        for message in [
            r#"{"type":"chat","message":"x"}"#,
            r#"{"type":"directMessage","to":"a","message":"x"}"#,
            r#"{"type":"directMessage","to":"nobody","message":"x"}"#,
        ] {
            let refused =
                r#"to c: {"type":"error","error":"you may not write to the chat","code":"no_chat"}"#;
            assert_eq!(seen(&room.handle(now, says(3, message)))[0], refused, "{message}");
        }
        let own = seen(&room.handle(now, says(3, r#"{"type":"directMessage","to":"c","message":"?"}"#)));
        assert!(own[0].starts_with(r#"to c: {"type":"directMessage""#), "a probe of the connection: {own:?}");
        let hears = seen(&room.handle(now, says(1, r#"{"type":"directMessage","to":"c","message":"x"}"#)));
        assert_eq!(hears, [r#"to c: {"type":"directMessage","from":"name of A","message":"x"}"#]);
    }

    #[test]
    fn another_identity_cannot_take_a_members_id() {
        let (mut room, now) = room_of_two();
        assert_eq!(seen(&room.handle(now, join(3, "a", "mallory"))), ["refuse 3: IdTaken"]);
        assert_eq!(room.members().next().unwrap().connection, Some(ConnectionId::new(NODE, 1)));
    }

    #[test]
    fn member_without_the_grant_mutes_only_itself() {
        let (mut room, now) = room_of_two();
        let rejoin = |room: &mut Room, connection, moderate| {
            let Input::Join(join) = join(connection, "b", "B") else { unreachable!() };
            let grants = Grants { moderate, ..Grants::everyone() };
            room.handle(now, Input::Join(Join { grants, ..join }));
        };
        let mute = |room: &mut Room, connection, id| {
            let effects =
                room.handle(now, says(connection, &format!(r#"{{"type":"muteUser","id":"{id}"}}"#)));
            let (sent, persisted) = (seen(&effects), persisted(&effects).len());
            (sent.first().cloned().unwrap_or_default(), persisted)
        };
        let muted = |id| (format!(r#"to {id}: {{"type":"muteMic"}}"#), 2);
        assert_eq!(mute(&mut room, 2, "a"), muted("a"), "everyone may");
        rejoin(&mut room, 3, false);
        let refused = r#"to b: {"type":"error","error":"you may not mute others","code":"no_mute"}"#;
        assert_eq!(mute(&mut room, 3, "a"), (refused.to_owned(), 0));
        assert_eq!(mute(&mut room, 3, "b"), muted("b"));
        assert_eq!(mute(&mut room, 1, "b"), muted("b"));
        rejoin(&mut room, 4, true);
        assert_eq!(mute(&mut room, 4, "a"), muted("a"), "the latest join counts");
    }

    #[test]
    fn superseded_socket_has_no_effect() {
        let (mut room, now) = room_of_two();
        assert_eq!(seen(&room.handle(now, join(3, "a", "A"))), ["admit 3 as a", "snapshot"]);
        assert_eq!(seen(&room.handle(now, says(1, r#"{"type":"userLeft"}"#))), [""; 0]);
        assert_eq!(
            seen(&room.handle(
                now,
                Input::Disconnected(Disconnection {
                    connection: ConnectionId::new(NODE, 1),
                    is_page_left: false
                })
            )),
            [""; 0]
        );
        assert_eq!(room.members().next().unwrap().connection, Some(ConnectionId::new(NODE, 3)));
    }

    #[test]
    fn user_update_cannot_forge_id_or_name() {
        let (mut room, now) = room_of_two();
        room.handle(
            now,
            says(1, r#"{"type":"userUpdate","user":{"id":"b","name":"name of B","joined":true}}"#),
        );
        let snapshot = room.encode_snapshot();
        assert!(
            snapshot.contains(
                r#"{"id":"a","name":"name of A","raisedHand":false,"speaking":false,"joined":true"#
            )
        );
        assert!(
            snapshot.contains(
                r#"{"id":"b","name":"name of B","raisedHand":false,"speaking":false,"joined":false"#
            )
        );
        let effects =
            room.handle(now, says(1, r#"{"type":"directMessage","to":"b","message":"x","from":"B"}"#));
        assert_eq!(seen(&effects), [r#"to b: {"type":"directMessage","from":"name of A","message":"x"}"#]);
    }

    #[test]
    fn chat_is_ordered_and_its_ids_increase() {
        let (mut room, now) = room_of_two();
        // Three messages in one millisecond, then one after the clock was set back.
        let mut heard = Vec::new();
        for (connection, at) in [(1, 50), (2, 50), (1, 50), (2, 40)] {
            let line = says_at(connection, at, r#"{"type":"chat","message":"x","id":1,"name":"B","at":1}"#);
            heard.extend(seen(&room.handle(now, line)));
        }
        let line = |id: u64, from: &str, at: u64| {
            format!(
                r#"to all: {{"type":"chat","id":{id},"from":"{from}","name":"name of {}","message":"x","at":{at}}}"#,
                from.to_uppercase()
            )
        };
        assert_eq!(heard, [line(50, "a", 50), line(51, "b", 50), line(52, "a", 50), line(53, "b", 40)]);
        assert_eq!(room.deadline().unwrap().1, Reason::Tick, "no snapshot follows");
    }

    #[test]
    fn overlong_user_update_is_rejected() {
        let (mut room, now) = room_of_two();
        let before = room.encode_snapshot();
        let update = format!(r#"{{"type":"userUpdate","user":{{"extra":"{}"}}}}"#, "x".repeat(400));
        let effects = seen(&room.handle(now, says(1, &update)));
        assert!(
            effects[0].starts_with(r#"to a: {"type":"error","error":"the user object has"#),
            "{effects:?}"
        );
        assert_eq!(room.encode_snapshot(), before);
    }

    #[test]
    fn user_left_closes_socket_and_notifies_others() {
        let (mut room, now) = room_of_two();
        let effects = room.handle(now, says(1, r#"{"type":"userLeft"}"#));
        assert_eq!(
            seen(&effects),
            ["remove a: UserLeft", r#"to all: {"type":"userLeftNotification","id":"a"}"#, "snapshot"]
        );
        let departed = Persist::Departed { user: user("a"), identity: IdentityId::new("A") };
        assert_eq!(persisted(&effects), [Persist::MemberRemoved { user: user("a") }, departed]);
    }

    #[test]
    fn timed_out_member_is_notified_and_removed_at_tick() {
        let (mut room, now) = room_of_two();
        let late = now + TICK - Duration::from_secs(3);
        room.handle(late, says(1, r#"{"type":"heartbeat"}"#));
        let tick = room.deadline().unwrap();
        assert_eq!(tick.1, Reason::Tick);
        // The first tick comes 15 s after the first join: b's heartbeat is exactly 15 s old, not more.
        assert_eq!(seen(&room.handle(tick.0, Input::Wake)), ["snapshot"]);
        room.handle(tick.0 + TICK / 2, says(1, r#"{"type":"heartbeat"}"#));
        // Other messages of b do not renew its heartbeat, and do not remove it either.
        let update = room.handle(tick.0 + TICK / 2, says(2, r#"{"type":"userUpdate","user":{}}"#));
        assert_eq!(seen(&update), ["snapshot"]);
        let effects = room.handle(tick.0 + TICK, Input::Wake);
        assert_eq!(
            seen(&effects),
            [r#"to all: {"type":"userLeftNotification","id":"b"}"#, "remove b: TimedOut", "snapshot"]
        );
    }

    fn join_with(liveness: Liveness, connection: u64, id: &str, identity: &str) -> Input {
        let Input::Join(join) = join(connection, id, identity) else { unreachable!() };
        Input::Join(Join { liveness, ..join })
    }

    /// Such a client may be silent for 30 s at a time, and was timed out at every second tick.
    #[test]
    fn attached_connection_serves_as_heartbeat() {
        let (mut room, now) = room_of_two();
        room.handle(now, join_with(Liveness::Connection, 3, "b", "B"));
        room.handle(now, says(3, r#"{"type":"chat","message":"x"}"#));
        let mut tick = room.next_tick;
        for _ in 0..4 {
            room.handle(tick, says(1, r#"{"type":"heartbeat"}"#));
            tick += TICK;
        }
        assert_eq!(
            room.members().map(|member| member.heartbeat.is_some()).collect::<Vec<_>>(),
            [true, false]
        );
        // The time without heartbeats begins with the end of the connection.
        let lost = tick - Duration::from_secs(1);
        room.handle(lost, gone(3, false));
        room.handle(lost, says(1, r#"{"type":"heartbeat"}"#));
        room.handle(tick, Input::Wake);
        assert_eq!(room.members().count(), 2, "1 s after its end");
        room.handle(tick, says(1, r#"{"type":"heartbeat"}"#));
        let effects = room.handle(tick + TICK, Input::Wake);
        assert!(seen(&effects).contains(&"remove b: TimedOut".to_owned()), "{effects:?}");
    }

    #[test]
    fn liveness_follows_the_latest_join() {
        let (mut room, now) = room_of_two();
        room.handle(now, join_with(Liveness::Connection, 3, "b", "B"));
        room.handle(now, join(4, "b", "B"));
        room.handle(now + TICK, says(1, r#"{"type":"heartbeat"}"#));
        let effects = room.handle(now + 2 * TICK, Input::Wake);
        assert!(seen(&effects).contains(&"remove b: TimedOut".to_owned()), "{effects:?}");
    }

    #[test]
    fn join_removes_timed_out_members_but_not_its_own() {
        let (mut room, now) = room_of_two();
        room.next_tick = now + 10 * TICK;
        let effects = room.handle(now + TICK, join(3, "b", "B"));
        assert_eq!(
            seen(&effects),
            [
                r#"to all: {"type":"userLeftNotification","id":"a"}"#,
                "remove a: TimedOut",
                "admit 3 as b",
                "snapshot"
            ]
        );
    }

    /// Everyone sees the ids, and direct messages go to an id: a client that took the id of a
    /// timed-out member read the messages meant for that member, who was locked out.
    #[test]
    fn id_is_reserved_until_the_meeting_ends() {
        let (mut room, now) = room_of_two();
        room.handle(now, says(2, r#"{"type":"userLeft"}"#));
        assert_eq!(seen(&room.handle(now, join(3, "b", "mallory"))), ["refuse 3: IdTaken"]);
        assert_eq!(seen(&room.handle(now, join(4, "b", "B")))[0], "admit 4 as b");
        room.handle(now + TICK, says(1, r#"{"type":"heartbeat"}"#));
        let effects = room.handle(now + 2 * TICK, Input::Wake);
        assert!(seen(&effects).contains(&"remove b: TimedOut".to_owned()));
        assert_eq!(seen(&room.handle(now + 2 * TICK, join(5, "b", "mallory"))), ["refuse 5: IdTaken"]);
        let effects = room.handle(now + 2 * TICK, join(6, "b", "B"));
        assert_eq!(seen(&effects)[0], "admit 6 as b");
        assert_eq!(persisted(&effects)[0], Persist::DepartedForgotten { user: user("b") });
        room.handle(now + 2 * TICK, says(1, r#"{"type":"userLeft"}"#));
        room.handle(now + 2 * TICK, says(6, r#"{"type":"userLeft"}"#));
        let effects = room.handle(now + 10 * TICK, Input::Wake);
        assert_eq!(seen(&effects), ["retire"]);
        assert_eq!(seen(&room.handle(now + 10 * TICK, join(7, "b", "mallory")))[0], "admit 7 as b");
    }

    fn gone(connection: u64, is_page_left: bool) -> Input {
        Input::Disconnected(Disconnection { connection: ConnectionId::new(NODE, connection), is_page_left })
    }

    #[test]
    fn identity_at_its_limit_evicts_disconnected_member() {
        let (mut room, now) = (Room::new(RoomSettings { members: 9, ..settings() }, start()), start());
        for (connection, id) in [(1, "a"), (2, "b"), (3, "c")] {
            room.handle(now, join(connection, id, "A"));
            room.handle(now, says(connection, r#"{"type":"heartbeat"}"#));
        }
        assert_eq!(seen(&room.handle(now, join(4, "d", "A"))), ["refuse 4: IdentityFull"]);
        assert!(!seen(&room.handle(now, join(5, "e", "E"))).is_empty(), "others are let in");
        room.handle(now, gone(2, false));
        let effects = seen(&room.handle(now, join(6, "d", "A")));
        assert_eq!(effects[..1], ["remove b: TimedOut"]);
        assert!(effects.contains(&"admit 6 as d".to_owned()), "{effects:?}");
        assert_eq!(seen(&room.handle(now, join(7, "b", "A"))), ["refuse 7: IdentityFull"]);
    }

    /// The identity's own member was evicted, and then the join was refused.
    #[test]
    fn refused_join_evicts_nobody() {
        let (office, other) = (client_network([192, 0, 2, 1].into()), client_network([192, 0, 2, 2].into()));
        let (mut room, now) = (Room::new(RoomSettings { members: 9, ..settings() }, start()), start());
        let mut from = |connection: u64, id: &str, identity: &str, network| {
            let Input::Join(ask) = join(connection, id, identity) else { unreachable!() };
            let effects = room.handle(now, Input::Join(Join { network: Some(network), ..ask }));
            room.handle(now, says(connection, r#"{"type":"heartbeat"}"#));
            (seen(&effects).join(", "), room.members().count())
        };
        from(1, "e", "E", office);
        from(2, "f", "F", office);
        for (connection, id) in [(3, "a"), (4, "b")] {
            from(connection, id, "A", other);
        }
        let Input::Join(unknown) = join(5, "c", "A") else { unreachable!() };
        room.handle(now, Input::Join(unknown));
        room.handle(now, says(5, r#"{"type":"heartbeat"}"#));
        room.handle(now, gone(3, false));
        let mut from = |connection: u64, id: &str, network| {
            let Input::Join(ask) = join(connection, id, "A") else { unreachable!() };
            let effects = room.handle(now, Input::Join(Join { network: Some(network), ..ask }));
            (seen(&effects).join(", "), room.members().count())
        };
        assert_eq!(from(6, "d", office), ("refuse 6: NetworkFull".to_owned(), 5));
        let (effects, members) = from(7, "d", other);
        assert!(effects.contains("remove a: TimedOut") && effects.contains("admit 7 as d"), "{effects}");
        assert_eq!(members, 5, "the one that gave way made room in its network");
        room.handle(now, says(2, r#"{"type":"userLeft"}"#));
        room.handle(now, gone(4, false));
        assert_eq!(seen(&room.handle(now, join(8, "f", "A"))), ["refuse 8: IdTaken"]);
        assert!(room.members().any(|member| member.user == user("b")));
    }

    #[test]
    fn member_without_messages_gets_short_grace_period() {
        let (mut room, now) = room_of_two();
        room.handle(now, says(1, r#"{"type":"heartbeat"}"#));
        room.handle(now, gone(2, false));
        assert_eq!(room.deadline(), Some((now + SHORT_GRACE, Reason::GiveUp)));
        assert_eq!(seen(&room.handle(now + SHORT_GRACE / 2, join(3, "b", "B")))[0], "admit 3 as b");
        room.handle(now + SHORT_GRACE, Input::Wake);
        assert_eq!(room.members().count(), 2, "its socket came back");
        let now = now + SHORT_GRACE;
        room.handle(now, gone(1, false));
        room.handle(now, gone(3, false));
        let effects = room.handle(now + SHORT_GRACE, Input::Wake);
        let seen = seen(&effects);
        assert_eq!(seen[..2], ["remove b: TimedOut", r#"to all: {"type":"userLeftNotification","id":"b"}"#]);
        assert_eq!(room.members().map(|member| member.user).collect::<Vec<_>>(), [user("a")]);
    }

    /// Firefox closes a page's sockets before the page can say that it leaves.
    #[test]
    fn member_who_left_its_page_gets_short_grace_period() {
        let (mut room, now) = room_of_two();
        room.handle(now, says(1, r#"{"type":"heartbeat"}"#));
        room.handle(now, says(2, r#"{"type":"heartbeat"}"#));
        room.handle(now, gone(1, true));
        room.handle(now, gone(2, false));
        room.handle(now + SHORT_GRACE, Input::Wake);
        assert_eq!(room.members().map(|member| member.user).collect::<Vec<_>>(), [user("b")]);
        let now = now + SHORT_GRACE;
        room.handle(now, join(3, "b", "B"));
        room.handle(now, gone(3, true));
        room.handle(now, join(4, "b", "B"));
        room.handle(now + SHORT_GRACE, Input::Wake);
        assert_eq!(room.members().count(), 1, "the same page is back");
    }

    #[test]
    fn room_without_messages_ends_with_its_last_socket() {
        let (mut room, now) = room_of_two();
        room.handle(now, gone(1, false));
        let effects = room.handle(now, gone(2, false));
        assert_eq!(seen(&effects), ["detach 2 from b", "remove a: TimedOut", "remove b: TimedOut", "retire"]);
        assert_eq!(persisted(&effects).last(), Some(&Persist::MeetingEnded));
    }

    #[test]
    fn restored_rooms_tick_at_different_times() {
        let now = start();
        let ticks = (0..20).map(|_| {
            let saved = SavedRoom {
                room: RoomName::parse("r").unwrap(),
                meeting: MeetingId::random(),
                ai: None,
                moderation: None,
                watch: None,
                chat: Vec::new(),
                members: Vec::new(),
                departed: Vec::new(),
                unconfirmed: Vec::new(),
                journal: None,
            };
            Room::restore(settings(), now, &saved).deadline().unwrap().0
        });
        let ticks: HashSet<_> = ticks.collect();
        assert!(ticks.len() > 10, "{ticks:?}");
        assert!(ticks.iter().all(|tick| *tick <= now + TICK));
    }

    /// A client that reconnected with 2,200 messages was timed out, since its heartbeats waited behind them.
    #[test]
    fn a_throttled_member_is_not_timed_out() {
        let (mut room, _) = room_of_two();
        let tick = room.next_tick;
        room.handle(tick, Input::Wake);
        let ada = UserId::parse("a").unwrap();
        room.keep_alive(tick + TICK, &ada);
        assert!(room.is_tick_due(tick + TICK));
        room.handle(tick + TICK, Input::Wake);
        assert_eq!(room.members().map(|member| member.user).collect::<Vec<_>>(), [ada]);
    }

    #[test]
    fn an_empty_room_keeps_its_meeting_until_the_tick() {
        let (mut room, now) = room_of_two();
        let meeting = room.meeting();
        room.handle(now, says(1, r#"{"type":"userLeft"}"#));
        room.handle(now, says(2, r#"{"type":"userLeft"}"#));
        room.handle(now, join(3, "c", "C"));
        assert_eq!(room.meeting(), meeting);
        room.handle(now, says(3, r#"{"type":"userLeft"}"#));
        let effects = room.handle(room.next_tick, Input::Wake);
        assert_eq!(seen(&effects), ["retire"]);
        assert_eq!(persisted(&effects), [Persist::MeetingEnded]);
        room.handle(room.next_tick, join(4, "c", "C"));
        assert_ne!(room.meeting(), meeting);
    }

    #[test]
    fn burst_of_updates_causes_two_snapshots() {
        let (mut room, now) = room_of_two();
        let hand = r#"{"type":"userUpdate","user":{"raisedHand":true}}"#;
        assert_eq!(seen(&room.handle(now, says(1, hand))), ["snapshot"]);
        for _ in 0..50 {
            assert_eq!(seen(&room.handle(now, says(1, hand))), [""; 0]);
        }
        assert_eq!(room.deadline(), Some((now + SHORTEST_WINDOW, Reason::Snapshot)));
        assert_eq!(seen(&room.handle(now + SHORTEST_WINDOW, Input::Wake)), ["snapshot"]);
    }

    fn ai_session(id: &str) -> AgentSession {
        AgentSession {
            meeting: MeetingId::random(),
            session: SessionId::parse(id).unwrap(),
            track_name: "ai-generated-voice".into(),
            mid: "7".into(),
        }
    }

    fn ai_done(job: u64, outcome: AgentOutcome) -> Input {
        Input::AgentDone { job: AgentJob(job), outcome }
    }

    const ENABLE: &str = r#"{"type":"enableAi"}"#;
    const DISABLE: &str = r#"{"type":"disableAi"}"#;
    const REQUEST: &str = r#"{"type":"requestAiControl","track":{"sessionId":"s","trackName":"mic"}}"#;

    /// The room of two with an AI that listens to a, and a time at which it is quiet.
    fn room_with_ai() -> (Room, Instant) {
        let (mut room, now) = room_of_two();
        room.handle(now, says(1, ENABLE));
        room.handle(now, ai_done(1, AgentOutcome::Opened(ai_session("s1"))));
        room.handle(now, says(1, REQUEST));
        room.handle(now, ai_done(2, AgentOutcome::Done));
        room.handle(now + LONGEST_WINDOW, Input::Wake);
        (room, now + 2 * LONGEST_WINDOW)
    }

    #[test]
    fn ai_is_last_in_snapshots_and_not_a_member() {
        let (room, _) = room_with_ai();
        let snapshot = room.encode_snapshot();
        let (_, rest) = snapshot.split_once(r#"{"id":"b""#).unwrap();
        let (_, rest) = rest.split_once(r#",{"id":"ai","name":"AI""#).expect("the AI comes last");
        assert!(
            rest.ends_with(r#"}}],"ai":{"enabled":true,"controllingUser":"a","connectionPending":false}}}"#)
        );
        assert_eq!(room.members().count(), 2, "it is no member");
    }

    #[test]
    fn users_are_in_the_order_of_their_ids() {
        let (mut room, now) = room_with_ai();
        room.handle(now, join(3, "A", "C"));
        let ids: Vec<_> =
            room.users().map(|(id, json)| (id, json.contains(&format!(r#"{{"id":"{id}""#)))).collect();
        assert_eq!(ids, [("A", true), ("a", true), ("ai", true), ("b", true)]);
    }

    #[test]
    fn ai_control_ends_when_its_holder_leaves() {
        let (mut room, now) = room_with_ai();
        let effects = room.handle(now, says(1, r#"{"type":"userLeft"}"#));
        let persisted = persisted(&effects);
        let Some(Persist::Ai { json }) = persisted.last() else { panic!("{persisted:?}") };
        assert!(json.starts_with(r#"{"enabled":true,"connectionPending":false,"session":"#), "{json}");
        let (mut room, now) = room_with_ai();
        room.handle(now + TICK, says(2, r#"{"type":"heartbeat"}"#));
        room.handle(now + 2 * TICK, Input::Wake);
        assert_eq!(room.members().count(), 1);
        assert_eq!(room.ai.state().controlling_user, None);
    }

    #[test]
    fn refused_request_is_reported_to_its_sender_only() {
        let (mut room, now) = room_of_two();
        assert_eq!(
            seen(&room.handle(now, says(1, REQUEST))),
            [r#"to a: {"type":"error","error":"the AI is not in this room","code":"ai_not_here"}"#]
        );
        assert_eq!(room.deadline().unwrap().1, Reason::Tick, "nothing to show");
    }

    #[test]
    fn the_end_of_the_meeting_ends_the_ai() {
        let (mut room, now) = room_with_ai();
        room.handle(now, says(1, r#"{"type":"userLeft"}"#));
        room.handle(now, says(2, r#"{"type":"userLeft"}"#));
        let effects = room.handle(room.next_tick, Input::Wake);
        let seen = seen(&effects);
        assert!(seen[0].starts_with("Close(AgentSession"), "{seen:?}");
        assert_eq!(seen[1], "retire");
        assert_eq!(persisted(&effects), [Persist::MeetingEnded]);
        assert!(room.ai.session().is_none());
    }

    #[test]
    fn abandoned_restored_room_closes_its_ai() {
        let (mut room, now) = room_with_ai();
        let effects = room.handle(now, Input::Shutdown);
        assert_eq!(seen(&effects), ["send away a: ServiceRestart", "send away b: ServiceRestart"]);
        let saved = SavedRoom {
            room: RoomName::parse("r").unwrap(),
            meeting: room.meeting().unwrap(),
            ai: Some(room.ai.to_saved().into()),
            moderation: None,
            watch: None,
            chat: Vec::new(),
            members: room.members.iter().map(|(user, member)| member.saved(user)).collect(),
            departed: Vec::new(),
            unconfirmed: Vec::new(),
            journal: None,
        };
        let mut room = Room::restore(settings(), now, &saved);
        assert_eq!(room.ai.state().controlling_user.as_deref(), Some("a"));
        assert!(room.encode_snapshot().contains(r#","transceiverSessionId":"s1","#));
        let effects = room.handle(now + 10 * TICK, Input::Wake);
        let seen = seen(&effects);
        assert_eq!(
            seen.iter().filter(|effect| effect.starts_with("Close(AgentSession")).count(),
            1,
            "{seen:?}"
        );
    }

    #[test]
    fn restored_room_reserves_ids_of_its_members() {
        let now = start();
        let member = |id: &str, hand: bool| SavedMember {
            user: user(id),
            identity: IdentityId::new(id.to_uppercase()),
            json: User { raised_hand: hand, ..User::fresh(id, "Someone") }.to_json().into(),
            arrival: 1,
        };
        let mut broken = member("c", false);
        broken.json = "7".into();
        let saved = SavedRoom {
            room: RoomName::parse("r").unwrap(),
            meeting: MeetingId::random(),
            ai: Some(AiState::failed().to_json().into()),
            moderation: None,
            watch: None,
            chat: Vec::new(),
            members: vec![member("a", true), member("b", false), broken],
            departed: vec![(user("d"), IdentityId::new("D"))],
            unconfirmed: Vec::new(),
            journal: None,
        };
        let mut room = Room::restore(settings(), now, &saved);
        assert_eq!(room.members().count(), 2);
        assert_eq!(seen(&room.handle(now, join(1, "a", "mallory"))), ["refuse 1: IdTaken"]);
        assert_eq!(seen(&room.handle(now, join(1, "d", "mallory"))), ["refuse 1: IdTaken"]);
        room.handle(now + 2 * TICK, Input::Wake);
        assert_eq!(room.members().count(), 2, "30 s after the start they may still come");
        let effects = room.handle(now + 2 * TICK, join(2, "a", "A"));
        assert_eq!(seen(&effects)[0], "admit 2 as a");
        assert_eq!(room.meeting(), Some(saved.meeting));
        assert!(
            room.encode_snapshot().contains(r#""name":"name of A","raisedHand":true"#),
            "hand up, new name"
        );
        let effects = room.handle(now + 3 * TICK, Input::Wake);
        assert_eq!(seen(&effects)[1], "remove b: TimedOut");
    }

    #[test]
    fn shutdown_closes_sockets_and_keeps_members() {
        let (mut room, now) = room_of_two();
        room.handle(
            now,
            Input::Disconnected(Disconnection {
                connection: ConnectionId::new(NODE, 2),
                is_page_left: false,
            }),
        );
        let effects = room.handle(now, Input::Shutdown);
        assert_eq!(seen(&effects), ["send away a: ServiceRestart"]);
        assert_eq!(persisted(&effects), []);
        assert_eq!(seen(&room.handle(now, join(3, "c", "C"))), ["refuse 3: ShuttingDown"]);
        assert_eq!(room.handle(now + 10 * TICK, Input::Wake).len(), 0, "no tick removes anybody now");
        assert!(!room.is_deserted());
        room.handle(
            now,
            Input::Disconnected(Disconnection {
                connection: ConnectionId::new(NODE, 1),
                is_page_left: false,
            }),
        );
        assert!(room.is_deserted());
        assert_eq!(room.members().count(), 2);
    }

    /// Inputs of a room: sockets come and go, members send messages, time passes.
    #[derive(Clone, Debug)]
    enum Step {
        Join { user: u8, identity: u8, liveness: Liveness },
        Say { connection: u64, text: usize },
        Drop { connection: u64, is_page_left: bool },
        Full { user: u8 },
        AgentDone { job: usize, well: bool },
        Wait { millis: u64 },
    }

    const TEXTS: [&str; 12] = [
        r#"{"type":"react","emoji":"👍"}"#,
        r#"{"type":"heartbeat"}"#,
        r#"{"type":"userUpdate","user":{"raisedHand":true}}"#,
        r#"{"type":"userLeft"}"#,
        r#"{"type":"muteUser","id":"u1"}"#,
        r#"{"type":"directMessage","to":"u2","message":"x"}"#,
        r#"{"type":"e2eeMlsMessage","payload":"x"}"#,
        r#"{"type":"chat","message":"x"}"#,
        ENABLE,
        DISABLE,
        REQUEST,
        r#"{"type":"relenquishAiControl"}"#,
    ];

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0..5u8, 0..6u8, any::<bool>()).prop_map(|(user, identity, beats)| {
                let liveness = if beats { Liveness::Heartbeat } else { Liveness::Connection };
                Step::Join { user, identity, liveness }
            }),
            6 => (1..40u64, 0..TEXTS.len()).prop_map(|(connection, text)| Step::Say { connection, text }),
            2 => (1..40u64, any::<bool>())
                .prop_map(|(connection, is_page_left)| Step::Drop { connection, is_page_left }),
            1 => (0..5u8).prop_map(|user| Step::Full { user }),
            3 => (0..4usize, any::<bool>()).prop_map(|(job, well)| Step::AgentDone { job, well }),
            3 => (0..20_000u64).prop_map(|millis| Step::Wait { millis }),
        ]
    }

    proptest! {
        /// Members match the admitted sockets, nothing is sent to removed members, no deadline is
        /// overdue, every change ends in a snapshot, no member is timed out whose connection is its heartbeat, and no session of an AI is left open or closed twice.
        #[test]
        fn the_invariants_hold(steps in prop::collection::vec(step(), 1..120)) {
            let mut now = start();
            let mut room = Room::new(settings(), now);
            let mut connections = 0;
            // The shell's view: the members and their sockets, by the effects alone.
            let mut expected: BTreeMap<UserId, Option<ConnectionId>> = BTreeMap::new();
            let mut owners: HashMap<UserId, IdentityId> = HashMap::new();
            // Members whose connection is their heartbeat.
            let mut alive: Vec<UserId> = Vec::new();
            let mut unseen_change = false;
            // Jobs for the AI that have not reported, with their results on success.
            let mut jobs: Vec<(AgentJob, AgentOutcome)> = Vec::new();
            let mut reported: Vec<AgentSession> = Vec::new();
            let mut closed: Vec<AgentSession> = Vec::new();
            for step in steps {
                let (input, joins) = match step {
                    Step::Join { user, identity, liveness } => {
                        connections += 1;
                        // Identity 5 is Mallory, who claims everyone's id.
                        let identity = if identity == 5 { "mallory".to_owned() } else { format!("i{user}") };
                        (join_with(liveness, connections, &format!("u{user}"), &identity), Some((IdentityId::new(identity), liveness)))
                    }
                    Step::Say { connection, text } => (says(connection, TEXTS[text]), None),
                    Step::Drop { connection, is_page_left } => (gone(connection, is_page_left), None),
                    Step::Full { user } => (Input::TooSlow { user: super::tests::user(&format!("u{user}")) }, None),
                    Step::AgentDone { job, well } => {
                        if jobs.is_empty() {
                            continue;
                        }
                        let (job, outcome) = jobs.remove(job % jobs.len());
                        let outcome = if well { outcome } else { AgentOutcome::Failed };
                        if let AgentOutcome::Opened(session) = &outcome {
                            reported.push(session.clone());
                        }
                        (Input::AgentDone { job, outcome }, None)
                    }
                    Step::Wait { millis } => {
                        now += Duration::from_millis(millis);
                        (Input::Wake, None)
                    }
                };
                let before = room.encode_snapshot();
                let effects = room.handle(now, input);
                let mut snapshots = 0;
                for effect in &effects {
                    match effect {
                        Effect::Admit { connection, user, .. } => {
                            let (identity, liveness) = joins.clone().expect("only joins admit");
                            if let Some(owner) = owners.get(user) {
                                prop_assert_eq!(owner, &identity, "an id changed its owner");
                            }
                            owners.insert(user.clone(), identity);
                            expected.insert(user.clone(), Some(*connection));
                            alive.retain(|other| other != user);
                            alive.extend((liveness == Liveness::Connection).then(|| user.clone()));
                            unseen_change = true;
                        }
                        Effect::Detach { connection, user } => {
                            prop_assert_eq!(expected.insert(user.clone(), None), Some(Some(*connection)));
                        }
                        Effect::Remove { user, close } => {
                            let connection = expected.remove(user);
                            prop_assert!(connection.is_some());
                            let is_alive = connection.flatten().is_some() && alive.contains(user);
                            prop_assert!(*close != Close::TimedOut || !is_alive, "{} is connected", user);
                        }
                        Effect::Send { to: Recipients::One(to), .. } => prop_assert!(expected.contains_key(to)),
                        Effect::Snapshot => snapshots += 1,
                        Effect::Agent(AgentTask::InviteAi { job, .. }) => {
                            jobs.push((*job, AgentOutcome::Opened(ai_session(&format!("s{}", job.0)))));
                        }
                        Effect::Agent(AgentTask::HearTrack { job, session, .. }) => {
                            prop_assert!(reported.contains(session) && !closed.contains(session));
                            jobs.push((*job, AgentOutcome::Done));
                        }
                        Effect::Agent(AgentTask::Close(session)) => closed.push(session.clone()),
                        Effect::Retire => {
                            prop_assert!(expected.is_empty());
                            owners.clear();
                        }
                        _ => {}
                    }
                }
                prop_assert!(snapshots <= 1);
                unseen_change |= room.encode_snapshot() != before;
                if snapshots == 1 || expected.is_empty() {
                    unseen_change = false;
                }
                let members: Vec<_> = room.members().map(|member| (member.user, member.connection)).collect();
                prop_assert_eq!(&members, &expected.clone().into_iter().collect::<Vec<_>>());
                let sockets: HashSet<_> = members.iter().filter_map(|(_, connection)| *connection).collect();
                prop_assert_eq!(sockets.len(), room.members().filter(|member| room.members.user_at(member.connection.unwrap_or(ConnectionId::new(NODE, 0))).is_some()).count());
                prop_assert!(members.len() <= settings().members);
                prop_assert!(room.meeting().is_some() || members.is_empty());
                for session in &reported {
                    let is_held = room.ai.session() == Some(session);
                    let closings = closed.iter().filter(|other| *other == session).count();
                    prop_assert_eq!(usize::from(is_held) + closings, 1, "{:?}", session);
                }
                let holder = room.ai.state().controlling_user;
                prop_assert!(holder.is_none_or(|holder| expected.contains_key(&super::tests::user(&holder))));
                let is_last = room.encode_snapshot().rsplit_once(r#"{"id":"#).is_some_and(|(_, user)| user.starts_with(r#""ai","#));
                prop_assert_eq!(is_last, room.ai.state().enabled);
                prop_assert!(room.ai.session().is_none() || room.meeting().is_some());
                let (deadline, reason) = room.deadline().expect("a running room has a deadline");
                prop_assert!(deadline > now);
                if unseen_change {
                    prop_assert!(reason == Reason::GiveUp || reason == Reason::Snapshot && deadline <= now + LONGEST_WINDOW || reason == Reason::Tick);
                }
            }
        }
    }
}
