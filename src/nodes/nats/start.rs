//! The start of the engine: a connection, a server that is new enough, and streams as they have to be.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, ServerInfo};
use satsuma_cluster::NodeId;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use super::api::{self, ApiError, Failure, Names, StreamConfig, StreamInfo};
use super::{Inner, NatsEngine, pass_on};
use crate::config::{ClusterConfig, NatsUrl};
use crate::metrics::Metrics;
use crate::nodes::engine::{EngineEvent, SubjectKind};

/// Time for NATS to answer at the start; it may be starting as well.
const START_TIMEOUT: Duration = Duration::from_secs(15);

/// Pause before another attempt at the start.
const START_RETRY: Duration = Duration::from_millis(250);

/// Time for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Time between two pings; after three without an answer the connection is given up.
const PING_INTERVAL: Duration = Duration::from_millis(500);

/// Pauses before the connection is made again.
const SHORTEST_RECONNECT: Duration = Duration::from_millis(10);
const LONGEST_RECONNECT: Duration = Duration::from_secs(1);

/// Messages that wait for a subscriber in this process, and commands that wait for the connection.
const SUBSCRIPTION_MESSAGES: usize = 4096;

/// Events that wait for the node.
const EVENTS: usize = 1024;

/// Bytes that a message may have beyond a frame of a client.
const BEYOND_FRAME: usize = 128 << 10;

/// Versions of nats-server that the engine needs.
const OLDEST: [u32; 3] = [2, 9, 10];
const OLDEST_CLUSTERED: [u32; 3] = [2, 11, 0];

/// NATS cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NatsError {
    /// A file of the configuration cannot be used.
    #[error("{setting}: {} cannot be used: {error}", path.display())]
    File {
        /// The setting.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// The error.
        error: std::io::Error,
    },
    /// No server can be reached, or none lets this one in.
    #[error("cluster.nats: no connection to {addresses}: {problem}")]
    Unreachable {
        /// The addresses.
        addresses: String,
        /// The error.
        problem: String,
    },
    /// The server is too old.
    #[error("cluster.nats: nats-server {version} is too old; {needed}")]
    TooOld {
        /// Its version.
        version: String,
        /// The version that is needed, and the reason.
        needed: &'static str,
    },
    /// Messages may be too long for the server.
    #[error(
        "cluster.nats: NATS takes messages of {max_payload} bytes, and limits.frame_bytes needs {needed}; write into \
         the configuration of nats-server: max_payload: {needed}"
    )]
    SmallPayload {
        /// The bytes that it takes.
        max_payload: usize,
        /// The bytes that are needed.
        needed: usize,
    },
    /// There are no streams.
    #[error(
        "cluster.nats: JetStream is off; start nats-server with -js, or write into its configuration: \
         jetstream {{ store_dir: \"/var/lib/nats\" }}"
    )]
    NoJetStream,
    /// JetStream does not answer.
    #[error("cluster.nats: JetStream does not answer; is there a majority of its servers?")]
    Silent,
    /// A stream cannot be made.
    #[error("cluster.nats: the stream {stream} cannot be made: {problem}")]
    NoStream {
        /// The stream.
        stream: String,
        /// The error of JetStream.
        problem: String,
    },
    /// A stream of the name is not what it has to be.
    #[error(
        "cluster.nats: the stream {stream} cannot be used: {difference}; all nodes have the same cluster.shards, and \
         another cluster another cluster.prefix"
    )]
    OtherStream {
        /// The stream.
        stream: String,
        /// The difference.
        difference: String,
    },
}

