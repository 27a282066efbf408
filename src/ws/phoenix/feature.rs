//! Topics of other features than rooms, on the same sockets: the seam to them, and such a topic of one socket.
//!
//! A feature is above this module, so it registers what it serves as [`FeatureTopics`].

use std::collections::VecDeque;
use std::fmt;
use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::value::RawValue;
use tokio::time::Instant;

use crate::clock::now;
use crate::id::ConnectionId;
use crate::limit::ConcurrencyPermit;
use crate::network::ClientNetwork;
use crate::protocol::close::Close;
use crate::protocol::phoenix::Ref;

/// Number of messages that wait for their topic's join at which further ones are refused.
const MAX_WAITING: usize = 16;

/// The topics of a feature.
pub trait FeatureTopics: fmt::Debug + Send + Sync {
    /// The prefix of their names.
    fn prefix(&self) -> &'static str;

    /// True if a token that names no user opens a socket, which is then for these topics alone.
    fn opens_socket(&self, token: &[u8]) -> bool;

    /// Joins a topic.
    fn join(&self, join: FeatureJoin) -> BoxFuture<'static, Result<JoinedTopic, FeatureRefusal>>;
}

/// A request to join a topic.
#[derive(Debug)]
pub struct FeatureJoin {
    /// The topic's name, with the prefix.
    pub topic: Arc<str>,
    /// The parameters of the join.
    pub parameters: Box<RawValue>,
    /// The token that opened the socket, unless it names a user.
    pub token: Option<Arc<[u8]>>,
    /// The id of this join among all sockets and joins.
    pub connection: ConnectionId,
    /// The client's network, if known.
    pub network: Option<ClientNetwork>,
}

/// A topic that was joined.
pub struct JoinedTopic {
    /// The response of the join's reply, a JSON object.
    pub response: String,
    /// The way to the topic.
    pub link: Box<dyn FeatureLink>,
}

/// The refusal of a join.
#[derive(Debug)]
pub struct FeatureRefusal {
    /// Label of the reason in metrics.
    pub label: &'static str,
    /// The reason, for the client.
    pub reason: String,
}

/// One socket's way to a topic. It has no queue of its own: a topic that has no space for a message makes the client
/// wait.
pub trait FeatureLink: Send {
    /// Handles an event of the client. Answers come as output, in the order of the events.
    fn receive(&mut self, event: &str, payload: &RawValue);

