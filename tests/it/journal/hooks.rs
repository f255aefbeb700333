//! Hooks, which say what a write changed, and triggers, which record it, say the same.

use diesel_async::{AsyncPgConnection, SimpleAsyncConnection as _};
use lockstep::{
    cache::Token,
    db::{Db, Tx, Work},
    domain::{
        Change,
        event::{Audience, EventKind},
        id::{ChannelId, DocumentId, MessageId, UserId, WorkspaceId},
        role::Role,
    },
    models::{
        channels::{Channel, ChannelChanges, ChannelMember, NewChannel},
        documents::{Document, DocumentChanges, NewDocument},
        events::NewEvent,
        members::Member,
        messages::{Message, NewMessage},
        sessions::Session,
        users::{NewUser, ProfileChanges, User},
        workspaces::{NewWorkspace, Workspace, WorkspaceChanges},
    },
};
use tokio::sync::mpsc;

use super::recorded;
use crate::support::TestDatabase;

/// Runs a write and compares what its hooks announced with what the triggers recorded. What foreign keys took along has
/// no hooks: `cascades`.
async fn compare(
    db: &Db,
    announced: &mut mpsc::UnboundedReceiver<Vec<Change>>,
    connection: &mut AsyncPgConnection,
    what: &str,
    cascades: &[Change],
    write: impl Work<(), diesel::result::Error>,
) -> Vec<Change> {
    let written = db
        .write::<_, lockstep::error::AppError>(async move |tx| {
            write(tx).await?;
            Ok(tx.changes().to_vec())
        })
        .await;
    let mut hooks = written.unwrap().value;
    hooks.extend_from_slice(cascades);
    hooks.sort_unstable();
    hooks.dedup();
    let recorded = recorded(connection).await;
    assert_eq!(hooks, recorded, "{what}: hooks and triggers differ");
    assert_eq!(announced.recv().await.unwrap(), recorded, "{what}: not announced");
    recorded
}

#[tokio::test(flavor = "multi_thread")]
async fn hooks_and_triggers_say_the_same_of_every_write() {
    let database = TestDatabase::new().await;
    let (sender, mut announced) = mpsc::unbounded_channel();
    let announce = std::sync::Arc::new(move |committed: lockstep::db::Committed| {
        sender.send(committed.changes).unwrap();
        Box::pin(async { Token::unknown() }) as futures_util::future::BoxFuture<'static, Token>
    });
    let db = Db::connect(&database.url, 2, tokio::runtime::Handle::current(), announce).unwrap();
    let mut connection = database.connect().await;
    let (user, workspace) = (UserId::new(), WorkspaceId::new());

    let mut step = async |what: &str, step: Step, cascades: &[Change]| {
        let write = async move |tx: &mut Tx| step.run(tx, user, workspace).await;
        compare(&db, &mut announced, &mut connection, what, cascades, write).await
    };
    let users = vec![Change::Users { id: user }];
    let workspaces = vec![Change::Workspaces { id: workspace }];
    let members = vec![Change::Members { workspace_id: workspace, user_id: user }];
    let sessions = vec![Change::Sessions { user_id: user }];
    let document = DocumentId::new();
    let documents = vec![Change::Documents { id: document, workspace_id: workspace }];
    assert_eq!(step("insert user", Step::InsertUser, &[]).await, users);
    assert_eq!(step("update user", Step::UpdateUser, &[]).await, users);
    assert_eq!(step("raise epoch", Step::RaiseEpoch, &[]).await, users);
    assert_eq!(step("set password", Step::SetPassword, &[]).await, users);
    assert_eq!(step("begin session", Step::BeginSession, &[]).await, []);
    assert_eq!(step("end sessions", Step::EndSessions, &[]).await, sessions);
    assert_eq!(step("insert workspace", Step::InsertWorkspace, &[]).await, workspaces);
    assert_eq!(step("update workspace", Step::UpdateWorkspace, &[]).await, workspaces);
    assert_eq!(step("insert member", Step::InsertMember, &[]).await, members);
    assert_eq!(step("set role", Step::SetRole, &[]).await, members);
    assert_eq!(step("insert document", Step::InsertDocument(document), &[]).await, documents);
    assert_eq!(step("update document", Step::UpdateDocument(document), &[]).await, documents);
    assert_eq!(step("delete document", Step::DeleteDocument(document), &[]).await, documents);

    let (channel, message) = (ChannelId::new(), MessageId::new());
    let channels = vec![Change::Channels { id: channel, workspace_id: workspace }];
    let seats = vec![Change::ChannelMembers { channel_id: channel, user_id: user }];
    let messages = vec![Change::Messages { channel_id: channel }];
    assert_eq!(step("insert channel", Step::InsertChannel(channel), &[]).await, channels);
    assert_eq!(step("update channel", Step::UpdateChannel(channel), &[]).await, channels);
    assert_eq!(step("insert channel member", Step::InsertChannelMember(channel), &[]).await, seats);
    assert_eq!(step("insert it again", Step::InsertNoChannelMember(channel), &[]).await, []);
    assert_eq!(step("delete channel member", Step::DeleteChannelMember(channel), &[]).await, seats);
    assert_eq!(step("insert message", Step::InsertMessage(channel, message), &[]).await, messages);
    assert_eq!(step("insert message again", Step::InsertNoMessage(channel), &[]).await, []);
    assert_eq!(step("edit message", Step::EditMessage(message), &[]).await, messages);
    assert_eq!(step("bury message", Step::BuryMessage(message), &[]).await, messages);
    // With a member of the workspace goes his seat in each channel, with a channel what is in it.
    let both = |one: &[Change], other: &[Change]| {
        let mut both = [one, other].concat();
        both.sort_unstable();
        both
    };
    step("insert channel member", Step::InsertChannelMember(channel), &[]).await;
    assert_eq!(step("delete member", Step::DeleteMember, &seats).await, both(&members, &seats));
    step("insert member", Step::InsertMember, &[]).await;
    step("insert channel member", Step::InsertChannelMember(channel), &[]).await;
    let inside = both(&seats, &messages);
    let deleted = step("delete channel", Step::DeleteChannel(channel), &inside).await;
    assert_eq!(deleted, both(&channels, &inside));

    assert_eq!(step("delete member", Step::DeleteMember, &[]).await, members);
    assert_eq!(step("delete workspace", Step::DeleteWorkspace, &[]).await, workspaces);
    assert_eq!(step("nothing", Step::Nothing, &[]).await, []);
}

