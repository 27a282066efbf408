//! A request body lent to one attempt of a call: it is limited, reports its progress, and is returned if it was
//! never polled, so that the call can be retried.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use http_body::{Body as _, Frame, SizeHint};
use sync_wrapper::SyncWrapper;
use tokio::sync::oneshot;

/// Progress of a lent body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum BodyProgress {
    /// Never polled.
    Untouched,
    /// Partly forwarded.
    Underway,
    /// Waiting for the client's next chunk.
    Awaited,
    /// Forwarded completely.
    Done,
    /// Longer than the limit.
    TooLong,
    /// Aborted by the client.
    Broken,
}

/// A body for one attempt.
pub(super) struct RetryableBody {
    /// `None` after it was returned, exceeded the limit or failed.
    body: Option<SyncWrapper<Body>>,
    /// Remaining bytes of the limit.
    left: usize,
    /// Read at the start, since `SyncWrapper` gives no shared access to the body.
    size: SizeHint,
    progress: Arc<AtomicU8>,
    home: Option<oneshot::Sender<Body>>,
}

/// The lender's handle to a lent body.
pub(super) struct Receipt {
    progress: Arc<AtomicU8>,
    home: oneshot::Receiver<Body>,
}

/// The body was too long, or its client aborted it; the receipt's progress tells the cause.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the request's body is incomplete")]
pub(super) struct Cut;

/// Lends `body` with a limit of `limit` bytes.
pub(super) fn lend(body: Body, limit: usize) -> (RetryableBody, Receipt) {
    let progress = Arc::new(AtomicU8::new(BodyProgress::Untouched as u8));
    let (home, back) = oneshot::channel();
    let size = body.size_hint();
    let body = Some(SyncWrapper::new(body));
    let lent = RetryableBody { body, left: limit, size, progress: progress.clone(), home: Some(home) };
    (lent, Receipt { progress, home: back })
}

impl Receipt {
    /// The body's current progress.
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

    /// Returns the body if the attempt ended without polling it.
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
        // No longer returned: a poller may have sent the headers already.
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
        // A body of known length keeps its `Content-Length` by this.
        self.size
    }
}

impl Drop for RetryableBody {
    fn drop(&mut self) {
        if let (Some(home), Some(body)) = (self.home.take(), self.body.take()) {
            // The lender may have been dropped.
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
    async fn untouched_body_is_returned_and_lent_again() {
        let (lent, receipt) = lend(chunks(&["a", "b"]), 2);
        drop(lent);
        assert_eq!(receipt.progress(), BodyProgress::Untouched);
        let (lent, receipt) = lend(receipt.take_back().unwrap(), 2);
        assert_eq!(lent.collect().await.unwrap().to_bytes(), "ab");
        assert_eq!(receipt.progress(), BodyProgress::Done);
        assert!(receipt.take_back().is_none());
    }

    #[tokio::test]
    async fn polled_body_is_not_returned() {
        let (mut lent, receipt) = lend(chunks(&["a", "b"]), 2);
        lent.frame().await.unwrap().unwrap();
        drop(lent);
        assert_eq!(receipt.progress(), BodyProgress::Underway);
        assert!(receipt.take_back().is_none());
    }

    #[tokio::test]
    async fn body_over_the_limit_fails() {
        let (lent, receipt) = lend(chunks(&["abc", "d"]), 3);
        assert!(lent.collect().await.is_err());
        assert_eq!(receipt.progress(), BodyProgress::TooLong);
    }

    #[tokio::test]
    async fn awaited_and_broken_bodies_are_reported() {
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
    fn known_length_is_kept() {
        let (lent, _receipt) = lend(Body::from("abc"), 9);
        assert_eq!(lent.size_hint().exact(), Some(3));
    }
}
