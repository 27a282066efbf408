//! All errors of HTTP requests, and the one table from error to status.

use axum::http::header::{CACHE_CONTROL, CONNECTION, RETRY_AFTER, UPGRADE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::auth::InvalidName;
use crate::id::InvalidId;

/// Header with the code of an error, from which clients make a sentence in their user's language.
const CODE: HeaderName = HeaderName::from_static("error-code");

/// The refusal of a request. Its message goes to the client and never contains a source error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// There is nothing at the address.
    #[error("not found")]
    NotFound,
    /// The address is not below the server's base path.
    #[error(
        "this server is below a path of its host (http.base_path), and this address is not; a proxy that strips the path has to be in http.trusted_proxies, or to name it in X-Forwarded-Prefix"
    )]
    OutsideBasePath,
    /// An id in the URL is invalid.
    #[error(transparent)]
    InvalidId(#[from] InvalidId),
    /// The username in the form is invalid.
    #[error(transparent)]
    InvalidName(#[from] InvalidName),
    /// The URL's percent-encoding is malformed.
    #[error("the address has an invalid percent-encoding; a percent sign itself is written %25")]
    BrokenEncoding,
    /// The room's name is reserved by one of the server's own addresses.
    #[error("the name is reserved by the server; choose another one")]
    NameTaken,
    /// A form lacks a field.
    #[error("the form needs a field \"{0}\"")]
    MissingField(&'static str),
    /// A field of the form has an invalid value.
    #[error("the field \"{field}\" {rule}")]
    InvalidField {
        /// Name of the field.
        field: &'static str,
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// A query parameter is unknown or has an invalid value.
    #[error("the query's {0}")]
    InvalidQuery(&'static str),
    /// The body is neither a multipart nor a URL-encoded form.
    #[error("the body is to be a form: multipart/form-data or application/x-www-form-urlencoded")]
    NotAForm,
    /// The body is not a URL-encoded form.
    #[error("the body is to be a form: application/x-www-form-urlencoded")]
    NotUrlEncoded,
    /// The body is not a JSON object.
    #[error("the body is to be a JSON object")]
    NotJson,
    /// The body is truncated or malformed.
    #[error("the body is incomplete or malformed")]
    BrokenBody,
    /// The body exceeds its size limit.
    #[error("the body is too long")]
    BodyTooLarge,
    /// The memory limit for uploads is reached.
    #[error("too many forms are arriving; send it again in a moment")]
    UploadsBusy,
    /// The store cannot save or load.
    #[error("the database cannot be written at the moment; try again later")]
    StoreFailing,
    /// The WebSocket handshake violates RFC 6455 section 4.2.1.
    #[error("not a WebSocket handshake of version 13 over HTTP/1.1")]
    InvalidHandshake,
    /// A WebSocket request without its upgrade headers: a proxy dropped them.
    #[error(
        "a proxy in front of this server does not pass WebSockets on: it has to forward the headers Upgrade and Connection, over HTTP/1.1"
    )]
    UpgradeLost,
    /// A plain HTTP request to a TLS port.
    #[error("this port speaks https: write https:// in front of its address")]
    PlainHttp,
    /// An unauthenticated request.
    #[error("log in first: POST a username to /set-username, or come through the configured proxy")]
    NoIdentity,
    /// An unauthenticated request where only a login in front of this server authenticates.
    #[error(
        "this server learns who you are from the login in front of it, and this request came without one; open its usual address and log in there"
    )]
    LoginRequired,
    /// An unauthenticated request where only holders of an access token are let in.
    #[error("this server lets in holders of an access token; ask whoever invited you for a link")]
    TokenNeeded,
    /// An unauthenticated request where an account of the configured issuer opens this server.
    #[error("sign in to use this server")]
    SignInNeeded,
    /// The access token of a link is malformed, not signed by a key of this server, or expired.
    #[error("this link is invalid or has expired; ask for a new one")]
    InvalidToken,
    /// The identity may not enter the room, whether it exists or not.
    #[error("you may not enter this room")]
    ForbiddenRoom,
    /// The request comes from a page of a foreign origin.
    #[error("this origin may not use this server; see http.allowed_origins in its configuration")]
    ForeignOrigin,
    /// The request's host may be a name that somebody else resolved to this machine.
    #[error(
        "this server does not know the name in this address; open it by its IP address, or have its operator set http.public_url to the address that people open"
    )]
    UnknownHost,
    /// The same at the admin listener.
    #[error(
        "this listener does not know the name in this address; open it by its IP address, or add the name to admin.allowed_hosts"
    )]
    UnknownOperatorsHost,
    /// The operator token is missing or wrong.
    #[error("this needs the operator token: Authorization: Bearer ...")]
    NoOperator,
    /// A feature refuses the request.
    #[error("{}", .0.message)]
    Refused(Refusal),
    /// The headers exceed their size limit.
    #[error("the headers are too long")]
    HeadersTooLarge,
    /// The URL exceeds its size limit.
    #[error("the URL is too long")]
    UrlTooLong,
    /// The room's task does not answer.
    #[error("the room does not answer")]
    RoomSilent,
    /// A handler panicked.
    #[error("internal error")]
    Internal,
}

