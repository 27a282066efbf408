//! The report service: state shared by the request handlers.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::extract::Request;
use secrecy::SecretString;
use tracing::error;

use super::budget::UploadBudget;
use super::form::{BodyBudget, drain};
use super::quota::Quota;
use crate::auth::peer::RemotePeer;
use crate::auth::token::SigningKey;
use crate::config::{Config, FeedbackConfig, HttpUrl, Origin};
use crate::http::context::HttpContext;
use crate::http::error::ApiError;
use crate::id::{IdentityId, ReportId};
use crate::metrics::ByOutcome;
use crate::room::event_queue::{CreatedReport, EventQueue};
use crate::store::reports::{NewReport, Reports, ReportsError};
use crate::store::{Store, StoreHandle};

/// Lifetime of the link in a card.
const LINK_LIFETIME: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Purpose of a link's signature.
const PURPOSE: &str = "debug info";

/// State shared by the report handlers.
pub struct ReportService {
    /// The reports' store.
    pub reports: Reports,
    /// The rooms' store, in which a new meeting may not be written yet.
    pub store: StoreHandle,
    /// The quota of reports.
    pub report_quota: Quota,
    /// The quota of counted events.
    pub count_quota: Quota,
    /// The limits of a form.
    pub limits: FormLimits,
    /// The memory for forms.
    pub uploads: UploadBudget,
    /// The dashboard that cards link to.
    pub dashboard: Option<HttpUrl>,
    /// Token that authorizes reading all reports.
    pub operator_token: SecretString,
    pub(super) http: Arc<HttpContext>,
    /// Tells programs outside of stored reports.
    events: EventQueue,
    public_origin: Option<Origin>,
    webhook: Webhook,
}

/// Presence of a webhook: without one no cards are built.
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
    /// Timeout of receiving and answering it.
    pub form_timeout: Duration,
    /// Bytes of the history.
    pub history_bytes: usize,
    /// Characters of the description.
    pub description_chars: usize,
    /// Bytes of all reports.
    pub stored_bytes: usize,
}

impl ReportService {
    /// Creates the service from the configuration.
    pub fn new(
        config: &Config,
        store: &Store,
        operator_token: SecretString,
        events: EventQueue,
        http: Arc<HttpContext>,
    ) -> Self {
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
            webhook: if url.is_some() { Webhook::Set } else { Webhook::NotSet },
            uploads: UploadBudget::new(*form_bytes, http.metrics.clone()),
            events,
            http,
        }
    }

    /// Returns the memory and limit for a body of at most `most_bytes` from `peer`.
    pub fn budget(&self, peer: &RemotePeer, most_bytes: usize) -> BodyBudget<'_> {
        BodyBudget { uploads: &self.uploads, network: peer.network(), most_bytes }
    }

    /// Stores a report, with its card if a webhook is configured.
    ///
    /// # Errors
    /// [`ApiError::StoreFailing`].
    pub async fn store(&self, report: NewReport, card: impl FnOnce() -> String) -> Result<(), ApiError> {
        let card = (self.webhook == Webhook::Set).then(card);
        let created = CreatedReport {
            time: report.created,
            id: report.id,
            kind: report.kind.as_str(),
            room: report.room.clone(),
            name: report.name.clone(),
        };
        self.reports.add(report, card, self.limits.stored_bytes).await.map_err(failing)?;
        self.events.push_report(created);
        Ok(())
    }

    /// Stores a submission within its author's quota, and counts the outcome. Beyond the quota its body is read and
    /// dropped, and it is answered like an accepted one: a refusal would throw its author out of the call.
    ///
    /// # Errors
    /// The error of `store`.
    pub(super) async fn submit<F: Future<Output = Result<(), ApiError>>>(
        &self,
        (kind, quota): (&'static str, &Quota),
        (identity, peer): (&IdentityId, &RemotePeer),
        body_bytes: usize,
        request: Request,
        store: impl FnOnce(Request) -> F,
    ) -> Result<(), ApiError> {
        if !quota.admits(identity, peer) {
            self.count(kind, "rate_limited");
            drain(request.into_body(), body_bytes).await;
            return Ok(());
        }
        let result = store(request).await;
        self.count_result(kind, &result);
        result
    }

    /// Counts the outcome of a report.
    pub fn count(&self, kind: &'static str, outcome: &'static str) {
        self.http.metrics.reports.get_or_create(&ByOutcome { kind, outcome }).inc();
    }

    /// Counts the result of storing a report.
    pub fn count_result<T>(&self, kind: &'static str, result: &Result<T, ApiError>) {
        let outcome = match result {
            Ok(_) => "stored",
            Err(ApiError::StoreFailing | ApiError::Internal) => "failed",
            Err(_) => "refused",
        };
        self.count(kind, outcome);
    }

    /// Returns the base URL of links in cards, without a trailing slash. A request's `Host` is not used: the
    /// reporter controls it, and operators follow the link.
    pub fn link_base(&self) -> Option<String> {
        self.public_origin.as_ref().map(|origin| self.below(origin))
    }

    /// Returns the base URL of this server as seen by `peer`, without a trailing slash.
    pub fn address(&self, peer: &RemotePeer) -> String {
        match (&self.public_origin, &peer.host) {
            (Some(public), _) => self.below(public),
            (None, host) => {
                let host = host.as_deref().unwrap_or("localhost");
                self.below(format_args!("{}://{host}", peer.scheme.as_str()))
            }
        }
    }

    fn below(&self, origin: impl fmt::Display) -> String {
        format!("{origin}{}", self.http.base_path.as_str())
    }
}

/// Logs a failure of the store, and returns the client's error, which omits the cause.
pub fn failing(error: ReportsError) -> ApiError {
    error!(event = "reportsFailing", %error);
    ApiError::StoreFailing
}

/// Returns a URL that gives its holder access to a report's JSON for 30 days.
pub fn signed_link(key: &SigningKey, base: &str, id: ReportId, now: SystemTime) -> String {
    let expires = now + LINK_LIFETIME;
    let expires = expires.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let signature = key.sign_text(PURPOSE, &signed(id, expires));
    format!("{base}/api/debugInfo?id={id}&exp={expires}&sig={signature}")
}

/// True if a link's parts were made by [`signed_link`] and have not expired at `now`.
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
    fn signed_link_opens_its_report_for_30_days() {
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
            // Only the number is signed, not its notation.
            let same = expires.parse() == Ok(1_782_592_000_u64);
            assert_eq!(opens(id, expires, 0), same, "{expires}");
        }
        let another = SigningKey::new(&SecretSlice::from(vec![2; 64]));
        assert!(!link_opens(&another, id, "1782592000", signature, made));
    }
}
