//! Spellings of page addresses, and errors where there is no page: with the stock client's small build
//! and with our own page.

use std::path::Path;

use axum::http::Method;
use reqwest::RequestBuilder;
use satsuma::config::Optional;

use crate::harness::{Answer, Person, TestServer, answer};

const HTML: &str = "text/html,application/xhtml+xml,*/*;q=0.8";

const BOTH: [Shown; 2] = [Shown::Ours, Shown::Stock];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Shown {
    Ours,
    Stock,
}

async fn showing(shown: Shown) -> TestServer {
    TestServer::with(|config| {
        if shown == Shown::Stock {
            let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/client-build");
            config.client.dir = Optional(Some(build));
        }
    })
    .await
}

/// A navigation request as a browser sends it.
async fn visit(request: RequestBuilder, person: &Person) -> Answer {
    answer(request.header("accept", HTML).header("cookie", person.cookie())).await
}

#[tokio::test]
async fn invalid_room_address_gets_an_error_page() {
    let long = "a".repeat(129);
    for shown in BOTH {
        let server = showing(shown).await;
        let ada = Person::log_in(&server, "Ada").await;
        for (room, sentence) in [
            ("%", "The address has an invalid percent-encoding"),
            ("%zz", "The address has an invalid percent-encoding"),
            ("%ff", "The address has an invalid percent-encoding"),
            ("%00", "A room name has 1 to 128 characters and no control or invisible characters."),
            ("a%0Ab", "A room name has 1 to 128 characters and no control or invisible characters."),
            (&long, "A room name has 1 to 128 characters and no control or invisible characters."),
            ("parties", "The name is reserved by the server"),
        ] {
            let page = visit(server.get(&format!("/{room}?x=1")), &ada).await;
            assert_eq!(
                (page.status, page.header("content-type")),
                (400, "text/html; charset=utf-8"),
                "{room}"
            );
            // The one script is the page's own.
            let scripts = page.text.matches("<script").count();
            assert!(page.text.contains(sentence) && scripts <= 1, "{room}: {}", page.text);
            assert_eq!(page.header("cache-control"), "no-store");
            assert!(page.header("content-security-policy").contains("frame-ancestors 'none'"));
            // Without a name, the error comes before the name form.
            let response = answer(server.get(&format!("/{room}"))).await;
            assert_eq!((response.status, response.header("location")), (400, ""), "{room}");
            assert!(
                response.text.to_lowercase().starts_with(&sentence.to_lowercase()[..20]),
                "{}",
                response.text
            );
            if room == "parties" {
                continue;
            }
            assert_eq!(visit(server.get(&format!("/{room}/room")), &ada).await.status, 400, "{room}");
            let data = match shown {
                Shown::Stock => format!("/{room}?_data=routes%2F_room"),
                Shown::Ours => format!("/api/rooms/{room}/settings"),
            };
            let data = answer(server.get(&data)).await;
            let catch = if shown == Shown::Stock { "yes" } else { "" };
            assert_eq!((data.status, data.header("x-remix-catch")), (400, catch), "{room}");
        }
        for room in ["100%25", "a%2Fb", "%F0%9F%8D%8A", &"a".repeat(128)] {
            assert_eq!(visit(server.get(&format!("/{room}")), &ada).await.status, 200, "{room}");
        }
    }
}

