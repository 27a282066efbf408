//! `satsuma kick` and `satsuma lock`: moderation by operators.

use std::time::Duration;

use reqwest::Method;
use serde_json::Value;

use super::client::{Operator, ServerOptions, segment};
use super::failure::OperateError;
use super::rooms::{find, no_room};
use super::table::{safe_json, shown};
use crate::id::UserId;
use crate::protocol::moderation::ModerationAction;

pub(super) const KICK_HELP: &str = "\
Without --ban the member may come back at once, and some clients do so by themselves.

Examples:
  satsuma kick standup Ada --reason \"wrong meeting\"
  satsuma kick standup 1e369329-53a4-4f0e-a7d2-5d4b0c0f7f10 --ban
  satsuma kick standup Eve --ban --network --for 1h";

pub(super) const LOCK_HELP: &str = "\
Who was in the meeting may come back, and moderators come in.

Examples:
  satsuma lock standup
  satsuma lock standup --off";

/// A member to remove.
#[derive(Clone, Debug, clap::Args)]
pub struct KickOptions {
    /// The room's name.
    room: String,
    /// The member's id, or its name if no other member has the same.
    member: String,
    /// Keep its identity out until the meeting ends.
    #[arg(long)]
    ban: bool,
    /// Keep everybody at its network out, too: where names are free, so are identities.
    #[arg(long, requires = "ban")]
    network: bool,
    /// End the ban after this time, such as 10m or 1h.
    #[arg(long = "for", value_name = "TIME", requires = "ban", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// The reason that the member is told; up to 200 characters.
    #[arg(long)]
    reason: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// The server.
    #[command(flatten)]
    pub(super) server: ServerOptions,
}

/// A room to lock.
#[derive(Clone, Debug, clap::Args)]
pub struct LockOptions {
    /// The room's name.
    room: String,
    /// Open it again.
    #[arg(long)]
    off: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// The server.
    #[command(flatten)]
    pub(super) server: ServerOptions,
}

/// Removes a member; returns the text to print.
pub(super) async fn kick(operator: &Operator, options: &KickOptions) -> Result<String, OperateError> {
    let room = find(operator, &options.room).await?;
    let (id, name) = member(&room, &options.room, &options.member)?;
    let action = ModerationAction::Remove {
        id: UserId::parse(id).map_err(|error| OperateError::Failed(error.to_string()))?,
        reason: options.reason.clone(),
        seconds: ban_seconds(options)?,
        network: options.network,
    };
    let done = moderate(operator, &options.room, &action).await?;
    let ban = match (options.ban, options.duration) {
        (false, _) => String::new(),
        (true, None) => ", and stays out until the meeting ends".to_owned(),
        (true, Some(time)) => format!(", and stays out for {}", humantime::format_duration(time)),
    };
    let text = || format!("{} ({id}) is removed from {}{ban}\n", shown(name), shown(&options.room));
    Ok(if options.json { safe_json(&format!("{done}\n")) } else { text() })
}

/// Locks a room, or opens it; returns the text to print.
pub(super) async fn lock(operator: &Operator, options: &LockOptions) -> Result<String, OperateError> {
    let done = moderate(operator, &options.room, &ModerationAction::Lock { on: !options.off }).await?;
    let state = if options.off { "open" } else { "locked" };
    let text = || format!("{} is {state}\n", shown(&options.room));
    Ok(if options.json { safe_json(&format!("{done}\n")) } else { text() })
}

/// Carries out an action in a running room; returns the answer.
pub(super) async fn moderate(
    operator: &Operator,
    room: &str,
    action: &ModerationAction,
) -> Result<Value, OperateError> {
    let path = format!("/admin/rooms/{}/moderate", segment(room));
    let action = serde_json::to_value(action).map_err(|error| OperateError::Failed(error.to_string()))?;
    let answered = operator.ask(Method::POST, &path, Some(&action)).await;
    Ok(answered.map_err(|error| no_room(room, error))?.unwrap_or_default())
}

