//! Certificates ordered by ACME: from an authority that checks everything, and from some that misbehave.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use rustls::pki_types::ServerName;
use satsuma::config::{Config, Optional};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::authority::{AcmeAuthority, Misdeed};
use crate::harness::{PATIENCE, Stopped, TestServer, answer, eventually, logged, metric};
use crate::pebble::{Pebble, free_address};
use crate::process::{BINARY, Process};
use crate::tls::Https;

const OBTAINED: &str = "satsuma_acme_orders_total{reason=\"obtained\"}";
const FAILED: &str = "satsuma_acme_orders_total{reason=\"failed\"}";

/// Sets a server up for an authority, with a name that no other test's log lines have.
fn orders<'a>(authority: &AcmeAuthority, names: &'a [&str]) -> impl FnOnce(&mut Config) + use<'a> {
    let directory = authority.directory().parse().unwrap();
    move |config| {
        config.http.acme_domains = names.iter().map(|name| name.parse().unwrap()).collect();
        config.http.acme_directory = directory;
        config.http.acme_retry = Duration::from_millis(20);
    }
}

/// Starts a server, and lets the authority validate it.
async fn start(stopped: Option<Stopped>, authority: &AcmeAuthority, names: &[&str]) -> TestServer {
    let server = match stopped {
        Some(stopped) => stopped.start_with(orders(authority, names)).await,
        None => TestServer::with(orders(authority, names)).await,
    };
    authority.validate_at(server.addresses().http);
    server
}

fn client(authority: &AcmeAuthority, name: &str) -> Https {
    authority.client().named(ServerName::try_from(name.to_owned()).unwrap())
}

async fn until_obtained(server: &TestServer) {
    server.until_metric(OBTAINED, 1.0).await;
}

