//! `satsuma objects`: the durable objects of the running server.

use std::fmt::Write;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;
use serde_json::Value;

use super::operator::Operator;
use crate::config::Config;

/// Sentence for an answer without the object.
const MISSING: &str = "there is no such object, or durable.keys is not set";

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

/// Asks the running server with this configuration about durable objects; returns the text to print.
///
/// # Errors
/// A sentence for the operator.
pub async fn objects(config: &Config, command: &ObjectsCommand) -> Result<String, String> {
    let operator = Operator::new(config, MISSING)?;
    match command {
        ObjectsCommand::List { prefix, limit } => operator.list(prefix, *limit).await,
        ObjectsCommand::Show { id } => {
            let object: Value = operator.ask(Method::GET, &path(id), None).await?.unwrap_or_default();
            serde_json::to_string_pretty(&object).map(|text| text + "\n").map_err(|error| error.to_string())
        }
        ObjectsCommand::Delete { id } => {
            operator.ask(Method::DELETE, &path(id), None).await?;
            Ok(format!("{id} is removed\n"))
        }
    }
}

fn path(id: &str) -> String {
    format!("/admin/objects/{}", utf8_percent_encode(id, NON_ALPHANUMERIC))
}

impl Operator {
    async fn list(&self, prefix: &str, limit: u32) -> Result<String, String> {
        let mut text = format!("{:>8} {:>12} {:>10}  {:24}  id\n", "keys", "bytes", "version", "changed");
        let (mut after, mut left) = (None::<String>, limit);
        while left > 0 {
            let mut query = url::form_urlencoded::Serializer::new(String::new());
            query.append_pair("prefix", prefix).append_pair("limit", &left.min(PAGE).to_string());
            if let Some(after) = &after {
                query.append_pair("after", after);
            }
            let page = self.ask(Method::GET, &format!("/admin/objects?{}", query.finish()), None).await?;
            let page = page.unwrap_or_default();
            for object in page["objects"].as_array().into_iter().flatten() {
                let [keys, bytes, version] =
                    ["keys", "bytes", "version"].map(|name| object[name].to_string());
                let [changed, id] = ["changedAt", "id"].map(|name| object[name].as_str().unwrap_or_default());
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
}
