//! The client of the operators' API, for the command line.

use std::fmt::Write;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Client, Method, StatusCode};
use serde_json::Value;

use super::health::admin_url;
use crate::config::Config;
use crate::store::data_dir::{OPERATOR_TOKEN_FILE, read_private};

/// Time for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Far more than the token has, in bytes.
const MAX_TOKEN_BYTES: u64 = 4096;

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
    let operator = Operator::new(config)?;
    match command {
        ObjectsCommand::List { prefix, limit } => operator.list(prefix, *limit).await,
        ObjectsCommand::Show { id } => {
            let object: Value = operator.ask(Method::GET, &path(id)).await?.unwrap_or_default();
            serde_json::to_string_pretty(&object).map(|text| text + "\n").map_err(|error| error.to_string())
        }
        ObjectsCommand::Delete { id } => {
            operator.ask(Method::DELETE, &path(id)).await?;
            Ok(format!("{id} is removed\n"))
        }
    }
}

fn path(id: &str) -> String {
    format!("/admin/objects/{}", utf8_percent_encode(id, NON_ALPHANUMERIC))
}

struct Operator {
    client: Client,
    base: String,
    token: String,
}

impl Operator {
    fn new(config: &Config) -> Result<Self, String> {
        let path = config.data_dir.join(OPERATOR_TOKEN_FILE);
        let token = read_private(&path, MAX_TOKEN_BYTES).map_err(|error| error.to_string())?;
        let token =
            token.ok_or_else(|| format!("there is no {}; did the server start here?", path.display()))?;
        let token = String::from_utf8_lossy(token.trim_ascii()).into_owned();
        let client =
            Client::builder().no_proxy().timeout(PATIENCE).build().map_err(|error| error.to_string())?;
        Ok(Self { client, base: admin_url(config), token })
    }

    /// Sends a request; the JSON of the answer, if it has any.
    async fn ask(&self, method: Method, path: &str) -> Result<Option<Value>, String> {
        let url = format!("{}{path}", self.base);
        let request = self.client.request(method, &url).bearer_auth(&self.token);
        let answer = request.send().await.map_err(|error| format!("{url}: {error}"))?;
        let status = answer.status();
        let text = answer.text().await.map_err(|error| format!("{url}: {error}"))?;
        match status {
            StatusCode::NO_CONTENT => Ok(None),
            status if status.is_success() => {
                serde_json::from_str(&text).map(Some).map_err(|error| format!("{url}: {error}"))
            }
            StatusCode::NOT_FOUND => Err("there is no such object, or durable.keys is not set".to_owned()),
            status => Err(format!("{url}: {status}: {}", text.trim())),
        }
    }

    async fn list(&self, prefix: &str, limit: u32) -> Result<String, String> {
        let mut text = format!("{:>8} {:>12} {:>10}  {:24}  id\n", "keys", "bytes", "version", "changed");
        let (mut after, mut left) = (None::<String>, limit);
        while left > 0 {
            let mut query = url::form_urlencoded::Serializer::new(String::new());
            query.append_pair("prefix", prefix).append_pair("limit", &left.min(PAGE).to_string());
            if let Some(after) = &after {
                query.append_pair("after", after);
            }
            let page = self.ask(Method::GET, &format!("/admin/objects?{}", query.finish())).await?;
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
