//! Waiting for a decision.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::sync::oneshot;

use super::policy::Verdict;

/// A decision that may still be on its way.
#[derive(Debug)]
pub enum Pending {
    Ready(Option<Verdict>),
    Waiting(oneshot::Receiver<Verdict>),
}

impl Pending {
    /// The refusal, if it is known already.
    #[must_use]
    pub fn refused(&self) -> Option<&Verdict> {
        match self {
            Self::Ready(verdict) => verdict.as_ref().filter(|verdict| !verdict.granted),
            Self::Waiting(_) => None,
        }
    }
}

impl Future for Pending {
    type Output = Verdict;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Verdict> {
        match &mut *self {
            Self::Ready(verdict) => Poll::Ready(verdict.take().unwrap_or_else(Verdict::unlimited)),
            // Who should have answered has gone, which happens only while the process ends.
            Self::Waiting(answer) => Pin::new(answer)
                .poll(context)
                .map(|answer| answer.unwrap_or_else(|_gone| Verdict::unlimited())),
        }
    }
}
