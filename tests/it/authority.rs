//! An ACME authority on loopback (RFC 8555): it checks what it receives, validates names over TLS-ALPN
//! (RFC 8737) and issues certificates, or misbehaves as a test asks.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use futures_util::stream;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs as provider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_util::task::TaskTracker;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::harness::eventually;
use crate::tls::{Authority, Https};

/// OID of the extension that answers a validation (RFC 8737 section 6.1).
const ACME_IDENTIFIER: &str = "1.3.6.1.5.5.7.1.31";

/// A misbehaviour of the authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misdeed {
    /// The directory is requested and never answered.
    Hang,
    /// The directory is a page.
    Page,
    /// The directory is elsewhere.
    Redirect,
    /// The directory is JSON of another kind.
    OtherJson,
    /// The directory never ends.
    Endless,
    /// The directory's URLs are plain http on another machine.
    PlainHttp,
    /// Orders are refused for a while.
    RateLimit,
    /// The order asks for the validation of another name.
    OtherName,
    /// The order offers no TLS-ALPN challenge.
    NoTlsAlpn,
    /// Nothing can be validated.
    RefuseValidation,
    /// The order is never ready, and the next poll is in some billion years.
    Forever,
    /// The certificate is for another name.
    OtherCertificate,
    /// The certificate is for another key.
    OtherKey,
    /// The certificate has ended.
    Expired,
    /// The certificate is no PEM.
    NoPem,
}

/// The authority.
pub struct AcmeAuthority {
    shared: Arc<Shared>,
    address: SocketAddr,
    _tasks: JoinSet<()>,
}

struct Shared {
    origin: String,
    authority: Authority,
    /// The listener that validations connect to.
    target: watch::Sender<Option<SocketAddr>>,
    /// Validations, which end with the test's runtime.
    validations: TaskTracker,
    state: Mutex<Records>,
}

#[derive(Default)]
struct Records {
    misdeed: Option<Misdeed>,
    /// Validity of certificates, before and after now.
    validity: Option<(Duration, Duration)>,
    nonces: HashSet<String>,
    last_id: usize,
    requests: usize,
    /// Requests with a fresh nonce that are refused nevertheless.
    nonces_to_refuse: usize,
    accounts: HashMap<String, Account>,
    orders: Vec<Order>,
    /// Offences of the client against the protocol.
    offences: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct Account {
    jwk: Value,
    pub contact: Value,
}

#[derive(Clone, Debug)]
struct Order {
    names: Vec<String>,
    authorizations: Vec<Authorization>,
    chain: Option<String>,
}

#[derive(Clone, Debug)]
struct Authorization {
    name: String,
    token: String,
    status: &'static str,
    problem: Option<Value>,
}

impl AcmeAuthority {
    pub async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            origin: format!("http://{address}"),
            authority: Authority::new(),
            target: watch::Sender::new(None),
            validations: TaskTracker::new(),
            state: Mutex::default(),
        });
        let router = Router::new().fallback(handle).with_state(shared.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { shared, address, _tasks: tasks }
    }

    /// The directory's URL.
    pub fn directory(&self) -> String {
        format!("http://{}/directory", self.address)
    }

    /// Names the listener at which names are validated; until then validations wait.
    pub fn validate_at(&self, address: SocketAddr) {
        self.shared.target.send_replace(Some(address));
    }

    /// Misbehaves from now on, or no longer.
    pub fn misbehave(&self, misdeed: Option<Misdeed>) {
        self.shared.records().misdeed = misdeed;
    }

    /// Issues certificates that are valid so long before and after now.
    pub fn issue_for(&self, before: Duration, after: Duration) {
        self.shared.records().validity = Some((before, after));
    }

    /// Refuses the next nonces, as an authority with several machines may.
    pub fn refuse_nonces(&self, count: usize) {
        self.shared.records().nonces_to_refuse = count;
    }

    /// Loses all accounts.
    pub fn forget_accounts(&self) {
        self.shared.records().accounts.clear();
    }

    pub fn requests(&self) -> usize {
        self.shared.records().requests
    }

    pub fn accounts(&self) -> Vec<Account> {
        self.shared.records().accounts.values().cloned().collect()
    }

    /// The number of orders.
    pub fn orders(&self) -> usize {
        self.shared.records().orders.len()
    }

    /// The names of the last order.
    pub fn ordered(&self) -> Vec<String> {
        self.shared.records().orders.last().unwrap().names.clone()
    }

    #[track_caller]
    pub fn until_orders(&self, count: usize) -> impl Future<Output = ()> {
        eventually(format!("{count} orders were made"), async move || self.orders() >= count)
    }

    /// A client that trusts the authority.
    pub fn client(&self) -> Https {
        self.shared.authority.client()
    }

    /// Fails if the client broke the protocol.
    #[track_caller]
    pub fn assert_no_offence(&self) {
        assert_eq!(self.shared.records().offences, [""; 0]);
    }
}

