//! Logins with the accounts of an OpenID Connect issuer, through the real server.

use std::time::Duration;

use axum::http::Method;
use satsuma::config::{
    AccessLevel, AuthConfig, Config, KeySource, OidcConfig, OidcGrant, OidcGroup, OidcSetting,
};
use serde_json::{Value, json};
use url::{Url, form_urlencoded};

use crate::browser::Browser;
use crate::client::Ask;
use crate::harness::{Answer, Person, TestServer, answer};
use crate::oidc_issuer::{CLIENT, Issuer, Mischief, SECRET, payload};
use crate::page::{join, until_on_stage};

fn login(issuer: &Issuer) -> OidcConfig {
    OidcConfig {
        issuer: issuer.url.parse().unwrap(),
        client_id: CLIENT.into(),
        client_secret: Some(KeySource::Text(SECRET.into())),
        scopes: "openid profile".into(),
        groups_claim: "groups".into(),
        groups: Vec::new(),
        session: Duration::from_secs(3600),
    }
}

fn configure(config: &mut Config, login: OidcConfig) {
    let oidc = OidcSetting(Some(login));
    config.auth = AuthConfig { oidc, rooms: AccessLevel::Token, ..AuthConfig::default() };
    config.http.public_url.0 = Some("http://meet.example".parse().unwrap());
}

async fn server(issuer: &Issuer) -> TestServer {
    TestServer::with(|config| configure(config, login(issuer))).await
}

/// A login that a browser has begun.
#[derive(Clone)]
struct Begun {
    /// The issuer's address with the request.
    location: Url,
    /// The cookie of the browser.
    cookie: String,
}

impl Begun {
    fn parameter(&self, name: &str) -> String {
        let found = self.location.query_pairs().find(|(known, _)| known == name);
        found.unwrap_or_else(|| panic!("{name}: {}", self.location)).1.into_owned()
    }
}

fn with_query(path: &str, query: &[(&str, &str)]) -> String {
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
    format!("{path}?{query}")
}

async fn begin(server: &TestServer, return_url: &str) -> Begun {
    let begun = answer(server.get(&with_query("/api/login", &[("return-url", return_url)]))).await;
    assert_eq!((begun.status, begun.header("cache-control")), (302, "no-store"), "{begun:?}");
    let cookie = begun.header("set-cookie");
    for attribute in ["HttpOnly", "SameSite=Lax", "Path=/api/login", "Max-Age=600"] {
        assert!(cookie.contains(attribute), "{attribute}: {cookie}");
    }
    let cookie = cookie.split(';').next().unwrap().to_owned();
    Begun { location: begun.header("location").parse().unwrap(), cookie }
}

/// The issuer sends the browser back with these parameters.
async fn come_back(server: &TestServer, cookie: &str, query: &[(&str, &str)]) -> Answer {
    let request = server.get(&with_query("/api/login/callback", query)).header("cookie", cookie);
    let came = answer(request).await;
    let cookies: Vec<_> = came.headers.get_all("set-cookie").iter().collect();
    let ends = |value: &&axum::http::HeaderValue| value.to_str().unwrap().starts_with("satsuma_login=;");
    assert!(cookies.iter().any(ends), "the login is over: {came:?}");
    came
}

/// The cookie with the token, if the answer has one.
fn token_cookie(came: &Answer) -> Option<String> {
    let cookies = came.headers.get_all("set-cookie").iter().map(|value| value.to_str().unwrap());
    let pair = cookies.map(|cookie| cookie.split(';').next().unwrap());
    pair.into_iter().find(|pair| pair.starts_with("satsuma_token=")).map(str::to_owned)
}

/// A whole login of an account with these claims.
async fn sign_in(server: &TestServer, issuer: &Issuer, claims: Value) -> Answer {
    let begun = begin(server, "/standup").await;
    let code = issuer.code(&begun.location, claims);
    come_back(server, &begun.cookie, &[("code", &code), ("state", &begun.parameter("state"))]).await
}

