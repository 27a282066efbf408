//! The rules of a meeting: its moderators, and who may come in. Pure; [`super::state`] applies them.

mod saved;

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::io::{Join, JoinRefusal};
use super::rules::{RoomRules, RulesChange};
use crate::config::ModeratorDefault;
use crate::id::{AuthMethod, Grants, IdentityId, MediaKind, UserId};
use crate::network::ClientNetwork;
use crate::protocol::moderation::KnockView;

/// Time for which a knock is remembered; clients that are refused try again within 10 s.
const KNOCK_TIME: Duration = Duration::from_secs(30);

/// Maximum number of knocks, and of those from one network.
const MAX_KNOCKS: usize = 100;
const MAX_KNOCKS_OF_NETWORK: usize = 8;

/// Maximum number of identities in each list; the oldest is forgotten for a further one.
const MAX_IDENTITIES: usize = 4096;

/// The rules of one meeting.
#[derive(Debug)]
pub struct Moderation {
    default: ModeratorDefault,
    /// The identity that moderates because it came first, where that makes a moderator.
    host: Option<IdentityId>,
    rules: RoomRules,
    /// The member who is shown in the foreground.
    spotlight: Option<UserId>,
    /// Names that moderators gave to identities.
    names: Vec<(IdentityId, Arc<str>)>,
    /// Identities whom a moderator let in.
    admitted: Vec<IdentityId>,
    /// Identities that moderation was given to.
    granted: Vec<IdentityId>,
    /// Identities that moderation was taken from.
    revoked: Vec<IdentityId>,
    bans: Vec<Ban>,
    knocks: Vec<Knock>,
    stops: Vec<Stop>,
    /// True once somebody came who moderates by a right of its own: snapshots list the moderators.
    has_moderators: bool,
}

#[derive(Debug)]
struct Ban {
    user: UserId,
    identity: IdentityId,
    network: Option<ClientNetwork>,
    /// Its end and its length in seconds; none until the meeting ends.
    timed: Option<(Instant, u32)>,
}

#[derive(Debug)]
struct Knock {
    user: UserId,
    identity: IdentityId,
    name: String,
    network: Option<ClientNetwork>,
    last: Instant,
}

/// A kind of media that an identity may send no longer, until it switches it on again.
#[derive(Debug)]
struct Stop {
    identity: IdentityId,
    kind: MediaKind,
    /// Its members that said last that it is on: an update of theirs may have been under way.
    unaware: Vec<UserId>,
}

/// The rules as snapshots show them.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RulesView<'a> {
    /// The moderators by a right of their own; left out where there never was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    moderators: Option<Vec<&'a str>>,
    locked: bool,
    waiting_room: bool,
    /// Left out where everyone may.
    #[serde(skip_serializing_if = "Option::is_none")]
    chat: Option<bool>,
    /// Left out where everyone may.
    #[serde(skip_serializing_if = "Option::is_none")]
    screens: Option<bool>,
    /// Left out where everyone may.
    #[serde(skip_serializing_if = "Option::is_none")]
    videos: Option<bool>,
    /// Left out where it is as the server's settings say.
    #[serde(skip_serializing_if = "Option::is_none")]
    files: Option<bool>,
    /// Left out where it is as the server's settings say.
    #[serde(skip_serializing_if = "Option::is_none")]
    chat_history: Option<bool>,
    /// Left out where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    spotlight: Option<&'a UserId>,
    /// Left out where there is none.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    observers: &'a [Arc<str>],
}

impl Moderation {
    /// The rules of a new meeting.
    pub fn new(default: ModeratorDefault, rules: RoomRules) -> Self {
        Self {
            default,
            host: None,
            rules,
            spotlight: None,
            names: Vec::new(),
            admitted: Vec::new(),
            granted: Vec::new(),
            revoked: Vec::new(),
            bans: Vec::new(),
            knocks: Vec::new(),
            stops: Vec::new(),
            has_moderators: false,
        }
    }

