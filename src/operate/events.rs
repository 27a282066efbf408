//! `satsuma events`: what happens in rooms, as it happens.

use std::io::Write;
use std::time::Duration;

use reqwest::Method;
use serde_json::Value;
use tokio::time::sleep;

use super::client::{Operator, ServerOptions};
use super::failure::OperateError;
use super::sse::EventParser;
use super::table::{safe_json, shown};
use crate::telemetry::complain;

pub(super) const HELP: &str = "\
Examples:
  satsuma events --follow
  satsuma events --follow --room standup --room 'team-*'
  satsuma events --follow --type 'member.*' --json | jq .data.member.name
  satsuma events --json > events.jsonl";

/// Pause before the first attempt to connect again, doubled after each.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// Maximum pause between attempts.
const LAST_PAUSE: Duration = Duration::from_secs(15);

/// Silence after which the connection is taken for dead: ten heartbeats, unless `events.heartbeat` is longer.
const SILENCE: Duration = Duration::from_secs(150);

/// The events to print.
#[derive(Clone, Debug, clap::Args)]
pub struct EventsOptions {
    /// Print what happens from now on, until interrupted; without it, what the server's log has.
    #[arg(long, short)]
    follow: bool,
    /// Only events of this room; a * at the end stands for any rest; several times for several.
    #[arg(long, value_name = "NAME")]
    room: Vec<String>,
    /// Only events of this type, likewise.
    #[arg(long = "type", value_name = "TYPE")]
    kind: Vec<String>,
    /// Begin after the event with this id.
    #[arg(long, value_name = "ID")]
    after: Option<String>,
    /// Print each event as a line of JSON.
    #[arg(long)]
    json: bool,
    /// The server.
    #[command(flatten)]
    pub(super) server: ServerOptions,
}

/// The reason for which a stream ended.
enum End {
    /// Everything is printed.
    Done,
    /// Nobody reads what is printed.
    Unread,
    /// The open stream ended: servers end long connections, and proxies silent ones.
    Interrupted(OperateError),
    /// No stream could be opened.
    Broken(OperateError),
}