    /// The next output for the client.
    fn poll_output(&mut self, context: &mut Context<'_>) -> Poll<FeatureOutput>;

    /// Ready, with the reason, once the topic has ended, even if output is still queued.
    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<Close>;

    /// Ready once everything received was handed on.
    fn poll_handed_on(&mut self, context: &mut Context<'_>) -> Poll<()>;

    /// Ready once there is space for a further message.
    fn poll_space(&mut self, context: &mut Context<'_>) -> Poll<()>;

    /// True while the client should not be read because there is no space.
    fn is_congested(&self) -> bool;

    /// Leaves the topic. Messages before it still count.
    fn leave(self: Box<Self>) -> BoxFuture<'static, ()>;
}

/// Output of a topic.
#[derive(Debug, PartialEq, Eq)]
pub enum FeatureOutput {
    /// An event with its payload, a JSON object.
    Push(&'static str, String),
    /// An event that the client asked for; what is long costs it tokens of its rate, as an answer does.
    Asked(&'static str, String),
    /// The answer to an event: the response, a JSON object, or the reason of its failure.
    Answer(Result<String, String>),
    /// The end of the topic.
    End(Close),
}

/// A topic of a feature on one socket.
pub(super) struct FeatureTopic {
    /// The reference of the newest join.
    pub(super) join_ref: Option<Ref>,
    state: FeatureState,
    /// The references of messages without an answer, in order.
    unanswered: VecDeque<Option<Ref>>,
    /// The reference of the client's leave, once it was received.
    leave: Option<Option<Ref>>,
    permit: Option<ConcurrencyPermit>,
}

enum FeatureState {
    Joining {
        message_ref: Option<Ref>,
        since: Instant,
        joined: BoxFuture<'static, Result<JoinedTopic, FeatureRefusal>>,
    },
    Joined(Box<dyn FeatureLink>),
    Leaving(BoxFuture<'static, ()>),
    Over,
}

/// Something that a topic's socket is to be told.
pub(super) enum TopicNews {
    /// The end of a join, with the reference of its message.
    Join(Option<Ref>, Instant, Result<String, FeatureRefusal>),
    /// The answer to a message with this reference.
    Answer(Option<Ref>, Result<String, String>),
    /// An event with its payload, and true if the client asked for it.
    Push(&'static str, String, bool),
    /// The client's leave is carried out.
    Left(Option<Ref>),
    /// The topic ended by itself.
    Ended(Close),
}

impl FeatureTopic {
    /// Begins to join a topic, after a `previous` join of it has ended.
    pub(super) fn new(
        refs: (Option<Ref>, Option<Ref>),
        (topics, join): (&Arc<dyn FeatureTopics>, FeatureJoin),
        permit: ConcurrencyPermit,
        previous: Option<Box<Self>>,
    ) -> Self {
        let (join_ref, message_ref) = refs;
        let topics = topics.clone();
        let joined = async move {
            if let Some(previous) = previous {
                previous.end().await;
            }
            topics.join(join).await
        };
        let state = FeatureState::Joining { message_ref, since: now(), joined: joined.boxed() };
        Self { join_ref, state, unanswered: VecDeque::new(), leave: None, permit: Some(permit) }
    }

    /// The permit of the join that is to be replaced.
    pub(super) fn take_permit(&mut self) -> Option<ConcurrencyPermit> {
        self.permit.take()
    }

    /// Number of messages without an answer.
    pub(super) fn unanswered(&self) -> usize {
        self.unanswered.len()
    }

    /// True while a join or leave is under way.
    pub(super) fn is_in_transition(&self) -> bool {
        self.leave.is_some() || matches!(self.state, FeatureState::Joining { .. })
    }

    /// Handles an event of the client. False if the topic is not joined.
    pub(super) fn receive(&mut self, message_ref: Option<Ref>, event: &str, payload: &RawValue) -> bool {
        let FeatureState::Joined(link) = &mut self.state else { return false };
        self.unanswered.push_back(message_ref);
        link.receive(event, payload);
        true
    }

    /// Leaves the topic, once all messages are answered.
    pub(super) fn leave(&mut self, message_ref: Option<Ref>) {
        self.leave = Some(message_ref);
    }

    /// The next news of the topic.
    pub(super) fn poll_news(&mut self, context: &mut Context<'_>) -> Poll<TopicNews> {
        if self.leave.is_some() && self.unanswered.is_empty() {
            match mem::replace(&mut self.state, FeatureState::Over) {
                FeatureState::Joined(link) => self.state = FeatureState::Leaving(link.leave()),
                other => self.state = other,
            }
        }
        let news = match &mut self.state {
            FeatureState::Joining { message_ref, since, joined } => {
                let joined = ready!(joined.as_mut().poll(context));
                let (message_ref, since) = (message_ref.take(), *since);
                let (state, result) = match joined {
                    Ok(JoinedTopic { response, link }) => (FeatureState::Joined(link), Ok(response)),
                    Err(refusal) => (FeatureState::Over, Err(refusal)),
                };
                self.state = state;
                TopicNews::Join(message_ref, since, result)
            }
            FeatureState::Joined(link) => match ready!(link.poll_output(context)) {
                FeatureOutput::Push(event, payload) => TopicNews::Push(event, payload, false),
                FeatureOutput::Asked(event, payload) => TopicNews::Push(event, payload, true),
                FeatureOutput::Answer(result) => {
                    TopicNews::Answer(self.unanswered.pop_front().flatten(), result)
                }
                FeatureOutput::End(close) => {
                    self.state = FeatureState::Over;
                    TopicNews::Ended(close)
                }
            },
            FeatureState::Leaving(left) => {
                ready!(left.as_mut().poll(context));
                self.state = FeatureState::Over;
                TopicNews::Left(self.leave.take().flatten())
            }
            FeatureState::Over => return Poll::Pending,
        };
        Poll::Ready(news)
    }

    /// Ready, with the reason, once the topic has ended by itself, even if output is still queued.
    pub(super) fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<Close> {
        match &mut self.state {
            FeatureState::Joined(link) => link.poll_end(context),
            _ => Poll::Pending,
        }
    }

    /// True once nothing more comes of the topic.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, FeatureState::Over)
    }

    /// Ready once everything received was handed on.
    pub(super) fn poll_handed_on(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match &mut self.state {
            FeatureState::Joined(link) => link.poll_handed_on(context),
            _ => Poll::Ready(()),
        }
    }

    /// Ready once there is space for a further message.
    pub(super) fn poll_space(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match &mut self.state {
            FeatureState::Joined(link) if self.unanswered.len() < MAX_WAITING => link.poll_space(context),
            FeatureState::Joined(_) => Poll::Pending,
            _ => Poll::Ready(()),
        }
    }

    /// True while the client should not be read.
    pub(super) fn is_congested(&self) -> bool {
        match &self.state {
            FeatureState::Joined(link) => self.unanswered.len() >= MAX_WAITING || link.is_congested(),
            _ => false,
        }
    }

    /// Ends the topic, because its socket is gone or it is joined anew.
    pub(super) async fn end(self) {
        match self.state {
            FeatureState::Joining { joined, .. } => {
                if let Ok(JoinedTopic { link, .. }) = joined.await {
                    link.leave().await;
                }
            }
            FeatureState::Joined(link) => link.leave().await,
            FeatureState::Leaving(left) => left.await,
            FeatureState::Over => {}
        }
    }
}