#[tokio::test]
async fn room_named_like_a_folder_has_a_page() {
    let server = showing(Shown::Stock).await;
    let ada = Person::log_in(&server, "Ada").await;
    for path in ["/static", "/static/", "/static/room", "/api/room", "/build/room"] {
        let page = visit(server.get(path), &ada).await;
        assert_eq!(page.status, 200, "{path}");
        assert!(page.text.contains(&format!("\"url\":\"{path}\"")), "{path}: {}", page.text);
    }
    let file = visit(server.get("/static/style.css"), &ada).await;
    assert_eq!((file.status, file.header("content-type")), (200, "text/css; charset=utf-8"));
    for path in ["/static/gone.css", "/static/..%2fCargo.toml", "/static/%5c..%5cCargo.toml"] {
        assert_eq!(visit(server.get(path), &ada).await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn new_room_with_reserved_name_is_refused() {
    for shown in BOTH {
        let server = showing(shown).await;
        for room in ["static", "Parties", "partytracks", " new ", "set username", "API", "admin", "healthz"] {
            let refused = answer(server.post_form("/?index", &[("room", room)])).await;
            assert_eq!(refused.status, 400, "{room}");
            assert_eq!(refused.text, "the name is reserved by the server; choose another one\n");
        }
        for (room, location) in [("statics", "/statics"), ("new room", "/new-room"), ("room", "/room")] {
            let sent = answer(server.post_form("/?index", &[("room", room)])).await;
            assert_eq!((sent.status, sent.header("location")), (302, location), "{room}");
        }
        // A file of the small build.
        let sent = answer(server.post_form("/?index", &[("room", "worker.js")])).await;
        assert_eq!(sent.status, if shown == Shown::Stock { 400 } else { 302 });
    }
}

#[tokio::test]
async fn page_spellings_redirect_and_forms_arrive() {
    for shown in BOTH {
        let server = showing(shown).await;
        let ada = Person::log_in(&server, "Ada").await;
        for (path, location) in [
            ("/set-username/?return-url=%2Fr", "/set-username?return-url=%2Fr"),
            ("/Set-Username", "/set-username"),
            ("/new/?x=1", "/new?x=1"),
            ("/NEW", "/new"),
            ("/Call-Quality-Feedback/", "/call-quality-feedback"),
            ("/set-username/?_data=routes%2Fset-username", "/set-username?_data=routes%2Fset-username"),
        ] {
            for method in [Method::GET, Method::POST] {
                let sent = visit(server.request(&method, path), &ada).await;
                // 308: a browser repeats the form there.
                assert_eq!((sent.status, sent.header("location")), (308, location), "{method} {path}");
                assert_eq!(sent.header("cache-control"), "no-store");
            }
        }
    }
}

#[tokio::test]
async fn room_page_spellings_redirect_to_one_address() {
    let server = showing(Shown::Ours).await;
    let ada = Person::log_in(&server, "Ada").await;
    for (path, location) in [
        ("/a/", "/a"),
        ("/a/room", "/a"),
        ("/a/ROOM/?x=1&y", "/a?x=1&y"),
        ("/a%20b%2fc/room", "/a%20b%2Fc"),
        ("/%5Cevil.example/", "/%5Cevil.example"),
        ("/static/room", "/static"),
    ] {
        let sent = visit(server.get(path), &ada).await;
        assert_eq!((sent.status, sent.header("location")), (302, location), "{path}");
        assert_eq!(sent.header("cache-control"), "no-store");
    }
    for path in ["/a/b", "/a/room/b", "/new/room", "//evil.example/", "//evil.example/room", "/a//"] {
        let status = visit(server.get(path), &ada).await.status;
        assert_eq!(status, if path == "/a//" { 302 } else { 404 }, "{path}");
    }
    assert_eq!(visit(server.request(&Method::POST, "/a/room"), &ada).await.status, 404);
}

#[tokio::test]
async fn personal_answers_are_not_cacheable() {
    let server = showing(Shown::Ours).await;
    let ada = Person::log_in(&server, "Ada").await;
    for path in ["/", "/r", "/set-username"] {
        let page = visit(server.get(path), &ada).await;
        assert_eq!((page.status, page.header("cache-control")), (200, "private, no-cache"), "{path}");
        let known = visit(server.get(path).header("if-none-match", page.header("etag")), &ada).await;
        assert_eq!((known.status, known.header("cache-control")), (304, "private, no-cache"), "{path}");
    }
    assert_eq!(answer(server.get("/static/style.css")).await.header("cache-control"), "no-cache");
    for shown in BOTH {
        let server = showing(shown).await;
        for path in ["/", "/r", "/new"] {
            let sent = answer(server.get(path)).await;
            assert_eq!((sent.status, sent.header("cache-control")), (302, "no-store"), "{path}");
        }
        let named = answer(server.post_form("/set-username", &[("username", "Ada")])).await;
        assert_eq!((named.status, named.header("cache-control")), (302, "no-store"));
    }
}

#[tokio::test]
async fn invalid_form_returns_with_the_typed_values() {
    let typed = "\"><script>alert(1)</script>\u{7}";
    let escaped = "value=\"&quot;&gt;&lt;script&gt;alert(1)&lt;/script&gt;\u{7}\"";
    let long = "x".repeat(200);
    let (names, rooms) = ("A name has 1 to 64 characters", "A room name has 1 to 128 characters");
    for shown in BOTH {
        let server = showing(shown).await;
        for (path, fields, sentence, value) in [
            ("/set-username?return-url=%2Fr", &[("username", "")][..], names, "value=\"\""),
            ("/set-username", &[("username", typed)], names, escaped),
            ("/set-username", &[("username", &long)], names, &long),
            ("/set-username", &[], "The form needs a field &quot;username&quot;", "value=\"\""),
            ("/?index", &[("room", "  ")], rooms, "value=\"  \""),
            ("/?index", &[("room", typed)], rooms, escaped),
            (
                "/?index",
                &[("room", ".."), ("room", "a")],
                "Browsers cannot open a room named",
                "value=\"..\"",
            ),
            ("/?index", &[("room", "static")], "The name is reserved by the server", "value=\"static\""),
        ] {
            let page = answer(server.post_form(path, fields).header("accept", HTML)).await;
            assert_eq!(
                (page.status, page.header("content-type")),
                (400, "text/html; charset=utf-8"),
                "{path}"
            );
            assert_eq!((page.header("cache-control"), page.header("set-cookie")), ("no-store", ""));
            assert!(page.header("content-security-policy").contains("script-src 'self'"));
            let name = if path.starts_with("/set") { "name=\"username\"" } else { "name=\"room\"" };
            for part in ["<form method=\"post\"", name, "role=\"alert\"", sentence, value] {
                assert!(page.text.contains(part), "{path} {part}: {}", page.text);
            }
            assert!(!page.text.contains("<script>"));
            let plain = answer(server.post_form(path, fields)).await;
            assert_eq!((plain.status, plain.text.lines().count()), (400, 1), "{plain:?}");
        }
        // Error texts of libraries are not sent.
        let json = server.request(&Method::POST, "/set-username").body("{}");
        let refused = answer(json.header("content-type", "application/json")).await;
        assert_eq!(refused.status, 400);
        assert_eq!(refused.text, "the body is to be a form: application/x-www-form-urlencoded\n");
        let twice = server.post_form("/set-username?return-url=%2Fa&return-url=%2Fb", &[("username", "Ada")]);
        let twice = answer(twice).await;
        assert_eq!((twice.status, twice.header("location")), (302, "/a"));
    }
}

#[tokio::test]
async fn refused_data_request_gets_the_clients_format() {
    let server = TestServer::with(|config| {
        config.limits.url_bytes = 2000;
        config.client.dir = Optional(Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/client-build")));
    })
    .await;
    let path = "/set-username?_data=routes%2Fset-username";
    let form = server.post_form(path, &[("username", "Eve")]).header("origin", "https://evil.example");
    let refused = answer(form).await;
    assert_eq!((refused.status, refused.header("x-remix-catch")), (403, "yes"));
    assert!(refused.text.starts_with("this origin may not use this server"), "{}", refused.text);
    assert_eq!((refused.header("set-cookie"), refused.header("cache-control")), ("", "no-store"));
    let long = answer(server.get(&format!("/r?_data=root&x={}", "x".repeat(2000)))).await;
    assert_eq!((long.status, long.header("x-remix-catch")), (414, "yes"));
    // Other requests than data requests get a plain answer.
    let plain = server.post_form("/set-username", &[]).header("origin", "https://evil.example");
    let plain = answer(plain).await;
    assert_eq!((plain.status, plain.header("x-remix-catch")), (403, ""));
}

#[tokio::test]
async fn head_ignores_ranges_and_framed_file_is_inert() {
    let server = showing(Shown::Stock).await;
    for path in ["/worker.js", "/static/style.css"] {
        let whole = answer(server.request(&Method::HEAD, path).header("range", "bytes=0-0")).await;
        assert_eq!((whole.status, whole.header("content-range")), (200, ""), "{path}");
        let beyond = answer(server.get(path).header("range", "bytes=99999999-")).await;
        assert_eq!((beyond.status, beyond.header("cache-control")), (416, "no-store"), "{path}");
        let other = answer(server.get(path).header("if-match", "\"another\"")).await;
        assert_eq!((other.status, other.header("cache-control")), (412, "no-store"), "{path}");
    }
    for path in ["/static/set-username.html", "/static/satsuma.svg"] {
        let page = answer(server.get(path)).await;
        assert_eq!(page.status, 200, "{path}");
        assert!(page.header("content-security-policy").contains("frame-ancestors 'none'"), "{path}");
    }
}
