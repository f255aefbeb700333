//! Migrations and the schema that the code believes in.

use std::process::Command;

use diesel::{QueryableByName, sql_query, sql_types::Text};
use diesel_async::RunQueryDsl;
use lockstep::db::maintenance;

use crate::support::{TestDatabase, test_setting};

#[derive(QueryableByName)]
struct Column {
    #[diesel(sql_type = Text)]
    line: String,
}

#[tokio::test(flavor = "multi_thread")]
async fn the_code_and_the_database_agree_on_every_column() {
    let database = TestDatabase::new().await;
    let columns = "SELECT table_name || ' ' || column_name || ' ' || udt_name || \
            CASE WHEN is_nullable = 'YES' THEN ' nullable' ELSE '' END AS line \
        FROM information_schema.columns WHERE table_schema = 'public' AND table_name <> '__diesel_schema_migrations'";
    let views = "SELECT table_name::text AS line FROM information_schema.views WHERE table_schema = 'public'";
    let mut connection = database.connect().await;
    let in_database: Vec<Column> = sql_query(columns).load(&mut connection).await.unwrap();
    let views: Vec<Column> = sql_query(views).load(&mut connection).await.unwrap();
    // Of a view's columns the database does not know whether they can be null.
    let comparable = |line: String| {
        let of_view = views.iter().any(|view| line.starts_with(&format!("{} ", view.line)));
        if of_view { line.trim_end_matches(" nullable").to_owned() } else { line }
    };
    let mut in_database: Vec<_> = in_database.into_iter().map(|column| comparable(column.line)).collect();
    let in_code = columns_of(include_str!("../../src/db/schema.rs"));
    let mut in_code: Vec<_> = in_code.into_iter().map(comparable).collect();
    in_database.sort();
    in_code.sort();
    assert_eq!(in_code, in_database);
}

/// Reads `diesel::table!` as text: table, column, type, nullable.
fn columns_of(schema: &str) -> Vec<String> {
    let mut table = String::new();
    let mut columns = Vec::new();
    for line in schema.lines().map(str::trim) {
        if let Some((column, sql_type)) = line.strip_suffix(',').and_then(|line| line.split_once(" -> ")) {
            let nullable = sql_type.starts_with("Nullable");
            let sql_type = sql_type.trim_start_matches("Nullable<").trim_end_matches('>');
            let udt = sql_type.to_lowercase();
            columns.push(
                format!("{table} {column} {udt} {}", if nullable { "nullable" } else { "" })
                    .trim()
                    .to_owned(),
            );
        } else if let Some((name, _)) = line.strip_suffix(" {").and_then(|line| line.split_once(" (")) {
            name.clone_into(&mut table);
        }
    }
    columns
}

#[tokio::test(flavor = "multi_thread")]
async fn every_migration_can_be_taken_back_and_applied_again() {
    let database = TestDatabase::new().await;
    let url = database.url.clone();
    let steps = move || {
        let pool = maintenance::open(&url, 1).unwrap();
        let before = dump(&url);
        let mut taken_back = 0;
        while maintenance::migrate_down(&pool).unwrap().is_some() {
            taken_back += 1;
        }
        assert!(taken_back >= 2);
        let empty = dump(&url);
        assert!(
            !empty.contains("CREATE FUNCTION") && !empty.contains("users"),
            "something is left:\n{empty}"
        );
        assert_eq!(maintenance::migrate_up(&pool).unwrap().len(), taken_back);
        assert_eq!(dump(&url), before);
        assert!(maintenance::migrate_up(&pool).unwrap().is_empty());
        assert!(maintenance::status(&pool).unwrap().iter().all(|(_, applied)| *applied));
    };
    tokio::task::spawn_blocking(steps).await.unwrap();
}

fn dump(url: &str) -> String {
    let program = format!("{}/pg_dump", test_setting("TEST_POSTGRES_BIN"));
    let output = Command::new(program).args(["--schema-only", "--no-owner", url]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    // Every dump has a key of its own for the reader's sake.
    text.lines().filter(|line| !line.contains("restrict")).collect::<Vec<_>>().join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn many_instances_that_start_at_once_migrate_once() {
    let database = TestDatabase::new().await;
    let url = database.url.clone();
    let down =
        move || while maintenance::migrate_down(&maintenance::open(&url, 1).unwrap()).unwrap().is_some() {};
    tokio::task::spawn_blocking(down).await.unwrap();
    let starts = (0..4).map(|_| {
        let url = database.url.clone();
        tokio::task::spawn_blocking(move || {
            maintenance::migrate_up(&maintenance::open(&url, 1).unwrap()).unwrap().len()
        })
    });
    let applied: usize = futures_util::future::join_all(starts).await.into_iter().map(Result::unwrap).sum();
    let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations")).unwrap().count();
    assert_eq!(applied, files);
}
