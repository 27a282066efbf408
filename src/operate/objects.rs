//! `satsuma objects`: the durable objects of the server.

use std::fmt::Write;

use reqwest::Method;

use super::client::{Operator, segment};
use super::failure::OperateError;
use super::table::{safe_json, shown};

/// Objects on a page.
const PAGE: u32 = 200;

/// A command about durable objects.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum ObjectsCommand {
    /// List the stored objects with their sizes.
    List {
        /// Only objects whose ids begin with this.
        #[arg(default_value = "")]
        prefix: String,
        /// Objects to list at most.
        #[arg(long, default_value_t = 1000)]
        limit: u32,
    },
    /// Show an object and its values as JSON.
    Show {
        /// The object's id.
        id: String,
    },
    /// Remove an object with its alarm.
    Delete {
        /// The object's id.
        id: String,
    },
}

/// Carries out a command; returns the text to print.
pub(super) async fn run(operator: &Operator, command: &ObjectsCommand) -> Result<String, OperateError> {
    let missing = |error| match error {
        OperateError::NotFound(_) => {
            OperateError::NotFound("there is no such object, or durable.keys is not set".to_owned())
        }
        error => error,
    };
    match command {
        ObjectsCommand::List { prefix, limit } => list(operator, prefix, *limit).await.map_err(missing),
        ObjectsCommand::Show { id } => {
            let object = operator.get(&path(id)).await.map_err(missing)?;
            Ok(safe_json(&format!("{object:#}\n")))
        }
        ObjectsCommand::Delete { id } => {
            operator.ask(Method::DELETE, &path(id), None).await.map_err(missing)?;
            Ok(format!("{} is removed\n", shown(id)))
        }
    }
}

fn path(id: &str) -> String {
    format!("/admin/objects/{}", segment(id))
}

async fn list(operator: &Operator, prefix: &str, limit: u32) -> Result<String, OperateError> {
    let mut text = format!("{:>8} {:>12} {:>10}  {:24}  id\n", "keys", "bytes", "version", "changed");
    let (mut after, mut left) = (None::<String>, limit);
    while left > 0 {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.append_pair("prefix", prefix).append_pair("limit", &left.min(PAGE).to_string());
        if let Some(after) = &after {
            query.append_pair("after", after);
        }
        let page = operator.get(&format!("/admin/objects?{}", query.finish())).await?;
        for object in page["objects"].as_array().into_iter().flatten() {
            let [keys, bytes, version] = ["keys", "bytes", "version"].map(|name| object[name].to_string());
            let [changed, id] =
                ["changedAt", "id"].map(|name| shown(object[name].as_str().unwrap_or_default()));
            // Writing to a text cannot fail.
            let _ = writeln!(text, "{keys:>8} {bytes:>12} {version:>10}  {changed:24}  {id}");
            left = left.saturating_sub(1);
        }
        after = page["next"].as_str().map(str::to_owned);
        if after.is_none() {
            return Ok(text);
        }
    }
    text.push_str("there are more\n");
    Ok(text)
}
