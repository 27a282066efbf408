//! Host names of a server: accepted ones, and the effect of `http.public_url`.

use satsuma::config::Optional;

use crate::harness::{Answer, TestServer, answer};

const FORM: &str = "/set-username";

async fn log_in(server: &TestServer, host: &str) -> Answer {
    let request = server.post_form(FORM, &[("username", "Ada")]);
    answer(request.header("host", host).header("origin", format!("http://{host}"))).await
}

#[tokio::test]
async fn unknown_host_name_is_refused() {
    let server = TestServer::start().await;
    for host in ["10.0.0.7:8787", "localhost:8787", "meetbox:8787"] {
        assert_eq!(log_in(&server, host).await.status, 302, "{host}");
    }
    let host = "rebound.example:8787";
    let refused = log_in(&server, host).await;
    assert_eq!((refused.status, refused.header("set-cookie")), (403, ""));
    assert!(refused.text.contains("http.public_url"), "{refused:?}");
    let page = answer(server.get("/r").header("host", host).header("accept", "text/html")).await;
    assert_eq!((page.status, page.header("content-type")), (403, "text/html; charset=utf-8"));
    assert!(page.text.contains("http.public_url"), "{}", page.text);
    assert_eq!(server.refusals("unknown_host").await, 2.0);
    // Clients other than browsers send no Origin and request no page.
    assert_eq!(answer(server.get(FORM).header("host", host)).await.status, 200);
}

#[tokio::test]
async fn https_public_url_makes_cookies_secure() {
    let server = TestServer::with(|config| {
        config.http.public_url = Optional(Some("https://meet.example".parse().unwrap()));
    })
    .await;
    let named = answer(server.post_form(FORM, &[("username", "Ada")])).await;
    let cookie = named.header("set-cookie").to_owned();
    assert!(cookie.contains("; Secure"), "{named:?}");
    let new = server.request(&axum::http::Method::POST, "/partytracks/sessions/new");
    let opened = answer(new.header("cookie", cookie.split(';').next().unwrap())).await;
    assert!(opened.header("set-cookie").contains("; Secure"), "{opened:?}");
}

#[tokio::test]
async fn admin_listener_answers_known_hosts_only() {
    let server = TestServer::with(|config| {
        config.admin.allowed_hosts = vec!["satsuma.monitoring.svc".to_owned()];
    })
    .await;
    for (host, status) in [
        ("127.0.0.1:8788", 200),
        ("satsuma:8788", 200),
        ("satsuma.monitoring.svc:8788", 200),
        ("rebound.example:8788", 403),
    ] {
        for path in ["/metrics", "/healthz"] {
            let answered = answer(server.admin(path).header("host", host)).await;
            assert_eq!(answered.status, status, "{host}{path}");
            assert!(status == 200 || answered.text.contains("admin.allowed_hosts"), "{answered:?}");
        }
    }
}
