//! The desk that takes reports: what its request handlers share.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::http::HeaderMap;
use secrecy::SecretString;
use tracing::error;

use super::budget::UploadBudget;
use super::form::BodyRoom;
use super::quota::Quota;
use crate::config::{BasePath, Config, FeedbackConfig, HttpUrl, Origin};
use crate::http::app::{App, wall_clock};
use crate::http::error::ApiError;
use crate::http::request_guard::scheme_text;
use crate::id::ReportId;
use crate::identity::peer::RemotePeer;
use crate::identity::token::SigningKey;
use crate::identity::{Auth, Identity};
use crate::metrics::{ByOutcome, Metrics};
use crate::store::reports::{NewReport, Reports, ReportsError};
use crate::store::{Store, StoreHandle};

/// The version that cards and counts name.
pub const RELEASE: &str = env!("CARGO_PKG_VERSION");

/// How long the link on a card opens its report.
const LINK_LIFETIME: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// What a link's signature is for.
const PURPOSE: &str = "debug info";

/// What the handlers of reports share.
pub struct ReportService {
    /// The reports.
    pub reports: Reports,
    /// The rooms' store, whose meetings may not be written yet.
    pub store: StoreHandle,
    /// The quota of reports.
    pub report_quota: Quota,
    /// The quota of what is only counted.
    pub count_quota: Quota,
    /// The limits of a form.
    pub limits: FormLimits,
    /// The memory for forms.
    pub uploads: UploadBudget,
    /// The dashboard that cards link to.
    pub dashboard: Option<HttpUrl>,
    /// What opens every report.
    pub operator_token: SecretString,
    public_origin: Option<Origin>,
    base_path: BasePath,
    webhook: Webhook,
    metrics: Arc<Metrics>,
}

/// Whether cards are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Webhook {
    Set,
    NotSet,
}

/// The limits of a form.
#[derive(Clone, Copy, Debug)]
pub struct FormLimits {
    /// Bytes of the form.
    pub form_bytes: usize,
    /// How long it may take to arrive and be answered.
    pub form_timeout: Duration,
    /// Bytes of the history.
    pub history_bytes: usize,
    /// Characters of the description.
    pub description_chars: usize,
    /// Bytes of all reports.
    pub stored_bytes: usize,
}

impl ReportService {
    /// A desk as it is configured.
    pub fn new(config: &Config, store: &Store, operator_token: SecretString, metrics: Arc<Metrics>) -> Self {
        let FeedbackConfig { url, form_bytes, form_timeout, history_bytes, description_chars, .. } =
            &config.feedback;
        let feedback = &config.feedback;
        Self {
            reports: store.reports(),
            store: store.handle(),
            report_quota: Quota::hourly(feedback.reports_per_identity, feedback.reports_per_address),
            count_quota: Quota::hourly(feedback.counts_per_identity, feedback.counts_per_address),
            limits: FormLimits {
                form_bytes: *form_bytes,
                form_timeout: *form_timeout,
                history_bytes: *history_bytes,
                description_chars: *description_chars,
                stored_bytes: feedback.stored_bytes,
            },
            dashboard: feedback.dashboard_worker_url.0.clone(),
            operator_token,
            public_origin: config.http.public_origin().cloned(),
            base_path: config.http.base_path(),
            webhook: if url.is_some() { Webhook::Set } else { Webhook::NotSet },
            uploads: UploadBudget::new(*form_bytes, metrics.clone()),
            metrics,
        }
    }

