//! The messages of the NATS servers between nodes, as their monitoring reports them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::target::LoadTarget;

/// Timeout of one answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// Messages since the start of the servers, or of an interval.
///
/// A server's are those of nodes and of other servers: what is passed on counts on both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all(serialize = "camelCase"))]
pub struct BusTraffic {
    /// Messages that came.
    #[serde(rename(deserialize = "in_msgs"))]
    pub in_messages: u64,
    /// Their bytes.
    pub in_bytes: u64,
    /// Messages that went out, each once for each receiver.
    #[serde(rename(deserialize = "out_msgs"))]
    pub out_messages: u64,
    /// Their bytes.
    pub out_bytes: u64,
}

impl BusTraffic {
    /// The messages between two readings.
    pub fn between(before: Self, after: Self) -> Self {
        Self {
            in_messages: after.in_messages.saturating_sub(before.in_messages),
            in_bytes: after.in_bytes.saturating_sub(before.in_bytes),
            out_messages: after.out_messages.saturating_sub(before.out_messages),
            out_bytes: after.out_bytes.saturating_sub(before.out_bytes),
        }
    }

    fn and(self, other: Self) -> Self {
        Self {
            in_messages: self.in_messages + other.in_messages,
            in_bytes: self.in_bytes + other.in_bytes,
            out_messages: self.out_messages + other.out_messages,
            out_bytes: self.out_bytes + other.out_bytes,
        }
    }
}

/// The monitoring of a NATS server cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("--nats {url}: {error}; give the address of its monitoring (http: in its configuration, or -m 8222)")]
pub struct NoMonitor {
    url: String,
    error: String,
}

/// The monitoring of all servers.
#[derive(Debug)]
pub struct NatsMonitors {
    urls: Vec<String>,
    http: reqwest::Client,
}

impl NatsMonitors {
    /// The monitoring at these addresses.
    ///
    /// # Errors
    /// [`NoMonitor`] if the system gives no client for HTTP.
    pub fn new(servers: &[LoadTarget]) -> Result<Self, NoMonitor> {
        let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build();
        let http = client.map_err(|error| NoMonitor { url: String::new(), error: error.to_string() })?;
        Ok(Self { urls: servers.iter().map(LoadTarget::url).collect(), http })
    }

    /// The sum of all servers; none of none.
    ///
    /// # Errors
    /// [`NoMonitor`] for the first that does not answer.
    pub async fn read(&self) -> Result<Option<BusTraffic>, NoMonitor> {
        let mut sum = None;
        for url in &self.urls {
            let asked = async {
                let answer = self.http.get(format!("{url}/varz")).send().await?.error_for_status()?;
                answer.bytes().await
            };
            let failed = |error: String| NoMonitor { url: url.clone(), error };
            let body = asked.await.map_err(|error| failed(error.without_url().to_string()))?;
            let traffic: BusTraffic =
                serde_json::from_slice(&body).map_err(|error| failed(format!("not of NATS: {error}")))?;
            sum = Some(sum.unwrap_or_else(BusTraffic::default).and(traffic));
        }
        Ok(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_of_nats_is_read() {
        let text =
            r#"{"server_id":"N","in_msgs":5,"out_msgs":7,"in_bytes":500,"out_bytes":700,"slow_consumers":0}"#;
        let before: BusTraffic = serde_json::from_str(text).unwrap();
        let after = before.and(before);
        assert_eq!(BusTraffic::between(before, after), before);
        assert_eq!((before.in_messages, before.out_bytes), (5, 700));
        // A server that was started anew counts from 0.
        assert_eq!(BusTraffic::between(after, before), BusTraffic::default());
    }
}
