//! The flow between the transport and the topics: output in turns, and backpressure.

use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::time::Instant;
use tungstenite::Utf8Bytes;

use super::super::super::boundary::BYTES_A_TOKEN;
use super::super::super::session::{Next, Output, Session};
use super::super::feature::FeatureTopic;
use super::super::topic::{Topic, TopicState};
use super::{MAX_HELD, MAX_UNANSWERED, PhoenixSession};
use crate::clock::now;
use crate::protocol::close::Close;
use crate::protocol::deflate::Encoding;
use crate::protocol::phoenix::{ClientFrame, Envelope, Unreadable, envelope};
use crate::protocol::server::MessageKind;
use crate::room::link::{Acknowledged, MemberLink, Taken};
use crate::room::message::SharedMessage;

impl PhoenixSession {
    fn features(&mut self) -> impl Iterator<Item = &mut FeatureTopic> {
        self.topics.iter_mut().filter_map(Topic::feature)
    }

    /// Carries on all joins, answers and held messages.
    fn poll_topics(&mut self, context: &mut Context<'_>) {
        for at in 0..self.topics.len() {
            while let Poll::Ready((message, result)) = self.topics[at].poll_answer(context) {
                self.pass_on_answer(at, &message, result);
            }
            self.announce_end(at);
            if let TopicState::Joining(joining) = &mut self.topics[at].state
                && let Poll::Ready(joined) = joining.joined.as_mut().poll(context)
                && let TopicState::Joining(joining) =
                    std::mem::replace(&mut self.topics[at].state, TopicState::Free)
            {
                self.finish_join(at, *joining, joined);
            }
        }
    }

    /// The next message of a topic, from each in turn; `None` if it is among the replies instead, or a room ended a
    /// topic.
    fn poll_rooms(&mut self, context: &mut Context<'_>) -> Poll<Option<Output>> {
        let count = self.topics.len();
        for step in 0..count {
            let at = (self.turn + step) % count;
            let topic = &mut self.topics[at];
            if let TopicState::Feature(feature) = &mut topic.state {
                let Poll::Ready(news) = feature.poll_news(context) else { continue };
                self.turn = at + 1;
                self.tell_news(at, news);
                if !self.topics[at].held.is_empty() {
                    // They waited for a join or leave that is over.
                    context.waker().wake_by_ref();
                }
                return Poll::Ready(None);
            }
            let TopicState::Joined(channel) = &mut topic.state else { continue };
            if channel.ended.is_some() {
                continue;
            }
            let Poll::Ready(taken) = channel.link.poll_next(context) else { continue };
            self.turn = at + 1;
            return Poll::Ready(match taken {
                Taken::Message(payload) => {
                    let Envelope { head, tail } =
                        envelope(self.version, channel.join_ref.as_ref(), &topic.name, payload.kind);
                    Some(Output::Enveloped { head, payload, tail })
                }
                // Events that nobody could return for need no confirmation, and some clients fail at a ping.
                Taken::Ping(number) if !channel.outlasts_socket || !self.client.answers_pings => {
                    channel.link.ack(now(), number);
                    None
                }
                Taken::Ping(number) => {
                    let payload = [&channel.number.to_be_bytes()[..], &number.to_be_bytes()].concat();
                    Some(Output::Ping(payload.into()))
                }
                Taken::Close(close) => {
                    self.channel_ended(at, close);
                    None
                }
            });
        }
        Poll::Pending
    }
}

