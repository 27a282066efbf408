//! `satsuma objects`: the durable objects of the server.

use std::fmt::Write;

use reqwest::Method;
use serde_json::Value;

use super::client::{Operator, segment};
use super::failure::OperateError;
use super::table::{safe_json, shown};

pub(super) const HELP: &str = "\
Examples:
  satsuma objects list
  satsuma objects list shop: --json | jq -r '.[].id'
  satsuma objects show shop:1
  satsuma objects delete shop:1";

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
        /// Print JSON.
        #[arg(long)]
        json: bool,
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
    let not_found = |error, sentence: &str| match error {
        OperateError::NotFound(_) => OperateError::NotFound(sentence.to_owned()),
        error => error,
    };
    let missing = |error| not_found(error, "there is no such object, or durable.keys is not set");
    match command {
        ObjectsCommand::List { prefix, limit, json } => {
            let listed = list(operator, prefix, *limit).await;
            let (objects, is_whole) = listed
                .map_err(|error| not_found(error, "there are no durable objects: durable.keys is not set"))?;
            Ok(if *json {
                safe_json(&format!("{:#}\n", Value::from(objects)))
            } else {
                table(&objects, is_whole)
            })
        }
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

/// The objects in the order of their ids, up to `limit`, and true if there are no more.
async fn list(operator: &Operator, prefix: &str, limit: u32) -> Result<(Vec<Value>, bool), OperateError> {
    let (mut objects, mut after) = (Vec::new(), None::<String>);
    let mut left = limit;
    while left > 0 {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.append_pair("prefix", prefix).append_pair("limit", &left.min(PAGE).to_string());
        if let Some(after) = &after {
            query.append_pair("after", after);
        }
        let page = operator.get(&format!("/admin/objects?{}", query.finish())).await?;
        for object in page["objects"].as_array().into_iter().flatten() {
            objects.push(object.clone());
            left = left.saturating_sub(1);
        }
        after = page["next"].as_str().map(str::to_owned);
        if after.is_none() {
            return Ok((objects, true));
        }
    }
    Ok((objects, false))
}

fn table(objects: &[Value], is_whole: bool) -> String {
    let mut text = format!("{:>8} {:>12} {:>10}  {:24}  id\n", "keys", "bytes", "version", "changed");
    for object in objects {
        let [keys, bytes, version] = ["keys", "bytes", "version"].map(|name| object[name].to_string());
        let [changed, id] = ["changedAt", "id"].map(|name| shown(object[name].as_str().unwrap_or_default()));
        // Writing to a text cannot fail.
        let _ = writeln!(text, "{keys:>8} {bytes:>12} {version:>10}  {changed:24}  {id}");
    }
    if !is_whole {
        text.push_str("there are more; --limit lists them\n");
    }
    text
}
