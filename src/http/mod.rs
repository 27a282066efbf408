//! The public HTTP listener: identifies and authorizes clients, and serves pages, files and upgrades.

pub mod app;
pub mod assets;
pub mod base_path;
pub mod charge;
pub mod error;
pub mod error_page;
pub mod host;
pub mod listener;
pub mod origin;
pub mod pages;
pub mod paths;
pub mod request_guard;
pub mod router;
pub mod site;
pub mod tls;