#[tokio::test]
async fn first_certificate_is_ordered_and_served() {
    let authority = AcmeAuthority::start().await;
    authority.refuse_nonces(1);
    let names = ["first.example.org", "second.example.org"];
    let server = TestServer::with(orders(&authority, &names)).await;
    authority.until_orders(1).await;
    // The authority has not validated yet.
    assert_eq!(answer(server.admin("/healthz")).await.text, "ok\n");
    assert_eq!(server.metric("satsuma_tls_certificate_expires").await, 0.0);
    let https = client(&authority, names[1]);
    let (page, ()) = tokio::join!(https.ask(&server, "GET /set-username", ""), async {
        server.until_metric("satsuma_tcp_connections", 1.0).await;
        authority.validate_at(server.addresses().http);
    });
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n") && page.contains("<form"), "a page waits: {page}");
    until_obtained(&server).await;
    assert!(server.metric("satsuma_tls_certificate_expires").await > 1e9);
    assert_eq!(authority.ordered(), names);
    assert_eq!(authority.accounts()[0].contact, serde_json::json!([]));
    for name in ["acme.pem", "acme-account.json"] {
        let mode = fs::metadata(server.data_dir().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let mut ada = client(&authority, names[0]).join(&server, "r", "ada").await;
    ada.echo().await;
    assert!(logged().contains("certificateOrdered\" names=\"first.example.org, second.example.org\""));
    assert_eq!(server.metric("satsuma_tls_failures_total{reason=\"no_certificate\"}").await, 0.0);
    authority.assert_no_offence();
}

#[tokio::test]
async fn restart_orders_nothing() {
    let authority = AcmeAuthority::start().await;
    let server = start(None, &authority, &["restart.example.org"]).await;
    until_obtained(&server).await;
    let https = client(&authority, "restart.example.org");
    let first = https.shown(&server).await.unwrap();
    let requests = authority.requests();
    let server = server.restart().await;
    assert_eq!(https.shown(&server).await, Some(first));
    let server = server.restart().await;
    assert!(server.metric("satsuma_tls_certificate_expires").await > 1e9);
    assert_eq!((authority.requests(), server.metric(OBTAINED).await), (requests, 0.0));
}

#[tokio::test]
async fn changed_names_email_or_authority_are_followed() {
    let (authority, other) = (AcmeAuthority::start().await, AcmeAuthority::start().await);
    let server = start(None, &authority, &["change.example.org"]).await;
    until_obtained(&server).await;
    let stopped = server.stop().await;
    let names = ["change.example.org", "more.example.org"];
    let server = stopped
        .start_with(|config| {
            orders(&authority, &names)(config);
            config.http.acme_email = Optional(Some("ada@example.org".to_owned()));
        })
        .await;
    authority.validate_at(server.addresses().http);
    until_obtained(&server).await;
    assert!(client(&authority, names[1]).shown(&server).await.is_some());
    let contacts: Vec<_> = authority.accounts().into_iter().map(|account| account.contact).collect();
    assert_eq!(contacts, [serde_json::json!(["mailto:ada@example.org"])], "the same account");
    authority.assert_no_offence();

    let server = start(Some(server.stop().await), &other, &names).await;
    until_obtained(&server).await;
    assert!(client(&other, names[0]).shown(&server).await.is_some());
    assert_eq!((authority.orders(), other.orders(), other.accounts().len()), (2, 1, 1));
    other.assert_no_offence();
}

#[tokio::test]
async fn due_certificate_is_renewed_while_sockets_stay() {
    let authority = AcmeAuthority::start().await;
    // Due two seconds after it is issued.
    authority.issue_for(Duration::from_secs(1000), Duration::from_secs(503));
    let server = start(None, &authority, &["due.example.org"]).await;
    let https = client(&authority, "due.example.org");
    let mut ada = https.join(&server, "r", "ada").await;
    let first = https.shown(&server).await;
    assert!(first.is_some());
    // The next one is due long after this test.
    authority.issue_for(Duration::ZERO, Duration::from_secs(9999));
    server.until_metric(OBTAINED, 2.0).await;
    let second = https.shown(&server).await;
    assert!(second.is_some() && second != first);
    ada.echo().await;
    assert_eq!((authority.orders(), authority.accounts().len()), (2, 1));
    assert_eq!(server.metric("satsuma_tls_reloads_total{reason=\"used\"}").await, 2.0);
    authority.assert_no_offence();
}

/// A certificate that is due at a start is used until the new one is there.
#[tokio::test]
async fn failed_renewal_leaves_the_old_certificate() {
    let authority = AcmeAuthority::start().await;
    // Due two seconds after it is issued.
    authority.issue_for(Duration::from_secs(1000), Duration::from_secs(503));
    let server = start(None, &authority, &["old.example.org"]).await;
    until_obtained(&server).await;
    let https = client(&authority, "old.example.org");
    let first = https.shown(&server).await;
    let stopped = server.stop().await;
    authority.misbehave(Some(Misdeed::RefuseValidation));
    let server = start(Some(stopped), &authority, &["old.example.org"]).await;
    eventually("renewals fail".to_owned(), async || server.metric(FAILED).await >= 2.0).await;
    assert!(first.is_some());
    assert_eq!(https.shown(&server).await, first);
    let place = server.data_dir().join("acme.pem");
    assert!(logged().contains(&format!("{}: the certificate expires soon, at", place.display())));
    authority.issue_for(Duration::ZERO, Duration::from_secs(9999));
    authority.misbehave(None);
    until_obtained(&server).await;
    assert_ne!(https.shown(&server).await, first);
    authority.assert_no_offence();
}

#[tokio::test]
async fn refused_validation_is_logged_and_retried() {
    let authority = AcmeAuthority::start().await;
    authority.misbehave(Some(Misdeed::RefuseValidation));
    let server = start(None, &authority, &["refused.example.org"]).await;
    eventually("orders fail".to_owned(), async || server.metric(FAILED).await >= 3.0).await;
    let log = logged();
    let mut lines = log.lines().filter(|line| line.contains("certificateNotObtained"));
    let line = lines.find(|line| line.contains("refused.example.org")).unwrap();
    let cause = "refused.example.org could not be validated: 192.0.2.7: Timeout during connect of \
                 refused.example.org  [31m (connection)";
    assert!(line.contains(cause) && line.contains("port 443"), "{line}");
    assert_eq!(answer(server.admin("/readyz")).await.status, 200);
    authority.misbehave(None);
    until_obtained(&server).await;
    assert!(client(&authority, "refused.example.org").shown(&server).await.is_some());
    assert_eq!(authority.accounts().len(), 1, "failures make no accounts");
    authority.assert_no_offence();
}

#[tokio::test]
async fn misbehaving_authority_only_costs_time() {
    let authority = AcmeAuthority::start().await;
    authority.misbehave(Some(Misdeed::Hang));
    let mut server = start(None, &authority, &["misdeed.example.org"]).await;
    for (misdeed, cause) in [
        (Misdeed::Page, "failed to (de)serialize JSON"),
        (Misdeed::Redirect, "answered 302 Found"),
        (Misdeed::OtherJson, "failed to (de)serialize JSON"),
        (Misdeed::Endless, "answered with more than 262144 bytes"),
        (Misdeed::PlainHttp, "names http://192.0.2.1/nonce, which is not an https URL"),
        (Misdeed::OtherName, "asks to validate other.example, which was not ordered"),
        (Misdeed::NoTlsAlpn, "offers no tls-alpn-01 challenge for misdeed.example.org"),
        (Misdeed::OtherCertificate, "cannot be used: it is not for misdeed.example.org"),
        (Misdeed::OtherKey, "cannot be used: does not fit the certificate"),
        (Misdeed::Expired, "cannot be used: it ends too soon, at "),
        (Misdeed::NoPem, "cannot be used: holds PEM that is cut off or malformed"),
        (Misdeed::Forever, "timed out waiting for an order update"),
    ] {
        authority.misbehave(Some(misdeed));
        server = server.restart().await;
        authority.validate_at(server.addresses().http);
        let is_logged = async || {
            let log = logged();
            let mut lines = log.lines().filter(|line| line.contains("certificateNotObtained"));
            lines.any(|line| line.contains("misdeed.example.org") && line.contains(cause))
        };
        eventually(format!("{misdeed:?} is logged"), is_logged).await;
    }
    assert_eq!(answer(server.admin("/healthz")).await.text, "ok\n");
    authority.forget_accounts();
    authority.misbehave(None);
    let server = server.restart().await;
    authority.validate_at(server.addresses().http);
    until_obtained(&server).await;
    assert!(client(&authority, "misdeed.example.org").shown(&server).await.is_some());
    authority.assert_no_offence();
}

#[tokio::test]
async fn requested_pause_is_respected_up_to_a_day() {
    let authority = AcmeAuthority::start().await;
    authority.misbehave(Some(Misdeed::RateLimit));
    let server = start(None, &authority, &["limit.example.org"]).await;
    server.until_metric(FAILED, 1.0).await;
    let log = logged();
    let line =
        log.lines().rfind(|line| line.contains("Obtained") && line.contains("limit.example.org")).unwrap();
    assert!(line.contains("too many certificates") && line.contains("next_try_seconds=86400"), "{line}");
}

#[tokio::test]
async fn hanging_authority_holds_nothing_up() {
    let authority = AcmeAuthority::start().await;
    authority.misbehave(Some(Misdeed::Hang));
    let server = TestServer::with(|config| {
        orders(&authority, &["hang.example.org"])(config);
        config.limits.handshake = Duration::from_millis(300);
    })
    .await;
    eventually("the directory is requested".to_owned(), async || authority.requests() == 1).await;
    assert_eq!(answer(server.admin("/healthz")).await.text, "ok\n");
    assert!(client(&authority, "hang.example.org").shown(&server).await.is_none());
    server.until_metric("satsuma_tls_failures_total{reason=\"no_certificate\"}", 1.0).await;
    // Silent before TLS begins.
    let mut silent = TcpStream::connect(server.addresses().http).await.unwrap();
    let _ = timeout(PATIENCE, silent.read(&mut [0])).await.expect("an end");
    server.stop().await;
}

#[tokio::test]
async fn validation_is_answered_only_during_an_order() {
    let authority = AcmeAuthority::start().await;
    let server = start(None, &authority, &["idle.example.org"]).await;
    until_obtained(&server).await;
    let mut https = client(&authority, "idle.example.org");
    https.speak(&[b"acme-tls/1"]);
    assert!(https.shown(&server).await.is_none());
    server.until_metric("satsuma_tls_failures_total{reason=\"nothing_in_common\"}", 1.0).await;
    // A client that offers it besides HTTP is an ordinary one.
    https.speak(&[b"acme-tls/1", b"http/1.1"]);
    assert!(https.ask(&server, "GET /healthz", "").await.starts_with("HTTP/1.1 200 OK\r\n"));
}

#[tokio::test]
async fn unusable_files_are_named_at_the_start() {
    let authority = AcmeAuthority::start().await;
    let stopped = TestServer::start().await.stop().await;
    for (name, text, cause) in [
        ("acme.pem", "mine", "holds no certificate in PEM form"),
        ("acme-account.json", "{}", "it holds no ACME account; remove it"),
        ("acme-account.json", r#"{"directory":"d","credentials":{"id":1}}"#, "it holds no ACME account"),
    ] {
        let path = stopped.data_dir().join(name);
        fs::write(&path, text).unwrap();
        let error = stopped.fail_with(orders(&authority, &["files.example.org"])).await.to_string();
        let origin = format!("{}: http.acme_domains: ", path.display());
        assert!(error.starts_with(&origin) && error.contains(cause), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), text, "it is left alone");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        let error = stopped.fail_with(orders(&authority, &["files.example.org"])).await.to_string();
        assert!(error.contains("cannot read") && error.contains(name), "{error}");
        fs::remove_dir(&path).unwrap();
    }
    assert_eq!(authority.requests(), 0);
}

#[tokio::test]
async fn unwritable_account_prevents_the_order() {
    let authority = AcmeAuthority::start().await;
    let stopped = TestServer::start().await.stop().await;
    // A folder in the place of the temporary file.
    let obstacle = stopped.data_dir().join("acme-account.json.new");
    fs::create_dir(&obstacle).unwrap();
    let server = start(Some(stopped), &authority, &["disk.example.org"]).await;
    eventually("attempts fail".to_owned(), async || server.metric(FAILED).await >= 2.0).await;
    assert!(logged().contains("error=\"cannot create"));
    assert_eq!((authority.orders(), authority.accounts().len()), (0, 1));
    fs::remove_dir(&obstacle).unwrap();
    until_obtained(&server).await;
}

/// A certificate that cannot be written is used, and written later.
#[tokio::test]
async fn unwritable_certificate_is_used_and_saved_later() {
    let authority = AcmeAuthority::start().await;
    let stopped = TestServer::start().await.stop().await;
    let obstacle = stopped.data_dir().join("acme.pem.new");
    fs::create_dir(&obstacle).unwrap();
    let server = start(Some(stopped), &authority, &["later.example.org"]).await;
    until_obtained(&server).await;
    eventually("the warning is logged".to_owned(), async || logged().contains("certificateNotSaved")).await;
    assert!(client(&authority, "later.example.org").shown(&server).await.is_some());
    assert!(!server.data_dir().join("acme.pem").exists());
    fs::remove_dir(&obstacle).unwrap();
    let path = server.data_dir().join("acme.pem");
    eventually("the certificate is saved".to_owned(), async || path.exists()).await;
    assert_eq!(authority.orders(), 1);
}

#[tokio::test]
async fn check_config_orders_nothing() {
    let authority = AcmeAuthority::start().await;
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(BINARY);
    command
        .arg("check-config")
        .current_dir(folder.path())
        .env("SATSUMA_HTTP__ACME_DOMAINS", "check.example.org")
        .env("SATSUMA_HTTP__ACME_DIRECTORY", authority.directory());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let warnings = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{warnings}");
    assert!(warnings.contains("http.listen: 127.0.0.1:8787 cannot be reached from outside"), "{warnings}");
    assert_eq!((authority.requests(), fs::read_dir(folder.path()).unwrap().count()), (0, 0));
}

/// Let's Encrypt's own authority for tests.
#[tokio::test]
#[ignore = "needs pebble"]
async fn pebble_issues_a_certificate() {
    let address = free_address();
    let pebble = Pebble::start(address.port()).await;
    let data = tempfile::tempdir().unwrap();
    let (directory, roots) = (pebble.directory(), pebble.root_file());
    let settings = [
        ("SATSUMA_HTTP__LISTEN", &*address.to_string()),
        ("SATSUMA_HTTP__ACME_DOMAINS", "meet.example.org,www.meet.example.org"),
        ("SATSUMA_HTTP__ACME_EMAIL", "ada@example.org"),
        ("SATSUMA_HTTP__ACME_DIRECTORY", &directory),
        ("SATSUMA_HTTP__ACME_RETRY", "1s"),
        ("SSL_CERT_FILE", roots.to_str().unwrap()),
    ];
    let folder = data.path().join("data");
    let server = Process::start_operated(&folder, &settings).await;
    eventually("a certificate is obtained".to_owned(), async || metric(&server, OBTAINED).await == 1.0).await;
    server.stop().await;
    // A restart uses it, and Pebble has nothing to do.
    let server = Process::start_operated(&folder, &settings).await;
    assert!(metric(&server, "satsuma_tls_certificate_expires").await > 1e9);
    assert_eq!(metric(&server, OBTAINED).await, 0.0);
    let issuer = pebble.issuer().await;
    for name in ["meet.example.org", "www.meet.example.org"] {
        let https = Https::trusting(issuer.clone()).named(ServerName::try_from(name).unwrap());
        let page = https.ask(&server, "GET /set-username", "").await;
        assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
    }
    server.stop().await;
}
