//! Who is named in a text: `@name` calls everybody of that name who can read it.

use std::collections::BTreeSet;

use diesel::QueryResult;

use crate::{
    db::Tx,
    domain::id::{ChannelId, UserId, WorkspaceId},
    models::{channels::ChannelReader, members::Member},
};

/// Where a text can be read.
#[derive(Debug, Clone, Copy)]
pub enum Place {
    /// By all members of a workspace.
    Workspace(WorkspaceId),
    /// By the readers of a channel.
    Channel(WorkspaceId, ChannelId),
}

/// Who is named in `text` and was not in `before`.
pub async fn newly_mentioned(
    tx: &mut Tx,
    place: Place,
    text: &str,
    before: &str,
) -> QueryResult<BTreeSet<UserId>> {
    if !text.contains('@') {
        return Ok(BTreeSet::new());
    }
    let (Place::Workspace(workspace) | Place::Channel(workspace, _)) = place;
    let (calls, calls_before) = (calls_of(text), calls_of(before));
    if calls.is_empty() {
        return Ok(BTreeSet::new());
    }
    // Those of both texts: what a name means depends on which longer ones there are.
    let all_calls: Vec<_> = calls.iter().chain(&calls_before).map(String::as_str).collect();
    let candidates = Member::list_named_in(tx, workspace, &all_calls.join("\n")).await?;
    let known = named_in(&calls_before, &candidates);
    let mut named = named_in(&calls, &candidates);
    named.retain(|user| !known.contains(user));
    if let (Place::Channel(_, channel), false) = (place, named.is_empty()) {
        let users: Vec<_> = named.into_iter().collect();
        return Ok(ChannelReader::filter(tx, channel, &users).await?.into_iter().collect());
    }
    Ok(named)
}

/// Calls that are looked at in one text, and how much of each: no name is longer.
const MOST_CALLS: usize = 50;
const CALL_CHARS: usize = 101;

/// What stands after each `@`, in lower case. An address such as `ada@example.com` calls nobody.
fn calls_of(text: &str) -> Vec<String> {
    let calls = text.match_indices('@').filter(|(at, _)| !text.split_at(*at).0.ends_with(is_word));
    let calls = calls.map(|(at, _)| text.split_at(at).1.chars().take(CALL_CHARS).collect::<String>());
    calls.map(|call| call.to_lowercase()).take(MOST_CALLS).collect()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Of the names that may follow an `@`, the longest is meant: `@Ada Lovelace` does not call a plain `Ada`.
fn named_in(calls: &[String], candidates: &[(UserId, String)]) -> BTreeSet<UserId> {
    let candidates: Vec<_> = candidates.iter().map(|(user, name)| (*user, name.to_lowercase())).collect();
    let mut named = BTreeSet::new();
    for call in calls {
        let rest = call.strip_prefix('@').unwrap_or_default();
        let follows = |name: &str| rest.strip_prefix(name).is_some_and(|rest| !rest.starts_with(is_word));
        let meant: Vec<_> = candidates.iter().filter(|(_, name)| follows(name)).collect();
        let longest = meant.iter().map(|(_, name)| name.len()).max();
        named.extend(meant.iter().filter(|(_, name)| Some(name.len()) == longest).map(|(user, _)| *user));
    }
    named
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_after_an_at_sign_is_a_mention_unless_it_goes_on() {
        let (ada, lovelace, bob) = (UserId::new(), UserId::new(), UserId::new());
        let people =
            [(ada, "Ada".to_owned()), (lovelace, "Ada Lovelace".to_owned()), (bob, "bob".to_owned())];
        let named = |text: &str| named_in(&calls_of(text), &people);
        assert_eq!(named("hello @ada, and @BOB!"), BTreeSet::from([ada, bob]));
        assert_eq!(named("@Ada Lovelace?"), BTreeSet::from([lovelace]));
        assert_eq!(named("(@ada) @ada lovelacey"), BTreeSet::from([ada]));
        assert_eq!(named("bob@bob.com @bobby @bob_ ada @ ada"), BTreeSet::new());
    }
}
