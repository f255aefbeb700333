//! Who may do what: everybody tries everything, and what he gets does not depend on what is cached.

mod stage;
mod table;

use std::collections::BTreeSet;

use self::{
    stage::{Stage, Things},
    table::{OPEN, OWN, PRIVATE, Row},
};

/// Called by what they are in the workspace; who was removed was a member, and has read everything in it.
const CALLERS: [&str; 7] = ["nobody", "stranger", "removed", "guest", "member", "admin", "owner"];

async fn try_all(rows: &[Row], things: Things) {
    let mut stage = Stage::set().await;
    let (paths, _) = stage.remove().await;
    stage.is_told(&paths).await;
    for (name, expected) in rows {
        for (caller, status) in expected.iter().enumerate() {
            for cold in [true, false] {
                stage.try_as(name, caller, things, cold, *status).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_endpoint_answers_everybody_as_the_table_says_cold_and_cached() {
    try_all(OPEN, Things::Open).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_channel_is_there_for_those_who_are_in_it_and_for_no_admin() {
    try_all(PRIVATE, Things::Private).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_what_is_ones_own_one_may_do_more() {
    try_all(OWN, Things::Own).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_was_removed_sees_nothing_of_what_was_cached_for_him_with_the_token_at_once_and_soon_without()
{
    let stage = Stage::set().await;
    for has_token in [true, false] {
        let (paths, removal) = stage.remove().await;
        if has_token {
            for path in &paths {
                stage.removed().after(&removal).get(path).await.expect_problem(404, "not_found");
            }
        } else {
            stage.is_told(&paths).await;
        }
        for path in &paths {
            stage.removed().at(&stage.cold).get(path).await.expect_problem(404, "not_found");
            stage.removed().get(path).await.expect_problem(404, "not_found");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_endpoint_of_the_document_is_in_the_table() {
    let cluster = crate::support::Cluster::start(1).await;
    let document = crate::support::openapi::Document::of(&cluster.instances[0].client()).await;
    let known: BTreeSet<_> = document.operations().iter().map(|operation| operation.name()).collect();
    let listed: BTreeSet<_> = OPEN.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(known, listed);
    let rest = PRIVATE.iter().chain(OWN).find(|(name, _)| !known.contains(*name));
    assert!(rest.is_none(), "{rest:?}");
    // Whatever is in a channel, or in a workspace, is closed to outsiders.
    for (name, expected) in OPEN.iter().filter(|(name, _)| name.contains("{workspace}")) {
        assert_eq!(expected[..3], [401, 404, 404], "{name}");
    }
    let in_channels = |rows: &[Row]| -> BTreeSet<String> {
        rows.iter()
            .filter(|(name, _)| name.contains("{channel}"))
            .map(|(name, _)| (*name).to_owned())
            .collect()
    };
    assert_eq!(in_channels(OPEN), in_channels(PRIVATE), "all of them for private channels too");
}
