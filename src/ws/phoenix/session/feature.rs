//! Topics of other features than rooms in a session: their joins, and what they tell the client.

use std::sync::Arc;

use super::super::super::boundary::BYTES_A_TOKEN;
use super::super::super::handshake::warn_of_network_limit;
use super::super::PhoenixEndpoint;
use super::super::feature::{FeatureJoin, FeatureRefusal, FeatureTopic, FeatureTopics, TopicNews};
use super::super::topic::TopicState;
use super::{NO_BINARY, PhoenixSession, RESTARTING, SocketUser, TOO_MANY_TOPICS, UNMATCHED};
use crate::metrics::Metrics;
use crate::protocol::close::Close;
use crate::protocol::phoenix::{
    ClientFrame, FramePayload, JOIN, LEAVE, Status, channel_closed, channel_failed, push, reply, reply_reason,
};

impl PhoenixSession {
    /// Begins the join of a topic of another feature than rooms.
    pub(super) fn begin_feature_join(
        &mut self,
        at: Option<usize>,
        topics: &Arc<dyn FeatureTopics>,
        frame: &ClientFrame<'_>,
    ) -> Result<(), (&'static str, String)> {
        let refused = |label, reason: &str| Err((label, reason.to_owned()));
        let FramePayload::Json(parameters) = frame.payload else { return refused("invalid", NO_BINARY) };
        if self.closing.is_some() {
            return refused("shutting_down", RESTARTING);
        }
        let Some(PhoenixEndpoint { topics: most, memberships, .. }) = &self.sockets.phoenix else {
            return refused("unmatched", UNMATCHED);
        };
        let name: Arc<str> = (&*frame.topic).into();
        let previous = at.map(|at| std::mem::replace(&mut self.topics[at].state, TopicState::Free));
        let mut previous = match previous {
            Some(TopicState::Feature(previous)) => Some(previous),
            _ => None,
        };
        let permit = match previous.as_mut().and_then(|previous| previous.take_permit()) {
            Some(permit) => permit,
            None if at.is_none() && self.topics.len() >= *most => {
                return refused("too_many_topics", TOO_MANY_TOPICS);
            }
            None => memberships.try_acquire(self.client.network).map_err(|exceeded| {
                let error = crate::ws::refusals::too_many_sockets(exceeded);
                warn_of_network_limit(&self.http, self.client.network, error);
                (error.label(), error.to_string())
            })?,
        };
        if let Some(previous) = &previous {
            let closed = channel_closed(self.version, previous.join_ref.as_ref(), &name);
            self.replies.push_back(closed);
        }
        let token = match &self.client.user {
            SocketUser::User(_) => None,
            SocketUser::Token(token) => Some(token.clone()),
        };
        let join = FeatureJoin {
            topic: name.clone(),
            parameters: parameters.to_owned(),
            token,
            connection: self.sockets.tasks.next_id(),
            network: self.client.network,
        };
        let refs = (frame.join_ref.clone(), frame.message_ref.clone());
        let joined = FeatureTopic::new(refs, (topics, join), permit, previous);
        let state = TopicState::Feature(Box::new(joined));
        match at {
            Some(at) => self.topics[at].state = state,
            None => self.add_topic(name, state),
        }
        Ok(())
    }

    /// Tells the client the news of the feature's topic at this index.
    pub(super) fn tell_news(&mut self, at: usize, news: TopicNews) {
        let (version, name) = (self.version, self.topics[at].name.clone());
        let join_ref = self.topics[at].feature().and_then(|topic| topic.join_ref.clone());
        let join_ref = join_ref.as_ref();
        let asked = match &news {
            TopicNews::Join(_, _, Ok(text))
            | TopicNews::Answer(_, Ok(text))
            | TopicNews::Push(_, text, true) => text.len(),
            _ => 0,
        };
        // Paid before the next message is read: a few bytes ask for a whole state.
        self.owed_tokens += u32::try_from(asked / BYTES_A_TOKEN).unwrap_or(u32::MAX);
        match news {
            TopicNews::Join(message_ref, since, Ok(response)) => {
                Metrics::count(&self.metrics().phoenix_joins, "joined");
                self.observe(JOIN, "ok", since);
                if message_ref.is_some() {
                    let result = (Status::Ok, &*response);
                    self.replies.push_back(reply(version, join_ref, message_ref.as_ref(), &name, result));
                }
            }
            TopicNews::Join(message_ref, since, Err(FeatureRefusal { label, reason })) => {
                self.observe(JOIN, "error", since);
                self.refuse_join(join_ref, message_ref.as_ref(), &name, (label, &reason));
            }
            TopicNews::Answer(None, _) => {}
            TopicNews::Answer(message_ref, Ok(response)) => {
                let result = (Status::Ok, &*response);
                self.replies.push_back(reply(version, join_ref, message_ref.as_ref(), &name, result));
            }
            TopicNews::Answer(message_ref, Err(reason)) => {
                let result = Err(&*reason);
                let answer = reply_reason(version, join_ref, message_ref.as_ref(), &name, result);
                self.replies.push_back(answer);
            }
            TopicNews::Push(event, payload, _) => {
                self.replies.push_back(push(version, &name, event, &payload))
            }
            TopicNews::Left(message_ref) => {
                if message_ref.is_some() {
                    let left = reply_reason(version, join_ref, message_ref.as_ref(), &name, Ok(()));
                    self.replies.push_back(left);
                }
                self.replies.push_back(channel_closed(version, join_ref, &name));
            }
            TopicNews::Ended(close @ (Close::TooSlow | Close::ServiceRestart)) => {
                self.closing.get_or_insert(close);
            }
            TopicNews::Ended(_) => self.replies.push_back(channel_failed(version, join_ref, &name)),
        }
        if self.topics[at].feature().is_some_and(|topic| topic.is_over()) {
            self.topics[at].state = TopicState::Free;
        }
    }
}

/// Handles a frame for a topic of another feature than rooms; returns the reason for refusing it.
pub(super) fn receive(topic: &mut FeatureTopic, frame: &ClientFrame<'_>) -> Option<&'static str> {
    if frame.join_ref.is_some() && frame.join_ref != topic.join_ref {
        // Of a join that is over; its client awaits no answer.
        return None;
    }
    let message_ref = frame.message_ref.clone();
    match (&*frame.event, frame.payload) {
        (LEAVE, _) => {
            topic.leave(message_ref);
            None
        }
        (_, FramePayload::Bytes) => Some(NO_BINARY),
        (event, FramePayload::Json(payload)) => {
            let is_joined = topic.receive(message_ref, event, payload);
            (!is_joined).then_some(UNMATCHED)
        }
    }
}
