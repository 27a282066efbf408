//! SHELL: requests to the operators' API.

use std::fs::File;
use std::io::Read;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, RequestBuilder, Response};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use url::{Host, Url};

use super::failure::OperateError;
use crate::config::Config;
use crate::store::data_dir::{OPERATOR_TOKEN_FILE, read_private};
use crate::telemetry::complain;

/// Time for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Far more than a token has, in bytes.
const MAX_TOKEN_BYTES: u64 = 16 << 10;

/// Maximum size of an answer in bytes.
const MAX_ANSWER_BYTES: usize = 256 << 20;

/// The variable with the token of a remote server.
const TOKEN_VARIABLE: &str = "SATSUMA_OPERATOR_TOKEN";

/// The server to ask; without an option the one on this machine with the same configuration.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ServerOptions {
    /// The operators' listener of another server. Its token comes from --token-file or
    /// the variable SATSUMA_OPERATOR_TOKEN.
    #[arg(long, global = true, value_name = "URL", env = "SATSUMA_SERVER")]
    server: Option<String>,
    /// The file with the operator token, or with an access token of all rooms that has the grant admin; by default
    /// operator.token in the data directory.
    #[arg(long, global = true, value_name = "FILE", env = "SATSUMA_OPERATOR_TOKEN_FILE")]
    token_file: Option<PathBuf>,
}

/// The URL of the operators' listener on this machine, without a slash at its end.
pub fn local_url(config: &Config) -> String {
    let mut address = config.admin.listen;
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() { [127, 0, 0, 1].into() } else { Ipv6Addr::LOCALHOST.into() });
    }
    format!("http://{address}")
}

/// A segment of a path.
pub(super) fn segment(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// A server's operators' API.
pub(super) struct Operator {
    client: Client,
    base: String,
    token: SecretString,
}

impl Operator {
    pub(super) fn new(config: &Config, options: &ServerOptions) -> Result<Self, OperateError> {
        let client = Client::builder().redirect(Policy::none()).connect_timeout(PATIENCE);
        let (base, client) = match &options.server {
            Some(url) => (remote_url(url)?, client),
            None => (local_url(config), client.no_proxy()),
        };
        let client = client.build().map_err(|error| OperateError::Failed(error.to_string()))?;
        Ok(Self { client, base, token: token(config, options)? })
    }

    /// Sends a request; the JSON of the answer, if it has any.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Option<Value>, OperateError> {
        let (request, url) = self.request(method, path);
        let request = request.timeout(PATIENCE);
        let request = match body {
            Some(body) => request.json(body),
            None => request,
        };
        let text = self.text(&url, request).await?;
        if text.is_empty() {
            return Ok(None);
        }
        serde_json::from_str(&text).map(Some).map_err(|_| OperateError::strange(&url))
    }

    /// The JSON of a path.
    pub(super) async fn get(&self, path: &str) -> Result<Value, OperateError> {
        Ok(self.ask(Method::GET, path, None).await?.unwrap_or_default())
    }

    /// Begins a request; returns the URL that errors show, too.
    pub(super) fn request(&self, method: Method, path: &str) -> (RequestBuilder, String) {
        let url = format!("{}{path}", self.base);
        let request = self.client.request(method, &url).bearer_auth(self.token.expose_secret());
        (request, url.split('?').next().unwrap_or_default().to_owned())
    }

    /// Sends a request; the answer, if it is a success.
    ///
    /// # Errors
    /// [`OperateError`].
    pub(super) async fn send(&self, url: &str, request: RequestBuilder) -> Result<Response, OperateError> {
        let answer = request.send().await.map_err(|error| OperateError::unreachable(url, &error))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        if status.is_redirection() {
            return Err(OperateError::Failed(format!(
                "{url} redirects elsewhere; is this the operators' listener?"
            )));
        }
        let text = read(url, answer).await?;
        Err(OperateError::answered(url, status.as_u16(), &text))
    }

    async fn text(&self, url: &str, request: RequestBuilder) -> Result<String, OperateError> {
        let answer = self.send(url, request).await?;
        read(url, answer).await
    }
}

async fn read(url: &str, mut answer: Response) -> Result<String, OperateError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| OperateError::unreachable(url, &error))? {
        if bytes.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Err(OperateError::Failed(format!(
                "{url} gave an answer of more than {MAX_ANSWER_BYTES} bytes"
            )));
        }
        bytes.extend_from_slice(&chunk);
    }
    String::from_utf8(bytes).map_err(|_| OperateError::strange(url))
}

