//! Another program with a connection to PostgreSQL of its own, past the service and past every proxy.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use diesel::{
    QueryResult, QueryableByName, sql_query,
    sql_types::{BigInt, Text, Uuid},
};
use diesel_async::{AsyncConnection as _, AsyncPgConnection, RunQueryDsl as _};

use super::{
    history::{Final, Write},
    load::World,
};

/// The program.
pub struct Outside {
    url: String,
    connection: Option<AsyncPgConnection>,
    /// The newest version of each register that it has seen.
    seen: HashMap<usize, i64>,
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = Text)]
    id: String,
    #[diesel(sql_type = BigInt)]
    version: i64,
    #[diesel(sql_type = Text)]
    number: String,
}

impl Outside {
    pub fn new(url: &str) -> Self {
        Self { url: url.to_owned(), connection: None, seen: HashMap::new() }
    }

    /// Runs a statement. `None`: PostgreSQL is away, and whether it was done is not known.
    async fn run<T>(
        &mut self,
        statement: impl AsyncFnOnce(&mut AsyncPgConnection) -> QueryResult<T>,
    ) -> Option<T> {
        if self.connection.is_none() {
            self.connection = AsyncPgConnection::establish(&self.url).await.ok();
        }
        let outcome = match &mut self.connection {
            Some(connection) => statement(connection).await.ok(),
            None => None,
        };
        if outcome.is_none() {
            self.connection = None;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        outcome
    }

    /// Writes a register.
    pub async fn update(&mut self, world: &World, register: usize) -> Option<Write> {
        let subject = &world.registers[register];
        let (number, (table, column)) = (subject.attempt(), subject.column());
        let id = uuid::Uuid::parse_str(&subject.id).unwrap();
        let started = Instant::now();
        let update = sql_query(format!(
            "UPDATE {table} SET {column} = $1, version = version + 1 WHERE id = $2 \
             RETURNING id::text AS id, version, {column} AS number"
        ));
        let update = update.bind::<Text, _>(number.to_string()).bind::<Uuid, _>(id);
        let Row { version, .. } = self.run(async |db| update.get_result(db).await).await?;
        Some(Write { register, version, number: Some(number), started, known: Instant::now(), by: None })
    }

    /// All rows.
    async fn rows(&mut self) -> Option<HashMap<String, (i64, u64)>> {
        let all = sql_query(
            "SELECT id::text AS id, version, name AS number FROM workspaces \
             UNION ALL SELECT id::text, version, title FROM documents",
        );
        let rows: Vec<Row> = self.run(async |db| all.load(db).await).await?;
        let rows = rows.into_iter().filter_map(|row| Some((row.id, (row.version, row.number.parse().ok()?))));
        Some(rows.collect())
    }

    /// What was committed since it last looked.
    pub async fn look(&mut self, world: &World) -> Vec<Write> {
        let started = Instant::now();
        let Some(rows) = self.rows().await else { return Vec::new() };
        let known = Instant::now();
        let mut writes = Vec::new();
        for (register, subject) in world.registers.iter().enumerate() {
            let Some((version, number)) = rows.get(&subject.id).copied() else { continue };
            if self.seen.insert(register, version) != Some(version) {
                writes.push(Write { register, version, number: Some(number), started, known, by: None });
            }
        }
        writes
    }

    /// What there is at the end.
    pub async fn finals(&mut self, world: &World) -> Vec<Final> {
        let rows = loop {
            if let Some(rows) = self.rows().await {
                break rows;
            }
        };
        let row = |subject: &super::register::Register| rows.get(&subject.id).copied();
        world
            .registers
            .iter()
            .enumerate()
            .map(|(register, subject)| Final { register, row: row(subject) })
            .collect()
    }
}
