//! The client of the operators' API, for the command line.

use std::time::Duration;

use reqwest::{Client, Method, StatusCode};
use serde_json::Value;

use super::health::admin_url;
use crate::config::Config;
use crate::store::data_dir::{OPERATOR_TOKEN_FILE, read_private};

/// Time for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Far more than the token has, in bytes.
const MAX_TOKEN_BYTES: u64 = 4096;

/// An operator of the running server with this configuration.
pub(super) struct Operator {
    client: Client,
    base: String,
    token: String,
    /// The sentence for 404.
    missing: &'static str,
}

impl Operator {
    /// Reads the operator token.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub(super) fn new(config: &Config, missing: &'static str) -> Result<Self, String> {
        let path = config.data_dir.join(OPERATOR_TOKEN_FILE);
        let token = read_private(&path, MAX_TOKEN_BYTES).map_err(|error| error.to_string())?;
        let token =
            token.ok_or_else(|| format!("there is no {}; did the server start here?", path.display()))?;
        let token = String::from_utf8_lossy(token.trim_ascii()).into_owned();
        let client =
            Client::builder().no_proxy().timeout(PATIENCE).build().map_err(|error| error.to_string())?;
        Ok(Self { client, base: admin_url(config), token, missing })
    }

    /// Sends a request; the JSON of the answer, if it has any.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Option<Value>, String> {
        let url = format!("{}{path}", self.base);
        let mut request = self.client.request(method, &url).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.map_err(|error| format!("{url}: {error}"))?;
        let status = answer.status();
        let text = answer.text().await.map_err(|error| format!("{url}: {error}"))?;
        match status {
            StatusCode::NO_CONTENT => Ok(None),
            status if status.is_success() => {
                serde_json::from_str(&text).map(Some).map_err(|error| format!("{url}: {error}"))
            }
            StatusCode::NOT_FOUND => Err(self.missing.to_owned()),
            status => Err(format!("{url}: {status}: {}", text.trim())),
        }
    }
}