    /// The room for a body of at most `most_bytes` that `peer` sends.
    pub fn room(&self, peer: &RemotePeer, most_bytes: usize) -> BodyRoom<'_> {
        BodyRoom { uploads: &self.uploads, network: peer.network(), most_bytes }
    }

    /// Keeps a report, with its card where there is somebody to send it to.
    ///
    /// # Errors
    /// [`ApiError::StoreFailing`].
    pub async fn keep(&self, report: NewReport, card: impl FnOnce() -> String) -> Result<(), ApiError> {
        let card = (self.webhook == Webhook::Set).then(card);
        self.reports.keep(report, card, self.limits.stored_bytes).await.map_err(failing)
    }

    /// Counts what became of a report.
    pub fn count(&self, kind: &'static str, outcome: &'static str) {
        self.metrics.reports.get_or_create(&ByOutcome { kind, outcome }).inc();
    }

    /// The same, for the result of an attempt to keep it.
    pub fn count_result<T>(&self, kind: &'static str, result: &Result<T, ApiError>) {
        let outcome = match result {
            Ok(_) => "stored",
            Err(ApiError::StoreFailing | ApiError::Internal) => "failed",
            Err(_) => "refused",
        };
        self.count(kind, outcome);
    }

    /// The start of a link in a card, without a slash at its end. A request's host is no such origin: whoever
    /// reports writes it, and operators follow the link.
    pub fn link_base(&self) -> Option<String> {
        self.public_origin.as_ref().map(|origin| self.below(origin))
    }

    /// The address under which the one who asks knows this server, without a slash at its end.
    pub fn address(&self, peer: &RemotePeer) -> String {
        match (&self.public_origin, &peer.host) {
            (Some(public), _) => self.below(public),
            (None, host) => {
                let host = host.as_deref().unwrap_or("localhost");
                self.below(format_args!("{}://{host}", scheme_text(peer.scheme)))
            }
        }
    }

    fn below(&self, origin: impl fmt::Display) -> String {
        format!("{origin}{}", self.base_path.as_str())
    }
}

/// A failure of the store, as a client reads it; the log has its cause.
pub fn failing(error: ReportsError) -> ApiError {
    error!(event = "reportsFailing", %error);
    ApiError::StoreFailing
}

/// Who reports.
///
/// # Errors
/// [`ApiError::NoIdentity`] or [`ApiError::LoginRequired`].
pub async fn reporter(app: &App, headers: &HeaderMap, peer: &RemotePeer) -> Result<Identity, ApiError> {
    match app.identities.identify(headers, peer, wall_clock()).await {
        Auth::User { identity, .. } => Ok(identity),
        Auth::Anonymous => Err(app.nobody()),
    }
}

/// The address that opens a report's JSON for 30 days, to whoever has it.
pub fn signed_link(key: &SigningKey, base: &str, id: ReportId, now: SystemTime) -> String {
    let expires = now + LINK_LIFETIME;
    let expires = expires.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let signature = key.sign_text(PURPOSE, &signed(id, expires));
    format!("{base}/api/debugInfo?id={id}&exp={expires}&sig={signature}")
}

/// Whether a link's parts are those that [`signed_link`] made, and still open at `now`.
pub fn link_opens(key: &SigningKey, id: ReportId, expires: &str, signature: &str, now: SystemTime) -> bool {
    let Ok(expires) = expires.parse::<u64>() else { return false };
    let now = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    key.verify_text(PURPOSE, &signed(id, expires), signature) && now < expires
}

fn signed(id: ReportId, expires: u64) -> String {
    format!("{id} {expires}")
}

#[cfg(test)]
mod tests {
    use secrecy::SecretSlice;

    use super::*;

    #[test]
    fn a_link_opens_its_own_report_for_thirty_days() {
        let key = SigningKey::new(&SecretSlice::from(vec![1; 64]));
        let (id, other) = (ReportId::random(), ReportId::random());
        let made = SystemTime::UNIX_EPOCH + Duration::from_secs(1_780_000_000);
        let link = signed_link(&key, "https://meet.example", id, made);
        let start = format!("https://meet.example/api/debugInfo?id={id}&exp=1782592000&sig=");
        let signature = link.strip_prefix(&start).unwrap_or_else(|| panic!("{link}"));
        let opens = |id, expires: &str, seconds| {
            link_opens(&key, id, expires, signature, made + Duration::from_secs(seconds))
        };
        assert!(opens(id, "1782592000", 0) && opens(id, "1782592000", 2_591_999));
        assert!(!opens(id, "1782592000", 2_592_000), "thirty days later");
        assert!(!opens(other, "1782592000", 0), "another report's");
        for expires in ["1782592001", "9999999999", "01782592000", "+1782592000", "", "x"] {
            // Only the number counts, however it is written.
            let same = expires.parse() == Ok(1_782_592_000_u64);
            assert_eq!(opens(id, expires, 0), same, "{expires}");
        }
        let another = SigningKey::new(&SecretSlice::from(vec![2; 64]));
        assert!(!link_opens(&another, id, "1782592000", signature, made));
    }
}
