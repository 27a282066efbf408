//! Several nodes: what a start and a check of the configuration do about them.

use super::StartError;
use crate::config::Config;
use crate::nodes::nats::NatsEngine;

/// Refuses to be a node of several, which this release cannot be yet: it would share nothing with the others.
///
/// # Errors
/// [`StartError::Nodes`] if the configuration names an engine.
pub(super) fn refuse(config: &Config) -> Result<(), StartError> {
    if config.cluster.is_configured() { Err(StartError::Nodes) } else { Ok(()) }
}

/// Validates the engine that a configuration names, by a connection to it.
///
/// # Errors
/// The error with which a server would not start.
pub async fn check_engine(config: &Config) -> Result<(), StartError> {
    if !config.cluster.is_configured() {
        return Ok(());
    }
    config.cluster.shared_secret()?;
    NatsEngine::check(&config.cluster, config.limits.frame_bytes).await?;
    refuse(config)
}
