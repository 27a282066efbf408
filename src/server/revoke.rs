//! `satsuma token revoke` and `satsuma token revocations`: tokens that end before their expiry.

use std::fmt::Write;

use reqwest::Method;
use serde_json::{Value, json};

use super::operator::Operator;
use crate::config::Config;

/// Sentence for a server without access tokens.
const MISSING: &str = "the running server has no key in auth.keys, so there is no token to revoke";

/// A command about revocations, for the running server.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum RevocationCommand {
    /// Revoke tokens that were issued until now, and disconnect their holders.
    #[command(group = clap::ArgGroup::new("subject").required(true).multiple(true))]
    Revoke {
        /// The identity ("sub") of the tokens.
        #[arg(long, group = "subject")]
        identity: Option<String>,
        /// The id of the key that signed them; with --identity, only those of both.
        #[arg(long, group = "subject")]
        key: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// List the revocations that are in force.
    Revocations {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Asks the running server with this configuration; returns the text to print.
///
/// # Errors
/// A sentence for the operator.
pub async fn revoke(config: &Config, command: &RevocationCommand) -> Result<String, String> {
    let operator = Operator::new(config, MISSING)?;
    let (answer, json) = match command {
        RevocationCommand::Revoke { identity, key, json } => {
            let body = json!({"identity": identity, "key": key});
            (operator.ask(Method::POST, "/admin/tokens/revoke", Some(&body)).await?, json)
        }
        RevocationCommand::Revocations { json } => {
            (operator.ask(Method::GET, "/admin/tokens/revocations", None).await?, json)
        }
    };
    let answer = answer.unwrap_or_default();
    if *json {
        return serde_json::to_string_pretty(&answer)
            .map(|text| text + "\n")
            .map_err(|error| error.to_string());
    }
    let rows = answer["revocations"].as_array().map_or(std::slice::from_ref(&answer), Vec::as_slice);
    Ok(table(rows))
}

fn table(rows: &[Value]) -> String {
    let mut text = format!("{:20}  {:20}  {:16}  identity\n", "issued until", "ends", "key");
    for row in rows {
        let [at, until, key, identity] =
            ["at", "until", "key", "identity"].map(|name| row[name].as_str().unwrap_or("*"));
        // Writing to a text cannot fail.
        let _ = writeln!(text, "{at:20}  {until:20}  {key:16}  {identity}");
    }
    text
}
