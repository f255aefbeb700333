//! Changing one's profile.

use serde::Deserialize;
use utoipa::ToSchema;

use crate::{
    app::App,
    auth::Actor,
    db::Written,
    domain::text::{AvatarUrl, PersonName, StatusText, Timezone},
    error::{AppError, Faults},
    http::body::{nullable, required},
    models::users::{ProfileChanges, User},
    queries::{users::UserView, view::View},
};

/// A merge patch of a profile.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeProfile {
    #[serde(default, deserialize_with = "required")]
    #[schema(value_type = String, required = false)]
    name: Option<String>,
    /// `null`: the name is shown.
    #[serde(default, deserialize_with = "nullable")]
    display_name: Option<Option<String>>,
    #[serde(default, deserialize_with = "nullable")]
    avatar_url: Option<Option<String>>,
    #[serde(default, deserialize_with = "required")]
    #[schema(value_type = String, required = false)]
    timezone: Option<String>,
    #[serde(default, deserialize_with = "nullable")]
    status_text: Option<Option<String>>,
}

/// Changes the caller's profile. A patch that changes nothing raises no version.
pub async fn change_profile(
    app: &App,
    actor: Actor,
    patch: ChangeProfile,
) -> Result<Written<View>, AppError> {
    let mut faults = Faults::default();
    let name = faults.optional("name", patch.name.map(|text| PersonName::parse(&text)));
    let display_name = faults.nullable("display_name", patch.display_name, PersonName::parse);
    let avatar_url = faults.nullable("avatar_url", patch.avatar_url, AvatarUrl::parse);
    let timezone = faults.optional("timezone", patch.timezone.map(|text| Timezone::parse(&text)));
    let status_text = faults.nullable("status_text", patch.status_text, StatusText::parse);
    faults.check(Some(()))?;
    app.db
        .write(async move |tx| {
            let changes = ProfileChanges {
                name: name.as_ref().map(PersonName::as_str),
                display_name: display_name.as_ref().map(|value| value.as_ref().map(PersonName::as_str)),
                avatar_url: avatar_url.as_ref().map(|value| value.as_ref().map(AvatarUrl::as_str)),
                timezone: timezone.as_ref().map(Timezone::as_str),
                status_text: status_text.as_ref().map(|value| value.as_ref().map(StatusText::as_str)),
            };
            let user = if changes.is_empty() {
                User::find(tx, actor.user_id).await?
            } else {
                User::update_profile(tx, actor.user_id, &changes).await?
            };
            let user = user.ok_or(AppError::NotFound)?;
            Ok(View::object(user.version, &UserView::own(user)))
        })
        .await
}