impl NatsEngine {
    /// Connects a node, and makes the streams where they are missing. Its events come from the receiver.
    ///
    /// # Errors
    /// [`NatsError`], each with what to do about it.
    pub async fn start(
        config: &ClusterConfig,
        node: NodeId,
        frame_bytes: usize,
        metrics: Arc<Metrics>,
    ) -> Result<(Self, mpsc::Receiver<EngineEvent>), NatsError> {
        let (connected, changes) = watch::channel(true);
        let is_closing = Arc::new(AtomicBool::new(false));
        let watched = Watched { connected, metrics: metrics.clone(), is_closing: is_closing.clone() };
        let client = connect(config, &format!("satsuma {node}"), Some(watched)).await?;
        check_server(&client.server_info(), frame_bytes)?;
        let names = names(config);
        let unreachable =
            |problem: String| NatsError::Unreachable { addresses: addresses(&config.nats), problem };
        let own =
            client.subscribe(names.node(node, "*")).await.map_err(|error| unreachable(error.to_string()))?;
        let all = client.subscribe(names.all()).await.map_err(|error| unreachable(error.to_string()))?;
        let (sender, events) = mpsc::channel(EVENTS);
        let passing = pass_on(names.clone(), own, all, changes, sender);
        #[expect(clippy::disallowed_methods, reason = "the engine owns it, and aborts it when it is dropped")]
        let passing = AbortOnDropHandle::new(tokio::spawn(passing));
        let inner = Inner { client, is_closing, names, node, metrics, _events: passing };
        let engine = Self(Arc::new(inner));
        engine.0.metrics.engine_connected.set(1);
        let replicas = match config.replicas {
            0 if engine.0.client.server_info().cluster.is_some() => 3,
            0 => 1,
            replicas => replicas,
        };
        for kind in SubjectKind::ALL {
            for shard in 0..engine.0.names.shards {
                engine.make_stream(&engine.0.names.stream_config(kind, shard, replicas)).await?;
            }
        }
        let server = engine.0.client.server_info();
        info!(server = server.server_name, version = server.version, "connected to NATS");
        Ok((engine, events))
    }

    /// Validates that a node could start, and makes nothing.
    ///
    /// # Errors
    /// [`NatsError`], each with what to do about it.
    pub async fn check(config: &ClusterConfig, frame_bytes: usize) -> Result<(), NatsError> {
        let client = connect(config, "satsuma check-config", None).await?;
        check_server(&client.server_info(), frame_bytes)
    }

    /// Makes a stream, unless there is one as it has to be.
    async fn make_stream(&self, wanted: &StreamConfig) -> Result<(), NatsError> {
        let mut problem = None;
        let made = async {
            loop {
                match self.try_stream(wanted).await {
                    Ok(Ok(())) => return Ok(()),
                    Ok(Err(error)) => return Err(error),
                    Err(transient) => problem = transient,
                }
                sleep(START_RETRY).await;
            }
        };
        match timeout(START_TIMEOUT, made).await {
            Ok(made) => made,
            Err(_) => Err(match problem {
                None => NatsError::Silent,
                Some(ApiError { description, .. }) => {
                    NatsError::NoStream { stream: wanted.name.clone(), problem: description }
                }
            }),
        }
    }

    /// One attempt. The outer error passes by itself, as while the servers of NATS find each other.
    async fn try_stream(&self, wanted: &StreamConfig) -> Result<Result<(), NatsError>, Option<ApiError>> {
        let found = match self.stream_call("INFO", &wanted.name, &json!({})).await {
            Err(Some(error)) if error.is_no_stream() => {
                match self.stream_call("CREATE", &wanted.name, &json!(wanted)).await {
                    // Another node was faster.
                    Err(Some(error)) if error.is_name_in_use() => return Err(Some(error)),
                    created => created?,
                }
            }
            found => found?,
        };
        let difference = wanted.difference(&found.config);
        let other = |difference| NatsError::OtherStream { stream: wanted.name.clone(), difference };
        Ok(difference.map_or(Ok(()), |difference| Err(other(difference))))
    }

    async fn stream_call(
        &self,
        call: &str,
        stream: &str,
        body: &Value,
    ) -> Result<StreamInfo, Option<ApiError>> {
        let answer = self.api(&format!("STREAM.{call}.{stream}"), body).await.map_err(|_| None)?;
        api::read(&answer).map_err(|failure| match failure {
            Failure::Refused(error) => Some(error),
            Failure::Malformed => None,
        })
    }
}

fn names(config: &ClusterConfig) -> Names {
    Names { prefix: config.prefix.clone(), shards: u16::try_from(config.shards).unwrap_or(u16::MAX) }
}

fn addresses(urls: &[NatsUrl]) -> String {
    urls.iter().map(NatsUrl::as_str).collect::<Vec<_>>().join(", ")
}

