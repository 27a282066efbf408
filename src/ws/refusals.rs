//! Refusals of upgrades: their statuses, and the last ones for pages: a browser does not show a page the answer to
//! a refused upgrade.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::http::StatusCode;
use moka::future::Cache;

use crate::http::error::{ApiError, Refusal};
use crate::id::UserId;
use crate::limit::Exceeded;
use crate::room::io::JoinRefusal;
use crate::room::registry::CannotJoin;

/// Maximum number of stored refusals; an unknown client that fills this costs others only an explanation.
const MAX_REFUSALS: u64 = 4096;

/// Lifetime of a refusal. A page asks within seconds; an older refusal does not concern its newest attempt.
const LIFETIME: Duration = Duration::from_secs(60);

/// The last refusal of each `_pk`, and a flag that is set once any request lost its upgrade in a proxy.
#[derive(Debug)]
pub struct Refusals {
    last: Cache<UserId, ApiError>,
    lost_upgrade: AtomicBool,
}

impl Refusals {
    /// An empty store.
    pub fn new() -> Self {
        let last = Cache::builder().max_capacity(MAX_REFUSALS).time_to_live(LIFETIME).build();
        Self { last, lost_upgrade: AtomicBool::new(false) }
    }

    /// Stores a refusal.
    pub async fn remember(&self, user: UserId, refusal: ApiError) {
        self.last.insert(user, refusal).await;
    }

    /// The last refusal of `user`, within a minute.
    pub async fn last(&self, user: &UserId) -> Option<ApiError> {
        self.last.get(user).await
    }

    /// True for the first upgrade that a proxy lost: clients retry again and again, and a log line
    /// for each would bury the others.
    pub fn is_first_lost_upgrade(&self) -> bool {
        !self.lost_upgrade.swap(true, Ordering::Relaxed)
    }
}

impl Default for Refusals {
    fn default() -> Self {
        Self::new()
    }
}

/// Returns the refusal of a socket beyond a limit on sockets.
pub(super) fn too_many_sockets(exceeded: Exceeded) -> ApiError {
    match exceeded {
        Exceeded::Total => {
            ApiError::refused(StatusCode::SERVICE_UNAVAILABLE, "server_full", "the server is full")
        }
        Exceeded::Network => ApiError::Refused(Refusal {
            status: StatusCode::TOO_MANY_REQUESTS,
            label: "too_many_of_address",
            message: "too many connections from this address",
            network_limit: Some("limits.connections_per_address"),
        }),
    }
}

impl From<CannotJoin> for ApiError {
    fn from(error: CannotJoin) -> Self {
        let busy = StatusCode::SERVICE_UNAVAILABLE;
        let limited = |label, network_limit, message| {
            let status = StatusCode::TOO_MANY_REQUESTS;
            Self::Refused(Refusal { status, label, message, network_limit })
        };
        match error {
            CannotJoin::RoomsFull => {
                ApiError::refused(busy, "rooms_full", "the server is at its limit of rooms")
            }
            CannotJoin::TooManyNewRooms => {
                limited("too_many_new_rooms", None, "too many new rooms; try again in a minute")
            }
            CannotJoin::TooManyRoomsOfNetwork => limited(
                "too_many_rooms_of_network",
                Some("limits.rooms_per_network"),
                "too many rooms were started from this network; join one of them, or try again later",
            ),
            CannotJoin::TooManyNewRoomsOfNetwork => limited(
                "too_many_new_rooms_of_network",
                Some("limits.new_rooms_per_minute_per_network"),
                "too many new rooms from this network; try again in a minute",
            ),
            CannotJoin::Unreachable => ApiError::refused(
                busy,
                "room_unreachable",
                "the room cannot be reached at the moment; try again in a few seconds",
            ),
            CannotJoin::Refused(JoinRefusal::IdTaken) => {
                ApiError::refused(StatusCode::FORBIDDEN, "seat_taken", "this _pk is in use by somebody else")
            }
            CannotJoin::Refused(JoinRefusal::RoomFull) => {
                ApiError::refused(busy, "room_full", "the room is full")
            }
            CannotJoin::Refused(JoinRefusal::IdentityFull) => limited(
                "room_full_for_identity",
                None,
                "you are in this room too many times already; close one of its pages",
            ),
            CannotJoin::Refused(JoinRefusal::NetworkFull) => limited(
                "room_full_for_network",
                Some("limits.members_per_room_per_network"),
                "too many members of this room come from your network",
            ),
            CannotJoin::Refused(JoinRefusal::NotStarted) => ApiError::refused(
                StatusCode::FORBIDDEN,
                "not_started",
                "the meeting has not started; whoever may start it has to enter first",
            ),
            CannotJoin::Refused(JoinRefusal::Banned) => ApiError::refused(
                StatusCode::FORBIDDEN,
                "banned",
                "a moderator removed you from this meeting",
            ),
            CannotJoin::Refused(JoinRefusal::Locked) => {
                ApiError::refused(StatusCode::FORBIDDEN, "locked", "this meeting is locked")
            }
            CannotJoin::Refused(JoinRefusal::Waiting) => ApiError::refused(
                StatusCode::FORBIDDEN,
                "waiting",
                "a moderator has to let you in; please wait",
            ),
            CannotJoin::Refused(JoinRefusal::PasswordNeeded) => {
                ApiError::refused(StatusCode::FORBIDDEN, "password_needed", "this room has a password")
            }
            CannotJoin::Refused(JoinRefusal::Ended) => {
                ApiError::refused(StatusCode::FORBIDDEN, "ended", "a moderator ended this meeting")
            }
            CannotJoin::Refused(JoinRefusal::ShuttingDown) => {
                ApiError::refused(busy, "shutting_down", "the server is restarting")
            }
        }
    }
}
