//! The composition root: creates, connects and shuts down all parts.

mod banner;
mod check;
mod cluster;
mod events;
mod fault;
mod files;
mod health;
mod media;
mod mint;
mod objects;
mod parts;
mod platform;
mod prune;
mod resources;
mod rooms;
mod router;
mod run;
mod signals;

use std::sync::Arc;

use tokio::task::JoinHandle;
use tokio::time::timeout_at;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::info;

use crate::admin::{self, Operators};
use crate::ai::AiHandle;
use crate::assistant::AssistantHandle;
use crate::auth::peer::TrustedProxies;
use crate::clock::now;
use crate::config::{Config, SettingOrigins};
use crate::http::context::HttpContext;
use crate::http::host::HostNames;
use crate::http::listener::serve;
use crate::http::tls::acceptor::Acceptor;
use crate::http::tls::certificates::{CertificateFacts, Certificates};
use crate::id::NodeId;
use crate::limit::Rate;
use crate::media_access::MediaAccess;
use crate::media_api::checking::CheckedCalls;
use crate::media_api::proxy::Proxy;
use crate::media_api::serve::MediaApi;
use crate::metrics::Metrics;
use crate::nodes::engine::Engine;
use crate::orange::Orange;
use crate::reports::retention::prune_regularly;
use crate::reports::service::ReportService;
use crate::room::events::RoomEvents;
use crate::room::readiness::Readiness;
use crate::room_api::RoomApi;
use crate::room_api::files::FileApi;
use crate::store::Store;
use crate::store::data_dir::DataDir;
use crate::ws::Sockets;
pub use check::check;
use cluster::{CopiedSettings, MakeNode, NodeParts, RunningNode};
pub use cluster::{EngineNode, check_engine};
use events::RunningEvents;
pub use fault::{RunError, ShutdownError, StartError};
pub use health::healthcheck;
pub use mint::{TOKEN_HELP, TokenOptions, mint as mint_token};
use objects::RunningObjects;
pub use parts::Addresses;
use parts::{http_limits, identities, retention};
use prune::prune;
use resources::{Clients, Resources};
use router::{AppState, router};
pub use run::run;
use satsuma_sfu::SfuHandle;
use satsuma_sfu::SfuThread;

/// Fraction (1/4) of the shutdown time reserved for the store after slow sockets are closed.
const STORE_SHARE: u32 = 4;

/// A running server.
pub struct Server {
    addresses: Addresses,
    config: Config,
    stopping: CancellationToken,
    /// Cancelled once the rooms are stored, so that operators can watch a shutdown.
    admin_stop: CancellationToken,
    http: AbortOnDropHandle<()>,
    admin: AbortOnDropHandle<()>,
    /// Posts cards to the webhook, if configured.
    delivery: Option<AbortOnDropHandle<()>>,
    /// Records events and posts them to webhooks.
    events: RunningEvents,
    maintenance: Vec<AbortOnDropHandle<()>>,
    state: AppState,
    ai: AiHandle,
    assistant: Option<AssistantHandle>,
    /// The embedded media server's thread, if in use.
    media: Option<SfuThread>,
    sfu: Option<SfuHandle>,
    store: Store,
    /// Durable objects, if a key is configured.
    objects: Option<RunningObjects>,
    /// Dropped last, so that the directory is locked until the store is closed.
    data_dir: DataDir,
    kept_rooms: usize,
    /// This server as a node, if it is one of several.
    node: Option<RunningNode>,
    /// The certificate of the public listener, if it speaks TLS.
    tls: Option<CertificateFacts>,
}

