//! `POST /api/bugReport`: the bug report form.

use std::sync::Arc;
use std::time::SystemTime;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::http::header::USER_AGENT;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use url::Url;

use super::card::{self, CardContext, DebugInfo};
use super::form::{name, read_form, required_text};
use super::history::{History, keep_newest};
use super::service::{FormLimits, ReportService, signed_link};
use crate::auth::Identity;
use crate::auth::peer::RemotePeer;
use crate::clock::wall_clock;
use crate::config::VERSION;
use crate::http::error::ApiError;
use crate::http::extract::CurrentUser;
use crate::id::{ReportId, RoomName};
use crate::store::reports::{NewReport, ReportKind};

const KIND: &str = "bug";

/// Maximum length of a page's URL in characters.
const URL_CHARS: usize = 8192;

/// Characters to which a `User-Agent` is truncated.
const USER_AGENT_CHARS: usize = 1024;

/// Accepts the form.
pub async fn post(
    State(service): State<Arc<ReportService>>,
    peer: RemotePeer,
    CurrentUser(identity): CurrentUser,
    request: Request,
) -> Result<Response, ApiError> {
    let (what, author) = ((KIND, &service.report_quota), identity.id.clone());
    let store = |request| store(&service, &peer, identity, request);
    service.submit(what, (&author, &peer), service.limits.form_bytes, request, store).await?;
    Ok(accepted())
}

/// The answer to an accepted report; a rate-limited one gets it as well.
pub(super) fn accepted() -> Response {
    Json(json!({"status": "ok"})).into_response()
}

async fn store(
    service: &ReportService,
    peer: &RemotePeer,
    identity: Identity,
    request: Request,
) -> Result<(), ApiError> {
    let limits = service.limits;
    let user_agent = user_agent(request.headers());
    let fields = ["description", "info"];
    let budget = service.budget(peer, limits.form_bytes);
    let ([description, info], _upload) = read_form(request, fields, budget).await?;
    let parse = move || BugReportForm::read(description, info, limits);
    // Parsing megabytes would block the rooms of this thread.
    let parsed = tokio::task::spawn_blocking(parse).await.map_err(|_| ApiError::Internal)??;

    let (id, now) = (ReportId::random(), wall_clock());
    let report = parsed.to_report(id, identity, user_agent, now);
    let name = parsed.name.as_deref().unwrap_or(&report.name).to_owned();
    let (description, user_agent) = (report.description.clone(), report.user_agent.clone());
    let BugReportForm { room, url, host, .. } = &parsed;
    let key = service.http.identities.signing_key();
    let link = service.link_base().map(|base| signed_link(key, &base, id, now));
    let id_text = id.to_string();
    let card = || {
        let origin = CardContext { time: now, environment: host, release: VERSION };
        let report = card::BugReport {
            name: &name,
            description: &description,
            user_agent: &user_agent,
            room: room.as_str(),
            url,
            debug_info: link.as_deref().map_or(DebugInfo::Id(&id_text), DebugInfo::Link),
        };
        card::bug_report(origin, report)
    };
    service.store(report, card).await
}

/// The parsed form.
#[derive(Debug)]
struct BugReportForm {
    description: String,
    room: RoomName,
    /// The reporter's name as sent by the client.
    name: Option<String>,
    url: String,
    host: String,
    history: History,
}

/// The field `info`; other members are ignored.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Info<'a> {
    #[serde(borrow)]
    room_name: Option<&'a RawValue>,
    #[serde(borrow)]
    identity: Option<&'a RawValue>,
    #[serde(borrow)]
    room_history: Option<&'a RawValue>,
    #[serde(borrow)]
    url: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Reporter<'a> {
    #[serde(borrow)]
    name: Option<&'a RawValue>,
}

impl BugReportForm {
    fn read(description: Option<String>, info: Option<String>, limits: FormLimits) -> Result<Self, ApiError> {
        let description = description.ok_or(ApiError::MissingField("description"))?;
        if description.chars().count() > limits.description_chars {
            return Err(ApiError::InvalidField { field: "description", rule: "is too long" });
        }
        let info = info.ok_or(ApiError::MissingField("info"))?;
        let wrong = ApiError::InvalidField { field: "info", rule: "is not a JSON object" };
        if !info.trim_start().starts_with('{') {
            return Err(wrong);
        }
        let info: Info<'_> = serde_json::from_str(&info).map_err(|_| wrong)?;

        let room = required_text(info.room_name, "info.roomName", 4 * RoomName::MAX_CHARS)?;
        let rule = "is not a room's name";
        let room =
            RoomName::parse(&room).map_err(|_| ApiError::InvalidField { field: "info.roomName", rule })?;
        let url = required_text(info.url, "info.url", URL_CHARS)?;
        let host = host_of(&url)
            .ok_or(ApiError::InvalidField { field: "info.url", rule: "is not an http or https URL" })?;
        let name = match info.identity {
            None => None,
            Some(identity) => {
                let wrong = ApiError::InvalidField { field: "info.identity", rule: "is not an object" };
                if !identity.get().starts_with('{') {
                    return Err(wrong);
                }
                let reporter: Reporter<'_> = serde_json::from_str(identity.get()).map_err(|_| wrong)?;
                name(reporter.name, "info.identity.name")?
            }
        };
        let history = match info.room_history {
            None => History { json: "null".to_owned(), cut_entries: 0 },
            Some(history) => keep_newest(history, limits.history_bytes),
        };
        Ok(Self { description, room, name, url, host, history })
    }

