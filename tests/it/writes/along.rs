//! A row that is sent along with another, which it must not be there without.

use std::time::Duration;

use diesel::{QueryResult, SelectableHelper as _, insert_into, sql_query};
use diesel_async::{AsyncPgConnection, RunQueryDsl as _, SimpleAsyncConnection as _};
use futures_util::{FutureExt as _, future::BoxFuture};
use lockstep::{
    db::{Committed, DbError, Statement, Tx, schema::messages},
    domain::{
        Change,
        event::{Audience, EventKind},
        id::{ChannelId, MessageId, UserId, WorkspaceId},
    },
    models::{
        events::NewEvent,
        messages::{Inserted, Message, NewMessage},
    },
};

use super::{Count, Place};

/// A channel, and who writes there.
#[derive(Clone, Copy)]
struct Scene {
    user: UserId,
    workspace: WorkspaceId,
    channel: ChannelId,
}

impl Scene {
    async fn set(place: &Place) -> Self {
        let (user, workspace, channel) = (UserId::new(), WorkspaceId::new(), ChannelId::new());
        let rows = format!(
            "INSERT INTO users (id, email, name, password_hash) VALUES ('{user}', 'a@example.com', 'Ada', 'x'); \
            INSERT INTO workspaces (id, name, slug) VALUES ('{workspace}', 'W', 'w'); \
            INSERT INTO channels (id, workspace_id, name, created_by) \
                VALUES ('{channel}', '{workspace}', 'C', '{user}')"
        );
        place.database.connect().await.batch_execute(&rows).await.unwrap();
        Self { user, workspace, channel }
    }

    fn message(self, id: MessageId, name: Option<&'static str>) -> NewMessage<'static> {
        NewMessage {
            id,
            workspace_id: self.workspace,
            channel_id: self.channel,
            author_id: self.user,
            reply_to: None,
            content: "M",
            client_msg_id: name,
        }
    }

    /// An event that says of which message it tells.
    fn event(self, id: MessageId) -> NewEvent {
        let audience = Audience::Channel(self.workspace, self.channel);
        NewEvent::new(EventKind::MessageCreated, audience, id.to_string())
    }

    /// Sends a message. Whether it was the first of its name.
    async fn send(self, place: &Place, id: MessageId, name: Option<&'static str>) -> bool {
        let work = async move |tx: &mut Tx| {
            Ok::<_, DbError>(Message::insert(tx, &self.message(id, name), self.event(id)).await?)
        };
        place.db.write(work).await.unwrap().value.is_some()
    }
}

/// How many events tell of a message.
async fn told_of(place: &Place, id: MessageId) -> i64 {
    let told = format!("SELECT count(*) AS count FROM events WHERE data = '{id}'");
    sql_query(told).get_result::<Count>(&mut place.database.connect().await).await.unwrap().count
}

fn assert_announced(committed: &Committed, scene: Scene) {
    assert_eq!(committed.changes, [Change::Messages { channel_id: scene.channel }]);
    assert_eq!(committed.journal_ids.len(), 1, "the journal knows it, and was asked after it did");
}

/// A statement that is sent later than what was to follow it.
struct Late<Q>(Q);

impl<'c, R: 'c, Q: Statement<'c, R>> Statement<'c, R> for Late<Q> {
    fn run(self, connection: &'c AsyncPgConnection, most: usize) -> BoxFuture<'c, QueryResult<Vec<R>>> {
        let rows = self.0.run(connection, most);
        tokio::time::sleep(Duration::from_millis(50)).then(|()| rows).boxed()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_and_what_tells_of_it_are_both_there_or_neither() {
    let mut place = Place::new().await;
    let scene = Scene::set(&place).await;
    // The connection knows neither statement when the first one is sent.
    for name in [None, Some("one"), None] {
        let id = MessageId::new();
        assert!(scene.send(&place, id, name).await);
        assert_eq!(told_of(&place, id).await, 1);
        assert_announced(&place.announced.recv().await.unwrap(), scene);
    }
    let again = MessageId::new();
    assert!(!scene.send(&place, again, Some("one")).await);
    assert_eq!(told_of(&place, again).await, 0);
    let committed = place.announced.recv().await.unwrap();
    assert_eq!((&*committed.changes, committed.journal_ids.len()), (&[][..], 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_overtaken_its_row_is_seen_not_to_be_there_and_the_journal_is_asked_again() {
    let mut place = Place::new().await;
    let scene = Scene::set(&place).await;
    let id = MessageId::new();
    let work = async move |tx: &mut Tx| {
        let event = scene.event(id);
        let row = scene.message(id, None);
        let message = insert_into(messages::table).values(&row).returning(Inserted::as_returning());
        let (inserted, told) =
            tx.save_with::<Inserted, _, _, _>(Late(message), event.insert_for_message(id)).await?;
        Ok::<_, DbError>((inserted.is_some(), told.is_some()))
    };
    assert_eq!(place.db.write(work).await.unwrap().value, (true, false));
    assert_eq!(told_of(&place, id).await, 0);
    assert_announced(&place.announced.recv().await.unwrap(), scene);
}