    /// The rules as JSON for snapshots, of a room with these moderators and observers; `None` while everything is as by
    /// default.
    pub fn view<'a>(
        &self,
        moderators: impl Iterator<Item = &'a str>,
        observers: &[Arc<str>],
    ) -> Option<String> {
        let has_roles = self.default != ModeratorDefault::Everyone
            || self.has_moderators
            || !self.granted.is_empty()
            || !self.revoked.is_empty();
        let RoomRules { locked, waiting_room, chat, screens, videos, files, chat_history, password } =
            &self.rules;
        let is_default = !has_roles
            && self.spotlight.is_none()
            && self.rules == RoomRules::default()
            && observers.is_empty();
        let view = RulesView {
            moderators: has_roles.then(|| moderators.collect()),
            locked: *locked,
            waiting_room: *waiting_room,
            chat: (!chat).then_some(false),
            screens: (!screens).then_some(false),
            videos: (!videos).then_some(false),
            files: *files,
            chat_history: *chat_history,
            password: password.is_some().then_some(true),
            spotlight: self.spotlight.as_ref(),
            observers,
        };
        (!is_default).then(|| serde_json::to_string(&view).ok()).flatten()
    }

    /// True if an identity with these grants moderates by a right of its own: that of a token, or a role.
    ///
    /// The default of a room where everyone moderates is no such right: any visitor could remove the others from their meeting.
    pub fn is_moderator(&self, identity: &IdentityId, grants: Grants) -> bool {
        let has_grant = grants.moderate
            && (self.default != ModeratorDefault::Everyone || identity.auth_method() == AuthMethod::Token);
        let has_role = self.granted.contains(identity) || self.host.as_ref() == Some(identity);
        (has_grant || has_role) && !self.revoked.contains(identity)
    }

    /// True if an identity with these grants may mute others, and lower their hands.
    pub fn may_mute(&self, identity: &IdentityId, grants: Grants) -> bool {
        self.is_moderator(identity, grants) || grants.moderate && !self.revoked.contains(identity)
    }

    /// Decides on a join; `knows` is true for an identity that is or was in this meeting. Whoever has to wait knocks.
    ///
    /// # Errors
    /// [`JoinRefusal`].
    pub fn admits(&mut self, now: Instant, join: &Join, knows: bool) -> Result<(), JoinRefusal> {
        self.end_bans(now);
        let is_banned = |ban: &Ban| {
            ban.identity == join.identity || (ban.network.is_some() && ban.network == join.network)
        };
        if self.bans.iter().any(is_banned) {
            return Err(JoinRefusal::Banned);
        }
        let moderates = self.is_moderator(&join.identity, join.grants);
        self.has_moderators |= moderates;
        if knows || moderates || self.admitted.contains(&join.identity) {
            self.knocks.retain(|knock| knock.identity != join.identity);
            return Ok(());
        }
        if self.rules.locked {
            return Err(JoinRefusal::Locked);
        }
        if self.rules.password.is_some() && self.rules.password != join.password {
            return Err(JoinRefusal::PasswordNeeded);
        }
        if self.rules.waiting_room {
            self.knock(now, join);
            return Err(JoinRefusal::Waiting);
        }
        Ok(())
    }

    fn knock(&mut self, now: Instant, join: &Join) {
        if let Some(known) = self.knocks.iter_mut().find(|knock| knock.identity == join.identity) {
            known.last = now;
            return;
        }
        let is_of_network = |knock: &&Knock| knock.network.is_some() && knock.network == join.network;
        let of_network = self.knocks.iter().filter(is_of_network).count();
        // An id that another one knocks with would let a moderator admit the wrong one.
        let is_taken = self.knocks.iter().any(|knock| knock.user == join.user);
        if self.knocks.len() < MAX_KNOCKS && of_network < MAX_KNOCKS_OF_NETWORK && !is_taken {
            self.knocks.push(Knock {
                user: join.user.clone(),
                identity: join.identity.clone(),
                name: join.name.to_string(),
                network: join.network,
                last: now,
            });
        }
    }

    fn end_bans(&mut self, now: Instant) {
        self.bans.retain(|ban| ban.timed.is_none_or(|(end, _)| end > now));
    }

    /// Forgets knocks that were not renewed, and bans whose time is over.
    pub fn forget_old(&mut self, now: Instant) {
        self.end_bans(now);
        self.knocks.retain(|knock| now.saturating_duration_since(knock.last) < KNOCK_TIME);
    }

    /// Those who wait, in the order in which they came.
    pub fn knocks(&self) -> Vec<KnockView> {
        let view = |knock: &Knock| KnockView { id: knock.user.clone(), name: knock.name.clone() };
        self.knocks.iter().map(view).collect()
    }

    /// Number of those who wait.
    pub fn waiting(&self) -> usize {
        self.knocks.len()
    }

    /// The settings of the room.
    pub fn rules(&self) -> &RoomRules {
        &self.rules
    }

    /// Changes the settings; true if that is a change.
    pub fn change(&mut self, change: &RulesChange) -> bool {
        let is_change = self.rules.apply(change);
        if !self.rules.waiting_room {
            self.knocks.clear();
        }
        is_change
    }

    /// Shows a member in the foreground, or nobody; true if that is a change.
    pub fn set_spotlight(&mut self, user: Option<UserId>) -> bool {
        let is_change = self.spotlight != user;
        self.spotlight = user;
        is_change
    }

    /// Ends the spotlight of a member that is gone.
    pub fn left(&mut self, user: &UserId) {
        self.spotlight.take_if(|shown| shown == user);
    }

    /// Gives an identity another name.
    pub fn rename(&mut self, identity: IdentityId, name: Arc<str>) {
        self.names.retain(|(other, _)| *other != identity);
        if self.names.len() >= MAX_IDENTITIES {
            self.names.remove(0);
        }
        self.names.push((identity, name));
    }

    /// The name that a moderator gave to an identity.
    pub fn name_of(&self, identity: &IdentityId) -> Option<&Arc<str>> {
        self.names.iter().find(|(other, _)| other == identity).map(|(_, name)| name)
    }

    /// Lets somebody in at the next attempt; false if nobody with this id waits.
    pub fn admit(&mut self, user: &UserId) -> bool {
        let Some(knock) = self.take_knock(user) else { return false };
        remember(&mut self.admitted, knock.identity);
        true
    }

    /// Refuses somebody until the meeting ends; false if nobody with this id waits.
    pub fn refuse(&mut self, user: &UserId) -> bool {
        let Some(knock) = self.take_knock(user) else { return false };
        self.ban(knock.user, knock.identity, None, None);
        true
    }

    fn take_knock(&mut self, user: &UserId) -> Option<Knock> {
        let at = self.knocks.iter().position(|knock| knock.user == *user)?;
        Some(self.knocks.remove(at))
    }

    /// Bans an identity, and a network if there is one: from now on for so many seconds, or until the meeting ends.
    pub fn ban(
        &mut self,
        user: UserId,
        identity: IdentityId,
        network: Option<ClientNetwork>,
        timed: Option<(Instant, u32)>,
    ) {
        self.admitted.retain(|other| *other != identity);
        self.granted.retain(|other| *other != identity);
        // Another ban of the same id stays: it may be of somebody else, who knocked with it.
        if self.bans.len() >= MAX_IDENTITIES {
            self.bans.remove(0);
        }
        self.bans.push(Ban {
            user,
            identity,
            network,
            timed: timed.map(|(now, seconds)| (after(now, seconds), seconds)),
        });
    }

    /// True if an identity is banned.
    pub fn is_banned(&self, identity: &IdentityId) -> bool {
        self.bans.iter().any(|ban| ban.identity == *identity)
    }

    /// Ends all bans of whoever had this id; false if there is none.
    pub fn unban(&mut self, user: &UserId) -> bool {
        let of_user = self.bans.iter().filter(|ban| ban.user == *user);
        let identities: Vec<IdentityId> = of_user.map(|ban| ban.identity.clone()).collect();
        self.bans.retain(|ban| !identities.contains(&ban.identity));
        !identities.is_empty()
    }

    /// Stops a kind of media of an identity; `unaware` are its members that said last that it is on.
    pub fn stop(&mut self, identity: IdentityId, kind: MediaKind, mut unaware: Vec<UserId>) {
        let is_it = |stop: &Stop| stop.kind == kind && stop.identity == identity;
        if let Some(at) = self.stops.iter().position(is_it) {
            // Those of an earlier stop may still not know of it.
            unaware.extend(self.stops.remove(at).unaware);
            unaware.sort_unstable();
            unaware.dedup();
        }
        if self.stops.len() >= MAX_IDENTITIES {
            self.stops.remove(0);
        }
        self.stops.push(Stop { identity, kind, unaware });
    }

    /// True if a kind of media is stopped, and stays so although its owner says that it is on or off: it has to be
    /// switched off before it can be switched on.
    pub fn stays_off(&self, user: &UserId, identity: &IdentityId, kind: MediaKind, is_on: bool) -> bool {
        let is_it = |stop: &&Stop| stop.kind == kind && stop.identity == *identity;
        self.stops.iter().find(is_it).is_some_and(|stop| !is_on || stop.unaware.contains(user))
    }

    /// Takes a member's word that a kind of its media is on or off, and ends the stop if it was switched on; true if
    /// that is a change.
    pub fn switched(&mut self, user: &UserId, identity: &IdentityId, kind: MediaKind, is_on: bool) -> bool {
        let is_it = |stop: &Stop| stop.kind == kind && stop.identity == *identity;
        let Some(at) = self.stops.iter().position(is_it) else { return false };
        let unaware = &mut self.stops[at].unaware;
        let is_unaware = unaware.contains(user);
        match (is_on, is_unaware) {
            (true, true) | (false, false) => return false,
            (false, true) => unaware.retain(|unaware| unaware != user),
            (true, false) => drop(self.stops.remove(at)),
        }
        true
    }

    /// True if a kind of media of an identity is stopped.
    pub fn is_stopped(&self, identity: &IdentityId, kind: MediaKind) -> bool {
        self.stops.iter().any(|stop| stop.kind == kind && stop.identity == *identity)
    }

    /// Number of stopped kinds of media.
    pub fn stopped(&self) -> usize {
        self.stops.len()
    }

    /// Gives moderation to an identity, or takes it.
    pub fn set_moderator(&mut self, identity: IdentityId, on: bool) {
        self.granted.retain(|other| *other != identity);
        self.revoked.retain(|other| *other != identity);
        remember(if on { &mut self.granted } else { &mut self.revoked }, identity);
    }

    /// Sees to it that one of these identities, the longest present first, moderates because it came first; true if
    /// that is a change.
    pub fn choose_host<'a>(&mut self, mut present: impl Iterator<Item = &'a IdentityId> + Clone) -> bool {
        let is_good = |host: &IdentityId| {
            !self.revoked.contains(host) && present.clone().any(|identity| identity == host)
        };
        if self.host.as_ref().is_some_and(is_good) {
            return false;
        }
        let next = present.find(|identity| !self.revoked.contains(identity)).cloned();
        let is_change = self.host != next;
        self.host = next;
        is_change
    }
}

fn after(now: Instant, seconds: u32) -> Instant {
    now + Duration::from_secs(seconds.into())
}

/// Adds an identity to a list; a full one forgets its oldest.
fn remember(list: &mut Vec<IdentityId>, identity: IdentityId) {
    if list.contains(&identity) {
        return;
    }
    if list.len() >= MAX_IDENTITIES {
        list.remove(0);
    }
    list.push(identity);
}
