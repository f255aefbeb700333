//! Cached Diesel queries, many of them at once, and invalidation by hand.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use diesel::prelude::*;
use diesel_async::SimpleAsyncConnection as _;
use lockstep::{
    app::App,
    cache::{Json, Key, Loaded, Tag, TierStatus},
    db::{
        Reader,
        schema::{users, workspaces},
    },
    domain::id::{UserId, WorkspaceId},
    queries::{
        BatchQuery, CachedQuery, Kind,
        selects::{CachedSelect as _, Caching},
        tags,
    },
};
use uuid::Uuid;

use super::{BUS, Pair};
use crate::support::eventually;

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

/// Two people, one of whom owns two workspaces.
async fn people(pair: &Pair) {
    let mut psql = pair.database.connect().await;
    let (ada, ben) = (id(1), id(2));
    let statements = format!(
        "INSERT INTO users (id, email, name, password_hash) VALUES \
            ('{ada}', 'ada@example.com', 'Ada', 'x'), ('{ben}', 'ben@example.com', 'Ben', 'x'); \
         INSERT INTO workspaces (id, name, slug) VALUES \
            ('{}', 'One', 'one'), ('{}', 'Two', 'two')",
        id(11),
        id(12)
    );
    psql.batch_execute(&statements).await.unwrap();
}

fn caching() -> Caching {
    Caching::of(Kind::Workspace).tags([11, 12].map(|number| tags::workspace(WorkspaceId::from(id(number)))))
}

