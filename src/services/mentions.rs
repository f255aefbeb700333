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
    // Those of both texts: what a name means depends on which longer ones there are.
    let candidates = Member::list_named_in(tx, workspace, &[before, text].join("\n")).await?;
    let known = named_in(before, &candidates);
    let mut named = named_in(text, &candidates);
    named.retain(|user| !known.contains(user));
    if let (Place::Channel(_, channel), false) = (place, named.is_empty()) {
        let users: Vec<_> = named.into_iter().collect();
        return Ok(ChannelReader::filter(tx, channel, &users).await?.into_iter().collect());
    }
    Ok(named)
}

/// Of the names that may follow an `@`, the longest is meant: `@Ada Lovelace` does not call a plain `Ada`.
fn named_in(text: &str, candidates: &[(UserId, String)]) -> BTreeSet<UserId> {
    let text = text.to_lowercase();
    let candidates: Vec<_> = candidates.iter().map(|(user, name)| (*user, name.to_lowercase())).collect();
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut named = BTreeSet::new();
    for (at, _) in text.match_indices('@') {
        let (before, rest) = text.split_at(at);
        let rest = rest.strip_prefix('@').unwrap_or_default();
        // An address such as `ada@example.com` names nobody.
        if before.ends_with(is_word) {
            continue;
        }
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
        let named = |text: &str| named_in(text, &people);
        assert_eq!(named("hello @ada, and @BOB!"), BTreeSet::from([ada, bob]));
        assert_eq!(named("@Ada Lovelace?"), BTreeSet::from([lovelace]));
        assert_eq!(named("(@ada) @ada lovelacey"), BTreeSet::from([ada]));
        assert_eq!(named("bob@bob.com @bobby @bob_ ada @ ada"), BTreeSet::new());
    }
}
