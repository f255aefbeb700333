//! Ids with a type: a UUID, version 7, that knows what it names.
//!
//! A `UserId` can never stand where a `WorkspaceId` is meant. Ids made by one process only ever
//! grow, and ids in general sort roughly by the time at which they were made, which keeps indexes
//! compact. They are not secrets: knowing one must never be enough to see what it names.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use diesel::backend::Backend;
use diesel::deserialize::{self, FromSql, FromSqlRow};
use diesel::expression::AsExpression;
use diesel::pg::Pg;
use diesel::serialize::{self, Output, ToSql};
use diesel::sql_types;
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use uuid::Uuid;

/// Declares id types.
macro_rules! typed_ids {
    ($($(#[$doc:meta])+ $name:ident;)+) => {$(
        $(#[$doc])+
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash,
            Serialize, AsExpression, FromSqlRow,
        )]
        #[diesel(sql_type = sql_types::Uuid)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// A new id, greater than every earlier one of this process.
            #[expect(clippy::new_without_default, reason = "no id is the default one")]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }

            /// The bare UUID.
            pub const fn as_uuid(&self) -> Uuid {
                self.0
            }
        }

        impl From<Uuid> for $name {
            fn from(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }

        impl From<$name> for Uuid {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        /// By hand, for the sake of what it says of a text that is no id.
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(|_garbage| D::Error::custom("must be an id, which is a UUID"))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }

        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                let uuid = utoipa::openapi::KnownFormat::Uuid;
                utoipa::openapi::ObjectBuilder::new()
                    .schema_type(utoipa::openapi::Type::String)
                    .format(Some(utoipa::openapi::SchemaFormat::KnownFormat(uuid)))
                    .into()
            }
        }

        impl utoipa::ToSchema for $name {}

        impl ToSql<sql_types::Uuid, Pg> for $name {
            fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
                ToSql::<sql_types::Uuid, Pg>::to_sql(&self.0, out)
            }
        }

        impl FromSql<sql_types::Uuid, Pg> for $name {
            fn from_sql(bytes: <Pg as Backend>::RawValue<'_>) -> deserialize::Result<Self> {
                FromSql::<sql_types::Uuid, Pg>::from_sql(bytes).map(Self)
            }
        }
    )+};
}

typed_ids! {
    /// Names a user.
    UserId;
    /// Names a workspace.
    WorkspaceId;
    /// Names a session: one log-in and the refresh tokens that follow from it.
    SessionId;
    /// Names a document.
    DocumentId;
    /// Names a channel.
    ChannelId;
    /// Names a message.
    MessageId;
    /// Names a notification.
    NotificationId;
}

#[cfg(test)]
mod tests {
    use diesel::prelude::*;

    use super::*;

    diesel::table! {
        people (id) {
            id -> Uuid,
            home -> Nullable<Uuid>,
        }
    }

    #[derive(Queryable, Selectable, Insertable, Identifiable)]
    #[diesel(table_name = people, check_for_backend(Pg))]
    struct Person {
        id: UserId,
        home: Option<WorkspaceId>,
    }

    #[test]
    fn ids_are_version_7_and_grow() {
        let ids: Vec<UserId> = (0..1000).map(|_| UserId::new()).collect();
        assert!(ids.is_sorted_by(|earlier, later| earlier < later));
        assert!(ids.iter().all(|id| id.as_uuid().get_version_num() == 7));
    }

    #[test]
    fn an_id_is_a_plain_uuid_string_in_json_and_text() {
        let id = WorkspaceId::new();
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(json, format!("\"{id}\""));
        assert_eq!(serde_json::from_str::<WorkspaceId>(&json).unwrap(), id);
        assert_eq!(id.to_string().parse::<WorkspaceId>().unwrap(), id);
        assert_eq!(WorkspaceId::from(Uuid::from(id)), id);
        assert!("not-an-id".parse::<WorkspaceId>().is_err());
    }

    #[test]
    fn ids_are_bound_and_selected_by_diesel() {
        let (id, home) = (UserId::new(), WorkspaceId::new());
        let person = Person { id, home: Some(home) };
        let insert = diesel::insert_into(people::table).values(&person);
        assert!(diesel::debug_query::<Pg, _>(&insert).to_string().contains(&home.to_string()));

        let many = [id, UserId::new()];
        let query = people::table
            .filter(people::id.eq_any(many).and(people::home.eq(home)))
            .or_filter(people::id.eq(&id))
            .select(Person::as_select());
        assert!(diesel::debug_query::<Pg, _>(&query).to_string().contains(&id.to_string()));
    }
}
