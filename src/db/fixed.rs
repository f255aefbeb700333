//! SQL whose text never changes: raw SQL, and statements that need not be put into words each time.

use std::{any::TypeId, cell::RefCell, collections::HashMap, marker::PhantomData, sync::OnceLock};

use diesel::{
    AppearsOnTable, Expression, QueryResult, SelectableExpression,
    expression::{TypedExpressionType, ValidGrouping, is_aggregate},
    pg::{Pg, PgQueryBuilder},
    query_builder::{AstPass, Query, QueryBuilder as _, QueryFragment, QueryId},
};

use crate::sharded::RandomState;

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

/// The text of one statement, made when it is first run. For those of which Diesel does not know that they always read the
/// same: inserts that may meet a conflict, and whatever has raw SQL in it.
#[derive(Default)]
pub struct Wording(OnceLock<Box<str>>);

impl Wording {
    /// That of the statement that will be given to it.
    #[must_use]
    pub const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// The statement, which must read the same each time: of an insert, one row, and every column given.
    pub const fn of<Q>(&'static self, statement: Q) -> Worded<Q> {
        Worded { text: Some(self), statement }
    }
}

/// A statement that is put into words once: building its text is half of what Diesel does for a statement. A query whose
/// type says all of its text, as Diesel has it by [`QueryId`], needs no [`Wording`] for that.
#[derive(Clone, Copy)]
pub struct Worded<Q> {
    text: Option<&'static Wording>,
    statement: Q,
}

impl<Q> Worded<Q> {
    pub(super) const fn by_type(statement: Q) -> Self {
        Self { text: None, statement }
    }
}

thread_local! {
    static TEXTS: RefCell<HashMap<TypeId, Box<str>, RandomState>> = RefCell::default();
}

impl<Q: QueryFragment<Pg> + QueryId> QueryFragment<Pg> for Worded<Q> {
    fn walk_ast<'b>(&'b self, out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        self.statement.walk_ast(out)
    }

    fn to_sql(&self, out: &mut PgQueryBuilder, backend: &Pg) -> QueryResult<()> {
        if let Some(Wording(text)) = self.text {
            if let Some(text) = text.get() {
                debug_assert_eq!(**text, *words(&self.statement, backend)?, "does not always read the same");
                out.push_sql(text);
                return Ok(());
            }
            let first = words(&self.statement, backend)?;
            out.push_sql(text.get_or_init(|| first.into()));
            return Ok(());
        }
        let Some(id) = Q::query_id() else { return self.statement.to_sql(out, backend) };
        TEXTS.with_borrow_mut(|texts| {
            if let Some(text) = texts.get(&id) {
                out.push_sql(text);
                return Ok(());
            }
            let text = words(&self.statement, backend)?;
            out.push_sql(&text);
            texts.insert(id, text.into());
            Ok(())
        })
    }
}

fn words(statement: &impl QueryFragment<Pg>, backend: &Pg) -> QueryResult<String> {
    let mut text = PgQueryBuilder::default();
    statement.to_sql(&mut text, backend)?;
    Ok(text.finish())
}

impl<Q: QueryId> QueryId for Worded<Q> {
    type QueryId = Q::QueryId;
    const HAS_STATIC_QUERY_ID: bool = Q::HAS_STATIC_QUERY_ID;
}

impl<Q: Query> Query for Worded<Q> {
    type SqlType = Q::SqlType;
}
