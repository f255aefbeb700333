//! The unit of work: what becomes of a transaction whose caller goes away, and of one that fails.

mod along;

use std::{sync::Arc, time::Duration};

use diesel::{ExpressionMethods as _, QueryDsl as _, QueryableByName, sql_query, sql_types::BigInt};
use diesel_async::{AsyncPgConnection, RunQueryDsl as _, SimpleAsyncConnection as _};
use lockstep::{
    cache::Token,
    db::{Committed, Db, DbError, Tx, schema::users},
    domain::{
        Change,
        event::{Audience, EventKind},
        id::UserId,
    },
    models::{
        events::{Event, NewEvent},
        users::{NewUser, User},
    },
};
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
};

use crate::support::{TestDatabase, eventually};

const SOON: Duration = Duration::from_secs(5);

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

/// A database with one connection that writes, and what was announced.
struct Place {
    database: TestDatabase,
    db: Db,
    announced: mpsc::UnboundedReceiver<Committed>,
}

impl Place {
    async fn new() -> Self {
        let database = TestDatabase::new().await;
        let (sender, announced) = mpsc::unbounded_channel();
        let announce = Arc::new(move |committed: Committed| {
            sender.send(committed).unwrap();
            Box::pin(async { Token::unknown() }) as futures_util::future::BoxFuture<'static, Token>
        });
        let db = Db::connect(&database.url, 2, Handle::current(), announce).unwrap();
        Self { database, db, announced }
    }

    /// Inserts somebody in a transaction of his own, with the only connection.
    async fn insert(&self, name: &str) -> UserId {
        let name = name.to_owned();
        let written = self.db.write(async move |tx| insert(tx, UserId::new(), &name).await).await;
        let id = written.unwrap().value;
        assert_eq!(self.names(&[id]).await, 1);
        id
    }

    /// How many of these there are.
    async fn names(&self, ids: &[UserId]) -> i64 {
        let count = users::table.filter(users::id.eq_any(ids)).count();
        count.get_result(&mut self.database.connect().await).await.unwrap()
    }
}

async fn insert(tx: &mut Tx, id: UserId, name: &str) -> Result<UserId, DbError> {
    let email = format!("{id}@example.com");
    User::insert(tx, NewUser { id, email: &email, name, password_hash: "x" }).await?;
    Ok(id)
}

