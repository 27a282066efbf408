//! Resources and clients of a server, acquired before any task starts, since each may fail.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

use super::cluster::{CopiedSettings, NodeParts};
use super::events::EventBridge;
use super::files::raise_file_limit;
use super::objects::OpenedObjects;
use super::{Addresses, StartError, cluster, media};
use crate::admin::revocations::InForce;
use crate::admin::{Console, revocations};
use crate::ai::AiHandle;
use crate::assistant::AssistantHandle;
use crate::auth::access::{AccessHandle, AccessSettings};
use crate::auth::access_token::AccessTokens;
use crate::auth::token::SigningKey;
use crate::clock::{now, wall_clock};
use crate::config::{Config, FilesConfig};
use crate::delivery::sender::{DeliveryTiming, Sender};
use crate::durable::keys::AccessKeys;
use crate::http::tls::certificates::Certificates;
use crate::id::{MeetingId, NodeId};
use crate::limit::Rate;
use crate::login::OpenedLogin;
use crate::media_api::nodes::MediaNodes;
use crate::media_api::upstream::Upstream;
use crate::metrics::Metrics;
use crate::orange::OrangeFiles;
use crate::reports::delivery::CardWebhook;
use crate::room::ended::EndedMeetings;
use crate::room::rulebook::Rulebook;
use crate::site::Site;
use crate::store::Store;
use crate::store::data_dir::DataDir;
use crate::store::files::{FileLimits, Files};
use crate::store::objects::ObjectStore;
use crate::store::saved::SavedRoom;
use satsuma_sfu::SfuHandle;
use satsuma_sfu::SfuThread;

/// Length of the accept queue, limited by the system. The library's 128 would be reached by an office of a
/// hundred whose browsers open four connections each; the excess ones retry after a second.
const BACKLOG: u32 = 4096;

/// Time for the store and the media thread to end after a failed start.
const CLOSE: Duration = Duration::from_secs(5);

/// A server's system resources.
pub(super) struct Resources {
    pub(super) data_dir: DataDir,
    pub(super) metrics: Arc<Metrics>,
    pub(super) certificates: Option<Certificates>,
    pub(super) listeners: Listeners,
    pub(super) store: Store,
    /// The stored rooms of the previous process.
    pub(super) kept: Vec<SavedRoom>,
    /// The durable objects, if a key is configured.
    pub(super) objects: Option<OpenedObjects>,
    /// The embedded media server, if in use.
    pub(super) media: Option<(SfuHandle, SfuThread)>,
}

/// Bound listeners that do not accept yet.
pub(super) struct Listeners {
    pub(super) http: TcpListener,
    pub(super) admin: TcpListener,
}

impl Resources {
    /// Acquires all resources, those of this node if the server is one of several.
    ///
    /// # Errors
    /// [`StartError`]; nothing is held then.
    pub(super) async fn open(config: &Config, node: Option<NodeId>) -> Result<Self, StartError> {
        raise_file_limit(config.limits.connections);
        let shared = config.cluster.shared_secret()?;
        let data_dir = DataDir::open_shared(&config.data_dir, shared.as_ref())?;
        let metrics = Metrics::new();
        let keys = AccessKeys::open(&config.durable)?;
        let certificates = Certificates::open(config, metrics.clone())?;
        let listeners = Listeners {
            http: listen("http.listen", config.http.listen)?,
            admin: listen("admin.listen", config.admin.listen)?,
        };
        let (store, mut kept) = Store::open(&data_dir.database(), metrics.clone()).await?;
        let objects = match OpenedObjects::open(config, &data_dir, keys, &metrics).await {
            Ok(objects) => objects,
            Err(error) => {
                close(store, None, None).await;
                return Err(error);
            }
        };
        let (addresses, key) = (listeners.addresses(config), data_dir.signing_key());
        let media = match media::start(config, addresses, &metrics, key, node).await {
            Ok(media) => media,
            Err(error) => {
                close(store, objects.map(|objects| objects.store), None).await;
                return Err(error);
            }
        };
        if media.is_some() {
            media::forget_ais(&mut kept);
        }
        Ok(Self { data_dir, metrics, certificates, listeners, store, kept, objects, media })
    }