    fn to_report(
        &self,
        id: ReportId,
        identity: Identity,
        user_agent: String,
        created: SystemTime,
    ) -> NewReport {
        NewReport {
            id,
            kind: ReportKind::Bug,
            created,
            room: Some(self.room.clone()),
            meeting: None,
            identity: identity.id,
            name: identity.name,
            description: self.description.clone(),
            user_agent,
            url: self.url.clone(),
            cut_entries: self.history.cut_entries,
            json: self.history.json.clone(),
        }
    }
}

/// Returns the `User-Agent`, truncated; empty if missing.
pub(super) fn user_agent(headers: &HeaderMap) -> String {
    let text = headers.get(USER_AGENT).map(|value| String::from_utf8_lossy(value.as_bytes()));
    text.unwrap_or_default().chars().take(USER_AGENT_CHARS).collect()
}

/// Returns the host of an http or https URL.
fn host_of(url: &str) -> Option<String> {
    let url = Url::parse(url).ok()?;
    let host = url.host_str()?;
    matches!(url.scheme(), "http" | "https").then(|| host.to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const LIMITS: FormLimits = FormLimits {
        form_bytes: 1 << 20,
        form_timeout: Duration::from_secs(1),
        history_bytes: 1024,
        description_chars: 10,
        stored_bytes: 1 << 20,
    };

    fn read(description: &str, info: &str) -> Result<BugReportForm, String> {
        let parsed = BugReportForm::read(Some(description.into()), Some(info.into()), LIMITS);
        parsed.map_err(|error| error.to_string())
    }

    #[test]
    fn stock_client_form_is_parsed() {
        let info = json!({
            "roomName": "my room",
            "identity": {"id": "x", "name": "Ada", "tracks": {"audioEnabled": true}},
            "roomHistory": {"apiHistory": [], "userSessions": []},
            "url": "https://meet.example:8443/my%20room/room?x=1",
            "unknown": [1],
        });
        let parsed = read("", &info.to_string()).unwrap();
        assert_eq!((parsed.room.as_str(), parsed.name.as_deref()), ("my room", Some("Ada")));
        assert_eq!(
            (&*parsed.host, &*parsed.url),
            ("meet.example", "https://meet.example:8443/my%20room/room?x=1")
        );
        assert_eq!(parsed.history.json, r#"{"apiHistory":[],"userSessions":[]}"#);
        let parsed = read("", r#"{"roomName":"r","url":"http://[::1]:1/","identity":null}"#).unwrap();
        assert_eq!((parsed.name, &*parsed.host, &*parsed.history.json), (None, "[::1]", "null"));
    }

    #[test]
    fn error_names_the_invalid_field() {
        let good = json!({"roomName": "r", "url": "https://meet.example/r"});
        let with = |field: &str, value: serde_json::Value| {
            let mut info = good.clone();
            info[field] = value;
            info.to_string()
        };
        assert!(read("1234567890", &good.to_string()).is_ok());
        let long = "x".repeat(9000);
        for (info, field) in [
            ("", "info"),
            ("{", "info"),
            ("[1,2,3,4]", "info"),
            ("null", "info"),
            (r#"{"roomName":"a","roomName":"b"}"#, "info"),
            (&with("roomName", json!(null)), "info.roomName"),
            (&with("roomName", json!("")), "info.roomName"),
            (&with("roomName", json!(7)), "info.roomName"),
            (&with("roomName", json!("a\nb")), "info.roomName"),
            (&with("roomName", json!(long)), "info.roomName"),
            (&with("url", json!(null)), "info.url"),
            (&with("url", json!("/r")), "info.url"),
            (&with("url", json!("javascript:alert(1)")), "info.url"),
            (&with("url", json!(format!("https://a.example/{long}"))), "info.url"),
            (&with("identity", json!("Ada")), "info.identity"),
            (&with("identity", json!(["Ada"])), "info.identity"),
            (&with("identity", json!({"name": 1})), "info.identity.name"),
            (&with("identity", json!({"name": long})), "info.identity.name"),
        ] {
            let error = read("", info).unwrap_err();
            assert!(error.contains(&format!("\"{field}\"")), "{error}: {info}");
        }
        assert!(read("12345678901", &good.to_string()).unwrap_err().contains("\"description\""));
        for (description, info, field) in
            [(None, Some(String::new()), "description"), (Some(String::new()), None, "info")]
        {
            let error = BugReportForm::read(description, info, LIMITS).unwrap_err();
            assert_eq!(error, ApiError::MissingField(field));
        }
    }

    #[test]
    fn user_agent_is_truncated_and_optional() {
        assert_eq!(user_agent(&HeaderMap::new()), "");
        let long = HeaderMap::from_iter([(USER_AGENT, "é".repeat(2000).parse().unwrap())]);
        assert_eq!(user_agent(&long).chars().count(), 1024);
    }
}
