//! `satsuma moderate`: the other actions of a moderator, by operators.

use crate::id::{MediaKind, UserId};
use crate::protocol::moderation::ModerationAction;

use super::client::{Operator, ServerOptions};
use super::failure::OperateError;
use super::moderate::{member, moderate};
use super::rooms::find;
use super::table::{safe_json, shown};

pub(super) const HELP: &str = "\
What is decided here holds until the meeting ends; `satsuma settings` is for what each meeting of a room begins with.

Examples:
  satsuma moderate standup mute Ada
  satsuma moderate standup mute Ada --kind screen
  satsuma moderate standup waiting-room
  satsuma moderate standup chat --off
  satsuma moderate standup end";

/// A meeting, and what to do in it.
#[derive(Clone, Debug, clap::Args)]
pub struct ModerateOptions {
    /// The room's name.
    room: String,
    /// The action.
    #[command(subcommand)]
    action: ActionCommand,
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
    /// The server.
    #[command(flatten)]
    pub(super) server: ServerOptions,
}

/// An action.
#[derive(Clone, Debug, clap::Subcommand)]
enum ActionCommand {
    /// Stop a member's microphone, camera or screen, until it switches that on again.
    Mute {
        #[command(flatten)]
        member: Member,
        /// The kind of media.
        #[arg(long, value_name = "KIND", default_value = "audio", value_parser = kind)]
        kind: MediaKind,
    },
    /// Let people wait until somebody lets them in.
    WaitingRoom {
        #[command(flatten)]
        switch: Switch,
    },
    /// Let somebody in who waits.
    Admit {
        #[command(flatten)]
        person: Person,
    },
    /// Send somebody away who waits, until the meeting ends.
    Refuse {
        #[command(flatten)]
        person: Person,
    },
    /// End the ban of a removed member, or of somebody who was refused.
    Unban {
        #[command(flatten)]
        person: Person,
    },
    /// Lower a raised hand, or all of them.
    LowerHands {
        #[command(flatten)]
        member: MaybeMember,
    },
    /// Show a member in the foreground for everyone; nobody without one.
    Spotlight {
        #[command(flatten)]
        member: MaybeMember,
    },
    /// Let everyone write to the chat.
    Chat {
        #[command(flatten)]
        switch: Switch,
    },
    /// Let everyone share a screen.
    Screens {
        #[command(flatten)]
        switch: Switch,
    },
    /// Let everyone share and control videos.
    Videos {
        #[command(flatten)]
        switch: Switch,
    },
    /// End the video that is watched.
    StopVideo,
    /// Let everyone share files.
    Files {
        #[command(flatten)]
        switch: Switch,
    },
    /// Remember the chat for those who join later.
    ChatHistory {
        #[command(flatten)]
        switch: Forget,
    },
    /// Forget the messages of the chat, also at those who see them.
    ClearChat,
    /// Give a member another name.
    Rename {
        #[command(flatten)]
        member: Member,
        /// The name.
        name: String,
    },
    /// Make a member a moderator.
    Grant {
        #[command(flatten)]
        member: Member,
    },
    /// Take moderation from a member.
    Revoke {
        #[command(flatten)]
        member: Member,
    },
    /// End the meeting for everyone.
    End,
}

#[derive(Clone, Debug, clap::Args)]
struct Member {
    /// The member's id, or its name if no other member has the same.
    member: String,
}

#[derive(Clone, Debug, clap::Args)]
struct MaybeMember {
    /// The member's id, or its name if no other member has the same.
    member: Option<String>,
}

#[derive(Clone, Debug, clap::Args)]
struct Person {
    /// The id with which it came.
    id: String,
}

#[derive(Clone, Debug, clap::Args)]
struct Switch {
    /// Switch it off: moderators alone, or for the waiting room nobody waits.
    #[arg(long)]
    off: bool,
}

#[derive(Clone, Debug, clap::Args)]
struct Forget {
    /// Forget it, and remember nothing.
    #[arg(long)]
    off: bool,
}

