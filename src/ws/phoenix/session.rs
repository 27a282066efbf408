//! Phoenix Channels on one transport: the client's messages into its topics, and everything for it out of them.

mod feature;
mod flow;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tungstenite::Utf8Bytes;

use super::super::Sockets;
use super::super::handshake::warn_of_network_limit;
use super::super::session::Next;
use super::PhoenixEndpoint;
use super::client::{SocketClient, SocketUser};
use super::joining::{InvalidJoin, JoinRequest, Joining};
use super::topic::{Channel, Topic, TopicState, Unanswered};
use crate::clock::now;
use crate::http::context::HttpContext;
use crate::http::error::ApiError;
use crate::metrics::{ByOutcome, BySocket, ByType, Counted, Metrics};
use crate::protocol::client::ClientMessage;
use crate::protocol::close::Close;
use crate::protocol::deflate::Encoding;
use crate::protocol::phoenix::{
    ClientFrame, FramePayload, HEARTBEAT, JOIN, LEAVE, Ref, SOCKET_TOPIC, Status, Version, channel_closed,
    channel_failed, reply, reply_reason,
};
use crate::room::io::JoinRefusal;
use crate::room::link::MemberLink;
use crate::room::registry::CannotJoin;

/// Further tokens of the rate limit for a join, which makes its room send snapshots.
const JOIN_TOKENS: u32 = 4;

/// Number of replies and messages without one at which no more messages are read.
const MAX_UNANSWERED: usize = 64;

/// Number of messages that wait for their topics' joins at which no more messages are read.
const MAX_HELD: usize = 16;

/// Maximum size in bytes of a message that waits for its topic's join.
const MAX_HELD_BYTES: usize = 64 * 1024;

const UNMATCHED: &str = "unmatched topic";
const TOO_MANY_TOPICS: &str = "too many channels joined";
const ID_IN_USE: &str = "id in use";
const NO_BINARY: &str = "no binary events";
const TOO_LONG_TO_HOLD: &str = "the message is too long to wait for the join of its topic";
const RESTARTING: &str = "the server is restarting";
const NO_ROOM: &str = "this socket's token opens no room";

/// A client's session, with its memberships in rooms.
pub struct PhoenixSession {
    http: Arc<HttpContext>,
    sockets: Arc<Sockets>,
    client: SocketClient,
    version: Version,
    /// The encoding that the transport accepts.
    encoding: Encoding,
    topics: Vec<Topic>,
    /// The topic whose output is taken next, so that each has its turn.
    turn: usize,
    /// Frames of the session's own.
    replies: VecDeque<String>,
    /// The number of the newest channel.
    last_number: u32,
    /// Tokens of the rate limit that handled messages cost beside their size.
    owed_tokens: u32,
    /// The reason for which the socket is to be closed.
    closing: Option<Close>,
    /// Ends with the server, which closes sockets that are in no room.
    stopping: std::pin::Pin<Box<WaitForCancellationFutureOwned>>,
    /// True while the client is not read.
    is_throttled: bool,
    _counted: Counted,
}

impl PhoenixSession {
    /// A session of an authenticated client, in no room yet.
    pub fn new(
        http: Arc<HttpContext>,
        sockets: Arc<Sockets>,
        client: SocketClient,
        (version, encoding): (Version, Encoding),
        transport: &'static str,
    ) -> Self {
        let label = BySocket { transport, version: version.label() };
        let counted = Counted::new(&http.metrics.phoenix_sockets.get_or_create(&label), 1);
        Self {
            stopping: Box::pin(sockets.stopping.clone().cancelled_owned()),
            http,
            sockets,
            client,
            version,
            encoding,
            topics: Vec::new(),
            turn: 0,
            replies: VecDeque::new(),
            last_number: 0,
            owed_tokens: 0,
            closing: None,
            is_throttled: false,
            _counted: counted,
        }
    }

    fn observe(&self, kind: &'static str, outcome: &'static str, since: Instant) {
        let label = ByOutcome { kind, outcome };
        self.metrics().phoenix_event_seconds.get_or_create(&label).observe(since.elapsed().as_secs_f64());
    }

    fn metrics(&self) -> &Metrics {
        &self.http.metrics
    }

