begin;
insert into payment (order_id) values (:order);
update orders set status = 'paid' where id = :order;
select notifier.publish(
    'payments', json_build_object('order', id, 'total', total), title => 'Paid: ' || total, tags => array['money']
) from orders where id = :order;
commit;
