//! PURE: Google Chat messages (`cardsV2`) for reports, as built by the reference.
//!
//! Source: protocol section 8. The fields are in the reference's order.

use std::time::SystemTime;

use serde::Serialize;
use serde_json::json;
use url::form_urlencoded;

const IMAGE: &str = "https://developers.google.com/chat/images/quickstart-app-avatar.png";

/// The common contents of all cards.
#[derive(Clone, Copy, Debug)]
pub struct CardContext<'a> {
    /// Time of the report.
    pub time: SystemTime,
    /// Host of the page.
    pub environment: &'a str,
    /// Version of the server.
    pub release: &'a str,
}

/// The contents of a bug report's card.
#[derive(Clone, Copy, Debug)]
pub struct BugReport<'a> {
    /// Name of the reporter.
    pub name: &'a str,
    /// Description by the reporter.
    pub description: &'a str,
    /// `User-Agent` of the browser.
    pub user_agent: &'a str,
    /// Name of the room.
    pub room: &'a str,
    /// URL of the page.
    pub url: &'a str,
    /// Location of the history.
    pub debug_info: DebugInfo<'a>,
}

/// The location of a report's history.
#[derive(Clone, Copy, Debug)]
pub enum DebugInfo<'a> {
    /// A URL.
    Link(&'a str),
    /// A report id, if the server's public URL is not configured.
    Id(&'a str),
}

/// The contents of a dead track's card.
#[derive(Clone, Copy, Debug)]
pub struct DeadTrack<'a> {
    /// Name of the subscriber.
    pub pulling_user: &'a str,
    /// Name of the publisher.
    pub pushing_user: &'a str,
    /// Id of the track.
    pub track_id: &'a str,
    /// Link to the trace of the subscriber's session.
    pub pull_trace: &'a str,
    /// Link to the trace of the publisher's session.
    pub push_trace: &'a str,
    /// Link to the meeting's logs.
    pub dashboard: Option<&'a str>,
}

/// Returns the card of a bug report as JSON.
pub fn bug_report(origin: CardContext<'_>, report: BugReport<'_>) -> String {
    let from = format!("Feedback from {}", report.name);
    let header = Header::new(origin, from.clone(), Some(from));
    let sections = vec![
        CardSection::text("Description", report.description),
        CardSection::text("User Agent", report.user_agent),
        CardSection::links("Room", [(report.room.into(), report.url.into())]),
        match report.debug_info {
            DebugInfo::Link(link) => CardSection::links("Debug Info", [("View JSON".into(), link.into())]),
            DebugInfo::Id(id) => {
                CardSection::text("Debug Info", &format!("Report {id}; set http.public_url for a link to it"))
            }
        },
    ];
    message("orange-meets-feedback-card", header, sections)
}

/// Returns the card of a dead track as JSON.
pub fn dead_track(origin: CardContext<'_>, report: DeadTrack<'_>) -> String {
    let DeadTrack { pulling_user, pushing_user, .. } = report;
    let title = format!("💀 Dead track: {pulling_user} had issue pulling from {pushing_user}");
    let traces = [
        (format!("{pulling_user}'s pull trace"), report.pull_trace.into()),
        (format!("{pushing_user}'s push trace"), report.push_trace.into()),
    ];
    let mut sections =
        vec![CardSection::text("Track ID", report.track_id), CardSection::links("Trace links", traces)];
    if let Some(dashboard) = report.dashboard {
        sections.push(CardSection::links("Dashboard link", [("Dashboard logs".into(), dashboard.into())]));
    }
    message("orange-meets-dead-track-card", Header::new(origin, title, None), sections)
}

/// Returns the link to a meeting's logs at the dashboard.
pub fn dashboard_link(dashboard: &str, meeting: &str) -> String {
    let needle = r#"{"value":"","matchCase":false,"isRegex":false}"#;
    let filters = format!(
        r#"[{{"id":"2","key":"meetingId","type":"string","value":{},"operation":"eq"}}]"#,
        json!(meeting)
    );
    // The same encoding as that of JavaScript's URLSearchParams: both are WHATWG URL's.
    let query = form_urlencoded::Serializer::new(String::new())
        .append_pair("view", "events")
        .append_pair("needle", needle)
        .append_pair("filters", &filters)
        .finish();
    format!("{dashboard}/observability/logs?{query}")
}

fn message(card_id: &'static str, header: Header, sections: Vec<CardSection>) -> String {
    let message = CardMessage { cards_v2: [Entry { card_id, card: Card { header, sections } }] };
    // Texts, lists and structs cannot fail to serialize.
    serde_json::to_string(&message).unwrap_or_default()
}

#[derive(Serialize)]
struct CardMessage {
    #[serde(rename = "cardsV2")]
    cards_v2: [Entry; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    card_id: &'static str,
    card: Card,
}

#[derive(Serialize)]
struct Card {
    header: Header,
    sections: Vec<CardSection>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    title: String,
    subtitle: String,
    image_url: &'static str,
    image_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    image_alt_text: Option<String>,
}

impl Header {
    fn new(origin: CardContext<'_>, title: String, image_alt_text: Option<String>) -> Self {
        let CardContext { time, environment, release } = origin;
        let time = humantime::format_rfc3339_millis(time);
        let subtitle = format!("Time: {time} Environment: {environment} commit: {release}");
        Self { title, subtitle, image_url: IMAGE, image_type: "CIRCLE", image_alt_text }
    }
}

#[derive(Serialize)]
struct CardSection {
    header: &'static str,
    widgets: [Widget; 1],
    collapsible: bool,
}

impl CardSection {
    fn text(header: &'static str, text: &str) -> Self {
        let widget = Widget::TextParagraph { text: text.to_owned() };
        Self { header, widgets: [widget], collapsible: false }
    }