#[tokio::test]
async fn account_opens_rooms_under_its_name() {
    let issuer = Issuer::start().await;
    let server = server(&issuer).await;
    for mischief in [Mischief::None, Mischief::Rsa] {
        issuer.is_up_to(mischief);
        let begun = begin(&server, "/standup?x=1").await;
        for (name, value) in [
            ("response_type", "code"),
            ("client_id", CLIENT),
            ("redirect_uri", "http://meet.example/api/login/callback"),
            ("scope", "openid profile"),
            ("code_challenge_method", "S256"),
        ] {
            assert_eq!(begun.parameter(name), value);
        }
        let code = issuer.code(&begun.location, json!({"sub": "ada", "name": "Ada"}));
        let query = [("code", &*code), ("state", &begun.parameter("state")), ("iss", &issuer.url)];
        // A cookie that was planted before does not stay.
        let cookies = format!("satsuma_token=planted; {}", begun.cookie);
        let came = come_back(&server, &cookies, &query).await;
        assert_eq!((came.status, came.header("location")), (302, "/standup?x=1"), "{came:?}");
        let cookie = token_cookie(&came).unwrap();
        let user = answer(server.get("/api/user").header("cookie", &cookie)).await;
        assert_eq!(user.json(), json!({"username": "Ada", "signOut": true}));
        let person = Person::with_cookie(cookie.clone());
        let mut member = Ask::room("standup").by(&person).pk("a").open(&server).await;
        member.until_users(&["a"]).await;
        // It is a token as any: revocation signs out.
        let revoked =
            server.admin_post("/admin/tokens/revoke", &json!({"identity": "ada", "key": "login"})).await;
        assert_eq!(revoked.status, 200, "{revoked:?}");
        assert_eq!(member.closed().await.0, 4401);
        assert_eq!(answer(server.get("/api/user").header("cookie", &cookie)).await.status, 401);
    }
    let log = crate::harness::logged();
    for secret in [SECRET, &*issuer.last_code(), &issuer.last_token()] {
        assert!(!log.contains(secret), "a secret is logged");
    }
}

#[tokio::test]
async fn login_of_another_browser_or_an_ended_one_is_refused() {
    let issuer = Issuer::start().await;
    let server = server(&issuer).await;
    let claims = || json!({"sub": "eve"});
    let (mine, other) = (begin(&server, "/").await, begin(&server, "/").await);
    let code = issuer.code(&mine.location, claims());
    let state = mine.parameter("state");
    // An attacker's link in a victim's browser, which began no login or another one.
    for (cookie, state) in [
        ("", &*state),
        (&*other.cookie, &state),
        (&mine.cookie, &other.parameter("state")),
        (&mine.cookie, ""),
        ("satsuma_login=x.y.z", &state),
        (&mine.cookie[..mine.cookie.len() - 2], &state),
    ] {
        let refused = come_back(&server, cookie, &[("code", &code), ("state", state)]).await;
        assert_eq!((refused.status, token_cookie(&refused)), (400, None), "{cookie} {state}");
        assert!(refused.text.contains("not begun in this browser"), "{refused:?}");
    }
    assert_eq!(issuer.exchanges(), 0, "the issuer was not bothered");
    let query = [("code", &*code), ("state", &state)];
    assert!(token_cookie(&come_back(&server, &mine.cookie, &query).await).is_some());
    let again = come_back(&server, &mine.cookie, &query).await;
    assert_eq!((again.status, token_cookie(&again)), (400, None), "the same answer twice");
    // The code in a login of somebody else: the issuer knows that it is used, and whose it was.
    for code in [code, issuer.code(&other.location, claims())] {
        let third = begin(&server, "/").await;
        let state = third.parameter("state");
        let refused = come_back(&server, &third.cookie, &[("code", &code), ("state", &state)]).await;
        assert_eq!((refused.status, token_cookie(&refused)), (502, None), "{refused:?}");
    }
}

