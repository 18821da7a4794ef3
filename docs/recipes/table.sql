create table orders (id int primary key, status text not null, total numeric(10, 2) not null);
select notifier.watch('orders', topic => 'orders/{id}');
