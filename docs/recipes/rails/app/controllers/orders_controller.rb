class OrdersController < ApplicationController
  before_action :require_login

  def pay
    order_id = Integer(params[:id])
    ApplicationRecord.transaction do
      Notifier.publish("user/#{current_user_id}/orders", { order: order_id, status: "paid" })
      Payment.create!(order_id: order_id) # fails where it is paid already: then nothing is published
    end
    head :no_content
  rescue ActiveRecord::RecordNotUnique
    head :conflict
  end
end
