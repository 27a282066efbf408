//! A session of the media API together with its peer.

use axum::http::Method;
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use str0m::media::Mid;

use crate::harness::{Answer, Person, TestServer, answer};
use crate::peer::{Media, Net, Peer};

/// A client of the media API: a mount with its credentials.
#[derive(Clone)]
pub struct ApiClient {
    prefix: String,
    proof: (&'static str, String),
}

impl ApiClient {
    /// A browser's client, with a cookie of its own.
    pub async fn for_person(server: &TestServer, name: &str) -> Self {
        Self::for_cookie(Person::log_in(server, name).await.cookie())
    }

    /// An older client, on its mount.
    pub async fn for_older_client(server: &TestServer, name: &str) -> Self {
        Self { prefix: "/api/calls".to_owned(), ..Self::for_person(server, name).await }
    }

    /// A browser's client with this cookie.
    pub fn for_cookie(cookie: &str) -> Self {
        Self { prefix: "/partytracks".to_owned(), proof: ("cookie", cookie.to_owned()) }
    }

    /// Another server's client, with the application's secret.
    pub fn for_server(prefix: &str, secret: &str) -> Self {
        Self { prefix: prefix.to_owned(), proof: ("authorization", format!("Bearer {secret}")) }
    }

    pub fn ask(&self, server: &TestServer, method: Method, path: &str) -> RequestBuilder {
        let (name, value) = &self.proof;
        server.request(&method, &format!("{}/sessions/{path}", self.prefix)).header(*name, value)
    }

    pub async fn call(&self, server: &TestServer, method: Method, path: &str, body: &Value) -> Answer {
        answer(self.ask(server, method, path).body(body.to_string())).await
    }

    /// Opens a session, and stores the cookie of its lock.
    pub async fn open(&mut self, server: &TestServer) -> String {
        self.open_with(server, "").await
    }

    /// The same, with these parameters in the query.
    pub async fn open_with(&mut self, server: &TestServer, parameters: &str) -> String {
        let opened = answer(self.ask(server, Method::POST, &format!("new{parameters}"))).await;
        assert_eq!(opened.status, 201, "{opened:?}");
        if let Some(cookie) =
            opened.header("set-cookie").split(';').next().filter(|cookie| !cookie.is_empty())
        {
            self.proof.1 += &format!("; {cookie}");
        }
        opened.json()["sessionId"].as_str().unwrap().to_owned()
    }
}

/// A session with its peer.
pub struct MediaSession<'a> {
    pub server: &'a TestServer,
    pub api: ApiClient,
    pub session: String,
    pub peer: Peer,
}

impl<'a> MediaSession<'a> {
    pub async fn open(server: &'a TestServer, mut api: ApiClient, net: Net) -> Self {
        let session = api.open(server).await;
        Self { server, api, session, peer: Peer::new(net).await }
    }

    /// A session of a new identity, over UDP.
    pub async fn of(server: &'a TestServer, name: &str) -> Self {
        Self::open(server, ApiClient::for_person(server, name).await, Net::Udp).await
    }

    /// A call on this session that must succeed.
    pub async fn call(&self, method: Method, rest: &str, body: &Value) -> Value {
        let answered = self.try_call(method, rest, body).await;
        assert_eq!(answered.status, 200, "{answered:?}");
        answered.json()
    }

    pub async fn try_call(&self, method: Method, rest: &str, body: &Value) -> Answer {
        self.api.call(self.server, method, &format!("{}{rest}", self.session), body).await
    }

    /// Publishes tracks by an offer; returns their transceivers and the server's answer.
    pub async fn publish(&self, tracks: &[(&str, Media)]) -> (Vec<Mid>, String) {
        let media: Vec<Media> = tracks.iter().map(|(_, media)| *media).collect();
        let (mids, offer) = self.peer.offer(&media).await;
        let named = tracks
            .iter()
            .zip(&mids)
            .map(|((name, _), mid)| json!({"location": "local", "mid": mid.to_string(), "trackName": name}));
        let body = json!({"tracks": named.collect::<Vec<_>>(),
                          "sessionDescription": {"type": "offer", "sdp": offer}});
        let response = self.call(Method::POST, "/tracks/new", &body).await;
        assert_eq!(response["requiresImmediateRenegotiation"], false);
        let response_mids: Vec<&str> = response["tracks"].as_array().unwrap().iter().map(mid_of).collect();
        assert_eq!(response_mids, mids.iter().map(|mid| &**mid).collect::<Vec<_>>());
        assert_eq!(response["sessionDescription"]["type"], "answer");
        let sdp = response["sessionDescription"]["sdp"].as_str().unwrap().to_owned();
        self.peer.accept(&sdp).await;
        (mids, sdp)
    }

    /// Subscribes to a track; returns its transceiver.
    pub async fn subscribe(&self, publisher: &str, name: &str) -> Mid {
        self.subscribe_as(json!({"location": "remote", "sessionId": publisher, "trackName": name})).await
    }

    /// The same with this track object.
    pub async fn subscribe_as(&self, track: Value) -> Mid {
        let response = self.call(Method::POST, "/tracks/new", &json!({"tracks": [track]})).await;
        assert_eq!(response["requiresImmediateRenegotiation"], true, "{response}");
        assert_eq!(response["sessionDescription"]["type"], "offer");
        self.answer(response["sessionDescription"]["sdp"].as_str().unwrap()).await;
        Mid::from(mid_of(&response["tracks"][0]))
    }

    /// Answers the server's offer.
    pub async fn answer(&self, offer: &str) {
        let answer = self.peer.answer(offer).await;
        let body = json!({"sessionDescription": {"type": "answer", "sdp": answer}});
        assert_eq!(self.call(Method::PUT, "/renegotiate", &body).await, json!({}));
    }

    /// Stops transceivers, and closes their tracks on the server.
    pub async fn close(&self, mids: &[Mid]) {
        let offer = self.peer.stop(mids).await;
        let tracks: Vec<Value> = mids.iter().map(|mid| json!({"mid": mid.to_string()})).collect();
        let body = json!({"tracks": tracks, "force": false,
                          "sessionDescription": {"type": "offer", "sdp": offer}});
        let response = self.call(Method::PUT, "/tracks/close", &body).await;
        assert_eq!(
            (&response["tracks"], &response["requiresImmediateRenegotiation"]),
            (&json!(tracks), &json!(false))
        );
        self.peer.accept(response["sessionDescription"]["sdp"].as_str().unwrap()).await;
    }

    /// The session's tracks, as the server reports them.
    pub async fn tracks(&self) -> Value {
        self.call(Method::GET, "", &Value::Null).await["tracks"].take()
    }
}

fn mid_of(track: &Value) -> &str {
    track["mid"].as_str().unwrap_or_else(|| panic!("no transceiver: {track}"))
}