    /// Handles a frame, or holds its text until earlier ones of its topic are handled.
    fn handle(&mut self, frame: &ClientFrame<'_>, text: Option<&Utf8Bytes>) {
        if frame.topic == SOCKET_TOPIC {
            let is_heartbeat = frame.event == HEARTBEAT;
            return self.answer(frame, if is_heartbeat { Ok(()) } else { Err(UNMATCHED) });
        }
        let at = self.topics.iter().position(|topic| *topic.name == *frame.topic);
        match (at, text) {
            (Some(at), Some(text)) if self.topics[at].is_busy() => {
                if text.len() > MAX_HELD_BYTES {
                    return self.answer(frame, Err(TOO_LONG_TO_HOLD));
                }
                self.topics[at].held.push_back(text.clone());
            }
            // It would be refused once it had waited for the join.
            (Some(at), None) if self.topics[at].is_busy() => self.answer(frame, Err(NO_BINARY)),
            _ => self.dispatch(at, frame),
        }
    }

    /// Handles a frame for the topic at this index, if it is known.
    fn dispatch(&mut self, at: Option<usize>, frame: &ClientFrame<'_>) {
        if frame.event == JOIN {
            self.owed_tokens += JOIN_TOKENS;
            if let Err((label, reason)) = self.begin_join(at, frame) {
                self.refuse_join(
                    frame.join_ref.as_ref(),
                    frame.message_ref.as_ref(),
                    &frame.topic,
                    (label, &reason),
                );
            }
            return;
        }
        if let Some(topic) = at.and_then(|at| self.topics[at].feature()) {
            let refused = feature::receive(topic, frame);
            return refused.map_or((), |reason| self.answer(frame, Err(reason)));
        }
        let limits = self.sockets.message_limits;
        let channel = at.and_then(|at| self.topics[at].channel());
        let Some(channel) = channel else {
            let is_leave = frame.event == LEAVE;
            return self.answer(frame, if is_leave { Ok(()) } else { Err(UNMATCHED) });
        };
        if frame.join_ref.is_some() && frame.join_ref != channel.join_ref {
            // Of a join that is over; its client awaits no answer.
            return;
        }
        let (message, bytes) = match (&*frame.event, frame.payload) {
            (LEAVE, _) => (Ok(ClientMessage::UserLeft), 0),
            (_, FramePayload::Bytes) => return self.answer(frame, Err(NO_BINARY)),
            (event, FramePayload::Json(payload)) => {
                (ClientMessage::parse_payload(event, payload.get(), limits), payload.get().len())
            }
        };
        let is_leave = matches!(message, Ok(ClientMessage::UserLeft));
        let kind = message.as_ref().map_or("invalid", ClientMessage::kind);
        let (reply, answer) = oneshot::channel();
        channel.is_leaving |= is_leave;
        // A room that is gone drops the reply, which is an answer too.
        let _ = channel.link.send(message.map_err(|defect| defect.to_string()), bytes, Some(reply));
        let unanswered = Unanswered {
            join_ref: channel.join_ref.clone(),
            message_ref: frame.message_ref.clone(),
            kind,
            since: now(),
            is_leave,
            answer,
        };
        if let Some(at) = at {
            self.topics[at].unanswered.push_back(unanswered);
        }
        self.metrics().messages.get_or_create(&ByType { r#type: kind }).inc();
    }

    /// Begins the join of a topic. A joined one is joined anew.
    fn begin_join(
        &mut self,
        at: Option<usize>,
        frame: &ClientFrame<'_>,
    ) -> Result<(), (&'static str, String)> {
        let refused = |label, reason: &str| Err((label, reason.to_owned()));
        let features = self.sockets.phoenix.as_ref().and_then(|endpoint| endpoint.features.get());
        if let Some(topics) = features.filter(|topics| frame.topic.starts_with(topics.prefix())) {
            let topics = topics.clone();
            return self.begin_feature_join(at, &topics, frame);
        }
        let request = JoinRequest::read(frame).map_err(|error| {
            let label = if error == InvalidJoin::Unmatched { "unmatched" } else { "invalid" };
            (label, error.to_string())
        })?;
        if self.closing.is_some() {
            return refused("shutting_down", RESTARTING);
        }
        let Some(PhoenixEndpoint { topics, memberships, .. }) = &self.sockets.phoenix else {
            return refused("unmatched", UNMATCHED);
        };
        let SocketUser::User(identity) = &self.client.user else { return refused("forbidden", NO_ROOM) };
        if !identity.may_enter(request.room()) {
            let forbidden = ApiError::ForbiddenRoom;
            return refused(forbidden.label(), &forbidden.to_string());
        }
        let previous = at.map(|at| std::mem::replace(&mut self.topics[at].state, TopicState::Free));
        let (previous, permit) = match previous {
            Some(TopicState::Joined(Channel { join_ref, user, link, permit, .. })) => {
                (Some((join_ref, user, link)), permit)
            }
            // No join is dispatched while another one of its topic is under way.
            Some(TopicState::Free | TopicState::Joining(_) | TopicState::Feature(_)) | None => {
                if at.is_none() && self.topics.len() >= *topics {
                    return refused("too_many_topics", TOO_MANY_TOPICS);
                }
                let permit = memberships.try_acquire(self.client.network).map_err(|exceeded| {
                    let error = super::super::refusals::too_many_sockets(exceeded);
                    warn_of_network_limit(&self.http, self.client.network, error);
                    (error.label(), error.to_string())
                })?;
                (None, permit)
            }
        };
        let client = (identity, self.client.network);
        let joining = request.begin(&self.sockets, client, self.encoding, frame, (previous, permit));
        match at {
            Some(at) => self.topics[at].state = TopicState::Joining(Box::new(joining)),
            None => self.add_topic((&*frame.topic).into(), TopicState::Joining(Box::new(joining))),
        }
        Ok(())
    }

    fn add_topic(&mut self, name: Arc<str>, state: TopicState) {
        // Most sockets have one topic, for which a vector would reserve the space of four.
        self.topics.reserve_exact(1);
        self.topics.push(Topic::new(name, state));
    }

    /// Handles the result of the join of the topic at this index.
    fn finish_join(&mut self, at: usize, mut joining: Joining, joined: Result<MemberLink, CannotJoin>) {
        let topic = self.topics[at].name.clone();
        let replaced = joining.replaced.take();
        let outcome = if joined.is_ok() { "ok" } else { "error" };
        self.observe(JOIN, outcome, joining.since);
        match joined {
            Ok(mut link) => {
                Metrics::count(&self.metrics().phoenix_joins, "joined");
                if self.is_throttled {
                    link.set_throttled(now(), true);
                }
                let name = match &self.client.user {
                    SocketUser::User(identity) => &*identity.name,
                    SocketUser::Token(_) => "",
                };
                let response = serde_json::json!({"id": joining.user.as_str(), "name": name});
                let (join_ref, message_ref) = (joining.join_ref.as_ref(), joining.message_ref.as_ref());
                if message_ref.is_some() {
                    let result = (Status::Ok, &*response.to_string());
                    self.replies.push_back(reply(self.version, join_ref, message_ref, &topic, result));
                }
                self.last_number = self.last_number.wrapping_add(1);
                let channel = joining.into_channel(link, self.last_number);
                self.topics[at].state = TopicState::Joined(channel);
            }
            Err(refusal) => {
                let error = ApiError::from(refusal);
                warn_of_network_limit(&self.http, self.client.network, error);
                let reason = match refusal {
                    CannotJoin::Refused(JoinRefusal::IdTaken) => ID_IN_USE.to_owned(),
                    _ => error.to_string(),
                };
                let (join_ref, message_ref) = (joining.join_ref.as_ref(), joining.message_ref.as_ref());
                self.refuse_join(join_ref, message_ref, &topic, (error.label(), &reason));
            }
        }
        if let Some(replaced) = replaced {
            self.replies.push_back(channel_closed(self.version, replaced.as_ref(), &topic));
        }
    }

    fn refuse_join(
        &mut self,
        join_ref: Option<&Ref>,
        message_ref: Option<&Ref>,
        topic: &str,
        (label, reason): (&'static str, &str),
    ) {
        Metrics::count(&self.metrics().phoenix_joins, label);
        tracing::debug!(event = "channelJoinRefused", reason = label);
        if message_ref.is_some() {
            self.replies.push_back(reply_reason(self.version, join_ref, message_ref, topic, Err(reason)));
        }
    }

    /// Replies to a frame at once, if it has a reference.
    fn answer(&mut self, frame: &ClientFrame<'_>, result: Result<(), &str>) {
        if let message_ref @ Some(_) = frame.message_ref.as_ref() {
            let join_ref = frame.join_ref.as_ref();
            self.replies.push_back(reply_reason(self.version, join_ref, message_ref, &frame.topic, result));
        }
    }

    /// Passes on the room's answer to a message for the topic at this index.
    fn pass_on_answer(&mut self, at: usize, message: &Unanswered, result: Result<(), String>) {
        // A leave ends the membership whatever its room answers.
        let result = if message.is_leave { Ok(()) } else { result };
        let outcome = if result.is_ok() { "ok" } else { "error" };
        self.observe(message.kind, outcome, message.since);
        let topic = self.topics[at].name.clone();
        if message.message_ref.is_some() {
            let (join_ref, message_ref) = (message.join_ref.as_ref(), message.message_ref.as_ref());
            let result = result.as_ref().copied().map_err(String::as_str);
            self.replies.push_back(reply_reason(self.version, join_ref, message_ref, &topic, result));
        }
        // The leave of a channel that was joined anew since has nothing to end.
        if message.is_leave && self.topics[at].channel().is_some_and(|channel| channel.is_leaving) {
            self.end_channel(at, Close::UserLeft);
        }
    }

    /// Handles the end that a room gave the link of the topic at this index.
    fn channel_ended(&mut self, at: usize, close: Close) {
        if matches!(close, Close::TooSlow | Close::ServiceRestart) {
            // A reader too slow for one topic is too slow for all, and all rooms end with the server.
            self.closing.get_or_insert(close);
        }
        if let Some(channel) = self.topics[at].channel() {
            channel.ended = Some(close);
        }
        self.announce_end(at);
    }

    /// Announces the end of the topic at this index, once the answers to its messages are out.
    fn announce_end(&mut self, at: usize) {
        let topic = &mut self.topics[at];
        let ended = topic.channel().and_then(|channel| channel.ended);
        match ended {
            None | Some(Close::TooSlow | Close::ServiceRestart) => {}
            Some(_) if !topic.unanswered.is_empty() => {}
            Some(close) => self.end_channel(at, close),
        }
    }

    fn end_channel(&mut self, at: usize, close: Close) {
        let topic = &mut self.topics[at];
        let TopicState::Joined(channel) = std::mem::replace(&mut topic.state, TopicState::Free) else {
            return;
        };
        let end = match close {
            Close::Superseded | Close::UserLeft | Close::Removed => channel_closed,
            // The client joins again, as a fresh member.
            _ => channel_failed,
        };
        let end = end(self.version, channel.join_ref.as_ref(), &topic.name);
        self.replies.push_back(end);
    }

    /// Handles held frames, as far as they need not wait; true if there was one.
    fn handle_held(&mut self) -> bool {
        let mut is_any = false;
        for at in 0..self.topics.len() {
            while !self.topics[at].is_in_transition() && !self.is_sending(at) {
                let Some(text) = self.topics[at].held.pop_front() else { break };
                is_any = true;
                if let Ok(frame) = ClientFrame::parse(self.version, &text) {
                    self.dispatch(Some(at), &frame);
                }
            }
        }
        is_any
    }

    fn is_sending(&mut self, at: usize) -> bool {
        self.topics[at].channel().is_some_and(|channel| channel.link.is_sending())
    }

    /// Number of messages that are not handled or not answered yet.
    fn unanswered(&self) -> usize {
        let of_feature = |topic: &Topic| match &topic.state {
            TopicState::Feature(topic) => topic.unanswered(),
            _ => 0,
        };
        self.topics.iter().map(|topic| topic.unanswered.len() + of_feature(topic)).sum()
    }

    fn held(&self) -> usize {
        self.topics.iter().map(|topic| topic.held.len()).sum()
    }

    /// The consequence of the messages handled since the last call.
    fn take_next(&mut self) -> Next {
        match NonZeroU32::new(std::mem::take(&mut self.owed_tokens)) {
            Some(tokens) => Next::Charge(tokens),
            None => Next::Read,
        }
    }

    fn links(&mut self) -> impl Iterator<Item = &mut MemberLink> {
        self.topics.iter_mut().filter_map(|topic| topic.channel().map(|channel| &mut channel.link))
    }
}
