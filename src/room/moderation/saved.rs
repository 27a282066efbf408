//! The persistent form of a meeting's rules.

use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::{Ban, Moderation, Stop, after};
use crate::config::ModeratorDefault;
use crate::id::{IdentityId, MediaKind, UserId};
use crate::room::rules::RoomRules;

/// The persistent form. It has no bans of networks: an address may be somebody else's after a restart.
#[derive(Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct SavedModeration {
    host: Option<String>,
    #[serde(flatten)]
    rules: RoomRules,
    names: Vec<(String, Arc<str>)>,
    admitted: Vec<String>,
    granted: Vec<String>,
    revoked: Vec<String>,
    banned: Vec<(String, String)>,
    /// Bans for a time, with their seconds, which begin anew after a restart: the clock of a room does not last longer.
    banned_for: Vec<(String, String, u32)>,
    stops: Vec<SavedStop>,
}

#[derive(Serialize, Deserialize)]
struct SavedStop {
    identity: String,
    kind: MediaKind,
    unaware: Vec<String>,
}

impl Moderation {
    /// The rules of a meeting from before a restart. What cannot be read is as in a new meeting.
    pub fn restore(default: ModeratorDefault, now: Instant, json: &str) -> Self {
        let saved: SavedModeration = serde_json::from_str(json).unwrap_or_default();
        let identities = |ids: Vec<String>| ids.into_iter().map(IdentityId::new).collect();
        let ban = |(user, identity, seconds): (String, String, Option<u32>)| {
            let user = UserId::parse(&user).ok()?;
            let timed = seconds.map(|seconds| (after(now, seconds), seconds));
            Some(Ban { user, identity: IdentityId::new(identity), network: None, timed })
        };
        let lasting = saved.banned.into_iter().map(|(user, identity)| (user, identity, None));
        let timed =
            saved.banned_for.into_iter().map(|(user, identity, seconds)| (user, identity, Some(seconds)));
        let stop = |SavedStop { identity, kind, unaware }| {
            let unaware = unaware.iter().filter_map(|user| UserId::parse(user).ok()).collect();
            Stop { identity: IdentityId::new(identity), kind, unaware }
        };
        Self {
            default,
            host: saved.host.map(IdentityId::new),
            rules: saved.rules,
            spotlight: None,
            names: saved.names.into_iter().map(|(id, name)| (IdentityId::new(id), name)).collect(),
            admitted: identities(saved.admitted),
            granted: identities(saved.granted),
            revoked: identities(saved.revoked),
            bans: lasting.chain(timed).filter_map(ban).collect(),
            knocks: Vec::new(),
            stops: saved.stops.into_iter().map(stop).collect(),
            has_moderators: false,
        }
    }

    /// The rules in persistent form.
    #[expect(clippy::expect_used, reason = "texts and booleans always serialize")]
    pub fn to_saved(&self) -> String {
        let texts = |ids: &[IdentityId]| ids.iter().map(|id| id.as_str().to_owned()).collect();
        let (timed, lasting): (Vec<&Ban>, Vec<&Ban>) = self.bans.iter().partition(|ban| ban.timed.is_some());
        let texts_of = |ban: &Ban| (ban.user.to_string(), ban.identity.as_str().to_owned());
        let banned = lasting.into_iter().map(texts_of);
        let banned_for = timed.into_iter().filter_map(|ban| {
            let ((user, identity), (_, seconds)) = (texts_of(ban), ban.timed?);
            Some((user, identity, seconds))
        });
        let stops = self.stops.iter().map(|stop| SavedStop {
            identity: stop.identity.as_str().to_owned(),
            kind: stop.kind,
            unaware: stop.unaware.iter().map(ToString::to_string).collect(),
        });
        let saved = SavedModeration {
            host: self.host.as_ref().map(|host| host.as_str().to_owned()),
            rules: self.rules.clone(),
            names: self.names.iter().map(|(id, name)| (id.as_str().to_owned(), name.clone())).collect(),
            admitted: texts(&self.admitted),
            granted: texts(&self.granted),
            revoked: texts(&self.revoked),
            banned: banned.collect(),
            banned_for: banned_for.collect(),
            stops: stops.collect(),
        };
        serde_json::to_string(&saved).expect("rules are plain data")
    }
}
