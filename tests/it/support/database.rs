//! A database for each test, cloned from a migrated template.

use diesel_async::{AsyncConnection, AsyncPgConnection, SimpleAsyncConnection};
use lockstep::db::maintenance;

use super::{test_setting, unique_name};

/// A migrated database of this test alone. Dropped with it.
pub struct TestDatabase {
    name: String,
    /// Where it is.
    pub url: String,
}

impl TestDatabase {
    /// Clones the template, which the first test to come makes.
    pub async fn new() -> Self {
        let admin_url = test_setting("TEST_DATABASE_URL");
        let template = template(&admin_url).await;
        let name = unique_name("test");
        let mut admin = connect(&admin_url).await;
        // Copying files is faster than logging every block.
        let clone = format!("CREATE DATABASE {name} TEMPLATE {template} STRATEGY = FILE_COPY");
        admin.batch_execute(&clone).await.unwrap();
        let url = with_database(&admin_url, &name);
        Self { name, url }
    }

    /// A connection, as any other program would open one.
    pub async fn connect(&self) -> AsyncPgConnection {
        connect(&self.url).await
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let (admin_url, name) = (test_setting("TEST_DATABASE_URL"), std::mem::take(&mut self.name));
        // A thread of its own: this may run inside a runtime.
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let drop = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
                let _ = connect(&admin_url).await.batch_execute(&drop).await;
            });
        });
        let _ = dropping.join();
    }
}

/// The template for this build's migrations. Made once per process that runs tests, and once in all if they are several.
async fn template(admin_url: &str) -> String {
    static TEMPLATE: tokio::sync::OnceCell<String> = tokio::sync::OnceCell::const_new();
    let made = TEMPLATE.get_or_init(|| async {
        let mut admin = connect(admin_url).await;
        admin.batch_execute("SELECT pg_advisory_lock(7061)").await.unwrap();
        let name = format!("template_{}", std::process::id());
        let _exists_already = admin.batch_execute(&format!("CREATE DATABASE {name}")).await;
        let url = with_database(admin_url, &name);
        tokio::task::spawn_blocking(move || {
            maintenance::migrate_up(&maintenance::open(&url, 1).unwrap()).unwrap()
        })
        .await
        .unwrap();
        admin.batch_execute("SELECT pg_advisory_unlock(7061)").await.unwrap();
        name
    });
    made.await.clone()
}

async fn connect(url: &str) -> AsyncPgConnection {
    AsyncPgConnection::establish(url).await.unwrap()
}

fn with_database(url: &str, name: &str) -> String {
    let (server, _) = url.rsplit_once('/').unwrap();
    format!("{server}/{name}")
}