impl Server {
    /// Starts a server: the stored rooms first, then the listeners.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running then.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        Self::start_shown(config, SettingOrigins::new()).await
    }

    /// The same, with the sources of settings for operators to see.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running then.
    pub async fn start_shown(config: Config, origins: SettingOrigins) -> Result<Self, StartError> {
        Self::start_with(config, origins, NodeId::random(), None).await
    }

    /// Starts a server as a node of a cluster.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running then.
    pub async fn start_as_node<E: Engine>(
        config: Config,
        origins: SettingOrigins,
        node: EngineNode<E>,
    ) -> Result<Self, StartError> {
        cluster::check(&config)?;
        Self::start_with(config, origins, node.id, Some(node.introduce().await?)).await
    }

    async fn start_with(
        config: Config,
        origins: SettingOrigins,
        id: NodeId,
        node: Option<MakeNode>,
    ) -> Result<Self, StartError> {
        let is_node = node.is_some() || config.cluster.is_configured();
        let resources = Resources::open(&config, is_node.then_some(id)).await?;
        let opened = async {
            let node = match node {
                Some(node) => Some(node),
                None => cluster::connect(&config, id, &resources.metrics).await?,
            };
            let node = node.map(|make| make(resources.metrics.clone()));
            let others = node.as_ref().map(|node| node.media.clone());
            let mut clients = Clients::new(&config, &resources, others).await?;
            let node = clients.share(&resources, node).await;
            Ok((clients, cluster::carry_over(node, &resources).await?))
        };
        match opened.await {
            Ok((clients, node)) => Ok(Self::run_with(config, &origins, resources, clients, node)),
            Err(error) => {
                resources.close().await;
                Err(error)
            }
        }
    }

    /// Starts all tasks. Nothing here can fail, so nothing is left partly started.
    fn run_with(
        config: Config,
        origins: &SettingOrigins,
        resources: Resources,
        clients: Clients,
        node: Option<(NodeParts, Arc<CopiedSettings>)>,
    ) -> Self {
        let Resources { data_dir, metrics, certificates, listeners, store, kept, objects, media } = resources;
        let Clients {
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
        } = clients;
        let addresses = listeners.addresses(&config);
        let kept_rooms = kept.len();
        let (sfu, media) = media.unzip();
        let (stopping, admin_stop) = (CancellationToken::new(), CancellationToken::new());
        let (access, access_keys) = access.unzip();

        let room_events = RoomEvents::new(events.queue.clone());
        let media_access = MediaAccess::new(config.calls.room_check);
        let services = rooms::RoomServices {
            ai: ai.clone(),
            media: media_access.clone(),
            rulebook,
            ended,
            assistant: assistant.clone(),
            files: files.clone(),
            events: room_events,
        };
        let (node, copied) = node.unzip();
        let node_id = node.as_ref().map_or_else(NodeId::random, |node| node.id);
        let shared = node.as_ref().map(|node| node.rooms.clone());
        let registry = rooms::start(&config, &store, services, metrics.clone(), kept, shared);
        let readiness = Readiness::new(
            registry.clone(),
            store.handle(),
            objects.as_ref().map(|objects| objects.store.objects()),
            stopping.clone(),
        );
        let identities = identities(&config, &data_dir, access, tokens);
        let http = Arc::new(HttpContext::new(&config, identities, metrics.clone()));
        let logins = Rate::per_minute(config.limits.logins_per_minute_per_network);
        let login = login.map(|login| Arc::new(login.start(http.clone(), logins)));
        let site = Arc::new(site);
        let calls = Arc::new(CheckedCalls::new(upstream, media_access.clone(), metrics.clone()));
        let proxy = Arc::new(Proxy::new(calls.clone(), &config.calls, &config.limits, http.clone()));
        let orange = orange
            .map(|files| Arc::new(Orange::new(files, &config, http.clone(), proxy.clone(), site.clone())));
        let token = data_dir.operator_token();
        let sockets =
            Arc::new(Sockets::new(&config, node_id, registry.clone(), metrics.clone(), stopping.clone()));
        let shared = node.as_ref().map(|node| node.objects.clone());
        let start = |objects| RunningObjects::start(&config, objects, &sockets, &http, shared);
        let (objects, durable) = objects.map(start).unzip();
        let event_api = Arc::new(events.api(&config.events, registry.clone(), metrics.clone()));
        let state = AppState {
            events: event_api.clone(),
            login,
            readiness: readiness.clone(),
            rooms: Arc::new(RoomApi::new(
                registry.clone(),
                &config.limits,
                FileApi::new(files, node.as_ref().map(|node| node.files.clone()), &config.files),
            )),
            sockets,
            durable,
            proxy,
            media_api: MediaApi::new(sfu.as_ref(), &config.sfu, &config.limits).map(Arc::new),
            reports: Arc::new(ReportService::new(
                &config,
                &store,
                token.clone(),
                events.queue.clone(),
                http.clone(),
            )),
            site,
            orange,
            http,
        };
        let operators = Operators {
            registry,
            reports: store.reports(),
            sfu: sfu.clone(),
            metrics: metrics.clone(),
            token: token.clone(),
            hosts: HostNames::new(&config.admin.allowed_hosts),
            readiness,
            objects: state.durable.as_ref().map(|durable| durable.registry().clone()),
            http: state.http.clone(),
            address: config.public_address(),
            webhooks: events.webhooks.clone(),
            events: event_api,
            revocations: store.revocations(),
            console,
            settings: config.shown(origins),
            cluster: node.as_ref().map(|node| node.view.clone()),
            meetings: node.as_ref().map(|node| node.meetings.clone()),
            shared_settings: node.as_ref().map(|node| node.settings.clone()),
        };

        let acceptor = certificates.as_ref().map_or(Acceptor::Plain, Certificates::acceptor);
        let tls = certificates.as_ref().map(Certificates::facts);
        let delivery = cards.map(|sender| own(sender.run(stopping.clone())));
        let events = events.start(&stopping);
        let maintenance = [
            access_keys,
            Some(own(prune_regularly(store.reports(), retention(&config)))),
            Some(prune(state.clone(), assistant.clone())),
            certificates.map(|certificates| own(certificates.keep_fresh(config.http.tls_reload))),
            sfu.clone().map(|sfu| own(media::keep_access(sfu, media_access))),
        ];
        let has_media = sfu.is_some() && node.is_some();
        let passed = has_media.then(|| cluster::passed_calls(&config, calls, metrics.clone()));
        let limits = http_limits(&config.limits);
        let exempt = config.http.trusted_proxies.iter().chain(&config.limits.exempt_networks);
        let uncounted = TrustedProxies::new(exempt.copied());
        let http = serve(
            listeners.http,
            acceptor,
            router(state.clone(), config.phoenix.enabled.then_some(&*config.phoenix.path)),
            limits,
            uncounted.clone(),
            metrics,
            stopping.clone(),
        );
        let admin = serve(
            listeners.admin,
            Acceptor::Plain,
            admin::router(Arc::new(operators)),
            limits,
            uncounted,
            Metrics::new(),
            admin_stop.clone(),
        );
        let node = node.zip(copied).map(|(node, copied)| node.start(passed, copied));
        Self {
            node,
            addresses,
            stopping,
            admin_stop,
            http: own(http),
            admin: own(admin),
            delivery,
            events,
            maintenance: maintenance.into_iter().flatten().collect(),
            state,
            ai,
            assistant,
            media,
            sfu,
            store,
            objects,
            data_dir,
            config,
            kept_rooms,
            tls,
        }
    }

    /// The addresses of the listeners.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// The server's metrics.
    pub fn metrics(&self) -> &Metrics {
        &self.state.http.metrics
    }

    /// Requests a shutdown; [`Self::join`] waits for it.
    pub fn shutdown(&self) {
        self.stopping.cancel();
    }

    /// Waits for the shutdown request, and shuts down: no new sockets, every client disconnected so that it
    /// reconnects to the next server, everything stored.
    ///
    /// # Errors
    /// [`ShutdownError`] if the configured time was not enough.
    pub async fn join(self) -> Result<(), ShutdownError> {
        self.stopping.cancelled().await;
        let deadline = now() + self.config.shutdown.deadline;
        let sockets_deadline = deadline - self.config.shutdown.deadline / STORE_SHARE;
        if let Some(node) = &self.node {
            node.drain();
        }
        // First, so that the jobs' tracks have all of the time to be closed.
        self.ai.stop_jobs();
        if let Some(assistant) = &self.assistant {
            assistant.stop_jobs();
        }
        let registry = &self.state.sockets.registry;
        let objects = self.objects.as_ref();
        let send_objects_away = async {
            if let Some(objects) = objects {
                objects.send_away(sockets_deadline).await;
            }
        };
        tokio::join!(registry.send_away(sockets_deadline), send_objects_away);
        let media_of_node = self.node.as_ref().and(self.sfu.as_ref());
        let drained = media::drain(media_of_node, self.config.shutdown.media_deadline).await;
        let (deadline, sockets_deadline) = (deadline + drained, sockets_deadline + drained);
        let end_objects = async {
            match objects {
                Some(objects) => objects.end(sockets_deadline).await,
                None => 0,
            }
        };
        // After clients were told to reconnect: without a close of its session a browser waits 12 s for ICE.
        let ((), (), cut_off_objects) =
            tokio::join!(media::end(self.sfu.as_ref()), registry.end(sockets_deadline), end_objects);
        // After the rooms, whose last events it records; before the HTTP connections and the node, which wait for those.
        self.events.end(sockets_deadline).await;
        if let Some(node) = self.node {
            node.stop(sockets_deadline).await;
        }

        let sockets = &self.state.sockets.tasks;
        sockets.tracker.close();
        let in_time = timeout_at(sockets_deadline, sockets.tracker.wait()).await.is_ok();
        let cut_off = if in_time { 0 } else { sockets.tracker.len() };
        sockets.abort.cancel();
        sockets.tracker.wait().await;

        // Requests and deliveries in progress are not worth a late exit; but a report still being received, or
        // a card being sent, needs the store.
        let _ = timeout_at(sockets_deadline, self.http).await;
        if let Some(delivery) = self.delivery {
            let _ = timeout_at(sockets_deadline, delivery).await;
        }
        drop(self.maintenance);
        let close_objects = async {
            match self.objects {
                Some(objects) => objects.close(deadline).await,
                None => Ok(()),
            }
        };
        let end_assistant = async {
            if let Some(assistant) = &self.assistant {
                assistant.shutdown(deadline).await;
            }
        };
        let (stored, objects_stored, open_tracks, ()) = tokio::join!(
            self.store.shutdown(deadline),
            close_objects,
            self.ai.shutdown(deadline),
            end_assistant
        );
        if let Some(media) = self.media {
            // A panic of the thread was logged, and loses nothing that is stored.
            let _ = timeout_at(deadline, media.join()).await;
        }
        self.admin_stop.cancel();
        let _ = timeout_at(deadline, self.admin).await;
        drop(self.data_dir);
        stored?;
        objects_stored?;
        ShutdownError::check(cut_off, cut_off_objects, open_tracks)?;
        info!("stopped; everything is kept");
        Ok(())
    }
}

/// Spawns a task that is aborted when its handle is dropped.
#[expect(clippy::disallowed_methods, reason = "the server owns its tasks: the handle aborts them")]
fn own<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> AbortOnDropHandle<T> {
    let task: JoinHandle<T> = tokio::spawn(task);
    AbortOnDropHandle::new(task)
}