enum Step {
    InsertUser,
    UpdateUser,
    RaiseEpoch,
    SetPassword,
    BeginSession,
    EndSessions,
    InsertWorkspace,
    UpdateWorkspace,
    InsertMember,
    SetRole,
    InsertDocument(DocumentId),
    UpdateDocument(DocumentId),
    DeleteDocument(DocumentId),
    InsertChannel(ChannelId),
    UpdateChannel(ChannelId),
    DeleteChannel(ChannelId),
    InsertChannelMember(ChannelId),
    InsertNoChannelMember(ChannelId),
    DeleteChannelMember(ChannelId),
    InsertMessage(ChannelId, MessageId),
    InsertNoMessage(ChannelId),
    EditMessage(MessageId),
    BuryMessage(MessageId),
    DeleteMember,
    DeleteWorkspace,
    Nothing,
}

impl Step {
    async fn run(self, tx: &mut Tx, user: UserId, workspace: WorkspaceId) -> diesel::QueryResult<()> {
        let happened = match self {
            Self::InsertUser => {
                let new = NewUser { id: user, email: "ada@example.com", name: "Ada", password_hash: "x" };
                User::insert(tx, new).await?.is_some()
            }
            Self::UpdateUser => {
                let changes = ProfileChanges { name: Some("Ada L."), ..ProfileChanges::default() };
                User::update_profile(tx, user, &changes).await?.is_some()
            }
            Self::RaiseEpoch => User::raise_token_epoch(tx, user).await?.is_some(),
            Self::SetPassword => User::set_password(tx, user, "y").await?.is_some(),
            Self::BeginSession => {
                let until = chrono::Utc::now() + chrono::TimeDelta::days(1);
                Session::insert(tx, user, until, b"somewhere").await?.is_some()
            }
            Self::EndSessions => !Session::end_all(tx, user).await?.is_empty(),
            Self::InsertWorkspace => {
                let new = NewWorkspace { id: workspace, name: "W", slug: "w-1", description: "" };
                Workspace::insert(tx, new).await?.is_some()
            }
            Self::UpdateWorkspace => {
                let changes = WorkspaceChanges { name: Some("V"), ..WorkspaceChanges::default() };
                Workspace::update(tx, workspace, &changes).await?.is_some()
            }
            Self::InsertMember => Member::insert(tx, workspace, user, Role::Guest).await?.is_some(),
            Self::SetRole => Member::set_role(tx, workspace, user, Role::Admin).await?.is_some(),
            Self::InsertDocument(id) => {
                let new = NewDocument {
                    id,
                    workspace_id: workspace,
                    parent_id: None,
                    title: "D",
                    content: "",
                    author_id: user,
                    last_edited_by: user,
                };
                Document::insert(tx, new).await?.is_some()
            }
            Self::UpdateDocument(id) => {
                let present = Document::lock(tx, workspace, id).await?.unwrap();
                let changes = DocumentChanges { title: Some("E"), ..DocumentChanges::default() };
                Document::update(tx, &present, user, &changes).await?.is_some()
            }
            Self::DeleteDocument(id) => {
                let present = Document::lock(tx, workspace, id).await?.unwrap();
                Document::delete(tx, &present).await?.is_some()
            }
            Self::InsertChannel(id) => {
                let new = NewChannel {
                    id,
                    workspace_id: workspace,
                    name: "C",
                    topic: "",
                    is_private: false,
                    created_by: user,
                };
                Channel::insert(tx, new).await?.is_some()
            }
            Self::UpdateChannel(id) => {
                let changes = ChannelChanges { is_private: Some(true), ..ChannelChanges::default() };
                Channel::update(tx, id, &changes).await?.is_some()
            }
            Self::DeleteChannel(id) => Channel::delete(tx, id).await?.is_some(),
            Self::InsertChannelMember(id) => ChannelMember::insert(tx, workspace, id, user).await?.is_some(),
            Self::InsertNoChannelMember(id) => {
                ChannelMember::insert(tx, workspace, id, user).await?.is_none()
            }
            Self::DeleteChannelMember(id) => ChannelMember::delete(tx, id, user).await?.is_some(),
            Self::InsertMessage(channel, id) => {
                Message::insert(tx, &named_message(user, workspace, channel, id), &told(channel))
                    .await?
                    .is_some()
            }
            Self::InsertNoMessage(channel) => {
                let again = named_message(user, workspace, channel, MessageId::new());
                Message::insert(tx, &again, &told(channel)).await?.is_none()
            }
            Self::EditMessage(id) => Message::edit(tx, id, "N").await?.is_some(),
            Self::BuryMessage(id) => Message::bury(tx, id).await?.is_some(),
            Self::DeleteMember => Member::delete(tx, workspace, user).await?.is_some(),
            Self::DeleteWorkspace => Workspace::delete(tx, workspace).await?.is_some(),
            Self::Nothing => true,
        };
        assert!(happened);
        Ok(())
    }
}