/// The token: that of the file, of the variable, or of the data directory.
fn token(config: &Config, options: &ServerOptions) -> Result<SecretString, OperateError> {
    let variable = std::env::var(TOKEN_VARIABLE).ok().filter(|token| !token.trim().is_empty());
    let text = match (&options.token_file, variable) {
        (Some(path), _) => read_token(path)?,
        (None, Some(token)) => token,
        // A token of this machine's server is not another one's to see.
        (None, None) if options.server.is_some() => {
            return Err(OperateError::NoToken(format!(
                "name the file with this server's operator token by --token-file, or set {TOKEN_VARIABLE}"
            )));
        }
        (None, None) => {
            let path = config.data_dir.join(OPERATOR_TOKEN_FILE);
            let token = read_private(&path, MAX_TOKEN_BYTES);
            let token = token.map_err(|error| OperateError::NoToken(error.to_string()))?;
            let none = || {
                format!(
                    "there is no {}; did the server start here? --data-dir names its data directory",
                    path.display()
                )
            };
            String::from_utf8_lossy(&token.ok_or_else(|| OperateError::NoToken(none()))?).into_owned()
        }
    };
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(OperateError::NoToken(
            "the operator token is empty, or has spaces or other characters".to_owned(),
        ));
    }
    Ok(token.into())
}

fn read_token(path: &Path) -> Result<String, OperateError> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(MAX_TOKEN_BYTES).read_to_string(&mut text));
    match read {
        Ok(_) => Ok(text),
        Err(error) => {
            Err(OperateError::NoToken(format!("--token-file: {} cannot be read: {error}", path.display())))
        }
    }
}

/// The base of a remote server's paths, without a slash at its end.
fn remote_url(text: &str) -> Result<String, OperateError> {
    let invalid = |rule: &str| OperateError::Failed(format!("--server: {rule}"));
    const FORM: &str = "write a URL, for example http://127.0.0.1:8788";
    let url = Url::parse(text).map_err(|_| invalid(FORM))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(invalid(FORM));
    }
    if !url.username().is_empty()
        || url.password().is_some()
        || url.query().is_some()
        || url.fragment().is_some()
    {
        return Err(invalid("the URL has no user, password, query or fragment"));
    }
    let is_loopback = match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    };
    if url.scheme() == "http" && !is_loopback {
        complain("satsuma: --server is not https: whoever is on the way can read the operator token");
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remote_url_has_no_secret_and_keeps_its_path() {
        assert_eq!(remote_url("https://ops.example/satsuma/").unwrap(), "https://ops.example/satsuma");
        assert_eq!(remote_url("http://127.0.0.1:8788").unwrap(), "http://127.0.0.1:8788");
        for url in [
            "ops.example",
            "127.0.0.1:8788",
            "ops:8788",
            "ftp://ops.example",
            "https://a:b@ops.example",
            "https://ops.example?token=x",
            "",
        ] {
            let error = remote_url(url).unwrap_err().to_string();
            assert!(error.starts_with("--server: ") && !error.contains("a:b"), "{url}: {error}");
        }
    }

    #[test]
    fn token_of_this_machine_goes_to_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let config = Config { data_dir: directory.path().to_owned(), ..Config::default() };
        std::fs::write(directory.path().join(OPERATOR_TOKEN_FILE), "secret\n").unwrap();
        let local = ServerOptions::default();
        assert_eq!(token(&config, &local).unwrap().expose_secret(), "secret");
        let remote = ServerOptions { server: Some("https://ops.example".into()), token_file: None };
        let error = token(&config, &remote).unwrap_err();
        assert_eq!(error.exit_code(), 4);
        assert!(error.to_string().contains("--token-file"), "{error}");
        let file = directory.path().join("other");
        let remote = ServerOptions { token_file: Some(file.clone()), ..remote };
        assert!(token(&config, &remote).unwrap_err().to_string().contains("cannot be read"));
        for (text, is_token) in [("other\r\n", true), (" \n", false), ("two words", false), ("\u{1}", false)]
        {
            std::fs::write(&file, text).unwrap();
            assert_eq!(token(&config, &remote).is_ok(), is_token, "{text:?}");
        }
    }
}
