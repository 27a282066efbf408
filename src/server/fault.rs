//! Errors of starting and shutting down a server.

use std::io;
use std::net::SocketAddr;

use crate::config::ConfigErrors;
use crate::config::KeyFileError;
use crate::delivery::webhook::InvalidWebhook;
use crate::durable::cluster::carry::ObjectsNotCarried;
use crate::events::webhook::WebhookError;
use crate::login::LoginError;
use crate::nodes::carry::CarryError;
use crate::nodes::nats::NatsError;
use crate::nodes::newcomer::OtherSecret;
use crate::orange::manifest::InvalidBuild;
use crate::room::shared_settings::EngineSilent;
use crate::site::InvalidSite;
use crate::store::StoreError;
use crate::store::data_dir::DataDirError;
use crate::store::ended::EndedError;
use crate::store::events::EventsError;
use crate::store::revocations::RevocationsError;
use crate::store::rules::RulesError;

/// A failed start of a server.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The database cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The folder of shared files cannot be used.
    #[error("the folder of shared files cannot be used ({0})")]
    Files(#[source] io::Error),
    /// The check of who may receive whose media needs a node that has all media of a room.
    #[error(
        "calls.room_check: false is needed in a cluster with Cloudflare's media, of which no node has those of a whole \
         room; with it, whoever is logged in may receive tracks whose names it knows"
    )]
    RoomCheckInCluster,
    /// The certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] ConfigErrors),
    /// A key of durable objects cannot be read.
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    /// A listener cannot be bound.
    #[error("{setting}: cannot listen on {address}: {error}{}", way_out(error))]
    Listen {
        /// The setting of the address.
        setting: &'static str,
        /// The configured address.
        address: SocketAddr,
        /// The system's error.
        error: io::Error,
    },
    /// The HTTP client cannot be created.
    #[error("the HTTP client cannot be made: {0}")]
    HttpClient(#[from] reqwest::Error),
    /// The built-in page's files or addresses are invalid.
    #[error(transparent)]
    Site(#[from] InvalidSite),
    /// The folder of the stock client holds no usable build.
    #[error(transparent)]
    Client(#[from] InvalidBuild),
    /// The webhook's client cannot be created.
    #[error(transparent)]
    Webhook(#[from] InvalidWebhook),
    /// A destination of events cannot be used.
    #[error(transparent)]
    EventWebhook(#[from] WebhookError),
    /// The state of the recording of events cannot be read.
    #[error(transparent)]
    Events(#[from] EventsError),
    /// The login cannot be used.
    #[error(transparent)]
    Login(#[from] LoginError),
    /// The revocations of access tokens cannot be read.
    #[error(transparent)]
    Revocations(#[from] RevocationsError),
    /// The settings of rooms cannot be read.
    #[error(transparent)]
    Rules(#[from] RulesError),
    /// Those whose meeting was ended cannot be read.
    #[error(transparent)]
    Ended(#[from] EndedError),
    /// The engine between nodes cannot be used.
    #[error(transparent)]
    Engine(#[from] NatsError),
    /// The settings that all nodes share cannot be read.
    #[error("the settings that all nodes share: {0}")]
    SharedSettings(#[from] EngineSilent),
    /// The other nodes share another secret.
    #[error(transparent)]
    OtherSecret(#[from] OtherSecret),
    /// The stored rooms are not in their journals.
    #[error(transparent)]
    CarryOver(#[from] CarryError),
    /// The stored objects are not in their journals.
    #[error(transparent)]
    ObjectsNotCarried(#[from] ObjectsNotCarried),
}

/// The advice for an address that cannot be listened on.
fn way_out(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; stop the program that has this port, or set another one",
        io::ErrorKind::AddrNotAvailable => {
            "; set an address of this machine, or 0.0.0.0 for all of its IPv4 ones"
        }
        io::ErrorKind::PermissionDenied => {
            "; set a port from 1024 on, or allow lower ones: setcap cap_net_bind_service=+ep on the program"
        }
        _ => "",
    }
}

/// A failed start or shutdown.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The start failed.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The shutdown was incomplete.
    #[error(transparent)]
    Shutdown(#[from] ShutdownError),
}

/// An incomplete shutdown, reported by the exit code.
#[derive(Debug, thiserror::Error)]
pub enum ShutdownError {
    /// Not all changes could be written.
    #[error("the store: {0}")]
    Store(#[from] StoreError),
    /// Some sockets did not close in time and were aborted.
    #[error("{0} sockets did not close in time and were cut off; they come back by themselves")]
    Sockets(usize),
    /// Some durable objects did not end in time and were aborted.
    #[error("{0} durable objects did not end in time and were cut off; what they answered is stored")]
    Objects(usize),
    /// Some tracks of AIs could not be closed.
    #[error("{0} tracks of AIs could not be closed; the log names their sessions, which go on billing")]
    AiTracks(usize),
}

impl ShutdownError {
    /// The error of what was cut off at the deadline; none if nothing was.
    pub(super) fn check(sockets: usize, objects: usize, ai_tracks: usize) -> Result<(), Self> {
        match (sockets, objects, ai_tracks) {
            (0, 0, 0) => Ok(()),
            (0, 0, tracks) => Err(Self::AiTracks(tracks)),
            (0, objects, _) => Err(Self::Objects(objects)),
            (sockets, ..) => Err(Self::Sockets(sockets)),
        }
    }
}