async fn names(app: &App) -> (Vec<String>, bool) {
    let names = workspaces::table.select(workspaces::name).order(workspaces::name);
    let read = names.cached_list::<String>(&app.queries, caching()).await.unwrap();
    let hit = matches!(read.status.l1, TierStatus::Hit(_)) || matches!(read.status.l2, TierStatus::Hit(_));
    (read.value.unwrap().0.clone(), hit)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_select_is_asked_once_for_all_instances_until_what_it_shows_changes() {
    let pair = Pair::start().await;
    people(&pair).await;
    let both = || vec!["One".to_owned(), "Two".to_owned()];
    assert_eq!(names(&pair.a).await, (both(), false));
    assert_eq!(names(&pair.a).await, (both(), true));
    assert_eq!(names(&pair.b).await, (both(), true));

    let mut psql = pair.database.connect().await;
    psql.batch_execute("UPDATE workspaces SET name = 'New' WHERE slug = 'one'").await.unwrap();
    for app in [&pair.a, &pair.b] {
        eventually("the new name is read", Duration::from_millis(1500), async || {
            (names(app).await.0 == ["New", "Two"]).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_that_differ_only_in_a_bind_share_nothing() {
    let pair = Pair::start().await;
    people(&pair).await;
    for (slug, name) in [("one", "One"), ("two", "Two"), ("one", "One")] {
        let query = workspaces::table.filter(workspaces::slug.eq(slug)).select(workspaces::name);
        let read = query.cached_first::<String>(&pair.a.queries, caching()).await.unwrap();
        assert_eq!(read.value.unwrap().0, name);
        let count =
            workspaces::table.filter(workspaces::slug.ne(slug)).cached_count(&pair.a.queries, caching());
        assert_eq!(count.await.unwrap().value.unwrap().0, 1);
    }
    let all =
        workspaces::table.select(workspaces::id).cached_count(&pair.a.queries, caching()).await.unwrap();
    assert_eq!(all.value.unwrap().0, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn that_there_is_no_row_is_kept_until_one_is_made() {
    let pair = Pair::start().await;
    let ben = UserId::from(id(2));
    let look = async |app: &App| {
        let query = users::table.find(ben).select(users::name);
        let caching = Caching::of(Kind::User).tag(tags::user(ben));
        let read = query.cached_first::<String>(&app.queries, caching).await.unwrap();
        (read.value.map(|name| name.0.clone()), matches!(read.status.l1, TierStatus::Hit(_)))
    };
    assert_eq!(look(&pair.a).await, (None, false));
    assert_eq!(look(&pair.a).await, (None, true));
    people(&pair).await;
    eventually("he is seen", Duration::from_millis(1500), async || {
        (look(&pair.a).await.0.as_deref() == Some("Ben")).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_to_live_can_be_shorter_than_that_of_the_kind() {
    let pair = Pair::start().await;
    people(&pair).await;
    let look = async || {
        let caching = Caching::of(Kind::Workspace).ttl(Duration::from_millis(300));
        let query = workspaces::table.select(workspaces::name).order(workspaces::name);
        query.cached_list::<String>(&pair.a.queries, caching).await.unwrap().value.unwrap().0.clone()
    };
    assert_eq!(look().await, ["One", "Two"]);
    let mut psql = pair.database.connect().await;
    psql.batch_execute("UPDATE workspaces SET name = 'New' WHERE slug = 'one'").await.unwrap();
    // Nothing invalidates it: no tag was named.
    eventually("its time is up", Duration::from_secs(2), async || {
        (look().await == ["New", "Two"]).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_invalidated_by_hand_is_loaded_again_on_every_instance() {
    let pair = Pair::start().await;
    people(&pair).await;
    for app in [&pair.a, &pair.b] {
        names(app).await;
        assert!(names(app).await.1);
    }
    pair.a.queries.invalidate_workspace(WorkspaceId::from(id(12))).await.unwrap();
    assert!(!names(&pair.a).await.1, "it was loaded again at once where it was invalidated");
    let stale = async || pair.b.cache.report().requests["workspace"]["l1"].get("stale").copied();
    eventually("B does not use what it held", BUS, async || {
        names(&pair.b).await;
        stale().await
    })
    .await;
}

/// The name of a workspace, and how many were loaded at once.
struct NameOf(u128);

static LOADS: AtomicUsize = AtomicUsize::new(0);

impl CachedQuery for NameOf {
    type Value = Json<String>;
    const KIND: Kind = Kind::Workspace;

    fn key(&self) -> Key {
        Key::new("workspace", id(self.0), 1).suffix("name")
    }

    fn tags(&self) -> Vec<Tag> {
        vec![tags::workspace(WorkspaceId::from(id(self.0)))]
    }

    async fn load(&self, db: &mut Reader, _learned: &mut Vec<Tag>) -> QueryResult<Option<Self::Value>> {
        let name = workspaces::table.find(WorkspaceId::from(id(self.0))).select(workspaces::name);
        Ok(db.first(name).await?.map(Json))
    }
}

impl BatchQuery for NameOf {
    async fn load_many(db: &mut Reader, queries: &[&Self]) -> QueryResult<Vec<Loaded<Self::Value>>> {
        LOADS.fetch_add(1, Ordering::SeqCst);
        let ids: Vec<_> = queries.iter().map(|query| WorkspaceId::from(id(query.0))).collect();
        let rows = workspaces::table.filter(workspaces::id.eq_any(ids));
        let rows: Vec<(WorkspaceId, String)> =
            db.list(rows.select((workspaces::id, workspaces::name))).await?;
        let name_of = |number: u128| {
            let row = rows.iter().find(|(found, _)| found.as_uuid() == id(number));
            Loaded { value: row.map(|(_, name)| Json(name.clone())), tags: vec![] }
        };
        Ok(queries.iter().map(|query| name_of(query.0)).collect())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_are_loaded_at_once_and_each_is_kept_for_itself() {
    let pair = Pair::start().await;
    people(&pair).await;
    let many = async |app: &App, numbers: &[u128]| {
        let queries = numbers.iter().map(|number| NameOf(*number)).collect();
        let reads = app.queries.get_many(queries, None).await.unwrap();
        reads.into_iter().map(|read| read.value.map(|name| name.0.clone())).collect::<Vec<_>>()
    };
    let (one, two) = (Some("One".to_owned()), Some("Two".to_owned()));
    assert_eq!(many(&pair.a, &[12, 99, 11, 12]).await, [two.clone(), None, one.clone(), two.clone()]);
    assert_eq!(LOADS.load(Ordering::SeqCst), 1);
    assert_eq!(many(&pair.b, &[11, 12, 99]).await, [one.clone(), two, None]);
    assert_eq!(LOADS.load(Ordering::SeqCst), 1, "B found them in L2");
    let single = pair.b.queries.get(NameOf(11), None).await.unwrap();
    assert!(matches!(single.status.l1, TierStatus::Hit(_)));

    pair.a.queries.invalidate_workspace(WorkspaceId::from(id(12))).await.unwrap();
    many(&pair.a, &[11, 12]).await;
    assert_eq!(LOADS.load(Ordering::SeqCst), 2);
    let nothing: Vec<Option<String>> = many(&pair.a, &[]).await;
    assert!(nothing.is_empty());
}
