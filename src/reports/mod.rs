//! Users' reports, from the form to the webhook and the operators' lists.
//!
//! A report is stored before it is answered. With a webhook configured its card is queued in the same
//! transaction and delivered by a separate task, so no client waits for the webhook.

pub mod budget;
pub mod bug_report;
pub mod card;
pub mod counted;
pub mod dead_track;
pub mod debug_info;
pub mod delivery;
pub mod form;
pub mod history;
pub mod quota;
pub mod retention;
pub mod service;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, FromRef};
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};

use self::service::ReportService;
use crate::http::context::HttpContext;
use crate::http::deadline::deadline;

/// Returns the routes of reports and counted events.
pub fn router<S>() -> Router<S>
where
    S: Clone + Send + Sync + 'static,
    Arc<HttpContext>: FromRef<S>,
    Arc<ReportService>: FromRef<S>,
{
    Router::new()
        .route("/api/deadTrack", post(dead_track::post))
        .route("/api/debugInfo", get(debug_info::get))
        .route("/api/reportRefresh", post(counted::refresh))
        .route("/call-quality-feedback", post(counted::call_quality))
}

/// Returns the route of bug reports, whose long bodies arrive slowly: it has its own limits.
pub fn uploads<S>(service: &ReportService) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
    Arc<HttpContext>: FromRef<S>,
    Arc<ReportService>: FromRef<S>,
{
    let timeout = service.limits.form_timeout;
    Router::new()
        .route("/api/bugReport", post(bug_report::post))
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn_with_state(timeout, deadline))
}
