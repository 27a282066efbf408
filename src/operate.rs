//! The client of the operators' API, for the command line: of the server with the same configuration, or of a remote one.

mod action;
mod client;
mod cluster;
mod events;
mod failure;
mod moderate;
mod objects;
mod revoke;
mod rooms;
mod settings;
mod sse;
mod table;

use std::io::Write;

use crate::config::Config;
use client::Operator;
pub use client::{ServerOptions, local_url};
pub use failure::OperateError;
pub use revoke::{RevocationCommand, revoke as revoke_tokens};

/// A command for the operators' API.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum OperateCommand {
    /// List the running rooms.
    #[command(after_help = rooms::LIST_HELP)]
    Rooms(rooms::RoomsOptions),
    /// Show a room and its members.
    #[command(after_help = rooms::SHOW_HELP)]
    Room(rooms::RoomOptions),
    /// Show the nodes of the cluster, as this one sees them.
    #[command(after_help = cluster::HELP)]
    Cluster(cluster::ClusterOptions),
    /// Remove a member from a meeting.
    #[command(after_help = moderate::KICK_HELP)]
    Kick(moderate::KickOptions),
    /// Let nobody new into a meeting.
    #[command(after_help = moderate::LOCK_HELP)]
    Lock(moderate::LockOptions),
    /// Mute, admit, rename, and everything else that moderators do.
    #[command(after_help = action::HELP)]
    Moderate(action::ModerateOptions),
    /// Show or change what the meetings of a room begin with.
    #[command(after_help = settings::HELP)]
    Settings(settings::SettingsOptions),
    /// Print what happens in rooms.
    #[command(after_help = events::HELP)]
    Events(events::EventsOptions),
    /// List, show and remove the durable objects of the running server.
    #[command(after_help = objects::HELP)]
    Objects {
        /// The command.
        #[command(subcommand)]
        command: objects::ObjectsCommand,
        /// The server.
        #[command(flatten)]
        server: ServerOptions,
    },
}

/// Carries out a command, and prints its result.
///
/// # Errors
/// [`OperateError`]: a sentence for the operator, and the exit code for programs.
pub async fn operate(
    config: &Config,
    command: &OperateCommand,
    print: &mut impl Write,
) -> Result<(), OperateError> {
    let text = match command {
        OperateCommand::Rooms(options) => {
            rooms::list(&Operator::new(config, &options.server)?, options).await?
        }
        OperateCommand::Room(options) => {
            rooms::show(&Operator::new(config, &options.server)?, options).await?
        }
        OperateCommand::Cluster(options) => {
            cluster::show(&Operator::new(config, &options.server)?, options).await?
        }
        OperateCommand::Kick(options) => {
            moderate::kick(&Operator::new(config, &options.server)?, options).await?
        }
        OperateCommand::Lock(options) => {
            moderate::lock(&Operator::new(config, &options.server)?, options).await?
        }
        OperateCommand::Moderate(options) => {
            action::run(&Operator::new(config, &options.server)?, options).await?
        }
        OperateCommand::Settings(options) => {
            settings::run(&Operator::new(config, &options.server)?, options).await?
        }
        OperateCommand::Objects { command, server } => {
            objects::run(&Operator::new(config, server)?, command).await?
        }
        OperateCommand::Events(options) => {
            return events::follow(&Operator::new(config, &options.server)?, options, print).await;
        }
    };
    print.write_all(text.as_bytes())?;
    Ok(())
}