/// Prints events until the end of the log, or for ever. After a break the stream resumes where it was.
pub(super) async fn follow(
    operator: &Operator,
    options: &EventsOptions,
    print: &mut impl Write,
) -> Result<(), OperateError> {
    let path = path(options)?;
    let begin = if options.follow { None } else { Some("start".to_owned()) };
    let mut last = options.after.clone().or(begin);
    let mut pause = FIRST_PAUSE;
    let mut was_open = false;
    loop {
        let error = match read(operator, &path, options, &mut last, &mut was_open, print).await? {
            End::Done | End::Unread => return Ok(()),
            End::Interrupted(_) if options.follow => {
                pause = FIRST_PAUSE;
                sleep(pause).await;
                continue;
            }
            End::Interrupted(error) | End::Broken(error) => error,
        };
        // A wrong address is told at once.
        if !was_open || !options.follow {
            return Err(error);
        }
        complain(format_args!("satsuma: {error}; trying again in {}", humantime::format_duration(pause)));
        sleep(pause).await;
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

/// Reads a stream to its end. Refusals of the server are errors, also after a break.
async fn read(
    operator: &Operator,
    path: &str,
    options: &EventsOptions,
    last: &mut Option<String>,
    was_open: &mut bool,
    print: &mut impl Write,
) -> Result<End, OperateError> {
    let (request, url) = operator.request(Method::GET, path);
    let request = match last {
        Some(id) => request.header("last-event-id", &*id),
        None => request,
    };
    let mut answer = match operator.send(&url, request).await {
        Ok(answer) => answer,
        Err(error @ OperateError::Unreachable { .. }) => return Ok(End::Broken(error)),
        // While the server starts or stops, or a proxy has none.
        Err(error @ OperateError::Failed(_)) if *was_open => return Ok(End::Broken(error)),
        Err(error) => return Err(error),
    };
    let content = answer.headers().get("content-type").and_then(|content| content.to_str().ok());
    if !content.is_some_and(|content| content.starts_with("text/event-stream")) {
        return Err(OperateError::strange(&url));
    }
    *was_open = true;
    let interrupted = |error: &str| {
        End::Interrupted(OperateError::Unreachable { url: url.clone(), error: error.to_owned() })
    };
    let mut parser = EventParser::default();
    loop {
        let chunk = match tokio::time::timeout(SILENCE, answer.chunk()).await {
            Err(_) => return Ok(interrupted("nothing came for too long")),
            Ok(Err(error)) => return Ok(End::Interrupted(OperateError::unreachable(&url, &error))),
            Ok(Ok(None)) if !options.follow => return Ok(End::Done),
            Ok(Ok(None)) => return Ok(interrupted("the stream ended")),
            Ok(Ok(Some(chunk))) => chunk,
        };
        for event in parser.push(&chunk).map_err(|_| OperateError::strange(&url))? {
            if let Some(data) = &event.data {
                let line = if options.json { safe_json(data) } else { line(data) };
                if writeln!(print, "{line}").and_then(|()| print.flush()).is_err() {
                    return Ok(End::Unread);
                }
            }
            // After it is printed: what was not would be lost.
            if event.id.is_some() {
                *last = event.id;
            }
        }
    }
}

fn path(options: &EventsOptions) -> Result<String, OperateError> {
    if options.room.iter().chain(&options.kind).any(|pattern| pattern.contains(',')) {
        return Err(OperateError::Failed(
            "--room and --type: name several by several options, without commas".to_owned(),
        ));
    }
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    let rooms = options.room.iter().map(|room| ("rooms", room));
    query.extend_pairs(rooms.chain(options.kind.iter().map(|kind| ("events", kind))));
    if !options.follow {
        query.append_pair("follow", "false");
    }
    Ok(format!("/admin/events?{}", query.finish()))
}

/// An event as people read it: time, room, type, and what it is about.
fn line(data: &str) -> String {
    let Ok(event) = serde_json::from_str::<Value>(data) else { return shown(data) };
    let text = |key: &str| event[key].as_str().unwrap_or_default();
    let time = text("time").split('.').next().unwrap_or_default();
    let room = event["room"].as_str().unwrap_or("-");
    shown(&format!("{time}Z  {:20}  {room}  {}", text("type"), details(&event["data"]))).trim_end().to_owned()
}

/// The data of an event on one line: the values of its fields, and the name of a member.
fn details(data: &Value) -> String {
    let mut parts = Vec::new();
    for (key, value) in data.as_object().into_iter().flatten() {
        match value {
            Value::Null => {}
            Value::Object(fields) if key == "member" => {
                let text = |key: &str| fields.get(key).and_then(Value::as_str).unwrap_or_default();
                parts.push(format!("{} ({})", text("name"), text("id")));
            }
            Value::String(text) => parts.push(format!("{key}={text}")),
            value => parts.push(format!("{key}={value}")),
        }
    }
    parts.join("  ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_is_a_line() {
        let joined = r#"{"id":"evt_1","type":"member.joined","time":"2026-05-28T20:26:40.123Z","room":"standup","meeting":"m",
            "seq":2,"data":{"member":{"id":"u1","name":"Ada\u001b[2J","joined":false},"identity":"cookie:7c1e"}}"#;
        let expected =
            r"2026-05-28T20:26:40Z  member.joined         standup  identity=cookie:7c1e  Ada\u{1b}[2J (u1)";
        assert_eq!(line(joined), expected);
        let lost = r#"{"id":"evt_2","type":"events.lost","time":"2026-05-28T20:26:40.123Z","room":null,"data":{"lost":7}}"#;
        assert_eq!(line(lost), "2026-05-28T20:26:40Z  events.lost           -  lost=7");
        assert_eq!(line("no JSON\u{7}"), "no JSON\\u{7}");
    }
}
