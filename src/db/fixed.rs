//! Raw SQL whose text never changes.

use std::marker::PhantomData;

use diesel::{
    AppearsOnTable, Expression, QueryResult, SelectableExpression,
    expression::{TypedExpressionType, ValidGrouping, is_aggregate},
    pg::Pg,
    query_builder::{AstPass, QueryFragment, QueryId},
};

/// Raw SQL as an expression, as [`diesel::dsl::sql`] makes it. A statement with one of those is prepared anew each time
/// that it is run, which is a round trip more; of this one Diesel knows that the text is all there is to it.
#[derive(Debug, Clone, Copy)]
pub struct Fixed<ST> {
    sql: &'static str,
    sql_type: PhantomData<ST>,
}

/// Raw SQL of this type. The compiler believes that it is.
#[must_use]
pub const fn fixed<ST>(sql: &'static str) -> Fixed<ST> {
    Fixed { sql, sql_type: PhantomData }
}

impl<ST: TypedExpressionType> Expression for Fixed<ST> {
    type SqlType = ST;
}

impl<ST> QueryFragment<Pg> for Fixed<ST> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql(self.sql);
        Ok(())
    }
}

/// Two of them have one type and different texts: statements are told apart by their text.
impl<ST> QueryId for Fixed<ST> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<ST, Source> SelectableExpression<Source> for Fixed<ST> where Self: Expression {}

impl<ST, Source> AppearsOnTable<Source> for Fixed<ST> where Self: Expression {}

impl<ST, Grouping> ValidGrouping<Grouping> for Fixed<ST> {
    type IsAggregate = is_aggregate::Never;
}
