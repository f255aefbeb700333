//! What there is to compare with: the least that a handler can do for the same answer. Only in builds with the feature
//! `bench`, for `scripts/bench`.
//!
//! | URL | does |
//! |---|---|
//! | `/bare/{name}` | answers bytes and headers that are ready |
//! | `/redis/{name}` | one GET from Redis, and answers its bytes |
//! | `/sql/detail/…`, `/sql/members/…` | runs the statements of that read, and serialises the rows |
//! | `/insert/…` | parses a message, and inserts it and its event in a transaction |
//!
//! No sign-in, no limits, no cache, no log, no numbers, and no middleware at all.

use std::{fs, io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use actix_web::{
    App, HttpResponse, HttpServer,
    error::{ErrorInternalServerError, ErrorNotFound},
    http::{
        StatusCode,
        header::{CONTENT_LENGTH, CONTENT_TYPE, DATE, HeaderName, HeaderValue},
    },
    web::{self, Bytes, Data, Json, Path},
};
use chrono::Utc;
use clap::Args;
use diesel::QueryResult;
use diesel_async::{
    AnsiTransactionManager, AsyncPgConnection, RunQueryDsl, TransactionManager,
    pooled_connection::{
        AsyncDieselConnectionManager,
        deadpool::{Object, Pool},
    },
};
use redis::aio::MultiplexedConnection;
use serde::{Deserialize, Serialize};

use crate::{
    auth::token::ACCESS_TTL,
    config::Config,
    db::{
        Reader,
        schema::{events, messages},
    },
    domain::{
        event::{Audience, EventKind},
        id::{ChannelId, MessageId, UserId, WorkspaceId},
    },
    models::{
        events::NewEvent, members::Member, messages::NewMessage, sessions::Session, users::User,
        workspaces::WorkspaceDetails,
    },
    queries::{members::MemberView, workspaces::WorkspaceView},
    redis::Redis,
};

/// What is served, and where.
#[derive(Debug, Args)]
pub struct CeilingOptions {
    /// Address and port to listen on.
    #[arg(long)]
    listen: SocketAddr,
    /// A folder of answers, each as `curl --include` has written it.
    #[arg(long)]
    answers: PathBuf,
}

/// An answer that is ready.
#[derive(Clone)]
struct Answer {
    name: String,
    status: StatusCode,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
}

struct Ceiling {
    answers: Vec<Answer>,
    redis: MultiplexedConnection,
    /// With no detour: connections live where they were opened, on the workers.
    pool: Pool<AsyncPgConnection>,
}

/// Serves until it is killed.
///
/// # Errors
/// When something of the settings or options cannot be used.
pub async fn serve(options: &CeilingOptions, config: &Config) -> io::Result<()> {
    let missing = || io::Error::other("DATABASE_URL and REDIS_URL must be set");
    let answers = read_answers(options)?;
    let url = config.redis.url.as_deref().ok_or_else(missing)?;
    let redis = Redis::new(url, Duration::from_secs(1)).map_err(io::Error::other)?;
    let mut redis = redis.connect().await.map_err(io::Error::other)?;
    for answer in &answers {
        let set = redis::cmd("SET").arg(redis_key(&answer.name)).arg(&*answer.body).to_owned();
        set.exec_async(&mut redis).await.map_err(io::Error::other)?;
    }
    let url = config.database.url.as_deref().ok_or_else(missing)?;
    let pool = Pool::builder(AsyncDieselConnectionManager::new(url)).max_size(config.database.pool_size);
    let ceiling = Ceiling { answers, redis, pool: pool.build().map_err(io::Error::other)? };
    let ceiling = Data::from(Arc::new(ceiling));
    HttpServer::new(move || {
        App::new()
            .app_data(ceiling.clone())
            .route("/bare/{name}", web::get().to(bare))
            .route("/redis/{name}", web::get().to(one_get))
            .route("/sql/detail/{workspace}/{user}", web::get().to(workspace))
            .route("/sql/members/{workspace}/{user}", web::get().to(members))
            .route("/insert/{workspace}/{channel}/{user}", web::post().to(insert))
    })
    .bind(options.listen)?
    .run()
    .await
}

fn read_answers(options: &CeilingOptions) -> io::Result<Vec<Answer>> {
    let mut answers = Vec::new();
    for file in fs::read_dir(&options.answers)? {
        let file = file?;
        let name = file.file_name().to_string_lossy().into_owned();
        let answer = parse(name, &fs::read(file.path())?);
        answers
            .push(answer.ok_or_else(|| io::Error::other(format!("no answer: {}", file.path().display())))?);
    }
    Ok(answers)
}

fn parse(name: String, bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(bytes.get(..end)?).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers = lines.filter_map(|line| {
        let (name, value) = line.split_once(": ")?;
        Some((HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?))
    });
    // These two Actix makes itself.
    let headers = headers.filter(|(name, _)| *name != CONTENT_LENGTH && *name != DATE).collect();
    let body = Bytes::copy_from_slice(bytes.get(end + 4..)?);
    Some(Answer { name, status: StatusCode::from_u16(status).ok()?, headers, body })
}

fn redis_key(name: &str) -> String {
    format!("ceiling:{name}")
}

async fn bare(ceiling: Data<Ceiling>, name: Path<String>) -> Result<HttpResponse, actix_web::Error> {
    let answer = ceiling.answers.iter().find(|answer| answer.name == *name);
    let answer = answer.ok_or_else(|| ErrorNotFound("no such answer"))?;
    let mut response = HttpResponse::build(answer.status).body(answer.body.clone());
    for (name, value) in &answer.headers {
        response.headers_mut().insert(name.clone(), value.clone());
    }
    Ok(response)
}

async fn one_get(ceiling: Data<Ceiling>, name: Path<String>) -> Result<HttpResponse, actix_web::Error> {
    let mut redis = ceiling.redis.clone();
    let get = redis::cmd("GET").arg(redis_key(&name)).to_owned();
    let body: Vec<u8> = get.query_async(&mut redis).await.map_err(ErrorInternalServerError)?;
    Ok(json(body))
}

async fn workspace(
    ceiling: Data<Ceiling>,
    path: Path<(WorkspaceId, UserId)>,
) -> Result<HttpResponse, actix_web::Error> {
    let (workspace, user) = path.into_inner();
    let mut reader = ceiling.reader_for(workspace, user).await?;
    let row = WorkspaceDetails::find(&mut reader, workspace).await.map_err(ErrorInternalServerError)?;
    serialised(&row.map(WorkspaceView::from))
}

async fn members(
    ceiling: Data<Ceiling>,
    path: Path<(WorkspaceId, UserId)>,
) -> Result<HttpResponse, actix_web::Error> {
    let (workspace, user) = path.into_inner();
    let mut reader = ceiling.reader_for(workspace, user).await?;
    let rows = Member::list_with_users(&mut reader, workspace, None, 51).await;
    let rows = rows.map_err(ErrorInternalServerError)?.into_iter().take(50);
    serialised(&rows.map(|(member, user)| MemberView::new(member, user)).collect::<Vec<_>>())
}

/// What any read asks before: who it is, and what he is in the workspace.
async fn sign_in(reader: &mut Reader, workspace: WorkspaceId, user: UserId) -> QueryResult<()> {
    let _user = User::find(reader, user).await?;
    let _ended = Session::list_ended(reader, user, Utc::now() - 2 * ACCESS_TTL).await?;
    let _role = Member::find_role(reader, workspace, user).await?;
    Ok(())
}

#[derive(Deserialize)]
struct Message {
    content: String,
}

async fn insert(
    ceiling: Data<Ceiling>,
    path: Path<(WorkspaceId, ChannelId, UserId)>,
    message: Json<Message>,
) -> Result<HttpResponse, actix_web::Error> {
    let (workspace_id, channel_id, author_id) = path.into_inner();
    let (id, content) = (MessageId::new(), &*message.content);
    let (reply_to, client_msg_id) = (None, None);
    let row = NewMessage { id, workspace_id, channel_id, author_id, reply_to, content, client_msg_id };
    let data = serde_json::json!({ "id": id, "author_id": author_id, "content": content }).to_string();
    let audience = Audience::Channel(workspace_id, channel_id);
    let event = NewEvent::new(EventKind::MessageCreated, audience, data.clone());
    let mut connection = ceiling.connection().await?;
    let inserted: QueryResult<()> = async {
        AnsiTransactionManager::begin_transaction(&mut *connection).await?;
        diesel::insert_into(messages::table).values(row).execute(&mut connection).await?;
        diesel::insert_into(events::table).values(event).execute(&mut connection).await?;
        AnsiTransactionManager::commit_transaction(&mut *connection).await
    }
    .await;
    inserted.map_err(ErrorInternalServerError)?;
    Ok(json(data.into_bytes()))
}

impl Ceiling {
    async fn connection(&self) -> Result<Object<AsyncPgConnection>, actix_web::Error> {
        self.pool.get().await.map_err(ErrorInternalServerError)
    }

    /// For somebody who has signed in.
    async fn reader_for(&self, workspace: WorkspaceId, user: UserId) -> Result<Reader, actix_web::Error> {
        let mut reader = Reader::over(self.connection().await?);
        sign_in(&mut reader, workspace, user).await.map_err(ErrorInternalServerError)?;
        Ok(reader)
    }
}

fn serialised(rows: &impl Serialize) -> Result<HttpResponse, actix_web::Error> {
    Ok(json(serde_json::to_vec(rows)?))
}

fn json(body: Vec<u8>) -> HttpResponse {
    let mut response = HttpResponse::Ok().body(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
