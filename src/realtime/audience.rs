//! Who is told of what: looked up in the database, after the events were read.

use std::collections::{BTreeSet, HashMap};

use crate::{
    domain::{event::AudienceKind, id::UserId},
    models::events::Event,
};

/// Who is told of the events of a reading.
#[derive(Debug, Default)]
pub(super) struct Audiences {
    workspaces: HashMap<uuid::Uuid, Vec<UserId>>,
    channels: HashMap<uuid::Uuid, Vec<UserId>>,
}

impl Audiences {
    pub(super) async fn of(
        db: &mut diesel_async::AsyncPgConnection,
        events: &[Event],
        among: &[UserId],
    ) -> diesel::QueryResult<Self> {
        let of_kind = |kind| events.iter().filter(move |event| event.audience == kind);
        let workspaces: BTreeSet<_> =
            of_kind(AudienceKind::Workspace).filter_map(|event| event.workspace_id).collect();
        let channels: BTreeSet<_> =
            of_kind(AudienceKind::Channel).filter_map(|event| event.channel_id).collect();
        let (workspaces, channels): (Vec<_>, Vec<_>) =
            (workspaces.into_iter().collect(), channels.into_iter().collect());
        let (members, readers) = Event::audiences(db, &workspaces, &channels, among).await?;
        let mut audiences = Self::default();
        for (workspace, user) in members {
            audiences.workspaces.entry(workspace.as_uuid()).or_default().push(user);
        }
        for (channel, user) in readers {
            audiences.channels.entry(channel.as_uuid()).or_default().push(user);
        }
        Ok(audiences)
    }

    /// The users who are told of an event; one may come twice.
    pub(super) fn of_event(&self, event: &Event) -> impl Iterator<Item = UserId> {
        let group = match event.audience {
            AudienceKind::User => None,
            AudienceKind::Workspace => event.workspace_id.and_then(|id| self.workspaces.get(&id.as_uuid())),
            AudienceKind::Channel => event.channel_id.and_then(|id| self.channels.get(&id.as_uuid())),
        };
        event.user_id.into_iter().chain(group.into_iter().flatten().copied())
    }
}
