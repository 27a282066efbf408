//! Errors of a server's start and shutdown.

use std::io;
use std::net::SocketAddr;

use crate::config::ConfigErrors;
use crate::feedback::delivery::InvalidWebhook;
use crate::http::site::InvalidSite;
use crate::identity::access::InvalidAccess;
use crate::store::StoreError;
use crate::store::data_dir::DataDirError;

/// An error that prevents a start.
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
        /// The system's error.
        error: io::Error,
    },
    /// The Cloudflare Access settings are invalid.
    #[error(transparent)]
    Access(#[from] InvalidAccess),
    /// The client for other servers cannot be made.
    #[error("the HTTP client cannot be made: {0}")]
    HttpClient(#[from] reqwest::Error),
    /// The static files for browsers are missing.
    #[error(transparent)]
    Site(#[from] InvalidSite),
    /// The client for the webhook cannot be made.
    #[error(transparent)]
    Webhook(#[from] InvalidWebhook),
}

/// An error of a server's start or shutdown.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The start failed.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The shutdown failed.
    #[error(transparent)]
    Shutdown(#[from] ShutdownError),
}

/// Work that a shutdown left undone; it sets the exit code.
#[derive(Debug, thiserror::Error)]
pub enum ShutdownError {
    /// Some changes could not be written.
    #[error("the store: {0}")]
    Store(#[from] StoreError),
    /// Some sockets had to be closed forcibly.
    #[error("{0} sockets did not close in time and were cut off; they come back by themselves")]
    Sockets(usize),
    /// Some AI tracks could not be closed.
    #[error("{0} tracks of AIs could not be closed; the log names their sessions, which go on billing")]
    AiTracks(usize),
}
