//! A member's state: its identity, and its user object, encoded once for all snapshots.

use std::sync::Arc;
use std::time::Instant;

use super::io::{Join, Liveness};
use crate::id::{AuthMethod, ConnectionId, Grants, IdentityId, MediaKind, SessionId, UserId};
use crate::media_access::{MediaPlace, MediaRights};
use crate::network::ClientNetwork;
use crate::protocol::user::User;
use crate::store::saved::SavedMember;

/// A member's state.
#[derive(Debug)]
pub struct Member {
    /// The identity that owns the membership, whatever name or id a client claims.
    pub identity: IdentityId,
    /// The identity's name.
    pub name: Arc<str>,
    /// Rights of the latest join; none after a restart, until the member is back.
    pub grants: Grants,
    /// The network of the latest client, if known.
    pub network: Option<ClientNetwork>,
    /// The socket, if connected.
    pub connection: Option<ConnectionId>,
    /// The sign of life that the latest client gives.
    pub liveness: Liveness,
    /// Time of the last heartbeat, or of the end of the connection that served as one.
    pub heartbeat: Instant,
    /// Time of the first join, or the oldest that is known of one before a restart.
    pub since: Instant,
    /// True if the member has sent a message since it joined, or its connection serves as one.
    pub has_spoken: bool,
    json: Arc<str>,
    announced: Announced,
    /// The place in the directory of media that was set last.
    placed: MediaPlace,
}

/// The texts of a user object that name its media, as they were when they were last parsed.
#[derive(Debug, Default, PartialEq, Eq)]
struct Announced {
    session: Option<String>,
    audio: Option<String>,
    video: Option<String>,
    screen: Option<String>,
}

/// The user object exceeds its size limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the user object has {bytes} bytes; at most {most} are allowed")]
pub struct UserTooBig {
    bytes: usize,
    most: usize,
}

/// A member's state for operators.
#[derive(Clone, Debug)]
pub struct MemberView {
    /// The member's id.
    pub user: UserId,
    /// The name of its identity.
    pub name: Arc<str>,
    /// The socket, if connected.
    pub connection: Option<ConnectionId>,
    /// Time of the last heartbeat; in the future for a member that was just restored. `None` while its connection
    /// serves as one.
    pub heartbeat: Option<Instant>,
    /// Its user object as JSON.
    pub json: Arc<str>,
    /// True if the other members do not see it.
    pub is_hidden: bool,
}

impl Member {
    /// The state of a new member.
    pub fn fresh(join: &Join, now: Instant) -> Self {
        let Join { user, identity, name, .. } = join;
        let auth_method = shown(identity);
        let json = User { auth_method, ..User::fresh(user.as_str(), name) }.to_json().into();
        Self {
            identity: identity.clone(),
            name: name.clone(),
            grants: join.grants,
            network: join.network,
            connection: Some(join.connection),
            liveness: join.liveness,
            heartbeat: now,
            since: now,
            // Its protocol's own heartbeats do not reach the room.
            has_spoken: join.liveness == Liveness::Connection,
            json,
            announced: Announced::default(),
            placed: MediaPlace::default(),
        }
    }

    /// The state of a member from before a restart. `None` if the store was edited by hand and holds no user.
    pub fn restored(saved: &SavedMember, heartbeat: Instant) -> Option<Self> {
        let user: User = serde_json::from_str(&saved.json).ok()?;
        let user = User { id: saved.user.to_string(), auth_method: shown(&saved.identity), ..user };
        Some(Self {
            identity: saved.identity.clone(),
            json: user.to_json().into(),
            announced: Announced::of(&user),
            placed: MediaPlace::default(),
            name: user.name.into(),
            grants: Grants::default(),
            network: None,
            connection: None,
            liveness: Liveness::Heartbeat,
            heartbeat,
            since: heartbeat,
            has_spoken: true,
        })
    }

