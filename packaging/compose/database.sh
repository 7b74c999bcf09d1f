#!/usr/bin/env bash
# Makes a role that owns its database and is nothing more, so that row-level security holds it.
# The image of PostgreSQL runs it once, when it makes its own files.
set -euo pipefail

psql --set ON_ERROR_STOP=1 --set password="$(cat "${POSTGRES_PASSWORD_FILE:?}")" \
    --username "${POSTGRES_USER:-postgres}" --dbname postgres <<'SQL'
CREATE ROLE cascade LOGIN PASSWORD :'password';
CREATE DATABASE cascade OWNER cascade ENCODING 'UTF8' TEMPLATE template0;
SQL
