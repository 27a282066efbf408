//! Start of the rooms.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::ai::AiHandle;
use crate::assistant::AssistantHandle;
use crate::config::{Config, Sharing};
use crate::limit::Rate;
use crate::media_access::MediaAccess;
use crate::metrics::Metrics;
use crate::room::actor::RoomDeps;
use crate::room::assistant::AssistantSettings;
use crate::room::chat::HistoryLimits;
use crate::room::ended::EndedMeetings;
use crate::room::events::RoomEvents;
use crate::room::outbox::OutboxLimits;
use crate::room::registry::{Registry, RegistryLimits};
use crate::room::rulebook::Rulebook;
use crate::room::rules::RoomRules;
use crate::room::shared::SharedRooms;
use crate::room::state::RoomSettings;
use crate::room::watch::WatchSettings;
use crate::store::Store;
use crate::store::files::Files;
use crate::store::saved::SavedRoom;

/// Other parts of the server that rooms use.
pub(super) struct RoomServices {
    /// The AI.
    pub(super) ai: AiHandle,
    /// The assistant, if there is one.
    pub(super) assistant: Option<AssistantHandle>,
    /// The directory of who may receive whose media.
    pub(super) media: MediaAccess,
    /// The settings of rooms by name.
    pub(super) rulebook: Arc<Rulebook>,
    /// Those whose meeting was ended for all.
    pub(super) ended: EndedMeetings,
    /// The files that members share.
    pub(super) files: Files,
    /// The publisher of events.
    pub(super) events: RoomEvents,
}

/// Starts the stored rooms.
pub(super) fn start(
    config: &Config,
    store: &Store,
    services: RoomServices,
    metrics: Arc<Metrics>,
    restored: Vec<SavedRoom>,
    shared: Option<Arc<dyn SharedRooms>>,
) -> Registry {
    let Config { room, chat, limits, .. } = config;
    let settings = RoomSettings {
        tick: room.tick,
        heartbeat_timeout: room.heartbeat_timeout,
        restore_grace: room.restore_grace,
        members: limits.members_per_room,
        members_per_identity: limits.members_per_room_per_identity,
        members_per_network: limits.members_per_room_per_network,
        user_bytes: limits.user_bytes,
        ai_starts_per_minute: limits.ai_starts_per_minute,
        moderators: config.moderation.default,
        rules: RoomRules::default(),
        chat: HistoryLimits {
            is_on: chat.history,
            messages: chat.history_messages,
            age: chat.history_age,
            bytes: chat.history_bytes,
            all_bytes: chat.histories_bytes,
        },
        assistant: services.assistant.is_some().then(|| AssistantSettings {
            name: config.assistant.name.trim().into(),
            context_messages: config.assistant.context_messages,
        }),
        watch: WatchSettings::new(&config.watch),
        files: config.files.sharing == Sharing::Everyone,
    };
    let outbox = OutboxLimits {
        member_bytes: limits.outbox_bytes,
        all_bytes: limits.outboxes_bytes,
        write_stall: limits.write_stall,
    };
    let force = CancellationToken::new();
    let RoomServices { ai, assistant, media, rulebook, ended, files, events } = services;
    let deps = RoomDeps {
        settings,
        outbox,
        store: store.handle(),
        ai,
        assistant,
        media,
        rulebook,
        ended: Arc::new(ended),
        observers: Arc::default(),
        files: Some(files),
        events,
        metrics,
        force,
    };
    let limits = RegistryLimits {
        rooms: limits.rooms,
        new_rooms: Rate::per_minute(limits.new_rooms_per_minute),
        rooms_of_network: limits.rooms_per_network,
        new_rooms_of_network: Rate::per_minute(limits.new_rooms_per_minute_per_network),
    };
    match shared {
        None => Registry::start(limits, deps, restored),
        Some(shared) => Registry::start_shared(limits, deps, shared),
    }
}
