//! A row that is inserted with another, and what the journal is asked along with it.

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
            Ok::<_, DbError>(Message::insert(tx, &self.message(id, name), &self.event(id)).await?)
        };
        place.db.write(work).await.unwrap().value.is_some()
    }
}

/// How many events tell of a message.
async fn told_of(place: &Place, id: MessageId) -> i64 {
    let told = format!("SELECT count(*) AS count FROM events WHERE data = '{id}'");
    sql_query(told).get_result::<Count>(&mut place.database.connect().await).await.unwrap().count
}

fn assert_announced(committed: &Committed, scene: Scene, rows: usize) {
    assert_eq!(committed.changes, [Change::Messages { channel_id: scene.channel }]);
    assert_eq!(committed.journal_ids.len(), rows, "the journal was asked after it knew them");
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
        assert_announced(&place.announced.recv().await.unwrap(), scene, 1);
    }
    let again = MessageId::new();
    assert!(!scene.send(&place, again, Some("one")).await);
    assert_eq!(told_of(&place, again).await, 0);
    let committed = place.announced.recv().await.unwrap();
    assert_eq!((&*committed.changes, committed.journal_ids.len()), (&[][..], 0));
}

/// Sends a message later than the journal is asked what it has recorded of it.
async fn send_late(tx: &mut Tx, scene: Scene) -> QueryResult<()> {
    let row = scene.message(MessageId::new(), None);
    let message = insert_into(messages::table).values(&row).returning(Inserted::as_returning());
    assert!(tx.save_recorded::<Inserted, _>(Late(message)).await?.is_some());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_was_asked_before_the_row_was_there_is_asked_again() {
    let mut place = Place::new().await;
    let scene = Scene::set(&place).await;
    place.db.write(async move |tx| Ok::<_, DbError>(send_late(tx, scene).await?)).await.unwrap();
    assert_announced(&place.announced.recv().await.unwrap(), scene, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_journal_has_of_an_earlier_row_is_not_taken_for_that_of_the_next() {
    let mut place = Place::new().await;
    let scene = Scene::set(&place).await;
    let work = async move |tx: &mut Tx| {
        let id = MessageId::new();
        Message::insert(tx, &scene.message(id, None), &scene.event(id)).await?;
        // This one announces the same.
        Ok::<_, DbError>(send_late(tx, scene).await?)
    };
    place.db.write(work).await.unwrap();
    assert_announced(&place.announced.recv().await.unwrap(), scene, 2);
}