/// Carries out an action; returns the text to print.
pub(super) async fn run(operator: &Operator, options: &ModerateOptions) -> Result<String, OperateError> {
    let action = action(operator, options).await?;
    let done = moderate(operator, &options.room, &action).await?;
    let text = || format!("{} in {}\n", said(&action), shown(&options.room));
    Ok(if options.json { safe_json(&format!("{done}\n")) } else { text() })
}

/// The action as the API takes it, with the ids of members that are named.
async fn action(operator: &Operator, options: &ModerateOptions) -> Result<ModerationAction, OperateError> {
    let room = &options.room;
    let found = async |wanted: &str| {
        let view = find(operator, room).await?;
        let (id, _) = member(&view, room, wanted)?;
        user(id)
    };
    let maybe = async |wanted: &MaybeMember| match &wanted.member {
        Some(wanted) => found(wanted).await.map(Some),
        None => Ok(None),
    };
    Ok(match &options.action {
        ActionCommand::Mute { member, kind } => {
            ModerationAction::Mute { id: found(&member.member).await?, kind: *kind }
        }
        ActionCommand::WaitingRoom { switch } => ModerationAction::WaitingRoom { on: !switch.off },
        ActionCommand::Admit { person } => ModerationAction::Admit { id: user(&person.id)? },
        ActionCommand::Refuse { person } => ModerationAction::Refuse { id: user(&person.id)? },
        ActionCommand::Unban { person } => ModerationAction::Unban { id: user(&person.id)? },
        ActionCommand::LowerHands { member } => ModerationAction::LowerHands { id: maybe(member).await? },
        ActionCommand::Spotlight { member } => ModerationAction::Spotlight { id: maybe(member).await? },
        ActionCommand::Chat { switch } => ModerationAction::Chat { on: !switch.off },
        ActionCommand::Screens { switch } => ModerationAction::Screens { on: !switch.off },
        ActionCommand::Videos { switch } => ModerationAction::Videos { on: !switch.off },
        ActionCommand::StopVideo => ModerationAction::StopVideo,
        ActionCommand::Files { switch } => ModerationAction::Files { on: !switch.off },
        ActionCommand::ChatHistory { switch } => ModerationAction::ChatHistory { on: !switch.off },
        ActionCommand::ClearChat => ModerationAction::ClearChat,
        ActionCommand::Rename { member, name } => {
            ModerationAction::Rename { id: found(&member.member).await?, name: name.clone() }
        }
        ActionCommand::Grant { member } => {
            ModerationAction::GrantModeration { id: found(&member.member).await? }
        }
        ActionCommand::Revoke { member } => {
            ModerationAction::RevokeModeration { id: found(&member.member).await? }
        }
        ActionCommand::End => ModerationAction::End,
    })
}

/// The action that was carried out, for people.
fn said(action: &ModerationAction) -> String {
    let whom = action.target().map(|id| format!(" {}", shown(id.as_str()))).unwrap_or_default();
    match action {
        ModerationAction::WaitingRoom { on }
        | ModerationAction::Chat { on }
        | ModerationAction::Screens { on }
        | ModerationAction::Videos { on }
        | ModerationAction::Files { on }
        | ModerationAction::ChatHistory { on } => {
            format!("{} is {}", action.name(), if *on { "on" } else { "off" })
        }
        _ => format!("done: {}{whom}", action.name()),
    }
}

fn user(id: &str) -> Result<UserId, OperateError> {
    UserId::parse(id).map_err(|error| OperateError::Failed(format!("\"{}\": {error}", shown(id))))
}

fn kind(text: &str) -> Result<MediaKind, String> {
    match text {
        "audio" => Ok(MediaKind::Audio),
        "video" => Ok(MediaKind::Video),
        "screen" => Ok(MediaKind::Screen),
        _ => Err("audio, video or screen".to_owned()),
    }
}
