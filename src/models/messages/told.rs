//! A message and the event that tells of it in one statement, which Diesel has no words for: both are there or neither.

use diesel::{
    QueryResult,
    pg::Pg,
    query_builder::{AstPass, Query, QueryFragment, QueryId},
    sql_types::{Nullable, Text, Uuid},
};

use super::NewEvent;

/// Returns what `insert` returns of the message that it inserts, if it does, and then inserts the event too.
pub(super) struct Told<'a, Q> {
    pub(super) insert: Q,
    pub(super) event: &'a NewEvent,
}

impl<Q: QueryFragment<Pg>> QueryFragment<Pg> for Told<'_, Q> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        let NewEvent { kind, audience, user_id, workspace_id, channel_id, data } = self.event;
        out.push_sql("WITH inserted AS (");
        self.insert.walk_ast(out.reborrow())?;
        out.push_sql("), told AS (INSERT INTO events (kind, audience, user_id, workspace_id, channel_id, data) SELECT ");
        out.push_bind_param::<Text, _>(kind)?;
        out.push_sql(", ");
        out.push_bind_param::<Text, _>(audience)?;
        out.push_sql(", ");
        out.push_bind_param::<Nullable<Uuid>, _>(user_id)?;
        out.push_sql(", ");
        out.push_bind_param::<Nullable<Uuid>, _>(workspace_id)?;
        out.push_sql(", ");
        out.push_bind_param::<Nullable<Uuid>, _>(channel_id)?;
        out.push_sql(", ");
        out.push_bind_param::<Text, _>(data)?;
        out.push_sql(" FROM inserted) SELECT * FROM inserted");
        Ok(())
    }
}

impl<Q: Query> Query for Told<'_, Q> {
    type SqlType = Q::SqlType;
}

impl<Q: QueryId> QueryId for Told<'_, Q> {
    type QueryId = Told<'static, Q::QueryId>;
    const HAS_STATIC_QUERY_ID: bool = Q::HAS_STATIC_QUERY_ID;
}
