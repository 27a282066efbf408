//! A body that is lent to one try of a call: it is limited, tells how far it came, and comes back
//! if it was never touched, so that the call can be tried again.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use http_body::{Body as _, Frame, SizeHint};
use sync_wrapper::SyncWrapper;
use tokio::sync::oneshot;

/// How far a lent body came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum BodyProgress {
    /// Nobody asked for a byte of it.
    Untouched,
    /// A part of it was sent on, and more is there or to come.
    Underway,
    /// Its client owes the next part.
    Awaited,
    /// All of it was sent on.
    Done,
    /// It is longer than the limit.
    TooLong,
    /// Its client broke off.
    Broken,
}

/// A body for one try.
pub(super) struct RetryableBody {
    /// None once it is given back or was found too long.
    body: Option<SyncWrapper<Body>>,
    /// The bytes that it may still have.
    left: usize,
    /// Taken at the start: what wraps the body gives no shared access to it.
    size: SizeHint,
    progress: Arc<AtomicU8>,
    home: Option<oneshot::Sender<Body>>,
}

/// What stays with the lender.
pub(super) struct Receipt {
    progress: Arc<AtomicU8>,
    home: oneshot::Receiver<Body>,
}

/// The body was too long, or its client broke off; the receipt knows which.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the request's body is incomplete")]
pub(super) struct Cut;

/// Lends `body` of at most `limit` bytes.
pub(super) fn lend(body: Body, limit: usize) -> (RetryableBody, Receipt) {
    let progress = Arc::new(AtomicU8::new(BodyProgress::Untouched as u8));
    let (home, back) = oneshot::channel();
    let size = body.size_hint();
    let body = Some(SyncWrapper::new(body));
    let lent = RetryableBody { body, left: limit, size, progress: progress.clone(), home: Some(home) };
    (lent, Receipt { progress, home: back })
}

impl Receipt {
    /// How far the body came until now.
    pub(super) fn progress(&self) -> BodyProgress {
        match self.progress.load(Ordering::Acquire) {
            0 => BodyProgress::Untouched,
            1 => BodyProgress::Underway,
            2 => BodyProgress::Awaited,
            3 => BodyProgress::Done,
            4 => BodyProgress::TooLong,
            _ => BodyProgress::Broken,
        }
    }

    /// The body, if the try ended without touching it.
    pub(super) fn take_back(mut self) -> Option<Body> {
        self.home.try_recv().ok()
    }
}

impl RetryableBody {
    fn note(&self, progress: BodyProgress) {
        self.progress.store(progress as u8, Ordering::Release);
    }
}

impl http_body::Body for RetryableBody {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        // Untouched no more: whoever polls may have sent the head already.
        self.home = None;
        let Some(body) = self.body.as_mut() else { return Poll::Ready(None) };
        let polled = Pin::new(body.get_mut()).poll_frame(context);
        let (progress, result) = match polled {
            Poll::Pending => (BodyProgress::Awaited, Poll::Pending),
            Poll::Ready(None) => (BodyProgress::Done, Poll::Ready(None)),
            Poll::Ready(Some(Err(_))) => (BodyProgress::Broken, Poll::Ready(Some(Err(Cut)))),
            Poll::Ready(Some(Ok(frame))) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                match self.left.checked_sub(bytes) {
                    Some(left) => {
                        self.left = left;
                        let done = self.body.as_mut().is_some_and(|body| body.get_mut().is_end_stream());
                        let progress = if done { BodyProgress::Done } else { BodyProgress::Underway };
                        (progress, Poll::Ready(Some(Ok(frame))))
                    }
                    None => (BodyProgress::TooLong, Poll::Ready(Some(Err(Cut)))),
                }
            }
        };
        self.note(progress);
        if matches!(progress, BodyProgress::TooLong | BodyProgress::Broken) {
            self.body = None;
        }
        result
    }

    fn size_hint(&self) -> SizeHint {
        // With it a body of known length keeps its Content-Length.
        self.size
    }
}

impl Drop for RetryableBody {
    fn drop(&mut self) {
        if let (Some(home), Some(body)) = (self.home.take(), self.body.take()) {
            // The lender may be gone.
            let _ = home.send(body.into_inner());
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt, stream};
    use http_body_util::BodyExt;

    use super::*;

    fn chunks(parts: &[&'static str]) -> Body {
        Body::from_stream(stream::iter(parts.iter().map(|part| Ok::<_, Cut>(*part)).collect::<Vec<_>>()))
    }

    #[tokio::test]
    async fn an_untouched_body_comes_back_and_can_be_lent_again() {
        let (lent, receipt) = lend(chunks(&["a", "b"]), 2);
        drop(lent);
        assert_eq!(receipt.progress(), BodyProgress::Untouched);
        let (lent, receipt) = lend(receipt.take_back().unwrap(), 2);
        assert_eq!(lent.collect().await.unwrap().to_bytes(), "ab");
        assert_eq!(receipt.progress(), BodyProgress::Done);
        assert!(receipt.take_back().is_none());
    }

    #[tokio::test]
    async fn a_touched_body_never_comes_back() {
        let (mut lent, receipt) = lend(chunks(&["a", "b"]), 2);
        lent.frame().await.unwrap().unwrap();
        drop(lent);
        assert_eq!(receipt.progress(), BodyProgress::Underway);
        assert!(receipt.take_back().is_none());
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_cut_before_its_end() {
        let (lent, receipt) = lend(chunks(&["abc", "d"]), 3);
        assert!(lent.collect().await.is_err());
        assert_eq!(receipt.progress(), BodyProgress::TooLong);
    }

    #[tokio::test]
    async fn what_a_client_owes_or_breaks_off_is_told() {
        let waiting = stream::iter([Ok::<_, Cut>("a")]).chain(stream::pending());
        let (mut lent, receipt) = lend(Body::from_stream(waiting), 9);
        lent.frame().await.unwrap().unwrap();
        assert!(futures_util::poll!(std::pin::pin!(lent.frame())).is_pending());
        assert_eq!(receipt.progress(), BodyProgress::Awaited);

        let (lent, receipt) = lend(Body::from_stream(stream::iter([Ok("a"), Err(Cut)])), 9);
        assert!(lent.collect().await.is_err());
        assert_eq!(receipt.progress(), BodyProgress::Broken);
    }

    #[test]
    fn a_known_length_stays_known() {
        let (lent, _receipt) = lend(Body::from("abc"), 9);
        assert_eq!(lent.size_hint().exact(), Some(3));
    }
}