#[tokio::test]
async fn forged_id_tokens_are_refused() {
    let issuer = Issuer::start().await;
    let server = server(&issuer).await;
    for mischief in [
        Mischief::OtherNonce,
        Mischief::NoNonce,
        Mischief::OtherIssuer,
        Mischief::OtherAudience,
        Mischief::OtherParty,
        Mischief::AlgNone,
        Mischief::AlgOfSecret,
        Mischief::OtherKey,
        Mischief::Expired,
        Mischief::NoToken,
        Mischief::HugeAnswer,
        Mischief::Failing,
    ] {
        issuer.is_up_to(mischief);
        let refused = sign_in(&server, &issuer, json!({"sub": "eve", "name": "Eve"})).await;
        assert_eq!((refused.status, token_cookie(&refused)), (502, None), "{mischief:?}: {refused:?}");
    }
    issuer.is_up_to(Mischief::None);
    let long = sign_in(&server, &issuer, json!({"sub": "x".repeat(129)})).await;
    assert_eq!((long.status, token_cookie(&long)), (502, None));
    for (query, status) in [(("error", "access_denied"), 403), (("iss", "https://other.example"), 403)] {
        let begun = begin(&server, "/").await;
        let code = issuer.code(&begun.location, json!({"sub": "eve"}));
        let state = begun.parameter("state");
        let mut all = vec![("state", &*state), query];
        if query.0 == "iss" {
            all.push(("code", &code));
        }
        let refused = come_back(&server, &begun.cookie, &all).await;
        assert_eq!((refused.status, token_cookie(&refused)), (status, None), "{query:?}");
        assert!(!refused.text.contains("access_denied"), "nothing of the address is shown");
    }
    assert!(token_cookie(&sign_in(&server, &issuer, json!({"sub": "ada"})).await).is_some());
}

#[tokio::test]
async fn groups_have_their_grants() {
    let issuer = Issuer::start().await;
    issuer.is_up_to(Mischief::SecretInBody);
    let group =
        |group: &str, grants: &[OidcGrant]| OidcGroup { group: group.into(), grants: grants.to_vec() };
    let groups = vec![group("staff", &[OidcGrant::Create]), group("hosts", &[OidcGrant::Moderate])];
    let login = OidcConfig { groups, groups_claim: "realm.roles".into(), ..login(&issuer) };
    let server = TestServer::with(|config| configure(config, login)).await;
    let of = async |roles: Value| {
        let came = sign_in(&server, &issuer, json!({"sub": "ada", "realm": {"roles": roles}})).await;
        token_cookie(&came).map(|cookie| payload(&cookie)["grants"].clone()).ok_or(came.status)
    };
    let host = of(json!(["staff", "hosts"])).await.unwrap();
    assert_eq!(
        (&host["create"], &host["moderate"], &host["admin"]),
        (&json!(true), &json!(true), &json!(false))
    );
    let staff = of(json!("staff")).await.unwrap();
    assert_eq!((&staff["create"], &staff["moderate"]), (&json!(true), &json!(false)));
    assert_eq!(of(json!(["guests"])).await, Err(403));
    assert_eq!(of(Value::Null).await, Err(403));
}

#[tokio::test]
async fn login_leads_back_to_this_server_alone() {
    let issuer = Issuer::start().await;
    let server = server(&issuer).await;
    for (return_url, back) in [
        ("http://meet.example/a?b#c", "/a?b#c"),
        ("https://evil.example/", "/"),
        ("//evil.example", "/"),
        ("/\\evil.example", "/"),
        ("javascript:alert(1)", "/"),
        (&format!("/{}", "a".repeat(2000)), "/"),
    ] {
        let begun = begin(&server, return_url).await;
        let code = issuer.code(&begun.location, json!({"sub": "ada"}));
        let query = [("code", &*code), ("state", &begun.parameter("state"))];
        let came = come_back(&server, &begun.cookie, &query).await;
        assert_eq!(came.header("location"), back, "{return_url}");
    }
}

#[tokio::test]
async fn issuer_that_is_down_or_another_one_lets_nobody_in() {
    let issuer = Issuer::start().await;
    for mischief in
        [Mischief::Down, Mischief::ConfigurationOfOther, Mischief::PlainEndpoint, Mischief::Redirect]
    {
        issuer.is_up_to(mischief);
        let server = server(&issuer).await;
        let asked = issuer.asked();
        for _ in 0..20 {
            let failed = answer(server.get("/api/login")).await;
            assert_eq!((failed.status, failed.headers.get("location")), (502, None), "{mischief:?}");
            assert!(failed.headers.get("set-cookie").is_none(), "{mischief:?}");
        }
        assert!(issuer.asked() <= asked + 2, "it is asked again after a pause, not for everybody who comes");
        assert_eq!(answer(server.get("/healthz")).await.status, 200);
    }
}