/// Waits until a statement waits for an advisory lock.
async fn until_waiting(connection: &mut AsyncPgConnection) {
    let connection = tokio::sync::Mutex::new(connection);
    eventually("a commit waits", SOON, async || {
        let waiting = "SELECT count(*) AS count FROM pg_stat_activity \
            WHERE wait_event = 'advisory' AND datname = current_database()";
        let waiting: Count = sql_query(waiting).get_result(&mut **connection.lock().await).await.unwrap();
        (waiting.count == 1).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_goes_away_in_the_middle_leaves_nothing_behind() {
    let mut place = Place::new().await;
    let ada = UserId::new();
    for after_insert in [false, true] {
        let (begun, has_begun) = oneshot::channel();
        let db = place.db.clone();
        let caller = tokio::spawn(async move {
            let work = async move |tx: &mut Tx| {
                if after_insert {
                    insert(tx, ada, "Ada").await?;
                }
                begun.send(()).unwrap();
                std::future::pending::<()>().await;
                Ok::<_, DbError>(())
            };
            db.write(work).await
        });
        has_begun.await.unwrap();
        caller.abort();
        assert!(caller.await.unwrap_err().is_cancelled());
        // Nobody has to borrow its connection for its locks to go.
        let lock = "BEGIN; LOCK TABLE users IN ACCESS EXCLUSIVE MODE NOWAIT; ROLLBACK";
        eventually("its locks are gone", SOON, async || {
            place.database.connect().await.batch_execute(lock).await.ok()
        })
        .await;
        // And it is not used again: the next one gets another, at once.
        let bob = tokio::time::timeout(SOON, place.insert("Bob")).await.unwrap();
        assert_eq!(place.announced.recv().await.unwrap().changes, [Change::Users { id: bob }]);
    }
    assert_eq!(place.names(&[ada]).await, 0);
    assert!(place.announced.try_recv().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_goes_away_during_the_commit_does_not_keep_it_from_being_announced() {
    let mut place = Place::new().await;
    let mut connection = place.database.connect().await;
    let slow = "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS \
            'BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END'; \
        CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON users DEFERRABLE INITIALLY DEFERRED \
            FOR EACH ROW EXECUTE FUNCTION wait(); SELECT pg_advisory_lock(1)";
    connection.batch_execute(slow).await.unwrap();
    let (ada, db) = (UserId::new(), place.db.clone());
    let caller = tokio::spawn(async move { db.write(async move |tx| insert(tx, ada, "Ada").await).await });
    until_waiting(&mut connection).await;
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    connection.batch_execute("SELECT pg_advisory_unlock(1)").await.unwrap();
    let announced = tokio::time::timeout(SOON, place.announced.recv()).await.unwrap();
    assert_eq!(announced.unwrap().changes, [Change::Users { id: ada }]);
    assert_eq!(place.names(&[ada]).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_failed_cannot_be_overlooked() {
    let mut place = Place::new().await;
    let (ada, bob) = (place.insert("Ada").await, UserId::new());
    place.announced.recv().await.unwrap();
    let work = async move |tx: &mut Tx| {
        insert(tx, bob, "Bob").await?;
        // He exists already. PostgreSQL answers COMMIT with ROLLBACK then, which is no error.
        let again = NewUser { id: ada, email: "another@example.com", name: "Ada", password_hash: "x" };
        assert!(User::insert(tx, again).await.is_err());
        Ok::<_, DbError>(())
    };
    let outcome = place.db.write(work).await;
    assert!(matches!(outcome, Err(DbError::Query(_))), "{outcome:?}");
    assert_eq!(place.names(&[bob]).await, 0);
    let cid = tokio::time::timeout(SOON, place.insert("Cid")).await.unwrap();
    assert_eq!(place.announced.recv().await.unwrap().changes, [Change::Users { id: cid }]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_is_refused_is_an_error_and_its_connection_is_good() {
    let place = Place::new().await;
    let refusing = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS \
            'BEGIN RAISE EXCEPTION ''not today''; END'; \
        CREATE CONSTRAINT TRIGGER refusing AFTER INSERT ON users DEFERRABLE INITIALLY DEFERRED \
            FOR EACH ROW WHEN (NEW.name = 'Ada') EXECUTE FUNCTION refuse()";
    place.database.connect().await.batch_execute(refusing).await.unwrap();
    let ada = UserId::new();
    let outcome = place.db.write(async move |tx| insert(tx, ada, "Ada").await).await;
    assert!(outcome.unwrap_err().to_string().contains("a statement failed"));
    assert_eq!(place.names(&[ada]).await, 0);
    tokio::time::timeout(SOON, place.insert("Bob")).await.unwrap();
}

fn told(user: UserId) -> NewEvent {
    NewEvent::new(EventKind::NotificationCreated, Audience::User(user, None), "{}".to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_saved_last_belongs_to_the_same_transaction() {
    let mut place = Place::new().await;
    // On a connection that has prepared nothing yet, and on one that has.
    for written in [3, 6] {
        let ada = UserId::new();
        let work = async move |tx: &mut Tx| {
            Event::insert(tx, told(ada));
            Event::insert_all(tx, vec![told(ada), told(ada)]);
            insert(tx, ada, "Ada").await
        };
        place.db.write(work).await.unwrap();
        assert_eq!(place.announced.recv().await.unwrap().changes, [Change::Users { id: ada }]);
        let same = "SELECT count(*) AS count FROM events JOIN users ON users.id = events.user_id \
            WHERE users.xmin = events.xid::text::xid";
        let same: Count = sql_query(same).get_result(&mut place.database.connect().await).await.unwrap();
        assert_eq!(same.count, written);
    }
    // What fails there takes everything back.
    let bob = UserId::new();
    let work = async move |tx: &mut Tx| {
        let nobody = NewEvent { user_id: None, ..told(bob) };
        Event::insert(tx, nobody);
        insert(tx, bob, "Bob").await
    };
    let outcome = place.db.write(work).await;
    assert!(matches!(outcome, Err(DbError::Query(_))), "{outcome:?}");
    assert_eq!(place.names(&[bob]).await, 0);
    assert!(place.announced.try_recv().is_err());
    tokio::time::timeout(SOON, place.insert("Cid")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_may_only_read_or_do_nothing() {
    let mut place = Place::new().await;
    let ada = place.insert("Ada").await;
    place.announced.recv().await.unwrap();
    let read = place.db.write(async move |tx| Ok::<_, DbError>(User::find(tx, ada).await?)).await;
    assert!(read.unwrap().value.is_some());
    place.db.write(async move |_tx| Ok::<_, DbError>(())).await.unwrap();
    let refused = async move |_tx: &mut Tx| Err::<(), DbError>(diesel::result::Error::NotFound.into());
    assert!(place.db.write(refused).await.is_err());
    let refused_later = async move |tx: &mut Tx| {
        User::find(tx, ada).await?;
        Err::<(), DbError>(diesel::result::Error::NotFound.into())
    };
    assert!(place.db.write(refused_later).await.is_err());
    // All of it on one connection, which is in no transaction now.
    let left = "SELECT count(*) AS count FROM pg_stat_activity \
        WHERE datname = current_database() AND backend_type = 'client backend' \
        AND state <> 'idle' AND pid <> pg_backend_pid()";
    let left: Count = sql_query(left).get_result(&mut place.database.connect().await).await.unwrap();
    assert_eq!(left.count, 0);
    assert_eq!(place.db.connections(), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_is_the_callers() {
    let place = Place::new().await;
    let db = place.db.clone();
    let caller = tokio::spawn(async move {
        let work = async move |_tx: &mut Tx| {
            assert!(std::hint::black_box(false), "on purpose");
            Ok::<_, DbError>(())
        };
        db.write(work).await
    });
    assert!(caller.await.unwrap_err().is_panic());
    tokio::time::timeout(SOON, place.insert("Bob")).await.unwrap();
}
