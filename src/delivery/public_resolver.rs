//! SHELL: resolves names to addresses of the public internet only, against requests that a URL aims at this network.
//!
//! The client connects to what this returns, so a name that resolves to another address a moment later gains nothing.

use std::error::Error;
use std::io;
use std::net::SocketAddr;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::net::lookup_host;

use crate::network::is_public;

/// The resolver.
#[derive(Clone, Copy, Debug)]
pub struct PublicResolver;

/// A name has no public address.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the host has no address of the public internet")]
pub struct PrivateAddress;

impl PrivateAddress {
    /// True if a failed request has this cause.
    pub fn is_cause(error: &reqwest::Error) -> bool {
        let mut next: Option<&(dyn Error + 'static)> = Some(error);
        while let Some(error) = next {
            if error.is::<Self>() {
                return true;
            }
            next = error.source();
        }
        false
    }
}

impl Resolve for PublicResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            // The client sets the port.
            let found: Vec<SocketAddr> = lookup_host((name.as_str(), 0)).await?.collect();
            if found.is_empty() {
                return Err(io::Error::from(io::ErrorKind::NotFound).into());
            }
            let public: Vec<_> = found.into_iter().filter(|address| is_public(address.ip())).collect();
            if public.is_empty() {
                return Err(PrivateAddress.into());
            }
            Ok(Box::new(public.into_iter()) as Addrs)
        })
    }
}
