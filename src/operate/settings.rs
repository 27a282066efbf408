//! `satsuma settings`: what each meeting of a room begins with.

use std::fmt::Write;
use std::io::Read;
use std::path::{Path, PathBuf};

use reqwest::Method;
use serde_json::{Map, Value};

use super::client::{Operator, ServerOptions, segment};
use super::failure::OperateError;
use super::table::{Align, Table, safe_json, shown};

pub(super) const HELP: &str = "\
They hold for the meeting that runs, too. Without a change they are shown; without a room, those of all rooms that
have some of their own.

Examples:
  satsuma settings
  satsuma settings standup
  satsuma settings standup waitingRoom=true screens=false
  satsuma settings standup --password-file standup.password
  satsuma settings standup --no-password";

/// Maximum bytes of a file with a password.
const MAX_FILE_BYTES: u64 = 4096;

/// A room, and changes of its settings.
#[derive(Clone, Debug, clap::Args)]
pub struct SettingsOptions {
    /// The room's name.
    #[arg(value_parser = room)]
    room: Option<String>,
    /// A setting, such as locked, waitingRoom, chat, screens, videos, files or chatHistory, and true or false.
    #[arg(value_name = "NAME=VALUE", value_parser = change)]
    changes: Vec<(String, Value)>,
    /// Let in only who enters the password in the first line of this file; "-" is the standard input.
    #[arg(long, value_name = "FILE", conflicts_with = "no_password")]
    password_file: Option<PathBuf>,
    /// Ask for no password.
    #[arg(long)]
    no_password: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// The server.
    #[command(flatten)]
    pub(super) server: ServerOptions,
}

/// Changes the settings, if there is something to change, and shows them; returns the text to print.
pub(super) async fn run(operator: &Operator, options: &SettingsOptions) -> Result<String, OperateError> {
    let Some(room) = &options.room else { return list(operator, options).await };
    let path = format!("/admin/rooms/{}/settings", segment(room));
    let mut asked: Map<String, Value> = options.changes.iter().cloned().collect();
    if options.no_password {
        asked.insert("password".to_owned(), Value::Null);
    } else if let Some(file) = &options.password_file {
        asked.insert("password".to_owned(), password(file)?.into());
    }
    if !asked.is_empty() {
        operator.ask(Method::PUT, &path, Some(&asked.into())).await?;
    }
    let settings = operator.get(&path).await?;
    if options.json {
        return Ok(safe_json(&format!("{settings:#}\n")));
    }
    Ok(lines(&settings))
}

/// All rooms with settings of their own.
async fn list(operator: &Operator, options: &SettingsOptions) -> Result<String, OperateError> {
    if options.no_password || options.password_file.is_some() {
        return Err(OperateError::Failed("a change needs the room's name".to_owned()));
    }
    let list = operator.get("/admin/room-settings").await?;
    if options.json {
        return Ok(safe_json(&format!("{list:#}\n")));
    }
    let mut table = Table::new(&[("room", Align::Left), ("settings", Align::Left)]);
    for row in list["rooms"].as_array().into_iter().flatten() {
        let settings = lines(&row["settings"]);
        table
            .row([row["room"].as_str().unwrap_or_default(), settings.trim_end().replace('\n', " ").as_str()]);
    }
    Ok(table.to_string())
}

/// Settings, one in a line.
pub(super) fn lines(settings: &Value) -> String {
    let mut text = String::new();
    for (name, value) in settings.as_object().into_iter().flatten() {
        // Writing to a text cannot fail.
        let _ = writeln!(text, "{}={}", shown(name), shown(&value.to_string()));
    }
    text
}

fn room(text: &str) -> Result<String, String> {
    // A room of such a name can be set over HTTP.
    match change(text) {
        Ok(_) => Err("the room's name comes before its settings".to_owned()),
        Err(_) => Ok(text.to_owned()),
    }
}

fn change(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("a name, \"=\" and true or false")?;
    if name == "password" {
        // Others of this machine may see the command line.
        return Err("a password comes from --password-file".to_owned());
    }
    let value = value.parse::<bool>().map_err(|_| "the value is true or false")?;
    Ok((name.to_owned(), value.into()))
}

fn password(file: &Path) -> Result<String, OperateError> {
    let mut text = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin().take(MAX_FILE_BYTES).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(MAX_FILE_BYTES).read_to_string(&mut text))
    };
    read.map_err(|error| OperateError::Failed(format!("--password-file {}: {error}", file.display())))?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn change_is_a_name_and_a_boolean() {
        assert_eq!(change("chat=false"), Ok(("chat".to_owned(), Value::Bool(false))));
        for wrong in ["chat", "chat=off", "password=true", "password=sesame"] {
            change(wrong).unwrap_err();
        }
    }
}
