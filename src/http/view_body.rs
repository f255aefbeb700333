//! The body of an answer that shows what is kept: handed on in the pieces in which it is kept, and not copied here.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use actix_web::{
    body::{BodySize, MessageBody},
    web::Bytes,
};

use crate::{cache::Value, queries::view::View};

/// A view's body.
pub(super) struct ViewBody {
    view: Value<View>,
    /// The next piece that is to be sent.
    next: usize,
}

impl ViewBody {
    pub(super) const fn new(view: Value<View>) -> Self {
        Self { view, next: 0 }
    }
}

impl MessageBody for ViewBody {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        let length: usize = self.view.body_pieces().iter().map(|piece| piece.len()).sum();
        BodySize::Sized(u64::try_from(length).unwrap_or(u64::MAX))
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Infallible>>> {
        while self.next < View::PIECES {
            let piece = Piece { view: self.view.clone(), index: self.next };
            self.next += 1;
            if !piece.as_ref().is_empty() {
                return Poll::Ready(Some(Ok(Bytes::from_owner(piece))));
            }
        }
        Poll::Ready(None)
    }
}

struct Piece {
    view: Value<View>,
    index: usize,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        self.view.body_pieces().get(self.index).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use actix_web::body::to_bytes;

    use super::*;

    #[actix_web::test]
    async fn a_body_is_sent_whole_in_however_many_pieces_it_is_kept() {
        for (length, pieces) in [(10, 1), (1100, 2), (20_000, 1)] {
            let view = Value::from(View::object(1, &"x".repeat(length)));
            assert_eq!(view.body_pieces().iter().filter(|piece| !piece.is_empty()).count(), pieces);
            let body = ViewBody::new(view.clone());
            assert_eq!(body.size(), BodySize::Sized(length as u64 + 2));
            assert_eq!(to_bytes(body).await.unwrap(), view.body());
            assert_eq!(view.body(), format!("\"{}\"", "x".repeat(length)).into_bytes());
        }
    }
}
