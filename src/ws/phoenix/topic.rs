//! A topic of one socket: its membership in a room, and the messages that wait for it.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::sync::oneshot;
use tokio::time::Instant;
use tungstenite::Utf8Bytes;

use super::feature::FeatureTopic;
use super::joining::Joining;
use crate::id::UserId;
use crate::limit::ConcurrencyPermit;
use crate::protocol::client::{ClientMessage, MessageLimits};
use crate::protocol::close::Close;
use crate::protocol::phoenix::{ClientFrame, FramePayload, JOIN, LEAVE, Ref, Version};
use crate::room::link::MemberLink;

/// The answer to a message whose room failed before it handled the message.
const ROOM_FAILED: &str = "the room failed";

/// A topic that a socket has joined, or tries to join.
pub(super) struct Topic {
    /// Its name, as the client wrote it.
    pub(super) name: Arc<str>,
    pub(super) state: TopicState,
    /// Frames for this topic that wait for its join or leave, in order.
    pub(super) held: VecDeque<Utf8Bytes>,
    /// Messages that the room has not answered yet, in order.
    pub(super) unanswered: VecDeque<Unanswered>,
}

/// State of a topic.
pub(super) enum TopicState {
    /// Not joined.
    Free,
    /// The join is under way.
    Joining(Box<Joining>),
    /// Joined.
    Joined(Channel),
    /// Of another feature than rooms.
    Feature(Box<FeatureTopic>),
}

/// A joined topic.
pub(super) struct Channel {
    /// The reference of the join.
    pub(super) join_ref: Option<Ref>,
    /// The member.
    pub(super) user: UserId,
    /// True if the client chose the member's id: the membership outlasts a lost connection.
    pub(super) outlasts_socket: bool,
    /// The number in pings for this link.
    pub(super) number: u32,
    pub(super) link: MemberLink,
    /// True once the client's leave was sent to the room.
    pub(super) is_leaving: bool,
    /// The end that the room gave the link, announced once the room's answers are out.
    pub(super) ended: Option<Close>,
    pub(super) permit: ConcurrencyPermit,
}

/// A message that its room has not answered yet.
pub(super) struct Unanswered {
    /// The reference of the join that it belongs to.
    pub(super) join_ref: Option<Ref>,
    /// Its own reference; without one no reply is sent.
    pub(super) message_ref: Option<Ref>,
    /// Its type, for metrics.
    pub(super) kind: &'static str,
    /// Time of its arrival.
    pub(super) since: Instant,
    /// True if it leaves the topic.
    pub(super) is_leave: bool,
    pub(super) answer: oneshot::Receiver<Result<(), String>>,
}

impl Topic {
    /// A topic that is about to be joined.
    pub(super) fn new(name: Arc<str>, state: TopicState) -> Self {
        Self { name, state, held: VecDeque::new(), unanswered: VecDeque::new() }
    }

    /// True if a message has to wait for earlier ones.
    pub(super) fn is_busy(&self) -> bool {
        !self.held.is_empty() || self.is_in_transition()
    }

    /// True while a join or leave is under way.
    pub(super) fn is_in_transition(&self) -> bool {
        match &self.state {
            TopicState::Joining(_) => true,
            TopicState::Joined(channel) => channel.is_leaving,
            TopicState::Feature(topic) => topic.is_in_transition(),
            TopicState::Free => false,
        }
    }

    /// True if nothing of the topic is left to be done.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, TopicState::Free) && self.held.is_empty() && self.unanswered.is_empty()
    }

    /// The joined channel.
    pub(super) fn channel(&mut self) -> Option<&mut Channel> {
        match &mut self.state {
            TopicState::Joined(channel) => Some(channel),
            TopicState::Free | TopicState::Joining(_) | TopicState::Feature(_) => None,
        }
    }

    /// The topic of another feature than rooms.
    pub(super) fn feature(&mut self) -> Option<&mut FeatureTopic> {
        match &mut self.state {
            TopicState::Feature(topic) => Some(topic),
            TopicState::Free | TopicState::Joining(_) | TopicState::Joined(_) => None,
        }
    }

    /// The next answer of the room, in the order of the messages.
    pub(super) fn poll_answer(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<(Unanswered, Result<(), String>)> {
        let Some(first) = self.unanswered.front_mut() else { return Poll::Pending };
        let answer = ready!(Pin::new(&mut first.answer).poll(context));
        let Some(first) = self.unanswered.pop_front() else { return Poll::Pending };
        Poll::Ready((first, answer.unwrap_or_else(|_| Err(ROOM_FAILED.to_owned()))))
    }

    /// Ends the topic, because its socket is gone: the client believes that its messages arrived.
    pub(super) async fn end(self, version: Version, limits: MessageLimits, is_page_left: bool) {
        let (join_ref, mut link, outlasts_socket) = match self.state {
            TopicState::Free => return,
            TopicState::Feature(topic) => return topic.end().await,
            TopicState::Joining(joining) => match joining.joined.await {
                Ok(link) => (joining.join_ref, link, joining.outlasts_socket),
                Err(_) => return,
            },
            TopicState::Joined(channel) => (channel.join_ref, channel.link, channel.outlasts_socket),
        };
        for text in self.held {
            let Some(message) = last_message(version, &text, join_ref.as_ref(), limits) else { break };
            let gone = std::future::poll_fn(|context| link.poll_sent(context)).await.is_err();
            if gone || link.send(Ok(message), text.len(), None).is_err() {
                break;
            }
        }
        if outlasts_socket { link.disconnect(is_page_left).await } else { link.leave().await }
    }
}

/// A held message of a socket that is gone; `None` if the join that it belongs to is over.
fn last_message(
    version: Version,
    text: &str,
    current: Option<&Ref>,
    limits: MessageLimits,
) -> Option<ClientMessage> {
    let frame = ClientFrame::parse(version, text).ok()?;
    let is_current = frame.join_ref.is_none() || frame.join_ref.as_ref() == current;
    match (&*frame.event, frame.payload) {
        (JOIN, _) | (_, FramePayload::Bytes) => None,
        (LEAVE, _) if is_current => Some(ClientMessage::UserLeft),
        (event, FramePayload::Json(payload)) if is_current => {
            ClientMessage::parse_payload(event, payload.get(), limits).ok()
        }
        _ => None,
    }
}
