//! `satsuma token revoke` and `satsuma token revocations`: tokens that end before their expiry.

use reqwest::Method;
use serde_json::{Value, json};

use super::client::{Operator, ServerOptions};
use super::failure::OperateError;
use super::table::{Align, Table, safe_json};
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
        /// The server.
        #[command(flatten)]
        server: ServerOptions,
    },
    /// List the revocations that are in force.
    Revocations {
        /// Print JSON.
        #[arg(long)]
        json: bool,
        /// The server.
        #[command(flatten)]
        server: ServerOptions,
    },
}

/// Carries out a command; returns the text to print.
///
/// # Errors
/// [`OperateError`].
pub async fn revoke(config: &Config, command: &RevocationCommand) -> Result<String, OperateError> {
    let (answer, json) = match command {
        RevocationCommand::Revoke { identity, key, json, server } => {
            let body = json!({"identity": identity, "key": key});
            let operator = Operator::new(config, server)?;
            (operator.ask(Method::POST, "/admin/tokens/revoke", Some(&body)).await, json)
        }
        RevocationCommand::Revocations { json, server } => {
            (Operator::new(config, server)?.ask(Method::GET, "/admin/tokens/revocations", None).await, json)
        }
    };
    let answer = answer.map_err(|error| match error {
        OperateError::NotFound(_) => OperateError::NotFound(MISSING.to_owned()),
        error => error,
    })?;
    let answer = answer.unwrap_or_default();
    if *json {
        return Ok(safe_json(&format!("{answer:#}\n")));
    }
    let rows = answer["revocations"].as_array().map_or(std::slice::from_ref(&answer), Vec::as_slice);
    Ok(table(rows))
}

fn table(rows: &[Value]) -> String {
    let columns = ["issued until", "ends", "key", "identity"].map(|title| (title, Align::Left));
    let mut table = Table::new(&columns);
    for row in rows {
        table.row(["at", "until", "key", "identity"].map(|name| row[name].as_str().unwrap_or("*")));
    }
    table.to_string()
}
