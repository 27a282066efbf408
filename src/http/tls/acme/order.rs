//! One order of a certificate (RFC 8555), validated on the TLS listener itself (RFC 8737).

use std::error::Error as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use instant_acme::{
    Account, AuthorizationStatus, ChallengeType, Error, Identifier, NewAccount, NewOrder, Order, OrderStatus,
    Problem, RetryPolicy,
};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::server::ServerConfig;
use rustls::sign::CertifiedKey;
use secrecy::zeroize::Zeroizing;
use tokio::sync::watch;

use super::saved::{SavedAccount, SavedCertificate, blocking};
use super::schedule::renewal_time;
use super::{AcmeSettings, Transport};
use crate::http::tls::acceptor::{Handshakes, VALIDATION_PROTOCOL};
use crate::http::tls::pair::{Pair, server_config};
use crate::http::tls::wall_clock;
use crate::store::data_dir::DataDirError;

/// Polls of an order that the authority works on.
const POLLS: RetryPolicy = RetryPolicy::new().timeout(Duration::from_secs(120)).backoff(1.5);

/// Maximum characters of an error in the log; its text may come from the authority.
const MAX_ERROR: usize = 600;

/// Error type for an account that the authority does not have (RFC 8555 section 6.7).
const NO_ACCOUNT: &str = "urn:ietf:params:acme:error:accountDoesNotExist";