/// The refusal of a request by a feature, which has the table from its errors to these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status of the response.
    pub status: StatusCode,
    /// The metric label.
    pub label: &'static str,
    /// The sentence for the client.
    pub message: &'static str,
    /// The setting to raise if many people share the network that reached its limit.
    pub network_limit: Option<&'static str>,
}

impl ApiError {
    /// The refusal of a request by a feature, for a reason that no limit of networks has part in.
    pub const fn refused(status: StatusCode, label: &'static str, message: &'static str) -> Self {
        Self::Refused(Refusal { status, label, message, network_limit: None })
    }

    /// Returns the status of the response.
    pub fn status(self) -> StatusCode {
        match self {
            Self::NotFound | Self::OutsideBasePath => StatusCode::NOT_FOUND,
            Self::InvalidId(_)
            | Self::InvalidName(_)
            | Self::BrokenEncoding
            | Self::NameTaken
            | Self::MissingField(_)
            | Self::InvalidField { .. }
            | Self::InvalidQuery(_)
            | Self::NotAForm
            | Self::NotUrlEncoded
            | Self::NotJson
            | Self::BrokenBody
            | Self::InvalidHandshake
            | Self::PlainHttp => StatusCode::BAD_REQUEST,
            Self::UpgradeLost => StatusCode::UPGRADE_REQUIRED,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::StoreFailing | Self::UploadsBusy => StatusCode::SERVICE_UNAVAILABLE,
            Self::NoIdentity
            | Self::LoginRequired
            | Self::TokenNeeded
            | Self::SignInNeeded
            | Self::InvalidToken
            | Self::NoOperator => StatusCode::UNAUTHORIZED,
            Self::ForbiddenRoom | Self::ForeignOrigin | Self::UnknownHost | Self::UnknownOperatorsHost => {
                StatusCode::FORBIDDEN
            }
            Self::Refused(refusal) => refusal.status,
            Self::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::UrlTooLong => StatusCode::URI_TOO_LONG,
            Self::RoomSilent => StatusCode::GATEWAY_TIMEOUT,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Returns the setting to raise if many people share the network that reached its limit.
    pub fn network_limit(self) -> Option<&'static str> {
        match self {
            Self::Refused(refusal) => refusal.network_limit,
            _ => None,
        }
    }

    /// Returns the code for clients: the metric label, or a finer one for what a user types.
    pub fn code(self) -> &'static str {
        match self {
            Self::InvalidName(_) => "invalid_name",
            Self::InvalidId(InvalidId::RoomName) => "invalid_room_name",
            Self::InvalidId(InvalidId::DotSegment) => "no_page",
            Self::NameTaken => "name_reserved",
            _ => self.label(),
        }
    }

    /// Returns the metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::OutsideBasePath => "outside_base_path",
            Self::InvalidId(_) => "invalid_id",
            Self::InvalidName(_) | Self::NameTaken | Self::MissingField(_) | Self::InvalidField { .. } => {
                "invalid_form"
            }
            Self::BrokenEncoding => "invalid_address",
            Self::InvalidQuery(_) => "invalid_query",
            Self::NotAForm | Self::NotUrlEncoded | Self::NotJson | Self::BrokenBody => "invalid_body",
            Self::BodyTooLarge => "body_too_large",
            Self::StoreFailing => "store_failing",
            Self::UploadsBusy => "uploads_busy",
            Self::InvalidHandshake => "invalid_handshake",
            Self::UpgradeLost => "upgrade_lost",
            Self::PlainHttp => "plain_http",
            Self::NoIdentity => "no_identity",
            Self::LoginRequired => "login_required",
            Self::TokenNeeded => "token_needed",
            Self::SignInNeeded => "sign_in_needed",
            Self::InvalidToken => "invalid_token",
            Self::ForbiddenRoom => "forbidden_room",
            Self::ForeignOrigin => "foreign_origin",
            Self::UnknownHost | Self::UnknownOperatorsHost => "unknown_host",
            Self::NoOperator => "no_operator",
            Self::Refused(refusal) => refusal.label,
            Self::HeadersTooLarge => "headers_too_large",
            Self::UrlTooLong => "url_too_long",
            Self::RoomSilent => "room_silent",
            Self::Internal => "internal",
        }
    }
}

/// A plain response of one sentence. It carries the error as an extension, from which layers make the response
/// of a page or of another protocol.
impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = self.status();
        let mut response = (status, format!("{self}\n")).into_response();
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(CODE, HeaderValue::from_static(self.code()));
        match status {
            // RFC 9110 sections 15.5.22 and 7.8.
            StatusCode::UPGRADE_REQUIRED => {
                headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
                headers.insert(UPGRADE, HeaderValue::from_static("websocket"))
            }
            StatusCode::TOO_MANY_REQUESTS => headers.insert(RETRY_AFTER, HeaderValue::from_static("60")),
            // Another node takes a room over in a second, and an engine is soon back.
            StatusCode::SERVICE_UNAVAILABLE if self.code() == "room_unreachable" => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("2"))
            }
            StatusCode::SERVICE_UNAVAILABLE => headers.insert(RETRY_AFTER, HeaderValue::from_static("5")),
            _ => None,
        };
        response.extensions_mut().insert(self);
        response
    }
}
