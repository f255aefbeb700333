//! Who may do what. An endpoint that stands in no row fails the test that reads this.

/// What each of [`super::CALLERS`] gets.
pub type Row = (&'static str, [u16; 7]);

/// Things that the owner has made, open to the workspace; what is taken away or changed is made for it.
#[rustfmt::skip]
pub const OPEN: &[Row] = &[
    //                                                                   nobody stranger removed guest member admin owner
    ("GET /docs",                                                              [308, 308, 308, 308, 308, 308, 308]),
    ("GET /docs/{file}",                                                       [200, 200, 200, 200, 200, 200, 200]),
    ("GET /livez",                                                             [200, 200, 200, 200, 200, 200, 200]),
    ("GET /metrics",                                                           [200, 200, 200, 200, 200, 200, 200]),
    ("GET /openapi.json",                                                      [200, 200, 200, 200, 200, 200, 200]),
    ("GET /readyz",                                                            [200, 200, 200, 200, 200, 200, 200]),

    ("POST /v1/auth/login",                                                    [200, 200, 200, 200, 200, 200, 200]),
    ("POST /v1/auth/logout",                                                   [204, 204, 204, 204, 204, 204, 204]),
    ("POST /v1/auth/refresh",                                                  [200, 200, 200, 200, 200, 200, 200]),
    ("POST /v1/auth/register",                                                 [201, 201, 201, 201, 201, 201, 201]),

    ("GET /v1/events",                                                         [401, 200, 200, 200, 200, 200, 200]),
    ("POST /v1/events/ticket",                                                 [401, 201, 201, 201, 201, 201, 201]),

    ("GET /v1/admin/cache",                                                    [401, 403, 403, 403, 403, 403, 403]),
    ("GET /v1/admin/cache/entry",                                              [401, 403, 403, 403, 403, 403, 403]),
    ("POST /v1/admin/cache/invalidate",                                        [401, 403, 403, 403, 403, 403, 403]),
    ("POST /v1/admin/cache/delete-pattern",                                    [401, 403, 403, 403, 403, 403, 403]),
    ("GET /v1/rate-limit",                                                     [401, 200, 200, 200, 200, 200, 200]),
    ("GET /v1/notifications",                                                  [401, 200, 200, 200, 200, 200, 200]),
    ("GET /v1/notifications/unread-count",                                     [401, 200, 200, 200, 200, 200, 200]),
    ("POST /v1/notifications/read-all",                                        [401, 204, 204, 204, 204, 204, 204]),
    ("PATCH /v1/notifications/{notification}",                                 [401, 404, 404, 404, 404, 404, 200]),

    ("GET /v1/users/me",                                                       [401, 200, 200, 200, 200, 200, 200]),
    ("PATCH /v1/users/me",                                                     [401, 200, 200, 200, 200, 200, 200]),
    ("GET /v1/users/{user}",                                                   [401, 404, 404, 200, 200, 200, 200]),

    ("GET /v1/workspaces",                                                     [401, 200, 200, 200, 200, 200, 200]),
    ("POST /v1/workspaces",                                                    [401, 201, 201, 201, 201, 201, 201]),
    ("GET /v1/workspaces/{workspace}",                                         [401, 404, 404, 200, 200, 200, 200]),
    ("PATCH /v1/workspaces/{workspace}",                                       [401, 404, 404, 403, 403, 200, 200]),
    ("DELETE /v1/workspaces/{workspace}",                                      [401, 404, 404, 403, 403, 403, 204]),
    ("GET /v1/workspaces/{workspace}/search",                                  [401, 404, 404, 200, 200, 200, 200]),

    ("GET /v1/workspaces/{workspace}/members",                                 [401, 404, 404, 200, 200, 200, 200]),
    ("POST /v1/workspaces/{workspace}/members",                                [401, 404, 404, 403, 403, 201, 201]),
    ("GET /v1/workspaces/{workspace}/members/{user}",                          [401, 404, 404, 200, 200, 200, 200]),
    ("PATCH /v1/workspaces/{workspace}/members/{user}",                        [401, 404, 404, 403, 403, 200, 200]),
    ("DELETE /v1/workspaces/{workspace}/members/{user}",                       [401, 404, 404, 403, 403, 204, 204]),

    ("GET /v1/workspaces/{workspace}/documents",                               [401, 404, 404, 200, 200, 200, 200]),
    ("POST /v1/workspaces/{workspace}/documents",                              [401, 404, 404, 403, 201, 201, 201]),
    ("GET /v1/workspaces/{workspace}/documents/{document}",                    [401, 404, 404, 200, 200, 200, 200]),
    ("PATCH /v1/workspaces/{workspace}/documents/{document}",                  [401, 404, 404, 403, 200, 200, 200]),
    ("DELETE /v1/workspaces/{workspace}/documents/{document}",                 [401, 404, 404, 403, 204, 204, 204]),
    ("GET /v1/workspaces/{workspace}/documents/{document}/versions",           [401, 404, 404, 200, 200, 200, 200]),
    ("GET /v1/workspaces/{workspace}/documents/{document}/versions/{version}", [401, 404, 404, 200, 200, 200, 200]),

    ("GET /v1/workspaces/{workspace}/channels",                                [401, 404, 404, 200, 200, 200, 200]),
    ("POST /v1/workspaces/{workspace}/channels",                               [401, 404, 404, 403, 201, 201, 201]),
    ("GET /v1/workspaces/{workspace}/channels/{channel}",                      [401, 404, 404, 200, 200, 200, 200]),
    ("PATCH /v1/workspaces/{workspace}/channels/{channel}",                    [401, 404, 404, 403, 200, 200, 200]),
    ("DELETE /v1/workspaces/{workspace}/channels/{channel}",                   [401, 404, 404, 403, 403, 204, 204]),
    ("GET /v1/workspaces/{workspace}/channels/{channel}/members",              [401, 404, 404, 200, 200, 200, 200]),
    ("GET /v1/workspaces/{workspace}/channels/{channel}/members/{user}",       [401, 404, 404, 200, 200, 200, 200]),
    ("PUT /v1/workspaces/{workspace}/channels/{channel}/members/{user}",       [401, 404, 404, 403, 201, 201, 201]),
    ("DELETE /v1/workspaces/{workspace}/channels/{channel}/members/{user}",    [401, 404, 404, 403, 403, 204, 204]),
    ("GET /v1/workspaces/{workspace}/channels/{channel}/messages",             [401, 404, 404, 200, 200, 200, 200]),
    ("POST /v1/workspaces/{workspace}/channels/{channel}/messages",            [401, 404, 404, 201, 201, 201, 201]),
    ("GET /v1/workspaces/{workspace}/channels/{channel}/messages/{message}",   [401, 404, 404, 200, 200, 200, 200]),
    ("PATCH /v1/workspaces/{workspace}/channels/{channel}/messages/{message}", [401, 404, 404, 403, 403, 403, 200]),
    ("DELETE /v1/workspaces/{workspace}/channels/{channel}/messages/{message}", [401, 404, 404, 403, 403, 204, 204]),

    // Last, since they end the sessions of those who ask.
    ("POST /v1/auth/logout-all",                                               [401, 204, 204, 204, 204, 204, 204]),
    ("POST /v1/auth/password",                                                 [401, 204, 204, 204, 204, 204, 204]),
];

/// The same in a private channel that only the owner, who has made it, and the member are in.
#[rustfmt::skip]
pub const PRIVATE: &[Row] = &[
    //                                                                   nobody stranger removed guest member admin owner
    ("GET /v1/workspaces/{workspace}/channels/{channel}",                      [401, 404, 404, 404, 200, 404, 200]),
    ("PATCH /v1/workspaces/{workspace}/channels/{channel}",                    [401, 404, 404, 404, 200, 404, 200]),
    ("DELETE /v1/workspaces/{workspace}/channels/{channel}",                   [401, 404, 404, 404, 403, 404, 204]),
    ("GET /v1/workspaces/{workspace}/channels/{channel}/members",              [401, 404, 404, 404, 200, 404, 200]),
    ("GET /v1/workspaces/{workspace}/channels/{channel}/members/{user}",       [401, 404, 404, 404, 200, 404, 200]),
    ("PUT /v1/workspaces/{workspace}/channels/{channel}/members/{user}",       [401, 404, 404, 404, 201, 404, 201]),
    ("DELETE /v1/workspaces/{workspace}/channels/{channel}/members/{user}",    [401, 404, 404, 404, 403, 404, 204]),
    ("GET /v1/workspaces/{workspace}/channels/{channel}/messages",             [401, 404, 404, 404, 200, 404, 200]),
    ("POST /v1/workspaces/{workspace}/channels/{channel}/messages",            [401, 404, 404, 404, 201, 404, 201]),
    ("GET /v1/workspaces/{workspace}/channels/{channel}/messages/{message}",   [401, 404, 404, 404, 200, 404, 200]),
    ("PATCH /v1/workspaces/{workspace}/channels/{channel}/messages/{message}", [401, 404, 404, 404, 403, 404, 200]),
    ("DELETE /v1/workspaces/{workspace}/channels/{channel}/messages/{message}", [401, 404, 404, 404, 403, 404, 204]),
];

/// The same with what the caller has made himself, and with himself as the one it is about.
#[rustfmt::skip]
pub const OWN: &[Row] = &[
    //                                                                   nobody stranger removed guest member admin owner
    ("GET /v1/users/{user}",                                                   [401, 200, 200, 200, 200, 200, 200]),
    ("PUT /v1/workspaces/{workspace}/channels/{channel}/members/{user}",       [401, 404, 404, 201, 201, 201, 201]),
    ("DELETE /v1/workspaces/{workspace}/channels/{channel}/members/{user}",    [401, 404, 404, 204, 204, 204, 204]),
    ("DELETE /v1/workspaces/{workspace}/channels/{channel}",                   [401, 404, 404, 403, 204, 204, 204]),
    ("PATCH /v1/workspaces/{workspace}/channels/{channel}/messages/{message}", [401, 404, 404, 200, 200, 200, 200]),
    ("DELETE /v1/workspaces/{workspace}/channels/{channel}/messages/{message}", [401, 404, 404, 204, 204, 204, 204]),
    ("PATCH /v1/workspaces/{workspace}/members/{user}",                        [401, 404, 404, 403, 403, 200, 409]),
    ("DELETE /v1/workspaces/{workspace}/members/{user}",                       [401, 404, 404, 204, 204, 204, 409]),
];
