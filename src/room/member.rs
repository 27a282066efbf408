//! A member's state: its identity, and its user object, encoded once for all snapshots.

use std::sync::Arc;
use std::time::Instant;

use super::announced::{Announced, Restraint};
use super::io::{Join, Liveness};
use crate::id::{AuthMethod, ConnectionId, Grants, IdentityId, MediaKind, UserId};
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
    /// Its place in the order in which members came.
    pub arrival: i64,
    /// True if the member has sent a message since it joined, or its connection serves as one.
    pub has_spoken: bool,
    json: Arc<str>,
    /// The fields of the user object that the room acts on.
    shown: Shown,
    announced: Announced,
    /// The rights in the directory of media that were set last; none once something else was announced since.
    placed: Option<MediaRights>,
}

/// Facts of a user object about its member, so that it need not be parsed for them.
#[derive(Clone, Copy, Debug, Default)]
struct Shown {
    raised_hand: bool,
    audio: bool,
    video: bool,
    screen: bool,
    reads_chat: bool,
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
    pub fn fresh(join: &Join, arrival: i64, now: Instant) -> Self {
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
            arrival,
            // Its protocol's own heartbeats do not reach the room.
            has_spoken: join.liveness == Liveness::Connection,
            json,
            shown: Shown::default(),
            announced: Announced::default(),
            placed: Some(MediaRights::default()),
        }
    }

    /// The state of a member from before a restart. `None` if the store was edited by hand and holds no user.
    pub fn restored(saved: &SavedMember, heartbeat: Instant) -> Option<Self> {
        let user: User = serde_json::from_str(&saved.json).ok()?;
        let user = User { id: saved.user.to_string(), auth_method: shown(&saved.identity), ..user };
        let mut announced = Announced::default();
        announced.update(&user);
        Some(Self {
            identity: saved.identity.clone(),
            json: user.to_json().into(),
            shown: Shown::of(&user),
            announced,
            placed: None,
            name: user.name.into(),
            grants: Grants::default(),
            network: None,
            connection: None,
            liveness: Liveness::Heartbeat,
            heartbeat,
            arrival: saved.arrival,
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
        SavedMember {
            user: user.clone(),
            identity: self.identity.clone(),
            json: self.json.clone(),
            arrival: self.arrival,
        }
    }

    /// The user object as JSON.
    pub fn json(&self) -> &Arc<str> {
        &self.json
    }

    /// Replaces the user object; the server sets its id, name and authentication method, and restrains its media.
    ///
    /// # Errors
    /// [`UserTooBig`] if it has more than `most` bytes; the old one stays then.
    pub fn update(
        &mut self,
        id: &UserId,
        user: User,
        restraint: Restraint,
        most: usize,
    ) -> Result<(), UserTooBig> {
        let auth_method = shown(&self.identity);
        let mut user = User { id: id.to_string(), name: self.name.to_string(), auth_method, ..user };
        let tracks = (restraint != Restraint::default()).then(|| user.tracks.clone());
        restraint.apply(&mut user.tracks);
        let json = user.to_json();
        if json.len() > most {
            return Err(UserTooBig { bytes: json.len(), most });
        }
        self.json = json.into();
        self.shown = Shown::of(&user);
        // A track is what its owner says, even while it may not say so to others.
        user.tracks = tracks.unwrap_or(user.tracks);
        if self.announced.update(&user) {
            self.placed = None;
        }
        Ok(())
    }

    /// The member's new place in the directory of media, with these rights; `None` if it is as before.
    pub fn place(&mut self, rights: MediaRights) -> Option<MediaPlace> {
        (self.placed.replace(rights) != Some(rights)).then(|| self.announced.place(rights))
    }

    /// The member's place in the directory of media, with these rights.
    pub fn media_place(&self, rights: MediaRights) -> MediaPlace {
        self.announced.place(rights)
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
        let was_on = match kind {
            MediaKind::Audio => self.shown.audio,
            MediaKind::Video => self.shown.video,
            MediaKind::Screen => self.shown.screen,
        };
        if was_on {
            self.edit(|user| {
                user.tracks.switch_off(kind);
            });
        }
        was_on
    }

    /// True if the user object says that a screen is shared.
    pub fn shares_screen(&self) -> bool {
        self.shown.screen
    }

    /// True if the user object says that the member's client shows the chat, so that it is not Orange's.
    pub fn reads_chat(&self) -> bool {
        self.shown.reads_chat
    }

    /// Lowers the hand in the user object; false if it is not raised.
    pub fn lower_hand(&mut self) -> bool {
        let was_raised = self.shown.raised_hand;
        if was_raised {
            self.edit(|user| user.raised_hand = false);
        }
        was_raised
    }

    #[expect(clippy::expect_used, reason = "every member's JSON was written by User::to_json")]
    fn edit(&mut self, change: impl FnOnce(&mut User)) {
        let mut user: User = serde_json::from_str(&self.json).expect("a member holds a user object");
        user.auth_method = shown(&self.identity);
        change(&mut user);
        self.shown = Shown::of(&user);
        self.json = user.to_json().into();
    }
}

impl Shown {
    fn of(user: &User) -> Self {
        let is_on = |kind| user.tracks.is_on(kind);
        Self {
            raised_hand: user.raised_hand,
            audio: is_on(MediaKind::Audio),
            video: is_on(MediaKind::Video),
            screen: is_on(MediaKind::Screen),
            reads_chat: user.other.is_true("readsChat"),
        }
    }
}

/// The authentication method shown to others: only a login for which a third party vouches.
fn shown(identity: &IdentityId) -> Option<AuthMethod> {
    Some(identity.auth_method()).filter(|method| *method != AuthMethod::Cookie)
}
