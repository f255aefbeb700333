//! `/v1/rate-limit`: where the caller stands. Asking is free.

use actix_web::{HttpRequest, HttpResponse, web::Data};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    app::App,
    error::AppError,
    http::{caller::Unmetered, reply},
    queries::view::View,
    rate_limit::{Charge, headers},
};

/// The limits of the caller.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RateLimits {
    object: &'static str,
    policies: Vec<PolicyState>,
}

/// A limit, and what is left of it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PolicyState {
    name: &'static str,
    /// Requests within any window.
    limit: u32,
    /// Seconds.
    window: u64,
    /// Requests that would pass now.
    remaining: u32,
    /// Seconds until there is more; 0 if all of it is there.
    reset: u64,
}

pub(super) async fn get_rate_limit(
    app: Data<App>,
    caller: Unmetered,
    request: HttpRequest,
) -> Result<HttpResponse, AppError> {
    let verdict = app.limits.look(caller.actor.user_id).await;
    let policies = verdict.quotas.iter().map(|quota| PolicyState {
        name: quota.policy.name,
        limit: quota.policy.rate.count,
        window: quota.policy.rate.window.as_secs(),
        remaining: quota.remaining,
        reset: headers::seconds(quota.reset),
    });
    let limits = RateLimits { object: "rate_limit", policies: policies.collect() };
    let mut response = reply::uncached(&app, &request, &View::object(0, &limits))?;
    headers::add(response.headers_mut(), app.limits.plan(Charge::Message), &verdict);
    Ok(response)
}
