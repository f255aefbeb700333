//! The tables as Diesel knows them. A test compares this file with a migrated database.

diesel::table! {
    users (id) {
        id -> Uuid,
        email -> Text,
        name -> Text,
        display_name -> Nullable<Text>,
        avatar_url -> Nullable<Text>,
        timezone -> Text,
        status_text -> Nullable<Text>,
        password_hash -> Text,
        token_epoch -> Int4,
        is_active -> Bool,
        is_staff -> Bool,
        version -> Int8,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
    }
}

diesel::table! {
    sessions (id) {
        id -> Uuid,
        user_id -> Uuid,
        created_at -> Timestamptz,
        expires_at -> Timestamptz,
        ended_at -> Nullable<Timestamptz>,
        address_digest -> Nullable<Bytea>,
    }
}

diesel::table! {
    refresh_tokens (digest) {
        digest -> Bytea,
        session_id -> Uuid,
        created_at -> Timestamptz,
        replaced_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    workspaces (id) {
        id -> Uuid,
        name -> Text,
        slug -> Text,
        description -> Text,
        version -> Int8,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
    }
}

diesel::table! {
    members (workspace_id, user_id) {
        workspace_id -> Uuid,
        user_id -> Uuid,
        role -> Text,
        version -> Int8,
        joined_at -> Timestamptz,
        updated_at -> Timestamptz,
    }
}

diesel::table! {
    /// A view: a workspace with its owner of longest standing and its size.
    workspace_details (id) {
        id -> Uuid,
        name -> Text,
        slug -> Text,
        description -> Text,
        version -> Int8,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        owner_id -> Nullable<Uuid>,
        owner_name -> Nullable<Text>,
        owner_display_name -> Nullable<Text>,
        owner_avatar_url -> Nullable<Text>,
        member_count -> Int8,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use diesel_full_text_search::Tsvector;

    documents (id) {
        id -> Uuid,
        workspace_id -> Uuid,
        parent_id -> Nullable<Uuid>,
        title -> Text,
        content -> Text,
        author_id -> Uuid,
        last_edited_by -> Uuid,
        version -> Int8,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        words -> Tsvector,
    }
}

diesel::table! {
    document_versions (document_id, version) {
        document_id -> Uuid,
        version -> Int8,
        title -> Text,
        content -> Text,
        edited_by -> Uuid,
        created_at -> Timestamptz,
    }
}

diesel::table! {
    /// A view: a document with its author and its last editor.
    document_details (id) {
        id -> Uuid,
        workspace_id -> Uuid,
        parent_id -> Nullable<Uuid>,
        title -> Text,
        content -> Text,
        author_id -> Uuid,
        last_edited_by -> Uuid,
        version -> Int8,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        author_name -> Text,
        author_display_name -> Text,
        author_avatar_url -> Nullable<Text>,
        editor_name -> Text,
        editor_display_name -> Text,
        editor_avatar_url -> Nullable<Text>,
    }
}

diesel::table! {
    channels (id) {
        id -> Uuid,
        workspace_id -> Uuid,
        name -> Text,
        topic -> Text,
        is_private -> Bool,
        created_by -> Uuid,
        version -> Int8,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
    }
}

diesel::table! {
    channel_members (channel_id, user_id) {
        workspace_id -> Uuid,
        channel_id -> Uuid,
        user_id -> Uuid,
        version -> Int8,
        joined_at -> Timestamptz,
        updated_at -> Timestamptz,
    }
}

diesel::table! {
    /// A view: a channel with the person who made it.
    channel_details (id) {
        id -> Uuid,
        workspace_id -> Uuid,
        name -> Text,
        topic -> Text,
        is_private -> Bool,
        created_by -> Uuid,
        version -> Int8,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        creator_name -> Text,
        creator_display_name -> Text,
        creator_avatar_url -> Nullable<Text>,
    }
}

diesel::table! {
    /// A view: who reads what.
    channel_readers (channel_id, user_id) {
        channel_id -> Uuid,
        workspace_id -> Uuid,
        user_id -> Uuid,
        role -> Text,
        is_private -> Bool,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use diesel_full_text_search::Tsvector;

    messages (id) {
        id -> Uuid,
        workspace_id -> Uuid,
        channel_id -> Uuid,
        author_id -> Uuid,
        reply_to -> Nullable<Uuid>,
        content -> Text,
        client_msg_id -> Nullable<Text>,
        version -> Int8,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        edited_at -> Nullable<Timestamptz>,
        deleted_at -> Nullable<Timestamptz>,
        words -> Tsvector,
    }
}

diesel::table! {
    /// A view: a message with its author.
    message_details (id) {
        id -> Uuid,
        workspace_id -> Uuid,
        channel_id -> Uuid,
        author_id -> Uuid,
        reply_to -> Nullable<Uuid>,
        content -> Text,
        client_msg_id -> Nullable<Text>,
        version -> Int8,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        edited_at -> Nullable<Timestamptz>,
        deleted_at -> Nullable<Timestamptz>,
        author_name -> Text,
        author_display_name -> Text,
        author_avatar_url -> Nullable<Text>,
    }
}

diesel::table! {
    notifications (id) {
        id -> Uuid,
        user_id -> Uuid,
        workspace_id -> Uuid,
        kind -> Text,
        actor_id -> Uuid,
        channel_id -> Nullable<Uuid>,
        message_id -> Nullable<Uuid>,
        document_id -> Nullable<Uuid>,
        version -> Int8,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        read_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    events (id) {
        id -> Int8,
        xid -> Int8,
        written_at -> Timestamptz,
        kind -> Text,
        audience -> Text,
        user_id -> Nullable<Uuid>,
        workspace_id -> Nullable<Uuid>,
        channel_id -> Nullable<Uuid>,
        data -> Text,
    }
}

diesel::table! {
    event_tickets (digest) {
        digest -> Bytea,
        user_id -> Uuid,
        session_id -> Uuid,
        token_epoch -> Int4,
        token_expires_at -> Timestamptz,
        expires_at -> Timestamptz,
    }
}

diesel::table! {
    idempotency_keys (user_id, path, key) {
        user_id -> Uuid,
        path -> Text,
        key -> Text,
        fingerprint -> Bytea,
        location -> Text,
        etag -> Text,
        body -> Text,
        created_at -> Timestamptz,
    }
}

diesel::table! {
    cache_journal (id) {
        id -> Int8,
        xid -> Int8,
        written_at -> Timestamptz,
        changes -> Jsonb,
        relayed -> Bool,
        relayed_in -> Nullable<Int8>,
    }
}

diesel::joinable!(sessions -> users (user_id));
diesel::joinable!(refresh_tokens -> sessions (session_id));
diesel::joinable!(members -> users (user_id));
diesel::joinable!(document_versions -> users (edited_by));
diesel::joinable!(channel_members -> users (user_id));
diesel::joinable!(channel_readers -> users (user_id));
diesel::joinable!(notifications -> users (actor_id));
diesel::joinable!(members -> workspace_details (workspace_id));
diesel::allow_tables_to_appear_in_same_query!(documents, document_details);
diesel::allow_tables_to_appear_in_same_query!(channels, messages, message_details);
diesel::allow_tables_to_appear_in_same_query!(channels, channel_members);
diesel::allow_tables_to_appear_in_same_query!(channel_details, channel_readers);
diesel::allow_tables_to_appear_in_same_query!(channel_readers, users);
diesel::allow_tables_to_appear_in_same_query!(events, members, channel_readers);
diesel::allow_tables_to_appear_in_same_query!(
    channel_members,
    document_versions,
    members,
    notifications,
    refresh_tokens,
    sessions,
    users,
    workspace_details,
    workspaces,
);