/// The time of the ban in seconds; none until the meeting ends.
fn ban_seconds(options: &KickOptions) -> Result<Option<u32>, OperateError> {
    let too_long = || OperateError::Failed("--for: at most 100 years".to_owned());
    match (options.ban, options.duration) {
        // A ban that is over at once.
        (false, _) => Ok(Some(0)),
        (true, None) => Ok(None),
        (true, Some(time)) if time < Duration::from_secs(1) => {
            Err(OperateError::Failed("--for: at least a second".to_owned()))
        }
        (true, Some(time)) => {
            const CENTURY: u64 = 100 * 365 * 24 * 60 * 60;
            let seconds = Some(time.as_secs()).filter(|seconds| *seconds <= CENTURY);
            seconds.and_then(|seconds| u32::try_from(seconds).ok()).map(Some).ok_or_else(too_long)
        }
    }
}

/// The id and the name of the member with this id, or else of the only one with this name.
pub(super) fn member<'a>(
    view: &'a Value,
    room: &str,
    wanted: &str,
) -> Result<(&'a str, &'a str), OperateError> {
    let members = view["members"].as_array().map(Vec::as_slice).unwrap_or_default();
    let pair = |member: &'a Value| Some((member["id"].as_str()?, member["name"].as_str()?));
    if let Some(found) = members.iter().filter_map(pair).find(|(id, _)| *id == wanted) {
        return Ok(found);
    }
    let named: Vec<_> = members.iter().filter_map(pair).filter(|(_, name)| *name == wanted).collect();
    match named[..] {
        [] => Err(OperateError::NotFound(format!(
            "{} has no member with the id or name \"{}\"; `satsuma room` lists them",
            shown(room),
            shown(wanted)
        ))),
        [only] => Ok(only),
        _ => {
            let ids: Vec<_> = named.iter().map(|(id, _)| shown(id)).collect();
            Err(OperateError::Failed(format!(
                "{} members are called \"{}\"; name one by its id: {}",
                ids.len(),
                shown(wanted),
                ids.join(", ")
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn options(ban: bool, duration: Option<u64>) -> KickOptions {
        KickOptions {
            room: "r".into(),
            member: "a".into(),
            ban,
            network: false,
            duration: duration.map(Duration::from_secs),
            reason: None,
            json: false,
            server: ServerOptions::default(),
        }
    }

    #[test]
    fn member_is_found_by_id_then_by_unique_name() {
        let room = json!({"members": [
            {"id": "a", "name": "Ada"}, {"id": "b", "name": "a"}, {"id": "c", "name": "Eve"}, {"id": "d", "name": "Eve"},
        ]});
        let find = |wanted: &str| {
            let found = member(&room, "r", wanted);
            found.map(|(id, _)| id.to_owned()).map_err(|error| (error.exit_code(), error.to_string()))
        };
        // An id wins: anyone may choose another one's id as a name.
        assert_eq!(find("a"), Ok("a".to_owned()));
        assert_eq!(find("Ada"), Ok("a".to_owned()));
        let (code, text) = find("Eve").unwrap_err();
        assert_eq!((code, &*text), (1, "2 members are called \"Eve\"; name one by its id: c, d"));
        assert_eq!(find("Zoe").unwrap_err().0, 5);
    }

    #[test]
    fn ban_lasts_as_told() {
        let seconds = |ban, time| ban_seconds(&options(ban, time)).map_err(|error| error.to_string());
        assert_eq!(seconds(false, None), Ok(Some(0)));
        assert_eq!(seconds(true, None), Ok(None));
        assert_eq!(seconds(true, Some(3600)), Ok(Some(3600)));
        assert_eq!(seconds(true, Some(0)), Err("--for: at least a second".to_owned()));
        assert_eq!(seconds(true, Some(u64::MAX)), Err("--for: at most 100 years".to_owned()));
    }
}
