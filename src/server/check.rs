//! Checks of a configuration beyond its settings: the files that they name.

use super::StartError;
use crate::admin::Console;
use crate::auth::access_token::AccessTokens;
use crate::config::{Config, ConfigErrors};
use crate::durable::keys::AccessKeys;
use crate::durable::methods;
use crate::http::tls;
use crate::login::OpenedLogin;
use crate::orange::OrangeFiles;
use crate::site::Site;

/// Validates the files that a configuration names, as [`Server::start`](super::Server::start) would, and returns warnings.
///
/// # Errors
/// The error with which a server would not start.
pub fn check(config: &Config) -> Result<Vec<String>, StartError> {
    let mut warnings = match (tls::check(config), methods::check(&config.durable)) {
        (Ok(warnings), Ok(())) => warnings,
        (tls, script) => {
            let faults = [tls.err(), script.err()].into_iter().flatten();
            return Err(ConfigErrors(faults.flat_map(|faults| faults.0).collect()).into());
        }
    };
    Site::open(config)?;
    AccessKeys::open(&config.durable)?;
    AccessTokens::open(&config.auth)?;
    Console::open(&config.admin)?;
    OpenedLogin::open(config)?;
    let orange = OrangeFiles::open(config)?;
    warnings.extend(orange.as_ref().and_then(OrangeFiles::warning).map(str::to_owned));
    Ok(warnings)
}
