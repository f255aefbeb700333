//! Every URL, in one table, with what it answers. Handlers translate: a read is a query, a write is a service.

mod admin;
mod auth;
mod channels;
mod docs;
mod documents;
mod events;
mod limits;
mod members;
mod messages;
mod notifications;
pub mod openapi;
mod ops;
mod search;
mod users;
mod workspaces;

use std::collections::BTreeMap;

use actix_web::{
    HttpResponse, Scope,
    guard::fn_guard,
    web::{self, ServiceConfig},
};

use self::openapi::{
    Resource,
    answers::{
        changed, changed_uncached, created, done, ensured, json, moved, new_secrets, page, secrets, text,
        uncached, view,
    },
    resource,
};
use crate::{
    error::AppError,
    http::middleware::V1,
    queries::{
        channels::{ChannelMemberView, ChannelView},
        documents::{DocumentVersionView, DocumentView},
        members::MemberView,
        messages::MessageView,
        notifications::{NotificationView, UnreadCount},
        search::SearchResult,
        users::UserView,
        view::Page,
        workspaces::WorkspaceView,
    },
    services::{events::IssuedTicket, sessions::Grant},
};

/// Mounts everything.
pub fn configure(config: &mut ServiceConfig) {
    // What is refused on its way has not met its URL, whose pattern Actix then looks for in the first of all scopes that
    // begin like it: one with all of them, which no request enters.
    let all = v1_resources().into_iter().map(|resource| web::resource(resource.path()));
    config.service(all.fold(web::scope(V1).guard(fn_guard(|_| false)), Scope::service));
    // Actix tries patterns one after another, most of them regular expressions: a request is shown only those that are as
    // long as it is.
    let mut by_length: BTreeMap<usize, Vec<Resource>> = BTreeMap::new();
    for resource in v1_resources() {
        by_length.entry(segments(V1) + segments(resource.path())).or_default().push(resource);
    }
    for (length, mut resources) in by_length {
        // What is asked for most is tried first: messages, and nearly everything is about a workspace. No two of them match
        // the same.
        let is_about = |resource: &Resource, what| resource.path().contains(what);
        resources.sort_by_key(|it| (!is_about(it, "/messages"), !is_about(it, "/workspaces")));
        let is_as_long = fn_guard(move |request| segments(request.head().uri.path()) == length);
        let v1 = web::scope(V1).guard(is_as_long);
        config.service(resources.into_iter().fold(v1, |v1, it| v1.service(it.into_routes(V1))));
    }
    // Only operators ask for these.
    for resource in root_resources() {
        config.service(resource.into_routes(""));
    }
    config.default_service(web::to(not_found));
}

/// How many parts a path has, or a pattern of which no parameter spans several.
fn segments(path: &str) -> usize {
    memchr::memchr_iter(b'/', path.as_bytes()).count()
}

fn root_resources() -> Vec<Resource> {
    vec![
        resource("/livez").get(ops::livez, text("Says that the process answers.", "text/plain")),
        resource("/readyz")
            .get(ops::readyz, text("Says whether to send requests here.", "text/plain").or(&[503])),
        resource("/metrics").get(ops::metrics, text("Numbers, for Prometheus.", "text/plain").or(&[500])),
        resource("/openapi.json").get(docs::get_openapi, json("This document.")),
        resource("/docs").get(docs::get_docs, moved("This document, for people.")),
        resource("/docs/{file:.*}").get(docs::get_docs_file, text("A part of that page.", "*/*").or(&[500])),
    ]
}