    /// Releases all resources, and waits until they are free.
    pub(super) async fn close(self) {
        let objects = self.objects.map(|objects| objects.store);
        close(self.store, objects, self.media.map(|(_, thread)| thread)).await;
    }
}

impl Listeners {
    pub(super) fn addresses(&self, config: &Config) -> Addresses {
        Addresses {
            http: self.http.local_addr().unwrap_or(config.http.listen),
            admin: self.admin.local_addr().unwrap_or(config.admin.listen),
        }
    }
}

/// Clients of other services, and the files for browsers: created before any task starts, since their settings
/// may be invalid.
pub(super) struct Clients {
    pub(super) site: Site,
    /// The stock client's build, if its folder is configured.
    pub(super) orange: Option<OrangeFiles>,
    pub(super) access: Option<(AccessHandle, AbortOnDropHandle<()>)>,
    /// The keys of access tokens, if there are any.
    pub(super) tokens: Option<AccessTokens>,
    pub(super) upstream: Arc<Upstream>,
    pub(super) ai: AiHandle,
    /// The settings of rooms by name.
    pub(super) rulebook: Arc<Rulebook>,
    /// Those whose meeting was ended for all.
    pub(super) ended: EndedMeetings,
    /// The assistant in the chat, if its URL is configured.
    pub(super) assistant: Option<AssistantHandle>,
    pub(super) cards: Option<Sender<CardWebhook>>,
    pub(super) events: EventBridge,
    pub(super) console: Console,
    /// The files that members share.
    pub(super) files: Files,
    /// The login, if one is configured.
    pub(super) login: Option<OpenedLogin>,
}

impl Clients {
    /// Has settings follow those that all nodes share, if there are several; returns the copy of these.
    pub(super) async fn share(
        &mut self,
        resources: &Resources,
        node: Option<NodeParts>,
    ) -> Option<(NodeParts, Arc<CopiedSettings>)> {
        let mut node = node?;
        self.rulebook.share(node.settings.clone());
        node.meetings.serve(resources.store.reports());
        self.events.share(node.events.clone());
        let copied = CopiedSettings {
            rulebook: self.rulebook.clone(),
            tokens: self.tokens.as_ref().map(InForce::new),
            revocations: resources.store.revocations(),
        };
        node.settle(&copied).await;
        Some((node, Arc::new(copied)))
    }

    /// Creates all of them, with the other nodes if there are any.
    ///
    /// # Errors
    /// [`StartError`] names the invalid setting.
    pub(super) async fn new(
        config: &Config,
        resources: &Resources,
        others: Option<Arc<dyn MediaNodes>>,
    ) -> Result<Self, StartError> {
        let Config { limits, identity, calls, .. } = config;
        let Resources { metrics, media, store, kept, .. } = resources;
        let access = match identity.access() {
            Some((team, audience)) => {
                Some(AccessSettings { team: team.clone(), audience: audience.trim().to_owned() }.start()?)
            }
            None => None,
        };
        let tokens = open_tokens(config, resources).await?;
        let login = OpenedLogin::open(config)?;
        let sfu = media.as_ref().map(|(handle, _)| handle.clone());
        let upstream = Upstream::new(calls, &config.turn, limits.call_bytes, sfu, metrics.clone())?;
        let node = others.as_ref().map(|others| others.own());
        let upstream = Arc::new(match others {
            Some(others) => upstream.with_nodes(others, cluster::message_bytes(config)),
            None => upstream,
        });
        let ai_starts = Rate::per_minute(limits.ai_starts_per_minute_per_network);
        let ai = AiHandle::new(upstream.clone(), calls, &config.ai, ai_starts, metrics.clone())?;
        let assistant = AssistantHandle::new(&config.assistant, upstream.clone(), metrics)?;
        let webhook = config.feedback.url.as_ref();
        let timing = DeliveryTiming::default();
        let webhook = webhook.map(|url| CardWebhook::new(url.clone(), timing)).transpose()?;
        let cards = webhook.map(|webhook| Sender::new(webhook, store.deliveries(), metrics.clone(), timing));
        let site = Site::open(config)?;
        let orange = open_orange(config)?;
        let rulebook = Arc::new(Rulebook::new(store.rules(), store.rules().all().await?));
        let ended = store.ended().recent(wall_clock()).await?;
        let ended = EndedMeetings::restored((now().into_std(), wall_clock()), &ended);
        let events = EventBridge::open(config, store, kept, metrics).await?;
        let console = Console::open(&config.admin)?;
        let files = open_files(config, resources, node).await?;
        Ok(Self {
            site,
            orange,
            access,
            tokens,
            upstream,
            ai,
            assistant,
            rulebook,
            ended,
            cards,
            events,
            console,
            files,
            login,
        })
    }
}

