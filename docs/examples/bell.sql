create table notification (
    id bigint generated always as identity primary key, user_id int not null, text text not null, read_at timestamptz
);
select notifier.watch('notification', topic => 'user/{user_id}/bell');
