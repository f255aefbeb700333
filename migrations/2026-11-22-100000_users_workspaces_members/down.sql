DROP VIEW workspace_details;
DROP TABLE members;
DROP TABLE workspaces;
DROP TABLE refresh_tokens;
DROP TABLE sessions;
DROP TABLE users;