/// The state of a connection, and the metrics that tell it.
#[derive(Clone)]
struct Watched {
    connected: watch::Sender<bool>,
    metrics: Arc<Metrics>,
    /// True once the connection is closed by this node.
    is_closing: Arc<AtomicBool>,
}

async fn connect(config: &ClusterConfig, name: &str, watched: Option<Watched>) -> Result<Client, NatsError> {
    let urls: Vec<&str> = config.nats.iter().map(NatsUrl::as_str).collect();
    let mut problem = None;
    let connected = async {
        loop {
            // The options are used up by each attempt.
            match options(config, name, watched.clone())?.connect(&urls[..]).await {
                Ok(client) => return Ok(client),
                Err(error) => {
                    let text = error.to_string();
                    if !matches!(
                        error.kind(),
                        ConnectErrorKind::Io | ConnectErrorKind::TimedOut | ConnectErrorKind::Dns
                    ) {
                        return Err(NatsError::Unreachable {
                            addresses: addresses(&config.nats),
                            problem: text,
                        });
                    }
                    problem = Some(text);
                }
            }
            sleep(START_RETRY).await;
        }
    };
    match timeout(START_TIMEOUT, connected).await {
        Ok(connected) => connected,
        Err(_) => Err(NatsError::Unreachable {
            addresses: addresses(&config.nats),
            problem: problem.unwrap_or_else(|| "no answer".to_owned()),
        }),
    }
}

fn options(
    config: &ClusterConfig,
    name: &str,
    watched: Option<Watched>,
) -> Result<ConnectOptions, NatsError> {
    let ClusterConfig { user, password, credentials_file, nkey_file, tls_ca, .. } = config;
    let read = |setting: &'static str, path: &PathBuf| {
        let unusable = |error| NatsError::File { setting, path: path.clone(), error };
        std::fs::read_to_string(path).map_err(unusable)
    };
    let mut options = ConnectOptions::new()
        .name(name)
        .connection_timeout(CONNECT_TIMEOUT)
        .ping_interval(PING_INTERVAL)
        .subscription_capacity(SUBSCRIPTION_MESSAGES)
        .client_capacity(SUBSCRIPTION_MESSAGES)
        .reconnect_delay_callback(reconnect_delay);
    if let (Some(user), Some(password)) = (user.as_ref(), password.as_ref()) {
        options = options.user_and_password(user.clone(), password.expose_secret().to_owned());
    }
    if let Some(path) = credentials_file.as_ref() {
        let setting = "cluster.credentials_file";
        let unusable = |error| NatsError::File { setting, path: path.clone(), error };
        options = options.credentials(&read(setting, path)?).map_err(unusable)?;
    }
    if let Some(path) = nkey_file.as_ref() {
        let (setting, text) = ("cluster.nkey_file", read("cluster.nkey_file", path)?);
        let seed = text.trim();
        if !(seed.starts_with("SU") && seed.len() == 58) {
            let error = std::io::Error::other("it has no seed of a user, which begins with SU");
            return Err(NatsError::File { setting, path: path.clone(), error });
        }
        options = options.nkey(seed.to_owned());
    }
    if let Some(path) = tls_ca.as_ref() {
        // Read here as well: the client would tell neither the setting nor the path, and trusts nobody if it is empty.
        let setting = "cluster.tls_ca";
        if !read(setting, path)?.contains("-----BEGIN CERTIFICATE-----") {
            let error = std::io::Error::other("it has no certificate");
            return Err(NatsError::File { setting, path: path.clone(), error });
        }
        options = options.add_root_certificates(path.clone());
    }
    if let Some(watched) = watched {
        options = options.event_callback(move |event| {
            on_event(&watched, &event);
            async {}
        });
    }
    Ok(options)
}

fn on_event(watched: &Watched, event: &Event) {
    let Watched { connected, metrics, is_closing } = watched;
    match event {
        Event::Connected => {
            metrics.engine_connected.set(1);
            metrics.engine_connects.inc();
            connected.send_replace(true);
        }
        // The node has ended.
        Event::Disconnected | Event::Closed if is_closing.load(Ordering::Relaxed) => {}
        Event::Disconnected | Event::Closed => {
            warn!(event = "engineDisconnected", "the connection to NATS is lost");
            metrics.engine_connected.set(0);
            connected.send_replace(false);
        }
        // A subscriber in this process was too slow; followers see by the numbers what they miss.
        Event::SlowConsumer(_) => drop(metrics.engine_messages_lost.inc()),
        Event::ServerError(error) => {
            warn!(event = "engineError", %error, "NATS reports an error");
        }
        Event::ClientError(error) => {
            warn!(event = "engineError", %error, "the client of NATS reports an error");
        }
        Event::LameDuckMode | Event::Draining => {}
    }
}