impl Session for PhoenixSession {
    fn poll_output(&mut self, context: &mut Context<'_>) -> Poll<Output> {
        loop {
            // A join's reply precedes everything of its topic.
            if let Some(reply) = self.replies.pop_front() {
                return Poll::Ready(if reply.len() < BYTES_A_TOKEN {
                    Output::Reply(reply)
                } else {
                    // Long ones count in the memory of what waits to be read.
                    let message = SharedMessage::new(MessageKind::Object, reply, self.metrics());
                    Output::Text(message.payload(Encoding::Identity))
                });
            }
            if let Some(close @ Close::TooSlow) = self.closing {
                return Poll::Ready(Output::Close(close));
            }
            match self.poll_rooms(context) {
                Poll::Ready(Some(output)) => return Poll::Ready(output),
                Poll::Ready(None) => {}
                Poll::Pending => break,
            }
        }
        let is_stopping = self.stopping.as_mut().poll(context).is_ready();
        if is_stopping && self.topics.is_empty() {
            // No room closes its socket.
            self.closing.get_or_insert(Close::ServiceRestart);
        }
        self.closing.map_or(Poll::Pending, |close| Poll::Ready(Output::Close(close)))
    }

    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let is_end = |end| matches!(end, Poll::Ready(Close::TooSlow | Close::ServiceRestart));
        let is_over = self.closing.is_some()
            || self.links().any(|link| is_end(link.poll_end(context)))
            || self.features().any(|topic| is_end(topic.poll_end(context)));
        if is_over { Poll::Ready(()) } else { Poll::Pending }
    }

    fn receive(&mut self, text: &Utf8Bytes) -> Next {
        match ClientFrame::parse(self.version, text) {
            Ok(frame) => {
                self.handle(&frame, Some(text));
                self.take_next()
            }
            Err(Unreadable) => Next::Reject(Close::Unreadable),
        }
    }

    fn receive_binary(&mut self, bytes: &Bytes) -> Next {
        match ClientFrame::parse_binary(self.version, bytes) {
            Ok(frame) => {
                self.handle(&frame, None);
                self.take_next()
            }
            Err(Unreadable) => Next::Reject(Close::Unreadable),
        }
    }

    fn receive_pong(&mut self, now: Instant, payload: &[u8]) -> bool {
        let Some((channel, number)) = payload.split_first_chunk() else { return false };
        let (channel, Ok(number)) = (u32::from_be_bytes(*channel), number.try_into()) else { return false };
        let channels = self.topics.iter_mut().filter_map(Topic::channel);
        channels
            .into_iter()
            .find(|other| other.number == channel)
            .is_some_and(|channel| channel.link.ack(now, u64::from_be_bytes(number)) == Acknowledged::News)
    }

    fn poll_handed_on(&mut self, context: &mut Context<'_>) -> Poll<Next> {
        loop {
            let mut is_sent = true;
            for link in self.links() {
                is_sent &= link.poll_sent(context).is_ready();
            }
            for topic in self.features() {
                is_sent &= topic.poll_handed_on(context).is_ready();
            }
            self.poll_topics(context);
            // A held message may wait for its room, or begin a join, which has to be polled.
            if !self.handle_held() {
                self.topics.retain(|topic| !topic.is_over());
                return if is_sent { Poll::Ready(self.take_next()) } else { Poll::Pending };
            }
        }
    }

    fn poll_space(&mut self, context: &mut Context<'_>) -> Poll<()> {
        // A client that does not read its replies is not read either.
        if self.replies.len() + self.unanswered() >= MAX_UNANSWERED || self.held() >= MAX_HELD {
            return Poll::Pending;
        }
        // The room of the next message is not known before the message is read.
        let mut has_space = true;
        for link in self.links() {
            has_space &= link.poll_space(context).is_ready();
        }
        for topic in self.features() {
            has_space &= topic.poll_space(context).is_ready();
        }
        if has_space {
            return Poll::Ready(());
        }
        // Space of one room must not be held while another one is waited for: sockets would wait for each other.
        self.release_space();
        Poll::Pending
    }

    fn release_space(&mut self) {
        self.links().for_each(MemberLink::release_space);
    }

    fn is_congested(&self) -> bool {
        let is_link_congested = |topic: &Topic| match &topic.state {
            TopicState::Joined(channel) => channel.link.is_congested(),
            TopicState::Feature(topic) => topic.is_congested(),
            TopicState::Free | TopicState::Joining(_) => false,
        };
        self.unanswered() >= MAX_UNANSWERED
            || self.held() >= MAX_HELD
            || self.topics.iter().any(is_link_congested)
    }

    fn poll_keeps_up(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut keeps_up = true;
        for link in self.links() {
            keeps_up &= link.poll_keeps_up(context).is_ready();
        }
        if keeps_up { Poll::Ready(()) } else { Poll::Pending }
    }

    fn set_throttled(&mut self, now: Instant, throttled: bool) {
        self.is_throttled = throttled;
        self.links().for_each(|link| link.set_throttled(now, throttled));
    }

    fn revoke(&mut self) {
        self.links().for_each(|link| link.revoke());
    }

    async fn end(self, is_page_left: bool) {
        let Self { topics, version, sockets, .. } = self;
        let limits = sockets.message_limits;
        join_all(topics.into_iter().map(|topic| topic.end(version, limits, is_page_left))).await;
    }
}
