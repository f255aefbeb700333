//! What PostgreSQL must be, and what it is not asked to do.

use std::{error::Error as _, sync::Arc};

use diesel::{QueryableByName, sql_query, sql_types::Text};
use diesel_async::{RunQueryDsl as _, SimpleAsyncConnection as _};
use lockstep::{
    db::{Db, DbError, Unavailable},
    telemetry::Chain,
};
use serde_json::json;
use tokio::runtime::Handle;

use crate::support::{Cluster, TestDatabase, unique_name};

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_is_not_used() {
    let database = TestDatabase::new().await;
    let read = async || {
        let db = Db::connect(&database.url, 2, Handle::current(), Arc::new(|_| unreachable!())).unwrap();
        db.read(async |_| Ok(())).await
    };
    assert!(read().await.is_ok());
    // It says what a standby says.
    let name = database.url.rsplit_once('/').unwrap().1;
    let standby = format!(
        "CREATE FUNCTION public.pg_is_in_recovery() RETURNS boolean LANGUAGE sql AS 'SELECT true'; \
         ALTER DATABASE {name} SET search_path = public, pg_catalog"
    );
    database.connect().await.batch_execute(&standby).await.unwrap();
    let refused = read().await.unwrap_err();
    assert!(matches!(refused, DbError::Unavailable(Unavailable::Unreachable(_))), "{refused:?}");
    assert!(refused.source().is_some() && Chain(&refused).to_string().contains("standby"), "{refused:?}");
}

#[derive(QueryableByName)]
struct Line {
    #[diesel(sql_type = Text)]
    line: String,
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_notifies_or_listens_neither_on_a_write_nor_else() {
    let cluster = Cluster::start_with(2, &[("REDIS_URL", "")]).await;
    let mut psql = cluster.database.connect().await;
    let name = cluster.database.url.rsplit_once('/').unwrap().1;
    // What triggers do counts, too. For connections that are yet to come.
    let watch = format!(
        "CREATE EXTENSION pg_stat_statements; ALTER DATABASE {name} SET pg_stat_statements.track = 'all'; \
         SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}' AND pid <> pg_backend_pid()"
    );
    psql.batch_execute(&watch).await.unwrap();
    let nobody = cluster.instances[0].client();
    // Whoever comes first may meet a connection that was ended.
    let ada = loop {
        let name = unique_name("ada");
        let account =
            json!({"email": format!("{name}@example.com"), "password": "correct horse battery", "name": "A"});
        let reply = nobody.post("/v1/auth/register", account).await;
        if reply.status == 201 {
            break nobody.signed_in(&reply);
        }
    };
    let workspace = format!("/v1/workspaces/{}", ada.create_workspace("Home").await);
    for round in 0..5 {
        ada.patch(&workspace, json!({"name": round.to_string()})).await.expect(200);
        ada.at(&cluster.instances[1]).get(&workspace).await.expect(200);
    }
    let said = "SELECT query AS line FROM pg_stat_statements \
        WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let said: Vec<Line> = sql_query(said).load(&mut psql).await.unwrap();
    let said: Vec<_> = said.into_iter().map(|line| line.line.to_lowercase()).collect();
    // Triggers are seen.
    assert!(said.iter().any(|query| query.contains("insert into cache_journal")), "{said:#?}");
    let calls: Vec<_> = said
        .iter()
        .filter(|query| !query.contains("pg_stat_statements"))
        .filter(|query| query.starts_with("listen") || query.contains("notify"))
        .collect();
    assert!(calls.is_empty(), "{calls:?}");
}