async fn handle(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let path: Vec<_> = uri.path().trim_start_matches('/').split('/').collect();
    let misdeed = {
        let mut records = shared.records();
        records.requests += 1;
        records.misdeed
    };
    match (&method, &*path) {
        (&Method::GET, ["directory"]) => return shared.directory(misdeed).await,
        (&Method::HEAD | &Method::GET, ["nonce"]) => {
            return shared.answer(StatusCode::OK, None, &Value::Null);
        }
        _ => {}
    }
    let signed = match shared.check(&method, &uri, &headers, &body) {
        Ok(signed) => signed,
        Err(problem) => return *problem,
    };
    shared.serve(&path, signed, misdeed).await
}

/// A request whose signature is right.
struct Signed {
    /// The account's URL, unless an account is being made.
    account: Option<String>,
    jwk: Value,
    /// `None` for a POST-as-GET.
    payload: Option<Value>,
}

impl Shared {
    fn records(&self) -> MutexGuard<'_, Records> {
        self.state.lock().unwrap()
    }

    fn url(&self, path: impl std::fmt::Display) -> String {
        format!("{}/{path}", self.origin)
    }

    async fn directory(&self, misdeed: Option<Misdeed>) -> Response {
        let origin = match misdeed {
            Some(Misdeed::Hang) => std::future::pending().await,
            Some(Misdeed::Page) => return "<html>Welcome</html>".into_response(),
            Some(Misdeed::Redirect) => {
                return (StatusCode::FOUND, [("location", self.url("directory2"))]).into_response();
            }
            Some(Misdeed::OtherJson) => return axum::Json(json!([{"newNonce": 1}])).into_response(),
            Some(Misdeed::Endless) => {
                let chunks =
                    stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from_static(&[b' '; 4096])));
                return Body::from_stream(chunks).into_response();
            }
            Some(Misdeed::PlainHttp) => "http://192.0.2.1".to_owned(),
            _ => self.origin.clone(),
        };
        axum::Json(json!({
            "newNonce": format!("{origin}/nonce"),
            "newAccount": format!("{origin}/new-account"),
            "newOrder": format!("{origin}/new-order"),
            "meta": {"termsOfService": format!("{origin}/terms")},
        }))
        .into_response()
    }

    /// An answer with a fresh nonce.
    fn answer(&self, status: StatusCode, location: Option<String>, body: &Value) -> Response {
        let mut records = self.records();
        records.last_id += 1;
        let nonce = BASE64_URL_SAFE_NO_PAD.encode(format!("nonce {}", records.last_id));
        records.nonces.insert(nonce.clone());
        let kind = if status.is_success() { "application/json" } else { "application/problem+json" };
        let headers = [("replay-nonce", nonce), ("content-type", kind.to_owned())];
        let location = location.map(|url| [("location", url)]);
        (status, headers, location, body.to_string()).into_response()
    }

    fn problem(&self, status: StatusCode, kind: &str, detail: &str) -> Response {
        let body = json!({"type": format!("urn:ietf:params:acme:error:{kind}"), "detail": detail});
        self.answer(status, None, &body)
    }

    /// Checks the signature of a request, and everything else that RFC 8555 section 6 demands of it.
    fn check(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Signed, Box<Response>> {
        let offence = |what: &str| {
            self.records().offences.push(format!("{uri}: {what}"));
            Box::new(self.problem(StatusCode::BAD_REQUEST, "malformed", what))
        };
        if method != Method::POST {
            return Err(offence("the method is not POST"));
        }
        if headers.get("content-type").is_none_or(|kind| kind != "application/jose+json") {
            return Err(offence("the content type"));
        }
        if headers.get("user-agent").is_none_or(|agent| !agent.to_str().unwrap().contains("satsuma")) {
            return Err(offence("the user agent"));
        }
        let body: Value = serde_json::from_slice(body).map_err(|_| offence("no JSON"))?;
        let part =
            |name: &str| body[name].as_str().map(str::to_owned).ok_or_else(|| offence("a part is missing"));
        let (protected, payload, signature) = (part("protected")?, part("payload")?, part("signature")?);
        let decode = |text: &str| BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| offence("no base64url"));
        let head: Value =
            serde_json::from_slice(&decode(&protected)?).map_err(|_| offence("the header is no JSON"))?;
        if head["alg"] != "ES256" || head["url"] != format!("{}{}", self.origin, uri.path()) {
            return Err(offence("the header's alg or url"));
        }
        let is_new = uri.path() == "/new-account";
        if head["jwk"].is_null() == is_new || head["kid"].is_null() != is_new {
            return Err(offence("jwk is for new accounts, and kid for all other requests"));
        }
        let account = head["kid"].as_str().map(str::to_owned);
        let jwk = match &account {
            None => head["jwk"].clone(),
            Some(url) => match self.records().accounts.get(url) {
                Some(account) => account.jwk.clone(),
                None => Value::Null,
            },
        };
        if jwk.is_null() {
            return Err(Box::new(self.problem(
                StatusCode::BAD_REQUEST,
                "accountDoesNotExist",
                "no such account",
            )));
        }
        let coordinate = |name: &str| decode(jwk[name].as_str().unwrap_or_default());
        let point = [&[4][..], &coordinate("x")?, &coordinate("y")?].concat();
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
        let text = format!("{protected}.{payload}");
        if key.verify(text.as_bytes(), &decode(&signature)?).is_err() {
            return Err(offence("the signature"));
        }
        // Last, since a nonce of a request without a signature may be anyone's.
        let nonce = head["nonce"].as_str().unwrap_or_default();
        let is_refused = {
            let mut records = self.records();
            let is_known = records.nonces.remove(nonce);
            let is_refused = !is_known || records.nonces_to_refuse > 0;
            records.nonces_to_refuse = records.nonces_to_refuse.saturating_sub(1);
            is_refused
        };
        if is_refused {
            return Err(Box::new(self.problem(
                StatusCode::BAD_REQUEST,
                "badNonce",
                "the nonce is not valid",
            )));
        }
        let payload = match &*decode(&payload)? {
            [] => None,
            text => Some(serde_json::from_slice(text).map_err(|_| offence("the payload is no JSON"))?),
        };
        Ok(Signed { account, jwk, payload })
    }

    async fn serve(self: &Arc<Self>, path: &[&str], signed: Signed, misdeed: Option<Misdeed>) -> Response {
        let Signed { account, jwk, payload } = signed;
        let index = |text: &str| text.parse::<usize>().unwrap();
        match (path, account, payload) {
            (["new-account"], None, Some(payload)) => self.new_account(jwk, &payload),
            (["accounts", _], Some(url), Some(payload)) => {
                let mut records = self.records();
                records.accounts.get_mut(&url).unwrap().contact = payload["contact"].clone();
                drop(records);
                self.answer(StatusCode::OK, None, &json!({"status": "valid"}))
            }
            (["new-order"], Some(_), Some(payload)) => self.new_order(&payload, misdeed),
            (["orders", order], Some(_), None) => self.order(index(order), StatusCode::OK, misdeed),
            (["orders", order, "authorizations", number], Some(_), None) => {
                let body = self.authorization(index(order), index(number), misdeed);
                self.answer(StatusCode::OK, None, &body)
            }
            (["orders", order, "challenges", number], Some(account), Some(payload)) => {
                assert_eq!(payload, json!({}));
                let (order, number) = (index(order), index(number));
                let body = self.authorization(order, number, misdeed)["challenges"][1].clone();
                let shared = self.clone();
                let thumbprint = thumbprint(&self.records().accounts[&account].jwk);
                let validation = async move { shared.validate(order, number, &thumbprint, misdeed).await };
                self.validations.spawn(validation);
                self.answer(StatusCode::OK, None, &body)
            }
            (["orders", order, "finalize"], Some(_), Some(payload)) => {
                let csr = BASE64_URL_SAFE_NO_PAD.decode(payload["csr"].as_str().unwrap()).unwrap();
                self.finalize(index(order), &csr, misdeed)
            }
            (["orders", order, "certificate"], Some(_), None) => {
                let chain = self.records().orders[index(order)].chain.clone().unwrap();
                let mut response = self.answer(StatusCode::OK, None, &Value::Null);
                *response.body_mut() = chain.into();
                response
            }
            (path, ..) => {
                self.records().offences.push(format!("a request for {path:?}"));
                self.problem(StatusCode::NOT_FOUND, "malformed", "no such resource")
            }
        }
    }

    fn new_account(&self, jwk: Value, payload: &Value) -> Response {
        if payload["termsOfServiceAgreed"] != true {
            self.records().offences.push("the terms of service are not agreed to".to_owned());
        }
        let url = {
            let mut records = self.records();
            records.last_id += 1;
            let url = self.url(format_args!("accounts/{}", records.last_id));
            records.accounts.insert(url.clone(), Account { jwk, contact: payload["contact"].clone() });
            url
        };
        self.answer(StatusCode::CREATED, Some(url), &json!({"status": "valid"}))
    }

    fn new_order(&self, payload: &Value, misdeed: Option<Misdeed>) -> Response {
        if misdeed == Some(Misdeed::RateLimit) {
            let mut response = self.problem(
                StatusCode::TOO_MANY_REQUESTS,
                "rateLimited",
                "too many certificates already issued",
            );
            response.headers_mut().insert("retry-after", "18446744073709551615".parse().unwrap());
            return response;
        }
        let identifiers = payload["identifiers"].as_array().unwrap();
        let names: Vec<_> = identifiers
            .iter()
            .map(|identifier| {
                assert_eq!(identifier["type"], "dns");
                identifier["value"].as_str().unwrap().to_owned()
            })
            .collect();
        let number = {
            let mut records = self.records();
            let number = records.orders.len();
            let authorizations = names.iter().enumerate().map(|(index, name)| Authorization {
                name: name.clone(),
                token: BASE64_URL_SAFE_NO_PAD.encode(format!("token {index} of order {number}")),
                status: "pending",
                problem: None,
            });
            let authorizations = authorizations.collect();
            records.orders.push(Order { names, authorizations, chain: None });
            number
        };
        self.order(number, StatusCode::CREATED, misdeed)
    }

    fn order(&self, number: usize, status: StatusCode, misdeed: Option<Misdeed>) -> Response {
        let order = self.records().orders[number].clone();
        let all = |status| order.authorizations.iter().all(|authorization| authorization.status == status);
        let state = match &order.chain {
            _ if order.authorizations.iter().any(|authorization| authorization.status == "invalid") => {
                "invalid"
            }
            _ if misdeed == Some(Misdeed::Forever) => "pending",
            Some(_) => "valid",
            None if all("valid") => "ready",
            None => "pending",
        };
        let path = format!("orders/{number}");
        let mut body = json!({
            "status": state,
            "identifiers": order.names.iter().map(|name| json!({"type": "dns", "value": name})).collect::<Vec<_>>(),
            "authorizations": (0..order.authorizations.len())
                .map(|index| self.url(format_args!("{path}/authorizations/{index}")))
                .collect::<Vec<_>>(),
            "finalize": self.url(format_args!("{path}/finalize")),
        });
        if order.chain.is_some() {
            body["certificate"] = self.url(format_args!("{path}/certificate")).into();
        }
        let mut response = self.answer(status, Some(self.url(&path)), &body);
        if misdeed == Some(Misdeed::Forever) {
            response.headers_mut().insert("retry-after", "18446744073709551615".parse().unwrap());
        }
        response
    }

    fn authorization(&self, order: usize, number: usize, misdeed: Option<Misdeed>) -> Value {
        let authorization = self.records().orders[order].authorizations[number].clone();
        let Authorization { name, token, status, problem } = authorization;
        let url = self.url(format_args!("orders/{order}/challenges/{number}"));
        let mut kinds = vec!["http-01", "tls-alpn-01", "dns-01"];
        if misdeed == Some(Misdeed::NoTlsAlpn) {
            kinds.remove(1);
        }
        let challenges = kinds.into_iter().map(|kind| {
            let error = problem.as_ref().filter(|_| kind == "tls-alpn-01");
            json!({"type": kind, "url": url, "token": token, "status": status, "error": error})
        });
        let name = if misdeed == Some(Misdeed::OtherName) { "other.example".to_owned() } else { name };
        json!({
            "status": status,
            "identifier": {"type": "dns", "value": name},
            "challenges": challenges.collect::<Vec<_>>(),
        })
    }

    /// Validates a name over TLS-ALPN.
    async fn validate(&self, order: usize, number: usize, thumbprint: &str, misdeed: Option<Misdeed>) {
        let Authorization { name, token, .. } = self.records().orders[order].authorizations[number].clone();
        let target = self.target.subscribe().wait_for(Option::is_some).await.unwrap().unwrap();
        let wanted = digest(&SHA256, format!("{token}.{thumbprint}").as_bytes());
        let result = match misdeed {
            Some(Misdeed::RefuseValidation) => {
                Err(format!("192.0.2.7: Timeout during connect of {name}\n\u{1b}[31m"))
            }
            _ => validate(target, &name, wanted.as_ref()).await,
        };
        let mut records = self.records();
        let authorization = &mut records.orders[order].authorizations[number];
        authorization.status = if result.is_ok() { "valid" } else { "invalid" };
        authorization.problem = result
            .err()
            .map(|detail| json!({"type": "urn:ietf:params:acme:error:connection", "detail": detail, "status": 400}));
    }

    #[expect(clippy::disallowed_methods, reason = "certificates are for the real time")]
    fn finalize(&self, number: usize, csr: &[u8], misdeed: Option<Misdeed>) -> Response {
        let names = self.records().orders[number].names.clone();
        let key = checked_key(csr, &names);
        let key = if misdeed == Some(Misdeed::OtherKey) {
            Point(KeyPair::generate().unwrap().der_bytes().to_vec())
        } else {
            key
        };
        let names =
            if misdeed == Some(Misdeed::OtherCertificate) { vec!["other.example".to_owned()] } else { names };
        let mut params = CertificateParams::new(names).unwrap();
        let hour = Duration::from_secs(60 * 60);
        let (mut before, mut after) = self.records().validity.unwrap_or((hour, hour * 24 * 90));
        if misdeed == Some(Misdeed::Expired) {
            (before, after) = (hour * 2, Duration::ZERO);
        }
        let now = SystemTime::now();
        params.not_before = (now - before).into();
        params.not_after = (now + after).into();
        let between = &self.authority.between;
        let mut chain = params.signed_by(&key, between).unwrap().pem() + &between.pem();
        if misdeed == Some(Misdeed::NoPem) {
            chain = "-----BEGIN CERTIFICATE-----\nnonsense".to_owned();
        }
        self.records().orders[number].chain = Some(chain);
        self.order(number, StatusCode::OK, misdeed)
    }
}

