//! Channels with their conversations.

use chrono::{DateTime, TimeDelta, Utc};
use diesel::{
    QueryResult, RunQueryDsl,
    prelude::*,
    sql_types::{Array, BigInt, Text, Uuid as SqlUuid},
};
use rand::{Rng, rngs::StdRng, seq::IndexedRandom};
use uuid::Uuid;

use super::{Conversations, texts};
use crate::{
    db::{
        maintenance::BlockingConnection,
        schema::{channel_members, channels},
    },
    domain::id::{ChannelId, UserId, WorkspaceId},
};

/// Messages in one statement: enough that what a statement costs does not count.
const BATCH: usize = 5_000;

/// Writes the channels of a workspace, `general` first, and what was said there. `said`: how many messages so far.
pub(super) fn insert_channels(
    connection: &mut BlockingConnection,
    conversations: Conversations,
    workspace: WorkspaceId,
    team: &[UserId],
    rng: &mut StdRng,
    mut said: impl FnMut(u64),
) -> QueryResult<()> {
    let Some(owner) = team.first().copied() else { return Ok(()) };
    for number in 0..conversations.channels {
        let id = ChannelId::from(super::id_in_order(number, rng));
        let name = match number {
            0 => "general".to_owned(),
            _ => format!("{}-{number}", texts::word(rng)),
        };
        // Every tenth is for the first few of the team alone.
        let is_private = number % 10 == 9;
        let row = (
            channels::id.eq(id),
            channels::workspace_id.eq(workspace),
            channels::name.eq(name),
            channels::topic.eq(texts::title(rng)),
            channels::is_private.eq(is_private),
            channels::created_by.eq(owner),
        );
        diesel::insert_into(channels::table).values(row).execute(connection)?;
        let insiders = team.get(..5.min(team.len())).unwrap_or(team);
        let speakers = if is_private { insiders } else { team };
        let seats: Vec<_> = insiders
            .iter()
            .map(|user| {
                (
                    channel_members::workspace_id.eq(workspace),
                    channel_members::channel_id.eq(id),
                    channel_members::user_id.eq(*user),
                )
            })
            .collect();
        diesel::insert_into(channel_members::table).values(seats).execute(connection)?;
        insert_messages(connection, conversations.messages, (workspace, id), speakers, rng, &mut said)?;
    }
    Ok(())
}

fn insert_messages(
    connection: &mut BlockingConnection,
    count: u32,
    (workspace, channel): (WorkspaceId, ChannelId),
    speakers: &[UserId],
    rng: &mut StdRng,
    said: &mut impl FnMut(u64),
) -> QueryResult<()> {
    // The last one was said yesterday; the others, a minute or so before each other.
    let mut at = Utc::now() - TimeDelta::days(1) - TimeDelta::minutes(count.into());
    let mut left = usize::try_from(count).unwrap_or(usize::MAX);
    while left > 0 {
        let batch = left.min(BATCH);
        let (mut ids, mut authors) = (Vec::with_capacity(batch), Vec::with_capacity(batch));
        let (mut texts, mut times) = (Vec::with_capacity(batch), Vec::with_capacity(batch));
        for _ in 0..batch {
            at += TimeDelta::milliseconds(rng.random_range(1_000..60_000));
            ids.push(id_of(at, rng));
            authors.push(speakers.choose(rng).map(UserId::as_uuid).unwrap_or_default());
            texts.push(texts::remark(rng));
            times.push(at.timestamp_micros());
        }
        diesel::sql_query(
            "INSERT INTO messages (id, workspace_id, channel_id, author_id, content, created_at, updated_at) \
             SELECT id, $1, $2, author, content, said, said FROM ( \
                SELECT id, author, content, to_timestamp(micros / 1e6) AS said \
                FROM unnest($3::uuid[], $4::uuid[], $5::text[], $6::bigint[]) AS row (id, author, content, micros) \
             ) AS message",
        )
        .bind::<SqlUuid, _>(workspace)
        .bind::<SqlUuid, _>(channel)
        .bind::<Array<SqlUuid>, _>(&ids)
        .bind::<Array<SqlUuid>, _>(&authors)
        .bind::<Array<Text>, _>(&texts)
        .bind::<Array<BigInt>, _>(&times)
        .execute(connection)?;
        left -= batch;
        said(batch as u64);
    }
    Ok(())
}

/// A version 7 id of that time, whose random part comes from the seed.
fn id_of(at: DateTime<Utc>, rng: &mut StdRng) -> Uuid {
    let milliseconds = u64::try_from(at.timestamp_millis()).unwrap_or_default();
    uuid::Builder::from_unix_timestamp_millis(milliseconds, &rng.random()).into_uuid()
}
