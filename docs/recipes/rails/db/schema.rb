ActiveRecord::Schema.define(version: 1) do
  # Who is logged in: one row for each browser.
  create_table :logins, id: :uuid do |t|
    t.bigint :user_id, null: false
  end

  create_table :payments do |t|
    t.bigint :order_id, null: false, index: { unique: true }
  end
end