/// The thumbprint of a key (RFC 7638).
fn thumbprint(jwk: &Value) -> String {
    let text = format!(r#"{{"crv":{},"kty":{},"x":{},"y":{}}}"#, jwk["crv"], jwk["kty"], jwk["x"], jwk["y"]);
    BASE64_URL_SAFE_NO_PAD.encode(digest(&SHA256, text.as_bytes()))
}

/// Connects as an authority does, and checks the certificate.
async fn validate(target: SocketAddr, name: &str, wanted: &[u8]) -> Result<(), String> {
    let builder = ClientConfig::builder_with_provider(provider::default_provider().into());
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).unwrap();
    let verifier = Arc::new(AnyCertificate);
    let mut config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    config.alpn_protocols = vec![b"acme-tls/1".to_vec()];
    let stream = TcpStream::connect(target).await.map_err(|error| error.to_string())?;
    let server = ServerName::try_from(name.to_owned()).unwrap();
    let connecting = TlsConnector::from(Arc::new(config)).connect(server, stream);
    let stream = connecting.await.map_err(|error| error.to_string())?;
    let connection = stream.get_ref().1;
    if connection.alpn_protocol() != Some(b"acme-tls/1") {
        return Err("another protocol was chosen".to_owned());
    }
    let certificate = connection.peer_certificates().unwrap()[0].clone();
    let (_, certificate) = X509Certificate::from_der(&certificate).map_err(|error| error.to_string())?;
    let named =
        certificate.subject_alternative_name().unwrap().map(|names| names.value.general_names.clone());
    if named.as_deref() != Some(&[GeneralName::DNSName(name)]) {
        return Err(format!("the certificate is for {named:?}"));
    }
    let mut extensions = certificate.extensions().iter();
    let proof = extensions.find(|extension| extension.oid.to_id_string() == ACME_IDENTIFIER);
    let proof = proof.ok_or("the extension is missing")?;
    if !proof.critical || proof.value != [&[4, 32], wanted].concat() {
        return Err("the extension is not critical, or has another digest".to_owned());
    }
    Ok(())
}