/// The keys of access tokens, and the revocations of before the restart.
async fn open_tokens(config: &Config, resources: &Resources) -> Result<Option<AccessTokens>, StartError> {
    let Resources { data_dir, store, .. } = resources;
    let tokens = match &config.auth.oidc.0 {
        // The same after a restart, so that everybody stays signed in.
        Some(_) => {
            let secret = SigningKey::new(data_dir.signing_key()).sign_text("tokens of logins", "");
            Some(AccessTokens::with_login(&config.auth, &secret)?)
        }
        None => AccessTokens::open(&config.auth)?,
    };
    let Some(tokens) = tokens else { return Ok(None) };
    let tokens = tokens.with_issuers(&config.auth)?;
    revocations::load(&tokens, &store.revocations(), wall_clock()).await?;
    Ok(Some(tokens))
}

/// Opens the folder of shared files, and removes those of meetings that no longer run.
async fn open_files(
    config: &Config,
    resources: &Resources,
    node: Option<NodeId>,
) -> Result<Files, StartError> {
    let FilesConfig { file_bytes, room_files, room_bytes, identity_bytes, network_bytes, all_bytes, .. } =
        config.files;
    let limits = FileLimits { file_bytes, room_files, room_bytes, identity_bytes, network_bytes, all_bytes };
    let running: HashSet<MeetingId> = resources.kept.iter().map(|room| room.meeting).collect();
    let folder = resources.data_dir.files();
    let opened = tokio::task::spawn_blocking(move || Files::open(folder, limits, node, &running)).await;
    opened.map_err(io::Error::other).flatten().map_err(StartError::Files)
}

fn open_orange(config: &Config) -> Result<Option<OrangeFiles>, StartError> {
    let orange = OrangeFiles::open(config)?;
    if let Some(warning) = orange.as_ref().and_then(OrangeFiles::warning) {
        warn!(event = "severalBuilds", "{warning}");
    }
    Ok(orange)
}

fn listen(setting: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    bind(address).map_err(|error| StartError::Listen { setting, address, error })
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // After a restart, connections of the previous process may still be closing.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Ends the store and media thread of a failed start. They received no data, so nothing is lost.
async fn close(store: Store, objects: Option<ObjectStore>, media: Option<SfuThread>) {
    let _ = store.shutdown(now() + CLOSE).await;
    if let Some(objects) = objects {
        let _ = objects.shutdown(now() + CLOSE).await;
    }
    if let Some(media) = media {
        let _ = tokio::time::timeout(CLOSE, media.join()).await;
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    /// A hundred browsers behind one address open a page in the same second, with several connections each.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn accept_queue_holds_an_offices_connections() {
        let allowed = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
        let count = allowed.trim().parse::<usize>().unwrap().min(400);
        let listener = bind(([127, 0, 0, 1], 0).into()).unwrap();
        let address = listener.local_addr().unwrap();
        let connect = |_| TcpStream::connect_timeout(&address, Duration::from_millis(900));
        let connected = (0..count).map(connect).take_while(Result::is_ok).count();
        assert_eq!(connected, count, "nobody accepts, and nobody is lost");
    }
}