/// A failed order.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// The authority cannot be reached, or answered with an error.
    #[error("{}", with_causes(.0))]
    Authority(#[from] Error),
    /// The authority could not validate a name.
    #[error("{name} could not be validated: {problem}")]
    Refused {
        /// The name.
        name: String,
        /// The authority's reason.
        problem: String,
    },
    /// The authority offers other challenges only.
    #[error("the authority offers no tls-alpn-01 challenge for {0}")]
    NoChallenge(String),
    /// The authority asks for a name that was not ordered.
    #[error("the authority asks to validate {0}, which was not ordered")]
    ForeignName(String),
    /// The certificate cannot be used.
    #[error("the authority issued a certificate that cannot be used: {0}")]
    Unusable(String),
    /// The account cannot be saved.
    #[error(transparent)]
    File(#[from] DataDirError),
    /// A key, a request or the answer to a validation cannot be made.
    #[error("a key or request cannot be made: {0}")]
    NotMade(#[from] rcgen::Error),
    /// The answer to a validation cannot be used.
    #[error("the answer to a validation cannot be used: {0}")]
    Answer(#[from] rustls::Error),
    /// The order took too long as a whole.
    #[error("the authority did not finish the order in time")]
    TimedOut,
    /// A defect in this program or a library.
    #[error("a defect: the order panicked, with the backtrace above")]
    Panicked,
}

impl OrderError {
    /// Formats the error for the log, in one line of limited length.
    pub fn summary(&self) -> String {
        let text = self.to_string();
        text.chars().take(MAX_ERROR).map(|c| if c.is_control() { ' ' } else { c }).collect()
    }
}

fn with_causes(error: &Error) -> String {
    let mut text = error.to_string();
    // A transparent error shows its cause already, whose own causes follow.
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Orders a certificate, and answers the validations that the authority makes meanwhile.
///
/// # Errors
/// [`OrderError`]; nothing but an account is left behind.
pub async fn order(
    settings: &AcmeSettings,
    transport: &Transport,
    account: &mut Option<SavedAccount>,
    handshakes: &watch::Sender<Handshakes>,
) -> Result<(Pair, SavedCertificate), OrderError> {
    match order_once(settings, transport, account, handshakes).await {
        Err(OrderError::Authority(Error::Api(Problem { r#type: Some(kind), .. }))) if kind == NO_ACCOUNT => {
            // The authority lost its accounts; the saved one is replaced once the new one exists.
            *account = None;
            order_once(settings, transport, account, handshakes).await
        }
        result => result,
    }
}

async fn order_once(
    settings: &AcmeSettings,
    transport: &Transport,
    saved: &mut Option<SavedAccount>,
    handshakes: &watch::Sender<Handshakes>,
) -> Result<(Pair, SavedCertificate), OrderError> {
    let account = open_account(settings, transport, saved).await?;
    let names: Vec<_> = settings.domains.iter().map(|name| Identifier::Dns(name.clone())).collect();
    let mut order = account.new_order(&NewOrder::new(&names)).await?;
    let validations = Validations(handshakes);
    answer_challenges(settings, &mut order, &validations).await?;
    if order.state().status != OrderStatus::Ready {
        match order.poll_ready(&POLLS).await {
            Ok(OrderStatus::Ready) => {}
            Ok(_) => {
                return Err(refusal(&mut order)
                    .await
                    .unwrap_or(Error::Other("the order is invalid".into()).into()));
            }
            Err(error @ Error::Api(_)) => return Err(refusal(&mut order).await.unwrap_or(error.into())),
            Err(error) => return Err(error.into()),
        }
    }
    drop(validations);
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(settings.domains.clone())?;
    params.distinguished_name = DistinguishedName::new();
    order.finalize_csr(params.serialize_request(&key)?.der()).await?;
    let chain = order.poll_certificate(&POLLS).await?;
    let key = Zeroizing::new(key.serialize_pem());
    let saved = SavedCertificate::new(&settings.directory, &key, &chain);
    let pair = usable(&saved, &settings.domains, wall_clock()).map_err(OrderError::Unusable)?;
    Ok((pair, saved))
}

/// Opens the saved account, or creates and saves one.
async fn open_account(
    settings: &AcmeSettings,
    transport: &Transport,
    saved: &mut Option<SavedAccount>,
) -> Result<Account, OrderError> {
    let builder = Account::builder_with_http(Box::new(transport.clone()));
    let contact = settings.email.as_ref().map(|email| format!("mailto:{email}"));
    let contact: Vec<&str> = contact.as_deref().into_iter().collect();
    let account = match saved {
        Some(saved) => {
            let account = builder.from_credentials(saved.credentials()?).await?;
            if saved.email != settings.email {
                account.update_contacts(&contact).await?;
                saved.email.clone_from(&settings.email);
                saved.is_written = false;
            }
            account
        }
        None => {
            let new =
                NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
            let (account, credentials) =
                builder.create(&new, settings.directory.as_str().to_owned(), None).await?;
            *saved = Some(SavedAccount::new(settings, &credentials)?);
            account
        }
    };
    // Before an order, so that a full disk costs no certificate.
    if let Some(saved) = saved.as_mut().filter(|saved| !saved.is_written) {
        let (copy, directory) = (saved.clone(), settings.data_dir.clone());
        blocking(move || copy.save(&directory)).await?;
        saved.is_written = true;
    }
    Ok(account)
}

async fn answer_challenges(
    settings: &AcmeSettings,
    order: &mut Order,
    validations: &Validations<'_>,
) -> Result<(), OrderError> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        let name = authorization.identifier().to_string();
        if !settings.domains.contains(&name) {
            return Err(OrderError::ForeignName(name));
        }
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        let Some(mut challenge) = authorization.challenge(ChallengeType::TlsAlpn01) else {
            return Err(OrderError::NoChallenge(name));
        };
        let answer = validation_answer(&name, challenge.key_authorization().digest().as_ref())?;
        validations.add(name, answer);
        challenge.set_ready().await?;
    }
    Ok(())
}

/// Returns the authority's reason for refusing a name, if it gives one.
async fn refusal(order: &mut Order) -> Option<OrderError> {
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let Ok(state) = authorization.refresh().await else { continue };
        let problem = state.challenges.iter().find_map(|challenge| challenge.error.as_ref());
        if let Some(problem) = problem {
            let detail = problem.detail.as_deref().unwrap_or("no reason given");
            let kind = problem.r#type.as_deref().unwrap_or_default();
            let problem = format!("{detail} ({})", kind.rsplit(':').next().unwrap_or_default());
            return Some(OrderError::Refused { name: state.identifier().to_string(), problem });
        }
    }
    None
}

/// Creates the answer to a validation: a self-signed certificate that proves the account (RFC 8737 section 3).
fn validation_answer(name: &str, digest: &[u8]) -> Result<Arc<ServerConfig>, OrderError> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let certificate = params.self_signed(&key)?;
    let key = any_supported_type(&key.into())?;
    // Unchecked: only authorities know the extension, and it is critical.
    let mut config = server_config(CertifiedKey::new(vec![certificate.der().clone()], key))?;
    config.alpn_protocols = vec![VALIDATION_PROTOCOL.to_vec()];
    Ok(Arc::new(config))
}

/// Answers to the validations of an order, removed with it.
struct Validations<'a>(&'a watch::Sender<Handshakes>);

impl Validations<'_> {
    fn add(&self, name: String, answer: Arc<ServerConfig>) {
        self.0.send_modify(|handshakes| drop(handshakes.validations.insert(name, answer)));
    }
}

impl Drop for Validations<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|handshakes| handshakes.validations.clear());
    }
}

/// Checks an issued certificate before it replaces one that works.
fn usable(saved: &SavedCertificate, domains: &[String], now: SystemTime) -> Result<Pair, String> {
    let pair = saved.pair()?;
    if let Some(name) = domains.iter().find(|name| !pair.covers(name)) {
        return Err(format!("it is not for {name}"));
    }
    if now >= renewal_time(&pair.validity) {
        let until = humantime::format_rfc3339_seconds(pair.validity.until);
        return Err(format!("it ends too soon, at {until}; is this machine's clock right?"));
    }
    Ok(pair)
}
