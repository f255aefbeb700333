//! `/v1/users`.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Path},
};

use crate::{
    app::App,
    domain::id::UserId,
    error::AppError,
    http::{body::Body, caller::Caller, reply},
    queries::users::{MaySee, OwnProfile, UserById},
    services::users::{self, ChangeProfile},
};

pub(super) async fn get_own_profile(
    app: Data<App>,
    caller: Caller,
    request: HttpRequest,
) -> Result<HttpResponse, AppError> {
    reply::cached(&app, &request, &caller, OwnProfile(caller.actor.user_id)).await
}

pub(super) async fn change_profile(
    app: Data<App>,
    caller: Caller,
    body: Body<ChangeProfile>,
) -> Result<HttpResponse, AppError> {
    reply::changed(&users::change_profile(&app, caller.actor, body.0).await?)
}

pub(super) async fn get_user(
    app: Data<App>,
    caller: Caller,
    path: Path<UserId>,
    request: HttpRequest,
) -> Result<HttpResponse, AppError> {
    let (viewer, user, token) = (caller.actor.user_id, path.into_inner(), caller.token.as_ref());
    let allowed = async {
        if viewer != user {
            let may_see = app.queries.get(MaySee { viewer, user }, token).await?.value;
            may_see.filter(|may_see| may_see.0).ok_or(AppError::NotFound)?;
        }
        Ok(())
    };
    reply::cached_if(allowed, &app, &request, &caller, UserById(user)).await
}
