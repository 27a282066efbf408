//! Resources that a server acquires before it runs; each can fail.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

use super::files::raise_file_limit;
use super::{Addresses, StartError, media, now};
use crate::ai::AiHandle;
use crate::calls::upstream::Upstream;
use crate::config::Config;
use crate::feedback::delivery::{Delivery, DeliveryTiming};
use crate::http::site::{InvalidSite, Site};
use crate::http::tls::certificates::Certificates;
use crate::http::tls::source::CertificateSource;
use crate::identity::access::{AccessHandle, AccessSettings};
use crate::limit::Rate;
use crate::metrics::Metrics;
use crate::room::io::SavedRoom;
use crate::sfu::handle::SfuHandle;
use crate::sfu::thread::SfuThread;
use crate::store::Store;
use crate::store::data_dir::DataDir;

/// Connections that wait to be accepted, as far as the system allows. The library's 128 are an office of a
/// hundred whose browsers open four each; those over it try again after a second.
const BACKLOG: u32 = 4096;

/// The time that a start which failed gives the store and the media thread to end.
const CLOSE: Duration = Duration::from_secs(5);

/// Machine resources held by a server.
pub(super) struct Resources {
    pub(super) data_dir: DataDir,
    pub(super) metrics: Arc<Metrics>,
    pub(super) certificates: Option<Certificates>,
    pub(super) listeners: Listeners,
    pub(super) store: Store,
    /// The rooms of before.
    pub(super) kept: Vec<SavedRoom>,
    /// The embedded media server, where it carries the media.
    pub(super) media: Option<(SfuHandle, SfuThread)>,
}

/// Sockets that listen already, and are not read yet.
pub(super) struct Listeners {
    pub(super) http: TcpListener,
    pub(super) admin: TcpListener,
}

impl Resources {
    /// Opens all resources.
    ///
    /// # Errors
    /// [`StartError`] says what is refused; nothing is held then.
    pub(super) async fn open(config: &Config) -> Result<Self, StartError> {
        raise_file_limit(config.limits.connections);
        let data_dir = DataDir::open(&config.data_dir)?;
        let metrics = Metrics::new();
        let certificates =
            CertificateSource::of(config).map(|source| Certificates::open(source, metrics.clone()));
        let certificates = certificates.transpose()?;
        let listeners = Listeners {
            http: listen("http.listen", config.http.listen)?,
            admin: listen("admin.listen", config.admin.listen)?,
        };
        let (store, mut kept) = Store::open(&data_dir.database(), metrics.clone()).await?;
        let (addresses, key) = (listeners.addresses(config), data_dir.signing_key());
        let media = match media::start(config, addresses, metrics.clone(), key).await {
            Ok(media) => media,
            Err(error) => {
                close(store, None).await;
                return Err(error);
            }
        };
        if media.is_some() {
            media::forget_ais(&mut kept);
        }
        Ok(Self { data_dir, metrics, certificates, listeners, store, kept, media })
    }

    /// Releases all resources and waits until they are free.
    pub(super) async fn close(self) {
        close(self.store, self.media.map(|(_, thread)| thread)).await;
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

/// Clients of other services, and the files for browsers: made before anything runs, since their settings
/// may be wrong.
pub(super) struct Clients {
    pub(super) site: Site,
    pub(super) access: Option<(AccessHandle, AbortOnDropHandle<()>)>,
    pub(super) upstream: Arc<Upstream>,
    pub(super) ai: AiHandle,
    pub(super) delivery: Option<Delivery>,
}

impl Clients {
    /// Makes all of them.
    ///
    /// # Errors
    /// [`StartError`] says which setting is wrong.
    pub(super) fn new(config: &Config, resources: &Resources) -> Result<Self, StartError> {
        let Config { limits, identity, calls, .. } = config;
        let Resources { metrics, media, store, .. } = resources;
        let access = match identity.access() {
            Some((team_domain, audience)) => {
                Some(AccessSettings::new(team_domain.as_str(), audience)?.start()?)
            }
            None => None,
        };
        let sfu = media.as_ref().map(|(handle, _)| handle.clone());
        let upstream = Upstream::new(calls, &config.turn, limits.call_bytes, sfu, metrics.clone())?;
        let upstream = Arc::new(upstream);
        let ai_starts = Rate::per_minute(limits.ai_starts_per_minute_per_network);
        let ai = AiHandle::new(upstream.clone(), calls, &config.ai, ai_starts, metrics.clone())?;
        let webhook = config.feedback.url.as_ref();
        let delivery = webhook.map(|url| {
            Delivery::new(store.reports(), url.clone(), metrics.clone(), DeliveryTiming::default())
        });
        Ok(Self { site: open_site(config)?, access, upstream, ai, delivery: delivery.transpose()? })
    }
}

fn open_site(config: &Config) -> Result<Site, InvalidSite> {
    let site = Site::open(config)?;
    if let Some(warning) = site.warning() {
        warn!(event = "severalBuilds", "{warning}");
    }
    Ok(site)
}

fn listen(setting: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    bind(address).map_err(|error| StartError::Listen { setting, address, error })
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restart finds connections of before on their way out.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Ends what a start that failed had started. Nothing was said to it, so nothing can be lost.
async fn close(store: Store, media: Option<SfuThread>) {
    let _ = store.shutdown(now() + CLOSE).await;
    if let Some(media) = media {
        let _ = tokio::time::timeout(CLOSE, media.join()).await;
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    /// A hundred people behind one address open a page in the same second, and each browser opens several connections.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn burst_of_connections_fits_the_backlog() {
        let allowed = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
        let count = allowed.trim().parse::<usize>().unwrap().min(400);
        let listener = bind(([127, 0, 0, 1], 0).into()).unwrap();
        let address = listener.local_addr().unwrap();
        let connect = |_| TcpStream::connect_timeout(&address, Duration::from_millis(900));
        let connected = (0..count).map(connect).take_while(Result::is_ok).count();
        assert_eq!(connected, count, "nobody accepts, and nobody is lost");
    }
}