fn told(channel: ChannelId) -> NewEvent {
    let audience = Audience::Channel(WorkspaceId::new(), channel);
    NewEvent::new(EventKind::MessageCreated, audience, "{}".to_owned())
}

/// A message that its author's client knows by name.
fn named_message(
    user: UserId,
    workspace: WorkspaceId,
    channel: ChannelId,
    id: MessageId,
) -> NewMessage<'static> {
    NewMessage {
        id,
        workspace_id: workspace,
        channel_id: channel,
        author_id: user,
        reply_to: None,
        content: "M",
        client_msg_id: Some("m-1"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_messages_of_a_channel_are_one_change_and_many_channels_are_everything() {
    let database = TestDatabase::new().await;
    let mut psql = database.connect().await;
    let (user, workspace) = (UserId::new(), WorkspaceId::new());
    let mut channels = [ChannelId::new(), ChannelId::new()];
    channels.sort_unstable();
    let [one, other] = channels;
    let prepare = format!(
        "INSERT INTO users (id, email, name, password_hash) VALUES ('{user}', 'ada@example.com', 'Ada', 'x');
        INSERT INTO workspaces (id, name, slug) VALUES ('{workspace}', 'W', 'w-1');
        INSERT INTO channels (id, workspace_id, name, created_by) VALUES
            ('{one}', '{workspace}', 'one', '{user}'), ('{other}', '{workspace}', 'other', '{user}')"
    );
    psql.batch_execute(&prepare).await.unwrap();
    recorded(&mut psql).await;
    let insert = |channel: &str| {
        format!(
            "INSERT INTO messages (id, workspace_id, channel_id, author_id, content)
            SELECT gen_random_uuid(), '{workspace}', {channel}, '{user}', 'M' FROM generate_series(1, 1500) AS n"
        )
    };
    let of_one = || Change::Messages { channel_id: one };
    let of_other = || Change::Messages { channel_id: other };
    let alternating = format!("CASE WHEN n % 2 = 0 THEN '{one}'::uuid ELSE '{other}' END");
    for (statement, expected) in [
        (insert(&format!("'{one}'")), vec![of_one()]),
        (insert(&alternating), vec![of_one(), of_other()]),
        ("UPDATE messages SET content = 'N'".to_owned(), vec![of_one(), of_other()]),
        (format!("UPDATE messages SET content = 'O' WHERE channel_id = '{other}'"), vec![of_other()]),
        // From one to the other, which changes both.
        (
            format!("UPDATE messages SET channel_id = '{one}' WHERE channel_id = '{other}'"),
            vec![of_one(), of_other()],
        ),
        ("DELETE FROM messages".to_owned(), vec![of_one()]),
        ("DELETE FROM messages".to_owned(), vec![]),
        (
            format!(
                "INSERT INTO channels (id, workspace_id, name, created_by)
                SELECT gen_random_uuid(), '{workspace}', n::text, '{user}' FROM generate_series(1, 1500) AS n"
            ),
            vec![Change::Everything],
        ),
    ] {
        psql.batch_execute(&statement).await.unwrap();
        assert_eq!(recorded(&mut psql).await, expected, "{statement}");
    }
}
