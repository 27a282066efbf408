//! The subscription of a task to a subject, such as a room's to its journal.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::nodes::engine::{Engine, Followed, Following, NoAnswer, Subject};

/// Time between two attempts to follow a subject.
const PAUSE: Duration = Duration::from_millis(250);

/// The entries and broadcasts of a subject, which is followed again whenever that ends.
pub(in crate::nodes) struct Feed<E: Engine> {
    engine: E,
    subject: Subject,
    state: State<E::Following>,
}

enum State<F> {
    Asking(BoxFuture<'static, Result<F, NoAnswer>>),
    Following(F),
}

/// News of a feed.
#[derive(Debug)]
pub(in crate::nodes) enum News {
    /// Everything that is stored from now on comes; what was stored before may not have come.
    Begun,
    /// An entry or a broadcast.
    Followed(Followed),
}

impl<E: Engine> Feed<E> {
    pub(in crate::nodes) fn new(engine: E, subject: Subject) -> Self {
        let state = State::Asking(Self::ask(&engine, subject, Duration::ZERO));
        Self { engine, subject, state }
    }

    fn ask(
        engine: &E,
        subject: Subject,
        pause: Duration,
    ) -> BoxFuture<'static, Result<E::Following, NoAnswer>> {
        let engine = engine.clone();
        async move {
            tokio::time::sleep(pause).await;
            engine.follow(subject).await
        }
        .boxed()
    }

    /// Waits for news. None are lost if the wait is given up.
    pub(in crate::nodes) async fn next(&mut self) -> News {
        loop {
            match &mut self.state {
                State::Asking(asking) => match asking.await {
                    Ok(following) => {
                        self.state = State::Following(following);
                        return News::Begun;
                    }
                    Err(NoAnswer) => self.state = State::Asking(Self::ask(&self.engine, self.subject, PAUSE)),
                },
                State::Following(following) => match following.next().await {
                    Some(news) => return News::Followed(news),
                    None => self.state = State::Asking(Self::ask(&self.engine, self.subject, PAUSE)),
                },
            }
        }
    }
}
