//! One seat of a room: whose it is, and its user object, encoded once for all snapshots.

use std::sync::Arc;
use std::time::Instant;

use super::io::KeptSeat;
use crate::id::{AuthMethod, ConnectionId, IdentityId, UserId};
use crate::network::ClientNetwork;
use crate::protocol::user::User;

/// A seat.
#[derive(Debug)]
pub struct Seat {
    /// Who may sit here, whatever name or id they claim.
    pub identity: IdentityId,
    /// The name of that identity.
    pub name: Arc<str>,
    /// The network of the client that came last, where it is known.
    pub network: Option<ClientNetwork>,
    /// The socket, unless it is away.
    pub connection: Option<ConnectionId>,
    /// The last sign of life.
    pub heartbeat: Instant,
    /// Whether a message came from the member since it joined.
    pub has_spoken: bool,
    json: Arc<str>,
}

/// The user object has more bytes than are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the user object has {bytes} bytes; at most {most} are kept")]
pub struct UserTooBig {
    bytes: usize,
    most: usize,
}

/// What operators see of a member.
#[derive(Clone, Debug)]
pub struct MemberView {
    /// The member's id on the wire.
    pub user: UserId,
    /// The name of its identity.
    pub name: Arc<str>,
    /// Its socket, if it is not away.
    pub connection: Option<ConnectionId>,
    /// Its last heartbeat; in the future for a seat that was restored a moment ago.
    pub heartbeat: Instant,
}

impl Seat {
    /// A seat for somebody who has just come.
    pub fn fresh(
        id: &UserId,
        identity: IdentityId,
        name: Arc<str>,
        network: Option<ClientNetwork>,
        connection: ConnectionId,
        now: Instant,
    ) -> Self {
        let auth_method = shown(&identity);
        let json = User { auth_method, ..User::fresh(id.as_str(), &name) }.to_json().into();
        Self {
            identity,
            name,
            network,
            connection: Some(connection),
            heartbeat: now,
            has_spoken: false,
            json,
        }
    }

    /// A seat of before a restart. `None` if the store was edited by hand and holds no user.
    pub fn restored(kept: &KeptSeat, heartbeat: Instant) -> Option<Self> {
        let user: User = serde_json::from_str(&kept.json).ok()?;
        let user = User { id: kept.user.to_string(), auth_method: shown(&kept.identity), ..user };
        Some(Self {
            identity: kept.identity.clone(),
            json: user.to_json().into(),
            name: user.name.into(),
            network: None,
            connection: None,
            heartbeat,
            has_spoken: true,
        })
    }

    /// The seat as it survives a restart.
    pub fn kept(&self, user: &UserId) -> KeptSeat {
        KeptSeat { user: user.clone(), identity: self.identity.clone(), json: self.json.clone() }
    }

    /// The user object as JSON.
    pub fn json(&self) -> &str {
        &self.json
    }

    /// Takes what the member says of itself; its id and name are not its to say.
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
        Ok(())
    }

    /// Shows the name that the identity has now.
    pub fn rename(&mut self, name: Arc<str>) {
        if self.name != name {
            self.edit(|user| user.name = name.to_string());
            self.name = name;
        }
    }

    /// Shows the microphone as switched off.
    pub fn mute(&mut self) {
        self.edit(|user| user.tracks.audio_enabled = Some(false));
    }

    #[expect(clippy::expect_used, reason = "every seat's JSON was written by User::to_json")]
    fn edit(&mut self, change: impl FnOnce(&mut User)) {
        let mut user: User = serde_json::from_str(&self.json).expect("a seat holds a user object");
        user.auth_method = shown(&self.identity);
        change(&mut user);
        self.json = user.to_json().into();
    }
}

/// The method that others are told: that of a login which others than its owner vouch for.
fn shown(identity: &IdentityId) -> Option<AuthMethod> {
    Some(identity.auth_method()).filter(|method| *method != AuthMethod::Cookie)
}