    fn links(header: &'static str, links: impl IntoIterator<Item = (String, String)>) -> Self {
        let button = |(text, url)| Button { text, on_click: OnClick { open_link: OpenLink { url } } };
        let widget = Widget::ButtonList { buttons: links.into_iter().map(button).collect() };
        Self { header, widgets: [widget], collapsible: false }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum Widget {
    TextParagraph { text: String },
    ButtonList { buttons: Vec<Button> },
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Button {
    text: String,
    on_click: OnClick,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OnClick {
    open_link: OpenLink,
}

#[derive(Serialize)]
struct OpenLink {
    url: String,
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    const ORIGIN: CardContext<'_> =
        CardContext { time: UNIX_EPOCH, environment: "meet.example", release: "1.2.3" };

    #[test]
    fn bug_report_equals_the_reference_card() {
        let time = UNIX_EPOCH + Duration::from_millis(1_780_000_000_007);
        let report = BugReport {
            name: "Ada \"A\"",
            description: "line 1\nline 2 🍊",
            user_agent: "Browser/1",
            room: "my room",
            url: "https://meet.example/my%20room/room",
            debug_info: DebugInfo::Link("https://meet.example/api/debugInfo?id=1&exp=2&sig=3"),
        };
        let expected = concat!(
            r#"{"cardsV2":[{"cardId":"orange-meets-feedback-card","card":{"header":{"#,
            r#""title":"Feedback from Ada \"A\"","#,
            r#""subtitle":"Time: 2026-05-28T20:26:40.007Z Environment: meet.example commit: 1.2.3","#,
            r#""imageUrl":"https://developers.google.com/chat/images/quickstart-app-avatar.png","#,
            r#""imageType":"CIRCLE","imageAltText":"Feedback from Ada \"A\""},"sections":["#,
            r#"{"header":"Description","widgets":[{"textParagraph":{"text":"line 1\nline 2 🍊"}}],"collapsible":false},"#,
            r#"{"header":"User Agent","widgets":[{"textParagraph":{"text":"Browser/1"}}],"collapsible":false},"#,
            r#"{"header":"Room","widgets":[{"buttonList":{"buttons":[{"text":"my room","onClick":{"openLink":{"#,
            r#""url":"https://meet.example/my%20room/room"}}}]}}],"collapsible":false},"#,
            r#"{"header":"Debug Info","widgets":[{"buttonList":{"buttons":[{"text":"View JSON","onClick":{"openLink":{"#,
            r#""url":"https://meet.example/api/debugInfo?id=1&exp=2&sig=3"}}}]}}],"collapsible":false}]}}]}"#,
        );
        assert_eq!(bug_report(CardContext { time, ..ORIGIN }, report), expected);
    }

    #[test]
    fn dead_track_equals_the_reference_card() {
        let report = DeadTrack {
            pulling_user: "Ada",
            pushing_user: "Bob",
            track_id: "t1",
            pull_trace: "https://trace.example/a",
            push_trace: "https://trace.example/b",
            dashboard: None,
        };
        let start = concat!(
            r#"{"cardsV2":[{"cardId":"orange-meets-dead-track-card","card":{"header":{"#,
            r#""title":"💀 Dead track: Ada had issue pulling from Bob","#,
            r#""subtitle":"Time: 1970-01-01T00:00:00.000Z Environment: meet.example commit: 1.2.3","#,
            r#""imageUrl":"https://developers.google.com/chat/images/quickstart-app-avatar.png","#,
            r#""imageType":"CIRCLE"},"sections":["#,
            r#"{"header":"Track ID","widgets":[{"textParagraph":{"text":"t1"}}],"collapsible":false},"#,
            r#"{"header":"Trace links","widgets":[{"buttonList":{"buttons":["#,
            r#"{"text":"Ada's pull trace","onClick":{"openLink":{"url":"https://trace.example/a"}}},"#,
            r#"{"text":"Bob's push trace","onClick":{"openLink":{"url":"https://trace.example/b"}}}]}}],"collapsible":false}"#,
        );
        assert_eq!(dead_track(ORIGIN, report), format!("{start}]}}}}]}}"));
        let dashboard = r#",{"header":"Dashboard link","widgets":[{"buttonList":{"buttons":[{"text":"Dashboard logs","onClick":{"openLink":{"url":"https://d.example"}}}]}}],"collapsible":false}]}}]}"#;
        let linked = DeadTrack { dashboard: Some("https://d.example"), ..report };
        assert_eq!(dead_track(ORIGIN, linked), format!("{start}{dashboard}"));
    }

    #[test]
    fn dashboard_link_is_encoded_as_url_search_params() {
        // Made with node: `https://d.example/observability/logs?${new URLSearchParams({...})}`.
        let expected = concat!(
            "https://d.example/observability/logs?view=events",
            "&needle=%7B%22value%22%3A%22%22%2C%22matchCase%22%3Afalse%2C%22isRegex%22%3Afalse%7D",
            "&filters=%5B%7B%22id%22%3A%222%22%2C%22key%22%3A%22meetingId%22%2C%22type%22%3A%22string%22%2C",
            "%22value%22%3A%22a+b%7E*%27%2F%5C%22%C3%A9%22%2C%22operation%22%3A%22eq%22%7D%5D",
        );
        assert_eq!(dashboard_link("https://d.example", "a b~*'/\"é"), expected);
    }
}