    /// Time of the last heartbeat; `None` while the connection serves as one.
    pub fn last_heartbeat(&self) -> Option<Instant> {
        let is_alive = self.liveness == Liveness::Connection && self.connection.is_some();
        (!is_alive).then_some(self.heartbeat)
    }

    /// The member as it is persisted.
    pub fn saved(&self, user: &UserId) -> SavedMember {
        SavedMember { user: user.clone(), identity: self.identity.clone(), json: self.json.clone() }
    }

    /// The user object as JSON.
    pub fn json(&self) -> &Arc<str> {
        &self.json
    }

    /// Replaces the user object; the server sets its id, name and authentication method.
    ///
    /// # Errors
    /// [`UserTooBig`] if it has more than `most` bytes; the old one stays then.
    pub fn update(&mut self, id: &UserId, user: User, most: usize) -> Result<(), UserTooBig> {
        let auth_method = shown(&self.identity);
        let user = User { id: id.to_string(), name: self.name.to_string(), auth_method, ..user };
        let json = user.to_json();
        if json.len() > most {
            return Err(UserTooBig { bytes: json.len(), most });
        }
        self.json = json.into();
        let announced = Announced::of(&user);
        if announced != self.announced {
            self.announced = announced;
        }
        Ok(())
    }

    /// The member's new place in the directory of media, with these rights; `None` if it is as before.
    pub fn place(&mut self, rights: MediaRights) -> Option<MediaPlace> {
        let place = self.announced.place(rights);
        (place != self.placed).then(|| {
            self.placed = place.clone();
            place
        })
    }

    /// Updates the identity's name in the user object.
    pub fn rename(&mut self, name: Arc<str>) {
        if self.name != name {
            self.edit(|user| user.name = name.to_string());
            self.name = name;
        }
    }

    /// Marks a kind of media as switched off in the user object; true if it was on.
    pub fn mute(&mut self, kind: MediaKind) -> bool {
        let mut was_on = false;
        self.edit(|user| was_on = user.tracks.switch_off(kind));
        was_on
    }

    /// True if the user object says that a screen is shared.
    pub fn shares_screen(&self) -> bool {
        serde_json::from_str::<User>(&self.json).is_ok_and(|user| user.tracks.is_on(MediaKind::Screen))
    }

    /// Lowers the hand in the user object; false if it is not raised.
    pub fn lower_hand(&mut self) -> bool {
        let mut was_raised = false;
        self.edit(|user| was_raised = std::mem::take(&mut user.raised_hand));
        was_raised
    }

    #[expect(clippy::expect_used, reason = "every member's JSON was written by User::to_json")]
    fn edit(&mut self, change: impl FnOnce(&mut User)) {
        let mut user: User = serde_json::from_str(&self.json).expect("a member holds a user object");
        user.auth_method = shown(&self.identity);
        change(&mut user);
        self.json = user.to_json().into();
    }
}

impl Announced {
    fn of(user: &User) -> Self {
        let tracks = &user.tracks;
        Self {
            session: user.transceiver_session_id.clone(),
            audio: tracks.audio.clone(),
            video: tracks.video.clone(),
            screen: tracks.screenshare.clone(),
        }
    }

    fn place(&self, rights: MediaRights) -> MediaPlace {
        let track = |text: &Option<String>| {
            let (session, name) = text.as_deref()?.split_once('/')?;
            Some((SessionId::parse(session).ok()?, Arc::from(name)))
        };
        let named = [&self.audio, &self.video, &self.screen].into_iter().filter_map(track);
        let own = self.session.as_deref().and_then(|session| SessionId::parse(session).ok());
        let mut sessions: Vec<SessionId> = own.into_iter().chain(named.map(|(session, _)| session)).collect();
        sessions.sort_unstable();
        sessions.dedup();
        MediaPlace { rights, sessions, screen: track(&self.screen) }
    }
}

/// The authentication method shown to others: only a login for which a third party vouches.
fn shown(identity: &IdentityId) -> Option<AuthMethod> {
    Some(identity.auth_method()).filter(|method| *method != AuthMethod::Cookie)
}