/// Longer each time, and not at the same time as other nodes.
fn reconnect_delay(attempts: usize) -> Duration {
    let doublings = u32::try_from(attempts).unwrap_or(u32::MAX).min(10);
    let longest = SHORTEST_RECONNECT.saturating_mul(1 << doublings).min(LONGEST_RECONNECT);
    let mut random = [0; 1];
    // Without randomness all nodes come back at once, which works as well.
    let _ = getrandom::fill(&mut random);
    longest.mul_f64(1.0 - f64::from(random[0]) / 1024.0)
}

fn check_server(server: &ServerInfo, frame_bytes: usize) -> Result<(), NatsError> {
    let too_old = |needed| NatsError::TooOld { version: server.version.clone(), needed };
    let version = version(&server.version);
    if version < OLDEST {
        return Err(too_old("2.9.10 or newer is needed"));
    }
    if server.cluster.is_some() && version < OLDEST_CLUSTERED {
        return Err(too_old(
            "several servers of it do not check the condition of an append exactly, so that two nodes could own one \
             room; use 2.11 or newer (2.12.3 or newer is recommended), or a single server",
        ));
    }
    let needed = frame_bytes.saturating_add(BEYOND_FRAME);
    if server.max_payload < needed {
        return Err(NatsError::SmallPayload { max_payload: server.max_payload, needed });
    }
    if !server.jetstream {
        return Err(NatsError::NoJetStream);
    }
    Ok(())
}

/// The numbers of a version; what follows a hyphen or a plus sign is left out.
fn version(text: &str) -> [u32; 3] {
    let numbers = text.split(['-', '+']).next().unwrap_or_default().split('.');
    let mut version = [0; 3];
    for (place, number) in version.iter_mut().zip(numbers) {
        *place = number.parse().unwrap_or(0);
    }
    version
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(version: &str, cluster: Option<&str>) -> ServerInfo {
        ServerInfo {
            version: version.to_owned(),
            cluster: cluster.map(str::to_owned),
            max_payload: 8 << 20,
            jetstream: true,
            ..ServerInfo::default()
        }
    }

    #[test]
    fn old_servers_are_refused_with_a_reason() {
        for (version, cluster, is_good) in [
            ("2.9.10", None, true),
            ("2.9.9", None, false),
            ("2.10.29", Some("c"), false),
            ("2.11.0", Some("c"), true),
            ("2.12.0-RC.1", Some("c"), true),
            ("3.0", Some("c"), true),
            ("dev", None, false),
        ] {
            let checked = check_server(&server(version, cluster), 1 << 20);
            assert_eq!(checked.is_ok(), is_good, "{version}: {checked:?}");
        }
        let error = check_server(&server("2.10.0", Some("c")), 1 << 20).unwrap_err().to_string();
        assert!(error.contains("2.10.0") && error.contains("2.11 or newer"), "{error}");
    }

    #[test]
    fn missing_space_and_jetstream_are_named() {
        let small = ServerInfo { max_payload: 1 << 20, ..server("2.12.3", None) };
        let error = check_server(&small, 1 << 20).unwrap_err().to_string();
        assert!(error.ends_with("max_payload: 1179648"), "{error}");
        let off = ServerInfo { jetstream: false, ..server("2.12.3", None) };
        assert!(check_server(&off, 1 << 20).unwrap_err().to_string().contains("-js"));
    }

    #[test]
    fn reconnects_are_spread_up_to_a_second() {
        for attempts in [0, 1, 5, 100, usize::MAX] {
            let delay = reconnect_delay(attempts);
            assert!((Duration::from_millis(7)..=LONGEST_RECONNECT).contains(&delay), "{delay:?}");
        }
        assert!(reconnect_delay(50) >= Duration::from_millis(700));
    }
}
