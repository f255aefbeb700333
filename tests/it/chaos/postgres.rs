//! A PostgreSQL for tests that hurt it.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, Command, Stdio},
};

use tokio::sync::mpsc;

/// Starts the server with what the scripts start theirs with, which also knows as whom to run it, and does what it is
/// told until nobody can tell it any more.
const SCRIPT: &str = r#"
source scripts/lib/stores.sh
need_programs postgres
make_folder
start_postgres "$folder"
home=$folder/postgres log=$folder/postgres.log
choose_postgres_user
mapfile -d '' command <"/proc/$postgres_pid/cmdline"
echo "$POSTGRES_BIN $DATABASE_URL"
while read -r signal; do
    stop "$signal" 10 "$postgres_pid"
    spawn "$home" "$log" "${as_user[@]}" "${die_with_script[@]}" env LC_ALL=C "${command[@]}"
    postgres_pid=$pid
    await 60 "$pid" postgres_client pg_isready || failed_to_start PostgreSQL "$log"
    echo started
done
"#;

/// A private PostgreSQL that keeps what it has acknowledged. Gone when dropped.
pub struct PrivatePostgres {
    script: Child,
    orders: Option<ChildStdin>,
    answers: mpsc::UnboundedReceiver<String>,
    /// The folder of its programs.
    programs: String,
    /// Where it is.
    pub url: String,
}

/// How to end a server.
#[derive(Debug, Clone, Copy)]
pub enum End {
    /// It ends its connections, writes everything down and goes.
    Fast,
    /// It goes at once, as in a crash, and has to recover.
    Immediate,
}

impl PrivatePostgres {
    /// Starts an empty one.
    pub async fn start() -> Self {
        let mut script = Command::new("bash")
            .args(["-euo", "pipefail", "-c", SCRIPT, "postgres"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (orders, lines) = (script.stdin.take(), BufReader::new(script.stdout.take().unwrap()).lines());
        let (answer, answers) = mpsc::unbounded_channel();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| answer.send(line)));
        let mut postgres = Self { script, orders, answers, programs: String::new(), url: String::new() };
        let answer = postgres.answer().await;
        let (programs, url) = answer.split_once(' ').unwrap();
        (postgres.programs, postgres.url) = (programs.to_owned(), url.to_owned());
        postgres
    }

    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        let (_, at) = self.url.rsplit_once(':').unwrap();
        at.split('/').next().unwrap().parse().unwrap()
    }

    /// Ends it and starts it again with all its data; returns when it accepts connections.
    pub async fn restart(&mut self, end: End) {
        let order = match end {
            End::Fast => "INT\n",
            End::Immediate => "QUIT\n",
        };
        self.orders.as_mut().unwrap().write_all(order.as_bytes()).unwrap();
        assert_eq!(self.answer().await, "started");
    }

    async fn answer(&mut self) -> String {
        self.answers.recv().await.unwrap_or_else(|| panic!("PostgreSQL did not start"))
    }

    /// What `psql` prints for a statement and its input.
    pub fn psql(&self, statement: &str, input: &str) -> Result<String, String> {
        let mut psql = Command::new(format!("{}/psql", self.programs))
            .args(["-XqAt", "-v", "ON_ERROR_STOP=1", "-d", &self.url, "-c", statement])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        psql.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = psql.wait_with_output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }
}

impl Drop for PrivatePostgres {
    fn drop(&mut self) {
        drop(self.orders.take());
        let _ = self.script.wait();
    }
}
