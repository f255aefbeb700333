//! `/v1/notifications`: never cached, not here and not by the client.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Path, Query},
};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{
    app::App,
    domain::id::{NotificationId, UserId},
    error::AppError,
    http::{
        body::{Body, OptionalBody},
        caller::Caller,
        cursor::Scope,
        params::PageQuery,
        reply,
    },
    models::notifications::Notification,
    queries::{
        notifications::{NotificationView, UnreadCount},
        view::{Page, View},
    },
    services::notifications::{self, ChangeNotification, ReadAll},
};

/// Which notifications.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct UnreadQuery {
    /// `true`: only those not read yet; `false`: only those read.
    #[param(value_type = Option<bool>)]
    unread: Option<String>,
}

impl UnreadQuery {
    fn unread(&self) -> Result<Option<bool>, AppError> {
        match self.unread.as_deref() {
            None => Ok(None),
            Some("true" | "1") => Ok(Some(true)),
            Some("false" | "0") => Ok(Some(false)),
            Some(_) => Err(AppError::parameter("unread", "must be true or false")),
        }
    }
}

fn scope(user: UserId, unread: Option<bool>) -> Scope {
    let list = match unread {
        None => "notifications",
        Some(true) => "unread_notifications",
        Some(false) => "read_notifications",
    };
    Scope::new(list, user.as_uuid())
}

pub(super) async fn list_notifications(
    app: Data<App>,
    caller: Caller,
    filter: Query<UnreadQuery>,
    page: Query<PageQuery>,
    request: HttpRequest,
) -> Result<HttpResponse, AppError> {
    let (user, unread, limit) = (caller.actor.user_id, filter.unread()?, page.limit()?);
    let before = page.position(&app.cursors, scope(user, unread))?;
    let rows = app
        .db
        .read(async |db| Notification::list_with_actors(db, user, unread, before, i64::from(limit) + 1).await)
        .await?;
    let page = Page::new(rows, limit, |(last, _)| app.cursors.sign(scope(user, unread), &last.id));
    let page = page.map(|(row, actor)| NotificationView::new(row, actor));
    reply::uncached(&app, &request, &View::page(page))
}

pub(super) async fn count_unread_notifications(
    app: Data<App>,
    caller: Caller,
    request: HttpRequest,
) -> Result<HttpResponse, AppError> {
    let user = caller.actor.user_id;
    let count = app.db.read(async |db| Notification::count_unread(db, user).await).await?;
    reply::uncached(&app, &request, &View::object(0, &UnreadCount::new(count)))
}

pub(super) async fn change_notification(
    app: Data<App>,
    caller: Caller,
    path: Path<NotificationId>,
    body: Body<ChangeNotification>,
) -> Result<HttpResponse, AppError> {
    reply::changed_uncached(&notifications::change(&app, caller.actor, path.into_inner(), body.0).await?)
}

pub(super) async fn read_all_notifications(
    app: Data<App>,
    caller: Caller,
    body: OptionalBody<ReadAll>,
) -> Result<HttpResponse, AppError> {
    reply::done(&notifications::read_all(&app, caller.actor, body.0).await?)
}
