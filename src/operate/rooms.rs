//! `satsuma rooms` and `satsuma room`: the running rooms and their members.

use std::fmt::Write;

use serde_json::Value;

use super::client::{Operator, ServerOptions, segment};
use super::failure::OperateError;
use super::table::{Align, Table, safe_json, seconds, shown};

pub(super) const LIST_HELP: &str = "\
Examples:
  satsuma rooms
  satsuma rooms --json | jq -r '.rooms[].room'
  satsuma rooms --server https://ops.example.org --token-file ops.token";

pub(super) const SHOW_HELP: &str = "\
Examples:
  satsuma room standup
  satsuma room \"my room\" --json | jq '.members[].name'";

/// Options of the list.
#[derive(Clone, Debug, clap::Args)]
pub struct RoomsOptions {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// The server.
    #[command(flatten)]
    pub(super) server: ServerOptions,
}

/// A room to show.
#[derive(Clone, Debug, clap::Args)]
pub struct RoomOptions {
    /// The room's name.
    room: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// The server.
    #[command(flatten)]
    pub(super) server: ServerOptions,
}

/// Lists the rooms; returns the text to print.
pub(super) async fn list(operator: &Operator, options: &RoomsOptions) -> Result<String, OperateError> {
    let list = operator.get("/admin/rooms").await?;
    Ok(if options.json { safe_json(&format!("{list:#}\n")) } else { rooms_text(&list) })
}

/// Shows a room; returns the text to print.
pub(super) async fn show(operator: &Operator, options: &RoomOptions) -> Result<String, OperateError> {
    let room = find(operator, &options.room).await?;
    Ok(if options.json { safe_json(&format!("{room:#}\n")) } else { room_text(&room) })
}

/// A room and its members.
pub(super) async fn find(operator: &Operator, room: &str) -> Result<Value, OperateError> {
    let found = operator.get(&format!("/admin/rooms/{}", segment(room))).await;
    found.map_err(|error| no_room(room, error))
}

/// Names the room in the error that there is none.
pub(super) fn no_room(room: &str, error: OperateError) -> OperateError {
    match error {
        OperateError::NotFound(_) => OperateError::NotFound(format!(
            "no room \"{}\" is running; `satsuma rooms` lists them",
            shown(room)
        )),
        error => error,
    }
}

fn rooms_text(list: &Value) -> String {
    use Align::{Left, Right};
    let columns = [
        ("members", Right),
        ("connected", Right),
        ("queued bytes", Right),
        ("meeting", Left),
        ("room", Left),
    ];
    let mut table = Table::new(&columns);
    for room in list["rooms"].as_array().into_iter().flatten() {
        let name = text(room, "room");
        match room["error"].as_str() {
            Some(error) => table.row(["?", "?", "?", error, name]),
            None => {
                let [members, connections, queued] =
                    ["members", "connections", "queuedBytes"].map(|key| room[key].to_string());
                table.row([&members, &connections, &queued, text(room, "meetingId"), name]);
            }
        }
    }
    let silent = list["silentNodes"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let silent: String = silent.map(|node| format!("no answer from {}\n", shown(node))).collect();
    format!("{table}{silent}")
}

fn room_text(room: &Value) -> String {
    use Align::{Left, Right};
    let mut head = format!("room     {}\n", shown(text(room, "room")));
    // Writing to a text cannot fail.
    let _ = writeln!(head, "meeting  {}", shown(room["meetingId"].as_str().unwrap_or("none")));
    let set = room["settings"].as_object().into_iter().flatten().filter(|(_, value)| **value == true);
    let set: Vec<String> = set.map(|(name, _)| shown(name)).collect();
    let _ = writeln!(head, "set      {}\n", set.join(", "));
    let columns =
        [("id", Left), ("connected", Right), ("heartbeat", Right), ("queued bytes", Right), ("name", Left)];
    let mut table = Table::new(&columns);
    for member in room["members"].as_array().into_iter().flatten() {
        let connected = member["connection"]["ageSeconds"].as_f64().map_or("no".to_owned(), seconds);
        let heartbeat = seconds(member["lastHeartbeatSecondsAgo"].as_f64().unwrap_or_default());
        let queued = member["queuedBytes"].to_string();
        table.row([text(member, "id"), &connected, &heartbeat, &queued, text(member, "name")]);
    }
    let mut waiting = Table::new(&[("waiting id", Left), ("name", Left)]);
    let knocks = room["waiting"].as_array().map_or(&[][..], Vec::as_slice);
    for knock in knocks {
        waiting.row([text(knock, "id"), text(knock, "name")]);
    }
    let waiting = if knocks.is_empty() { String::new() } else { format!("\n{waiting}") };
    format!("{head}{table}{waiting}")
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rooms_are_a_table() {
        let list = json!({"rooms": [
            {"connections": 1, "meetingId": "m1", "members": 12, "queuedBytes": 5, "room": "my room"},
            {"error": "the room did not answer", "room": "hangs\u{1b}[2J"},
        ], "silentNodes": ["10.0.0.13:8787 (c7d9b1e6)"]});
        let expected = "\
members  connected  queued bytes  meeting                  room
     12          1             5  m1                       my room
      ?          ?             ?  the room did not answer  hangs\\u{1b}[2J
no answer from 10.0.0.13:8787 (c7d9b1e6)
";
        assert_eq!(rooms_text(&list), expected);
    }

    #[test]
    fn room_shows_who_is_away() {
        let room = json!({"room": "r", "meetingId": null, "settings": {"chat": true, "locked": false, "screens": true},
            "waiting": [{"id": "carol", "name": "Carol"}], "members": [
            {"id": "a", "name": "Ada", "connection": {"ageSeconds": 61.0, "id": 1}, "lastHeartbeatSecondsAgo": 0.4,
             "queuedBytes": 0},
            {"id": "bob", "name": "Bob", "connection": null, "lastHeartbeatSecondsAgo": 12.0, "queuedBytes": 900},
        ]});
        let expected = "\
room     r
meeting  none
set      chat, screens

id   connected  heartbeat  queued bytes  name
a        1 min        0 s             0  Ada
bob         no       12 s           900  Bob

waiting id  name
carol       Carol
";
        assert_eq!(room_text(&room), expected);
    }
}
