//! What one client is sent: what it has missed, page by page, and then what happens.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, stream};
use rand::Rng as _;

use super::{KEEP_MINUTES, frame, hub::Joined, position::Position};
use crate::{
    db::{Db, DbError, snapshot::Snapshot},
    domain::id::UserId,
    models::events::Event,
    telemetry::Chain,
};

/// Events on a page of what was missed.
const PAGE: i64 = 200;
/// Frames that are sent as one piece.
const AT_ONCE: usize = 64;
/// How long before they are deleted events are no longer counted on, in milliseconds.
const MARGIN_MS: i64 = 5 * 60 * 1000;

/// Where a client wants to go on.
#[derive(Debug)]
pub enum Start {
    /// With what happens from now on.
    Now,
    /// After what it was sent; nothing, if it cannot be known what that was.
    After(Option<Position>),
}

struct Feed {
    db: Db,
    user: UserId,
    /// When what the client has seen was read, in milliseconds since 1970.
    seen_at_ms: i64,
    /// What is sent first.
    greeting: Option<Bytes>,
    /// What was missed: from one snapshot to another, after a number.
    missed: VecDeque<(Snapshot, Snapshot, i64)>,
    joined: Joined,
}

/// The pieces that a client is sent, until it is to come again.
pub fn feed(db: Db, user: UserId, joined: Joined, start: Start) -> impl Stream<Item = Bytes> + Send {
    // Not all at once after a restart.
    let retry = format!("retry: {}\n", rand::rng().random_range(2000..5000));
    let present = &joined.position;
    let (greeting, missed, seen_at_ms) = match start {
        Start::Now => (format!("{retry}id: {present}\n\n"), VecDeque::new(), present.at_ms),
        Start::After(Some(last)) if is_kept(&last, present) => {
            (format!("{retry}\n"), missed(&last, present), last.at_ms)
        }
        Start::After(_) => {
            let reset = "event: reset\ndata: {\"type\":\"reset\"}\n\n";
            (format!("{retry}id: {present}\n{reset}"), VecDeque::new(), present.at_ms)
        }
    };
    let feed = Feed { db, user, seen_at_ms, greeting: Some(greeting.into()), missed, joined };
    stream::unfold(feed, |mut feed| async move { Some((feed.next().await?, feed)) })
}

/// Whether everything since a position is still in the log, and the position is one of it.
fn is_kept(last: &Position, present: &Position) -> bool {
    let age_ms = present.at_ms.saturating_sub(last.at_ms);
    (-MARGIN_MS..=KEEP_MINUTES * 60 * 1000 - MARGIN_MS).contains(&age_ms) && last.end() <= present.end()
}

fn missed(last: &Position, present: &Position) -> VecDeque<(Snapshot, Snapshot, i64)> {
    let to = present.seen.clone();
    match last.partly.clone() {
        Some((number, next)) => VecDeque::from([(last.seen.clone(), next.clone(), number), (next, to, 0)]),
        None => VecDeque::from([(last.seen.clone(), to, 0)]),
    }
}

impl Feed {
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(greeting) = self.greeting.take() {
            return Some(greeting);
        }
        if !self.missed.is_empty() {
            // Dropped by the hub, perhaps because the session has ended: what is left can be had by whoever still may.
            if self.joined.frames.is_closed() && self.joined.frames.is_empty() {
                return None;
            }
            return match self.next_missed().await {
                Ok(piece) => Some(piece),
                Err(err) => {
                    log::warn!("error.chain":% = Chain(&err); "missed events cannot be read; the client will come again");
                    None
                }
            };
        }
        let mut frames = Vec::new();
        if self.joined.frames.recv_many(&mut frames, AT_ONCE).await == 0 {
            return None;
        }
        let mut piece = BytesMut::new();
        frames.iter().for_each(|frame| piece.extend_from_slice(frame));
        Some(piece.freeze())
    }

    async fn next_missed(&mut self) -> Result<Bytes, DbError> {
        let mut piece = BytesMut::new();
        while piece.is_empty()
            && let Some((from, to, after)) = self.missed.front_mut()
        {
            let user = self.user;
            let (between, number) = ((&*from, &*to), *after);
            let events =
                self.db.read(async |db| Event::list_of_user(db, user, between, number, PAGE).await).await?;
            for event in &events {
                let partly = Some((event.id, to.clone()));
                let position = Position { at_ms: self.seen_at_ms, seen: from.clone(), partly };
                piece.extend_from_slice(&frame(&position, event));
                *after = event.id;
            }
            if i64::try_from(events.len()).is_ok_and(|count| count < PAGE) {
                let to = to.clone();
                self.missed.pop_front();
                if self.missed.is_empty() {
                    self.seen_at_ms = self.joined.position.at_ms;
                }
                let position = Position::after(to, self.seen_at_ms);
                piece.extend_from_slice(format!("id: {position}\n\n").as_bytes());
            }
        }
        Ok(piece.freeze())
    }
}
