//! A Redis for tests that hurt it.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use redis::AsyncConnectionConfig;

use super::{eventually, unique_name};

/// A private Redis behind a socket. Killed when dropped.
pub struct PrivateRedis {
    process: Child,
    /// Where its files are; it begins with what `dump.rdb` holds, if that is there.
    pub folder: PathBuf,
    /// Where it is.
    pub url: String,
}

impl PrivateRedis {
    /// Starts an empty one.
    pub async fn start() -> Self {
        let folder = std::env::temp_dir().join(unique_name("redis"));
        std::fs::create_dir(&folder).unwrap();
        let url = format!("unix://{}", folder.join("socket").display());
        let redis = Self { process: Self::spawn(&folder), folder, url };
        redis.wait().await;
        redis
    }

    fn spawn(folder: &Path) -> Child {
        Command::new("redis-server")
            .args(["--port", "0", "--unixsocket", "socket", "--save", "", "--appendonly", "no"])
            .current_dir(folder)
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    }

    async fn wait(&self) {
        let client = open(&self.url);
        eventually("Redis answers", Duration::from_secs(10), async || {
            let mut connection = client.get_multiplexed_async_connection().await.ok()?;
            redis::cmd("PING").query_async::<String>(&mut connection).await.ok()
        })
        .await;
    }

    /// Kills it; a new one, which knows nothing, takes its place.
    pub async fn restart_empty(&mut self) {
        let _ = std::fs::remove_file(self.folder.join("dump.rdb"));
        self.restart().await;
    }

    /// Kills it; one that knows what its folder knows takes its place.
    pub async fn restart(&mut self) {
        self.kill();
        self.process = Self::spawn(&self.folder);
        self.wait().await;
    }

    /// Kills it.
    pub fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// Sends a signal by name, such as `STOP`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.process.id().to_string()).status();
        assert!(sent.unwrap().success());
    }

    /// Runs a command.
    pub async fn run<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        run(&self.url, words).await
    }
}

#[expect(clippy::disallowed_methods, reason = "what is tested does not open it for us")]
fn open(url: &str) -> redis::Client {
    redis::Client::open(url).unwrap()
}

/// Runs a command on any Redis.
pub async fn run<T: redis::FromRedisValue>(url: &str, words: &[&str]) -> T {
    let patient = AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(30)));
    let connection = open(url).get_multiplexed_async_connection_with_config(&patient).await;
    let mut connection = connection.unwrap();
    let mut command = redis::cmd(words[0]);
    words[1..].iter().for_each(|word| {
        command.arg(word);
    });
    command.query_async(&mut connection).await.unwrap()
}

impl Drop for PrivateRedis {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
