//! Why a server does not start, and what its end left undone.

use std::io;
use std::net::SocketAddr;

use crate::config::ConfigErrors;
use crate::feedback::delivery::InvalidWebhook;
use crate::http::site::InvalidSite;
use crate::identity::access::InvalidAccess;
use crate::store::StoreError;
use crate::store::data_dir::DataDirError;

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The database cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] ConfigErrors),
    /// A listener cannot be opened.
    #[error("{setting}: cannot listen on {address}: {error}")]
    Listen {
        /// The setting.
        setting: &'static str,
        /// Its value.
        address: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
    /// Cloudflare Access is set up wrongly.
    #[error(transparent)]
    Access(#[from] InvalidAccess),
    /// The client for other servers cannot be made.
    #[error("the HTTP client cannot be made: {0}")]
    HttpClient(#[from] reqwest::Error),
    /// What browsers are to be shown is not there.
    #[error(transparent)]
    Site(#[from] InvalidSite),
    /// The client for the webhook cannot be made.
    #[error(transparent)]
    Webhook(#[from] InvalidWebhook),
}

/// What went wrong with a server, at one end of its life or the other.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// It did not end well.
    #[error(transparent)]
    Shutdown(#[from] ShutdownError),
}

/// What a shutdown left undone; the exit code tells.
#[derive(Debug, thiserror::Error)]
pub enum ShutdownError {
    /// Not everything could be written.
    #[error("the store: {0}")]
    Store(#[from] StoreError),
    /// Some sockets had to be cut off.
    #[error("{0} sockets did not close in time and were cut off; they come back by themselves")]
    Sockets(usize),
    /// Some AIs could not be sent away.
    #[error("{0} tracks of AIs could not be closed; the log names their sessions, which go on billing")]
    AiTracks(usize),
}