/// The key of a request whose signature is right and which names exactly these hosts.
fn checked_key(csr: &[u8], names: &[String]) -> Point {
    let (rest, request) = X509CertificationRequest::from_der(csr).unwrap();
    assert!(rest.is_empty());
    let info = &request.certification_request_info;
    let point = info.subject_pki.subject_public_key.data.to_vec();
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &point);
    key.verify(info.raw, &request.signature_value.data).expect("the request's signature");
    let mut named = Vec::new();
    for extension in request.requested_extensions().unwrap() {
        if let ParsedExtension::SubjectAlternativeName(found) = extension {
            named.extend(found.general_names.iter().map(|name| match name {
                GeneralName::DNSName(name) => (*name).to_owned(),
                other => panic!("a name of another kind: {other}"),
            }));
        }
    }
    assert_eq!(named, names);
    Point(point)
}

/// A public key, as a point of P-256.
struct Point(Vec<u8>);

impl PublicKeyData for Point {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

/// Accepts any certificate whose key the server has: a validation looks at the certificate itself.
#[derive(Debug)]
struct AnyCertificate;

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        unreachable!("TLS 1.3 is the only version offered")
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        // The library's own check does not know the critical extension.
        let (_, certificate) = X509Certificate::from_der(certificate).unwrap();
        let key = UnparsedPublicKey::new(
            &ECDSA_P256_SHA256_ASN1,
            &certificate.public_key().subject_public_key.data,
        );
        match key.verify(message, signature.signature()) {
            Ok(()) => Ok(HandshakeSignatureValid::assertion()),
            Err(_) => Err(rustls::CertificateError::BadSignature.into()),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}