#[tokio::test]
async fn pages_offer_to_sign_in_and_out() {
    let issuer = Issuer::start().await;
    let server = server(&issuer).await;
    let page = |path: &str| answer(server.get(path).header("accept", "text/html"));
    let closed = page("/standup").await;
    assert_eq!(closed.status, 401);
    assert!(closed.text.contains("Sign in to use this server."), "{}", closed.text);
    let link = format!("/api/login?return-url={}", "http%3A%2F%2F127.0.0.1%3A");
    assert!(
        closed.text.contains(&link) && closed.text.contains("%2Fstandup\">Sign in</a>"),
        "{}",
        closed.text
    );
    let open = TestServer::with(|config| {
        configure(config, login(&issuer));
        config.auth.rooms = AccessLevel::Anyone;
    })
    .await;
    let names = answer(open.get("/set-username?return-url=%2Fstandup").header("accept", "text/html")).await;
    assert_eq!(names.status, 200);
    assert!(names.header("content-security-policy").contains("default-src"), "{names:?}");
    assert!(names.text.contains("href=\"/api/login?return-url=%2Fstandup\">Sign in</a>"), "{}", names.text);
    assert!(names.text.contains("name=\"username\""), "and a name is still enough");
    let plain = TestServer::start().await;
    let without = answer(plain.get("/set-username").header("accept", "text/html")).await;
    assert!(!without.text.contains("Sign in"), "{}", without.text);
    assert_eq!(answer(plain.get("/api/login")).await.status, 404);

    let cookie = token_cookie(&sign_in(&server, &issuer, json!({"sub": "ada"})).await).unwrap();
    let leave = || server.request(&Method::POST, "/api/logout").header("cookie", &cookie);
    assert_eq!(answer(leave().header("origin", "https://evil.example")).await.status, 403);
    let left = answer(leave().header("origin", "http://meet.example")).await;
    assert_eq!((left.status, left.header("location")), (302, "/"));
    assert!(left.header("set-cookie").starts_with("satsuma_token=;"), "{left:?}");
    assert!(left.header("set-cookie").contains("Max-Age=0"), "{left:?}");
}

#[tokio::test]
#[ignore = "needs chromium"]
async fn browser_signs_in_and_meets() {
    let issuer = Issuer::start().await;
    // The issuer sends the browser back to a port that has to be known before the start.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let server = TestServer::with(|config| {
        configure(config, login(&issuer));
        config.http.listen.set_port(port);
        config.http.public_url.0 = Some(format!("http://127.0.0.1:{port}").parse().unwrap());
    })
    .await;
    let browser = Browser::start().await;
    let tab = browser.visitor().await.open(&format!("{}/standup?x=1", server.http())).await;
    // By the key, since the page's layout still changes while its styles load.
    let link = "document.querySelector('a[href*=\"/api/login\"]')";
    tab.until(link).await;
    tab.eval(&format!("{link}.focus()")).await;
    tab.press("Enter").await;
    // Over the issuer, which is another site, and back.
    tab.until("location.pathname + location.search === '/standup?x=1' && !!document.querySelector('#join')")
        .await;
    join(&tab).await;
    until_on_stage(&tab, &["Ada (you)"]).await;
    assert_eq!(tab.eval("document.cookie").await, json!(""), "scripts see no cookie");
}

#[tokio::test]
async fn logins_of_a_network_are_limited() {
    let issuer = Issuer::start().await;
    let server = TestServer::with(|config| {
        configure(config, login(&issuer));
        config.limits.logins_per_minute_per_network = 3;
    })
    .await;
    for _ in 0..3 {
        begin(&server, "/").await;
    }
    let refused = answer(server.get("/api/login")).await;
    assert_eq!((refused.status, refused.header("retry-after")), (429, "60"), "{refused:?}");
}

/// Whoever follows such a link would be signed in to somebody else's account.
#[tokio::test]
async fn login_is_no_link() {
    let issuer = Issuer::start().await;
    let server = server(&issuer).await;
    let came = sign_in(&server, &issuer, json!({"sub": "eve", "name": "Eve"})).await;
    let cookie = token_cookie(&came).unwrap();
    let token = cookie.strip_prefix("satsuma_token=").unwrap();
    let followed = answer(server.get(&with_query("/standup", &[("token", token)]))).await;
    assert_eq!((followed.status, token_cookie(&followed)), (401, None), "{followed:?}");
}