fn v1_resources() -> Vec<Resource> {
    vec![
        resource("/auth/register")
            .post(auth::register, new_secrets::<Grant>("Makes an account and signs it in.").or(&[409])),
        resource("/auth/login").post(auth::log_in, secrets::<Grant>("Signs in.").or(&[401])),
        resource("/auth/refresh").post(
            auth::refresh,
            secrets::<Grant>("Takes a refresh token and gives the next one.").or(&[401]),
        ),
        resource("/auth/logout").post(auth::log_out, done("Ends the session of a refresh token.")),
        resource("/auth/logout-all")
            .post(auth::log_out_everywhere, done("Ends every session of the caller, on every instance.")),
        resource("/auth/password")
            .post(auth::change_password, done("Sets a new password and ends every session.")),
        resource("/users/me")
            .get(users::get_own_profile, view::<UserView>("The caller's profile."))
            .patch(users::change_profile, changed::<UserView>("Changes the caller's profile.")),
        resource("/users/{user}")
            .get(users::get_user, view::<UserView>("The profile of somebody who shares a workspace.")),
        resource("/workspaces")
            .get(
                workspaces::list_workspaces,
                page::<WorkspaceView>("The caller's workspaces, in the order of their making."),
            )
            .post(workspaces::create_workspace, created::<WorkspaceView>("Makes a workspace.")),
        resource("/workspaces/{workspace}")
            .get(workspaces::get_workspace, view::<WorkspaceView>("A workspace."))
            .patch(workspaces::change_workspace, changed::<WorkspaceView>("Changes a workspace."))
            .delete(workspaces::delete_workspace, done("Deletes a workspace and everything in it.")),
        resource("/workspaces/{workspace}/members")
            .get(members::list_members, page::<MemberView>("The members, longest standing first."))
            .post(members::add_member, created::<MemberView>("Adds a member.")),
        resource("/workspaces/{workspace}/members/{user}")
            .get(members::get_member, view::<MemberView>("A member."))
            .patch(members::change_member, changed::<MemberView>("Gives a member another role."))
            .delete(members::remove_member, done("Removes a member, or leaves.")),
        resource("/workspaces/{workspace}/documents")
            .get(
                documents::list_documents,
                page::<DocumentView>("The documents, newest first, without their contents."),
            )
            .post(documents::create_document, created::<DocumentView>("Makes a document.")),
        resource("/workspaces/{workspace}/documents/{document}")
            .get(documents::get_document, view::<DocumentView>("A document."))
            .patch(
                documents::change_document,
                changed::<DocumentView>("Changes a document that the caller has seen."),
            )
            .delete(documents::delete_document, done("Deletes a document that the caller has seen.")),
        resource("/workspaces/{workspace}/documents/{document}/versions").get(
            documents::list_document_versions,
            page::<DocumentVersionView>("The versions, newest first, without their contents."),
        ),
        resource("/workspaces/{workspace}/documents/{document}/versions/{version}")
            .get(documents::get_document_version, view::<DocumentVersionView>("A version.")),
        resource("/workspaces/{workspace}/channels")
            .get(
                channels::list_channels,
                page::<ChannelView>("The channels that the caller reads, in the order of their making."),
            )
            .post(channels::create_channel, created::<ChannelView>("Makes a channel.")),
        resource("/workspaces/{workspace}/channels/{channel}")
            .get(channels::get_channel, view::<ChannelView>("A channel."))
            .patch(channels::change_channel, changed::<ChannelView>("Changes a channel."))
            .delete(channels::delete_channel, done("Deletes a channel and everything in it.")),
        resource("/workspaces/{workspace}/channels/{channel}/members").get(
            channels::list_channel_members,
            page::<ChannelMemberView>("The members of a channel, longest standing first."),
        ),
        resource("/workspaces/{workspace}/channels/{channel}/members/{user}")
            .get(channels::get_channel_member, view::<ChannelMemberView>("A member of a channel."))
            .put(
                channels::add_channel_member,
                ensured::<ChannelMemberView>("Puts a member of the workspace into a channel."),
            )
            .delete(channels::remove_channel_member, done("Takes somebody out of a channel, or leaves it.")),
        resource("/workspaces/{workspace}/channels/{channel}/messages")
            .get(messages::list_messages, page::<MessageView>("The messages, newest first."))
            .post(messages::send_message, ensured::<MessageView>("Sends a message.")),
        resource("/workspaces/{workspace}/channels/{channel}/messages/{message}")
            .get(messages::get_message, view::<MessageView>("A message."))
            .patch(messages::edit_message, changed::<MessageView>("Edits a message of the caller."))
            .delete(messages::delete_message, done("Leaves a tombstone in a message's place.")),
        resource("/workspaces/{workspace}/search").get(
            search::search,
            page::<SearchResult>("Documents and messages in which the words occur, best first."),
        ),
        resource("/notifications").get(
            notifications::list_notifications,
            uncached::<Page<NotificationView>>("The caller's notifications, newest first."),
        ),
        resource("/notifications/unread-count").get(
            notifications::count_unread_notifications,
            uncached::<UnreadCount>("How many notifications were not read."),
        ),
        resource("/notifications/read-all")
            .post(notifications::read_all_notifications, done("Marks notifications as read.")),
        resource("/notifications/{notification}").patch(
            notifications::change_notification,
            changed_uncached::<NotificationView>("Marks a notification as read, or as not."),
        ),
        resource("/admin/cache").get(
            admin::get_cache,
            uncached::<admin::CacheStats>("How this instance's cache is doing. Staff only."),
        ),
        resource("/admin/cache/invalidate").post(
            admin::invalidate_cache,
            changed_uncached::<admin::Invalidated>("Invalidates tags on every instance. Staff only."),
        ),
        resource("/admin/cache/delete-pattern").post(
            admin::delete_cache_pattern,
            done("Deletes entries by a pattern of their keys, on every instance. Staff only."),
        ),
        resource("/admin/cache/entry").get(
            admin::explain_cache_entry,
            uncached::<admin::CacheEntry>("What a key holds, and why it is or is not fresh. Staff only."),
        ),
        resource("/rate-limit").get(
            limits::get_rate_limit,
            uncached::<limits::RateLimits>("How much the caller may ask, and has. Free of charge."),
        ),
        resource("/events").get(
            events::stream_events,
            text("What happens, as it happens: server-sent events.", "text/event-stream"),
        ),
        resource("/events/ticket").post(
            events::create_event_ticket,
            new_secrets::<IssuedTicket>("Gives out a ticket to the stream of events."),
        ),
    ]
}

async fn not_found() -> Result<HttpResponse, AppError> {
    Err(AppError::NotFound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_parameter_of_a_pattern_spans_several_parts_of_a_path() {
        for path in v1_resources().iter().map(Resource::path) {
            assert!(!path.contains([':', '*']), "{path} would be found in paths of its own length only");
        }
    }
}
