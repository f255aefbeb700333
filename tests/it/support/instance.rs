//! Real processes of the real program.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use super::{TestDatabase, client::Client, eventually, test_setting, unique_name};

/// A running instance. Killed when dropped.
pub struct Instance {
    process: Child,
    /// `http://127.0.0.1:PORT`.
    pub url: String,
    log: Arc<Mutex<Vec<String>>>,
}

impl Instance {
    /// Starts the program with these settings and nothing from this process's environment; waits until it is ready.
    pub async fn start(settings: &[(String, String)]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_lockstep"))
            .env_clear()
            .env("LISTEN_ADDR", "127.0.0.1:0")
            .env("RUST_LOG", "info,lockstep::access=off")
            .envs(settings.iter().map(|(name, value)| (name, value)))
            .current_dir(std::env::temp_dir())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (written, lines) = (Arc::clone(&log), BufReader::new(process.stderr.take().unwrap()));
        std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                written.lock().unwrap().push(line);
            }
        });
        let mut instance = Self { process, url: String::new(), log };
        instance.url = eventually("the instance listens", Duration::from_secs(30), async || {
            let log = instance.log();
            let listening = log.lines().find_map(|line| line.split_once("listening on "));
            listening.map(|(_, rest)| rest.split(' ').next().unwrap_or_default().to_owned())
        })
        .await;
        eventually("the instance is ready", Duration::from_secs(30), async || {
            (Client::new(&instance.url).get("/readyz").await.status == 200).then_some(())
        })
        .await;
        instance
    }

    /// A client of this instance that is nobody yet.
    pub fn client(&self) -> Client {
        Client::new(&self.url)
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    /// Sends a signal by name, such as `STOP`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.process_id().to_string()).status();
        assert!(sent.unwrap().success());
    }

    /// The number of its process.
    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// The sum of a metric's samples whose labels contain all of `labels`.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let text = self.client().get("/metrics").await.text;
        let samples =
            text.lines().filter(|line| line.starts_with(name) && labels.iter().all(|l| line.contains(l)));
        samples.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("--- log of {}\n{}", self.url, self.log());
        }
    }
}

/// Tells everybody how the caches fare, and limits nobody.
pub fn usual_settings() -> impl Iterator<Item = (String, String)> {
    [
        ("CACHE_STATUS", "all"),
        ("AUTH_SECRET", "a secret that is long enough for tests"),
        ("RATE_LIMIT_IP", "off"),
        ("RATE_LIMIT_BURST", "off"),
        ("RATE_LIMIT_SUSTAINED", "off"),
        ("RATE_LIMIT_MESSAGE", "off"),
        ("RATE_LIMIT_LOGIN", "off"),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
}

/// Several instances on one database and one Redis.
pub struct Cluster {
    /// The instances.
    pub instances: Vec<Instance>,
    /// Settings that all have in common.
    pub settings: Vec<(String, String)>,
    /// Their database; dropped after them.
    pub database: TestDatabase,
}

impl Cluster {
    /// `count` instances with Redis, which tell everybody how their caches fare.
    pub async fn start(count: usize) -> Self {
        Self::start_with(count, &[]).await
    }

    /// The same with more settings, which win. An empty value takes a setting away.
    pub async fn start_with(count: usize, settings: &[(&str, &str)]) -> Self {
        let database = TestDatabase::new().await;
        let mut common: Vec<(String, String)> = [
            ("DATABASE_URL", database.url.clone()),
            ("DATABASE_POOL_SIZE", "6".to_owned()),
            ("REDIS_URL", test_setting("TEST_REDIS_URL")),
            // Debug builds on busy machines: what is tested is not how fast Redis answers.
            ("REDIS_TIMEOUT", "2s".to_owned()),
            ("CACHE_NAMESPACE", unique_name("test")),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        common.extend(usual_settings());
        for (name, value) in settings {
            common.retain(|(known, _)| known != name);
            common.push(((*name).to_owned(), (*value).to_owned()));
        }
        let mut instances = Vec::new();
        for _ in 0..count {
            instances.push(Instance::start(&common).await);
        }
        Self { instances, settings: common, database }
    }

    /// A setting that all have in common.
    pub fn setting(&self, name: &str) -> &str {
        &self.settings.iter().find(|(known, _)| known == name).unwrap().1
    }
}
