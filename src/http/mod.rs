//! The web kit: a listener with TLS, the checks that every request passes, errors, redirects, files, and
//! extractors of a request's client. It knows no feature; features bring their own state and routes.

pub mod assets;
pub mod base_path;
pub mod bearer;
pub mod charge;
pub mod context;
pub mod deadline;
pub mod error;
pub mod extract;
pub mod guesses;
pub mod host;
pub mod json;
pub mod listener;
pub mod origin;
pub mod page_policy;
pub mod redirect;
pub mod request_guard;
pub mod tls;
