-- Who is logged in, in the recipes for Flask, FastAPI and Express: one row for each browser.
create table login (id uuid primary key default gen_random_uuid(), user_id bigint not null);
